/* SPDX-License-Identifier: Apache-2.0 */
/* Services and dependencies as tables: shared by the list commands and by `top`. */
#ifndef KILTER_CLI_VIEWS_H
#define KILTER_CLI_VIEWS_H

#include "cli/cli.h"

enum view_sort {
	SORT_RATE,
	SORT_ERRORS,
	SORT_P99,
	SORT_CONNECTIONS,
	SORT_HEALTH,
	SORT_NAME
};

/* window: "10s" "1m" "5m" "1h". items is sorted in place (a JSON array). */
void view_sort(json_t *items, enum view_sort by, bool reverse, const char *window, bool deps);
int view_services(struct cli_table **ret, const struct cli *c, const json_t *items,
		  const char *window);
int view_deps(struct cli_table **ret, const struct cli *c, const json_t *items, const char *window);
/* The side that says most: server when it served anything in the window, else client. */
const json_t *view_red(const json_t *item, const char *window, bool *ret_client);
/* The first reason of a health object, or "". */
const char *view_reason(const json_t *health);

#endif
