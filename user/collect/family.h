/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A map of sharded series (requests, connections): what was read last of each raw key, the
 * merge of its shards, and what has been retired from the kernel.
 *
 *   raw (one per key in the kernel)  --linked to-->  merged (one per key with shard 0)
 *
 * A merged total is its base (retired lives, carries of wrapped u32 counters) plus the last
 * reading of each raw entry: nothing is kept twice.
 */
#ifndef KILTER_COLLECT_FAMILY_H
#define KILTER_COLLECT_FAMILY_H

#include <stdbool.h>

#include "collect/collect.h"
#include "collect/table.h"
#include "collect/walk.h"

#define FAMILY_KEY_MAX 20u

enum raw_state {
	RAW_LIVE,
	RAW_MARKED,    /* told to retire: no program writes to it any more after a tick */
	RAW_PERSISTED, /* its totals are in the state file, it is not deleted yet */
};

struct raw {
	struct table_node node;
	unsigned char key[FAMILY_KEY_MAX];
	uint32_t state; /* enum raw_state */
	uint64_t changed_ns, marked_ns, seen_tick;
	struct merged *merged;
	struct raw *next;
	uint64_t value[]; /* as read last */
};

struct merged {
	struct table_node node;
	unsigned char key[FAMILY_KEY_MAX];
	uint32_t live; /* raw entries */
	struct raw *raws;
	uint64_t retired_ns;
	void *base; /* ops->total_size bytes, or NULL: none */
};

struct family_ops {
	const char *name;
	enum kilter_retire_map map;
	size_t key_size, value_size, total_size, shard_at, retiring_at;
	/* now - prev into delta; true when anything moved. */
	bool (*delta)(const void *prev, const void *now, void *delta);
	/* total (struct collect_series, struct collect_conn) += value; carries excepted */
	void (*add)(void *total, const void *value);
	void (*add_total)(void *total, const void *other);
	/* A u32 counter wrapped: what the total lacks from now on. */
	void (*carry)(void *total, const void *prev, const void *now);
	bool (*wrapped)(const void *prev, const void *now);
	/* Never retired: made once, at start. May be NULL. */
	bool (*stays)(const void *key);
	/* The key of what it is folded into; false: it is such a key itself. */
	bool (*fold_key)(void *key);
};
extern const struct family_ops family_series, family_conns;

/* What is called for each change. key has shard 0. */
typedef void (*family_delta_fn)(void *ctx, const void *key, const void *delta, bool backlog);

struct family {
	const struct family_ops *ops;
	struct map_walk walk;
	struct table raws, merged;
	family_delta_fn on_delta;
	void (*on_new)(void *ctx, const void *key);
	void *ctx;
	uint64_t tick, now_ns;
	bool backlog;
	uint64_t seen;
	uint32_t retired;   /* merged entries without a raw one */
	uint64_t folded;    /* retired series merged into a coarser one */
	uint64_t untracked; /* readings for which there was no memory: missing from totals */
	void *delta;	    /* ops->value_size bytes */
};

int family_init(struct family *f, const struct family_ops *ops, int fd, family_delta_fn on_delta,
		void (*on_new)(void *ctx, const void *key), void *ctx);
void family_done(struct family *f);
int family_read(struct family *f, uint64_t tick, uint64_t now_ns, bool backlog);
/* Takes one reading: the pure part of family_read(), for tests. */
void family_observe(struct family *f, const void *key, const void *value);
/* Moves r's last reading into the base of its series and forgets r. -ENOMEM. */
int family_retire(struct family *f, struct raw *r);
/* Adds a total of an earlier life (struct collect_series / collect_conn, key inside). */
int family_restore(struct family *f, const void *total);
void family_total(const struct family *f, const struct merged *m, void *total);
/* Folds the oldest retired series until at most max are left. */
void family_fold(struct family *f, uint32_t max);

#endif
