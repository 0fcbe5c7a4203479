// SPDX-License-Identifier: Apache-2.0
/*
 * From the rooms' own structures to flat tables. Rows are sorted by what names them, so that
 * two scrapes list the same things in the same order.
 */
#include "export/snapshot_build.h"

#include <arpa/inet.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/selfstat.h"
#include "export/snapshot_internal.h"
#include "model/metadata/cri.h"

#define BUILD_AUDIT_RECENT 100u
#define BUILD_MAPS_MAX	   32u

struct subject {
	enum health_kind kind;
	uint32_t index, row;
};

struct circuit_row {
	char workload[128], destination[64];
	uint32_t row;
};

/* Health and circuits first: workloads and edges refer to their rows. */

static int by_subject(const void *a, const void *b)
{
	const struct subject *x = a, *y = b;

	COMPARE(x->kind, y->kind);
	COMPARE(x->index, y->index);
	return 0;
}

static void add_health(void *ctx, const struct health_subject *h)
{
	struct build *b = ctx;
	struct snap_health *r = snapshot_add(b->w, SNAP_HEALTH, sizeof(*r));
	struct subject *s;

	if (!r)
		return;
	r->kind = snapshot_str(b->w, health_kind_str(h->kind));
	r->name = snapshot_str(b->w, h->name);
	r->state = snapshot_str(b->w, health_state_str(h->state));
	r->since_real_ns = h->since_real_ns;
	r->transitions = h->transitions;
	for (unsigned int i = 0; i < h->reasons_count && i < HEALTH_REASONS_MAX; i++) {
		const struct health_reason *from = &h->reasons[i];
		struct snap_reason *to = &r->reasons[r->reasons_count++];

		to->code = snapshot_str(b->w, from->code);
		to->text = snapshot_str(b->w, from->text);
		to->severity = snapshot_str(b->w, health_state_str(from->severity));
		to->observed = from->observed;
		to->threshold = from->threshold;
		to->samples = from->samples;
		to->window_ns = from->window_ns;
	}
	s = list_add(&b->subjects);
	if (s)
		*s = (struct subject){h->kind, h->model_index, b->row};
	b->row++;
}

static uint32_t health_row(const struct build *b, enum health_kind kind, uint32_t index)
{
	struct subject key = {.kind = kind, .index = index};
	const struct subject *s =
	    b->subjects.count
		? bsearch(&key, b->subjects.items, b->subjects.count, sizeof(key), by_subject)
		: NULL;

	return s ? s->row : SNAPSHOT_NO_INDEX;
}

static uint64_t until(uint64_t at, uint64_t now)
{
	return at > now ? at - now : 0;
}

static void add_circuit(void *ctx, const struct guard_circuit *c)
{
	struct build *b = ctx;
	struct snap_circuit *r = snapshot_add(b->w, SNAP_CIRCUITS, sizeof(*r));
	struct circuit_row *k;

	if (!r)
		return;
	r->name = snapshot_str(b->w, c->name);
	r->policy = snapshot_str(b->w, c->policy);
	r->workload = snapshot_str(b->w, c->workload);
	r->destination = snapshot_str(b->w, c->destination);
	r->state = snapshot_str(b->w, guard_state_str(c->state));
	r->mode = snapshot_str(b->w, guard_mode_str(c->mode));
	r->mode_reason = snapshot_str(b->w, c->mode_reason);
	r->reason = snapshot_str(b->w, c->reason);
	r->match = snapshot_str(b->w, c->match);
	r->dns_name = snapshot_str(b->w, c->dns_name);
	r->forced = snapshot_str(b->w, c->forced);
	r->open = c->open;
	r->open_peak = c->open_peak;
	r->burst = c->limits.burst;
	r->max_connections = c->limits.max_connections;
	r->limits_by_hand = c->limits_by_hand;
	r->rate_limit = c->limits.rate_limit;
	r->rate_fill = c->rate_fill;
	r->held = c->held;
	r->consecutive = c->consecutive;
	r->opens = c->opens;
	r->generation = c->generation;
	r->since_real_ns = c->since_real_ns;
	r->lease_left_ns = until(c->lease_until_boot_ns, b->boot_ns);
	r->retry_in_ns = until(c->retry_boot_ns, b->boot_ns);
	r->successes = c->successes;
	r->failures = c->failures;
	r->slow = c->slow;
	r->redirected = c->redirected;
	r->closed = c->closed;
	memcpy(r->failed, c->failed, sizeof(r->failed));
	memcpy(r->refused, c->refused, sizeof(r->refused));
	memcpy(r->would_refuse, c->would_refuse, sizeof(r->would_refuse));
	r->lease_expired = c->lease_expired;
	r->trips = c->trips;
	memcpy(r->transitions, c->transitions, sizeof(r->transitions));
	k = list_add(&b->circuits);
	if (k) {
		snprintf(k->workload, sizeof(k->workload), "%s", c->workload);
		snprintf(k->destination, sizeof(k->destination), "%s", c->destination);
		k->row = b->row;
	}
	b->row++;
}

static int by_circuit(const void *a, const void *b)
{
	const struct circuit_row *x = a, *y = b;
	int c = strcmp(x->workload, y->workload);

	return c ? c : strcmp(x->destination, y->destination);
}

/* The caller's own circuit comes before one for any caller, as in the kernel. */
static uint32_t circuit_row(const struct build *b, const struct model_edge *e)
{
	const char *callers[] = {e->caller->name, "*"};

	for (size_t i = 0; b->circuits.count && i < 2; i++) {
		struct circuit_row key = {0};
		const struct circuit_row *r;

		snprintf(key.workload, sizeof(key.workload), "%s", callers[i]);
		snprintf(key.destination, sizeof(key.destination), "%s", e->destination_text);
		r = bsearch(&key, b->circuits.items, b->circuits.count, sizeof(key), by_circuit);
		if (r)
			return r->row;
	}
	return SNAPSHOT_NO_INDEX;
}

/* Workloads. Those that only totals still speak of get a row as well. */

void snapshot_want_workload(struct build *b, const struct model_workload *w)
{
	const struct model_workload **slot = w ? list_add(&b->workloads) : NULL;

	if (slot)
		*slot = w;
}

static void see_workload(void *ctx, const struct model_workload *w)
{
	snapshot_want_workload(ctx, w);
}

static int by_name(const void *a, const void *b)
{
	const struct model_workload *x = *(const struct model_workload *const *)a;
	const struct model_workload *y = *(const struct model_workload *const *)b;

	return x == y ? 0 : strcmp(x->name, y->name);
}

static void settle_workloads(struct build *b)
{
	const struct model_workload **w = b->workloads.items;
	size_t n = 0;

	list_sort(&b->workloads, by_name);
	for (size_t i = 0; i < b->workloads.count; i++)
		if (!n || w[n - 1] != w[i])
			w[n++] = w[i];
	b->workloads.count = n;
}

static uint32_t workload_row(const struct build *b, const struct model_workload *w)
{
	const struct model_workload **at;

	if (!w || !b->workloads.count)
		return SNAPSHOT_NO_INDEX;
	at = bsearch(&w, b->workloads.items, b->workloads.count, sizeof(w), by_name);
	return at ? (uint32_t)(at - (const struct model_workload **)b->workloads.items)
		  : SNAPSHOT_NO_INDEX;
}

uint32_t snapshot_id_row(const struct build *b, uint32_t id)
{
	return b->s->model ? workload_row(b, model_workload_by_id(b->s->model, id))
			   : SNAPSHOT_NO_INDEX;
}

static void put_red(struct snap_red *to, const struct model_red *from)
{
	*to = (struct snap_red){from->requests, from->errors,	   from->covered_ns,
				from->rate,	from->error_ratio, from->p50,
				from->p95,	from->p99,	   from->mean};
}

static void put_tcp(struct snap_tcp *to, const struct model_tcp *from)
{
	*to = (struct snap_tcp){.opened = from->opened,
				.closed = from->closed,
				.retransmits = from->retransmits,
				.resets = from->resets,
				.bytes_in = from->bytes_in,
				.bytes_out = from->bytes_out,
				.attempts = from->connect_attempts,
				.connect_p95 = from->connect_p95};
	for (int i = 0; i < KILTER_CONNECT_FAILURES; i++)
		to->failed += from->failed[i];
}

static void add_labels(struct build *b, const struct labels *l, struct snap_workload *to)
{
	to->labels_known = l != NULL;
	to->labels_first = b->labels;
	for (const char *k = NULL; (k = labels_next(l, k));) {
		struct snap_label *r = snapshot_add(b->w, SNAP_LABELS, sizeof(*r));

		if (!r)
			return;
		r->key = snapshot_str(b->w, k);
		r->value = snapshot_str(b->w, labels_value(k));
		b->labels++;
		to->labels_count++;
	}
}

static void add_workload(struct build *b, const struct model_workload *m)
{
	struct snap_workload *r = snapshot_add(b->w, SNAP_WORKLOADS, sizeof(*r));
	struct model_red red;
	struct model_tcp tcp;

	if (!r)
		return;
	r->name = snapshot_str(b->w, m->name);
	r->kind = snapshot_str(b->w, m->kind);
	r->container_id = snapshot_str(b->w, m->container_id);
	r->pod_uid = snapshot_str(b->w, m->pod_uid);
	r->unit = snapshot_str(b->w, m->unit);
	r->exe = snapshot_str(b->w, m->exe);
	r->cgroup_path = snapshot_str(b->w, m->cgroup_path);
	r->comm = snapshot_str(b->w, m->comm);
	add_labels(b, m->labels, r);
	r->cgroup_id = m->cgroup_id;
	r->pid = m->pid;
	r->health = health_row(b, HEALTH_WORKLOAD, m->index);
	r->service = m->visible;
	r->open_connections = m->open_connections;
	r->undecoded = m->undecoded;
	for (unsigned int i = 0; i < MODEL_SPANS; i++) {
		model_workload_red(b->s->model, m, KILTER_ROLE_SERVER, (enum model_span)i, &red);
		put_red(&r->server[i], &red);
		model_workload_red(b->s->model, m, KILTER_ROLE_CLIENT, (enum model_span)i, &red);
		put_red(&r->client[i], &red);
		model_workload_tcp(b->s->model, m, (enum model_span)i, &tcp);
		put_tcp(&r->tcp[i], &tcp);
	}
}

snap_str snapshot_address(struct build *b, const struct kilter_peer *p)
{
	char buf[INET6_ADDRSTRLEN] = "";

	if (p->family == KILTER_FAMILY_V4)
		inet_ntop(AF_INET, p->addr, buf, sizeof(buf));
	else if (p->family == KILTER_FAMILY_V6)
		inet_ntop(AF_INET6, p->addr, buf, sizeof(buf));
	return snapshot_str(b->w, buf);
}

static void see_edge(void *ctx, const struct model_edge *e)
{
	struct build *b = ctx;
	const struct model_edge **slot = list_add(&b->edges);

	if (slot)
		*slot = e;
	snapshot_want_workload(b, e->caller);
	snapshot_want_workload(b, e->callee);
}

static int by_edge(const void *a, const void *b)
{
	const struct model_edge *x = *(const struct model_edge *const *)a;
	const struct model_edge *y = *(const struct model_edge *const *)b;
	int c = strcmp(x->caller->name, y->caller->name);

	return c ? c : memcmp(&x->destination, &y->destination, sizeof(x->destination));
}

static void add_edge(struct build *b, const struct model_edge *e)
{
	struct snap_edge *r = snapshot_add(b->w, SNAP_EDGES, sizeof(*r));
	struct model_red red;
	struct model_tcp tcp;

	if (!r)
		return;
	r->caller = workload_row(b, e->caller);
	r->callee = workload_row(b, e->callee);
	r->destination = snapshot_str(b->w, e->destination_text);
	r->address = snapshot_address(b, &e->destination);
	r->port = ntohs(e->destination.port_be);
	r->health = health_row(b, HEALTH_EDGE, e->index);
	r->circuit = circuit_row(b, e);
	r->open_connections = e->open_connections;
	for (unsigned int i = 0; i < MODEL_SPANS; i++) {
		model_edge_red(b->s->model, e, (enum model_span)i, &red);
		put_red(&r->red[i], &red);
		model_edge_tcp(b->s->model, e, (enum model_span)i, &tcp);
		put_tcp(&r->tcp[i], &tcp);
	}
}

static void see_listener(void *ctx, const struct model_listener *l)
{
	struct build *b = ctx;
	struct model_listener *slot = list_add(&b->listeners);

	if (slot)
		*slot = *l;
	snapshot_want_workload(b, l->workload);
}

static int by_listener(const void *a, const void *b)
{
	const struct model_listener *x = a, *y = b;
	int c = strcmp(x->workload->name, y->workload->name);

	return c ? c : (int)x->port - (int)y->port;
}

/* Several processes of a workload may listen on one port: the fullest queue speaks. */
static void add_listeners(struct build *b)
{
	struct snap_listener *r = NULL;

	list_sort(&b->listeners, by_listener);
	for (size_t i = 0; i < b->listeners.count; i++) {
		const struct model_listener *l = list_at(&b->listeners, struct model_listener, i);
		uint32_t row = workload_row(b, l->workload);

		if (!r || r->workload != row || r->port != l->port) {
			r = snapshot_add(b->w, SNAP_LISTENERS, sizeof(*r));
			if (!r)
				return;
			r->workload = row;
			r->port = l->port;
		}
		if (l->queue_length >= r->queue_length) {
			r->queue_length = l->queue_length;
			r->queue_limit = l->queue_limit;
		}
		if (l->queue_peak > r->queue_peak)
			r->queue_peak = l->queue_peak;
		r->overflows += l->overflows;
	}
}

/* The rest. */

static void add_sample(void *ctx, const char *labels, double value)
{
	struct build *b = ctx;
	struct snap_sample *r = snapshot_add(b->w, SNAP_SAMPLES, sizeof(*r));

	if (!r)
		return;
	r->labels = snapshot_str(b->w, labels);
	r->value = value;
	b->row++;
}

static void add_metric(void *ctx, const struct selfstat *s)
{
	struct build *b = ctx;
	uint32_t first = b->row;
	struct snap_metric *r;

	s->collect(s->ctx, add_sample, b);
	r = snapshot_add(b->w, SNAP_METRICS, sizeof(*r));
	if (!r)
		return;
	r->name = snapshot_str(b->w, s->name);
	r->help = snapshot_str(b->w, s->help);
	r->counter = s->type == SELFSTAT_COUNTER;
	r->first = first;
	r->count = b->row - first;
}

static void add_drop(struct build *b, const char *where, const char *reason, const char *text,
		     uint32_t loses, uint64_t total)
{
	struct snap_drop *r = snapshot_add(b->w, SNAP_DROPS, sizeof(*r));

	if (!r)
		return;
	r->where = snapshot_str(b->w, where);
	r->reason = snapshot_str(b->w, reason);
	r->text = snapshot_str(b->w, text);
	r->loses = loses;
	r->total = total;
}

static void add_drops(struct build *b)
{
	static const struct {
		const char *where, *reason, *text;
		uint32_t loses;
	} rows[] = {
#define DROP_ROW(name, where, reason, sentence, loses) {where, reason, sentence, loses},
	    KILTER_DROPS(DROP_ROW)
#undef DROP_ROW
	};

	struct audit_stats audit;

	for (unsigned int i = 0; b->s->collect && i < KILTER_DROP_MAX; i++)
		add_drop(b, rows[i].where, rows[i].reason, rows[i].text, rows[i].loses,
			 collect_drop_total(b->s->collect, (enum kilter_drop)i));
	if (b->s->audit) {
		audit_get_stats(b->s->audit, &audit);
		add_drop(b, "audit", "records",
			 "records missing from the audit trail, for whatever reason", 0,
			 audit.lost);
	}
}

static void add_maps(struct build *b)
{
	struct collect_map_stat stats[BUILD_MAPS_MAX];
	unsigned int n = collect_map_stats(b->s->collect, stats, BUILD_MAPS_MAX);

	for (unsigned int i = 0; i < n; i++) {
		struct snap_map *r = snapshot_add(b->w, SNAP_MAPS, sizeof(*r));

		if (!r)
			return;
		r->name = snapshot_str(b->w, stats[i].map);
		r->entries = stats[i].entries;
		r->max_entries = stats[i].max_entries;
	}
}

static void add_config(void *ctx, const char *path, const char *value, const char *origin,
		       const char *doc)
{
	struct build *b = ctx;
	struct snap_config *r = snapshot_add(b->w, SNAP_CONFIG, sizeof(*r));

	if (!r)
		return;
	r->path = snapshot_str(b->w, path);
	r->value = snapshot_str(b->w, value);
	r->origin = snapshot_str(b->w, origin);
	r->doc = snapshot_str(b->w, doc);
}

static void add_audit(void *ctx, const char *line, size_t len)
{
	struct build *b = ctx;
	struct snap_audit *r = snapshot_add(b->w, SNAP_AUDIT, sizeof(*r));

	if (r)
		r->line = snapshot_strn(b->w, line, len);
}

static void add_probes(struct build *b)
{
	for (unsigned int i = 0; i < b->s->probes_count; i++) {
		const struct snapshot_probe_row *p = &b->s->probes[i];
		struct snap_probe *r = snapshot_add(b->w, SNAP_PROBES, sizeof(*r));

		if (!r)
			return;
		r->name = snapshot_str(b->w, p->name);
		r->version = snapshot_str(b->w, p->version);
		r->tier = snapshot_str(b->w, p->tier);
		r->reason = snapshot_str(b->w, p->reason);
		r->hooks = snapshot_str(b->w, p->hooks);
		r->running = p->running;
		r->essential = p->essential;
		r->events = p->events;
		r->run_ns = p->run_ns;
	}
	for (unsigned int i = 0; i < b->s->phases_count; i++) {
		const struct snapshot_phase_row *p = &b->s->phases[i];
		struct snap_phase *r = snapshot_add(b->w, SNAP_PHASES, sizeof(*r));

		if (!r)
			return;
		r->name = snapshot_str(b->w, p->name);
		r->result = snapshot_str(b->w, p->result);
		r->took_ns = p->took_ns;
	}
}

static void add_node(struct build *b)
{
	const struct snapshot_sources *s = b->s;
	struct snap_node *n = snapshot_add(b->w, SNAP_NODE, sizeof(*n));

	if (!n)
		return;
	*n = s->node;
	n->version = snapshot_str(b->w, s->version);
	n->revision = snapshot_str(b->w, s->revision);
	n->hostname = snapshot_str(b->w, s->hostname);
	n->kernel = snapshot_str(b->w, s->kernel);
	n->cgroup = snapshot_str(b->w, s->cgroup);
	n->bpffs = snapshot_str(b->w, s->bpffs);
	n->config_file = snapshot_str(b->w, s->config ? s->config->file : NULL);
	n->audit_file = snapshot_str(b->w, s->config ? s->config->audit.file : NULL);
	if (s->model && model_runtime(s->model))
		n->runtime = snapshot_str(b->w, cri_state(model_runtime(s->model)));
	if (!s->guard)
		return;
	guard_counts(s->guard, &n->circuits_open, &n->destinations_open, &n->destinations);
	n->guard_released = snapshot_str(b->w, guard_released(s->guard));
}

static void add_model(struct build *b)
{
	if (b->s->model) {
		model_each_workload(b->s->model, see_workload, b);
		model_each_edge(b->s->model, see_edge, b);
		model_each_listener(b->s->model, see_listener, b);
	}
	snapshot_see_totals(b);
	settle_workloads(b);
	for (size_t i = 0; i < b->workloads.count; i++)
		add_workload(b, *list_at(&b->workloads, const struct model_workload *, i));
	list_sort(&b->edges, by_edge);
	for (size_t i = 0; i < b->edges.count; i++)
		add_edge(b, *list_at(&b->edges, const struct model_edge *, i));
	add_listeners(b);
	snapshot_add_totals(b);
}

int snapshot_build(struct snapshot_writer *w, const struct snapshot_sources *s)
{
	struct build b = {
	    .w = w,
	    .s = s,
	    .subjects.size = sizeof(struct subject),
	    .circuits.size = sizeof(struct circuit_row),
	    .workloads.size = sizeof(struct model_workload *),
	    .edges.size = sizeof(struct model_edge *),
	    .listeners.size = sizeof(struct model_listener),
	    .boot_ns = s->node.now_boot_ns ? s->node.now_boot_ns : clock_boot_ns(),
	};
	struct list *lists[] = {&b.subjects, &b.circuits, &b.workloads, &b.edges, &b.listeners,
				&b.series,   &b.conns,	  &b.syscalls,	&b.errors};
	int err, list_err = 0;

	snapshot_begin(w);
	add_node(&b);
	if (s->health)
		health_each(s->health, add_health, &b);
	list_sort(&b.subjects, by_subject);
	b.row = 0;
	if (s->guard)
		guard_each(s->guard, add_circuit, &b);
	list_sort(&b.circuits, by_circuit);
	add_model(&b);
	add_probes(&b);
	b.row = 0;
	selfstat_walk(add_metric, &b);
	if (s->collect) {
		add_drops(&b);
		add_maps(&b);
	}
	if (s->config)
		config_walk(s->config, add_config, &b);
	if (s->audit)
		audit_recent(s->audit, BUILD_AUDIT_RECENT, add_audit, &b);
	err = snapshot_commit(w);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		if (lists[i]->err)
			list_err = lists[i]->err;
		free(lists[i]->items);
	}
	return err ? err : list_err;
}
