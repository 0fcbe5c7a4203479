/* SPDX-License-Identifier: Apache-2.0 */
/* The table of probes: a new one is one row in registry.c and one .bpf.c. */
#ifndef KILTER_PROBE_REGISTRY_H
#define KILTER_PROBE_REGISTRY_H

#include "probe/probe.h"

struct probe_options {
	const char *pin_dir;
	uint32_t shard_mask;
	uint64_t cgroup_id;    /* of --cgroup */
	uint64_t adopt_secret; /* <kilter/adopt.h> */
	enum probe_tier tier;  /* the one to open */
	const struct config *config;
};

#define PROBE_TIER_MAPS_MAX 2
#define PROBE_BETTER_MAX    2

/* What makes a tier better than the one below it. */
struct probe_better {
	const char *takes;   /* what the lower ones do without */
	const char *setting; /* the key that allows it, and what it says */
	bool (*allowed)(const struct config *c);
	/* Is there what no load would miss? 0, or a negative errno and what is not; NULL: always.
	 */
	int (*there)(char *ret_why, unsigned int size);
};

struct probe_row {
	const char *name;
	const char *hooks;   /* for people */
	const char *missing; /* what does not work without it, and what it needs */
	bool essential;
	/* Opens the skeleton with its load-time switches set; *ret_skel is for destroy(). */
	struct bpf_object *(*open)(const struct probe_options *o, void **ret_skel);
	void (*destroy)(void *skel);
	bool (*enabled)(const struct config *c);      /* NULL: always */
	struct probe_better better[PROBE_BETTER_MAX]; /* the tiers but the lowest, best first */
	struct probe_program programs[PROBE_PROGRAMS_MAX];
	/* Maps that one tier alone has. */
	struct {
		const char *name;
		enum probe_tier tier;
	} maps[PROBE_TIER_MAPS_MAX];
};

extern const struct probe_row probe_rows[];
extern const unsigned int probe_rows_count;

/* Says to an object which of the row's programs and maps it loads; names that it lacks are passed
 * over. */
void probe_row_choose(const struct probe_row *row, const struct bpf_object *obj,
		      enum probe_tier tier);
const char *probe_tier_name(enum probe_tier tier);
const struct probe_row *probe_row_find(const char *name); /* NULL: no such row */

#endif
