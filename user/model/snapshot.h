/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot: everything the front and the command line may know, as flat,
 * position-independent tables in shared memory (a memfd the agent writes and others map
 * read-only). Two areas; the agent fills the idle one and flips `active`. A reader copies
 * the active area and checks that its sequence did not move: it never blocks the agent.
 *
 * Every string is a struct snap_str into the area's string pool (NUL-terminated there).
 * The reader treats the area as untrusted: snapshot_open_copy() checks every table's bounds.
 */
#ifndef KILTER_MODEL_SNAPSHOT_H
#define KILTER_MODEL_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kilter/guard.h>
#include <kilter/series.h>

#include "model/model.h"

#define SNAPSHOT_MAGIC	  0x6b696c74736e6170ull /* "kiltsnap" */
#define SNAPSHOT_VERSION  1
#define SNAPSHOT_NO_INDEX UINT32_MAX

typedef struct snap_str {
	uint32_t off, len;
} snap_str;

enum snap_table {
	SNAP_NODE, /* one row */
	SNAP_WORKLOADS,
	SNAP_LABELS, /* in the order of workloads */
	SNAP_EDGES,
	SNAP_LISTENERS,
	SNAP_SERIES,
	SNAP_CONNS,
	SNAP_SYSCALLS,
	SNAP_SYSCALL_ERRORS,
	SNAP_HEALTH,
	SNAP_CIRCUITS,
	SNAP_PROBES,
	SNAP_PHASES,  /* start-up */
	SNAP_METRICS, /* selfstat: descriptors */
	SNAP_SAMPLES, /* selfstat: samples, in the order of descriptors */
	SNAP_DROPS,
	SNAP_MAPS,
	SNAP_CONFIG,
	SNAP_AUDIT,   /* recent records, newest last */
	SNAP_STRINGS, /* bytes */
	SNAP_TABLES,
};

struct snap_node {
	snap_str version, revision, hostname, kernel, cgroup, bpffs, config_file, audit_file;
	uint64_t start_real_ns, now_real_ns, now_boot_ns;
	uint64_t ticks, ticks_late, last_tick_ns; /* duration of the last tick */
	uint32_t pid, front_pid;
	uint32_t ready;	     /* every essential probe attached and one tick done */
	uint32_t incomplete; /* data was lost: health is unknown */
	uint64_t config_generation;
	double syscall_sample_ratio; /* armed share of time; 0: off */
	uint32_t syscalls_unsupported;
	uint32_t circuits_open, destinations_open, destinations; /* open: not closed */
	snap_str guard_released; /* why nothing is refused, or empty */
	snap_str runtime;	 /* how the container runtime answers, or empty: none is asked */
};

struct snap_red {
	uint64_t requests, errors, covered_ns;
	double rate, error_ratio, p50, p95, p99, mean; /* seconds; NaN: no data */
};

struct snap_tcp {
	uint64_t opened, closed, retransmits, resets, bytes_in, bytes_out, failed, attempts;
	double connect_p95;
};

struct snap_workload {
	snap_str name, kind, container_id, pod_uid, unit, exe, cgroup_path, comm;
	uint64_t cgroup_id;
	uint32_t pid;
	uint32_t health; /* row of SNAP_HEALTH or SNAPSHOT_NO_INDEX */
	/* It listens, calls or was called. Else only totals or system calls name it: no service. */
	uint32_t service;
	uint32_t labels_known;
	uint32_t labels_first, labels_count; /* rows of SNAP_LABELS */
	uint64_t open_connections, undecoded;
	struct snap_red server[MODEL_SPANS], client[MODEL_SPANS];
	struct snap_tcp tcp[MODEL_SPANS];
};

struct snap_label {
	snap_str key, value;
};

struct snap_edge {
	uint32_t caller;      /* row of SNAP_WORKLOADS */
	uint32_t callee;      /* or SNAPSHOT_NO_INDEX */
	snap_str destination; /* "10.0.0.1:80" */
	snap_str address;     /* without the port */
	uint32_t port;
	uint32_t health, circuit; /* rows, or SNAPSHOT_NO_INDEX */
	uint32_t pad;
	uint64_t open_connections;
	struct snap_red red[MODEL_SPANS];
	struct snap_tcp tcp[MODEL_SPANS];
};

struct snap_listener {
	uint32_t workload, port, queue_length, queue_limit, queue_peak, pad;
	uint64_t overflows;
};

struct snap_series {	   /* totals; workload ids of one name are merged */
	uint32_t workload; /* row; SNAPSHOT_NO_INDEX: not known */
	uint32_t port;	   /* client: server.port; server: the local port */
	snap_str address;  /* client: server.address */
	snap_str route;	   /* url_template; of gRPC rpc.method, "package.Service/Method"; or "" */
	uint16_t status;
	uint8_t role, protocol, method, error;
	uint8_t overflow; /* status is a class, 1 to 5: kilter_series_is_overflow() */
	uint8_t pad[1];
	uint64_t sum_ns, bytes_in, bytes_out;
	uint64_t classic[KILTER_CLASSIC_BUCKETS];
};

struct snap_conn { /* totals */
	uint32_t workload;
	uint32_t port;
	snap_str address;
	uint32_t role, pad;
	struct kilter_conn total;
};

struct snap_syscall {
	uint32_t workload, nr;
	snap_str name; /* "openat" */
	struct kilter_syscall total;
};

struct snap_syscall_error {
	uint32_t workload, nr;
	snap_str name, err; /* "openat", "ENOENT" */
	uint64_t total;
};

struct snap_reason {
	snap_str code, text, severity;
	double observed, threshold;
	uint64_t samples, window_ns;
};

struct snap_health {
	snap_str kind, name, state;
	uint64_t since_real_ns, transitions;
	uint32_t reasons_count, pad;
	struct snap_reason reasons[3];
};

struct snap_circuit {
	snap_str name, policy, workload, destination, state, mode, mode_reason, reason;
	snap_str match, dns_name, forced;
	uint32_t held, consecutive, opens;
	uint32_t open, open_peak; /* connections */
	uint32_t burst, max_connections, limits_by_hand;
	double rate_limit, rate_fill; /* 0: no limit */
	uint64_t generation, since_real_ns, lease_left_ns, retry_in_ns;
	uint64_t successes, failures, slow, redirected, closed, lease_expired, trips;
	uint64_t failed[KILTER_FAILURES];
	uint64_t refused[KILTER_REFUSALS], would_refuse[KILTER_REFUSALS];
	uint64_t transitions[3]; /* into closed, open, half_open */
};

struct snap_probe {
	snap_str name, version, tier, reason, hooks;
	uint32_t running, essential;
	uint64_t events, run_ns; /* as the kernel accounts them; 0 when bpf_stats is off */
};

struct snap_phase {
	snap_str name, result;
	uint64_t took_ns;
};

struct snap_metric {
	snap_str name, help;
	uint32_t counter;      /* 1 counter, 0 gauge */
	uint32_t first, count; /* rows of SNAP_SAMPLES */
};

struct snap_sample {
	snap_str labels;
	double value;
};

struct snap_drop {
	snap_str where, reason, text;
	uint64_t total;
	uint32_t loses, pad;
};

struct snap_map {
	snap_str name;
	uint64_t entries, max_entries, bytes;
};

struct snap_config {
	snap_str path, value, origin, doc;
};

struct snap_audit {
	snap_str line;
};

/* The writer (agent). */
struct snapshot_writer;
int snapshot_writer_new(struct snapshot_writer **ret, size_t area_bytes_max);
void snapshot_writer_free(struct snapshot_writer **w);
int snapshot_writer_fd(const struct snapshot_writer *w); /* pass to the front; read-only maps */
void snapshot_begin(struct snapshot_writer *w);
/* A zeroed row appended to table t, or NULL when the area is full (counted). A row is
 * valid until the next call. */
void *snapshot_add(struct snapshot_writer *w, enum snap_table t, size_t row_size);
snap_str snapshot_str(struct snapshot_writer *w, const char *s); /* NULL: "" */
snap_str snapshot_strn(struct snapshot_writer *w, const char *s, size_t n);
int snapshot_commit(struct snapshot_writer *w); /* flips; -E2BIG: truncated, still flipped */
uint64_t snapshot_dropped(const struct snapshot_writer *w); /* rows that found no room */

/* A reader's private copy. */
struct snapshot {
	uint64_t sequence;
	const void *tables[SNAP_TABLES];
	uint32_t counts[SNAP_TABLES];
	void *mem; /* owns all of the above */
	size_t mem_size;
};
struct snapshot_reader;
int snapshot_reader_open(struct snapshot_reader **ret, int fd); /* maps fd read-only */
void snapshot_reader_free(struct snapshot_reader **r);
/* Copies the newest snapshot into *s (reusing s->mem); 0, -EAGAIN (none yet), -EBADMSG. */
int snapshot_read(struct snapshot_reader *r, struct snapshot *s);
/* False when the agent has published a newer one than s, or s is none. */
bool snapshot_is_latest(const struct snapshot_reader *r, const struct snapshot *s);
void snapshot_done(struct snapshot *s);
const char *snapshot_text(const struct snapshot *s, snap_str str); /* "" when out of bounds */
#define snapshot_rows(s, table, type) ((const type *)(s)->tables[table])

#endif
