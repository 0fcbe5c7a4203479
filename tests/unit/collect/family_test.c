// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "collect/family.h"
#include "collect/ring.h"

#include <cmocka.h>

static struct kilter_series last_delta;
static unsigned int deltas;

static void on_delta(void *ctx, const void *key, const void *delta, bool backlog)
{
	(void)ctx;
	(void)backlog;
	assert_int_equal(((const struct kilter_series_key *)key)->shard, 0);
	memcpy(&last_delta, delta, sizeof(last_delta));
	deltas++;
}

static void start(struct family *f)
{
	assert_int_equal(family_init(f, &family_series, -1, on_delta, NULL, NULL), 0);
	f->tick = 1;
	f->now_ns = 1000;
	deltas = 0;
}

static void total_of(struct family *f, struct collect_series *ret)
{
	uint32_t pos = 0;
	struct merged *m = table_next(&f->merged, &pos);

	assert_non_null(m);
	family_total(f, m, ret);
}

static void shards_add_up_and_only_what_moved_is_told(void **state)
{
	struct kilter_series_key k = {.workload = 1, .role = KILTER_ROLE_SERVER};
	struct kilter_series v = {.created_ns = 5, .sum_ns = 10, .classic = {2}};
	struct collect_series t;
	struct family f;

	(void)state;
	start(&f);
	family_observe(&f, &k, &v);
	k.shard = 3;
	family_observe(&f, &k, &v);
	assert_int_equal(deltas, 2);
	family_observe(&f, &k, &v);
	assert_int_equal(deltas, 2);
	v.classic[0] = 5;
	family_observe(&f, &k, &v);
	assert_int_equal(last_delta.classic[0], 3);
	assert_int_equal(last_delta.sum_ns, 0);
	total_of(&f, &t);
	assert_int_equal(t.classic[0], 7);
	assert_int_equal(f.merged.count, 1);
	family_done(&f);
}

static void a_wrapped_bucket_keeps_its_total(void **state)
{
	struct kilter_series_key k = {.workload = 1};
	struct kilter_series v = {.created_ns = 5};
	struct collect_series t;
	struct family f;

	(void)state;
	start(&f);
	v.exp[7] = UINT32_MAX - 1;
	family_observe(&f, &k, &v);
	v.exp[7] = 3;
	family_observe(&f, &k, &v);
	assert_int_equal(last_delta.exp[7], 5);
	total_of(&f, &t);
	assert_true(t.exp[7] == (1ull << 32) + 3);
	family_done(&f);
}

static void a_second_life_of_a_key_adds_to_the_first(void **state)
{
	struct kilter_series_key k = {.workload = 1};
	struct kilter_series v = {.created_ns = 5, .classic = {9}};
	struct collect_series t;
	struct family f;

	(void)state;
	start(&f);
	family_observe(&f, &k, &v);
	v.created_ns = 5000000000ull;
	v.classic[0] = 4;
	family_observe(&f, &k, &v);
	assert_int_equal(last_delta.classic[0], 4);
	total_of(&f, &t);
	assert_int_equal(t.classic[0], 13);
	family_done(&f);
}

static void retired_totals_stay_and_are_folded_when_too_many(void **state)
{
	struct kilter_series v = {.created_ns = 5, .classic = {1}};
	struct collect_series t;
	struct merged *m;
	uint32_t pos = 0;
	uint64_t sum = 0;
	struct family f;

	(void)state;
	start(&f);
	for (uint32_t i = 1; i <= 100; i++) {
		struct kilter_series_key k = {.workload = 1, .route = i, .status = 200};

		family_observe(&f, &k, &v);
	}
	for (struct raw *r; (r = table_next(&f.raws, &pos));)
		assert_int_equal(family_retire(&f, r), 0);
	assert_int_equal(f.retired, 100);
	family_fold(&f, 16);
	assert_true(f.retired <= 16);
	assert_true(f.folded >= 84);
	for (pos = 0; (m = table_next(&f.merged, &pos));) {
		family_total(&f, m, &t);
		sum += t.classic[0];
	}
	assert_int_equal(sum, 100);
	family_done(&f);
}

struct item {
	struct table_node node;
	uint32_t key, value;
};

static void a_table_agrees_with_an_array_under_random_use(void **state)
{
	static uint32_t model[512];
	struct table t;

	(void)state;
	srand(7);
	table_init(&t, 4, sizeof(struct item), 300);
	for (int i = 0; i < 200000; i++) {
		uint32_t key = (uint32_t)rand() % 512;
		struct item *e = table_find(&t, &key);

		assert_int_equal(e ? e->value : 0, model[key]);
		if (e && rand() % 2) {
			table_remove(&t, e);
			model[key] = 0;
		} else if (!e) {
			e = table_add(&t, &key);
			if (!e) {
				assert_int_equal(t.count, 300);
				continue;
			}
			e->value = model[key] = (uint32_t)i + 1;
		}
	}
	table_done(&t);
}

static void a_record_of_the_wrong_size_is_refused(void **state)
{
	struct kilter_event_net net = {.h = {.type = KILTER_EVENT_CONNECT, .size = sizeof(net)}};
	union ring_event ev;

	(void)state;
	memset(net.h.comm, 'x', sizeof(net.h.comm));
	assert_int_equal(ring_check(&net, sizeof(net), &ev), 0);
	assert_int_equal(ev.h.comm[KILTER_COMM_LEN - 1], 0);
	assert_int_not_equal(ring_check(&net, sizeof(net) - 1, &ev), 0);
	assert_int_not_equal(ring_check(&net, 10, &ev), 0);
	net.h.type = 99;
	assert_int_not_equal(ring_check(&net, sizeof(net), &ev), 0);
	net.h.type = KILTER_EVENT_EXEC;
	assert_int_not_equal(ring_check(&net, sizeof(net), &ev), 0);
}

static void overflow_series_are_told_from_all_others(void **state)
{
	(void)state;
	for (unsigned int status = 0; status < 1000; status++) {
		struct kilter_series_key k = {.workload = 7,
					      .peer = 8,
					      .route = 9,
					      .status = (uint16_t)status,
					      .role = KILTER_ROLE_CLIENT,
					      .protocol = KILTER_PROTO_HTTP1,
					      .method = KILTER_METHOD_GET,
					      .shard = 3};

		assert_false(kilter_series_is_overflow(&k));
		k.workload = k.peer = k.route = 0; /* of a socket without an owner */
		k.method = KILTER_METHOD_OTHER;
		if (status >= 100)
			assert_false(kilter_series_is_overflow(&k));
		kilter_series_to_overflow(&k);
		assert_true(kilter_series_is_overflow(&k));
		assert_int_equal(k.status, status < 100 ? 1 : status > 599 ? 5 : status / 100);
		assert_int_equal(k.role, KILTER_ROLE_CLIENT);
		assert_int_equal(k.shard, 0);
		k.status = 200;
		k.error = KILTER_REQ_RESET;
		kilter_series_to_overflow(&k);
		assert_true(kilter_series_is_overflow(&k));
		assert_int_equal(k.status, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(shards_add_up_and_only_what_moved_is_told),
	    cmocka_unit_test(a_wrapped_bucket_keeps_its_total),
	    cmocka_unit_test(a_second_life_of_a_key_adds_to_the_first),
	    cmocka_unit_test(overflow_series_are_told_from_all_others),
	    cmocka_unit_test(retired_totals_stay_and_are_folded_when_too_many),
	    cmocka_unit_test(a_table_agrees_with_an_array_under_random_use),
	    cmocka_unit_test(a_record_of_the_wrong_size_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
