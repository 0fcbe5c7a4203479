// SPDX-License-Identifier: Apache-2.0
/*
 * Each tick: gather a subject's figures, ask every rule that concerns its kind, take the worst
 * verdict through the hysteresis, publish what changed. Workloads and edges first, then probes,
 * then the node, which sums them up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collect/table.h"
#include "core/bus.h"
#include "core/clock.h"
#include "core/selfstat.h"
#include "health/health.h"
#include "health/hysteresis.h"
#include "health/rules/rules.h"

#define SUBJECTS_MORE 1024u /* besides services and edges: the node, what was forgotten */
#define SPAN_SLACK_NS (5 * NS_PER_SEC) /* a window ends a tick or two after the last event */

struct key {
	uint32_t kind, index;
};

struct subject {
	struct table_node node;
	struct key key;
	struct hysteresis h;
	struct health_subject pub;
	uint64_t seen; /* number of the tick that had it */
	/* WORKLOAD: its fullest accept queue, of this tick */
	uint64_t queue_seen;
	uint32_t queue_length, queue_limit;
	uint16_t queue_port;
};

struct health {
	struct config config;
	struct table subjects;
	struct selfstat stat;
	uint64_t ticks, full; /* full: times that a subject found no room */
	/* What the kernel lost since figures were last whole, and where it lost some last. */
	uint64_t lost;
	char lost_at[64];
	/* Of the tick under way */
	uint64_t boot_ns, real_ns;
	struct model *model;
	unsigned int workloads[HEALTH_UNHEALTHY + 1]; /* how many are in each state */
	char worst[96];				      /* names of some that are not well */
};

const char *health_state_str(enum health_state s)
{
	switch (s) {
	case HEALTH_UNKNOWN:
		return "unknown";
	case HEALTH_HEALTHY:
		return "healthy";
	case HEALTH_DEGRADED:
		return "degraded";
	case HEALTH_UNHEALTHY:
		return "unhealthy";
	}
	return "unknown";
}

const char *health_kind_str(enum health_kind k)
{
	switch (k) {
	case HEALTH_NODE:
		return "node";
	case HEALTH_WORKLOAD:
		return "workload";
	case HEALTH_EDGE:
		return "edge";
	case HEALTH_PROBE:
		return "probe";
	}
	return "unknown";
}

static struct subject *subject_of(struct health *h, enum health_kind kind, uint32_t index)
{
	struct key key = {.kind = kind, .index = index};
	struct subject *s = table_find(&h->subjects, &key);

	if (s)
		return s;
	s = table_add(&h->subjects, &key);
	if (!s) {
		h->full++;
		return NULL;
	}
	s->pub.kind = kind;
	s->pub.model_index = index;
	s->pub.since_real_ns = h->real_ns;
	return s;
}

/* An index may be used again for another: then nothing of the old one holds. */
static void set_name(const struct health *h, struct subject *s, const char *name)
{
	if (!strcmp(s->pub.name, name))
		return;
	if (s->h.judged) {
		memset(&s->h, 0, sizeof(s->h));
		s->pub.reasons_count = 0;
		s->pub.transitions = 0;
		s->pub.since_real_ns = h->real_ns;
	}
	snprintf(s->pub.name, sizeof(s->pub.name), "%s", name);
}

/* Puts r among the reasons, worst first; one per code is enough. */
static void add_reason(struct health_subject *pub, const struct health_reason *r)
{
	unsigned int at = 0;

	for (unsigned int i = 0; i < pub->reasons_count; i++)
		if (!strcmp(pub->reasons[i].code, r->code) &&
		    health_rank(pub->reasons[i].severity) >= health_rank(r->severity))
			return;
	while (at < pub->reasons_count &&
	       health_rank(pub->reasons[at].severity) >= health_rank(r->severity))
		at++;
	if (at >= HEALTH_REASONS_MAX)
		return;
	if (pub->reasons_count < HEALTH_REASONS_MAX)
		pub->reasons_count++;
	memmove(&pub->reasons[at + 1], &pub->reasons[at],
		(pub->reasons_count - at - 1) * sizeof(*r));
	pub->reasons[at] = *r;
}

static enum health_state worst_of(const struct health_subject *pub)
{
	return pub->reasons_count ? pub->reasons[0].severity : HEALTH_HEALTHY;
}

static void publish(const struct subject *s, enum health_state from)
{
	char name[sizeof(s->pub.name) + 16];

	if (s->pub.kind == HEALTH_NODE)
		snprintf(name, sizeof(name), "%s", s->pub.name);
	else
		snprintf(name, sizeof(name), "%s/%s", health_kind_str(s->pub.kind), s->pub.name);
	bus_publish(&(struct bus_event){
	    .kind = BUS_HEALTH_TRANSITION,
	    .subject = name,
	    .from = health_state_str(from),
	    .to = health_state_str(s->pub.state),
	    .reason = s->pub.reasons_count ? s->pub.reasons[0].text : NULL,
	    .outcome = "success",
	    .uid = UINT32_MAX,
	});
}

/* Quiet for less than an hour says nothing new about a subject that was judged before. */
static bool keeps(const struct subject *s, const struct health_subject *fresh)
{
	const struct health_reason *r = &fresh->reasons[0];

	return s->h.judged && s->h.state != HEALTH_UNKNOWN && fresh->reasons_count == 1 &&
	       !strcmp(r->code, "no_data") && r->window_ns < model_span_ns[MODEL_1H];
}

/* fresh: this tick's verdicts. They are shown once they have become the state; while a worse
 * state is being left, what led to it stays. */
static void settle(struct health *h, struct subject *s, const struct health_subject *fresh)
{
	const struct hysteresis_rule rule = {.enter = h->config.health.enter,
					     .leave = h->config.health.leave,
					     .dwell_ns = h->config.health.dwell_ns};
	enum health_state verdict = worst_of(fresh), from = s->h.state;
	bool first = !s->h.judged, changed;

	s->seen = h->ticks;
	if (keeps(s, fresh))
		return;
	changed = hysteresis_step(&s->h, &rule, verdict, h->boot_ns);
	s->pub.state = s->h.state;
	if (s->pub.state == HEALTH_HEALTHY) {
		s->pub.reasons_count = 0;
	} else if (health_rank(verdict) >= health_rank(s->pub.state) || changed) {
		memcpy(s->pub.reasons, fresh->reasons, sizeof(s->pub.reasons));
		s->pub.reasons_count = fresh->reasons_count;
	}
	if (first)
		s->pub.since_real_ns = h->real_ns;
	if (!changed || (first && s->pub.state == from))
		return;
	s->pub.since_real_ns = h->real_ns;
	if (first) /* it was there before we looked: no change of its own */
		return;
	s->pub.transitions++;
	publish(s, from);
}

static void judge(struct health *h, struct subject *s, const struct rule_input *in,
		  const struct health_reason *more)
{
	struct health_subject fresh = {.reasons_count = 0};

	for (unsigned int i = 0; i < health_rules_count; i++) {
		struct health_reason r = {.code = health_rules[i].code};

		if ((health_rules[i].kinds & (1u << s->pub.kind)) && health_rules[i].fn(in, &r))
			add_reason(&fresh, &r);
	}
	if (more && more->code)
		add_reason(&fresh, more);
	/* What is known to be bad stays bad; that all is well cannot be known. */
	if (worst_of(&fresh) == HEALTH_HEALTHY && s->pub.kind != HEALTH_PROBE &&
	    model_incomplete(h->model)) {
		struct health_reason r = {.code = "incomplete"};

		if (h->lost)
			rule_verdict(&r, HEALTH_UNKNOWN, (double)h->lost, 0, h->lost, 0,
				     "%llu observations lost (%s): figures are incomplete",
				     (unsigned long long)h->lost, h->lost_at);
		else
			rule_verdict(&r, HEALTH_UNKNOWN, 1, 0, 0, 0,
				     "the maps could not be read: figures are incomplete");
		add_reason(&fresh, &r);
	}
	settle(h, s, &fresh);
}

static struct rule_input input(const struct health *h)
{
	return (struct rule_input){.config = &h->config, .boot_ns = h->boot_ns};
}

/* May the window hold anything? Reading one costs a walk over its histogram. */
static bool within(const struct health *h, uint64_t last_seen_ns, enum model_span span)
{
	return h->boot_ns < last_seen_ns ||
	       h->boot_ns - last_seen_ns <= model_span_ns[span] + SPAN_SLACK_NS;
}

/* What the last hour was like is asked only when there is a present to compare with it. */
static bool wants_past(const struct health *h, const struct rule_input *in)
{
	return h->config.health.latency_factor > 0 &&
	       in->red[MODEL_1M].requests >= h->config.health.minimum_requests;
}

static void on_listener(void *ctx, const struct model_listener *l)
{
	struct health *h = ctx;
	struct subject *s;

	if (!l->workload || h->boot_ns - l->updated_ns > RULE_LISTENER_STALE_NS)
		return;
	s = subject_of(h, HEALTH_WORKLOAD, l->workload->index);
	if (!s)
		return;
	if (s->queue_seen == h->ticks &&
	    (double)l->queue_length * s->queue_limit <= (double)s->queue_length * l->queue_limit)
		return;
	s->queue_seen = h->ticks;
	s->queue_length = l->queue_length;
	s->queue_limit = l->queue_limit;
	s->queue_port = l->port;
}

static void on_workload(void *ctx, const struct model_workload *w)
{
	struct health *h = ctx;
	struct subject *s = subject_of(h, HEALTH_WORKLOAD, w->index);
	struct rule_input in = input(h);

	if (!s)
		return;
	set_name(h, s, w->name);
	in.open_connections = w->open_connections;
	in.last_seen_ns = w->last_seen_ns;
	in.undecoded = w->undecoded;
	for (enum model_span span = MODEL_10S; span <= MODEL_5M; span++) {
		if (!within(h, w->last_seen_ns, span))
			continue;
		model_workload_red(h->model, w, KILTER_ROLE_SERVER, span, &in.red[span]);
		model_workload_tcp(h->model, w, span, &in.tcp[span]);
	}
	if (!in.red[MODEL_5M].requests && within(h, w->last_seen_ns, MODEL_5M)) {
		struct model_red client;

		model_workload_red(h->model, w, KILTER_ROLE_CLIENT, MODEL_5M, &client);
		in.client = client.requests;
	}
	if (wants_past(h, &in) || (in.undecoded && !in.red[MODEL_5M].requests))
		model_workload_red(h->model, w, KILTER_ROLE_SERVER, MODEL_1H, &in.red[MODEL_1H]);
	if (s->queue_seen == h->ticks) {
		in.listener = true;
		in.queue_length = s->queue_length;
		in.queue_limit = s->queue_limit;
		in.queue_port = s->queue_port;
	}
	judge(h, s, &in, NULL);
	h->workloads[s->pub.state]++;
	if (health_rank(s->pub.state) > health_rank(HEALTH_UNKNOWN)) {
		size_t n = strlen(h->worst);

		snprintf(h->worst + n, sizeof(h->worst) - n, "%s%s", n ? ", " : "", w->name);
	}
}

static void on_edge(void *ctx, const struct model_edge *e)
{
	struct health *h = ctx;
	struct subject *s = subject_of(h, HEALTH_EDGE, e->index);
	struct rule_input in = input(h);
	char name[sizeof(s->pub.name)];

	if (!s)
		return;
	snprintf(name, sizeof(name), "%s -> %s", e->caller->name, e->destination_text);
	set_name(h, s, name);
	in.open_connections = e->open_connections;
	in.last_seen_ns = e->last_seen_ns;
	for (enum model_span span = MODEL_10S; span <= MODEL_5M; span++) {
		if (!within(h, e->last_seen_ns, span))
			continue;
		model_edge_red(h->model, e, span, &in.red[span]);
		model_edge_tcp(h->model, e, span, &in.tcp[span]);
	}
	if (wants_past(h, &in))
		model_edge_red(h->model, e, MODEL_1H, &in.red[MODEL_1H]);
	judge(h, s, &in, NULL);
}

static unsigned int judge_probes(struct health *h, const struct health_probe *probes,
				 unsigned int count)
{
	unsigned int missing = 0;

	for (unsigned int i = 0; i < count; i++) {
		struct subject *s = subject_of(h, HEALTH_PROBE, i);
		struct rule_input in = input(h);

		missing += probes[i].essential && !probes[i].tier;
		if (!s)
			continue;
		set_name(h, s, probes[i].name);
		in.probe = &probes[i];
		judge(h, s, &in, NULL);
	}
	return missing;
}

/* The node is as bad as its own resources; its services can only degrade it. */
static void judge_node(struct health *h, const struct health_drop *drops, unsigned int drops_count,
		       unsigned int missing)
{
	struct subject *s = subject_of(h, HEALTH_NODE, 0);
	struct health_reason services = {.code = NULL};
	struct rule_input in = input(h);
	unsigned int bad = h->workloads[HEALTH_DEGRADED] + h->workloads[HEALTH_UNHEALTHY], all = 0;

	if (!s)
		return;
	set_name(h, s, "node");
	in.drops = drops;
	in.drops_count = drops_count;
	in.probes_essential_missing = missing;
	for (unsigned int i = 0; i <= HEALTH_UNHEALTHY; i++)
		all += h->workloads[i];
	if (bad) {
		services.code = "workloads";
		rule_verdict(&services, HEALTH_DEGRADED, bad, 0, all, 0,
			     "%u of %u services are not well: %s", bad, all, h->worst);
	}
	judge(h, s, &in, &services);
}

static void stat_full(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct health *h = ctx;

	emit(emit_ctx, "", (double)h->full);
}

int health_new(struct health **ret, const struct config *c)
{
	struct health *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->config = *c;
	table_init(&h->subjects, sizeof(struct key), sizeof(struct subject),
		   c->limits.services + c->limits.edges + SUBJECTS_MORE);
	h->stat = (struct selfstat){.name = "kilter_health_subjects_full_total",
				    .help = "Times that a subject of health found no room.",
				    .type = SELFSTAT_COUNTER,
				    .collect = stat_full,
				    .ctx = h};
	selfstat_register(&h->stat);
	*ret = h;
	return 0;
}

void health_free(struct health **hp)
{
	struct health *h = *hp;

	if (!h)
		return;
	selfstat_unregister(&h->stat);
	table_done(&h->subjects);
	free(h);
	*hp = NULL;
}

void health_reconfigure(struct health *h, const struct config *c)
{
	h->config = *c;
}

/* The tick that loses something is over soon; that figures miss it is true for longer. */
static void note_losses(struct health *h, const struct health_drop *drops, unsigned int count)
{
	bool any = false;

	for (unsigned int i = 0; i < count; i++) {
		if (!drops[i].loses || !drops[i].delta)
			continue;
		any = true;
		h->lost += drops[i].delta;
		snprintf(h->lost_at, sizeof(h->lost_at), "%s: %s", drops[i].where, drops[i].reason);
	}
	if (!any && !model_incomplete(h->model))
		h->lost = 0;
}

void health_tick(struct health *h, struct model *m, const struct health_probe *probes,
		 unsigned int probes_count, const struct health_drop *drops,
		 unsigned int drops_count, uint64_t boot_ns, uint64_t real_ns)
{
	struct subject *s;
	unsigned int missing;
	uint32_t pos = 0;

	h->ticks++;
	h->boot_ns = boot_ns;
	h->real_ns = real_ns;
	h->model = m;
	memset(h->workloads, 0, sizeof(h->workloads));
	h->worst[0] = '\0';
	note_losses(h, drops, drops_count);
	model_each_listener(m, on_listener, h);
	model_each_workload(m, on_workload, h);
	model_each_edge(m, on_edge, h);
	missing = judge_probes(h, probes, probes_count);
	judge_node(h, drops, drops_count, missing);
	while ((s = table_next(&h->subjects, &pos)))
		if (s->seen != h->ticks) /* the model has forgotten it */
			table_remove(&h->subjects, s);
}

void health_each(const struct health *h, void (*fn)(void *ctx, const struct health_subject *s),
		 void *ctx)
{
	static const enum health_kind order[] = {HEALTH_NODE, HEALTH_WORKLOAD, HEALTH_EDGE,
						 HEALTH_PROBE};

	for (unsigned int i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		const struct subject *s;
		uint32_t pos = 0;

		while ((s = table_next(&h->subjects, &pos)))
			if (s->pub.kind == order[i])
				fn(ctx, &s->pub);
	}
}

const struct health_subject *health_find(const struct health *h, enum health_kind kind,
					 uint32_t model_index)
{
	struct key key = {.kind = kind, .index = model_index};
	const struct subject *s = table_find(&h->subjects, &key);

	return s ? &s->pub : NULL;
}
