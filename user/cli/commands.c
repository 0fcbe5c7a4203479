// SPDX-License-Identifier: Apache-2.0
/* The tables behind `kilter`: usage, completion and the man page's test all come from here. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

const struct cli_command cli_commands[] = {
    {"status", "", "version, kernel, tier of each probe, what was dropped", cli_status, false},
    {"top", "", "live: services by rate, errors, p50/p95/p99, connections, health", cli_top, true},
    {"services", "", "each workload: rate, errors, durations, health", cli_services, true},
    {"service", "NAME", "one workload over every window", cli_service, false},
    {"deps", "", "each edge caller -> destination", cli_deps, true},
    {"health", "", "node, workloads, edges, probes: state, since, reason", cli_health, false},
    {"circuits",
     "[list|show NAME|trip NAME|reset NAME|hold NAME|release NAME|force-open NAME|\n"
     "              force-closed NAME|disable NAME|release --all|arm]",
     "every circuit with its counters; manual control", cli_circuits, true},
    {"limits", "[list|show NAME|set NAME KEY=N...|reset NAME]",
     "rate limits and bulkheads: their fill and refusals", cli_limits, false},
    {"probes", "[list]", "kernel probes: tier, hooks, cost", cli_probes, false},
    {"bench", "", "what each kernel program costs on this node, over --interval", cli_bench, true},
    {"audit", "[tail|query]", "the audit trail", cli_audit, true},
    {"config", "[check FILE|show]", "the effective configuration, or a check of a file", cli_config,
     true},
    {"completion", "bash|zsh|fish", "a completion script", cli_completion, true},
    {"version", "", "the version of this command", cli_version, true},
    {"help", "", "this text", cli_help, true},
};
const unsigned int cli_commands_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

const struct cli_option cli_options[] = {
    {"output", "table|wide|json", "form of the output (also -o)", 'o'},
    {"socket", "PATH", "Unix socket of the daemon", 's'},
    {"bpffs", "DIR", "where the maps are pinned, when the daemon is down", 'b'},
    {"watch", NULL, "again and again", 'w'},
    {"interval", "TIME", "between two of them, such as 500ms or 2s", 'i'},
    {"count", "N", "frames of top, then stop; of audit as --limit (also -n)", 'n'},
    {"no-color", NULL, "as NO_COLOR=1", 'C'},
    {"no-headers", NULL, "rows only", 'H'},
    {"summary", NULL, "health: the roll-up alone", 'S'},
    {"all", NULL, "circuits release: everything, until `circuits arm`", 'A'},
    {"file", "PATH", "audit: file of the trail", 'f'},
    {"follow", NULL, "audit tail: go on as records come (also -F)", 'F'},
    {"limit", "N", "audit: the newest N records", 'l'},
    {"action", "NAME", "audit query: this event.action alone", 'a'},
    {"service", "NAME", "audit query: this service alone", 'e'},
    {"outcome", "NAME", "audit query: success, failure or unknown", 'u'},
    {"since", "TIME", "audit query: 10m, or 2026-01-31T12:00:00", 't'},
    {"help", NULL, "this text", 'h'},
    {"version", NULL, "the version of this command", 'V'},
};
const unsigned int cli_options_count = sizeof(cli_options) / sizeof(cli_options[0]);

int cli_version(struct cli *c)
{
	(void)c;
	printf("kilter %s (%s)\n", KILTER_VERSION, KILTER_REVISION);
	return CLI_DONE;
}

int cli_help(struct cli *c)
{
	(void)c;
	printf("usage: kilter COMMAND [ARGUMENTS] [OPTIONS]\n\n");
	for (unsigned int i = 0; i < cli_commands_count; i++)
		printf("  %-11s %s%s%s\n", cli_commands[i].name, cli_commands[i].args,
		       *cli_commands[i].args ? "\n              " : "", cli_commands[i].help);
	printf("\n");
	for (unsigned int i = 0; i < cli_options_count; i++) {
		char left[48];

		snprintf(left, sizeof(left), "--%s%s%s", cli_options[i].name,
			 cli_options[i].arg ? " " : "",
			 cli_options[i].arg ? cli_options[i].arg : "");
		printf("  %-26s %s\n", left, cli_options[i].help);
	}
	printf(
	    "\nExit status: 0 done, 1 failed, 2 bad usage, 3 not found, 4 daemon unreachable.\n");
	return CLI_DONE;
}

static void words(const char *separator, const char *prefix, bool options)
{
	unsigned int n = options ? cli_options_count : cli_commands_count;

	for (unsigned int i = 0; i < n; i++)
		printf("%s%s%s", i ? separator : "", prefix,
		       options ? cli_options[i].name : cli_commands[i].name);
}

int cli_completion(struct cli *c)
{
	const char *shell = c->argc == 1 ? c->args[0] : "";

	if (!strcmp(shell, "bash")) {
		printf(
		    "_kilter() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} "
		    "prev=${COMP_WORDS[COMP_CWORD-1]}\n\tcase $prev in\n"
		    "\t-o|--output) COMPREPLY=($(compgen -W \"table wide json\" -- \"$cur\")); return ;;\n"
		    "\tcircuits) COMPREPLY=($(compgen -W \"list show trip reset hold release "
		    "force-open force-closed disable arm\" -- \"$cur\")); return ;;\n"
		    "\tlimits) COMPREPLY=($(compgen -W \"list show set reset\" -- \"$cur\")); "
		    "return ;;\n"
		    "\taudit) COMPREPLY=($(compgen -W \"tail query\" -- \"$cur\")); return ;;\n"
		    "\tconfig) COMPREPLY=($(compgen -W \"check show\" -- \"$cur\")); return ;;\n"
		    "\tcompletion) COMPREPLY=($(compgen -W \"bash zsh fish\" -- \"$cur\")); return ;;\n"
		    "\tesac\n\tif [[ $cur == -* ]]; then\n\t\tCOMPREPLY=($(compgen -W \"");
		words(" ", "--", true);
		printf("\" -- \"$cur\"))\n\telse\n\t\tCOMPREPLY=($(compgen -W \"");
		words(" ", "", false);
		printf("\" -- \"$cur\"))\n\tfi\n}\ncomplete -F _kilter kilter\n");
		return CLI_DONE;
	}
	if (!strcmp(shell, "zsh")) {
		printf("#compdef kilter\n_kilter() {\n\tlocal -a commands\n\tcommands=(\n");
		for (unsigned int i = 0; i < cli_commands_count; i++)
			printf("\t\t'%s:%s'\n", cli_commands[i].name, cli_commands[i].help);
		printf("\t)\n\t_arguments -C \\\n");
		for (unsigned int i = 0; i < cli_options_count; i++)
			printf("\t\t'--%s[%s]%s' \\\n", cli_options[i].name, cli_options[i].help,
			       cli_options[i].arg ? ":value:" : "");
		printf(
		    "\t\t'1: :->command' '*::arg:_default'\n"
		    "\t[[ $state == command ]] && _describe command commands\n}\n_kilter \"$@\"\n");
		return CLI_DONE;
	}
	if (!strcmp(shell, "fish")) {
		for (unsigned int i = 0; i < cli_commands_count; i++)
			printf("complete -c kilter -f -n __fish_use_subcommand -a %s -d '%s'\n",
			       cli_commands[i].name, cli_commands[i].help);
		for (unsigned int i = 0; i < cli_options_count; i++)
			printf("complete -c kilter -l %s%s -d '%s'\n", cli_options[i].name,
			       cli_options[i].arg ? " -r" : "", cli_options[i].help);
		return CLI_DONE;
	}
	fprintf(stderr, "kilter: completion: one of bash, zsh, fish is expected\n");
	return CLI_USAGE;
}
