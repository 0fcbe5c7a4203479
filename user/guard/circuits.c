// SPDX-License-Identifier: Apache-2.0
/*
 * Which circuits there are. A circuit of a policy that names one address and port for any caller
 * has the kernel key {0, peer} and exists from the start, before the first connect. Every other
 * circuit belongs to an edge and has one kernel key for each kernel id of the caller.
 */
#include <stdio.h>
#include <string.h>

#include "core/bus.h"
#include "guard/internal.h"

struct entry *guard_find(const struct guard *g, const char *name)
{
	char key[sizeof(((struct entry *)0)->name)] = {0};

	if (strlen(name) >= sizeof(key))
		return NULL;
	memcpy(key, name, strlen(name));
	return table_find(&g->circuits, key);
}

static struct destination *destination_of(struct guard *g, const struct kilter_peer *at)
{
	struct destination *d = table_find(&g->destinations, at);

	return d ? d : table_add(&g->destinations, at);
}

struct entry *guard_add(struct guard *g, const struct policy_subject *s)
{
	char key[sizeof(((struct entry *)0)->name)] = {0}, text[64];
	struct destination *at;
	struct entry *e;

	model_peer_format(&s->destination, text);
	snprintf(key, sizeof(key), "%.127s->%.63s", s->workload, text);
	e = table_find(&g->circuits, key);
	if (e)
		return e;
	at = destination_of(g, &s->destination);
	e = at ? table_add(&g->circuits, key) : NULL;
	if (!e) {
		if (at && !at->circuits)
			table_remove(&g->destinations, at);
		g->circuits_full++;
		return NULL;
	}
	circuit_init(&e->c, g->now_ns);
	at->circuits++;
	e->at = at;
	e->destination = s->destination;
	e->edge_ns = g->now_ns;
	e->pub.since_real_ns = g->real_ns;
	snprintf(e->executable, sizeof(e->executable), "%s", s->executable);
	snprintf(e->cgroup, sizeof(e->cgroup), "%s", s->cgroup);
	e->labels = g->policies.labels ? labels_copy(s->labels) : NULL;
	snprintf(e->pub.name, sizeof(e->pub.name), "%s", key);
	snprintf(e->pub.workload, sizeof(e->pub.workload), "%s", s->workload);
	snprintf(e->pub.destination, sizeof(e->pub.destination), "%s", text);
	return e;
}

void guard_count_state(struct guard *g, struct entry *e, enum kilter_circuit_state from)
{
	bool was = from != KILTER_CIRCUIT_CLOSED, is = e->c.state != KILTER_CIRCUIT_CLOSED;

	if (was == is)
		return;
	g->destinations_open -= e->at->open > 0;
	g->open = is ? g->open + 1 : g->open - 1;
	e->at->open = is ? e->at->open + 1 : e->at->open - 1;
	g->destinations_open += e->at->open > 0;
}

void guard_announce(const struct entry *e, enum kilter_circuit_state from, const char *outcome)
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

void guard_drop(struct guard *g, struct entry *e, const char *why)
{
	enum kilter_circuit_state from = e->c.state;

	guard_drop_keys(g, e);
	if (from != KILTER_CIRCUIT_CLOSED) {
		g->changed = true;
		e->c.state = KILTER_CIRCUIT_CLOSED;
		guard_count_state(g, e, from);
		snprintf(e->c.reason, sizeof(e->c.reason), "%s", why);
		guard_announce(e, from, "success");
	}
	if (!--e->at->circuits)
		table_remove(&g->destinations, e->at);
	labels_free(&e->labels);
	table_remove(&g->circuits, e);
}

void guard_show_name(const struct guard *g, struct entry *e)
{
	const char *name = g->dns ? dns_name_of(g->dns, &e->destination) : NULL;

	snprintf(e->pub.dns_name, sizeof(e->pub.dns_name), "%s", name ? name : "");
}

bool guard_apply_policy(struct guard *g, struct entry *e)
{
	struct policy_subject s = {.workload = e->any ? "" : e->pub.workload,
				   .executable = e->executable,
				   .cgroup = e->cgroup,
				   .labels = e->labels,
				   .destination = e->destination,
				   .dns = g->dns};
	const struct policy_entry *match = policy_match(&g->policies, &s);

	if (policy_is_exact(match) != e->any)
		return false;
	e->policy = match;
	e->pub.mode = policy_mode(&g->policies, match, &e->destination, &e->pub.mode_reason);
	e->protected = policy_protected(&g->policies, match, &e->destination);
	snprintf(e->pub.policy, sizeof(e->pub.policy), "%s",
		 match ? (match->policy->name[0] ? match->policy->name : match->policy->destination)
		       : "defaults");
	policy_explain(&g->policies, &s, match, e->pub.match, sizeof(e->pub.match));
	guard_show_name(g, e);
	return e->pub.mode != KILTER_GUARD_OFF;
}

void guard_add_exact(struct guard *g)
{
	uint32_t udp = 0;

	for (unsigned int i = 0; i < g->policies.count; i++) {
		struct policy_subject s = {.workload = "*", .executable = "", .cgroup = ""};
		struct entry *e;

		udp += g->policies.entries[i].destination.transport == KILTER_TRANSPORT_UDP;
		if (!policy_is_exact(&g->policies.entries[i]))
			continue;
		policy_peer(&g->policies.entries[i], &s.destination);
		e = guard_add(g, &s);
		if (!e)
			continue;
		e->any = true;
		if (!guard_apply_policy(g, e))
			guard_drop(g, e, GUARD_WITHOUT_POLICY);
		else if (!e->keys_count)
			guard_add_key(g, e, 0,
				      kilter_hash_words((const __u32 *)(const void *)&s.destination,
							sizeof(s.destination) / sizeof(__u32)));
	}
	sync_switch(&g->sync, KILTER_SWITCH_UDP, udp);
}

void guard_apply_policies(struct guard *g)
{
	struct entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&g->circuits, &pos))) {
		if (guard_apply_policy(g, e))
			guard_tell_kernel(g, e);
		else
			guard_drop(g, e, GUARD_WITHOUT_POLICY);
	}
}

/*
 * Labels that came, or became more, since the circuit was made; true: they are others. What a
 * circuit knew before a restart it knows until the runtime has answered: a part of it is in a file,
 * and would take the circuit from its policy meanwhile.
 */
static bool take_labels(const struct guard *g, struct entry *e, const struct model_workload *caller)
{
	struct labels *fresh;

	if (!g->policies.labels || !caller->labels || e->labels_version == caller->labels_version)
		return false;
	if (e->labels && caller->labels_pending)
		return false;
	if (!labels_equal(e->labels, caller->labels)) {
		fresh = labels_copy(caller->labels);
		if (!fresh)
			return false;
		labels_free(&e->labels);
		e->labels = fresh;
		e->labels_version = caller->labels_version;
		return true;
	}
	e->labels_version = caller->labels_version;
	return false;
}

void guard_on_edge(void *guard, const struct model_edge *edge)
{
	const struct model_workload *caller = edge->caller;
	struct guard *g = guard;
	struct entry *e;
	char key[sizeof(e->name)];

	snprintf(key, sizeof(key), "%.127s->%.63s", caller->name, edge->destination_text);
	e = guard_find(g, key);
	if (!e) {
		struct policy_subject s = {.workload = caller->name,
					   .executable = caller->exe,
					   .cgroup = caller->cgroup_path,
					   .labels = caller->labels,
					   .destination = edge->destination,
					   .dns = g->dns};
		const struct policy_entry *match = policy_match(&g->policies, &s);
		const char *reason;

		if (policy_is_exact(match) || policy_mode(&g->policies, match, &edge->destination,
							  &reason) == KILTER_GUARD_OFF)
			return;
		e = guard_add(g, &s);
		if (!e)
			return;
		if (!guard_apply_policy(g, e)) {
			guard_drop(g, e, GUARD_WITHOUT_POLICY);
			return;
		}
	} else if (take_labels(g, e, caller)) {
		if (!guard_apply_policy(g, e)) {
			guard_drop(g, e, GUARD_WITHOUT_POLICY);
			return;
		}
		guard_tell_kernel(g, e);
	}
	e->edge = edge;
	e->edge_ns = g->now_ns;
	guard_drop_old_keys(g, e, edge);
	for (unsigned int i = 0; i < SYNC_KEYS_MAX - 1 && edge->workload_ids[i]; i++)
		guard_add_key(g, e, edge->workload_ids[i], edge->peer);
}
