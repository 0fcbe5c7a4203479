// SPDX-License-Identifier: Apache-2.0
#include "model/histogram.h"

#include <math.h>

#define SECONDS(i, ns) [i] = (double)(ns) / 1e9,
const double hist_classic_bounds[KILTER_CLASSIC_BOUNDS] = {KILTER_CLASSIC_NS(SECONDS)};
const double hist_fine_bounds[KILTER_FINE_BOUNDS] = {KILTER_FINE_NS(SECONDS)};

double hist_bucket_upper(unsigned int i)
{
	if (i >= KILTER_EXP_BUCKETS - 1)
		return INFINITY;
	return exp2((double)i / KILTER_EXP_SUB + KILTER_EXP_MIN_LOG);
}

/* The two open buckets have no middle: their known bound is the best that can be said. */
static double bucket_middle(unsigned int i)
{
	if (!i)
		return hist_bucket_upper(0);
	if (i >= KILTER_EXP_BUCKETS - 1)
		return exp2(KILTER_EXP_MAX_LOG);
	return exp2(((double)i - 0.5) / KILTER_EXP_SUB + KILTER_EXP_MIN_LOG);
}

double hist_quantile(const uint64_t *counts, double q)
{
	uint64_t total = 0, rank, seen = 0;

	for (unsigned int i = 0; i < KILTER_EXP_BUCKETS; i++)
		total += counts[i];
	if (!total)
		return NAN;
	rank = q <= 0 ? 1 : (uint64_t)ceil(q * (double)total);
	if (!rank)
		rank = 1;
	if (rank > total)
		rank = total;
	for (unsigned int i = 0; i < KILTER_EXP_BUCKETS; i++) {
		seen += counts[i];
		if (seen >= rank)
			return bucket_middle(i);
	}
	return bucket_middle(KILTER_EXP_BUCKETS - 1);
}
