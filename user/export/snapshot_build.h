/* SPDX-License-Identifier: Apache-2.0 */
/* Fills the snapshot's tables from every room to the left of export. */
#ifndef KILTER_EXPORT_SNAPSHOT_BUILD_H
#define KILTER_EXPORT_SNAPSHOT_BUILD_H

#include "audit/audit.h"
#include "collect/collect.h"
#include "core/config.h"
#include "guard/guard.h"
#include "health/health.h"
#include "model/model.h"
#include "model/snapshot.h"

struct snapshot_probe_row {
	const char *name, *version, *tier, *reason, *hooks;
	bool running, essential;
	uint64_t events, run_ns;
};
struct snapshot_phase_row {
	const char *name, *result;
	uint64_t took_ns;
};

/* Any pointer may be NULL: its tables stay empty (the command line has no guard or audit). */
struct snapshot_sources {
	struct model *model;
	const struct collect *collect;
	const struct health *health;
	const struct guard *guard;
	const struct audit *audit;
	const struct config *config;
	const struct snapshot_probe_row *probes;
	unsigned int probes_count;
	const struct snapshot_phase_row *phases;
	unsigned int phases_count;
	struct snap_node node; /* numbers only; strings from below */
	const char *version, *revision, *hostname, *kernel, *cgroup, *bpffs;
};

/* begin .. commit. Errors as snapshot_commit(). */
int snapshot_build(struct snapshot_writer *w, const struct snapshot_sources *s);

#endif
