// SPDX-License-Identifier: Apache-2.0
/* The kernel's side of one circuit. */
#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "guard/internal.h"

#define SOON_NS		  NS_PER_SEC /* open in the kernel for no reason we know */
#define RATE_INTERVAL_MAX 1e12	     /* ns: a million times it, the longest burst, is within 2^63 */

const struct config_policy *guard_config_of(const struct guard *g, const struct entry *e)
{
	return e->policy ? e->policy->policy : &g->config.guard.defaults;
}

struct guard_limits guard_limits_of(const struct guard *g, const struct entry *e)
{
	const struct config_policy *p = guard_config_of(g, e);

	if (e->limits_set)
		return e->limits;
	return (struct guard_limits){
	    .rate_limit = p->rate_limit, .burst = p->burst, .max_connections = p->max_connections};
}

static uint16_t kernel_ratio(double ratio)
{
	return (uint16_t)lround(ratio * KILTER_RATIO_ONE);
}

static void desired_rules(const struct guard *g, const struct entry *e,
			  struct kilter_guard_rules *r)
{
	const struct config_policy *p = guard_config_of(g, e);
	bool muted = e->c.held || g->now_ns < e->c.suppressed_until_ns ||
		     circuit_forced(&e->c, p) != CIRCUIT_AUTO;

	r->generation = e->pub.generation;
	r->base_open_ns = p->base_open_ns;
	r->successes = (__u16)p->half_open_successes;
	r->failures = (__u8)p->failures.outcomes;
	r->state = (__u8)e->c.state;
	r->mode = (__u8)(e->c.forced == CIRCUIT_DISABLED ? KILTER_GUARD_OFF : e->pub.mode);
	if (e->keys_count)
		r->counters = e->keys[0]->key;
	if (p->slow_call_ratio > 0)
		r->slow = (__u32)(p->slow_call_ns >> KILTER_SLOW_SHIFT);
	if (muted)
		return;
	r->consecutive_failures = p->consecutive_failures;
	if (p->window_counts) {
		r->window_calls = (__u16)p->window_calls;
		r->minimum_calls = (__u16)p->minimum_requests;
		r->failure_ratio = kernel_ratio(p->failure_ratio);
		r->slow_ratio = kernel_ratio(p->slow_call_ratio);
	}
}

static void desired(const struct guard *g, const struct entry *e, struct kilter_guard_policy *ret)
{
	const struct config_policy *p = guard_config_of(g, e);
	struct guard_limits limits = guard_limits_of(g, e);

	memset(ret, 0, sizeof(*ret));
	desired_rules(g, e, &ret->rules);
	ret->permit_timeout_ns = p->half_open_timeout_ns;
	ret->permits = p->half_open_permits;
	ret->close_connections = p->close_connections;
	memcpy(ret->statuses, p->failures.statuses, sizeof(ret->statuses));
	if (p->ramp_up_ns && e->c.ramp_ns && g->now_ns < e->c.ramp_ns + p->ramp_up_ns &&
	    circuit_forced(&e->c, p) == CIRCUIT_AUTO) {
		ret->ramp_from_ns = e->c.ramp_ns;
		ret->ramp_ns = p->ramp_up_ns;
	}
	if (limits.rate_limit > 0) {
		ret->rate_interval_ns =
		    (__u64)llround(fmin(1e9 / limits.rate_limit, RATE_INTERVAL_MAX));
		ret->rate_tolerance_ns =
		    ret->rate_interval_ns * (limits.burst ? limits.burst - 1 : 0);
	}
	ret->max_connections = limits.max_connections;
	ret->limits_epoch = e->limits_epoch;
	ret->standby = e->policy ? e->policy->standby : g->policies.standby;
	if (!memcmp(&ret->standby, &e->destination, sizeof(ret->standby)))
		memset(&ret->standby, 0, sizeof(ret->standby)); /* it would lead to where it is */
	/* What refuses needs a lease; a closed circuit without limits does not. */
	if (e->c.state != KILTER_CIRCUIT_CLOSED || ret->rate_interval_ns || ret->max_connections ||
	    ret->ramp_ns)
		ret->lease_until_ns = g->now_ns + g->config.guard.lease_ns;
}

void guard_tell_kernel(struct guard *g, struct entry *e)
{
	struct kilter_guard_policy p;
	bool same;

	desired(g, e, &p);
	if (e->written.rate_interval_ns && (e->written.rate_interval_ns != p.rate_interval_ns ||
					    e->written.rate_tolerance_ns != p.rate_tolerance_ns))
		p.limits_epoch = ++e->limits_epoch; /* what the old rate used up is nothing to it */
	same = !memcmp(&p, &e->written, sizeof(p));
	e->written = p;
	e->pub.lease_until_boot_ns = p.lease_until_ns;
	/* No policy without counters: a connect that finds none is let through where the kernel
	 * cannot make them, and at a connect it may not wait for memory. */
	if (e->keys_count && !e->keys[0]->counts)
		e->keys[0]->counts = !sync_make_runtime(&g->sync, &e->keys[0]->key);
	for (unsigned int i = 0; i < e->keys_count; i++)
		if (!same || !e->keys[i]->told)
			e->keys[i]->told =
			    e->keys[0]->counts && !sync_write(&g->sync, &e->keys[i]->key, &p);
}

static void read_limits(struct guard *g, struct entry *e, const struct kilter_guard_runtime *rt)
{
	const struct kilter_guard_policy *p = &e->written;
	struct guard_circuit *pub = &e->pub;
	double ahead = rt->arrival_ns > g->now_ns ? (double)(rt->arrival_ns - g->now_ns) : 0;

	pub->open = rt->open;
	pub->open_peak = rt->open_peak;
	pub->rate_fill = 0;
	if (p->rate_interval_ns)
		pub->rate_fill =
		    fmin(1, ahead / (double)(p->rate_tolerance_ns + p->rate_interval_ns));
}

void guard_read_kernel(struct guard *g, struct entry *e, struct circuit_input *in)
{
	struct guard_circuit *pub = &e->pub;
	struct kilter_guard_runtime rt;
	bool ours;

	if (!e->keys_count)
		return;
	if (sync_runtime(&g->sync, &e->keys[0]->key, &rt)) {
		e->keys[0]->counts = false; /* not made yet, or taken from us */
		return;
	}
	ours = rt.generation == pub->generation;
	if (rt.total_successes < e->seen.successes || rt.total_failures < e->seen.failures ||
	    rt.trips < e->seen.trips) /* made anew by the kernel */
		memset(&e->seen, 0, sizeof(e->seen));
	in->successes = rt.total_successes - e->seen.successes;
	in->failures = rt.total_failures - e->seen.failures;
	in->slow = rt.total_slow - e->seen.slow;
	pub->consecutive = 0;
	if (ours) {
		/* One that is over is none: traffic has gone on since. */
		in->kernel_tripped =
		    rt.tripped_ns &&
		    g->now_ns < rt.tripped_ns + guard_config_of(g, e)->base_open_ns;
		in->tripped_by = (enum kilter_trip)rt.tripped_by;
		in->ring_fill = rt.ring_fill;
		in->ring_failures = rt.ring_failures;
		in->ring_slow = rt.ring_slow;
		in->trials = rt.trials;
		in->trial_successes = rt.successes;
		in->trial_failures = rt.failures;
		pub->consecutive = rt.consecutive;
	}
	in->consecutive = pub->consecutive;
	e->seen.successes = rt.total_successes;
	e->seen.failures = rt.total_failures;
	e->seen.slow = rt.total_slow;
	e->seen.trips = rt.trips;
	pub->successes = rt.total_successes;
	pub->failures = rt.total_failures;
	pub->slow = rt.total_slow;
	pub->redirected = rt.redirected;
	pub->closed = rt.closed;
	pub->lease_expired = rt.lease_expired;
	pub->trips = rt.trips;
	memcpy(pub->failed, rt.failed, sizeof(pub->failed));
	memcpy(pub->refused, rt.refused, sizeof(pub->refused));
	memcpy(pub->would_refuse, rt.would_refuse, sizeof(pub->would_refuse));
	read_limits(g, e, &rt);
}

/* The kernel has this key already: an earlier daemon's. Its state goes on. */
static void adopt_key(struct guard *g, struct entry *e, const struct kilter_guard_policy *p)
{
	if (e->pub.generation || p->rules.state > KILTER_CIRCUIT_HALF_OPEN)
		return;
	e->pub.generation = p->rules.generation;
	e->limits_epoch = p->limits_epoch;
	e->c.state = (enum kilter_circuit_state)p->rules.state;
	guard_count_state(g, e, KILTER_CIRCUIT_CLOSED);
	if (e->c.state == KILTER_CIRCUIT_CLOSED)
		return;
	e->c.opens = 1;
	e->c.retry_ns = g->now_ns + SOON_NS;
	snprintf(e->c.reason, sizeof(e->c.reason), "found %s in the kernel at start",
		 guard_state_str(e->c.state));
}

static bool new_key(struct guard *g, struct entry *e, const struct kilter_circuit_key *key)
{
	struct kilter_guard_runtime rt;
	struct kernel_key *k;

	for (unsigned int i = 0; i < e->keys_count; i++)
		if (!memcmp(&e->keys[i]->key, key, sizeof(*key)))
			return true;
	if (e->keys_count >= SYNC_KEYS_MAX || table_find(&g->keys, key))
		return false;
	k = table_add(&g->keys, key);
	if (!k) {
		g->circuits_full++;
		return false;
	}
	/* Of before we looked: in no window. */
	if (!e->keys_count && !sync_runtime(&g->sync, key, &rt)) {
		e->seen.successes = rt.total_successes;
		e->seen.failures = rt.total_failures;
		e->seen.slow = rt.total_slow;
		e->seen.trips = rt.trips;
	}
	k->circuit = e->node.number;
	e->keys[e->keys_count++] = k;
	g->join_passes = JOIN_PASSES;
	return true;
}

bool guard_add_key(struct guard *g, struct entry *e, uint32_t workload, uint32_t peer)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = peer};
	struct kilter_guard_policy p;

	if (!e->keys_count && !sync_policy(&g->sync, &key, &p)) {
		adopt_key(g, e, &p);
		/* An earlier daemon counted this circuit there: so do we. */
		if (p.rules.counters.peer)
			new_key(g, e, &p.rules.counters);
	}
	return new_key(g, e, &key);
}

static bool is_used(const struct model_edge *edge, const struct kilter_circuit_key *key)
{
	for (unsigned int i = 0; i < SYNC_KEYS_MAX - 1 && edge->workload_ids[i]; i++)
		if (edge->workload_ids[i] == key->workload)
			return true;
	return false;
}

void guard_drop_old_keys(struct guard *g, struct entry *e, const struct model_edge *edge)
{
	for (unsigned int i = 1; i < e->keys_count; i++) {
		struct kernel_key *k = e->keys[i];

		if (is_used(edge, &k->key))
			continue;
		sync_remove(&g->sync, &k->key);
		table_remove(&g->keys, k);
		e->keys[i--] = e->keys[--e->keys_count];
	}
}

void guard_drop_keys(struct guard *g, struct entry *e)
{
	while (e->keys_count) {
		struct kernel_key *k = e->keys[--e->keys_count];

		sync_remove(&g->sync, &k->key);
		table_remove(&g->keys, k);
	}
	memset(&e->seen, 0, sizeof(e->seen));
}

void guard_check_peer(struct guard *g, struct entry *e, const struct model *m)
{
	uint32_t id = kilter_hash_words((const __u32 *)(const void *)&e->destination,
					sizeof(e->destination) / sizeof(__u32));

	for (unsigned int i = 0; i < KILTER_INTERN_PROBES; i++, id++) {
		const struct kilter_peer *known;

		if (!id)
			id = 1;
		known = model_peer_by_id(m, id);
		if (known && memcmp(known, &e->destination, sizeof(*known)))
			continue;
		if (!e->keys_count || e->keys[0]->key.peer != id) {
			guard_drop_keys(g, e);
			if (!guard_add_key(g, e, 0, id))
				return;
		}
		e->checked_peer = known;
		return;
	}
	guard_drop_keys(g, e); /* all are others': better no circuit than another's */
}
