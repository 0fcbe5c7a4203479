// SPDX-License-Identifier: Apache-2.0
/*
 * The daemon is down, the kernel goes on counting: services and dependencies from the
 * pinned maps, through the same collect and model as the daemon's. What only the daemon
 * knows (health, windows longer than we look) is missing.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "cli/cli.h"
#include "collect/collect.h"
#include "core/clock.h"
#include "model/model.h"

#define FIRST_LOOK_US 999999 /* rates need two looks */

struct cli_maps {
	struct config config;
	struct collect_maps fds;
	int policy, runtime;
	struct model *model;
	struct collect *collect;
};

static int open_map(const struct cli *c, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", c->bpffs, name);
	return bpf_obj_get(path);
}

static void on_event(void *ctx, const struct kilter_event *ev)
{
	(void)ctx;
	(void)ev;
}

static void look(struct cli_maps *m)
{
	collect_tick(m->collect, clock_boot_ns());
	model_tick(m->model, clock_boot_ns());
}

static int open_all(struct cli *c)
{
	struct collect_sink sink = {
	    .workload = model_add_workload_id,
	    .peer = model_add_peer_id,
	    .route = model_add_route_id,
	    .requests = model_add_requests,
	    .conns = model_add_conns,
	    .listener = model_set_listener,
	};
	struct cli_maps *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	config_defaults(&m->config);
	m->fds = (struct collect_maps){
	    .workloads = open_map(c, "workloads"),
	    .peers = open_map(c, "peers"),
	    .routes = open_map(c, "routes"),
	    .series = open_map(c, "series"),
	    .conns = open_map(c, "conns"),
	    .listeners = open_map(c, "listeners"),
	    .syscalls = -1,
	    .syscall_errors = -1,
	    .drops = open_map(c, "drops"),
	    .events = -1,
	    .retire_prog = -1,
	    .retire_request = -1,
	};
	m->policy = open_map(c, "guard_policy");
	m->runtime = open_map(c, "guard_runtime");
	c->maps = m;
	if (m->fds.series < 0 || m->fds.conns < 0)
		return -ENOENT;
	if (model_new(&m->model, &m->config))
		return -ENOMEM;
	sink.ctx = m->model;
	if (collect_new(&m->collect, &m->config, &m->fds, &sink, NULL, on_event, NULL))
		return -EIO;
	look(m);
	usleep(FIRST_LOOK_US);
	return 0;
}

int cli_maps_release(const struct cli *c)
{
	__u32 which = KILTER_SWITCH_OFF, on = 1;
	int fd = open_map(c, "guard_switch"), err = 0;

	if (fd < 0)
		return -errno;
	if (bpf_map_update_elem(fd, &which, &on, BPF_ANY))
		err = -errno;
	close(fd);
	return err;
}

void cli_maps_free(struct cli_maps **pm)
{
	struct cli_maps *m = *pm;

	if (!m)
		return;
	collect_free(&m->collect);
	model_free(&m->model);
	free(m);
	*pm = NULL;
}

static json_t *real(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *red_json(const struct model_red *r)
{
	return json_pack("{s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o}", "requests", (json_int_t)r->requests,
			 "errors", (json_int_t)r->errors, "rate", real(r->rate), "error_ratio",
			 real(r->error_ratio), "p50_seconds", real(r->p50), "p95_seconds",
			 real(r->p95), "p99_seconds", real(r->p99), "covered_seconds",
			 real((double)r->covered_ns / 1e9));
}

static const char *const span_names[MODEL_SPANS] = {"10s", "1m", "5m", "1h"};

struct fill {
	struct cli_maps *m;
	json_t *items;
};

static void add_service(void *ctx, const struct model_workload *w)
{
	struct fill *f = ctx;
	json_t *server = json_object(), *client = json_object();

	for (int i = 0; i < MODEL_SPANS; i++) {
		struct model_red red;

		model_workload_red(f->m->model, w, KILTER_ROLE_SERVER, (enum model_span)i, &red);
		json_object_set_new(server, span_names[i], red_json(&red));
		model_workload_red(f->m->model, w, KILTER_ROLE_CLIENT, (enum model_span)i, &red);
		json_object_set_new(client, span_names[i], red_json(&red));
	}
	json_array_append_new(f->items,
			      json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:o,s:o,s:{s:s,s:n,s:[]}}",
					"name", w->name, "kind", w->kind, "executable", w->exe,
					"pid", (json_int_t)w->pid, "open_connections",
					(json_int_t)w->open_connections, "undecoded_connections",
					(json_int_t)w->undecoded, "server", server, "client",
					client, "health", "state", "unknown", "since", "reasons"));
}

static void add_edge(void *ctx, const struct model_edge *e)
{
	struct fill *f = ctx;
	json_t *red = json_object();

	for (int i = 0; i < MODEL_SPANS; i++) {
		struct model_red r;

		model_edge_red(f->m->model, e, (enum model_span)i, &r);
		json_object_set_new(red, span_names[i], red_json(&r));
	}
	json_array_append_new(
	    f->items,
	    json_pack("{s:s,s:s?,s:s,s:I,s:o,s:n,s:{s:s,s:n,s:[]}}", "caller", e->caller->name,
		      "callee", e->callee ? e->callee->name : NULL, "destination",
		      e->destination_text, "open_connections", (json_int_t)e->open_connections,
		      "red", red, "circuit", "health", "state", "unknown", "since", "reasons"));
}

static json_int_t sum(const __u64 n[KILTER_REFUSALS])
{
	json_int_t all = 0;

	for (int i = 0; i < KILTER_REFUSALS; i++)
		all += (json_int_t)n[i];
	return all;
}

static void add_circuits(struct fill *f)
{
	static const char *const states[] = {"closed", "open", "half_open"};
	static const char *const modes[] = {"off", "observe", "enforce"};
	struct kilter_circuit_key key, next;
	uint64_t now = clock_boot_ns();
	bool have = false;

	while (!bpf_map_get_next_key(f->m->policy, have ? &key : NULL, &next)) {
		struct kilter_guard_policy p;
		struct kilter_guard_runtime rt;
		const struct model_workload *w;
		const struct kilter_peer *peer;
		const char *state;
		char dest[64] = "?", name[224];

		key = next;
		have = true;
		if (bpf_map_lookup_elem(f->m->policy, &key, &p))
			continue;
		memset(&rt, 0, sizeof(rt));
		bpf_map_lookup_elem(f->m->runtime, p.rules.counters.peer ? &p.rules.counters : &key,
				    &rt);
		w = key.workload ? model_workload_by_id(f->m->model, key.workload) : NULL;
		peer = model_peer_by_id(f->m->model, key.peer);
		if (peer)
			model_peer_format(peer, dest);
		state = states[p.rules.state % 3];
		if (p.rules.state == KILTER_CIRCUIT_CLOSED && rt.generation == p.rules.generation &&
		    rt.tripped_ns && now < rt.tripped_ns + p.rules.base_open_ns)
			state = "open";
		else if (p.rules.state == KILTER_CIRCUIT_OPEN && now >= p.lease_until_ns)
			state = "closed"; /* the lease has run out: the kernel lets through */
		snprintf(name, sizeof(name), "%s->%s",
			 w		? w->name
			 : key.workload ? "?"
					: "*",
			 dest);
		json_array_append_new(
		    f->items,
		    json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:s}", "name", name,
			      "workload", w ? w->name : "*", "destination", dest, "state", state,
			      "mode", modes[p.rules.mode % 3], "policy", "", "consecutive_failures",
			      (json_int_t)rt.consecutive, "successes",
			      (json_int_t)rt.total_successes, "failures",
			      (json_int_t)rt.total_failures, "refused", sum(rt.refused),
			      "would_refuse", sum(rt.would_refuse), "lease_expired",
			      (json_int_t)rt.lease_expired, "reason", ""));
	}
}

int cli_maps_get(struct cli *c, const char *path, json_t **ret)
{
	struct fill f = {0};
	int err;

	if (strcmp(path, "/api/v1/services") && strcmp(path, "/api/v1/dependencies") &&
	    strcmp(path, "/api/v1/circuits"))
		return -ENOENT;
	if (!c->maps) {
		err = open_all(c);
		if (err) {
			cli_maps_free(&c->maps);
			return err;
		}
	}
	look(c->maps);
	f.m = c->maps;
	f.items = json_array();
	if (!strcmp(path, "/api/v1/services"))
		model_each_workload(f.m->model, add_service, &f);
	else if (!strcmp(path, "/api/v1/dependencies"))
		model_each_edge(f.m->model, add_edge, &f);
	else
		add_circuits(&f);
	*ret = json_pack("{s:o,s:n}", "items", f.items, "next");
	return *ret ? 0 : -ENOMEM;
}
