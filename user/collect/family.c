// SPDX-License-Identifier: Apache-2.0
#include "collect/family.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Two programs may both stamp a new entry (see bpf/lib/series.h): stamps this close to one
 * another are of one life, for a life lasts at least a tick. */
#define FAMILY_SAME_LIFE_NS 10000000ull

static uint64_t grown(uint64_t prev, uint64_t now)
{
	return now > prev ? now - prev : 0;
}

static bool series_delta(const void *prev, const void *now, void *delta)
{
	const struct kilter_series *p = prev, *n = now;
	struct kilter_series *d = delta;
	uint64_t any;

	d->created_ns = n->created_ns;
	d->retiring = n->retiring;
	d->pad = 0;
	d->sum_ns = grown(p->sum_ns, n->sum_ns);
	d->bytes_in = grown(p->bytes_in, n->bytes_in);
	d->bytes_out = grown(p->bytes_out, n->bytes_out);
	any = d->sum_ns | d->bytes_in | d->bytes_out;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		any |= d->classic[i] = grown(p->classic[i], n->classic[i]);
	for (int i = 0; i < KILTER_EXP_BUCKETS; i++)
		any |= d->exp[i] = n->exp[i] - p->exp[i];
	return any;
}

static void series_add(void *total, const void *value)
{
	struct collect_series *t = total;
	const struct kilter_series *v = value;

	t->sum_ns += v->sum_ns;
	t->bytes_in += v->bytes_in;
	t->bytes_out += v->bytes_out;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		t->classic[i] += v->classic[i];
	for (int i = 0; i < KILTER_EXP_BUCKETS; i++)
		t->exp[i] += v->exp[i];
}

static void series_add_total(void *total, const void *other)
{
	struct collect_series *t = total;
	const struct collect_series *o = other;

	t->sum_ns += o->sum_ns;
	t->bytes_in += o->bytes_in;
	t->bytes_out += o->bytes_out;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		t->classic[i] += o->classic[i];
	for (int i = 0; i < KILTER_EXP_BUCKETS; i++)
		t->exp[i] += o->exp[i];
}

static bool series_wrapped(const void *prev, const void *now)
{
	const struct kilter_series *p = prev, *n = now;

	for (int i = 0; i < KILTER_EXP_BUCKETS; i++)
		if (n->exp[i] < p->exp[i])
			return true;
	return false;
}

static void series_carry(void *total, const void *prev, const void *now)
{
	const struct kilter_series *p = prev, *n = now;
	struct collect_series *t = total;

	for (int i = 0; i < KILTER_EXP_BUCKETS; i++)
		if (n->exp[i] < p->exp[i])
			t->exp[i] += 1ull << 32;
}

static bool series_fold_key(void *key)
{
	struct kilter_series_key *k = key;

	if (!k->route && !k->peer && k->method == KILTER_METHOD_OTHER)
		return false;
	k->route = 0;
	k->peer = 0;
	k->method = KILTER_METHOD_OTHER;
	return true;
}

static bool series_stays(const void *key)
{
	return kilter_series_is_overflow(key);
}

#define CONN_FIRST (offsetof(struct kilter_conn, opened) / 8)
#define CONN_WORDS (sizeof(struct kilter_conn) / 8)

static bool conn_delta(const void *prev, const void *now, void *delta)
{
	const uint64_t *p = prev, *n = now;
	uint64_t *d = delta, any = 0;

	memcpy(d, n, CONN_FIRST * 8);
	for (size_t i = CONN_FIRST; i < CONN_WORDS; i++)
		any |= d[i] = grown(p[i], n[i]);
	return any;
}

static void conn_add(void *total, const void *value)
{
	uint64_t *t = (uint64_t *)(void *)&((struct collect_conn *)total)->total;
	const uint64_t *v = value;

	for (size_t i = CONN_FIRST; i < CONN_WORDS; i++)
		t[i] += v[i];
}

static void conn_add_total(void *total, const void *other)
{
	conn_add(total, &((const struct collect_conn *)other)->total);
}

static bool conn_fold_key(void *key)
{
	struct kilter_conn_key *k = key;

	if (!k->peer)
		return false;
	k->peer = 0;
	return true;
}

const struct family_ops family_series = {
    .name = "series",
    .map = KILTER_RETIRE_SERIES,
    .key_size = sizeof(struct kilter_series_key),
    .value_size = sizeof(struct kilter_series),
    .total_size = sizeof(struct collect_series),
    .shard_at = offsetof(struct kilter_series_key, shard),
    .retiring_at = offsetof(struct kilter_series, retiring),
    .delta = series_delta,
    .add = series_add,
    .add_total = series_add_total,
    .carry = series_carry,
    .wrapped = series_wrapped,
    .stays = series_stays,
    .fold_key = series_fold_key,
};

const struct family_ops family_conns = {
    .name = "conns",
    .map = KILTER_RETIRE_CONN,
    .key_size = sizeof(struct kilter_conn_key),
    .value_size = sizeof(struct kilter_conn),
    .total_size = sizeof(struct collect_conn),
    .shard_at = offsetof(struct kilter_conn_key, shard),
    .retiring_at = offsetof(struct kilter_conn, retiring),
    .delta = conn_delta,
    .add = conn_add,
    .add_total = conn_add_total,
    .fold_key = conn_fold_key,
};

_Static_assert(sizeof(struct kilter_series_key) <= FAMILY_KEY_MAX, "fits");
_Static_assert(offsetof(struct collect_series, key) == 0, "a total begins with its key");
_Static_assert(offsetof(struct collect_conn, key) == 0, "a total begins with its key");

int family_init(struct family *f, const struct family_ops *ops, int fd, family_delta_fn on_delta,
		void (*on_new)(void *ctx, const void *key), void *ctx)
{
	uint32_t max = KILTER_SERIES_MAX;
	int err;

	memset(f, 0, sizeof(*f));
	f->ops = ops;
	f->on_delta = on_delta;
	f->on_new = on_new;
	f->ctx = ctx;
	err = map_walk_init(&f->walk, fd, ops->key_size, ops->value_size);
	if (err)
		return err;
	if (f->walk.max_entries)
		max = f->walk.max_entries;
	/* The kernel's map bounds both; retired series have a bound of their own on top. */
	table_init(&f->raws, ops->key_size, sizeof(struct raw) + ops->value_size, max);
	table_init(&f->merged, ops->key_size, sizeof(struct merged), 2 * max);
	f->delta = calloc(1, ops->value_size);
	return f->delta ? 0 : -ENOMEM;
}

void family_done(struct family *f)
{
	struct merged *m;
	uint32_t pos = 0;

	while ((m = table_next(&f->merged, &pos)))
		free(m->base);
	table_done(&f->merged);
	table_done(&f->raws);
	free(f->delta);
	f->delta = NULL;
}

static struct merged *merged_get(struct family *f, const void *key)
{
	unsigned char k[FAMILY_KEY_MAX] = {0};
	struct merged *m;

	memcpy(k, key, f->ops->key_size);
	k[f->ops->shard_at] = 0;
	m = table_find(&f->merged, k);
	return m ? m : table_add(&f->merged, k);
}

static void *merged_base(struct family *f, struct merged *m)
{
	if (!m->base) {
		m->base = calloc(1, f->ops->total_size);
		if (m->base)
			memcpy(m->base, m->key, f->ops->key_size);
	}
	return m->base;
}

static struct raw *raw_add(struct family *f, const void *key)
{
	struct merged *m = merged_get(f, key);
	struct raw *r;

	if (!m)
		return NULL;
	r = table_add(&f->raws, key);
	if (!r) {
		if (!m->live && !m->base)
			table_remove(&f->merged, m);
		return NULL;
	}
	if (!m->live && m->base)
		f->retired--;
	m->live++;
	r->merged = m;
	r->next = m->raws;
	m->raws = r;
	r->changed_ns = f->now_ns;
	if (f->on_new)
		f->on_new(f->ctx, key);
	return r;
}

static void raw_remove(struct family *f, struct raw *r)
{
	struct merged *m = r->merged;

	for (struct raw **p = &m->raws; *p; p = &(*p)->next)
		if (*p == r) {
			*p = r->next;
			break;
		}
	if (!--m->live) {
		m->retired_ns = f->now_ns;
		f->retired++;
	}
	table_remove(&f->raws, r);
}

int family_retire(struct family *f, struct raw *r)
{
	void *base = merged_base(f, r->merged);

	if (!base)
		return -ENOMEM;
	f->ops->add(base, r->value);
	raw_remove(f, r);
	return 0;
}

static bool other_life(uint64_t a, uint64_t b)
{
	return a && b && (a > b ? a - b : b - a) > FAMILY_SAME_LIFE_NS;
}

void family_observe(struct family *f, const void *key, const void *value)
{
	struct raw *r = table_find(&f->raws, key);
	uint32_t retiring;

	f->seen++;
	if (r && other_life(r->value[0], *(const uint64_t *)value)) {
		/* Someone else deleted it, and it came back: nothing of either life is lost. */
		if (family_retire(f, r)) {
			f->untracked++;
			return;
		}
		r = NULL;
	}
	if (!r)
		r = raw_add(f, key);
	if (!r) {
		f->untracked++;
		return;
	}
	r->seen_tick = f->tick;
	if (!memcmp(r->value, value, f->ops->value_size))
		return;
	memcpy(&retiring, (const char *)value + f->ops->retiring_at, 4);
	if (retiring && r->state == RAW_LIVE) { /* also: marked before a restart */
		r->state = RAW_MARKED;
		r->marked_ns = f->now_ns;
	}
	if (f->ops->delta(r->value, value, f->delta)) {
		if (f->ops->wrapped && f->ops->wrapped(r->value, value)) {
			void *base = merged_base(f, r->merged);

			if (base)
				f->ops->carry(base, r->value, value);
			else
				f->untracked++;
		}
		r->changed_ns = f->now_ns;
		if (f->on_delta)
			f->on_delta(f->ctx, r->merged->key, f->delta, f->backlog);
	}
	memcpy(r->value, value, f->ops->value_size);
}

static void observe(void *ctx, const void *key, const void *value)
{
	family_observe(ctx, key, value);
}

int family_read(struct family *f, uint64_t tick, uint64_t now_ns, bool backlog)
{
	uint32_t pos = 0;
	struct raw *r;
	int err;

	f->tick = tick;
	f->now_ns = now_ns;
	f->backlog = backlog;
	f->seen = 0;
	err = map_walk_run(&f->walk, observe, f);
	if (err)
		return err;
	if (f->seen >= f->raws.count)
		return 0;
	/* Entries that left the kernel without us: their last reading is what is known. */
	while ((r = table_next(&f->raws, &pos)))
		if (r->seen_tick != tick && family_retire(f, r))
			f->untracked++;
	return 0;
}

int family_restore(struct family *f, const void *total)
{
	struct merged *m = merged_get(f, total);
	bool fresh;
	void *base;

	if (!m)
		return -ENOSPC;
	fresh = !m->base && !m->live;
	base = merged_base(f, m);
	if (!base) {
		if (fresh)
			table_remove(&f->merged, m);
		return -ENOMEM;
	}
	if (fresh) {
		m->retired_ns = f->now_ns;
		f->retired++;
	}
	f->ops->add_total(base, total);
	return 0;
}

void family_total(const struct family *f, const struct merged *m, void *total)
{
	if (m->base) {
		memcpy(total, m->base, f->ops->total_size);
	} else {
		memset(total, 0, f->ops->total_size);
		memcpy(total, m->key, f->ops->key_size);
	}
	for (const struct raw *r = m->raws; r; r = r->next)
		f->ops->add(total, r->value);
}

static int by_age(const void *a, const void *b)
{
	const struct merged *x = *(struct merged *const *)a, *y = *(struct merged *const *)b;

	return x->retired_ns < y->retired_ns ? -1 : x->retired_ns > y->retired_ns;
}

void family_fold(struct family *f, uint32_t max)
{
	struct merged **list, *m;
	uint32_t n = 0, pos = 0;

	if (f->retired <= max)
		return;
	list = reallocarray(NULL, f->retired, sizeof(struct merged *));
	if (!list)
		return; /* tried again next tick */
	while ((m = table_next(&f->merged, &pos)) && n < f->retired) {
		unsigned char key[FAMILY_KEY_MAX];

		memcpy(key, m->key, sizeof(key));
		if (!m->live && m->base && f->ops->fold_key(key))
			list[n++] = m;
	}
	qsort(list, n, sizeof(struct merged *), by_age);
	/* An eighth more than needed, so that the next retirements do not sort again. */
	for (uint32_t i = 0; i < n && f->retired > max - max / 8; i++) {
		struct merged *to;
		void *base;

		m = list[i];
		f->ops->fold_key(m->base);
		to = merged_get(f, m->base);
		if (!to)
			break;
		if (!to->base && !to->live) {
			to->retired_ns = f->now_ns;
			f->retired++;
		}
		base = merged_base(f, to);
		if (!base)
			break;
		f->ops->add_total(base, m->base);
		free(m->base);
		table_remove(&f->merged, m);
		f->retired--;
		f->folded++;
	}
	free(list);
}
