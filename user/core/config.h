/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: one table of fields (config_fields.c) drives decoding, validation, defaults,
 * `kilter config show`, --help and docs/configuration.md. YAML through libyaml's events;
 * every fault is reported as "file:line:column: what, and what would be right", all
 * of them in one run; unknown and duplicate keys are faults; anchors and aliases are refused.
 * Durations in the file are "250ms", "10s", "5m", "1h"; sizes "64KiB", "100MiB"; ratios 0..1.
 */
#ifndef KILTER_CORE_CONFIG_H
#define KILTER_CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <kilter/guard.h>

#define CONFIG_POLICIES_MAX 256
#define CONFIG_FIELDS_MAX   96
#define CONFIG_LIMIT_MAX    1000000 /* of rate_limit, burst and max_connections */
#define CONFIG_ORIGIN_FLAG  (-1)
#define CONFIG_ORIGIN_ENV   (-2)
#define CONFIG_NAME_LEN	    64
#define CONFIG_LABELS_MAX   8
#define CONFIG_LABELS_LEN   512 /* of all of one policy */
#define CONFIG_FAILURES_LEN 512 /* of a list of `failures` */
#define CONFIG_PATH_LEN	    256 /* shorter than PATH_MAX on purpose: checked at decode */

/* What counts as a failure. */
struct config_failures {
	uint32_t outcomes;			/* KILTER_FAIL_ON_* */
	uint64_t statuses[KILTER_STATUS_WORDS]; /* as in struct kilter_guard_policy */
};

/* "127.0.0.1:80" "[::1]:80" "10.0.0.0/8" ":80" "*" "10.0.0.1" "db.internal:5432"
 * "*.internal", each also with "udp://" before it. */
struct config_destination {
	uint8_t addr[16];
	uint8_t family;		    /* KILTER_FAMILY_V4, _V6, or 0: any address */
	uint8_t prefix_len;	    /* 32/128 for an address */
	uint8_t transport;	    /* enum kilter_transport */
	uint16_t port;		    /* host order; 0: any */
	char name[CONFIG_NAME_LEN]; /* DNS name or glob, lower case; "": by address */
};

enum config_force {
	CONFIG_FORCE_AUTO,
	CONFIG_FORCE_OPEN,
	CONFIG_FORCE_CLOSED,
};

/* Trip conditions and recovery of one policy. Names follow Envoy and resilience4j. */
struct config_policy {
	char name[CONFIG_NAME_LEN];
	char workload[CONFIG_NAME_LEN]; /* globs on the caller; "*" any */
	char executable[CONFIG_NAME_LEN];
	char cgroup[CONFIG_NAME_LEN];
	/* Pairs of a label's key and a glob on its value, each ended by NUL; "": any caller. */
	char labels[CONFIG_LABELS_LEN];
	char destination[CONFIG_NAME_LEN]; /* struct config_destination as text */
	enum kilter_guard_mode mode;
	enum config_force force;
	uint32_t consecutive_failures; /* 0 off; default 5 */
	double failure_ratio;	       /* 0 off; default 0.5 */
	double slow_call_ratio;	       /* 0 off, the default */
	uint64_t slow_call_ns;	       /* a call is slow beyond it; default 1 s */
	uint32_t minimum_requests;     /* in window, before the ratio counts; default 20 */
	bool window_counts;	       /* the window is the last window_calls calls */
	uint64_t window_ns;	       /* 1 s .. 1 h; default 10 s */
	uint32_t window_calls;	       /* default 100 */
	uint64_t base_open_ns;	       /* default 5 s */
	uint64_t max_open_ns;	       /* back-off doubles up to this; default 120 s */
	double jitter;		       /* 0..1 of the open time, added; default 0.5 */
	uint32_t half_open_permits;    /* default 3 */
	uint32_t half_open_successes;  /* default 3 */
	uint64_t half_open_timeout_ns; /* from the first trial on; default 10 s: open again */
	uint64_t ramp_up_ns;	       /* after closing; default 0: all at once */
	struct config_failures failures;
	bool close_connections;	       /* established ones, when the circuit opens */
	char standby[CONFIG_NAME_LEN]; /* "": none; "ADDR:PORT" */
	double rate_limit;	       /* connects a second; 0: no limit */
	uint32_t burst;		       /* default 10 */
	uint32_t max_connections;      /* 0: no limit */
	unsigned int line;	       /* where in the file */
};

struct config {
	char listen[CONFIG_PATH_LEN];		/* "127.0.0.1:9470" */
	char socket[CONFIG_PATH_LEN];		/* "/run/kilter/kilter.sock" */
	char socket_group[CONFIG_NAME_LEN];	/* "" or a group's name */
	char cgroup[CONFIG_PATH_LEN];		/* "": the host's cgroup v2 root */
	char bpffs[CONFIG_PATH_LEN];		/* "/sys/fs/bpf/kilter" */
	char state_dir[CONFIG_PATH_LEN];	/* "/var/lib/kilter" */
	char runtime_root[CONFIG_PATH_LEN];	/* "/"; "": labels are not read */
	char runtime_endpoint[CONFIG_PATH_LEN]; /* "": no runtime is asked */
	char front_user[CONFIG_NAME_LEN];	/* "kilter", else "nobody" where there is none */

	struct {
		char level[16];	 /* debug info warn error */
		char format[16]; /* json console */
	} log;

	uint64_t tick_ns;	  /* 1 s: maps are read, the model moves on */
	uint64_t retire_after_ns; /* 15 min idle: a series leaves the kernel */

	struct {
		uint32_t series, conns, workloads, services, edges, peers, routes,
		    routes_per_workload;
	} limits; /* map sizes, and names and edges in the model; only at start */

	struct {
		bool enabled;
		uint64_t window_ns, period_ns; /* armed window of each period; 250 ms of 4 s */
	} syscalls;

	/* What of the kernel may be used where it is there; false: its lower tier. */
	struct {
		bool set_retval, tracing_storage, task_storage, sock_destroy, lsm, fentry,
		    error_report, map_batch;
	} kernel;

	struct {
		char file[CONFIG_PATH_LEN];
		uint64_t max_bytes;  /* rotate beyond; 100 MiB */
		uint64_t max_age_ns; /* rotate older; 24 h */
		uint32_t keep;	     /* rotated files; 10 */
		bool compress;
		bool exec, exit, connect, listen;
	} audit;

	struct {
		uint32_t minimum_requests;    /* 10 in a window, else the rule is silent */
		double error_ratio_degraded;  /* 0.05 */
		double error_ratio_unhealthy; /* 0.25 */
		uint64_t latency_p95_ns;      /* 0 off */
		double latency_factor;	      /* p95 of 1 min against p95 of 1 h; 3.0; 0 off */
		double connect_failure_ratio; /* 0.1 degraded, 0.5 unhealthy */
		double connect_failure_unhealthy;
		double retransmit_rate;	   /* segments per connection and minute; 1; 0 off */
		double accept_queue_ratio; /* 0.9 */
		uint32_t enter, leave;	   /* evaluations in a row; 2 and 3 */
		uint64_t dwell_ns;	   /* least stay in a worse state; 10 s */
	} health;

	struct {
		enum kilter_guard_mode
		    mode;	       /* cap on every policy; default ENFORCE: policies decide */
		uint64_t lease_ns;     /* 10 s; 1 s .. 60 s */
		double max_open_ratio; /* panic: share of destinations open at once; 0.5 */
		uint32_t max_open;     /* panic: circuits open at once; 0: any number */
		char release_file[CONFIG_PATH_LEN]; /* while it is there nothing is refused */
		bool protect_loopback;		    /* true: a policy must name the address */
		struct config_policy defaults;	    /* for every edge no policy matches; OBSERVE */
		struct config_policy policies[CONFIG_POLICIES_MAX];
		uint32_t policies_count;
	} guard;

	struct {
		uint32_t max_connections;	  /* 64 */
		uint32_t max_connections_per_ip;  /* 32 */
		uint64_t request_timeout_ns;	  /* 10 s for a whole request */
		char token_file[CONFIG_PATH_LEN]; /* "": TCP asks nobody and only reads */
	} api;

	char file[CONFIG_PATH_LEN]; /* the file it was read from, or "" */
	/* Where each field's value came from, by its row in the table: a line of the file, 0 for
	 * the default, or one of CONFIG_ORIGIN_*. */
	int32_t origins[CONFIG_FIELDS_MAX];
};

/* One fault; text has no newline. */
typedef void (*config_fault_fn)(void *ctx, const char *text);

void config_defaults(struct config *c);
/*
 * Reads path over the defaults. Returns 0, -EINVAL after reporting each fault, or the
 * negative errno of opening or reading (reported as well). *c is written only on success.
 */
int config_load(struct config *c, const char *path, config_fault_fn fault, void *ctx);
/* The same for a buffer; name stands for the file in messages. Used by the fuzzer. */
int config_parse(struct config *c, const char *buf, size_t len, const char *name,
		 config_fault_fn fault, void *ctx);
/* Sets one field by its dotted path from a flag or a variable (origin: CONFIG_ORIGIN_*); `where`
 * names it in a fault, "--listen". */
int config_set(struct config *c, const char *path, const char *value, int origin, const char *where,
	       config_fault_fn fault, void *ctx);
/* KILTER_<PATH IN CAPITALS, '.' AS '_'> for every field, e.g. KILTER_LOG_LEVEL. */
int config_env(struct config *c, config_fault_fn fault, void *ctx);
/* The reference page, from the table. */
int config_write_docs(FILE *f);
/* Checks that concern several fields (window < period, ...). 0 or -EINVAL, reported with the line
 * of the file that set one of them. */
int config_check(const struct config *c, config_fault_fn fault, void *ctx);
/* Calls fn for every field: dotted path, value as text, origin ("default", "file:line", ...). */
typedef void (*config_walk_fn)(void *ctx, const char *path, const char *value, const char *origin,
			       const char *doc);
void config_walk(const struct config *c, config_walk_fn fn, void *ctx);
/* True when going from a to b needs a restart; names the first such field. */
bool config_needs_restart(const struct config *a, const struct config *b, const char **ret_path);
/* The keys that differ, "log.level, guard.policies", cut to size; returns buf. */
char *config_diff(const struct config *a, const struct config *b, char *buf, size_t size);
/* Puts the running value of every field that only a restart changes back into fresh. */
void config_keep(struct config *fresh, const struct config *running);
/* "ADDR:PORT" or "[V6]:PORT", numeric or localhost, and on loopback: what the HTTP server
 * says over TCP is not encrypted. "" is no TCP at all. 0, or -EINVAL. */
int config_check_listen(const char *s);

/* "unix:///run/x.sock", or the path alone: the path, in s; NULL: neither, or longer than the
 * address of a socket may be (struct sockaddr_un). */
#define CONFIG_RUNTIME_PATH_MAX 107
const char *config_runtime_path(const char *s);

/* "250ms" ... -> ns; "64KiB" ... -> bytes. -EINVAL, -ERANGE. */
int config_parse_duration(const char *s, uint64_t *ret_ns);
int config_parse_size(const char *s, uint64_t *ret_bytes);
/*
 * One more pair to the labels of a policy. -EINVAL: not printable, or a space in it, or no key or
 * one with '='; -EEXIST: the key is there; -E2BIG.
 */
int config_labels_add(char labels[static CONFIG_LABELS_LEN], const char *key, const char *glob);
/* Walks the keys: after == NULL for the first; NULL at the end. */
const char *config_labels_next(const char *labels, const char *after);
/* The glob beside a key of config_labels_next(). */
const char *config_labels_glob(const char *key);
/* -EINVAL. */
int config_parse_destination(const char *s, struct config_destination *ret);
/* ::ffff:a.b.c.d is a.b.c.d, as the kernel side has it. */
void config_unmap_destination(struct config_destination *d);

#endif
