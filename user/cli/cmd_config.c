// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/config.h"

static void print_fault(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "%s\n", text);
}

static int check(struct cli *c)
{
	const char *file = c->argc > 1 ? c->args[1] : "/etc/kilter/kilter.yaml";
	struct config *config = malloc(sizeof(*config));
	int err;

	if (!config) {
		fprintf(stderr, "kilter: out of memory\n");
		return CLI_FAILED;
	}
	config_defaults(config);
	err = config_load(config, file, print_fault, NULL);
	free(config);
	if (err)
		return CLI_USAGE;
	printf("%s: good\n", file);
	return CLI_DONE;
}

int cli_config(struct cli *c)
{
	static const char *const headers[] = {"KEY", "VALUE", "ORIGIN", "MEANING"};
	const char *verb = c->argc ? c->args[0] : "show";
	json_t *j = NULL, *row;
	struct cli_table *t;
	size_t i;
	int status;

	if (!strcmp(verb, "check"))
		return check(c);
	if (strcmp(verb, "show")) {
		fprintf(stderr, "kilter: config: unknown action '%s'; known: check show\n", verb);
		return CLI_USAGE;
	}
	status = cli_get(c, "/api/v1/config", &j);
	if (status)
		return status;
	if (c->output == CLI_JSON) {
		status = cli_print_json(j);
	} else if (cli_table_new(&t, c, headers, 4)) {
		status = CLI_FAILED;
	} else {
		cli_table_layout(t, 0, 1u << 3);
		json_array_foreach(json_object_get(j, "items"), i, row)
		{
			const char *key = cli_text(row, "path");

			cli_table_cell(t, *key ? key : cli_text(row, "key"));
			cli_table_cell(t, cli_text(row, "value"));
			cli_table_cell(t, cli_text(row, "origin"));
			cli_table_cell(t, cli_text(row, "doc"));
		}
		cli_table_print(&t, 0);
	}
	json_decref(j);
	return status;
}
