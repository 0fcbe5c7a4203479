/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot as Prometheus text 0.0.4 or OpenMetrics 1.0.0. Families are grouped, in one
 * order always; names and labels are described in docs/metrics.md.
 */
#ifndef KILTER_EXPORT_PROMETHEUS_H
#define KILTER_EXPORT_PROMETHEUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/snapshot.h"

#define PROMETHEUS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
#define PROMETHEUS_OPENMETRICS_TYPE \
	"application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"

/* A family of the caller's own: one label, a row a value. */
struct prometheus_row {
	const char *value; /* of the label */
	uint64_t n;
};
struct prometheus_family {
	const char *name, *help, *label;
	bool counter;
	const struct prometheus_row *rows;
	unsigned int count;
};

/* A text under way, which is made in pieces: exposition.h. s must outlive it, as it is. */
struct prometheus;
int prometheus_new(struct prometheus **ret, const struct snapshot *s, bool openmetrics);
/* The next piece, ours until the next call. own: the same families each time, in one order; their
 * values are read when their turn comes. -ENOMEM, -E2BIG beyond EXPOSITION_PIECE_MAX. */
int prometheus_next(struct prometheus *p, const struct prometheus_family *own,
		    unsigned int own_count, const char **ret, size_t *ret_len);
/* True when the last piece was the end of the text. */
bool prometheus_done(const struct prometheus *p);
void prometheus_free(struct prometheus **p);

#endif
