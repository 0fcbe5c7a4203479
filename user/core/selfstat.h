/* SPDX-License-Identifier: Apache-2.0 */
/* Figures that modules keep about themselves; the snapshot (and so /metrics) walks them. */
#ifndef KILTER_CORE_SELFSTAT_H
#define KILTER_CORE_SELFSTAT_H

#include <stddef.h>

enum selfstat_type {
	SELFSTAT_COUNTER,
	SELFSTAT_GAUGE
};

/* emit(labels, value): labels is "" or `a="b",c="d"`, already escaped. */
typedef void (*selfstat_emit_fn)(void *emit_ctx, const char *labels, double value);
struct selfstat {
	const char *name; /* whole Prometheus name: kilter_..._total, ... */
	const char *help;
	enum selfstat_type type;
	/* Called at each snapshot; emits any number of samples. */
	void (*collect)(void *ctx, selfstat_emit_fn emit, void *emit_ctx);
	void *ctx;
	struct selfstat *next; /* owned by the registry; the caller owns the struct */
};

void selfstat_register(struct selfstat *s);
void selfstat_unregister(struct selfstat *s);
typedef void (*selfstat_walk_fn)(void *ctx, const struct selfstat *s);
void selfstat_walk(selfstat_walk_fn fn, void *ctx);

#endif
