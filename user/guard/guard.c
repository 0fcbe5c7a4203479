// SPDX-License-Identifier: Apache-2.0
/*
 * The circuits of this node. Each tick: edges of the model find or make their circuit, the
 * kernel's counters are read, each state machine takes a step, and what the kernel should
 * know is written where it differs from what it was told last, or where a lease runs.
 */
#include "guard/guard.h"

#include <sys/random.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kilter/series.h>

#include "core/bus.h"
#include "core/clock.h"
#include "guard/internal.h"

#define FORGET_NS (60 * NS_PER_SEC)  /* an edge that the model dropped: then its circuit goes */
#define SWEEP_NS  (600 * NS_PER_SEC) /* kernel entries that nobody owns are looked for */
#define SETTLE_NS (120 * NS_PER_SEC) /* after start: entries may still find their owner */

const char *guard_state_str(enum kilter_circuit_state s)
{
	switch (s) {
	case KILTER_CIRCUIT_CLOSED:
		return "closed";
	case KILTER_CIRCUIT_OPEN:
		return "open";
	case KILTER_CIRCUIT_HALF_OPEN:
		return "half_open";
	}
	return "unknown";
}

const char *guard_mode_str(enum kilter_guard_mode m)
{
	switch (m) {
	case KILTER_GUARD_OFF:
		return "off";
	case KILTER_GUARD_OBSERVE:
		return "observe";
	case KILTER_GUARD_ENFORCE:
		return "enforce";
	}
	return "unknown";
}

const char *guard_refusal_str(uint32_t reason)
{
	static const char *const names[] = {
	    [KILTER_REFUSED_OPEN] = "open",
	    [KILTER_REFUSED_HALF_OPEN] = "half_open",
	    [KILTER_REFUSED_RAMP_UP] = "ramp_up",
	    [KILTER_REFUSED_RATE] = "rate_limit",
	    [KILTER_REFUSED_CONNECTIONS] = "max_connections",
	};

	return reason < KILTER_REFUSALS ? names[reason] : "unknown";
}

const char *guard_failure_str(uint32_t what)
{
	static const char *const names[] = {
	    [KILTER_FAILED_CONNECT] = "connect",
	    [KILTER_FAILED_NO_ANSWER] = "no_answer",
	    [KILTER_FAILED_HTTP] = "http",
	    [KILTER_FAILED_SLOW] = "slow_trial",
	};

	return what < KILTER_FAILURES ? names[what] : "unknown";
}

/* xoroshiro128+ (Blackman and Vigna, public domain): jitter needs spread, not secrecy. */
double guard_random(struct guard *g)
{
	uint64_t a = g->random[0], b = g->random[1], sum = a + b;

	b ^= a;
	g->random[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
	g->random[1] = (b << 37) | (b >> 27);
	return (double)(sum >> 11) / 9007199254740992.0; /* 2^53 */
}

/* --- transitions --- */

void guard_moved(struct guard *g, struct entry *e, enum kilter_circuit_state from)
{
	e->pub.generation = sync_next_generation(&g->sync);
	e->pub.since_real_ns = g->real_ns;
	guard_count_state(g, e, from);
	g->changed = true;
	guard_tell_kernel(g, e); /* before anybody hears of it */
	if (e->c.state == KILTER_CIRCUIT_OPEN && guard_config_of(g, e)->close_connections)
		g->close_passes = CLOSE_PASSES;
	guard_announce(e, from, "success");
}

/* The statuses of http_5xx and grpc_errors and no other: what the model calls errors. */
static bool counts_as_model(const struct config_failures *f)
{
	for (unsigned int status = KILTER_STATUS_FIRST;
	     status < KILTER_STATUS_GRPC + KILTER_GRPC_CODES; status++) {
		unsigned int i = kilter_status_bit(status);

		if (i < KILTER_STATUS_BITS && (f->statuses[i / 64] >> (i % 64) & 1) !=
						  (unsigned int)kilter_status_is_error(status))
			return false;
	}
	return f->outcomes & KILTER_FAIL_ON_NO_ANSWER;
}

/* The model's own figures for this edge, where the circuit counts what the model counts. */
static void read_edge(const struct entry *e, const struct config_policy *p, const struct model *m,
		      struct circuit_input *in)
{
	uint64_t successes, failures, slow;
	enum model_span span = MODEL_10S;
	struct model_red red;

	if (!e->edge || p->failure_ratio <= 0 || e->c.state != KILTER_CIRCUIT_CLOSED ||
	    !counts_as_model(&p->failures))
		return;
	/* A connection joins its circuit with its first failure: before that, nothing is amiss. */
	circuit_window_read(&e->c.window, p->window_ns, in->now_ns, &successes, &failures, &slow);
	if (!failures && !in->failures)
		return;
	while (span < MODEL_1H && model_span_ns[span] < p->window_ns)
		span++;
	model_edge_red(m, e->edge, span, &red);
	in->edge_requests = red.requests;
	in->edge_failures = red.errors;
	in->edge_window_ns = model_span_ns[span];
	if (p->failures.outcomes & KILTER_FAIL_ON_CONNECT) {
		struct model_tcp tcp;

		model_edge_tcp(m, e->edge, span, &tcp);
		for (unsigned int i = 0; i < KILTER_CONNECT_OTHER; i++) {
			in->edge_requests += tcp.failed[i];
			in->edge_failures += tcp.failed[i];
		}
	}
}

void guard_step(struct guard *g, struct entry *e, const struct model *m)
{
	const struct config_policy *p = guard_config_of(g, e);
	enum kilter_circuit_state from = e->c.state;
	bool ours_open = from != KILTER_CIRCUIT_CLOSED;
	struct circuit_input in = {
	    .now_ns = g->now_ns,
	    .random = guard_random(g),
	    .open = g->open,
	    .other_destinations_open = g->destinations_open - (e->at->open > 0),
	    .destinations = g->destinations.count,
	    .destination_open = e->at->open > ours_open,
	    .max_open_ratio = g->config.guard.max_open_ratio,
	    .max_open = g->config.guard.max_open,
	};

	guard_read_kernel(g, e, &in);
	if (!e->pub.generation)
		e->pub.generation = sync_next_generation(&g->sync);
	if (m)
		read_edge(e, p, m, &in);
	/* What is held or forced closed takes back what the kernel did by itself a moment before.
	 */
	if (in.kernel_tripped && (e->c.held || circuit_forced(&e->c, p) != CIRCUIT_AUTO))
		e->pub.generation = sync_next_generation(&g->sync);
	switch (circuit_step(&e->c, p, &in)) {
	case CIRCUIT_MOVED:
		guard_moved(g, e, from);
		return;
	case CIRCUIT_SUPPRESSED:
		/* A new generation takes back what the kernel did by itself. */
		e->pub.generation = sync_next_generation(&g->sync);
		guard_tell_kernel(g, e);
		guard_announce(e, from, "failure");
		return;
	case CIRCUIT_STAYS:
		break;
	}
	guard_tell_kernel(g, e);
}

/* --- what others call --- */

static bool owned(void *ctx, const struct kilter_circuit_key *key)
{
	const struct guard *g = ctx;

	return table_find(&g->keys, key);
}

int guard_new(struct guard **ret, const struct config *c, const struct guard_maps *maps,
	      const char *state_file, const struct dns *dns)
{
	struct guard *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return -ENOMEM;
	table_init(&g->circuits, sizeof(((struct entry *)0)->name), sizeof(struct entry),
		   KILTER_CIRCUITS_MAX);
	table_init(&g->keys, sizeof(struct kilter_circuit_key), sizeof(struct kernel_key),
		   KILTER_CIRCUITS_MAX);
	table_init(&g->destinations, sizeof(struct kilter_peer), sizeof(struct destination),
		   KILTER_CIRCUITS_MAX);
	g->config = *c;
	g->dns = dns;
	g->dns_generation = dns ? dns_generation(dns) : 0;
	g->now_ns = clock_boot_ns();
	g->real_ns = clock_real_ns();
	g->sweep_ns = g->now_ns + SETTLE_NS;
	if ((size_t)snprintf(g->state_file, sizeof(g->state_file), "%s",
			     state_file ? state_file : "") >= sizeof(g->state_file))
		err = -ENAMETOOLONG;
	else
		err = sync_init(&g->sync, maps);
	if (!err && getrandom(g->random, sizeof(g->random), 0) != sizeof(g->random))
		err = -errno;
	if (err) {
		table_done(&g->circuits);
		table_done(&g->keys);
		table_done(&g->destinations);
		free(g);
		return err;
	}
	g->random[0] |= 1; /* all zero would stay zero */
	policy_table_init(&g->policies, &g->config);
	guard_add_exact(g);
	guard_load(g);
	guard_switch_start(g);
	for (uint32_t pos = 0;;) {
		struct entry *e = table_next(&g->circuits, &pos);

		if (!e)
			break;
		if (!e->pub.generation)
			e->pub.generation = sync_next_generation(&g->sync);
		guard_tell_kernel(g, e); /* leases run on; steps come with the first tick */
	}
	sync_disarm(&g->sync, owned, g); /* until an edge claims it */
	guard_register_stats(g);
	*ret = g;
	return 0;
}

void guard_set_hooks(struct guard *g, const struct guard_hooks *hooks)
{
	g->hooks = *hooks;
}

void guard_free(struct guard **gp)
{
	struct guard *g = *gp;
	struct entry *e;
	uint32_t pos = 0;

	if (!g)
		return;
	g->changed = true;
	guard_save(g);
	guard_unregister_stats(g);
	while ((e = table_next(&g->circuits, &pos)))
		labels_free(&e->labels);
	table_done(&g->circuits);
	table_done(&g->keys);
	table_done(&g->destinations);
	sync_done(&g->sync);
	free(g);
	*gp = NULL;
}

void guard_reconfigure(struct guard *g, const struct config *c)
{
	g->config = *c;
	policy_table_init(&g->policies, &g->config);
	guard_apply_policies(g);
	guard_add_exact(g);
	g->changed = true;
}

void guard_connections_ended(int n)
{
	char reason[64];

	snprintf(reason, sizeof(reason), "%d connection%s of open circuits ended", n,
		 n == 1 ? "" : "s");
	bus_publish(&(struct bus_event){.kind = BUS_GUARD,
					.subject = "guard",
					.action = "connections-closed",
					.reason = reason,
					.outcome = "success",
					.uid = UINT32_MAX});
}

/* What concerns connections, after the kernel has heard of every circuit. */
void guard_run_hooks(struct guard *g)
{
	if (g->join_passes) {
		g->join_passes--;
		if (g->hooks.join)
			g->hooks.join(g->hooks.ctx);
	}
	if (g->close_passes) {
		int n = g->hooks.close ? g->hooks.close(g->hooks.ctx) : 0;

		g->close_passes--;
		if (n > 0)
			guard_connections_ended(n);
	}
}

/* Names come later than the first connect to them. */
static void look_at_names(struct guard *g)
{
	struct entry *e;
	uint64_t generation;
	uint32_t pos = 0;

	generation = g->dns ? dns_generation(g->dns) : 0;
	if (generation == g->dns_generation)
		return;
	g->dns_generation = generation;
	if (g->policies.names) {
		guard_apply_policies(g);
		return;
	}
	while ((e = table_next(&g->circuits, &pos)))
		guard_show_name(g, e);
}

void guard_tick(struct guard *g, struct model *m, uint64_t boot_ns, uint64_t real_ns)
{
	struct entry *e;
	uint32_t pos = 0;

	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	sync_bury(&g->sync, clock_boot_ns());
	guard_switch_look(g);
	look_at_names(g);
	model_each_edge(m, guard_on_edge, g);
	while ((e = table_next(&g->circuits, &pos))) {
		if (e->any && !e->checked_peer)
			guard_check_peer(g, e, m);
		if (!e->any && boot_ns - e->edge_ns > FORGET_NS && !guard_by_hand(e) &&
		    e->c.state != KILTER_CIRCUIT_OPEN) {
			guard_drop(g, e, "nobody calls it any more");
			continue;
		}
		guard_step(g, e, m);
		e->edge = NULL;
	}
	guard_run_hooks(g);
	if (boot_ns >= g->sweep_ns) {
		sync_sweep(&g->sync, owned, g);
		g->sweep_ns = boot_ns + SWEEP_NS;
	}
	guard_save(g);
}

static bool waits(const struct guard *g, const struct entry *e)
{
	return e->c.state == KILTER_CIRCUIT_OPEN && !e->c.held &&
	       circuit_forced(&e->c, guard_config_of(g, e)) == CIRCUIT_AUTO;
}

uint64_t guard_next_ns(const struct guard *g)
{
	const struct entry *e;
	uint64_t next = 0;
	uint32_t pos = 0;

	while (g->open && (e = table_next(&g->circuits, &pos)))
		if (waits(g, e) && (!next || e->c.retry_ns < next))
			next = e->c.retry_ns;
	return next;
}

void guard_due(struct guard *g, uint64_t boot_ns, uint64_t real_ns)
{
	struct entry *e;
	uint32_t pos = 0;

	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	while ((e = table_next(&g->circuits, &pos)))
		if (waits(g, e) && boot_ns >= e->c.retry_ns)
			guard_step(g, e, NULL);
	guard_save(g);
}

const char *guard_name_of(const struct guard *g, const struct kilter_circuit_key *key)
{
	const struct kernel_key *k = table_find(&g->keys, key);
	const struct entry *e = k ? table_at(&g->circuits, k->circuit) : NULL;

	return e ? e->pub.name : NULL;
}

void guard_kernel_trip(struct guard *g, const struct kilter_event_trip *ev, uint64_t boot_ns,
		       uint64_t real_ns)
{
	const struct kernel_key *k = table_find(&g->keys, &ev->key);
	struct entry *e = k ? table_at(&g->circuits, k->circuit) : NULL;

	/* Of an older generation: the tick has confirmed it, or it was reset since. */
	if (!e || ev->generation != e->pub.generation)
		return;
	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	guard_step(g, e, NULL);
	if (g->close_passes == CLOSE_PASSES)
		guard_run_hooks(g);
	guard_save(g);
}

/* --- what is shown --- */

static const char *forced_str(const struct guard *g, const struct entry *e)
{
	switch (circuit_forced(&e->c, guard_config_of(g, e))) {
	case CIRCUIT_FORCED_OPEN:
		return "open";
	case CIRCUIT_FORCED_CLOSED:
		return "closed";
	case CIRCUIT_DISABLED:
		return "disabled";
	case CIRCUIT_AUTO:
	case CIRCUIT_FORCES:
		break;
	}
	return NULL;
}

void guard_each(const struct guard *g, void (*fn)(void *ctx, const struct guard_circuit *c),
		void *ctx)
{
	const char *released = guard_released(g);
	const struct entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&g->circuits, &pos))) {
		struct guard_circuit c = e->pub;

		c.state = e->c.state;
		c.held = e->c.held;
		c.forced = forced_str(g, e);
		c.opens = e->c.opens;
		c.retry_boot_ns = e->c.retry_ns;
		c.suppressed = e->c.suppressed;
		c.limits = guard_limits_of(g, e);
		c.limits_by_hand = e->limits_set;
		if (!e->keys_count || !e->keys[0]->told) {
			c.mode = KILTER_GUARD_OFF;
			c.mode_reason = "the kernel's table of circuits is full";
		} else if (e->c.forced == CIRCUIT_DISABLED) {
			c.mode = KILTER_GUARD_OFF;
			c.mode_reason = "disabled by hand";
		} else if (released && c.mode == KILTER_GUARD_ENFORCE) {
			c.mode = KILTER_GUARD_OBSERVE;
			c.mode_reason = released;
		}
		memcpy(c.transitions, e->c.transitions, sizeof(c.transitions));
		memcpy(c.reason, e->c.reason, sizeof(c.reason));
		fn(ctx, &c);
	}
}

void guard_counts(const struct guard *g, uint32_t *ret_open, uint32_t *ret_destinations_open,
		  uint32_t *ret_destinations)
{
	*ret_open = g->open;
	*ret_destinations_open = g->destinations_open;
	*ret_destinations = g->destinations.count;
}

static bool keep_none(void *ctx, const struct kilter_circuit_key *key)
{
	(void)ctx;
	(void)key;
	return false;
}

void guard_release_all(struct guard *g)
{
	static const struct timespec grace = {.tv_nsec = SYNC_GRACE_NS};
	struct kernel_key *k;
	uint32_t pos = 0;

	/* The policies, and when no outcome is under way in their counters any more, those. */
	if (sync_sweep(&g->sync, keep_none, NULL)) {
		nanosleep(&grace, NULL);
		sync_sweep(&g->sync, keep_none, NULL);
	}
	while ((k = table_next(&g->keys, &pos)))
		k->told = k->counts = false;
}
