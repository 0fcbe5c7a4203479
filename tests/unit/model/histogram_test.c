// SPDX-License-Identifier: Apache-2.0
/* Quantiles against the exact ones of sorted data, for the shapes that latencies have. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "model/histogram.h"

#include <cmocka.h>

#define SAMPLES 20000u
/* Bucket edges are rounded to 32 bits and nanoseconds to a scale factor in 0.32 fixed point. */
#define ROUNDING 1e-6
#define LEAST_NS 1000.0 /* above 2^-20 s: below it all is one bucket */
#define MOST_NS	 127e9	/* below 2^7 s, for the same reason */

/* (0, 1) */
static double uniform(void)
{
	return ((double)rand() + 1) / ((double)RAND_MAX + 2);
}

static double normal(void)
{
	return sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform());
}

static double even(void)
{
	return 1e6 + uniform() * 99e6;
}

static double exponential(void)
{
	return -10e6 * log(uniform());
}

static double lognormal(void)
{
	return exp(log(5e6) + 1.2 * normal());
}

/* A heavy tail: alpha 1.1, from 100 us. */
static double pareto(void)
{
	return 100e3 * pow(uniform(), -1 / 1.1);
}

/* A cache: 95 % hits of 200 us, misses of 50 ms. */
static double bimodal(void)
{
	return (uniform() < 0.95 ? 200e3 : 50e6) * (1 + 0.05 * normal());
}

static double constant(void)
{
	return 1e9; /* upon the edge of a bucket */
}

/* What the latency test of the whole system has: 1, 10, 100 ms and one of a hundred 1 s. */
static double steps(void)
{
	double u = uniform();

	return u < 0.01 ? 1e9 : u < 0.1 ? 100e6 : u < 0.5 ? 10e6 : 1e6;
}

/* Just above an edge, where the middle of the bucket is farthest away. */
static double edges(void)
{
	return exp2((double)(rand() % 200) / 8 - 19.5) * 1e9 * (1 + 1e-9);
}

static const struct {
	const char *name;
	double (*draw)(void);
} shapes[] = {
    {"even", even},	      {"exponential", exponential},
    {"lognormal", lognormal}, {"pareto", pareto},
    {"bimodal", bimodal},     {"constant", constant},
    {"steps", steps},	      {"edges", edges},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t draw(size_t shape)
{
	double v = shapes[shape].draw();

	return (uint64_t)(v < LEAST_NS ? LEAST_NS : v > MOST_NS ? MOST_NS : v);
}

static void every_quantile_is_within_the_stated_error(void **state)
{
	static const double qs[] = {0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1};
	static uint64_t values[SAMPLES];
	double worst = 0;

	(void)state;
	srand(11);
	for (size_t s = 0; s < SHAPES; s++) {
		uint64_t counts[KILTER_EXP_BUCKETS] = {0};

		for (size_t i = 0; i < SAMPLES; i++) {
			values[i] = draw(s);
			counts[kilter_exp_index(values[i])]++;
		}
		qsort(values, SAMPLES, sizeof(values[0]), by_value);
		for (size_t q = 0; q < sizeof(qs) / sizeof(qs[0]); q++) {
			size_t rank = (size_t)ceil(qs[q] * SAMPLES);
			double exact = (double)values[rank ? rank - 1 : 0] / 1e9;
			double got = hist_quantile(counts, qs[q]), error = fabs(got / exact - 1);

			if (!(error <= HIST_REL_ERROR + ROUNDING))
				fail_msg("%s: q %g is %g, not %g: off by %.4f", shapes[s].name,
					 qs[q], got, exact, error);
			if (error > worst)
				worst = error;
		}
	}
	/* The bound is tight: this test would see a worse histogram. */
	assert_true(worst > HIST_REL_ERROR * 0.95);
}

/* Merging adds: the quantile of a sum of histograms is that of all the data, however it is cut. */
static void a_merge_is_exact(void **state)
{
	uint64_t whole[KILTER_EXP_BUCKETS] = {0}, parts[7][KILTER_EXP_BUCKETS] = {{0}};
	uint64_t merged[KILTER_EXP_BUCKETS] = {0};

	(void)state;
	srand(12);
	for (size_t i = 0; i < SAMPLES; i++) {
		uint32_t at = kilter_exp_index(draw((size_t)rand() % SHAPES));

		whole[at]++;
		parts[rand() % 7][at]++;
	}
	for (size_t p = 0; p < 7; p++)
		for (size_t b = 0; b < KILTER_EXP_BUCKETS; b++)
			merged[b] += parts[p][b];
	assert_memory_equal(merged, whole, sizeof(whole));
	for (int q = 0; q <= 100; q++)
		assert_true(hist_quantile(merged, q / 100.0) == hist_quantile(whole, q / 100.0));
}

static void quantiles_never_fall(void **state)
{
	(void)state;
	srand(13);
	for (size_t s = 0; s < SHAPES; s++) {
		uint64_t counts[KILTER_EXP_BUCKETS] = {0};
		double last = 0;

		for (size_t i = 0; i < 1000; i++)
			counts[kilter_exp_index(draw(s))]++;
		for (int q = 0; q <= 1000; q++) {
			double v = hist_quantile(counts, q / 1000.0);

			assert_true(v >= last);
			last = v;
		}
	}
}

/* Nearest rank: of 100 values, p99 is the 99th, and p95 of 20 the 19th. */
static void the_rank_is_the_nearest(void **state)
{
	uint64_t counts[KILTER_EXP_BUCKETS] = {0};
	uint32_t fast = kilter_exp_index(NS_PER_MS), slow = kilter_exp_index(NS_PER_SEC);

	(void)state;
	counts[fast] = 99;
	counts[slow] = 1;
	assert_true(hist_quantile(counts, 0.99) < 0.002);
	assert_true(hist_quantile(counts, 0.991) > 0.9);
	counts[fast] = 98;
	counts[slow] = 2;
	assert_true(hist_quantile(counts, 0.98) < 0.002);
	assert_true(hist_quantile(counts, 0.99) > 0.9);
	counts[fast] = UINT32_MAX * 2ull; /* far beyond 32 bits */
	counts[slow] = UINT32_MAX;
	assert_true(hist_quantile(counts, 0.66) < 0.002);
	assert_true(hist_quantile(counts, 0.67) > 0.9);
}

static void the_open_buckets_say_what_is_known(void **state)
{
	uint64_t counts[KILTER_EXP_BUCKETS] = {0};

	(void)state;
	counts[0] = 1;
	assert_true(hist_quantile(counts, 0.5) == exp2(-20));
	counts[0] = 0;
	counts[KILTER_EXP_BUCKETS - 1] = 1;
	assert_true(hist_quantile(counts, 0.5) == 128);
	assert_true(isinf(hist_bucket_upper(KILTER_EXP_BUCKETS - 1)));
	assert_true(hist_bucket_upper(KILTER_EXP_BUCKETS - 2) == 128);
	assert_true(hist_bucket_upper(0) == exp2(-20));
}

static void classic_bounds_are_inclusive_as_in_prometheus(void **state)
{
	static const double want[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25,
				      0.5,   0.75,  1,	  2.5,	 5,    7.5,   10};

	(void)state;
	assert_int_equal(sizeof(want) / sizeof(want[0]), KILTER_CLASSIC_BOUNDS);
	for (uint32_t i = 0; i < KILTER_CLASSIC_BOUNDS; i++) {
		uint64_t ns = (uint64_t)llround(want[i] * 1e9);

		assert_true(hist_classic_bounds[i] == want[i]);
		assert_int_equal(kilter_classic_index(ns), i);
		assert_int_equal(kilter_classic_index(ns + 1), i + 1);
	}
	assert_int_equal(kilter_classic_index(0), 0);
	for (uint32_t i = 0; i < KILTER_FINE_BOUNDS; i++) {
		uint64_t ns = (uint64_t)llround(hist_fine_bounds[i] * 1e9);

		assert_int_equal(kilter_fine_index(ns), i);
		assert_int_equal(kilter_fine_index(ns + 1), i + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_quantile_is_within_the_stated_error),
	    cmocka_unit_test(a_merge_is_exact),
	    cmocka_unit_test(quantiles_never_fall),
	    cmocka_unit_test(the_rank_is_the_nearest),
	    cmocka_unit_test(the_open_buckets_say_what_is_known),
	    cmocka_unit_test(classic_bounds_are_inclusive_as_in_prometheus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
