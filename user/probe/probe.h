/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes: the BPF objects, loaded in the order of one table (registry.c), their maps and
 * links pinned below --bpffs so that a daemon that dies loses no count, adopted again by the
 * next one. Each probe says what it got (its tier) and why not better.
 */
#ifndef KILTER_PROBE_PROBE_H
#define KILTER_PROBE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"

#define PROBE_PROGRAMS_MAX 8
#define PROBE_MAX	   9

struct bpf_object;
struct bpf_program;

enum probe_attach {
	PROBE_ATTACH_NONE,   /* loaded, run by hand */
	PROBE_ATTACH_CGROUP, /* to --cgroup; a pinned link is updated in place, without a gap */
	PROBE_ATTACH_TRACE,  /* tp_btf, raw_tp: one for the node */
	PROBE_ATTACH_ITER,   /* attached when read */
};

/* A probe has a full tier and perhaps lower ones, for kernels that lack what the better ones take:
 * of two, the lower; of three, one between them. */
enum probe_tier {
	PROBE_TIER_ANY,
	PROBE_TIER_FULL,
	PROBE_TIER_MIDDLE,
	PROBE_TIER_LOWER,
};

struct probe_program {
	const char *name;
	enum probe_attach attach;
	bool overlap; /* old and new may both run for a moment: its work is idempotent */
	enum probe_tier tier;
};

struct probe_status {
	const char *name, *hooks;
	char tier[16];	  /* "full", "middle", "lower"; "" when not running */
	char reason[256]; /* why not running, or not the best tier */
	bool running, essential;
	bool off;		 /* switched off in the configuration */
	uint64_t events, run_ns; /* as the kernel accounts them (kernel.bpf_stats_enabled) */
};

struct probe_set;

/*
 * Mounts bpffs when needed, takes the lock on config->bpffs (-EBUSY: another daemon has it),
 * loads and attaches every probe. Errors are logged with the place. -ENOSYS: the kernel lacks
 * something essential (logged: what, since which version).
 */
int probe_set_open(struct probe_set **ret, const struct config *c, const char *cgroup_dir);
void probe_set_close(struct probe_set **set);	     /* pins stay */
int probe_set_unpin(struct probe_set *set);	     /* removes links, then maps */
bool probe_set_resumed(const struct probe_set *set); /* pins of an earlier daemon were there */

int probe_map_fd(const struct probe_set *set, const char *map); /* -1: no such map */
int probe_program_fd(const struct probe_set *set, const char *program);
struct bpf_program *probe_program(const struct probe_set *set, const char *program);
/* What adopt.c tells the kernel has to bear this (<kilter/adopt.h>). */
uint64_t probe_adopt_secret(const struct probe_set *set);
int probe_cgroup_fd(const struct probe_set *set); /* borrowed */
unsigned int probe_status(const struct probe_set *set, struct probe_status *ret, unsigned int max);
/* Are our links still attached where we left them? Attaches again what is gone; returns how
 * many had to be (each is logged and published on the bus). */
int probe_set_verify(struct probe_set *set);
/* Sum of what the kernel charges for our maps, bytes; from fdinfo's memlock. */
uint64_t probe_map_memory(const struct probe_set *set);

/* mount.c: the first cgroup v2 mount point in /proc/self/mountinfo; -ENOENT. */
int probe_cgroup2_root(char *ret, unsigned int size);

#endif
