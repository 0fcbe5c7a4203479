// SPDX-License-Identifier: Apache-2.0
/*
 * Once a tick: new names, then every series whose value moved, then retirement.
 *
 * Retirement of a series idle for retire_after, over ticks (see <kilter/series.h>):
 *   1. the program marks it: from then on programs use its sibling (KILTER_SHARD_ALT);
 *   2. a tick later its reading is final: appended to the state file, then deleted.
 * A crash between the two of step 2 leaves the record and the entry, both with the same
 * creation stamp: at the next start the record is ignored.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "collect/collect.h"
#include "collect/family.h"
#include "collect/ring.h"
#include "collect/state.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/selfstat.h"

#define COLLECT_RETIRE_PER_TICK	 256u  /* marks, and deletions: bounds a tick */
#define COLLECT_RETIRED_MAX	 4096u /* series kept after they left the kernel, each family */
#define COLLECT_SETTLE_NS	 50000000ull /* least time between mark and final reading */
#define COLLECT_NAMES_EVERY	 10u	     /* ticks between whole readings of peers and routes */
#define COLLECT_COMPACT_SLACK	 1024u	     /* records before the state file is rewritten */
#define COLLECT_DUMMY_PACKET_LEN 64u

struct id_entry {
	struct table_node node;
	__u32 id;
	__u32 pad;
};

struct names {
	struct map_walk walk;
	struct table known;
	void (*fn)(struct collect *c, __u32 id, const void *value);
	struct collect *c;
};

struct syscall_entry {
	struct table_node node;
	struct kilter_syscall_key key;
	struct kilter_syscall prev, total;
};

struct error_entry {
	struct table_node node;
	struct kilter_syscall_error_key key;
	__u32 pad;
	uint64_t prev, total;
};

struct pending { /* a record of the state file, until the first reading of the maps */
	struct state_record r;
	struct pending *next;
	uint64_t payload[];
};

struct collect {
	struct collect_maps maps;
	struct collect_sink sink;
	uint64_t retire_after_ns;
	uint64_t tick, now_ns;
	bool backlog;
	struct family series, conns;
	struct names workloads, peers, routes;
	struct map_walk listeners, syscalls, syscall_errors;
	struct table syscall_table, error_table;
	uint64_t drops[KILTER_DROP_MAX], drops_delta[KILTER_DROP_MAX];
	uint64_t *cpu_values;
	int cpus;
	struct ring *ring;

	char *state_file;
	struct state_origin origin;
	int state_fd;
	uint64_t state_records, state_errors;
	struct pending *pending;
	uint64_t retired_total, persisted_open, untracked;
	struct selfstat stats[5];
};

/* Names. */

static void names_seen(void *ctx, const void *key, const void *value)
{
	struct names *n = ctx;
	__u32 id;

	memcpy(&id, key, sizeof(id));
	if (table_find(&n->known, &id))
		return;
	if (!table_add(&n->known, &id)) {
		n->c->untracked++;
		return;
	}
	n->fn(n->c, id, value);
}

static void names_want(struct names *n, __u32 id)
{
	union {
		struct kilter_workload w;
		struct kilter_peer p;
		struct kilter_route r;
	} value;

	if (!id || n->walk.fd < 0 || table_find(&n->known, &id))
		return;
	if (!bpf_map_lookup_elem(n->walk.fd, &id, &value))
		names_seen(n, &id, &value);
}

static void workload_fn(struct collect *c, __u32 id, const void *value)
{
	struct kilter_workload w;

	memcpy(&w, value, sizeof(w));
	w.key.exe[sizeof(w.key.exe) - 1] = '\0';
	w.comm[sizeof(w.comm) - 1] = '\0';
	if (c->sink.workload)
		c->sink.workload(c->sink.ctx, id, &w);
}

static void peer_fn(struct collect *c, __u32 id, const void *value)
{
	struct kilter_peer p;

	memcpy(&p, value, sizeof(p));
	if (c->sink.peer)
		c->sink.peer(c->sink.ctx, id, &p);
}

static void route_fn(struct collect *c, __u32 id, const void *value)
{
	struct kilter_route r;

	memcpy(&r, value, sizeof(r));
	if (r.path_len > sizeof(r.path))
		r.path_len = sizeof(r.path);
	if (c->sink.route)
		c->sink.route(c->sink.ctx, id, &r);
}

static int names_init(struct collect *c, struct names *n, int fd, size_t value_size, uint32_t max,
		      void (*fn)(struct collect *, __u32, const void *))
{
	int err = map_walk_init(&n->walk, fd, sizeof(__u32), value_size);

	if (n->walk.max_entries)
		max = n->walk.max_entries;
	table_init(&n->known, sizeof(__u32), sizeof(struct id_entry), max);
	n->c = c;
	n->fn = fn;
	return err;
}

/* Families. */

static void series_new(void *ctx, const void *key)
{
	const struct kilter_series_key *k = key;
	struct collect *c = ctx;

	names_want(&c->workloads, k->workload);
	names_want(&c->peers, k->peer);
	names_want(&c->routes, k->route);
}

static void conn_new(void *ctx, const void *key)
{
	const struct kilter_conn_key *k = key;
	struct collect *c = ctx;

	names_want(&c->workloads, k->workload);
	names_want(&c->peers, k->peer);
}

static void series_moved(void *ctx, const void *key, const void *delta, bool backlog)
{
	struct collect *c = ctx;

	if (c->sink.requests)
		c->sink.requests(c->sink.ctx, key, delta, backlog);
}

static void conn_moved(void *ctx, const void *key, const void *delta, bool backlog)
{
	struct collect *c = ctx;

	if (c->sink.conns)
		c->sink.conns(c->sink.ctx, key, delta, backlog);
}

static void listener_seen(void *ctx, const void *key, const void *value)
{
	struct kilter_listener_key k;
	struct kilter_listener l;
	struct collect *c = ctx;

	memcpy(&k, key, sizeof(k));
	memcpy(&l, value, sizeof(l));
	names_want(&c->workloads, k.workload);
	names_want(&c->peers, k.peer);
	if (c->sink.listener)
		c->sink.listener(c->sink.ctx, &k, &l);
}

static void syscall_seen(void *ctx, const void *key, const void *value)
{
	struct collect *c = ctx;
	struct syscall_entry *e = table_find(&c->syscall_table, key);
	struct kilter_syscall delta;
	uint64_t *d = (uint64_t *)&delta, *t, *p;
	const uint64_t *n = value;

	if (!e) {
		e = table_add(&c->syscall_table, key);
		if (!e) {
			c->untracked++;
			return;
		}
		names_want(&c->workloads, e->key.workload);
	} else if (!memcmp(&e->prev, value, sizeof(e->prev))) {
		return;
	}
	t = (uint64_t *)&e->total;
	p = (uint64_t *)&e->prev;
	for (size_t i = 0; i < sizeof(delta) / 8; i++) {
		d[i] = n[i] >= p[i] ? n[i] - p[i] : n[i]; /* less: the entry began anew */
		t[i] += d[i];
	}
	memcpy(&e->prev, value, sizeof(e->prev));
	if (c->sink.syscalls)
		c->sink.syscalls(c->sink.ctx, &e->key, &delta, c->backlog);
}

static void error_seen(void *ctx, const void *key, const void *value)
{
	struct collect *c = ctx;
	struct error_entry *e = table_find(&c->error_table, key);
	uint64_t n;

	memcpy(&n, value, sizeof(n));
	if (!e)
		e = table_add(&c->error_table, key);
	if (!e) {
		c->untracked++;
		return;
	}
	e->total += n >= e->prev ? n - e->prev : n;
	e->prev = n;
}

static int read_drops(struct collect *c)
{
	if (c->maps.drops < 0)
		return 0;
	for (__u32 i = 0; i < KILTER_DROP_MAX; i++) {
		uint64_t total = 0;

		if (bpf_map_lookup_elem(c->maps.drops, &i, c->cpu_values))
			return -errno;
		for (int cpu = 0; cpu < c->cpus; cpu++)
			total += c->cpu_values[cpu];
		c->drops_delta[i] = c->backlog || total < c->drops[i] ? 0 : total - c->drops[i];
		c->drops[i] = total;
	}
	return 0;
}

/* The state file. */

static int pending_add(void *ctx, const struct state_record *r, const void *payload)
{
	struct collect *c = ctx;
	struct pending *p;

	if ((r->kind != KILTER_RETIRE_SERIES || r->size != sizeof(struct collect_series)) &&
	    (r->kind != KILTER_RETIRE_CONN || r->size != sizeof(struct collect_conn)))
		return 0;
	p = malloc(sizeof(*p) + r->size);
	if (!p)
		return -ENOMEM;
	p->r = *r;
	memcpy(p->payload, payload, r->size);
	p->next = c->pending;
	c->pending = p;
	return 0;
}

static void pending_feed(struct collect *c, const struct pending *p)
{
	if (p->r.kind == KILTER_RETIRE_CONN) {
		const struct collect_conn *t = (const void *)p->payload;

		conn_new(c, &t->key);
		conn_moved(c, &t->key, &t->total, true);
		return;
	}
	series_new(c, p->payload);
}

static void pending_apply(struct collect *c)
{
	struct pending *p, *next;

	for (p = c->pending; p; p = next) {
		struct family *f = p->r.kind == KILTER_RETIRE_CONN ? &c->conns : &c->series;
		struct raw *r = table_find(&f->raws, p->r.key);

		next = p->next;
		if (!r || !p->r.created_ns || r->value[0] != p->r.created_ns) {
			if (family_restore(f, p->payload))
				f->untracked++;
			else
				pending_feed(c, p);
		}
		free(p);
	}
	c->pending = NULL;
}

static int append_bases(const struct family *f, int fd, uint64_t *ret_count)
{
	struct merged *m;
	uint32_t pos = 0;

	while ((m = table_next(&f->merged, &pos))) {
		struct state_record r = {.kind = f->ops->map, .size = (uint32_t)f->ops->total_size};
		int err;

		if (!m->base)
			continue;
		memcpy(r.key, m->key, f->ops->key_size);
		err = state_append(fd, &r, m->base);
		if (err)
			return err;
		++*ret_count;
	}
	return 0;
}

/* Rewrites the file from what is in memory. Not while a record has its entry still alive. */
static int state_rewrite(struct collect *c)
{
	_cleanup_close_ int fd = -1;
	uint64_t count = 0;
	int err;

	if (!c->state_file || c->persisted_open)
		return 0;
	err = state_create(c->state_file, &c->origin, &fd);
	if (!err)
		err = append_bases(&c->series, fd, &count);
	if (!err)
		err = append_bases(&c->conns, fd, &count);
	if (!err)
		err = state_commit(c->state_file);
	if (err) {
		c->state_errors++;
		return err;
	}
	cleanup_close(&c->state_fd);
	c->state_fd = take_fd(&fd);
	c->state_records = count;
	return 0;
}

static int persist(struct collect *c, const struct family *f, const struct raw *r)
{
	union {
		struct collect_series s;
		struct collect_conn c;
	} total;
	struct state_record rec = {
	    .kind = f->ops->map, .size = (uint32_t)f->ops->total_size, .created_ns = r->value[0]};
	int err;

	if (!c->state_file)
		return 0;
	if (c->state_fd < 0)
		return -EBADF;
	memset(&total, 0, sizeof(total));
	memcpy(&total, r->merged->key, f->ops->key_size);
	f->ops->add(&total, r->value);
	memcpy(rec.key, r->key, f->ops->key_size);
	err = state_append(c->state_fd, &rec, &total);
	if (err)
		c->state_errors++;
	else
		c->state_records++;
	return err;
}

/* Retirement. */

static int mark(struct collect *c, const struct family *f, struct raw *r)
{
	struct kilter_retire_request req = {.map = f->ops->map};
	unsigned char packet[COLLECT_DUMMY_PACKET_LEN] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = 1);
	__u32 zero = 0;

	memcpy(&req.series, r->key, f->ops->key_size);
	if (bpf_map_update_elem(c->maps.retire_request, &zero, &req, BPF_ANY) ||
	    bpf_prog_test_run_opts(c->maps.retire_prog, &opts) ||
	    bpf_map_lookup_elem(c->maps.retire_request, &zero, &req))
		return -errno;
	if (!req.done)
		return -ENOENT; /* gone meanwhile: the next reading says so */
	r->state = RAW_MARKED;
	r->marked_ns = c->now_ns;
	return 0;
}

/* While both of a pair are marked a program would find no place to count in. */
static bool sibling_marked(const struct family *f, const struct raw *r)
{
	unsigned char key[FAMILY_KEY_MAX];
	const struct raw *s;

	memcpy(key, r->key, sizeof(key));
	key[f->ops->shard_at] ^= KILTER_SHARD_ALT;
	s = table_find(&f->raws, key);
	return s && s->state != RAW_LIVE;
}

static int finish(struct collect *c, struct family *f, struct raw *r)
{
	int err;

	if (r->state == RAW_MARKED) {
		err = persist(c, f, r);
		if (err)
			return err;
		if (c->state_file)
			c->persisted_open++;
		r->state = RAW_PERSISTED;
	}
	if (bpf_map_delete_elem(f->walk.fd, r->key) && errno != ENOENT)
		return -errno;
	err = family_retire(f, r);
	if (err)
		return err;
	if (c->state_file)
		c->persisted_open--;
	c->retired_total++;
	return 0;
}

static int retire(struct collect *c, struct family *f)
{
	uint32_t pos = 0, marks = 0, finished = 0;
	struct raw *r;
	int err;

	if (c->maps.retire_prog < 0 || c->maps.retire_request < 0)
		return 0;
	while ((r = table_next(&f->raws, &pos))) {
		if (r->state != RAW_LIVE) {
			if (finished >= COLLECT_RETIRE_PER_TICK ||
			    c->now_ns < r->marked_ns + COLLECT_SETTLE_NS)
				continue;
			finished++;
			err = finish(c, f, r);
			if (err)
				return err;
		} else if (marks < COLLECT_RETIRE_PER_TICK &&
			   c->now_ns >= r->changed_ns + c->retire_after_ns &&
			   !(f->ops->stays && f->ops->stays(r->key)) && !sibling_marked(f, r)) {
			marks++;
			err = mark(c, f, r);
			if (err && err != -ENOENT)
				return err;
		}
	}
	family_fold(f, COLLECT_RETIRED_MAX);
	return 0;
}

int collect_tick(struct collect *c, uint64_t boot_ns)
{
	int err = 0, e;

	c->backlog = !c->tick;
	c->tick++;
	c->now_ns = boot_ns;
#define STEP(call)               \
	do {                     \
		e = (call);      \
		if (e && !err)   \
			err = e; \
	} while (0)
	STEP(map_walk_run(&c->workloads.walk, names_seen, &c->workloads));
	if (c->tick % COLLECT_NAMES_EVERY == 1) {
		STEP(map_walk_run(&c->peers.walk, names_seen, &c->peers));
		STEP(map_walk_run(&c->routes.walk, names_seen, &c->routes));
	}
	STEP(family_read(&c->series, c->tick, boot_ns, c->backlog));
	STEP(family_read(&c->conns, c->tick, boot_ns, c->backlog));
	STEP(map_walk_run(&c->listeners, listener_seen, c));
	STEP(map_walk_run(&c->syscalls, syscall_seen, c));
	STEP(map_walk_run(&c->syscall_errors, error_seen, c));
	STEP(read_drops(c));
	if (c->backlog && !err) {
		pending_apply(c);
		STEP(state_rewrite(c));
	} else if (c->pending && !err) {
		pending_apply(c);
	}
	if (err)
		return err;
	STEP(retire(c, &c->series));
	STEP(retire(c, &c->conns));
	if (c->state_file &&
	    (c->state_fd < 0 || c->state_records > 2ull * (c->series.retired + c->conns.retired) +
						       COLLECT_COMPACT_SLACK))
		STEP(state_rewrite(c));
#undef STEP
	return err;
}

/* Figures about itself. */

static void stat_retired(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((struct collect *)ctx)->retired_total);
}

static void stat_folded(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct collect *c = ctx;

	emit(emit_ctx, "", (double)(c->series.folded + c->conns.folded));
}

static void stat_untracked(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct collect *c = ctx;

	emit(emit_ctx, "", (double)(c->untracked + c->series.untracked + c->conns.untracked));
}

static void stat_state_errors(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((struct collect *)ctx)->state_errors);
}

static void stat_malformed(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct collect *c = ctx;

	emit(emit_ctx, "", c->ring ? (double)ring_malformed(c->ring) : 0);
}

static const struct {
	const char *name, *help;
	void (*fn)(void *ctx, selfstat_emit_fn emit, void *emit_ctx);
} collect_stats[] = {
    {"kilter_series_retired_total", "Idle series moved out of the kernel's maps.", stat_retired},
    {"kilter_series_folded_total", "Retired series merged into one without route and peer.",
     stat_folded},
    {"kilter_collect_untracked_total", "Readings that found no room in the daemon's tables.",
     stat_untracked},
    {"kilter_collect_state_errors_total", "Failed writes of the file of retired totals.",
     stat_state_errors},
    {"kilter_events_malformed_total", "Ring buffer records whose size did not fit their type.",
     stat_malformed},
};
_Static_assert(sizeof(collect_stats) / sizeof(collect_stats[0]) ==
		   sizeof(((struct collect *)0)->stats) / sizeof(struct selfstat),
	       "one slot per row");

static int open_maps(struct collect *c, bool batch)
{
	const struct collect_maps *m = &c->maps;
	int err = names_init(c, &c->workloads, m->workloads, sizeof(struct kilter_workload),
			     KILTER_WORKLOADS_MAX, workload_fn);

	if (!err)
		err = names_init(c, &c->peers, m->peers, sizeof(struct kilter_peer),
				 KILTER_PEERS_MAX, peer_fn);
	if (!err)
		err = names_init(c, &c->routes, m->routes, sizeof(struct kilter_route),
				 KILTER_ROUTES_MAX, route_fn);
	if (!err)
		err =
		    family_init(&c->series, &family_series, m->series, series_moved, series_new, c);
	if (!err)
		err = family_init(&c->conns, &family_conns, m->conns, conn_moved, conn_new, c);
	if (!err)
		err = map_walk_init(&c->listeners, m->listeners, sizeof(struct kilter_listener_key),
				    sizeof(struct kilter_listener));
	if (!err)
		err = map_walk_init(&c->syscalls, m->syscalls, sizeof(struct kilter_syscall_key),
				    sizeof(struct kilter_syscall));
	if (!err)
		err = map_walk_init(&c->syscall_errors, m->syscall_errors,
				    sizeof(struct kilter_syscall_error_key), sizeof(uint64_t));
	{
		struct map_walk *walks[] = {
		    &c->workloads.walk, &c->peers.walk, &c->routes.walk, &c->series.walk,
		    &c->conns.walk,	&c->listeners,	&c->syscalls,	 &c->syscall_errors,
		};

		for (size_t i = 0; i < sizeof(walks) / sizeof(walks[0]); i++)
			walks[i]->no_batch = !batch;
	}
	table_init(&c->syscall_table, sizeof(struct kilter_syscall_key),
		   sizeof(struct syscall_entry), KILTER_SYSCALLS_MAX);
	table_init(&c->error_table, sizeof(struct kilter_syscall_error_key),
		   sizeof(struct error_entry), KILTER_SYSCALL_ERRORS_MAX);
	return err;
}

int collect_new(struct collect **ret, const struct config *cfg, const struct collect_maps *maps,
		const struct collect_sink *sink, const char *state_file, collect_event_fn on_event,
		void *ctx)
{
	struct collect *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->maps = *maps;
	if (sink)
		c->sink = *sink;
	c->retire_after_ns = cfg->retire_after_ns;
	c->state_fd = -1;
	err = open_maps(c, cfg->kernel.map_batch);
	if (err)
		goto fail;
	c->cpus = libbpf_num_possible_cpus();
	if (c->cpus < 0) {
		err = c->cpus;
		goto fail;
	}
	c->cpu_values = calloc((size_t)c->cpus, sizeof(uint64_t));
	if (!c->cpu_values) {
		err = -ENOMEM;
		goto fail;
	}
	if (maps->events >= 0) {
		err = ring_new(&c->ring, maps->events, on_event, ctx);
		if (err)
			goto fail;
	}
	if (state_file) {
		c->state_file = strdup(state_file);
		err = c->state_file ? state_origin_read(&c->origin, maps->series, maps->conns)
				    : -ENOMEM;
		if (!err)
			err = state_load(state_file, &c->origin, pending_add, c);
		if (err)
			goto fail;
	}
	for (size_t i = 0; i < sizeof(collect_stats) / sizeof(collect_stats[0]); i++) {
		c->stats[i] = (struct selfstat){.name = collect_stats[i].name,
						.help = collect_stats[i].help,
						.type = SELFSTAT_COUNTER,
						.collect = collect_stats[i].fn,
						.ctx = c};
		selfstat_register(&c->stats[i]);
	}
	*ret = c;
	return 0;
fail:
	collect_free(&c);
	return err;
}

void collect_free(struct collect **cp)
{
	struct collect *c = *cp;
	struct pending *next;

	if (!c)
		return;
	for (size_t i = 0; i < sizeof(c->stats) / sizeof(c->stats[0]); i++)
		if (c->stats[i].collect)
			selfstat_unregister(&c->stats[i]);
	for (struct pending *p = c->pending; p; p = next) {
		next = p->next;
		free(p);
	}
	if (c->series.ops)
		family_done(&c->series);
	if (c->conns.ops)
		family_done(&c->conns);
	table_done(&c->workloads.known);
	table_done(&c->peers.known);
	table_done(&c->routes.known);
	table_done(&c->syscall_table);
	table_done(&c->error_table);
	ring_free(&c->ring);
	cleanup_close(&c->state_fd);
	free(c->state_file);
	free(c->cpu_values);
	free(c);
	*cp = NULL;
}

int collect_events_fd(const struct collect *c)
{
	return c->ring ? ring_fd(c->ring) : -1;
}

int collect_drain_events(struct collect *c)
{
	return c->ring ? ring_drain(c->ring) : 0;
}

static bool counted_any(const struct collect_series *s)
{
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		if (s->classic[i])
			return true;
	return false;
}

void collect_each_series(const struct collect *c,
			 void (*fn)(void *ctx, const struct collect_series *s), void *ctx)
{
	struct collect_series total;
	const struct merged *m;
	uint32_t pos = 0;

	while ((m = table_next(&c->series.merged, &pos))) {
		family_total(&c->series, m, &total);
		if (kilter_series_is_overflow(&total.key) && !counted_any(&total))
			continue; /* all is well: nothing to tell */
		fn(ctx, &total);
	}
}

void collect_each_conn(const struct collect *c, void (*fn)(void *ctx, const struct collect_conn *s),
		       void *ctx)
{
	struct collect_conn total;
	const struct merged *m;
	uint32_t pos = 0;

	while ((m = table_next(&c->conns.merged, &pos))) {
		family_total(&c->conns, m, &total);
		fn(ctx, &total);
	}
}

void collect_each_syscall(const struct collect *c,
			  void (*fn)(void *ctx, const struct collect_syscall *s), void *ctx)
{
	const struct syscall_entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&c->syscall_table, &pos))) {
		struct collect_syscall s = {.key = e->key, .total = e->total};

		fn(ctx, &s);
	}
}

void collect_each_syscall_error(const struct collect *c,
				void (*fn)(void *ctx, const struct kilter_syscall_error_key *k,
					   uint64_t total),
				void *ctx)
{
	const struct error_entry *e;
	uint32_t pos = 0;

	while ((e = table_next(&c->error_table, &pos)))
		fn(ctx, &e->key, e->total);
}

void collect_reconfigure(struct collect *c, const struct config *cfg)
{
	c->retire_after_ns = cfg->retire_after_ns;
}

uint64_t collect_drop_total(const struct collect *c, enum kilter_drop d)
{
	return (unsigned int)d < KILTER_DROP_MAX ? c->drops[d] : 0;
}

uint64_t collect_drop_delta(const struct collect *c, enum kilter_drop d)
{
	return (unsigned int)d < KILTER_DROP_MAX ? c->drops_delta[d] : 0;
}

unsigned int collect_map_stats(const struct collect *c, struct collect_map_stat *ret,
			       unsigned int max)
{
	const struct {
		const char *map;
		const struct map_walk *w;
	} rows[] = {
	    {"workloads", &c->workloads.walk}, {"peers", &c->peers.walk},
	    {"routes", &c->routes.walk},       {"series", &c->series.walk},
	    {"conns", &c->conns.walk},	       {"listeners", &c->listeners},
	    {"syscalls", &c->syscalls},	       {"syscall_errors", &c->syscall_errors},
	};
	unsigned int n = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && n < max; i++)
		if (rows[i].w->fd >= 0)
			ret[n++] = (struct collect_map_stat){.map = rows[i].map,
							     .entries = rows[i].w->entries,
							     .max_entries = rows[i].w->max_entries};
	return n;
}
