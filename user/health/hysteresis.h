/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a verdict becomes a state: `enter` evaluations in a row for a worse one, `leave` for a
 * better one, and a least stay in degraded and unhealthy. Between healthy and unknown, which
 * are no faults, the verdict is the state at once. Pure.
 */
#ifndef KILTER_HEALTH_HYSTERESIS_H
#define KILTER_HEALTH_HYSTERESIS_H

#include <stdbool.h>
#include <stdint.h>

#include "health/health.h"

struct hysteresis {
	enum health_state state;
	bool judged;		/* at least once */
	uint32_t worse, better; /* verdicts in a row beyond the state */
	enum health_state goal; /* of that run: the mildest on the way up, the worst down */
	uint64_t since_ns;	/* of the state */
};

struct hysteresis_rule {
	uint32_t enter, leave;
	uint64_t dwell_ns;
};

/* healthy 0, unknown 1, degraded 2, unhealthy 3 */
unsigned int health_rank(enum health_state s);
/* True: the state changed. The first verdict on a new subject is taken at once unless it is
 * worse than unknown. */
bool hysteresis_step(struct hysteresis *h, const struct hysteresis_rule *r,
		     enum health_state verdict, uint64_t now_ns);

#endif
