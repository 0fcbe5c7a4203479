// SPDX-License-Identifier: Apache-2.0
#include "guard/circuit.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static uint64_t slot_ns(uint64_t window_ns)
{
	return window_ns >= CIRCUIT_SLOTS ? window_ns / CIRCUIT_SLOTS : 1;
}

static void window_add(struct circuit_window *w, uint64_t window_ns, uint64_t now_ns,
		       uint64_t successes, uint64_t failures, uint64_t slow)
{
	uint64_t number = now_ns / slot_ns(window_ns);
	__typeof__(w->slots[0]) *s = &w->slots[number % CIRCUIT_SLOTS];

	if (s->number != number) {
		s->number = number;
		s->successes = 0;
		s->failures = 0;
		s->slow = 0;
	}
	s->successes += successes;
	s->failures += failures;
	s->slow += slow;
}

void circuit_window_read(const struct circuit_window *w, uint64_t window_ns, uint64_t now_ns,
			 uint64_t *ret_successes, uint64_t *ret_failures, uint64_t *ret_slow)
{
	uint64_t number = now_ns / slot_ns(window_ns), successes = 0, failures = 0, slow = 0;

	for (unsigned int i = 0; i < CIRCUIT_SLOTS; i++) {
		if (w->slots[i].number > number || number - w->slots[i].number >= CIRCUIT_SLOTS)
			continue;
		successes += w->slots[i].successes;
		failures += w->slots[i].failures;
		slow += w->slots[i].slow;
	}
	*ret_successes = successes;
	*ret_failures = failures;
	*ret_slow = slow;
}

uint64_t circuit_open_ns(const struct config_policy *p, uint32_t opens, double random)
{
	uint64_t ns = p->base_open_ns;

	for (uint32_t i = 1; i < opens && ns < p->max_open_ns; i++)
		ns *= 2; /* base_open is at most an hour: no overflow below max_open, a day */
	if (ns > p->max_open_ns)
		ns = p->max_open_ns;
	return ns + (uint64_t)((double)ns * p->jitter * random);
}

uint32_t circuit_open_limit(uint32_t all, double max_open_ratio)
{
	uint32_t limit = (uint32_t)floor((double)all * max_open_ratio + 1e-9);

	if (!limit && max_open_ratio > 0)
		return 1;
	return limit;
}

void circuit_init(struct circuit *c, uint64_t now_ns)
{
	memset(c, 0, sizeof(*c));
	c->since_ns = now_ns;
}

__attribute__((format(printf, 2, 3))) static void say(struct circuit *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->reason, sizeof(c->reason), fmt, ap);
	va_end(ap);
}

static void enter(struct circuit *c, const struct config_policy *p, enum kilter_circuit_state to,
		  uint64_t now_ns, double random)
{
	c->ramp_ns = 0;
	c->state = to;
	c->since_ns = now_ns;
	c->retry_ns = 0;
	c->trial_ns = 0;
	c->decay_ns = 0;
	c->suppressed_until_ns = 0;
	c->transitions[to]++;
	memset(&c->window, 0, sizeof(c->window)); /* what led here must not lead on from here */
	switch (to) {
	case KILTER_CIRCUIT_CLOSED:
		c->decay_ns = now_ns + p->window_ns;
		break;
	case KILTER_CIRCUIT_OPEN:
		if (c->opens < CIRCUIT_OPENS_MAX)
			c->opens++;
		c->retry_ns = now_ns + circuit_open_ns(p, c->opens, random);
		break;
	case KILTER_CIRCUIT_HALF_OPEN:
		break;
	}
}

/* Why the kernel tripped it. */
static void say_kernel(struct circuit *c, const struct config_policy *p,
		       const struct circuit_input *in)
{
	uint32_t n =
	    in->consecutive > p->consecutive_failures ? in->consecutive : p->consecutive_failures;

	switch (in->tripped_by) {
	case KILTER_TRIP_CONSECUTIVE:
		say(c, "%u failures in a row reached the threshold of %u", n,
		    p->consecutive_failures);
		break;
	case KILTER_TRIP_FAILURE_RATIO:
		say(c, "failure ratio reached %.2f in the last %u calls (%u failed)",
		    p->failure_ratio, in->ring_fill, in->ring_failures);
		break;
	case KILTER_TRIP_SLOW_RATIO:
		say(c, "slow call ratio reached %.2f in the last %u calls (%u took over %gs)",
		    p->slow_call_ratio, in->ring_fill, in->ring_slow,
		    (double)p->slow_call_ns / 1e9);
		break;
	}
}

static bool reached(uint64_t n, uint64_t all, double ratio)
{
	return ratio > 0 && (double)n >= ratio * (double)all;
}

/* Is there a reason to open a closed circuit? Writes it. */
static bool should_open(struct circuit *c, const struct config_policy *p,
			const struct circuit_input *in)
{
	uint64_t successes, failures, slow, all, window_ns = p->window_ns;

	if (in->kernel_tripped) {
		say_kernel(c, p, in);
		return true;
	}
	if (p->window_counts)
		return false; /* the kernel judges it */
	circuit_window_read(&c->window, p->window_ns, in->now_ns, &successes, &failures, &slow);
	all = successes + failures;
	if (all >= p->minimum_requests && reached(slow, all, p->slow_call_ratio)) {
		say(c, "slow call ratio %.2f reached %.2f in %gs (%llu of %llu took over %gs)",
		    (double)slow / (double)all, p->slow_call_ratio, (double)window_ns / 1e9,
		    (unsigned long long)slow, (unsigned long long)all,
		    (double)p->slow_call_ns / 1e9);
		return true;
	}
	/* The kernel counts from when the circuit was made and for connections that belong to
	 * it; the model saw all. It must not be asked about a time before this state. */
	if (in->edge_requests > all && in->now_ns - c->since_ns >= in->edge_window_ns) {
		all = in->edge_requests;
		failures = in->edge_failures;
		window_ns = in->edge_window_ns;
	}
	if (all < p->minimum_requests || !reached(failures, all, p->failure_ratio))
		return false;
	say(c, "failure ratio %.2f reached %.2f in %gs (%llu of %llu failed)",
	    (double)failures / (double)all, p->failure_ratio, (double)window_ns / 1e9,
	    (unsigned long long)failures, (unsigned long long)all);
	return true;
}

/* The panic guard, on what would be after a trip: NULL, or what speaks against it. */
static const char *panics(const struct circuit_input *in, char *buf, size_t size)
{
	uint32_t limit = circuit_open_limit(in->destinations, in->max_open_ratio);
	uint32_t open = in->other_destinations_open + 1;

	if (!in->destination_open && open > limit) {
		snprintf(buf, size, "%u of %u destinations would be open, %u may be", open,
			 in->destinations, limit);
		return buf;
	}
	if (in->max_open && in->open + 1 > in->max_open) {
		snprintf(buf, size, "%u circuits would be open, %u may be", in->open + 1,
			 in->max_open);
		return buf;
	}
	return NULL;
}

static enum circuit_step step_closed(struct circuit *c, const struct config_policy *p,
				     const struct circuit_input *in)
{
	char why[CIRCUIT_REASON], buf[80];
	const char *panic;

	if (c->opens && in->now_ns >= c->decay_ns) {
		c->opens--;
		c->decay_ns = in->now_ns + p->window_ns;
	}
	memcpy(why, c->reason, sizeof(why));
	if (!should_open(c, p, in))
		return CIRCUIT_STAYS;
	panic = panics(in, buf, sizeof(buf));
	if (panic) {
		bool news = in->now_ns >= c->suppressed_until_ns;

		if (!news) {
			memcpy(c->reason, why, sizeof(why));
			return CIRCUIT_STAYS;
		}
		snprintf(why, sizeof(why), "%.98s; suppressed: %s", c->reason, panic);
		memcpy(c->reason, why, sizeof(why));
		c->suppressed++;
		c->suppressed_until_ns = in->now_ns + p->base_open_ns;
		memset(&c->window, 0, sizeof(c->window));
		return CIRCUIT_SUPPRESSED;
	}
	enter(c, p, KILTER_CIRCUIT_OPEN, in->now_ns, in->random);
	return CIRCUIT_MOVED;
}

static enum circuit_step step_half_open(struct circuit *c, const struct config_policy *p,
					const struct circuit_input *in)
{
	if (in->trial_failures) {
		say(c, "a trial failed (%u of %u)", in->trial_failures,
		    in->trial_failures + in->trial_successes);
		enter(c, p, KILTER_CIRCUIT_OPEN, in->now_ns, in->random);
		return CIRCUIT_MOVED;
	}
	if (in->trial_successes >= p->half_open_successes) {
		say(c, "%u trials succeeded, %u were asked for", in->trial_successes,
		    p->half_open_successes);
		enter(c, p, KILTER_CIRCUIT_CLOSED, in->now_ns, in->random);
		c->ramp_ns = in->now_ns; /* not all callers at once */
		return CIRCUIT_MOVED;
	}
	/* Where nobody calls there is nothing to wait for: the time runs from the first trial. */
	if (in->trials && !c->trial_ns)
		c->trial_ns = in->now_ns;
	if (c->trial_ns && in->now_ns >= c->trial_ns + p->half_open_timeout_ns) {
		say(c, "no verdict in %gs (%u of %u trials succeeded)",
		    (double)p->half_open_timeout_ns / 1e9, in->trial_successes,
		    p->half_open_successes);
		enter(c, p, KILTER_CIRCUIT_OPEN, in->now_ns, in->random);
		return CIRCUIT_MOVED;
	}
	return CIRCUIT_STAYS;
}

enum circuit_force circuit_forced(const struct circuit *c, const struct config_policy *p)
{
	if (c->forced != CIRCUIT_AUTO || c->held)
		return c->forced;
	switch (p->force) {
	case CONFIG_FORCE_OPEN:
		return CIRCUIT_FORCED_OPEN;
	case CONFIG_FORCE_CLOSED:
		return CIRCUIT_FORCED_CLOSED;
	case CONFIG_FORCE_AUTO:
		break;
	}
	return CIRCUIT_AUTO;
}

static enum circuit_step step_forced(struct circuit *c, const struct config_policy *p,
				     const struct circuit_input *in, enum circuit_force force)
{
	enum kilter_circuit_state to =
	    force == CIRCUIT_FORCED_OPEN ? KILTER_CIRCUIT_OPEN : KILTER_CIRCUIT_CLOSED;

	if (c->state == to)
		return CIRCUIT_STAYS;
	say(c, "%s by %s",
	    force == CIRCUIT_DISABLED	   ? "disabled"
	    : force == CIRCUIT_FORCED_OPEN ? "forced open"
					   : "forced closed",
	    c->forced == CIRCUIT_AUTO ? "the policy" : "hand");
	if (to == KILTER_CIRCUIT_CLOSED)
		c->opens = 0;
	enter(c, p, to, in->now_ns, in->random);
	return CIRCUIT_MOVED;
}

enum circuit_step circuit_step(struct circuit *c, const struct config_policy *p,
			       const struct circuit_input *in)
{
	enum circuit_force force = circuit_forced(c, p);

	if (c->state == KILTER_CIRCUIT_CLOSED)
		window_add(&c->window, p->window_ns, in->now_ns, in->successes, in->failures,
			   in->slow);
	if (force != CIRCUIT_AUTO)
		return step_forced(c, p, in, force);
	if (c->held)
		return CIRCUIT_STAYS;
	switch (c->state) {
	case KILTER_CIRCUIT_CLOSED:
		return step_closed(c, p, in);
	case KILTER_CIRCUIT_OPEN:
		if (in->now_ns < c->retry_ns)
			return CIRCUIT_STAYS;
		say(c, "open for %.1fs: up to %u trial connections at a time",
		    (double)(in->now_ns - c->since_ns) / 1e9, p->half_open_permits);
		enter(c, p, KILTER_CIRCUIT_HALF_OPEN, in->now_ns, in->random);
		return CIRCUIT_MOVED;
	case KILTER_CIRCUIT_HALF_OPEN:
		return step_half_open(c, p, in);
	}
	return CIRCUIT_STAYS;
}

bool circuit_trip(struct circuit *c, const struct config_policy *p, uint64_t now_ns, double random,
		  const char *who)
{
	if (c->state == KILTER_CIRCUIT_OPEN)
		return false;
	say(c, "tripped %s", who);
	enter(c, p, KILTER_CIRCUIT_OPEN, now_ns, random);
	return true;
}

bool circuit_reset(struct circuit *c, const struct config_policy *p, uint64_t now_ns,
		   const char *who)
{
	if (c->state == KILTER_CIRCUIT_CLOSED)
		return false;
	say(c, "reset %s", who);
	c->opens = 0;
	enter(c, p, KILTER_CIRCUIT_CLOSED, now_ns, 0);
	return true;
}

bool circuit_hold(struct circuit *c, bool hold)
{
	if (c->held == hold)
		return false;
	c->held = hold;
	return true;
}

bool circuit_force(struct circuit *c, enum circuit_force force)
{
	if (c->forced == force)
		return false;
	c->forced = force;
	return true;
}
