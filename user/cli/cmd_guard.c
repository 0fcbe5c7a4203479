// SPDX-License-Identifier: Apache-2.0
/* The guard: `kilter circuits`, `kilter limits`, and the switch, which works without a daemon. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/views.h"

static const char *const circuit_actions[] = {"trip",	    "reset",	    "hold",   "release",
					      "force-open", "force-closed", "disable"};
#define CIRCUIT_ACTIONS (sizeof(circuit_actions) / sizeof(circuit_actions[0]))

static int print_circuits(struct cli *c, json_t *j)
{
	static const char *const headers[] = {"CIRCUIT", "STATE",   "MODE",   "SINCE",
					      "CONSEC",	 "OK",	    "FAILED", "REFUSED",
					      "WOULD",	 "EXPIRED", "POLICY", "REASON"};
	const json_t *items = json_object_get(j, "items"), *row;
	struct cli_table *t;
	size_t i;

	if (cli_table_new(&t, c, headers, 12))
		return CLI_FAILED;
	cli_table_layout(t, 0x3f0, 1u << 9 | 1u << 10);
	json_array_foreach(items, i, row)
	{
		const char *forced = cli_text(row, "forced");
		char buf[24], state[64];

		snprintf(state, sizeof(state), "%s%s", cli_text(row, "state"),
			 *forced				      ? " (forced)"
			 : json_is_true(json_object_get(row, "held")) ? " (held)"
								      : "");
		cli_table_cell(t, cli_text(row, "name"));
		cli_table_cell(t, state);
		cli_table_cell(t, cli_text(row, "mode"));
		cli_table_cell(t, cli_age(cli_text(row, "since"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "consecutive_failures"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "successes"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "failures"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "refused"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "would_refuse"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "lease_expired"), buf));
		cli_table_cell(t, cli_text(row, "policy"));
		cli_table_cell(t, cli_text(row, "reason"));
	}
	cli_table_print(&t, 0);
	return CLI_DONE;
}

static int print_limits(struct cli *c, json_t *j)
{
	static const char *const headers[] = {"CIRCUIT", "MODE",  "RATE/S", "BURST",
					      "USED",	 "OPEN",  "PEAK",   "MAX",
					      "REFUSED", "WOULD", "POLICY"};
	const json_t *items = json_object_get(j, "items"), *row;
	struct cli_table *t;
	size_t i;

	if (cli_table_new(&t, c, headers, 11))
		return CLI_FAILED;
	cli_table_layout(t, 0x3fc, 0);
	json_array_foreach(items, i, row)
	{
		const json_t *refused = json_object_get(row, "refused");
		const json_t *would = json_object_get(row, "would_refuse");
		double rate = cli_real(row, "rate_limit");
		uint64_t max = cli_whole(row, "max_connections");
		char buf[24];

		cli_table_cell(t, cli_text(row, "name"));
		cli_table_cell(t, cli_text(row, "mode"));
		cli_table_cell(t, isnan(rate) ? "-" : cli_number(rate, buf));
		cli_table_cell(t, isnan(rate) ? "-"
					      : cli_number((double)cli_whole(row, "burst"), buf));
		cli_table_cell(t, isnan(rate) ? "-"
					      : cli_percent(cli_real(row, "rate_used_ratio"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "connections"), buf));
		cli_table_cell(t, cli_number((double)cli_whole(row, "connections_peak"), buf));
		cli_table_cell(t, max ? cli_number((double)max, buf) : "-");
		cli_table_cell(t, cli_number((double)(cli_whole(refused, "rate_limit") +
						      cli_whole(refused, "max_connections")),
					     buf));
		cli_table_cell(t, cli_number((double)(cli_whole(would, "rate_limit") +
						      cli_whole(would, "max_connections")),
					     buf));
		cli_table_cell(t, json_is_true(json_object_get(row, "by_hand"))
				      ? "(by hand)"
				      : cli_text(row, "policy"));
	}
	cli_table_print(&t, 0);
	return CLI_DONE;
}

static int post(struct cli *c, const char *path, const char *what)
{
	json_t *j = NULL;
	int status = cli_post(c, path, &j);

	if (!status && c->output == CLI_JSON)
		status = cli_print_json(j);
	else if (!status)
		cli_field(what, *cli_text(j, "message") ? cli_text(j, "message") : "done");
	json_decref(j);
	return status;
}

/* Everything, at once. A daemon that does not answer is not needed to let go. */
static int switch_all(struct cli *c, bool release)
{
	struct cli_response r;
	int err;

	err = cli_http(c->socket, "GET", "/health/live", &r);
	if (!err) {
		int status;

		free(r.body);
		status = post(c, release ? "/api/v1/guard/release" : "/api/v1/guard/arm", "guard");
		if (!status || !release || geteuid() ||
		    (c->http_status >= 400 && c->http_status < 500))
			return status;
		/* 504: the front lives, the agent is hung or starved. Or the front fell silent
		 * since. To turn a switch that is on already harms nobody. */
	} else if (!release) {
		fprintf(stderr, "kilter: circuits arm: the daemon is needed for that: %s: %s\n",
			c->socket, strerror(-err));
		return CLI_UNREACHABLE;
	}
	err = cli_maps_release(c);
	if (err) {
		fprintf(
		    stderr,
		    "kilter: circuits release --all: the daemon does not answer, and its switch "
		    "below %s cannot be written: %s\n",
		    c->bpffs, strerror(-err));
		return CLI_FAILED;
	}
	cli_field("guard", "the daemon does not answer; its switch in the kernel is on: nothing is "
			   "refused until `kilter circuits arm`");
	return CLI_DONE;
}

static bool is_action(const char *verb)
{
	for (unsigned int i = 0; i < CIRCUIT_ACTIONS; i++)
		if (!strcmp(verb, circuit_actions[i]))
			return true;
	return false;
}

int cli_circuits(struct cli *c)
{
	const char *verb = c->argc ? c->args[0] : "list";
	char path[1024] = "/api/v1/circuits/";

	if (!strcmp(verb, "list"))
		return cli_show(c, "/api/v1/circuits", print_circuits);
	if (!strcmp(verb, "arm") && c->argc == 1)
		return switch_all(c, false);
	if (!strcmp(verb, "release") && c->all && c->argc == 1)
		return switch_all(c, true);
	if (strcmp(verb, "show") && !is_action(verb)) {
		fprintf(stderr,
			"kilter: circuits: unknown action '%s'; known: list show trip reset hold "
			"release force-open force-closed disable arm, and release --all\n",
			verb);
		return CLI_USAGE;
	}
	if (c->argc != 2) {
		fprintf(stderr,
			"kilter: circuits %s: one NAME is expected; `kilter circuits` lists "
			"them\n",
			verb);
		return CLI_USAGE;
	}
	if (cli_encode(c->args[1], path, sizeof(path)))
		return CLI_USAGE;
	if (!strcmp(verb, "show"))
		return cli_show(c, path, cli_print_object);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", verb);
	return post(c, path, c->args[1]);
}

/* "rate_limit=50" and so on, as the daemon's query takes them: it checks the values. */
static int add_settings(const struct cli *c, char *path, size_t size)
{
	static const char *const keys[] = {"rate_limit=", "burst=", "max_connections="};

	for (int i = 2; i < c->argc; i++) {
		const char *arg = c->args[i], *value = strchr(arg, '=');
		bool known = false;

		for (unsigned int k = 0; k < 3; k++)
			known = known || !strncmp(arg, keys[k], strlen(keys[k]));
		if (!known || strspn(value + 1, "0123456789.") != strlen(value + 1)) {
			fprintf(stderr,
				"kilter: limits set: '%s' is not rate_limit=N, burst=N or "
				"max_connections=N\n",
				arg);
			return CLI_USAGE;
		}
		snprintf(path + strlen(path), size - strlen(path), "%c%s", i == 2 ? '?' : '&', arg);
	}
	return CLI_DONE;
}

int cli_limits(struct cli *c)
{
	const char *verb = c->argc ? c->args[0] : "list";
	char path[1024] = "/api/v1/limits/";
	bool set = !strcmp(verb, "set");

	if (!strcmp(verb, "list"))
		return cli_show(c, "/api/v1/limits", print_limits);
	if (strcmp(verb, "show") && strcmp(verb, "reset") && !set) {
		fprintf(stderr, "kilter: limits: unknown action '%s'; known: list show set reset\n",
			verb);
		return CLI_USAGE;
	}
	if (set ? c->argc < 3 : c->argc != 2) {
		fprintf(
		    stderr,
		    "kilter: limits %s: NAME%s is expected; `kilter circuits` lists the names\n",
		    verb, set ? " and rate_limit=N, burst=N or max_connections=N" : "");
		return CLI_USAGE;
	}
	if (cli_encode(c->args[1], path, sizeof(path)))
		return CLI_USAGE;
	if (!strcmp(verb, "show"))
		return cli_show(c, path, cli_print_object);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", verb);
	if (set && add_settings(c, path, sizeof(path)))
		return CLI_USAGE;
	return post(c, path, c->args[1]);
}
