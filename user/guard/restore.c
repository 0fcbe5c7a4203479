// SPDX-License-Identifier: Apache-2.0
/* What the state file says, into circuits, and back. */
#include <stdio.h>
#include <string.h>

#include "guard/internal.h"

static void restore(void *ctx, const struct sync_record *r)
{
	struct guard *g = ctx;
	bool any = !strcmp(r->workload, "*");
	enum kilter_circuit_state from;
	struct kilter_guard_policy p;
	struct entry *e = guard_find(g, r->name);

	if (!e) {
		if (any)
			return; /* its policy is gone */
		e = guard_add(g, &(struct policy_subject){.workload = r->workload,
							  .executable = r->executable,
							  .cgroup = r->cgroup,
							  .labels = r->labels,
							  .destination = r->destination});
		if (!e)
			return;
		if (strcmp(e->name, r->name) || !guard_apply_policy(g, e)) {
			guard_drop(g, e, GUARD_WITHOUT_POLICY);
			return;
		}
	}
	for (unsigned int i = 0; i < r->keys_count; i++)
		if (!any || !r->keys[i].workload)
			guard_add_key(g, e, r->keys[i].workload, r->keys[i].peer);
	e->c.held = r->held;
	e->c.forced = r->forced < CIRCUIT_FORCES ? (enum circuit_force)r->forced : CIRCUIT_AUTO;
	e->c.opens = r->opens < CIRCUIT_OPENS_MAX ? r->opens : CIRCUIT_OPENS_MAX;
	e->c.decay_ns = g->now_ns + guard_config_of(g, e)->window_ns;
	e->limits_set = r->limits_set && guard_limits_valid(&r->limits);
	e->limits = r->limits;
	/* A kernel that is further than the file was told last: the disk was full, or the daemon
	 * was killed between the two. Else the file knows better: it knows until when. */
	if (e->pub.generation > r->generation)
		return;
	from = e->c.state;
	e->c.state = r->state;
	guard_count_state(g, e, from);
	e->c.since_ns = r->since_boot_ns ? r->since_boot_ns : g->now_ns;
	e->c.retry_ns = r->retry_boot_ns;
	e->pub.since_real_ns = r->since_real_ns;
	snprintf(e->c.reason, sizeof(e->c.reason), "%s", r->reason);
	/* The same stay in the same state goes on, unless the kernel has forgotten it. */
	if (e->keys_count && !sync_policy(&g->sync, &e->keys[0]->key, &p) &&
	    p.rules.generation == r->generation && p.rules.state == r->state)
		e->pub.generation = r->generation;
	else
		e->pub.generation = sync_next_generation(&g->sync);
}

void guard_load(struct guard *g)
{
	/* A file that cannot be read costs the back-off, not the start: it is counted. */
	if (g->state_file[0] && sync_load(&g->sync, g->state_file, restore, g))
		g->sync.state_errors++;
}

struct saving {
	struct guard *g;
	uint32_t pos;
};

static bool worth_keeping(const struct entry *e)
{
	return e->c.state != KILTER_CIRCUIT_CLOSED || e->c.opens || guard_by_hand(e);
}

static bool next_record(void *ctx, struct sync_record *r)
{
	struct saving *s = ctx;
	const struct entry *e;

	while ((e = table_next(&s->g->circuits, &s->pos)))
		if (worth_keeping(e))
			break;
	if (!e)
		return false;
	memset(r, 0, sizeof(*r));
	memcpy(r->name, e->pub.name, sizeof(r->name));
	memcpy(r->workload, e->pub.workload, sizeof(r->workload));
	memcpy(r->reason, e->c.reason, sizeof(r->reason));
	memcpy(r->executable, e->executable, sizeof(r->executable));
	memcpy(r->cgroup, e->cgroup, sizeof(r->cgroup));
	r->labels = e->labels;
	r->destination = e->destination;
	for (unsigned int i = 0; i < e->keys_count; i++)
		r->keys[i] = e->keys[i]->key;
	r->keys_count = e->keys_count;
	r->state = e->c.state;
	r->held = e->c.held;
	r->forced = e->c.forced;
	r->opens = e->c.opens;
	r->generation = e->pub.generation;
	r->since_real_ns = e->pub.since_real_ns;
	r->since_boot_ns = e->c.since_ns;
	r->retry_boot_ns = e->c.retry_ns;
	r->limits_set = e->limits_set;
	r->limits = e->limits;
	return true;
}

void guard_save(struct guard *g)
{
	struct saving s = {.g = g};

	g->sync.released = g->released_by_hand;
	if (g->changed && g->state_file[0] && !sync_save(&g->sync, g->state_file, next_record, &s))
		g->changed = false; /* else again at the next tick */
}
