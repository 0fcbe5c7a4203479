// SPDX-License-Identifier: Apache-2.0
#include "model/window.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

const uint64_t model_span_ns[MODEL_SPANS] = {
    [MODEL_10S] = 10 * NS_PER_SEC,
    [MODEL_1M] = 60 * NS_PER_SEC,
    [MODEL_5M] = 300 * NS_PER_SEC,
    [MODEL_1H] = 3600 * NS_PER_SEC,
};

static const struct {
	unsigned int first, count;
	uint64_t slot_ns;
} levels[MODEL_SPANS] = {
    [MODEL_10S] = {0, 10, NS_PER_SEC},
    [MODEL_1M] = {10, 6, 10 * NS_PER_SEC},
    [MODEL_5M] = {16, 5, 60 * NS_PER_SEC},
    [MODEL_1H] = {21, 12, 300 * NS_PER_SEC},
};

/* Counts of the used range of buckets only: a service's latencies span a few octaves. */
struct sparse {
	uint32_t *counts;
	uint16_t first, len;
};

struct red_slot {
	uint64_t number, requests, errors, sum_ns;
	struct sparse hist;
};

struct window_red {
	struct red_slot pending;
	bool dirty;
	struct red_slot slots[WINDOW_SLOTS];
};

struct tcp_slot {
	uint64_t number, bytes_in, bytes_out;
	uint32_t opened, closed, retransmits, resets, attempts;
	uint32_t failed[KILTER_CONNECT_FAILURES];
	uint32_t connect_hist[KILTER_FINE_BUCKETS];
};

struct window_tcp {
	struct tcp_slot pending;
	bool dirty;
	struct tcp_slot slots[WINDOW_SLOTS];
};

static uint64_t slot_number(unsigned int level, uint64_t ns)
{
	return ns / levels[level].slot_ns;
}

static unsigned int slot_index(unsigned int level, uint64_t number)
{
	return levels[level].first + (unsigned int)(number % levels[level].count);
}

/* Slot `number` is in the window that ends with slot `head`. */
static bool in_window(unsigned int level, uint64_t number, uint64_t head)
{
	return number <= head && number + levels[level].count > head;
}

void window_clock_tick(struct window_clock *c, uint64_t now_ns)
{
	uint64_t took = c->now_ns && now_ns > c->now_ns ? now_ns - c->now_ns : 0;
	uint64_t head_back = took < c->tick_ns || !c->tick_ns ? took : c->tick_ns;

	if (now_ns < c->now_ns)
		now_ns = c->now_ns;
	c->now_ns = now_ns;
	c->data_ns = now_ns - took / 2;
	c->head_ns = now_ns - head_back / 2;
	for (unsigned int l = 0; l < MODEL_SPANS; l++) {
		uint64_t number = slot_number(l, c->data_ns);
		unsigned int i = slot_index(l, number);

		if (c->slots[i].number != number) {
			c->slots[i].number = number;
			c->slots[i].watched_ns = 0;
		}
		c->slots[i].watched_ns += took;
	}
}

uint64_t window_covered_ns(const struct window_clock *c, enum model_span span)
{
	uint64_t head = slot_number(span, c->head_ns), sum = 0;

	for (unsigned int i = 0; i < levels[span].count; i++) {
		unsigned int at = levels[span].first + i;

		if (in_window(span, c->slots[at].number, head))
			sum += c->slots[at].watched_ns;
	}
	return sum;
}

static uint32_t add_u32(uint32_t a, uint64_t b)
{
	return b > UINT32_MAX - a ? UINT32_MAX : a + (uint32_t)b;
}

static int sparse_reserve(struct sparse *s, unsigned int first, unsigned int end)
{
	uint32_t *counts;

	if (s->len) {
		if (first >= s->first && end <= s->first + (unsigned int)s->len)
			return 0;
		if (s->first < first)
			first = s->first;
		if (s->first + (unsigned int)s->len > end)
			end = s->first + (unsigned int)s->len;
	}
	counts = calloc(end - first, sizeof(*counts));
	if (!counts)
		return -ENOMEM;
	if (s->len)
		memcpy(counts + (s->first - first), s->counts, s->len * sizeof(*counts));
	free(s->counts);
	s->counts = counts;
	s->first = (uint16_t)first;
	s->len = (uint16_t)(end - first);
	return 0;
}

static int sparse_add(struct sparse *s, const uint32_t *counts, unsigned int first,
		      unsigned int len)
{
	int err;

	while (len && !counts[0]) {
		counts++;
		first++;
		len--;
	}
	while (len && !counts[len - 1])
		len--;
	if (!len)
		return 0;
	err = sparse_reserve(s, first, first + len);
	if (err)
		return err;
	for (unsigned int i = 0; i < len; i++)
		s->counts[first - s->first + i] =
		    add_u32(s->counts[first - s->first + i], counts[i]);
	return 0;
}

static void red_slot_clear(struct red_slot *s)
{
	free(s->hist.counts);
	memset(s, 0, sizeof(*s));
}

int window_red_new(struct window_red **ret)
{
	struct window_red *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*ret = w;
	return 0;
}

void window_red_free(struct window_red **w)
{
	if (!*w)
		return;
	for (unsigned int i = 0; i < WINDOW_SLOTS; i++)
		free((*w)->slots[i].hist.counts);
	free((*w)->pending.hist.counts);
	free(*w);
	*w = NULL;
}

int window_tcp_new(struct window_tcp **ret)
{
	struct window_tcp *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*ret = w;
	return 0;
}

void window_tcp_free(struct window_tcp **w)
{
	free(*w);
	*w = NULL;
}

int window_red_add(struct window_red *w, const struct window_red_delta *d)
{
	w->dirty = true;
	w->pending.requests += d->requests;
	w->pending.errors += d->errors;
	w->pending.sum_ns += d->sum_ns;
	return sparse_add(&w->pending.hist, d->exp, 0, KILTER_EXP_BUCKETS);
}

int window_tcp_add(struct window_tcp *w, const struct kilter_conn *d, bool client)
{
	struct tcp_slot *p = &w->pending;

	w->dirty = true;
	p->opened = add_u32(p->opened, d->opened);
	p->closed = add_u32(p->closed, d->closed);
	p->retransmits = add_u32(p->retransmits, d->retransmits);
	p->resets = add_u32(p->resets, d->resets_in + d->resets_out);
	p->bytes_in += d->bytes_in;
	p->bytes_out += d->bytes_out;
	if (client)
		p->attempts = add_u32(p->attempts, d->opened);
	for (int i = 0; i < KILTER_CONNECT_FAILURES; i++) {
		p->failed[i] = add_u32(p->failed[i], d->failed[i]);
		p->attempts = add_u32(p->attempts, d->failed[i]);
	}
	for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
		p->connect_hist[i] = add_u32(p->connect_hist[i], d->connect_hist[i]);
	return 0;
}

int window_red_settle(struct window_red *w, const struct window_clock *c)
{
	int err = 0;

	if (!w->dirty)
		return 0;
	for (unsigned int l = 0; l < MODEL_SPANS; l++) {
		uint64_t number = slot_number(l, c->data_ns);
		struct red_slot *s = &w->slots[slot_index(l, number)];
		int e;

		if (s->number != number) {
			red_slot_clear(s);
			s->number = number;
		}
		s->requests += w->pending.requests;
		s->errors += w->pending.errors;
		s->sum_ns += w->pending.sum_ns;
		e = sparse_add(&s->hist, w->pending.hist.counts, w->pending.hist.first,
			       w->pending.hist.len);
		if (e)
			err = e;
	}
	red_slot_clear(&w->pending);
	w->dirty = false;
	return err;
}

static void tcp_slot_add(struct tcp_slot *s, const struct tcp_slot *d)
{
	s->bytes_in += d->bytes_in;
	s->bytes_out += d->bytes_out;
	s->opened = add_u32(s->opened, d->opened);
	s->closed = add_u32(s->closed, d->closed);
	s->retransmits = add_u32(s->retransmits, d->retransmits);
	s->resets = add_u32(s->resets, d->resets);
	s->attempts = add_u32(s->attempts, d->attempts);
	for (int i = 0; i < KILTER_CONNECT_FAILURES; i++)
		s->failed[i] = add_u32(s->failed[i], d->failed[i]);
	for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
		s->connect_hist[i] = add_u32(s->connect_hist[i], d->connect_hist[i]);
}

void window_tcp_settle(struct window_tcp *w, const struct window_clock *c)
{
	if (!w->dirty)
		return;
	for (unsigned int l = 0; l < MODEL_SPANS; l++) {
		uint64_t number = slot_number(l, c->data_ns);
		struct tcp_slot *s = &w->slots[slot_index(l, number)];

		if (s->number != number) {
			memset(s, 0, sizeof(*s));
			s->number = number;
		}
		tcp_slot_add(s, &w->pending);
	}
	memset(&w->pending, 0, sizeof(w->pending));
	w->dirty = false;
}

void window_red_read(const struct window_red *w, const struct window_clock *c, enum model_span span,
		     struct model_red *ret)
{
	uint64_t head = slot_number(span, c->head_ns), covered = window_covered_ns(c, span);
	static const double quantiles[] = {0.50, 0.95, 0.99};
	uint64_t counts[KILTER_EXP_BUCKETS], sum_ns = 0;
	unsigned int first = KILTER_EXP_BUCKETS, end = 0;
	double values[3];

	memset(ret, 0, sizeof(*ret));
	for (unsigned int i = 0; w && i < levels[span].count; i++) {
		const struct red_slot *s = &w->slots[levels[span].first + i];

		if (!s->hist.len || !in_window(span, s->number, head))
			continue;
		first = s->hist.first < first ? s->hist.first : first;
		if (s->hist.first + (unsigned int)s->hist.len > end)
			end = s->hist.first + (unsigned int)s->hist.len;
	}
	/* Most services use a few buckets of the many, and this is read for each edge and span. */
	if (first < end)
		memset(counts + first, 0, (end - first) * sizeof(*counts));
	for (unsigned int i = 0; w && i < levels[span].count; i++) {
		const struct red_slot *s = &w->slots[levels[span].first + i];

		if (!in_window(span, s->number, head))
			continue;
		ret->requests += s->requests;
		ret->errors += s->errors;
		sum_ns += s->sum_ns;
		for (unsigned int b = 0; b < s->hist.len; b++)
			counts[s->hist.first + b] += s->hist.counts[b];
	}
	/* A late tick may cover more than the span: the rate is over what was counted. */
	ret->covered_ns = covered < model_span_ns[span] ? covered : model_span_ns[span];
	ret->rate = covered ? (double)ret->requests * 1e9 / (double)covered : 0;
	ret->error_ratio = ret->requests ? (double)ret->errors / (double)ret->requests : NAN;
	ret->mean = ret->requests ? (double)sum_ns / 1e9 / (double)ret->requests : NAN;
	hist_quantiles(counts, first, end, quantiles, 3, values);
	ret->p50 = values[0];
	ret->p95 = values[1];
	ret->p99 = values[2];
}

/* Linear within the bucket, as Prometheus' histogram_quantile() does it. */
static double fine_quantile(const uint64_t *counts, double q)
{
	uint64_t total = 0;
	double rank, below = 0;

	for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
		total += counts[i];
	if (!total)
		return NAN;
	rank = q * (double)total;
	for (int i = 0; i < KILTER_FINE_BOUNDS; i++) {
		double low = i ? hist_fine_bounds[i - 1] : 0;

		if (counts[i] && below + (double)counts[i] >= rank)
			return low +
			       (hist_fine_bounds[i] - low) * (rank - below) / (double)counts[i];
		below += (double)counts[i];
	}
	return hist_fine_bounds[KILTER_FINE_BOUNDS - 1];
}

void window_tcp_read(const struct window_tcp *w, const struct window_clock *c, enum model_span span,
		     struct model_tcp *ret)
{
	uint64_t head = slot_number(span, c->head_ns), covered = window_covered_ns(c, span);
	uint64_t hist[KILTER_FINE_BUCKETS] = {0};

	memset(ret, 0, sizeof(*ret));
	for (unsigned int i = 0; w && i < levels[span].count; i++) {
		const struct tcp_slot *s = &w->slots[levels[span].first + i];

		if (!in_window(span, s->number, head))
			continue;
		ret->opened += s->opened;
		ret->closed += s->closed;
		ret->retransmits += s->retransmits;
		ret->resets += s->resets;
		ret->bytes_in += s->bytes_in;
		ret->bytes_out += s->bytes_out;
		ret->connect_attempts += s->attempts;
		for (int f = 0; f < KILTER_CONNECT_FAILURES; f++)
			ret->failed[f] += s->failed[f];
		for (int b = 0; b < KILTER_FINE_BUCKETS; b++)
			hist[b] += s->connect_hist[b];
	}
	ret->covered_ns = covered < model_span_ns[span] ? covered : model_span_ns[span];
	ret->connect_p95 = fine_quantile(hist, 0.95);
}
