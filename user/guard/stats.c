// SPDX-License-Identifier: Apache-2.0
/* Figures about the guard itself; those of each circuit come with the snapshot. */
#include <stdio.h>
#include <string.h>

#include "guard/internal.h"

/* A label's value: a workload's name may hold any byte that a file's name may. */
static void escape(const char *s, char *ret, size_t size)
{
	size_t n = 0;

	for (; *s && n + 2 < size; s++) {
		if (*s == '"' || *s == '\\') {
			ret[n++] = '\\';
			ret[n++] = *s;
		} else if (*s == '\n') {
			ret[n++] = '\\';
			ret[n++] = 'n';
		} else {
			ret[n++] = *s;
		}
	}
	ret[n] = '\0';
}

static void stat_suppressed(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct guard *g = ctx;
	const struct entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&g->circuits, &pos))) {
		char name[2 * sizeof(e->name) + 1], labels[sizeof(name) + 16];

		if (!e->c.suppressed)
			continue;
		escape(e->pub.name, name, sizeof(name));
		snprintf(labels, sizeof(labels), "circuit=\"%s\"", name);
		emit(emit_ctx, labels, (double)e->c.suppressed);
	}
}

static void stat_sync(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct guard *g = ctx;

	emit(emit_ctx, "reason=\"full\"", (double)g->sync.full);
	emit(emit_ctx, "reason=\"kernel\"", (double)g->sync.write_errors);
	emit(emit_ctx, "reason=\"state_file\"", (double)g->sync.state_errors);
}

static void stat_full(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct guard *g = ctx;

	emit(emit_ctx, "", (double)g->circuits_full);
}

static void stat_destinations(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct guard *g = ctx;

	emit(emit_ctx, "state=\"any\"", (double)g->destinations.count);
	emit(emit_ctx, "state=\"not_closed\"", (double)g->destinations_open);
}

static void stat_released(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", guard_released(ctx) ? 1 : 0);
}

static const struct selfstat rows[] = {
    {.name = "kilter_circuit_suppressed_total",
     .help = "Trips that the panic guard held back.",
     .type = SELFSTAT_COUNTER,
     .collect = stat_suppressed},
    {.name = "kilter_guard_sync_errors_total",
     .help = "Failed writes to the kernel or the state file.",
     .type = SELFSTAT_COUNTER,
     .collect = stat_sync},
    {.name = "kilter_guard_circuits_full_total",
     .help = "Times that an edge found no room for a circuit.",
     .type = SELFSTAT_COUNTER,
     .collect = stat_full},
    {.name = "kilter_guard_destinations",
     .help = "Destinations that have a circuit, and those that have one that is not closed.",
     .type = SELFSTAT_GAUGE,
     .collect = stat_destinations},
    {.name = "kilter_guard_released",
     .help = "1 while nothing is refused: by hand, by the file, or by the kernel's switch.",
     .type = SELFSTAT_GAUGE,
     .collect = stat_released},
};
_Static_assert(sizeof(rows) / sizeof(rows[0]) == GUARD_STATS, "room in struct guard");

void guard_register_stats(struct guard *g)
{
	memcpy(g->stats, rows, sizeof(rows));
	for (unsigned int i = 0; i < GUARD_STATS; i++) {
		g->stats[i].ctx = g;
		selfstat_register(&g->stats[i]);
	}
}

void guard_unregister_stats(struct guard *g)
{
	for (unsigned int i = 0; i < GUARD_STATS; i++)
		selfstat_unregister(&g->stats[i]);
}
