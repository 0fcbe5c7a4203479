/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard's dealings with what outlives it: the two maps in the kernel, and a file for
 * what the kernel has no room for (back-off, reasons, holds).
 */
#ifndef KILTER_GUARD_SYNC_H
#define KILTER_GUARD_SYNC_H

#include <stdbool.h>
#include <stdint.h>

#include <kilter/guard.h>
#include <kilter/identity.h>

#include "guard/guard.h"

#define SYNC_STATE_VERSION 1
#define SYNC_KEYS_MAX                                                               \
	9 /* kernel ids of one caller, as struct model_edge has them, and the first \
	   */

struct sync {
	struct guard_maps maps;
	uint64_t generation;		 /* the last one given out */
	uint64_t write_errors;		 /* but for a full map */
	uint64_t full;			 /* writes that found no room */
	uint64_t state_errors;		 /* of the state file */
	bool released;			 /* in the state file: by hand, everything */
	struct kilter_circuit_key *gone; /* owned: without a policy, their counters still there */
	unsigned int gone_count, gone_room;
	uint64_t gone_ns; /* CLOCK_BOOTTIME when the last of them came */
};

/* Finds the highest generation that the kernel has heard of. maps are borrowed. */
int sync_init(struct sync *s, const struct guard_maps *maps);
void sync_done(struct sync *s);
/* Strictly increasing, also over restarts: a late outcome of an old one can never count. */
uint64_t sync_next_generation(struct sync *s);
/* Whole values. -E2BIG: no room (counted); try again later. */
int sync_write(struct sync *s, const struct kilter_circuit_key *key,
	       const struct kilter_guard_policy *p);
/* The counters of key, all zero, unless they are there. -E2BIG as above. */
int sync_make_runtime(struct sync *s, const struct kilter_circuit_key *key);
/*
 * The policy: what has none is not counted any more. The counters are left to sync_bury(): an
 * outcome may still be under way in them, and Linux gives their memory to the next ones at once
 * (from 6.1 on), which would make their lock anew under it.
 */
int sync_remove(struct sync *s, const struct kilter_circuit_key *key);
/* Removes the counters of what was removed, if that is SYNC_GRACE_NS ago. */
void sync_bury(struct sync *s, uint64_t now_ns);
#define SYNC_GRACE_NS 100000000ull /* an outcome takes microseconds */
/* -ENOENT: the kernel has none (yet). */
int sync_policy(struct sync *s, const struct kilter_circuit_key *key,
		struct kilter_guard_policy *ret);
int sync_runtime(struct sync *s, const struct kilter_circuit_key *key,
		 struct kilter_guard_runtime *ret);
/* Of every policy that keep() does not want: closed ones watch from now on, instead of tripping by
 * themselves for nobody. The others have a lease that ends. */
void sync_disarm(struct sync *s, bool (*keep)(void *ctx, const struct kilter_circuit_key *key),
		 void *ctx);
/* Of enum kilter_guard_switch. */
int sync_switch(struct sync *s, uint32_t which, uint32_t value);
int sync_switch_read(struct sync *s, uint32_t which, uint32_t *ret);
/* Removes every policy that keep() does not want, and when there was none, every entry of the
 * counters; returns how many. */
unsigned int sync_sweep(struct sync *s,
			bool (*keep)(void *ctx, const struct kilter_circuit_key *key), void *ctx);

/* One circuit in the state file. */
struct sync_record {
	char name[224], workload[128], reason[192];
	struct kilter_peer destination;
	struct kilter_circuit_key keys[SYNC_KEYS_MAX];
	unsigned int keys_count;
	enum kilter_circuit_state state;
	bool held;
	uint32_t forced; /* enum circuit_force */
	uint32_t opens;
	uint64_t generation, since_real_ns;
	uint64_t since_boot_ns, retry_boot_ns; /* 0 when read after a reboot */
	char executable[KILTER_EXE_LEN], cgroup[256];
	const struct labels *labels; /* borrowed; NULL: not known */
	bool limits_set;
	struct guard_limits limits;
};

/* fn is called for each circuit of the file at path. 0 also where there is no file; -EINVAL: it
 * is no file of ours. Raises the generation to the file's. */
int sync_load(struct sync *s, const char *path, void (*fn)(void *ctx, const struct sync_record *r),
	      void *ctx);
/* Writes a new file beside path and renames it; next() fills a record, false at the end. */
int sync_save(struct sync *s, const char *path, bool (*next)(void *ctx, struct sync_record *ret),
	      void *ctx);

#endif
