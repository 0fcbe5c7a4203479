/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From maps to deltas. reader.c turns monotonic totals into deltas and retires idle
 * series in two steps (see <kilter/series.h>); ring.c drains the event ring buffer.
 */
#ifndef KILTER_COLLECT_COLLECT_H
#define KILTER_COLLECT_COLLECT_H

#include <stdbool.h>
#include <stdint.h>

#include <kilter/drops.h>
#include <kilter/event.h>
#include <kilter/series.h>

#include "core/config.h"

/* Descriptors of the pinned maps and programs; -1 where there is none. Borrowed. */
struct collect_maps {
	int workloads, peers, routes, series, conns, listeners, syscalls, syscall_errors, drops;
	int events;	    /* ring buffer; may be -1 (the command line does not drain it) */
	int retire_prog;    /* "retire_series", -1: nothing is ever retired */
	int retire_request; /* its one-element argument map of struct kilter_retire_request */
};

/*
 * Where deltas go (the model, wired by the main: collect lies to its left and may not
 * include it). Any member may be NULL. `first` calls after a start carry the totals that were
 * there before: `backlog` is true, and they belong in totals but not in windows.
 */
struct collect_sink {
	void *ctx;
	void (*workload)(void *ctx, __u32 id, const struct kilter_workload *w);
	void (*peer)(void *ctx, __u32 id, const struct kilter_peer *p);
	void (*route)(void *ctx, __u32 id, const struct kilter_route *r);
	void (*requests)(void *ctx, const struct kilter_series_key *k,
			 const struct kilter_series *delta, bool backlog);
	void (*conns)(void *ctx, const struct kilter_conn_key *k, const struct kilter_conn *delta,
		      bool backlog);
	void (*listener)(void *ctx, const struct kilter_listener_key *k,
			 const struct kilter_listener *now);
	void (*syscalls)(void *ctx, const struct kilter_syscall_key *k,
			 const struct kilter_syscall *delta, bool backlog);
};

struct collect;
typedef void (*collect_event_fn)(void *ctx, const struct kilter_event *ev);
/*
 * state_file: totals of retired series (NULL: none kept), so that a counter never goes
 * back across restarts. Opening with the maps of a running kernel side feeds the whole of
 * their totals as "before we looked": they count in totals, not in windows.
 */
int collect_new(struct collect **ret, const struct config *c, const struct collect_maps *maps,
		const struct collect_sink *sink, const char *state_file, collect_event_fn on_event,
		void *ctx);
void collect_free(struct collect **c);
void collect_reconfigure(struct collect *c, const struct config *cfg); /* retire_after */
int collect_events_fd(const struct collect *c); /* epoll fd of the ring buffer, or -1 */
int collect_drain_events(struct collect *c);	/* number drained; at most 4096 a call */
/* Once a tick: reads every map, feeds the sink, retires. Negative errno of bpf(2). */
int collect_tick(struct collect *c, uint64_t boot_ns);

/* Totals for export: every live or retired series once, shards merged. */
struct collect_series {
	struct kilter_series_key key; /* shard 0 */
	uint64_t sum_ns, bytes_in, bytes_out;
	uint64_t classic[KILTER_CLASSIC_BUCKETS];
	uint64_t exp[KILTER_EXP_BUCKETS];
};
void collect_each_series(const struct collect *c,
			 void (*fn)(void *ctx, const struct collect_series *s), void *ctx);
struct collect_conn {
	struct kilter_conn_key key; /* shard 0 */
	struct kilter_conn total;
};
void collect_each_conn(const struct collect *c, void (*fn)(void *ctx, const struct collect_conn *s),
		       void *ctx);
struct collect_syscall {
	struct kilter_syscall_key key;
	struct kilter_syscall total;
};
void collect_each_syscall(const struct collect *c,
			  void (*fn)(void *ctx, const struct collect_syscall *s), void *ctx);
void collect_each_syscall_error(const struct collect *c,
				void (*fn)(void *ctx, const struct kilter_syscall_error_key *k,
					   uint64_t total),
				void *ctx);
uint64_t collect_drop_total(const struct collect *c, enum kilter_drop d);
uint64_t collect_drop_delta(const struct collect *c, enum kilter_drop d); /* in the last tick */
struct collect_map_stat {
	const char *map;
	uint64_t entries, max_entries;
};
/* Fills up to max rows; returns how many. */
unsigned int collect_map_stats(const struct collect *c, struct collect_map_stat *ret,
			       unsigned int max);

#endif
