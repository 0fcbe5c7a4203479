// SPDX-License-Identifier: Apache-2.0
#include "kilterd_flags.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/kilter/kilter.yaml"

static void usage(FILE *f)
{
	fprintf(
	    f,
	    "usage: kilterd [--config FILE] [--check-config] [--listen ADDR:PORT] [--socket PATH]\n"
	    "               [--cgroup DIR] [--bpffs DIR] [--state-dir DIR] [--audit-file FILE]\n"
	    "               [--log-level debug|info|warn|error] [--log-format json|console]\n"
	    "               [--unpin] [--config-docs] [--version] [--help]\n"
	    "\n"
	    "Sees, from the kernel, how every service of this node is doing, and stops failures from\n"
	    "spreading. Runs in the foreground. SIGTERM and SIGINT stop it, SIGHUP reloads the\n"
	    "configuration and reopens the audit file. What it counted stays in the kernel, pinned\n"
	    "below --bpffs, for the next start; --unpin removes it at the end.\n");
}

static const struct {
	const char *flag, *field;
} flag_fields[] = {
    {"listen", "listen"},	{"socket", "socket"},	      {"cgroup", "cgroup"},
    {"bpffs", "bpffs"},		{"state-dir", "state_dir"},   {"audit-file", "audit.file"},
    {"log-level", "log.level"}, {"log-format", "log.format"},
};
#define FLAG_FIELDS (sizeof(flag_fields) / sizeof(flag_fields[0]))

int flags_parse(int argc, char **argv, struct flags *f)
{
	enum {
		OPT_CONFIG = 256,
		OPT_CHECK,
		OPT_UNPIN,
		OPT_DOCS,
		OPT_VERSION,
		OPT_HELP
	};
	struct option options[FLAG_FIELDS + 8] = {{0}};
	unsigned int n = 0;
	int c;

	for (; n < FLAG_FIELDS; n++)
		options[n] =
		    (struct option){flag_fields[n].flag, required_argument, NULL, (int)n + 1};
	options[n++] = (struct option){"config", required_argument, NULL, OPT_CONFIG};
	options[n++] = (struct option){"check-config", no_argument, NULL, OPT_CHECK};
	options[n++] = (struct option){"unpin", no_argument, NULL, OPT_UNPIN};
	options[n++] = (struct option){"config-docs", no_argument, NULL, OPT_DOCS};
	options[n++] = (struct option){"version", no_argument, NULL, OPT_VERSION};
	options[n] = (struct option){"help", no_argument, NULL, OPT_HELP};

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case OPT_CONFIG:
			f->file = optarg;
			break;
		case OPT_CHECK:
			f->check = true;
			break;
		case OPT_UNPIN:
			f->unpin = true;
			break;
		case OPT_DOCS:
			return config_write_docs(stdout) ? EXIT_RUNTIME : 0;
		case OPT_VERSION:
			printf("kilterd %s (%s)\n", KILTER_VERSION, KILTER_REVISION);
			return 0;
		case OPT_HELP:
			usage(stdout);
			return 0;
		default:
			if (c >= 1 && c <= (int)FLAG_FIELDS) {
				f->values[c - 1] = optarg;
				break;
			}
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "kilterd: '%s': no argument is expected besides the flags\n",
			argv[optind]);
		return EXIT_USAGE;
	}
	return -1;
}

int flags_read_config(struct config *c, const struct flags *f, config_fault_fn fault, void *ctx)
{
	int err = 0;

	config_defaults(c);
	if (f->file || !access(DEFAULT_CONFIG, F_OK))
		err = config_load(c, f->file ? f->file : DEFAULT_CONFIG, fault, ctx);
	if (config_env(c, fault, ctx))
		err = err ? err : -EINVAL;
	for (unsigned int i = 0; i < FLAG_FIELDS; i++) {
		char where[32];

		snprintf(where, sizeof(where), "--%s", flag_fields[i].flag);
		if (f->values[i] && config_set(c, flag_fields[i].field, f->values[i],
					       CONFIG_ORIGIN_FLAG, where, fault, ctx))
			err = err ? err : -EINVAL;
	}
	return err ? err : config_check(c, fault, ctx);
}
