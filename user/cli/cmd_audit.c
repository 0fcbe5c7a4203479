// SPDX-License-Identifier: Apache-2.0
/* audit tail|query: the trail's own files, so that they answer without the daemon as well. */
#include <sys/stat.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "audit/audit.h"
#include "cli/cli.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/config.h"

#define TAIL_DEFAULT 20
#define FOLLOW_US    200000

/* A command line as it was, more or less: its words with blanks between. */
static void join_args(json_t *args, char *buf, size_t size)
{
	size_t i, n = 0;
	json_t *arg;

	*buf = '\0';
	json_array_foreach(args, i, arg)
	{
		int took = snprintf(buf + n, size - n, "%s%s", i ? " " : "",
				    json_is_string(arg) ? json_string_value(arg) : "?");

		if (took < 0 || (size_t)took >= size - n)
			break; /* cut off */
		n += (size_t)took;
	}
}

/* Does it pass --action, --service and --outcome? */
static bool wanted(const struct cli *c, const char *line, size_t len)
{
	json_t *j = json_loadb(line, len, 0, NULL);
	bool yes = j && (!c->action || !strcmp(cli_text(j, "event.action"), c->action)) &&
		   (!c->service || !strcmp(cli_text(j, "service.name"), c->service)) &&
		   (!c->outcome || !strcmp(cli_text(j, "event.outcome"), c->outcome));

	json_decref(j);
	return yes;
}

static void print_record(const struct cli *c, const char *line, size_t len)
{
	json_t *j;
	char when[32], action[48], outcome[16], service[64], what[256], stamp[20];

	if (c->output == CLI_JSON) {
		fwrite(line, 1, len, stdout);
		putchar('\n');
		return;
	}
	j = json_loadb(line, len, 0, NULL);
	if (!j)
		return;
	snprintf(stamp, sizeof(stamp), "%.19s", cli_text(j, "@timestamp"));
	cli_safe(stamp, when, sizeof(when));
	cli_safe(cli_text(j, "event.outcome"), outcome, sizeof(outcome));
	cli_safe(cli_text(j, "event.action"), action, sizeof(action));
	cli_safe(cli_text(j, "service.name"), service, sizeof(service));
	if (*cli_text(j, "event.reason")) {
		cli_safe(cli_text(j, "event.reason"), what, sizeof(what));
	} else if (*cli_text(j, "destination.address")) {
		char text[256];

		snprintf(text, sizeof(text), "-> %.200s:%llu", cli_text(j, "destination.address"),
			 (unsigned long long)cli_whole(j, "destination.port"));
		cli_safe(text, what, sizeof(what));
	} else if (*cli_text(j, "destination.ip")) {
		char text[256];

		snprintf(text, sizeof(text), "-> %.200s:%llu", cli_text(j, "destination.ip"),
			 (unsigned long long)cli_whole(j, "destination.port"));
		cli_safe(text, what, sizeof(what));
	} else if (json_array_size(json_object_get(j, "process.args"))) {
		char text[256];

		join_args(json_object_get(j, "process.args"), text, sizeof(text));
		cli_safe(text, what, sizeof(what));
	} else {
		cli_safe(*cli_text(j, "process.executable") ? cli_text(j, "process.executable")
			 : *cli_text(j, "kilter.subject")   ? cli_text(j, "kilter.subject")
							    : cli_text(j, "process.name"),
			 what, sizeof(what));
	}
	printf("%s %8llu %-20s %-8s %-20s %llu %s\n", when,
	       (unsigned long long)cli_whole(j, "event.sequence"), action, outcome,
	       *service ? service : "-", (unsigned long long)cli_whole(j, "process.pid"), what);
	json_decref(j);
}

/* 0: it has none. */
static uint64_t sequence_of(const char *line, size_t len)
{
	static const char key[] = "\"event.sequence\":";
	const char *at = memmem(line, len, key, sizeof(key) - 1);
	uint64_t n = 0;

	if (at)
		for (at += sizeof(key) - 1; at < line + len && *at >= '0' && *at <= '9'; at++)
			n = n * 10 + (uint64_t)(*at - '0');
	return n;
}

static uint64_t printed; /* the highest sequence number */

static int on_line(void *ctx, const char *line, size_t len)
{
	uint64_t sequence = sequence_of(line, len);

	if (sequence > printed)
		printed = sequence;
	print_record(ctx, line, len);
	return ferror(stdout) ? -EIO : 0;
}

/* "10m" ago, or an RFC 3339 time. */
static int parse_since(const char *s, uint64_t *ret)
{
	struct tm tm = {0};
	uint64_t ago;

	if (!config_parse_duration(s, &ago)) {
		*ret = clock_real_ns() - ago;
		return 0;
	}
	if (!strptime(s, "%Y-%m-%dT%H:%M:%S", &tm))
		return -EINVAL;
	*ret = (uint64_t)timegm(&tm) * NS_PER_SEC;
	return 0;
}

/*
 * Follows the file by name: a rotation moves it away, a new one takes its place. f, which is taken
 * over, was opened before the query and is at what was its end then: what came meanwhile
 * may have been printed by the query.
 */
static int follow(struct cli *c, const char *path, FILE *file)
{
	_cleanup_fclose_ FILE *f = file;
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;
	struct stat st, now;
	bool moved = false;
	off_t both;

	if (fstat(fileno(f), &st)) {
		fprintf(stderr, "kilter: cannot follow the audit trail %s: %s\n", path,
			strerror(errno));
		return CLI_FAILED;
	}
	both = st.st_size; /* the query may have seen what lies before it */
	for (;;) {
		off_t at = ftello(f);
		ssize_t n = getline(&line, &cap, f);

		if (n > 0 && line[n - 1] == '\n') {
			uint64_t sequence = sequence_of(line, (size_t)n);

			if ((at >= both || sequence > printed) && wanted(c, line, (size_t)n - 1))
				print_record(c, line, (size_t)n - 1);
			continue;
		}
		if (cli_flush())
			return CLI_FAILED;
		clearerr(f);
		fseeko(f, at, SEEK_SET); /* half a line: the rest is on its way */
		if (!stat(path, &now) && (now.st_ino != st.st_ino || now.st_size < at)) {
			FILE *fresh = moved ? fopen(path, "re") : NULL;

			moved = !moved; /* it may have grown before it was moved: once more */
			if (fresh) {
				fclose(f);
				f = fresh;
				both = 0;
				fstat(fileno(f), &st);
			}
			continue;
		}
		usleep(FOLLOW_US);
	}
}

/* Where the running daemon writes, if there is one; else where it would by default. */
static void find_file(const struct cli *c, char *buf, size_t size)
{
	struct cli_response r = {0};
	json_t *j, *row;
	size_t i;

	snprintf(buf, size, "%s", c->audit_file ? c->audit_file : "/var/log/kilter/audit.jsonl");
	if (c->audit_file || cli_http(c->socket, "GET", "/api/v1/config", &r))
		return;
	j = json_loadb(r.body, r.length, 0, NULL);
	json_array_foreach(json_object_get(j, "items"), i, row)
	{
		const char *key = cli_text(row, "path");

		if (!strcmp(*key ? key : cli_text(row, "key"), "audit.file"))
			snprintf(buf, size, "%s", cli_text(row, "value"));
	}
	json_decref(j);
	free(r.body);
}

int cli_audit(struct cli *c)
{
	const char *verb = c->argc ? c->args[0] : "tail";
	struct audit_query q = {0};
	_cleanup_fclose_ FILE *f = NULL;
	char path[CONFIG_PATH_LEN];
	uint64_t bad = 0;
	int err;

	if (strcmp(verb, "tail") && strcmp(verb, "query")) {
		fprintf(stderr, "kilter: audit: unknown action '%s'; known: tail query\n", verb);
		return CLI_USAGE;
	}
	find_file(c, path, sizeof(path));
	q.file = path;
	q.action = c->action;
	q.service = c->service;
	q.outcome = c->outcome;
	q.limit = c->limit ? c->limit : c->count;
	if (!q.limit && !strcmp(verb, "tail"))
		q.limit = TAIL_DEFAULT;
	if (c->since && parse_since(c->since, &q.since_real_ns)) {
		fprintf(stderr,
			"kilter: --since '%s' is neither a duration such as 10m nor a time such "
			"as 2026-01-31T12:00:00\n",
			c->since);
		return CLI_USAGE;
	}
	if (!strcmp(verb, "tail") && c->follow) {
		f = fopen(path, "re");
		if (!f || fseek(f, 0, SEEK_END)) {
			fprintf(stderr, "kilter: cannot follow the audit trail %s: %s\n", path,
				strerror(errno));
			return CLI_FAILED;
		}
	}
	err = audit_query_run(&q, on_line, c, &bad);
	if (err) {
		fprintf(stderr, "kilter: cannot read the audit trail %s: %s\n", path,
			strerror(-err));
		return CLI_FAILED;
	}
	if (bad)
		fprintf(stderr, "kilter: %llu lines of %s are not JSON\n", (unsigned long long)bad,
			path);
	return f ? follow(c, path, take_ptr(f)) : CLI_DONE;
}
