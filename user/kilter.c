// SPDX-License-Identifier: Apache-2.0
/* kilter: the command line. Options may stand before or after the command. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/clock.h"
#include "core/config.h"

#define OPTIONS_MAX 32

static int number(const char *option, const char *value, unsigned int *ret)
{
	char *end;
	unsigned long v = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || v < 1 || v > 1000000000) {
		fprintf(stderr, "kilter: --%s '%s' is not a whole number from 1\n", option, value);
		return CLI_USAGE;
	}
	*ret = (unsigned int)v;
	return 0;
}

static int set_option(struct cli *c, int value)
{
	switch (value) {
	case 'o':
		if (!strcmp(optarg, "table"))
			c->output = CLI_TABLE;
		else if (!strcmp(optarg, "wide"))
			c->output = CLI_WIDE;
		else if (!strcmp(optarg, "json"))
			c->output = CLI_JSON;
		else {
			fprintf(stderr, "kilter: -o '%s' is not one of: table wide json\n", optarg);
			return CLI_USAGE;
		}
		return 0;
	case 's':
		c->socket = optarg;
		return 0;
	case 'b':
		c->bpffs = optarg;
		return 0;
	case 'w':
		c->watch = true;
		return 0;
	case 'i':
		if (config_parse_duration(optarg, &c->interval_ns) ||
		    c->interval_ns < 10 * NS_PER_MS || c->interval_ns > 3600 * NS_PER_SEC) {
			fprintf(stderr,
				"kilter: --interval '%s' is not a duration from 10ms to 1h\n",
				optarg);
			return CLI_USAGE;
		}
		return 0;
	case 'n':
		return number("count", optarg, &c->count);
	case 'l':
		return number("limit", optarg, &c->limit);
	case 'C':
		c->color = false;
		return 0;
	case 'H':
		c->headers = false;
		return 0;
	case 'S':
		c->summary = true;
		return 0;
	case 'A':
		c->all = true;
		return 0;
	case 'f':
		c->audit_file = optarg;
		return 0;
	case 'F':
		c->follow = true;
		return 0;
	case 'a':
		c->action = optarg;
		return 0;
	case 'e':
		c->service = optarg;
		return 0;
	case 'u':
		c->outcome = optarg;
		return 0;
	case 't':
		c->since = optarg;
		return 0;
	}
	return CLI_USAGE;
}

static const struct cli_command *find_command(const char *name)
{
	const char *names[32], *near;

	for (unsigned int i = 0; i < cli_commands_count; i++) {
		if (!strcmp(cli_commands[i].name, name))
			return &cli_commands[i];
		names[i] = cli_commands[i].name;
	}
	near = cli_suggest(name, names, cli_commands_count);
	fprintf(stderr, "kilter: unknown command '%s'%s%s%s; `kilter help` lists them\n", name,
		near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
	return NULL;
}

static const char *env(const char *name, const char *fallback)
{
	const char *v = getenv(name);

	return v && *v ? v : fallback;
}

int main(int argc, char **argv)
{
	struct option options[OPTIONS_MAX] = {{0}};
	const struct cli_command *command;
	struct cli c = {
	    .socket = env("KILTER_SOCKET", "/run/kilter/kilter.sock"),
	    .bpffs = env("KILTER_BPFFS", "/sys/fs/bpf/kilter"),
	    .audit_file = env("KILTER_AUDIT_FILE", NULL),
	    .headers = true,
	};
	int value, status;

	signal(SIGPIPE, SIG_DFL);
	c.color =
	    isatty(STDOUT_FILENO) && !*env("NO_COLOR", "") && strcmp(env("TERM", "dumb"), "dumb");
	for (unsigned int i = 0; i < cli_options_count; i++)
		options[i] = (struct option){cli_options[i].name,
					     cli_options[i].arg ? required_argument : no_argument,
					     NULL, cli_options[i].value};
	while ((value = getopt_long(argc, argv, "o:n:Fh", options, NULL)) != -1) {
		if (value == 'h')
			return cli_help(&c);
		if (value == 'V')
			return cli_version(&c);
		status = set_option(&c, value);
		if (status)
			return status;
	}
	if (optind == argc) {
		cli_help(&c);
		return CLI_USAGE;
	}
	command = find_command(argv[optind++]);
	if (!command)
		return CLI_USAGE;
	c.args = argv + optind;
	c.argc = argc - optind;
	if (c.argc && !*command->args) {
		fprintf(stderr, "kilter: %s takes no argument, here is '%s'\n", command->name,
			c.args[0]);
		return CLI_USAGE;
	}
	status = command->run(&c);
	cli_maps_free(&c.maps);
	if (fflush(stdout) || ferror(stdout))
		return CLI_FAILED;
	return status;
}
