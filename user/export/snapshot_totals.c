// SPDX-License-Identifier: Apache-2.0
/*
 * From what the kernel has counted, ever, to flat tables. Rows whose ids resolve to the same names
 * are alike to whoever reads them: they are added up.
 */
#include <arpa/inet.h>

#include <stdio.h>
#include <string.h>

#include "export/snapshot_internal.h"
#include "export/syscall_names.h"

struct series_row {
	uint32_t workload; /* row */
	struct kilter_series_key key;
	struct kilter_peer peer;
	const char *route;
	uint64_t sum_ns, bytes_in, bytes_out;
	uint64_t classic[KILTER_CLASSIC_BUCKETS]; /* not exp[]: the snapshot has none */
};

struct conn_row {
	uint32_t workload;
	struct kilter_conn_key key;
	struct kilter_peer peer;
	struct kilter_conn total;
};

struct syscall_row {
	uint32_t workload;
	struct collect_syscall s;
};

struct error_row {
	uint32_t workload;
	struct kilter_syscall_error_key key;
	uint64_t total;
};

static struct kilter_peer peer_of(const struct build *b, uint32_t id)
{
	const struct kilter_peer *p = b->s->model && id ? model_peer_by_id(b->s->model, id) : NULL;

	return p ? *p : (struct kilter_peer){.family = KILTER_FAMILY_LOCAL};
}

static void see_series(void *ctx, const struct collect_series *s)
{
	struct build *b = ctx;
	struct series_row *r = list_add(&b->series);

	if (!r)
		return;
	r->key = s->key;
	r->sum_ns = s->sum_ns;
	r->bytes_in = s->bytes_in;
	r->bytes_out = s->bytes_out;
	memcpy(r->classic, s->classic, sizeof(r->classic));
	r->peer = peer_of(b, s->key.peer);
	r->route = b->s->model ? model_route_text(b->s->model, s->key.route) : "";
	if (s->key.protocol == KILTER_PROTO_GRPC && *r->route == '/')
		r->route++; /* here, so that what is then alike becomes one row */
	if (b->s->model)
		snapshot_want_workload(b, model_workload_by_id(b->s->model, s->key.workload));
}

static int by_series(const void *a, const void *b)
{
	const struct series_row *x = a, *y = b;
	int c;

	COMPARE(x->workload, y->workload);
	COMPARE(x->key.role, y->key.role);
	COMPARE(x->key.protocol, y->key.protocol);
	c = memcmp(&x->peer, &y->peer, sizeof(x->peer));
	if (c)
		return c;
	c = x->route == y->route ? 0 : strcmp(x->route, y->route);
	if (c)
		return c;
	COMPARE(x->key.method, y->key.method);
	COMPARE(x->key.status, y->key.status);
	COMPARE(x->key.error, y->key.error);
	return 0;
}

static void add_series(struct build *b)
{
	const struct series_row *prev = NULL;
	struct snap_series *r = NULL;

	for (size_t i = 0; i < b->series.count; i++) {
		struct series_row *s = list_at(&b->series, struct series_row, i);

		s->workload = snapshot_id_row(b, s->key.workload);
	}
	list_sort(&b->series, by_series);
	for (size_t i = 0; i < b->series.count; i++) {
		const struct series_row *s = list_at(&b->series, struct series_row, i);

		if (!prev || by_series(prev, s)) {
			r = snapshot_add(b->w, SNAP_SERIES, sizeof(*r));
			if (!r)
				return;
			r->workload = s->workload;
			r->port = ntohs(s->peer.port_be);
			r->address = snapshot_address(b, &s->peer);
			r->route = snapshot_str(b->w, s->route);
			r->status = s->key.status;
			r->role = s->key.role;
			r->protocol = s->key.protocol;
			r->method = s->key.method;
			r->error = s->key.error;
			r->overflow = kilter_series_is_overflow(&s->key);
		}
		prev = s;
		r->sum_ns += s->sum_ns;
		r->bytes_in += s->bytes_in;
		r->bytes_out += s->bytes_out;
		for (int k = 0; k < KILTER_CLASSIC_BUCKETS; k++)
			r->classic[k] += s->classic[k];
	}
}

static void see_conn(void *ctx, const struct collect_conn *c)
{
	struct build *b = ctx;
	struct conn_row *r = list_add(&b->conns);

	if (!r)
		return;
	r->key = c->key;
	r->total = c->total;
	r->peer = peer_of(b, c->key.peer);
	if (b->s->model)
		snapshot_want_workload(b, model_workload_by_id(b->s->model, c->key.workload));
}

static int by_conn(const void *a, const void *b)
{
	const struct conn_row *x = a, *y = b;

	COMPARE(x->workload, y->workload);
	COMPARE(x->key.role, y->key.role);
	return memcmp(&x->peer, &y->peer, sizeof(x->peer));
}

static void add_conns(struct build *b)
{
	const size_t first = offsetof(struct kilter_conn, opened) / 8;
	const struct conn_row *prev = NULL;
	struct snap_conn *r = NULL;

	for (size_t i = 0; i < b->conns.count; i++) {
		struct conn_row *c = list_at(&b->conns, struct conn_row, i);

		c->workload = snapshot_id_row(b, c->key.workload);
	}
	list_sort(&b->conns, by_conn);
	for (size_t i = 0; i < b->conns.count; i++) {
		const struct conn_row *c = list_at(&b->conns, struct conn_row, i);
		const uint64_t *from = (const uint64_t *)&c->total;
		uint64_t *to;

		if (!prev || by_conn(prev, c)) {
			r = snapshot_add(b->w, SNAP_CONNS, sizeof(*r));
			if (!r)
				return;
			r->workload = c->workload;
			r->port = ntohs(c->peer.port_be);
			r->address = snapshot_address(b, &c->peer);
			r->role = c->key.role;
		}
		prev = c;
		to = (uint64_t *)&r->total;
		for (size_t k = first; k < sizeof(r->total) / 8; k++)
			to[k] += from[k];
	}
}

static snap_str syscall_name(struct build *b, uint32_t nr)
{
	char buf[32];

	if (nr < sizeof(syscall_names) / sizeof(syscall_names[0]) && syscall_names[nr])
		return snapshot_str(b->w, syscall_names[nr]);
	snprintf(buf, sizeof(buf), "syscall_%u", nr);
	return snapshot_str(b->w, buf);
}

static void see_syscall(void *ctx, const struct collect_syscall *s)
{
	struct build *b = ctx;
	struct syscall_row *r = list_add(&b->syscalls);

	if (r)
		r->s = *s;
	if (b->s->model)
		snapshot_want_workload(b, model_workload_by_id(b->s->model, s->key.workload));
}

static int by_syscall(const void *a, const void *b)
{
	const struct syscall_row *x = a, *y = b;

	COMPARE(x->workload, y->workload);
	COMPARE(x->s.key.nr, y->s.key.nr);
	return 0;
}

static void add_syscalls(struct build *b)
{
	struct snap_syscall *r = NULL;

	for (size_t i = 0; i < b->syscalls.count; i++) {
		struct syscall_row *s = list_at(&b->syscalls, struct syscall_row, i);

		s->workload = snapshot_id_row(b, s->s.key.workload);
	}
	list_sort(&b->syscalls, by_syscall);
	for (size_t i = 0; i < b->syscalls.count; i++) {
		const struct syscall_row *s = list_at(&b->syscalls, struct syscall_row, i);
		const uint64_t *from = (const uint64_t *)&s->s.total;
		uint64_t *to;

		if (!r || r->workload != s->workload || r->nr != s->s.key.nr) {
			r = snapshot_add(b->w, SNAP_SYSCALLS, sizeof(*r));
			if (!r)
				return;
			r->workload = s->workload;
			r->nr = s->s.key.nr;
			r->name = syscall_name(b, r->nr);
		}
		to = (uint64_t *)&r->total;
		for (size_t k = 0; k < sizeof(r->total) / 8; k++)
			to[k] += from[k];
	}
}

static void see_error(void *ctx, const struct kilter_syscall_error_key *k, uint64_t total)
{
	struct build *b = ctx;
	struct error_row *r = list_add(&b->errors);

	if (r)
		*r = (struct error_row){.key = *k, .total = total};
}

static int by_error(const void *a, const void *b)
{
	const struct error_row *x = a, *y = b;

	COMPARE(x->workload, y->workload);
	COMPARE(x->key.nr, y->key.nr);
	COMPARE(x->key.err, y->key.err);
	return 0;
}

static void add_errors(struct build *b)
{
	const struct error_row *prev = NULL;
	struct snap_syscall_error *r = NULL;

	for (size_t i = 0; i < b->errors.count; i++) {
		struct error_row *e = list_at(&b->errors, struct error_row, i);

		e->workload = snapshot_id_row(b, e->key.workload);
	}
	list_sort(&b->errors, by_error);
	for (size_t i = 0; i < b->errors.count; i++) {
		const struct error_row *e = list_at(&b->errors, struct error_row, i);

		if (!prev || by_error(prev, e)) {
			const char *name = strerrorname_np((int)e->key.err);
			char buf[32];

			snprintf(buf, sizeof(buf), "errno_%u", e->key.err);
			r = snapshot_add(b->w, SNAP_SYSCALL_ERRORS, sizeof(*r));
			if (!r)
				return;
			r->workload = e->workload;
			r->nr = e->key.nr;
			r->name = syscall_name(b, r->nr);
			r->err = snapshot_str(b->w, name ? name : buf);
		}
		prev = e;
		r->total += e->total;
	}
}

void snapshot_see_totals(struct build *b)
{
	b->series.size = sizeof(struct series_row);
	b->conns.size = sizeof(struct conn_row);
	b->syscalls.size = sizeof(struct syscall_row);
	b->errors.size = sizeof(struct error_row);
	if (!b->s->collect)
		return;
	collect_each_series(b->s->collect, see_series, b);
	collect_each_conn(b->s->collect, see_conn, b);
	collect_each_syscall(b->s->collect, see_syscall, b);
	collect_each_syscall_error(b->s->collect, see_error, b);
}

void snapshot_add_totals(struct build *b)
{
	add_series(b);
	add_conns(b);
	add_syscalls(b);
	add_errors(b);
}
