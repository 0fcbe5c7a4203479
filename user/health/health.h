/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health: a table of rules (rules/rules.c) is evaluated once a tick for each subject; an
 * engine adds hysteresis in both directions, reasons and the roll-up. Missing or
 * incomplete data is `unknown`, never `healthy`.
 */
#ifndef KILTER_HEALTH_HEALTH_H
#define KILTER_HEALTH_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "model/model.h"

enum health_state {
	HEALTH_UNKNOWN,
	HEALTH_HEALTHY,
	HEALTH_DEGRADED,
	HEALTH_UNHEALTHY
};
const char *health_state_str(enum health_state s);

enum health_kind {
	HEALTH_NODE,
	HEALTH_WORKLOAD,
	HEALTH_EDGE,
	HEALTH_PROBE
};
const char *health_kind_str(enum health_kind k);

#define HEALTH_REASONS_MAX 3
struct health_reason {
	const char *code; /* stable: "error_ratio", "latency_baseline", ... ; static storage */
	char text[160];	  /* "error ratio 0.62 over 0.25 in 10s (143 requests)" */
	double observed, threshold;
	uint64_t samples;
	uint64_t window_ns;
	enum health_state severity;
};

struct health_subject {
	enum health_kind kind;
	char name[224]; /* "nginx", "curl -> 127.0.0.1:80", "request", "node" */
	enum health_state state;
	uint64_t since_real_ns;
	struct health_reason reasons[HEALTH_REASONS_MAX];
	unsigned int reasons_count;
	uint32_t model_index; /* of the workload or edge */
	uint64_t transitions; /* since start */
};

/* What the engine must be told of probes: one row each, from probe/. */
struct health_probe {
	const char *name;
	const char *tier;   /* as `kilter status` names it; NULL: not running */
	const char *reason; /* why not, or why not the best tier */
	bool essential;
	bool off; /* switched off in the configuration: not running is as it should be */
};

struct health_drop { /* from collect: drops in our own maps since the last tick */
	const char *where, *reason;
	uint64_t delta;
	bool loses;
	bool audit; /* records of the audit trail were lost */
};

struct health;
int health_new(struct health **ret, const struct config *c);
void health_free(struct health **h);
void health_reconfigure(struct health *h, const struct config *c);
/* Evaluates everything; publishes BUS_HEALTH_TRANSITION for each change of state. */
void health_tick(struct health *h, struct model *m, const struct health_probe *probes,
		 unsigned int probes_count, const struct health_drop *drops,
		 unsigned int drops_count, uint64_t boot_ns, uint64_t real_ns);
void health_each(const struct health *h, void (*fn)(void *ctx, const struct health_subject *s),
		 void *ctx);
const struct health_subject *health_find(const struct health *h, enum health_kind kind,
					 uint32_t model_index);

#endif
