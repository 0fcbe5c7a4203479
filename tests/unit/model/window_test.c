// SPDX-License-Identifier: Apache-2.0
/* The edges of the windows to the second, and clocks that jump. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "model/window.h"

#include <cmocka.h>

static struct window_clock window_clock;
static struct window_red *red;
static struct window_tcp *tcp;
static uint64_t now; /* seconds */

static int setup(void **state)
{
	(void)state;
	memset(&window_clock, 0, sizeof(window_clock));
	window_clock.tick_ns = NS_PER_SEC;
	return window_red_new(&red) || window_tcp_new(&tcp) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	window_red_free(&red);
	window_tcp_free(&tcp);
	return 0;
}

static void start(uint64_t at)
{
	now = at;
	window_clock_tick(&window_clock, now * NS_PER_SEC);
}

/* n requests since the last tick, then the tick, `later` seconds after it. */
static void tick_after(uint64_t later, uint32_t n)
{
	static __u32 exp[KILTER_EXP_BUCKETS];
	struct window_red_delta d = {.requests = n, .sum_ns = n * NS_PER_MS, .exp = exp};
	struct kilter_conn conn = {.opened = n, .closed = n, .bytes_in = n};

	exp[kilter_exp_index(NS_PER_MS)] = n;
	if (n) {
		assert_int_equal(window_red_add(red, &d), 0);
		assert_int_equal(window_tcp_add(tcp, &conn, true), 0);
	}
	now += later;
	window_clock_tick(&window_clock, now * NS_PER_SEC);
	assert_int_equal(window_red_settle(red, &window_clock), 0);
	window_tcp_settle(tcp, &window_clock);
}

static struct model_red read_red(enum model_span span)
{
	struct model_red r;
	struct model_tcp t;

	window_red_read(red, &window_clock, span, &r);
	window_tcp_read(tcp, &window_clock, span, &t);
	assert_int_equal(t.opened, r.requests);
	assert_int_equal(t.connect_attempts, r.requests);
	assert_int_equal(t.bytes_in, r.requests);
	return r;
}

/* A window ends with the tick and holds whole slots: from span - slot to span of the past. */
static void what_leaves_a_window_leaves_it_to_the_second(void **state)
{
	static const struct {
		enum model_span span;
		uint64_t at;   /* second of the tick that brings the data */
		uint64_t last; /* last tick that sees it */
	} rows[] = {
	    {MODEL_10S, 7201, 7210}, {MODEL_10S, 7205, 7214}, {MODEL_10S, 7210, 7219},
	    {MODEL_1M, 7201, 7260},  {MODEL_1M, 7210, 7260},  {MODEL_1M, 7211, 7270},
	    {MODEL_5M, 7201, 7500},  {MODEL_5M, 7260, 7500},  {MODEL_5M, 7261, 7560},
	    {MODEL_1H, 7201, 10800}, {MODEL_1H, 7500, 10800}, {MODEL_1H, 7501, 11100},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		teardown(state);
		setup(state);
		start(7200);
		while (now < rows[i].at - 1)
			tick_after(1, 0);
		tick_after(1, 7);
		while (now < rows[i].last) {
			assert_int_equal(read_red(rows[i].span).requests, 7);
			tick_after(1, 0);
		}
		assert_int_equal(read_red(rows[i].span).requests, 7);
		tick_after(1, 0);
		assert_int_equal(read_red(rows[i].span).requests, 0);
		assert_true(isnan(read_red(rows[i].span).p50));
	}
}

static void a_full_window_holds_its_span_and_the_rate_is_true(void **state)
{
	(void)state;
	start(36000);
	for (int i = 0; i < 4000; i++)
		tick_after(1, 5);
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++) {
		uint64_t span = model_span_ns[s] / NS_PER_SEC;
		struct model_red r = read_red(s);

		assert_true(r.covered_ns <= model_span_ns[s]);
		assert_true(r.covered_ns > model_span_ns[s] - model_span_ns[s] / 5);
		assert_int_equal(r.requests, 5 * (r.covered_ns / NS_PER_SEC));
		assert_true(r.requests <= 5 * span);
		assert_true(fabs(r.rate - 5) < 1e-9);
		assert_true(fabs(r.mean - 0.001) < 1e-9);
	}
}

static void windows_nest(void **state)
{
	(void)state;
	srand(21);
	start(500);
	for (int i = 0; i < 5000; i++) {
		uint64_t last = 0;

		tick_after(1 + (uint64_t)(rand() % 40 ? 0 : rand() % 100), (uint32_t)rand() % 9);
		for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++) {
			uint64_t n = read_red(s).requests;

			assert_true(n >= last);
			last = n;
		}
	}
}

/* A node that slept: what is from before the jump is gone from every window that it is longer than.
 */
static void a_jump_forward_empties_what_it_passes(void **state)
{
	(void)state;
	start(7200);
	tick_after(1, 3);
	tick_after(100, 0);
	assert_int_equal(read_red(MODEL_10S).requests, 0);
	assert_int_equal(read_red(MODEL_1M).requests, 0);
	assert_int_equal(read_red(MODEL_5M).requests, 3);
	assert_int_equal(read_red(MODEL_1H).requests, 3);
	tick_after(1ull << 32, 0);
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++) {
		struct model_red r = read_red(s);

		assert_int_equal(r.requests, 0);
		assert_true(r.covered_ns <= model_span_ns[s]);
	}
	tick_after(1, 2); /* and it goes on */
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++)
		assert_int_equal(read_red(s).requests, 2);
}

/* What a long tick brings happened somewhere in it: it counts for its middle, not for now. */
static void the_data_of_a_long_tick_is_dated_back(void **state)
{
	(void)state;
	start(7200);
	tick_after(1, 0);
	tick_after(100, 50);
	assert_int_equal(read_red(MODEL_10S).requests, 0);
	assert_int_equal(read_red(MODEL_1M).requests, 50);
	assert_int_equal(read_red(MODEL_5M).requests, 50);
}

static void a_clock_that_goes_back_loses_and_repeats_nothing(void **state)
{
	(void)state;
	start(7200);
	tick_after(1, 3);
	now -= 5000; /* the clock, not us */
	tick_after(0, 4);
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++)
		assert_int_equal(read_red(s).requests, 7);
	now = 7202;
	tick_after(0, 1);
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++) {
		assert_int_equal(read_red(s).requests, 8);
		assert_true(read_red(s).covered_ns == 2 * NS_PER_SEC);
	}
}

static void the_same_moment_twice_counts_once_as_time(void **state)
{
	(void)state;
	start(7200);
	tick_after(1, 1);
	tick_after(0, 1);
	tick_after(0, 1);
	assert_int_equal(read_red(MODEL_10S).requests, 3);
	assert_true(read_red(MODEL_10S).covered_ns == NS_PER_SEC);
}

static void counts_beyond_32_bits_stay_whole(void **state)
{
	(void)state;
	start(7200);
	tick_after(1, UINT32_MAX);
	for (int i = 0; i < 2; i++) {
		struct window_red_delta d = {.requests = UINT32_MAX};
		static const __u32 none[KILTER_EXP_BUCKETS];

		d.exp = none;
		assert_int_equal(window_red_add(red, &d), 0);
	}
	now++;
	window_clock_tick(&window_clock, now * NS_PER_SEC);
	assert_int_equal(window_red_settle(red, &window_clock), 0);
	struct model_red r;

	window_red_read(red, &window_clock, MODEL_1M, &r);
	assert_true(r.requests == 3ull * UINT32_MAX);
}

static void a_window_of_quantiles_is_that_of_its_slots_merged(void **state)
{
	(void)state;
	start(7200);
	for (int i = 0; i < 10; i++) {
		__u32 exp[KILTER_EXP_BUCKETS] = {0};
		struct window_red_delta d = {.requests = 10, .exp = exp};

		/* nine seconds of 1 ms, then one of 1 s: a tenth of the whole */
		exp[kilter_exp_index(i < 9 ? NS_PER_MS : NS_PER_SEC)] = 10;
		assert_int_equal(window_red_add(red, &d), 0);
		now++;
		window_clock_tick(&window_clock, now * NS_PER_SEC);
		assert_int_equal(window_red_settle(red, &window_clock), 0);
	}
	for (enum model_span s = MODEL_10S; s < MODEL_SPANS; s++) {
		struct model_red r;

		window_red_read(red, &window_clock, s, &r);
		assert_int_equal(r.requests, 100);
		assert_true(fabs(r.p50 / 0.001 - 1) <= HIST_REL_ERROR);
		assert_true(fabs(r.p95 / 1 - 1) <= HIST_REL_ERROR);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_leaves_a_window_leaves_it_to_the_second),
	    T(a_full_window_holds_its_span_and_the_rate_is_true),
	    T(windows_nest),
	    T(a_jump_forward_empties_what_it_passes),
	    T(the_data_of_a_long_tick_is_dated_back),
	    T(a_clock_that_goes_back_loses_and_repeats_nothing),
	    T(the_same_moment_twice_counts_once_as_time),
	    T(counts_beyond_32_bits_stay_whole),
	    T(a_window_of_quantiles_is_that_of_its_slots_merged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
