/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `kilter` command: one table of commands (commands.c), one file per command, one place
 * that knows where data come from (source.c). Commands get JSON of the API's shapes and only
 * format it, whether the daemon answered or the pinned maps were read.
 */
#ifndef KILTER_CLI_CLI_H
#define KILTER_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CLI_DONE = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2,
	CLI_NOT_FOUND = 3,
	CLI_UNREACHABLE = 4
};
enum cli_output {
	CLI_TABLE,
	CLI_WIDE,
	CLI_JSON
};

struct cli {
	enum cli_output output;
	const char *socket, *bpffs, *audit_file;
	bool watch, color, headers, summary, follow, all;
	uint64_t interval_ns;	   /* 0: not given */
	unsigned int count, limit; /* --count of frames, --limit of records; 0: no end */
	const char *action, *service, *outcome, *since; /* audit query */
	char **args;
	int argc;
	int http_status;       /* of the daemon's last answer; 0: none */
	struct cli_maps *maps; /* the fallback, opened when first needed */
};

struct cli_command {
	const char *name, *args, *help;
	int (*run)(struct cli *c);
	bool reads_maps; /* works while the daemon is down */
};
extern const struct cli_command cli_commands[];
extern const unsigned int cli_commands_count;

struct cli_option {
	const char *name, *arg, *help;
	int value;
};
extern const struct cli_option cli_options[];
extern const unsigned int cli_options_count;

static inline uint64_t cli_interval(const struct cli *c, uint64_t otherwise_ns)
{
	return c->interval_ns ? c->interval_ns : otherwise_ns;
}

/* commands */
int cli_status(struct cli *c);
int cli_top(struct cli *c);
int cli_services(struct cli *c);
int cli_service(struct cli *c);
int cli_deps(struct cli *c);
int cli_health(struct cli *c);
int cli_circuits(struct cli *c);
int cli_limits(struct cli *c);
int cli_probes(struct cli *c);
int cli_bench(struct cli *c);
int cli_audit(struct cli *c);
int cli_config(struct cli *c);
int cli_completion(struct cli *c);
int cli_version(struct cli *c);
int cli_help(struct cli *c);

/* cmd_lists.c: what the others print with. */
/* GETs path and prints it: as JSON, or by `print`; again and again with --watch. */
int cli_show(struct cli *c, const char *path, int (*print)(struct cli *c, json_t *j));
int cli_print_object(struct cli *c, json_t *j);
void cli_field(const char *name, const char *value);

/* source.c */
/*
 * GET path of the daemon, or its equivalent from the maps (services, dependencies, circuits).
 * *ret is the caller's (json_decref). Returns an exit status; what failed has been told on
 * stderr.
 */
int cli_get(struct cli *c, const char *path, json_t **ret);
int cli_post(struct cli *c, const char *path, json_t **ret);
/* Appends s to buf as one segment of a URL path. */
int cli_encode(const char *s, char *buf, size_t size);

/* client.c: one HTTP/1.1 exchange over a Unix socket. */
struct cli_response {
	int status;
	char *body; /* NUL-terminated; the caller's */
	size_t length;
};
int cli_http(const char *socket, const char *method, const char *path, struct cli_response *ret);
/* Parses a whole response; pure, fuzzed. -EBADMSG, -EMSGSIZE. */
int cli_http_parse(const char *raw, size_t len, struct cli_response *ret);

/* maps.c */
struct cli_maps;
int cli_maps_get(struct cli *c, const char *path, json_t **ret); /* -ENOENT: not served */
/* Turns the kernel's switch on: nothing is refused. Negative errno. */
int cli_maps_release(const struct cli *c);
void cli_maps_free(struct cli_maps **m);

/* text.c */
/* Bytes from outside (names, routes, reasons) made safe for a terminal. */
void cli_safe(const char *s, char *buf, size_t size);
/* 0.0012 -> "1.2ms"; NaN -> "-". */
char *cli_seconds(double s, char buf[static 16]);
char *cli_number(double v, char buf[static 16]); /* 12345 -> "12.3k" */
char *cli_percent(double ratio, char buf[static 16]);
char *cli_age(const char *rfc3339, char buf[static 24]); /* since then: "3m12s" */
double cli_real(const json_t *o, const char *key);	 /* NaN when null or missing */
const char *cli_text(const json_t *o, const char *key);	 /* "" when missing */
uint64_t cli_whole(const json_t *o, const char *key);
const char *cli_suggest(const char *word, const char *const *words, unsigned int count);

/* table.c */
#define CLI_COLUMNS_MAX 16
struct cli_table;
int cli_table_new(struct cli_table **ret, const struct cli *c, const char *const *headers,
		  unsigned int columns);
/* right: bit k set: column k is aligned to the right. wide: columns shown with -o wide only. */
void cli_table_layout(struct cli_table *t, unsigned int right, unsigned int wide);
void cli_table_cell(struct cli_table *t, const char *text); /* safe already or not: made so */
/* Writes to stdout and frees; width 0: as wide as needed. */
void cli_table_print(struct cli_table **t, unsigned int width);
/* The same into a buffer, at most `rows` rows, for `top`. Lines end in "\x1b[K\n" when ansi. */
size_t cli_table_render(struct cli_table **t, unsigned int width, unsigned int skip,
			unsigned int rows, bool ansi, char *buf, size_t size);

/* Both CLI_DONE, or CLI_FAILED with the reason told: a full disk is no success. */
int cli_print_json(const json_t *j);
int cli_flush(void);
const char *cli_state_color(const char *state); /* "" or an escape sequence */

#endif
