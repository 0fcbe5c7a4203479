// SPDX-License-Identifier: Apache-2.0
#include "health/hysteresis.h"

unsigned int health_rank(enum health_state s)
{
	switch (s) {
	case HEALTH_HEALTHY:
		return 0;
	case HEALTH_UNKNOWN:
		return 1;
	case HEALTH_DEGRADED:
		return 2;
	case HEALTH_UNHEALTHY:
		return 3;
	}
	return 1;
}

static bool go(struct hysteresis *h, enum health_state to, uint64_t now_ns)
{
	h->state = to;
	h->since_ns = now_ns;
	h->worse = 0;
	h->better = 0;
	return true;
}

bool hysteresis_step(struct hysteresis *h, const struct hysteresis_rule *r,
		     enum health_state verdict, uint64_t now_ns)
{
	unsigned int rank = health_rank(verdict), at = health_rank(h->state);
	bool bad = at > health_rank(HEALTH_UNKNOWN);

	if (!h->judged) {
		h->judged = true;
		h->since_ns = now_ns;
		if (rank <= health_rank(HEALTH_UNKNOWN)) {
			h->state = verdict;
			return true;
		}
		h->state = HEALTH_UNKNOWN;
		at = health_rank(HEALTH_UNKNOWN);
	}
	/* Neither is a fault: what is not known must not be shown as healthy for a tick longer. */
	if (rank != at && !bad && rank <= health_rank(HEALTH_UNKNOWN))
		return go(h, verdict, now_ns);
	if (rank > at) {
		if (!h->worse || rank < health_rank(h->goal))
			h->goal = verdict;
		h->better = 0;
		if (++h->worse >= r->enter)
			return go(h, h->goal, now_ns);
	} else if (rank < at) {
		if (!h->better || rank > health_rank(h->goal))
			h->goal = verdict;
		h->worse = 0;
		if (++h->better >= r->leave && (!bad || now_ns - h->since_ns >= r->dwell_ns))
			return go(h, h->goal, now_ns);
	} else {
		h->worse = 0;
		h->better = 0;
	}
	return false;
}
