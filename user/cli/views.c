// SPDX-License-Identifier: Apache-2.0
#include "cli/views.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const json_t *view_red(const json_t *item, const char *window, bool *ret_client)
{
	const json_t *server = json_object_get(json_object_get(item, "server"), window);
	const json_t *client = json_object_get(json_object_get(item, "client"), window);
	const json_t *edge = json_object_get(json_object_get(item, "red"), window);

	*ret_client = false;
	if (edge)
		return edge;
	if (!cli_whole(server, "requests") && cli_whole(client, "requests")) {
		*ret_client = true;
		return client;
	}
	return server;
}

const char *view_reason(const json_t *health)
{
	return cli_text(json_array_get(json_object_get(health, "reasons"), 0), "text");
}

static int health_rank(const json_t *item)
{
	static const char *const order[] = {"unhealthy", "degraded", "unknown", "healthy"};
	const char *state = cli_text(json_object_get(item, "health"), "state");

	for (int i = 0; i < 4; i++)
		if (!strcmp(state, order[i]))
			return i;
	return 4;
}

static struct {
	enum view_sort by;
	bool reverse, deps;
	const char *window;
} order; /* qsort() has no context argument in C17 */

static double key_of(const json_t *item)
{
	bool client;
	const json_t *red = view_red(item, order.window, &client);
	double v = 0;

	switch (order.by) {
	case SORT_RATE:
		v = cli_real(red, "rate");
		break;
	case SORT_ERRORS:
		v = cli_real(red, "error_ratio");
		break;
	case SORT_P99:
		v = cli_real(red, "p99_seconds");
		break;
	case SORT_CONNECTIONS:
		v = (double)cli_whole(item, "open_connections");
		break;
	case SORT_HEALTH:
		v = -health_rank(item);
		break;
	case SORT_NAME:
		break;
	}
	return isnan(v) ? -1e300 : v;
}

static int compare(const void *pa, const void *pb)
{
	const json_t *a = *(json_t *const *)pa, *b = *(json_t *const *)pb;
	double ka = key_of(a), kb = key_of(b);
	int r = ka < kb ? 1 : ka > kb ? -1 : 0;

	if (!r)
		r = strcmp(cli_text(a, order.deps ? "caller" : "name"),
			   cli_text(b, order.deps ? "caller" : "name"));
	if (!r)
		r = strcmp(cli_text(a, "destination"), cli_text(b, "destination"));
	return order.reverse ? -r : r;
}

void view_sort(json_t *items, enum view_sort by, bool reverse, const char *window, bool deps)
{
	size_t n = json_array_size(items);
	json_t **rows = calloc(n ? n : 1, sizeof(*rows));

	if (!rows)
		return;
	for (size_t i = 0; i < n; i++)
		rows[i] = json_incref(json_array_get(items, i));
	order.by = by;
	order.reverse = reverse;
	order.window = window;
	order.deps = deps;
	qsort(rows, n, sizeof(*rows), compare);
	for (size_t i = 0; i < n; i++)
		json_array_set_new(items, i, rows[i]);
	free(rows);
}

static void red_cells(struct cli_table *t, const json_t *red)
{
	char buf[16];

	cli_table_cell(t, cli_number(cli_real(red, "rate"), buf));
	cli_table_cell(t, cli_percent(cli_real(red, "error_ratio"), buf));
	cli_table_cell(t, cli_seconds(cli_real(red, "p50_seconds"), buf));
	cli_table_cell(t, cli_seconds(cli_real(red, "p95_seconds"), buf));
	cli_table_cell(t, cli_seconds(cli_real(red, "p99_seconds"), buf));
}

int view_services(struct cli_table **ret, const struct cli *c, const json_t *items,
		  const char *window)
{
	static const char *const headers[] = {"SERVICE", "SIDE", "RATE/s", "ERR%",
					      "P50",	 "P95",	 "P99",	   "CONNS",
					      "HEALTH",	 "KIND", "PID",	   "REASON"};
	int err = cli_table_new(ret, c, headers, 12);
	const json_t *item;
	size_t i;

	if (err)
		return err;
	cli_table_layout(*ret, 0xfc | 1u << 10, 1u << 9 | 1u << 10);
	json_array_foreach((json_t *)items, i, item)
	{
		bool client;
		const json_t *red = view_red(item, window, &client);
		const json_t *health = json_object_get(item, "health");
		char buf[16];

		cli_table_cell(*ret, cli_text(item, "name"));
		cli_table_cell(*ret, !cli_whole(red, "requests") ? "-"
				     : client			 ? "client"
								 : "server");
		red_cells(*ret, red);
		cli_table_cell(*ret, cli_number((double)cli_whole(item, "open_connections"), buf));
		cli_table_cell(*ret, cli_text(health, "state"));
		cli_table_cell(*ret, cli_text(item, "kind"));
		snprintf(buf, sizeof(buf), "%llu", (unsigned long long)cli_whole(item, "pid"));
		cli_table_cell(*ret, buf);
		cli_table_cell(*ret, view_reason(health));
	}
	return 0;
}

int view_deps(struct cli_table **ret, const struct cli *c, const json_t *items, const char *window)
{
	static const char *const headers[] = {"CALLER", "DESTINATION", "SERVICE", "RATE/s",
					      "ERR%",	"P50",	       "P95",	  "P99",
					      "CONNS",	"HEALTH",      "CIRCUIT", "REASON"};
	int err = cli_table_new(ret, c, headers, 12);
	const json_t *item;
	size_t i;

	if (err)
		return err;
	cli_table_layout(*ret, 0x1f8, 1u << 10);
	json_array_foreach((json_t *)items, i, item)
	{
		bool client;
		const json_t *health = json_object_get(item, "health");
		char buf[16];

		cli_table_cell(*ret, cli_text(item, "caller"));
		cli_table_cell(*ret, cli_text(item, "destination"));
		cli_table_cell(*ret, cli_text(item, "callee"));
		red_cells(*ret, view_red(item, window, &client));
		cli_table_cell(*ret, cli_number((double)cli_whole(item, "open_connections"), buf));
		cli_table_cell(*ret, cli_text(health, "state"));
		cli_table_cell(*ret, cli_text(item, "circuit"));
		cli_table_cell(*ret, view_reason(health));
	}
	return 0;
}
