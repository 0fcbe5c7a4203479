/* SPDX-License-Identifier: Apache-2.0 */
/* The table of probes: a new one is one row in registry.c and one .bpf.c. */
#ifndef KILTER_PROBE_REGISTRY_H
#define KILTER_PROBE_REGISTRY_H

#include "probe/probe.h"

struct probe_options {
	const char *pin_dir;
	uint32_t shard_mask;
	uint64_t cgroup_id; /* of --cgroup */
	const struct config *config;
};

struct probe_row {
	const char *name;
	const char *hooks;   /* for people */
	const char *missing; /* what does not work without it, and what it needs */
	bool essential;
	/* Opens the skeleton with its load-time switches set; *ret_skel is for destroy(). */
	struct bpf_object *(*open)(const struct probe_options *o, void **ret_skel);
	void (*destroy)(void *skel);
	bool (*enabled)(const struct config *c); /* NULL: always */
	struct probe_program programs[PROBE_PROGRAMS_MAX];
};

extern const struct probe_row probe_rows[];
extern const unsigned int probe_rows_count;

#endif
