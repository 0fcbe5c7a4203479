// SPDX-License-Identifier: Apache-2.0
/* services, service NAME, deps, probes, status: what is, as tables. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/views.h"
#include "core/clock.h"

#define LIST_WINDOW "1m"

typedef int (*print_fn)(struct cli *c, json_t *j);

/* GET, print, and once more every interval with --watch. */
int cli_show(struct cli *c, const char *path, print_fn print)
{
	for (;;) {
		json_t *j = NULL;
		int status = cli_get(c, path, &j);

		if (!status)
			status = c->output == CLI_JSON ? cli_print_json(j) : print(c, j);
		json_decref(j);
		if (cli_flush())
			return CLI_FAILED;
		if (!c->watch || status)
			return status;
		usleep((useconds_t)(cli_interval(c, NS_PER_SEC) / 1000));
		putchar('\n');
	}
}

static int print_services(struct cli *c, json_t *j)
{
	json_t *items = json_object_get(j, "items");
	struct cli_table *t;

	view_sort(items, SORT_RATE, false, LIST_WINDOW, false);
	if (view_services(&t, c, items, LIST_WINDOW))
		return CLI_FAILED;
	cli_table_print(&t, 0);
	return CLI_DONE;
}

int cli_services(struct cli *c)
{
	return cli_show(c, "/api/v1/services", print_services);
}

static int print_deps(struct cli *c, json_t *j)
{
	json_t *items = json_object_get(j, "items");
	struct cli_table *t;

	view_sort(items, SORT_RATE, false, LIST_WINDOW, true);
	if (view_deps(&t, c, items, LIST_WINDOW))
		return CLI_FAILED;
	cli_table_print(&t, 0);
	return CLI_DONE;
}

int cli_deps(struct cli *c)
{
	return cli_show(c, "/api/v1/dependencies", print_deps);
}

void cli_field(const char *name, const char *value)
{
	char safe[512];

	cli_safe(*value ? value : "-", safe, sizeof(safe));
	printf("%-14s %s\n", name, safe);
}

static void print_reasons(const json_t *health, const char *indent)
{
	const json_t *reason;
	size_t i;

	json_array_foreach(json_object_get(health, "reasons"), i, reason)
	{
		char safe[256], code[64];

		cli_safe(cli_text(reason, "text"), safe, sizeof(safe));
		cli_safe(cli_text(reason, "code"), code, sizeof(code));
		printf("%s%s (%s)\n", indent, safe, code);
	}
}

static void window_rows(struct cli_table *t, const char *side, const json_t *windows)
{
	static const char *const spans[] = {"10s", "1m", "5m", "1h"};

	for (int i = 0; i < 4; i++) {
		const json_t *red = json_object_get(windows, spans[i]);
		char buf[16];

		cli_table_cell(t, side);
		cli_table_cell(t, spans[i]);
		cli_table_cell(t, cli_number((double)cli_whole(red, "requests"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(red, "errors"), buf));
		cli_table_cell(t, cli_number(cli_real(red, "rate"), buf));
		cli_table_cell(t, cli_percent(cli_real(red, "error_ratio"), buf));
		cli_table_cell(t, cli_seconds(cli_real(red, "p50_seconds"), buf));
		cli_table_cell(t, cli_seconds(cli_real(red, "p95_seconds"), buf));
		cli_table_cell(t, cli_seconds(cli_real(red, "p99_seconds"), buf));
	}
}

static void print_labels(json_t *labels)
{
	const char *key;
	json_t *value;

	json_object_foreach(labels, key, value)
	{
		char buf[1024];

		snprintf(buf, sizeof(buf), "%s=%s", key,
			 json_is_string(value) ? json_string_value(value) : "");
		cli_field("label", buf);
	}
}

static int print_service(struct cli *c, json_t *j)
{
	static const char *const headers[] = {"SIDE", "WINDOW", "REQUESTS", "ERRORS", "RATE/s",
					      "ERR%", "P50",	"P95",	    "P99"};
	const json_t *health = json_object_get(j, "health");
	struct cli_table *t;
	char buf[32];

	cli_field("service", cli_text(j, "name"));
	cli_field("kind", cli_text(j, "kind"));
	cli_field("executable", cli_text(j, "executable"));
	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)cli_whole(j, "pid"));
	cli_field("pid", buf);
	cli_field("cgroup", cli_text(j, "cgroup"));
	if (*cli_text(j, "unit"))
		cli_field("unit", cli_text(j, "unit"));
	if (*cli_text(j, "container_id"))
		cli_field("container", cli_text(j, "container_id"));
	print_labels(json_object_get(j, "labels"));
	snprintf(buf, sizeof(buf), "%llu", (unsigned long long)cli_whole(j, "open_connections"));
	cli_field("connections", buf);
	cli_field("health", cli_text(health, "state"));
	print_reasons(health, "               ");
	putchar('\n');
	if (cli_table_new(&t, c, headers, 9))
		return CLI_FAILED;
	cli_table_layout(t, 0x1fc, 0);
	window_rows(t, "server", json_object_get(j, "server"));
	window_rows(t, "client", json_object_get(j, "client"));
	cli_table_print(&t, 0);
	return CLI_DONE;
}

int cli_service(struct cli *c)
{
	char path[1024] = "/api/v1/services/";

	if (c->argc != 1) {
		fprintf(stderr,
			"kilter: service: one NAME is expected; `kilter services` lists them\n");
		return CLI_USAGE;
	}
	if (cli_encode(c->args[0], path, sizeof(path)))
		return CLI_USAGE;
	return cli_show(c, path, print_service);
}

static int print_probes(struct cli *c, json_t *j)
{
	static const char *const headers[] = {"PROBE",	  "TIER",    "HOOKS", "EVENTS",
					      "NS/EVENT", "VERSION", "REASON"};
	const json_t *items = json_object_get(j, "items"), *p;
	struct cli_table *t;
	size_t i;

	if (!items)
		items = json_object_get(j, "probes");
	if (cli_table_new(&t, c, headers, 7))
		return CLI_FAILED;
	cli_table_layout(t, 1u << 3 | 1u << 4, 1u << 5);
	json_array_foreach(items, i, p)
	{
		double events = (double)cli_whole(p, "events");
		char buf[16];

		cli_table_cell(t, cli_text(p, "name"));
		cli_table_cell(t, json_is_true(json_object_get(p, "running")) ? cli_text(p, "tier")
									      : "off");
		cli_table_cell(t, cli_text(p, "hooks"));
		/* The kernel counts only while kernel.bpf_stats_enabled is on. */
		cli_table_cell(t, events > 0 ? cli_number(events, buf) : "-");
		cli_table_cell(t, events > 0
				      ? cli_number(cli_real(p, "run_seconds") * 1e9 / events, buf)
				      : "-");
		cli_table_cell(t, cli_text(p, "version"));
		cli_table_cell(t, cli_text(p, "reason"));
	}
	cli_table_print(&t, 0);
	return CLI_DONE;
}

int cli_probes(struct cli *c)
{
	if (c->argc && strcmp(c->args[0], "list")) {
		fprintf(stderr, "kilter: probes: unknown action '%s'; known: list\n", c->args[0]);
		return CLI_USAGE;
	}
	return cli_show(c, "/api/v1/probes", print_probes);
}

static int print_status(struct cli *c, json_t *j)
{
	const json_t *row;
	double up = cli_real(j, "uptime_seconds");
	char buf[128];
	size_t i;

	snprintf(buf, sizeof(buf), "%s (pid %llu, front %llu), up %.0fs", cli_text(j, "version"),
		 (unsigned long long)cli_whole(j, "pid"),
		 (unsigned long long)cli_whole(j, "front_pid"), isnan(up) ? 0 : up);
	cli_field("kilterd", buf);
	cli_field("ready", json_is_true(json_object_get(j, "ready")) ? "yes" : "no");
	cli_field("figures", json_is_true(json_object_get(j, "incomplete"))
				 ? "INCOMPLETE: something was lost in the last minute"
				 : "complete");
	cli_field("kernel", cli_text(j, "kernel"));
	cli_field("host", cli_text(j, "hostname"));
	cli_field("cgroup", cli_text(j, "cgroup"));
	cli_field("bpffs", cli_text(j, "bpffs"));
	if (*cli_text(j, "runtime"))
		cli_field("runtime", cli_text(j, "runtime"));
	snprintf(buf, sizeof(buf), "%llu, %llu late", (unsigned long long)cli_whole(j, "ticks"),
		 (unsigned long long)cli_whole(j, "ticks_late"));
	cli_field("ticks", buf);
	json_array_foreach(json_object_get(j, "startup"), i, row)
	{
		char t[16];

		snprintf(buf, sizeof(buf), "%.20s: %.60s in %s", cli_text(row, "name"),
			 cli_text(row, "result"), cli_seconds(cli_real(row, "took_seconds"), t));
		cli_field(i ? "" : "startup", buf);
	}
	json_array_foreach(json_object_get(j, "drops"), i, row)
	{
		if (!cli_whole(row, "total"))
			continue;
		snprintf(buf, sizeof(buf), "%llu %.16s/%.16s: %.64s",
			 (unsigned long long)cli_whole(row, "total"), cli_text(row, "where"),
			 cli_text(row, "reason"), cli_text(row, "text"));
		cli_field("dropped", buf);
	}
	putchar('\n');
	return print_probes(c, j);
}

int cli_status(struct cli *c)
{
	return cli_show(c, "/api/v1/status", print_status);
}

static void health_rows(struct cli_table *t, const char *kind, const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach((json_t *)rows, i, row)
	{
		char age[24];

		cli_table_cell(t, kind);
		cli_table_cell(t, cli_text(row, "name"));
		cli_table_cell(t, cli_text(row, "state"));
		cli_table_cell(t, cli_age(cli_text(row, "since"), age));
		cli_table_cell(t, view_reason(row));
	}
}

static int print_health(struct cli *c, json_t *j)
{
	static const char *const headers[] = {"KIND", "NAME", "STATE", "SINCE", "REASON"};
	json_t *node = json_array();
	struct cli_table *t;

	if (cli_table_new(&t, c, headers, 5))
		return CLI_FAILED;
	json_array_append(node, json_object_get(j, "node"));
	health_rows(t, "node", node);
	health_rows(t, "workload", json_object_get(j, "workloads"));
	health_rows(t, "edge", json_object_get(j, "edges"));
	health_rows(t, "probe", json_object_get(j, "probes"));
	json_decref(node);
	cli_table_print(&t, 0);
	return CLI_DONE;
}

int cli_print_object(struct cli *c, json_t *j)
{
	const char *key;
	json_t *v;

	(void)c;
	json_object_foreach(j, key, v)
	{
		char *text =
		    json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

		cli_field(key, text ? text : json_string_value(v) ? json_string_value(v) : "");
		free(text);
	}
	return CLI_DONE;
}

int cli_health(struct cli *c)
{
	return c->summary ? cli_show(c, "/api/v1/health/summary", cli_print_object)
			  : cli_show(c, "/api/v1/health", print_health);
}
