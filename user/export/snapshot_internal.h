/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that build a snapshot share, and nobody else.
 *
 *   snapshot_build.c   what is now: health, circuits, the model, the daemon itself
 *   snapshot_totals.c  what was ever counted: series, connections, system calls
 */
#ifndef KILTER_EXPORT_SNAPSHOT_INTERNAL_H
#define KILTER_EXPORT_SNAPSHOT_INTERNAL_H

#include "export/list.h"
#include "export/snapshot_build.h"

struct build {
	struct snapshot_writer *w;
	const struct snapshot_sources *s;
	struct list subjects, circuits, workloads, edges, listeners, series, conns, syscalls,
	    errors;
	uint32_t row;	 /* of the table being filled */
	uint32_t labels; /* rows so far */
	uint64_t boot_ns;
};

/* snapshot_build.c */
/* w gets a row, once; NULL: there is none. */
void snapshot_want_workload(struct build *b, const struct model_workload *w);
/* The row of the workload with this id, when all have theirs; or SNAPSHOT_NO_INDEX. */
uint32_t snapshot_id_row(const struct build *b, uint32_t id);
/* The address without its port, "" for a local port or an unknown peer. */
snap_str snapshot_address(struct build *b, const struct kilter_peer *p);

/* snapshot_totals.c */
/* Before the workloads are sorted: those that only totals still speak of are to be among them. */
void snapshot_see_totals(struct build *b);
void snapshot_add_totals(struct build *b);

#endif
