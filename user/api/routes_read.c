// SPDX-License-Identifier: Apache-2.0
/* What can be read. Lists are pages of one snapshot table; a cursor is a row's number. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/negotiate.h"
#include "api/read.h"
#include "core/clock.h"

static const char *const span_names[MODEL_SPANS] = {
    [MODEL_10S] = "10s", [MODEL_1M] = "1m", [MODEL_5M] = "5m", [MODEL_1H] = "1h"};

double read_seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

void read_put_str(struct json *j, const char *key, const struct snapshot *s, snap_str str)
{
	json_kv_string(j, key, TEXT(s, str));
}

void read_put_time(struct json *j, const char *key, uint64_t real_ns)
{
	char buf[31];

	json_kv_string(j, key, real_ns ? clock_format_rfc3339(real_ns, buf) : NULL);
}

static void put_red(struct json *j, const char *key, const struct snap_red red[MODEL_SPANS])
{
	json_key(j, key);
	json_object_begin(j);
	for (int i = 0; i < MODEL_SPANS; i++) {
		json_key(j, span_names[i]);
		json_object_begin(j);
		json_kv_u64(j, "requests", red[i].requests);
		json_kv_u64(j, "errors", red[i].errors);
		json_kv_double(j, "rate", red[i].rate);
		json_kv_double(j, "error_ratio", red[i].error_ratio);
		json_kv_double(j, "p50_seconds", red[i].p50);
		json_kv_double(j, "p95_seconds", red[i].p95);
		json_kv_double(j, "p99_seconds", red[i].p99);
		json_kv_double(j, "mean_seconds", red[i].mean);
		json_kv_double(j, "covered_seconds", read_seconds(red[i].covered_ns));
		json_object_end(j);
	}
	json_object_end(j);
}

static void put_tcp(struct json *j, const struct snap_tcp tcp[MODEL_SPANS])
{
	json_key(j, "tcp");
	json_object_begin(j);
	for (int i = 0; i < MODEL_SPANS; i++) {
		json_key(j, span_names[i]);
		json_object_begin(j);
		json_kv_u64(j, "opened", tcp[i].opened);
		json_kv_u64(j, "closed", tcp[i].closed);
		json_kv_u64(j, "attempts", tcp[i].attempts);
		json_kv_u64(j, "failed", tcp[i].failed);
		json_kv_u64(j, "retransmits", tcp[i].retransmits);
		json_kv_u64(j, "resets", tcp[i].resets);
		json_kv_u64(j, "bytes_in", tcp[i].bytes_in);
		json_kv_u64(j, "bytes_out", tcp[i].bytes_out);
		json_kv_double(j, "connect_p95_seconds", tcp[i].connect_p95);
		json_object_end(j);
	}
	json_object_end(j);
}

static void put_health(struct json *j, const struct snapshot *s, const struct snap_health *h)
{
	json_kv_string(j, "state", TEXT(s, h->state));
	read_put_time(j, "since", h->since_real_ns);
	json_kv_u64(j, "transitions", h->transitions);
	json_key(j, "reasons");
	json_array_begin(j);
	for (uint32_t i = 0; i < h->reasons_count && i < 3; i++) {
		const struct snap_reason *r = &h->reasons[i];

		json_object_begin(j);
		read_put_str(j, "code", s, r->code);
		read_put_str(j, "text", s, r->text);
		read_put_str(j, "severity", s, r->severity);
		json_kv_double(j, "observed", r->observed);
		json_kv_double(j, "threshold", r->threshold);
		json_kv_u64(j, "samples", r->samples);
		json_kv_double(j, "window_seconds", read_seconds(r->window_ns));
		json_object_end(j);
	}
	json_array_end(j);
}

static void put_health_row(struct json *j, const struct snapshot *s, uint32_t row)
{
	json_key(j, "health");
	json_object_begin(j);
	if (row < s->counts[SNAP_HEALTH]) {
		put_health(j, s, &snapshot_rows(s, SNAP_HEALTH, struct snap_health)[row]);
	} else {
		json_kv_string(j, "state", "unknown");
		json_kv_string(j, "since", NULL);
		json_key(j, "reasons");
		json_array_begin(j);
		json_array_end(j);
	}
	json_object_end(j);
}

static const char *workload_name(const struct snapshot *s, uint32_t row)
{
	return row < s->counts[SNAP_WORKLOADS]
		   ? TEXT(s, snapshot_rows(s, SNAP_WORKLOADS, struct snap_workload)[row].name)
		   : NULL;
}

/* null where they are not known. */
static void put_labels(struct json *j, const struct snapshot *s, const struct snap_workload *w)
{
	const struct snap_label *l = snapshot_rows(s, SNAP_LABELS, struct snap_label);
	const uint32_t count = s->counts[SNAP_LABELS], first = w->labels_first;

	json_key(j, "labels");
	if (!w->labels_known) {
		json_null(j);
		return;
	}
	json_object_begin(j);
	for (uint32_t i = 0; first < count && i < w->labels_count && i < count - first; i++)
		json_kv_string(j, TEXT(s, l[first + i].key), TEXT(s, l[first + i].value));
	json_object_end(j);
}

/* One row as an object. */

static void put_service(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_workload *w =
	    &snapshot_rows(s, SNAP_WORKLOADS, struct snap_workload)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, w->name);
	read_put_str(j, "kind", s, w->kind);
	read_put_str(j, "executable", s, w->exe);
	json_kv_u64(j, "pid", w->pid);
	read_put_str(j, "comm", s, w->comm);
	read_put_str(j, "cgroup", s, w->cgroup_path);
	json_kv_u64(j, "cgroup_id", w->cgroup_id);
	read_put_str(j, "container_id", s, w->container_id);
	read_put_str(j, "pod_uid", s, w->pod_uid);
	read_put_str(j, "unit", s, w->unit);
	put_labels(j, s, w);
	json_kv_u64(j, "open_connections", w->open_connections);
	json_kv_u64(j, "undecoded_connections", w->undecoded);
	put_red(j, "server", w->server);
	put_red(j, "client", w->client);
	put_tcp(j, w->tcp);
	put_health_row(j, s, w->health);
	json_object_end(j);
}

static void put_edge(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_edge *e = &snapshot_rows(s, SNAP_EDGES, struct snap_edge)[row];

	json_object_begin(j);
	json_kv_string(j, "caller", workload_name(s, e->caller));
	json_kv_string(j, "callee", workload_name(s, e->callee));
	read_put_str(j, "destination", s, e->destination);
	read_put_str(j, "address", s, e->address);
	json_kv_u64(j, "port", e->port);
	json_kv_u64(j, "open_connections", e->open_connections);
	put_red(j, "red", e->red);
	put_tcp(j, e->tcp);
	json_kv_string(
	    j, "circuit",
	    e->circuit < s->counts[SNAP_CIRCUITS]
		? TEXT(s, snapshot_rows(s, SNAP_CIRCUITS, struct snap_circuit)[e->circuit].name)
		: NULL);
	put_health_row(j, s, e->health);
	json_object_end(j);
}

static void put_listener(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_listener *l =
	    &snapshot_rows(s, SNAP_LISTENERS, struct snap_listener)[row];

	json_object_begin(j);
	json_kv_string(j, "service", workload_name(s, l->workload));
	json_kv_u64(j, "port", l->port);
	json_kv_u64(j, "queue_length", l->queue_length);
	json_kv_u64(j, "queue_limit", l->queue_limit);
	json_kv_u64(j, "queue_peak", l->queue_peak);
	json_kv_u64(j, "overflows", l->overflows);
	json_object_end(j);
}

static void put_syscall(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_syscall *c = &snapshot_rows(s, SNAP_SYSCALLS, struct snap_syscall)[row];

	json_object_begin(j);
	json_kv_string(j, "service", workload_name(s, c->workload));
	read_put_str(j, "syscall", s, c->name);
	json_kv_u64(j, "number", c->nr);
	json_kv_u64(j, "sampled", c->total.count);
	json_kv_u64(j, "errors", c->total.errors);
	json_kv_double(j, "seconds", read_seconds(c->total.sum_ns));
	json_object_end(j);
}

static void put_probe(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_probe *p = &snapshot_rows(s, SNAP_PROBES, struct snap_probe)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, p->name);
	read_put_str(j, "version", s, p->version);
	read_put_str(j, "tier", s, p->tier);
	json_kv_bool(j, "running", p->running);
	json_kv_bool(j, "essential", p->essential);
	read_put_str(j, "reason", s, p->reason);
	read_put_str(j, "hooks", s, p->hooks);
	json_kv_u64(j, "events", p->events);
	json_kv_double(j, "run_seconds", read_seconds(p->run_ns));
	json_object_end(j);
}

static void put_audit(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_audit *a = &snapshot_rows(s, SNAP_AUDIT, struct snap_audit)[row];
	const char *line = TEXT(s, a->line);
	size_t n = strcspn(line, "\n");

	if (n)
		json_raw(j, line, n); /* written by audit/record.c with core/json.h */
	else
		json_null(j);
}

static void put_config(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_config *c = &snapshot_rows(s, SNAP_CONFIG, struct snap_config)[row];

	json_object_begin(j);
	read_put_str(j, "path", s, c->path);
	read_put_str(j, "value", s, c->value);
	read_put_str(j, "origin", s, c->origin);
	read_put_str(j, "doc", s, c->doc);
	json_object_end(j);
}

static void put_phase(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_phase *p = &snapshot_rows(s, SNAP_PHASES, struct snap_phase)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, p->name);
	read_put_str(j, "result", s, p->result);
	json_kv_double(j, "took_seconds", read_seconds(p->took_ns));
	json_object_end(j);
}

static void put_drop(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_drop *d = &snapshot_rows(s, SNAP_DROPS, struct snap_drop)[row];

	json_object_begin(j);
	read_put_str(j, "where", s, d->where);
	read_put_str(j, "reason", s, d->reason);
	read_put_str(j, "text", s, d->text);
	json_kv_u64(j, "total", d->total);
	json_kv_bool(j, "loses", d->loses);
	json_object_end(j);
}

static void put_map(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_map *m = &snapshot_rows(s, SNAP_MAPS, struct snap_map)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, m->name);
	json_kv_u64(j, "entries", m->entries);
	json_kv_u64(j, "max_entries", m->max_entries);
	json_kv_u64(j, "bytes", m->bytes);
	json_object_end(j);
}

static void put_all(struct json *j, const char *key, const struct snapshot *s, enum snap_table t,
		    read_put_fn put)
{
	json_key(j, key);
	json_array_begin(j);
	for (uint32_t i = 0; i < s->counts[t]; i++)
		put(j, s, i);
	json_array_end(j);
}

static bool is_service(const struct snapshot *s, uint32_t row)
{
	return snapshot_rows(s, SNAP_WORKLOADS, struct snap_workload)[row].service;
}

void read_list_of(struct api_request *r, struct api_reply *reply, enum snap_table t, read_row_fn of,
		  read_put_fn put)
{
	uint32_t limit = API_LIMIT, at = 0, n = 0;
	char next[API_CURSOR_MAX];
	struct json j;

	if (r->limit && negotiate_u32(r->limit, 1, API_LIMIT_MAX, &limit)) {
		api_problem(reply, 400, "limit must be a number from 1 to 1000");
		return;
	}
	if (r->cursor && negotiate_u32(r->cursor, 0, UINT32_MAX, &at)) {
		api_problem(reply, 400, "cursor is none that this API gave");
		return;
	}
	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_key(&j, "items");
	json_array_begin(&j);
	for (; at < r->snapshot->counts[t] && n < limit; at++) {
		if (of && !of(r->snapshot, at))
			continue;
		put(&j, r->snapshot, at);
		n++;
	}
	json_array_end(&j);
	while (of && at < r->snapshot->counts[t] && !of(r->snapshot, at))
		at++;
	snprintf(next, sizeof(next), "%u", at);
	json_kv_string(&j, "next", at < r->snapshot->counts[t] ? next : NULL);
	json_object_end(&j);
	api_json(reply, 200, &j);
}

void read_list(struct api_request *r, struct api_reply *reply, enum snap_table t, read_put_fn put)
{
	read_list_of(r, reply, t, NULL, put);
}

/* Each of these rows starts with its name. */
void read_one(struct api_request *r, struct api_reply *reply, enum snap_table t, size_t size,
	      read_put_fn put)
{
	const struct snapshot *s = r->snapshot;
	struct json j;

	for (uint32_t i = 0; i < s->counts[t]; i++) {
		snap_str name;

		memcpy(&name, (const char *)s->tables[t] + i * size, sizeof(name));
		if (strcmp(TEXT(s, name), r->name))
			continue;
		json_init(&j, API_JSON_MAX);
		put(&j, s, i);
		api_json(reply, 200, &j);
		return;
	}
	api_problem(reply, 404, "there is nothing of this name");
}

_Static_assert(offsetof(struct snap_workload, name) == 0, "see read_one()");
_Static_assert(offsetof(struct snap_probe, name) == 0, "see read_one()");

void api_get_services(struct api_request *r, struct api_reply *reply)
{
	if (*r->name)
		read_one(r, reply, SNAP_WORKLOADS, sizeof(struct snap_workload), put_service);
	else
		read_list_of(r, reply, SNAP_WORKLOADS, is_service, put_service);
}

void api_get_probes(struct api_request *r, struct api_reply *reply)
{
	if (*r->name)
		read_one(r, reply, SNAP_PROBES, sizeof(struct snap_probe), put_probe);
	else
		read_list(r, reply, SNAP_PROBES, put_probe);
}

void api_get_dependencies(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_EDGES, put_edge);
}

void api_get_listeners(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_LISTENERS, put_listener);
}

void api_get_syscalls(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_SYSCALLS, put_syscall);
}

void api_get_audit(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_AUDIT, put_audit);
}

void api_get_config(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_CONFIG, put_config);
}

void api_get_phases(struct api_request *r, struct api_reply *reply)
{
	read_list(r, reply, SNAP_PHASES, put_phase);
}

static void put_subjects(struct json *j, const char *key, const struct snapshot *s,
			 const char *kind)
{
	const struct snap_health *h = snapshot_rows(s, SNAP_HEALTH, struct snap_health);

	json_key(j, key);
	json_array_begin(j);
	for (uint32_t i = 0; i < s->counts[SNAP_HEALTH]; i++) {
		if (strcmp(TEXT(s, h[i].kind), kind))
			continue;
		json_object_begin(j);
		read_put_str(j, "name", s, h[i].name);
		put_health(j, s, &h[i]);
		json_object_end(j);
	}
	json_array_end(j);
}

static uint32_t node_row(const struct snapshot *s)
{
	const struct snap_health *h = snapshot_rows(s, SNAP_HEALTH, struct snap_health);

	for (uint32_t i = 0; i < s->counts[SNAP_HEALTH]; i++)
		if (!strcmp(TEXT(s, h[i].kind), "node"))
			return i;
	return SNAPSHOT_NO_INDEX;
}

void api_get_health(struct api_request *r, struct api_reply *reply)
{
	const struct snapshot *s = r->snapshot;
	uint32_t node = node_row(s);
	struct json j;

	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_key(&j, "node");
	json_object_begin(&j);
	if (node != SNAPSHOT_NO_INDEX) {
		const struct snap_health *h =
		    &snapshot_rows(s, SNAP_HEALTH, struct snap_health)[node];

		read_put_str(&j, "name", s, h->name);
		put_health(&j, s, h);
	} else {
		json_kv_string(&j, "state", "unknown");
	}
	json_object_end(&j);
	put_subjects(&j, "workloads", s, "workload");
	put_subjects(&j, "edges", s, "edge");
	put_subjects(&j, "probes", s, "probe");
	json_object_end(&j);
	api_json(reply, 200, &j);
}

void api_get_health_summary(struct api_request *r, struct api_reply *reply)
{
	static const char *const kinds[] = {"workload", "edge", "probe"};
	static const char *const keys[] = {"workloads", "edges", "probes"};
	static const char *const states[] = {"healthy", "degraded", "unhealthy", "unknown"};
	const struct snapshot *s = r->snapshot;
	const struct snap_health *h = snapshot_rows(s, SNAP_HEALTH, struct snap_health);
	uint32_t node = node_row(s);
	struct json j;

	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_kv_string(&j, "state", node == SNAPSHOT_NO_INDEX ? "unknown" : TEXT(s, h[node].state));
	for (int k = 0; k < 3; k++) {
		json_key(&j, keys[k]);
		json_object_begin(&j);
		for (int t = 0; t < 4; t++) {
			uint64_t n = 0;

			for (uint32_t i = 0; i < s->counts[SNAP_HEALTH]; i++)
				n += !strcmp(TEXT(s, h[i].kind), kinds[k]) &&
				     !strcmp(TEXT(s, h[i].state), states[t]);
			json_kv_u64(&j, states[t], n);
		}
		json_object_end(&j);
	}
	json_object_end(&j);
	api_json(reply, 200, &j);
}

static const struct snap_node *node_of(const struct snapshot *s)
{
	return s && s->counts[SNAP_NODE] ? snapshot_rows(s, SNAP_NODE, struct snap_node) : NULL;
}

void api_get_status(struct api_request *r, struct api_reply *reply)
{
	const struct snapshot *s = r->snapshot;
	const struct snap_node *n = node_of(s);
	struct json j;

	if (!n) {
		api_problem(reply, 503, "the agent has published nothing yet");
		return;
	}
	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	read_put_str(&j, "version", s, n->version);
	read_put_str(&j, "revision", s, n->revision);
	read_put_time(&j, "started", n->start_real_ns);
	json_kv_double(&j, "uptime_seconds",
		       n->now_real_ns > n->start_real_ns
			   ? read_seconds(n->now_real_ns - n->start_real_ns)
			   : 0);
	read_put_str(&j, "kernel", s, n->kernel);
	read_put_str(&j, "hostname", s, n->hostname);
	read_put_str(&j, "cgroup", s, n->cgroup);
	read_put_str(&j, "bpffs", s, n->bpffs);
	read_put_str(&j, "config_file", s, n->config_file);
	read_put_str(&j, "audit_file", s, n->audit_file);
	read_put_str(&j, "runtime", s, n->runtime);
	json_kv_u64(&j, "config_generation", n->config_generation);
	json_kv_bool(&j, "ready", n->ready);
	json_kv_bool(&j, "incomplete", n->incomplete);
	json_kv_u64(&j, "ticks", n->ticks);
	json_kv_u64(&j, "ticks_late", n->ticks_late);
	json_kv_double(&j, "last_tick_seconds", read_seconds(n->last_tick_ns));
	json_kv_double(&j, "syscall_sample_ratio", n->syscall_sample_ratio);
	json_kv_u64(&j, "front_pid", n->front_pid);
	json_kv_u64(&j, "pid", n->pid);
	put_all(&j, "probes", s, SNAP_PROBES, put_probe);
	put_all(&j, "drops", s, SNAP_DROPS, put_drop);
	put_all(&j, "maps", s, SNAP_MAPS, put_map);
	put_all(&j, "startup", s, SNAP_PHASES, put_phase);
	json_object_end(&j);
	api_json(reply, 200, &j);
}

static void verdict(struct api_reply *reply, bool ok, const char *good, const char *bad)
{
	struct json j;

	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_kv_string(&j, "status", ok ? good : bad);
	json_object_end(&j);
	api_json(reply, ok ? 200 : 503, &j);
}

void api_get_live(struct api_request *r, struct api_reply *reply)
{
	(void)r;
	verdict(reply, true, "live", "");
}

void api_get_ready(struct api_request *r, struct api_reply *reply)
{
	const struct snap_node *n = node_of(r->snapshot);

	verdict(reply, n && n->ready, "ready", "not ready");
}

void api_get_startup(struct api_request *r, struct api_reply *reply)
{
	verdict(reply, node_of(r->snapshot), "started", "starting");
}

/* What there is of a few services is one piece; what is more is made as it is sent. */
void api_get_metrics(struct api_request *r, struct api_reply *reply)
{
	int openmetrics = 0, text = 0, err;
	const char *piece = NULL;

	if (r->accept && *r->accept) {
		openmetrics = negotiate_weight(r->accept, "application/openmetrics-text");
		text = negotiate_weight(r->accept, "text/plain");
		/* A wildcard alone means text: so do all exporters. */
		if (!strstr(r->accept, "application/openmetrics-text"))
			openmetrics = 0;
	}
	err = prometheus_new(&reply->text, r->snapshot, openmetrics > 0 && openmetrics >= text);
	if (!err)
		err = prometheus_next(reply->text, r->own, r->own_count, &piece, &reply->len);
	reply->body = err ? NULL : malloc(reply->len);
	if (!reply->body) {
		prometheus_free(&reply->text);
		api_problem(reply, 500, "the metrics do not fit in memory");
		return;
	}
	memcpy(reply->body, piece, reply->len);
	if (prometheus_done(reply->text))
		prometheus_free(&reply->text);
	reply->status = 200;
	reply->type = openmetrics > 0 && openmetrics >= text ? PROMETHEUS_OPENMETRICS_TYPE
							     : PROMETHEUS_TEXT_TYPE;
}
