// SPDX-License-Identifier: Apache-2.0
/*
 * The circuits of this node. Each tick: edges of the model find or make their circuit, the
 * kernel's counters are read, each state machine takes a step, and what the kernel should
 * know is written where it differs from what it was told last, or where a lease runs.
 *
 * A circuit of a policy that names one address and port for any caller has the kernel key
 * {0, peer} and exists from the start, before the first connect. Every other circuit belongs to
 * an edge and has one kernel key for each kernel id of the caller.
 */
#include "guard/guard.h"

#include <sys/random.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collect/table.h"
#include "core/bus.h"
#include "core/clock.h"
#include "core/selfstat.h"
#include "guard/circuit.h"
#include "guard/policy.h"
#include "guard/sync.h"

#define FORGET_NS      (60 * NS_PER_SEC) /* an edge that the model dropped: then its circuit goes */
#define SWEEP_NS       (600 * NS_PER_SEC) /* kernel entries that nobody owns are looked for */
#define SETTLE_NS      (120 * NS_PER_SEC) /* after start: entries may still find their owner */
#define WITHOUT_POLICY "no policy concerns it any more"
#define SOON_NS	       NS_PER_SEC /* open in the kernel for no reason we know */

_Static_assert(SYNC_KEYS_MAX == sizeof(((struct model_edge *)0)->workload_ids) / sizeof(uint32_t),
	       "a key for each id of an edge's caller");

struct kernel_key { /* what the guard has in the kernel, by its key there */
	struct table_node node;
	struct kilter_circuit_key key;
	uint32_t circuit; /* number of its entry */
	bool told;	  /* the kernel has the policy in `written` of its circuit */
	uint64_t successes, failures, trips; /* at the last look */
};

struct entry {
	struct table_node node;
	char name[sizeof(((struct guard_circuit *)0)->name)]; /* zero-padded: the table's key */
	struct circuit c;
	struct guard_circuit pub;
	const struct policy_entry *policy; /* NULL: guard.defaults */
	struct kilter_peer destination;
	bool any, checked_peer, protected;
	struct kernel_key *keys[SYNC_KEYS_MAX];
	unsigned int keys_count;
	uint64_t edge_ns;	       /* when the model last had its edge */
	const struct model_edge *edge; /* during a tick */
	struct kilter_guard_policy written;
};

struct guard {
	struct config config;
	struct policy_table policies;
	struct sync sync;
	struct table circuits, keys;
	char state_file[CONFIG_PATH_LEN + 32];
	uint64_t random[2];
	uint64_t start_ns, sweep_ns, now_ns, real_ns;
	uint64_t circuits_full; /* edges that found no room for a circuit */
	uint32_t open;		/* circuits that are not closed */
	bool changed;		/* the state file is behind */
	struct selfstat stats[3];
};

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

/* xoroshiro128+ (Blackman and Vigna, public domain): jitter needs spread, not secrecy. */
static double next_random(struct guard *g)
{
	uint64_t a = g->random[0], b = g->random[1], sum = a + b;

	b ^= a;
	g->random[0] = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
	g->random[1] = (b << 37) | (b >> 27);
	return (double)(sum >> 11) / 9007199254740992.0; /* 2^53 */
}

static const struct config_policy *config_of(const struct guard *g, const struct entry *e)
{
	return e->policy ? e->policy->policy : &g->config.guard.defaults;
}

/* --- the kernel's side of one circuit --- */

static void desired(const struct guard *g, const struct entry *e, struct kilter_guard_policy *ret)
{
	const struct config_policy *p = config_of(g, e);
	bool muted = e->c.held || g->now_ns < e->c.suppressed_until_ns;

	*ret = (struct kilter_guard_policy){
	    .generation = e->pub.generation,
	    .base_open_ns = p->base_open_ns,
	    .permit_timeout_ns = p->half_open_timeout_ns,
	    .consecutive_failures = muted ? 0 : p->consecutive_failures,
	    .permits = p->half_open_permits,
	    .failures = p->failures,
	    .state = (__u8)e->c.state,
	    .mode = (__u8)e->pub.mode,
	};
	if (e->c.state != KILTER_CIRCUIT_CLOSED)
		ret->lease_until_ns = g->now_ns + g->config.guard.lease_ns;
}

static void tell_kernel(struct guard *g, struct entry *e)
{
	struct kilter_guard_policy p;
	bool same;

	desired(g, e, &p);
	same = !memcmp(&p, &e->written, sizeof(p));
	e->written = p;
	e->pub.lease_until_boot_ns = p.lease_until_ns;
	for (unsigned int i = 0; i < e->keys_count; i++)
		if (!same || !e->keys[i]->told)
			e->keys[i]->told = !sync_write(&g->sync, &e->keys[i]->key, &p);
}

/* What happened since the last look, over all keys of the circuit. */
static void read_kernel(struct guard *g, struct entry *e, struct circuit_input *in)
{
	struct guard_circuit *pub = &e->pub;

	pub->successes = pub->failures = pub->refused = 0;
	pub->would_refuse = pub->lease_expired = pub->trips = 0;
	pub->consecutive = 0;
	for (unsigned int i = 0; i < e->keys_count; i++) {
		struct kernel_key *k = e->keys[i];
		struct kilter_guard_runtime rt;
		bool ours;

		if (sync_runtime(&g->sync, &k->key, &rt))
			continue; /* nobody connected yet */
		ours = rt.generation == pub->generation;
		if (rt.total_successes < k->successes || rt.total_failures < k->failures ||
		    rt.trips < k->trips) /* made anew by the kernel */
			k->successes = k->failures = k->trips = 0;
		in->successes += rt.total_successes - k->successes;
		in->failures += rt.total_failures - k->failures;
		if (rt.trips > k->trips && ours)
			in->kernel_tripped = true;
		if (ours) {
			if (rt.tripped_ns)
				in->kernel_tripped = true;
			if (rt.consecutive > pub->consecutive)
				pub->consecutive = rt.consecutive;
			in->trials += rt.trials;
			in->trial_successes += rt.successes;
			in->trial_failures += rt.failures;
		}
		k->successes = rt.total_successes;
		k->failures = rt.total_failures;
		k->trips = rt.trips;
		pub->successes += rt.total_successes;
		pub->failures += rt.total_failures;
		pub->refused += rt.refused;
		pub->would_refuse += rt.would_refuse;
		pub->lease_expired += rt.lease_expired;
		pub->trips += rt.trips;
	}
	in->consecutive = pub->consecutive;
}

/* The kernel has this key already: an earlier daemon's. Its state goes on. */
static void adopt_key(struct guard *g, struct entry *e, const struct kilter_circuit_key *key)
{
	struct kilter_guard_policy p;

	if (e->pub.generation || sync_policy(&g->sync, key, &p) ||
	    p.state > KILTER_CIRCUIT_HALF_OPEN)
		return;
	e->pub.generation = p.generation;
	e->c.state = (enum kilter_circuit_state)p.state;
	if (e->c.state == KILTER_CIRCUIT_CLOSED)
		return;
	g->open++;
	e->c.opens = 1;
	e->c.retry_ns = g->now_ns + SOON_NS;
	snprintf(e->c.reason, sizeof(e->c.reason), "found %s in the kernel at start",
		 guard_state_str(e->c.state));
}

static bool add_key(struct guard *g, struct entry *e, uint32_t workload, uint32_t peer)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = peer};
	struct kilter_guard_runtime rt;
	struct kernel_key *k;

	for (unsigned int i = 0; i < e->keys_count; i++)
		if (!memcmp(&e->keys[i]->key, &key, sizeof(key)))
			return true;
	if (e->keys_count >= SYNC_KEYS_MAX || table_find(&g->keys, &key))
		return false;
	k = table_add(&g->keys, &key);
	if (!k)
		return false;
	adopt_key(g, e, &key);
	if (!sync_runtime(&g->sync, &key, &rt)) { /* of before we looked: in no window */
		k->successes = rt.total_successes;
		k->failures = rt.total_failures;
		k->trips = rt.trips;
	}
	k->circuit = e->node.number;
	e->keys[e->keys_count++] = k;
	return true;
}

static void drop_key(struct guard *g, struct entry *e, unsigned int i)
{
	sync_remove(&g->sync, &e->keys[i]->key);
	table_remove(&g->keys, e->keys[i]);
	e->keys[i] = e->keys[--e->keys_count];
}

/* --- circuits come and go --- */

static struct entry *find(const struct guard *g, const char *name)
{
	char key[sizeof(((struct entry *)0)->name)] = {0};

	if (strlen(name) >= sizeof(key))
		return NULL;
	memcpy(key, name, strlen(name));
	return table_find(&g->circuits, key);
}

static struct entry *add(struct guard *g, const char *caller, const struct kilter_peer *destination)
{
	char key[sizeof(((struct entry *)0)->name)] = {0}, text[64];
	struct entry *e;

	model_peer_format(destination, text);
	snprintf(key, sizeof(key), "%.127s->%.63s", caller, text);
	e = table_find(&g->circuits, key);
	if (e)
		return e;
	e = table_add(&g->circuits, key);
	if (!e) {
		g->circuits_full++;
		return NULL;
	}
	circuit_init(&e->c, g->now_ns);
	e->destination = *destination;
	e->edge_ns = g->now_ns;
	e->pub.since_real_ns = g->real_ns;
	snprintf(e->pub.name, sizeof(e->pub.name), "%s", key);
	snprintf(e->pub.workload, sizeof(e->pub.workload), "%s", caller);
	snprintf(e->pub.destination, sizeof(e->pub.destination), "%s", text);
	return e;
}

static void announce(const struct entry *e, enum kilter_circuit_state from, const char *outcome)
{
	bus_publish(&(struct bus_event){
	    .kind = BUS_CIRCUIT_TRANSITION,
	    .subject = e->pub.name,
	    .from = guard_state_str(from),
	    .to = guard_state_str(e->c.state),
	    .reason = e->c.reason,
	    .outcome = outcome,
	    .uid = UINT32_MAX,
	    .generation = e->pub.generation,
	});
}

static void drop(struct guard *g, struct entry *e, const char *why)
{
	enum kilter_circuit_state from = e->c.state;

	while (e->keys_count)
		drop_key(g, e, e->keys_count - 1);
	if (from != KILTER_CIRCUIT_CLOSED) {
		g->open--;
		g->changed = true;
		e->c.state = KILTER_CIRCUIT_CLOSED;
		snprintf(e->c.reason, sizeof(e->c.reason), "%s", why);
		announce(e, from, "success");
	}
	table_remove(&g->circuits, e);
}

/* Gives e its policy; false: none concerns it (any more). */
static bool apply_policy(struct guard *g, struct entry *e)
{
	const struct policy_entry *match =
	    policy_match(&g->policies, e->any ? "" : e->pub.workload, &e->destination);

	if (policy_is_exact(match) != e->any)
		return false;
	e->policy = match;
	e->pub.mode = policy_mode(&g->policies, match, &e->destination, &e->pub.mode_reason);
	e->protected = policy_protected(&g->policies, match, &e->destination);
	snprintf(e->pub.policy, sizeof(e->pub.policy), "%s",
		 match ? (match->policy->name[0] ? match->policy->name : match->policy->destination)
		       : "defaults");
	return e->pub.mode != KILTER_GUARD_OFF;
}

static void add_exact(struct guard *g)
{
	for (unsigned int i = 0; i < g->policies.count; i++) {
		struct kilter_peer peer;
		struct entry *e;

		if (!policy_is_exact(&g->policies.entries[i]))
			continue;
		policy_peer(&g->policies.entries[i], &peer);
		e = add(g, "*", &peer);
		if (!e)
			continue;
		e->any = true;
		if (!apply_policy(g, e))
			drop(g, e, WITHOUT_POLICY);
		else if (!e->keys_count)
			add_key(g, e, 0,
				kilter_hash_words((const __u32 *)(const void *)&peer,
						  sizeof(peer) / sizeof(__u32)));
	}
}

/* Another destination may have taken the integer that ours hashes to: see kilter/identity.h. */
static void check_peer(struct guard *g, struct entry *e, const struct model *m)
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
			while (e->keys_count)
				drop_key(g, e, 0);
			if (!add_key(g, e, 0, id))
				return;
		}
		e->checked_peer = known;
		return;
	}
	while (e->keys_count) /* all are others': better no circuit than another's */
		drop_key(g, e, 0);
}

/* --- transitions --- */

static void moved(struct guard *g, struct entry *e, enum kilter_circuit_state from)
{
	e->pub.generation = sync_next_generation(&g->sync);
	e->pub.since_real_ns = g->real_ns;
	if (from == KILTER_CIRCUIT_CLOSED && e->c.state != KILTER_CIRCUIT_CLOSED)
		g->open++;
	if (from != KILTER_CIRCUIT_CLOSED && e->c.state == KILTER_CIRCUIT_CLOSED)
		g->open--;
	g->changed = true;
	tell_kernel(g, e); /* before anybody hears of it */
	announce(e, from, "success");
}

/* The model's own figures for this edge, where the circuit counts what the model counts. */
static void read_edge(const struct entry *e, const struct config_policy *p, const struct model *m,
		      struct circuit_input *in)
{
	const uint32_t both = KILTER_FAIL_ON_HTTP_5XX | KILTER_FAIL_ON_NO_ANSWER;
	enum model_span span = MODEL_10S;
	uint64_t successes, failures;
	struct model_red red;

	if (!e->edge || p->failure_ratio <= 0 || e->c.state != KILTER_CIRCUIT_CLOSED ||
	    (p->failures & both) != both)
		return;
	/* A connection joins its circuit with its first failure: before that, nothing is amiss. */
	circuit_window_read(&e->c.window, p->window_ns, in->now_ns, &successes, &failures);
	if (!failures && !in->failures)
		return;
	while (span < MODEL_1H && model_span_ns[span] < p->window_ns)
		span++;
	model_edge_red(m, e->edge, span, &red);
	in->edge_requests = red.requests;
	in->edge_failures = red.errors;
	in->edge_window_ns = model_span_ns[span];
	if (p->failures & KILTER_FAIL_ON_CONNECT) {
		struct model_tcp tcp;

		model_edge_tcp(m, e->edge, span, &tcp);
		for (unsigned int i = 0; i < KILTER_CONNECT_OTHER; i++) {
			in->edge_requests += tcp.failed[i];
			in->edge_failures += tcp.failed[i];
		}
	}
}

static void step(struct guard *g, struct entry *e, const struct model *m)
{
	const struct config_policy *p = config_of(g, e);
	enum kilter_circuit_state from = e->c.state;
	struct circuit_input in = {
	    .now_ns = g->now_ns,
	    .random = next_random(g),
	    .open = g->open,
	    .all = g->circuits.count,
	    .max_open_ratio = g->config.guard.max_open_ratio,
	};

	read_kernel(g, e, &in);
	if (!e->pub.generation)
		e->pub.generation = sync_next_generation(&g->sync);
	if (m)
		read_edge(e, p, m, &in);
	switch (circuit_step(&e->c, p, &in)) {
	case CIRCUIT_MOVED:
		moved(g, e, from);
		return;
	case CIRCUIT_SUPPRESSED:
		/* A new generation takes back what the kernel did by itself. */
		e->pub.generation = sync_next_generation(&g->sync);
		tell_kernel(g, e);
		announce(e, from, "failure");
		return;
	case CIRCUIT_STAYS:
		break;
	}
	tell_kernel(g, e);
}

static void on_edge(void *ctx, const struct model_edge *edge)
{
	struct guard *g = ctx;
	struct entry *e;
	char key[sizeof(e->name)];

	snprintf(key, sizeof(key), "%.127s->%.63s", edge->caller->name, edge->destination_text);
	e = find(g, key);
	if (!e) {
		const struct policy_entry *match =
		    policy_match(&g->policies, edge->caller->name, &edge->destination);
		const char *reason;

		if (policy_is_exact(match) || policy_mode(&g->policies, match, &edge->destination,
							  &reason) == KILTER_GUARD_OFF)
			return;
		e = add(g, edge->caller->name, &edge->destination);
		if (!e)
			return;
		if (!apply_policy(g, e)) {
			drop(g, e, WITHOUT_POLICY);
			return;
		}
	}
	e->edge = edge;
	e->edge_ns = g->now_ns;
	for (unsigned int i = 0; i < SYNC_KEYS_MAX && edge->workload_ids[i]; i++)
		add_key(g, e, edge->workload_ids[i], edge->peer);
}

/* --- the state file --- */

static void restore(void *ctx, const struct sync_record *r)
{
	struct guard *g = ctx;
	bool any = !strcmp(r->workload, "*");
	struct kilter_guard_policy p;
	struct entry *e = find(g, r->name);

	if (!e) {
		if (any)
			return; /* its policy is gone */
		e = add(g, r->workload, &r->destination);
		if (!e)
			return;
		if (strcmp(e->name, r->name) || !apply_policy(g, e)) {
			drop(g, e, WITHOUT_POLICY);
			return;
		}
	}
	for (unsigned int i = 0; i < r->keys_count; i++)
		if (!any || !r->keys[i].workload)
			add_key(g, e, r->keys[i].workload, r->keys[i].peer);
	/* The file knows better than what was found in the kernel: it knows until when. */
	if (e->c.state != KILTER_CIRCUIT_CLOSED)
		g->open--;
	e->c.state = r->state;
	if (e->c.state != KILTER_CIRCUIT_CLOSED)
		g->open++;
	e->c.held = r->held;
	e->c.opens = r->opens < CIRCUIT_OPENS_MAX ? r->opens : CIRCUIT_OPENS_MAX;
	e->c.since_ns = r->since_boot_ns ? r->since_boot_ns : g->now_ns;
	e->c.retry_ns = r->retry_boot_ns;
	e->c.decay_ns = g->now_ns + config_of(g, e)->window_ns;
	e->pub.since_real_ns = r->since_real_ns;
	snprintf(e->c.reason, sizeof(e->c.reason), "%s", r->reason);
	/* The same stay in the same state goes on, unless the kernel has forgotten it. */
	if (e->keys_count && !sync_policy(&g->sync, &e->keys[0]->key, &p) &&
	    p.generation == r->generation && p.state == r->state)
		e->pub.generation = r->generation;
	else
		e->pub.generation = sync_next_generation(&g->sync);
}

struct saving {
	struct guard *g;
	uint32_t pos;
};

static bool next_record(void *ctx, struct sync_record *r)
{
	struct saving *s = ctx;
	const struct entry *e;

	while ((e = table_next(&s->g->circuits, &s->pos)))
		if (e->c.state != KILTER_CIRCUIT_CLOSED || e->c.held || e->c.opens)
			break;
	if (!e)
		return false;
	memset(r, 0, sizeof(*r));
	memcpy(r->name, e->pub.name, sizeof(r->name));
	memcpy(r->workload, e->pub.workload, sizeof(r->workload));
	memcpy(r->reason, e->c.reason, sizeof(r->reason));
	r->destination = e->destination;
	for (unsigned int i = 0; i < e->keys_count; i++)
		r->keys[i] = e->keys[i]->key;
	r->keys_count = e->keys_count;
	r->state = e->c.state;
	r->held = e->c.held;
	r->opens = e->c.opens;
	r->generation = e->pub.generation;
	r->since_real_ns = e->pub.since_real_ns;
	r->since_boot_ns = e->c.since_ns;
	r->retry_boot_ns = e->c.retry_ns;
	return true;
}

static void save(struct guard *g)
{
	struct saving s = {.g = g};

	if (g->changed && g->state_file[0] && !sync_save(&g->sync, g->state_file, next_record, &s))
		g->changed = false; /* else again at the next tick */
}

/* --- figures about itself --- */

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

static void register_stats(struct guard *g)
{
	g->stats[0] = (struct selfstat){.name = "kilter_circuit_suppressed_total",
					.help = "Trips that guard.max_open_ratio held back.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_suppressed};
	g->stats[1] = (struct selfstat){.name = "kilter_guard_sync_errors_total",
					.help = "Failed writes to the kernel or the state file.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_sync};
	g->stats[2] = (struct selfstat){.name = "kilter_guard_circuits_full_total",
					.help = "Times that an edge found no room for a circuit.",
					.type = SELFSTAT_COUNTER,
					.collect = stat_full};
	for (unsigned int i = 0; i < 3; i++) {
		g->stats[i].ctx = g;
		selfstat_register(&g->stats[i]);
	}
}

/* --- what others call --- */

int guard_new(struct guard **ret, const struct config *c, const struct guard_maps *maps,
	      const char *state_file)
{
	struct guard *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return -ENOMEM;
	table_init(&g->circuits, sizeof(((struct entry *)0)->name), sizeof(struct entry),
		   KILTER_CIRCUITS_MAX);
	table_init(&g->keys, sizeof(struct kilter_circuit_key), sizeof(struct kernel_key),
		   KILTER_CIRCUITS_MAX);
	g->config = *c;
	g->now_ns = clock_boot_ns();
	g->real_ns = clock_real_ns();
	g->start_ns = g->now_ns;
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
		free(g);
		return err;
	}
	g->random[0] |= 1; /* all zero would stay zero */
	policy_table_init(&g->policies, &g->config);
	add_exact(g);
	/* A file that cannot be read costs the back-off, not the start: it is counted. */
	if (g->state_file[0] && sync_load(&g->sync, g->state_file, restore, g))
		g->sync.state_errors++;
	for (uint32_t pos = 0;;) {
		struct entry *e = table_next(&g->circuits, &pos);

		if (!e)
			break;
		if (!e->pub.generation)
			e->pub.generation = sync_next_generation(&g->sync);
		tell_kernel(g, e); /* leases run on; steps come with the first tick */
	}
	register_stats(g);
	*ret = g;
	return 0;
}

void guard_free(struct guard **gp)
{
	struct guard *g = *gp;

	if (!g)
		return;
	g->changed = true;
	save(g);
	for (unsigned int i = 0; i < 3; i++)
		selfstat_unregister(&g->stats[i]);
	table_done(&g->circuits);
	table_done(&g->keys);
	free(g);
	*gp = NULL;
}

void guard_reconfigure(struct guard *g, const struct config *c)
{
	struct entry *e;
	uint32_t pos = 0;

	g->config = *c;
	policy_table_init(&g->policies, &g->config);
	while ((e = table_next(&g->circuits, &pos))) {
		if (apply_policy(g, e))
			tell_kernel(g, e);
		else
			drop(g, e, WITHOUT_POLICY);
	}
	add_exact(g);
	g->changed = true;
}

static bool owned(void *ctx, const struct kilter_circuit_key *key)
{
	const struct guard *g = ctx;

	return table_find(&g->keys, key);
}

void guard_tick(struct guard *g, struct model *m, uint64_t boot_ns, uint64_t real_ns)
{
	struct entry *e;
	uint32_t pos = 0;

	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	model_each_edge(m, on_edge, g);
	while ((e = table_next(&g->circuits, &pos))) {
		if (e->any && !e->checked_peer)
			check_peer(g, e, m);
		if (!e->any && boot_ns - e->edge_ns > FORGET_NS && !e->c.held &&
		    e->c.state != KILTER_CIRCUIT_OPEN) {
			drop(g, e, "nobody calls it any more");
			continue;
		}
		step(g, e, m);
		e->edge = NULL;
	}
	if (boot_ns >= g->sweep_ns) {
		sync_sweep(&g->sync, owned, g);
		g->sweep_ns = boot_ns + SWEEP_NS;
	}
	save(g);
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
	step(g, e, NULL);
	save(g);
}

int guard_manual(struct guard *g, const char *name, enum guard_action action, uint32_t uid,
		 uint64_t boot_ns, uint64_t real_ns)
{
	static const char *const actions[] = {
	    [GUARD_TRIP] = "circuit-trip",
	    [GUARD_RESET] = "circuit-reset",
	    [GUARD_HOLD] = "circuit-hold",
	    [GUARD_RELEASE] = "circuit-release",
	};
	struct entry *e = find(g, name);
	enum kilter_circuit_state from;
	const struct config_policy *p;
	char who[48];
	bool done = false;
	int err = 0;

	if ((unsigned int)action >= sizeof(actions) / sizeof(actions[0]))
		return -EINVAL;
	if (!e)
		return -ENOENT;
	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	p = config_of(g, e);
	from = e->c.state;
	snprintf(who, sizeof(who), "by hand, uid %u", uid);
	switch (action) {
	case GUARD_TRIP:
		if (e->protected)
			err = -EPERM;
		else
			done = circuit_trip(&e->c, p, boot_ns, next_random(g), who);
		break;
	case GUARD_RESET:
		done = circuit_reset(&e->c, p, boot_ns, who);
		break;
	case GUARD_HOLD:
	case GUARD_RELEASE:
		done = circuit_hold(&e->c, action == GUARD_HOLD);
		break;
	}
	if (!done && !err)
		err = -EALREADY;
	bus_publish(&(struct bus_event){
	    .kind = BUS_MANUAL_ACTION,
	    .subject = e->pub.name,
	    .action = actions[action],
	    .reason = err == -EPERM ? "its destination is protected"
		      : err	    ? "it is in that state already"
				    : NULL,
	    .outcome = err ? "failure" : "success",
	    .uid = uid,
	    .generation = e->pub.generation,
	});
	if (err)
		return err;
	if (e->c.state != from)
		moved(g, e, from);
	else
		tell_kernel(g, e);
	g->changed = true;
	save(g);
	return 0;
}

void guard_each(const struct guard *g, void (*fn)(void *ctx, const struct guard_circuit *c),
		void *ctx)
{
	const struct entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&g->circuits, &pos))) {
		struct guard_circuit c = e->pub;

		c.state = e->c.state;
		c.held = e->c.held;
		c.opens = e->c.opens;
		c.retry_boot_ns = e->c.retry_ns;
		c.suppressed = e->c.suppressed;
		memcpy(c.transitions, e->c.transitions, sizeof(c.transitions));
		memcpy(c.reason, e->c.reason, sizeof(c.reason));
		fn(ctx, &c);
	}
}

static bool keep_none(void *ctx, const struct kilter_circuit_key *key)
{
	(void)ctx;
	(void)key;
	return false;
}

void guard_release_all(struct guard *g)
{
	struct kernel_key *k;
	uint32_t pos = 0;

	sync_sweep(&g->sync, keep_none, NULL);
	while ((k = table_next(&g->keys, &pos)))
		k->told = false;
}
