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

void hist_quantiles(const uint64_t *counts, unsigned int first, unsigned int end, const double *q,
		    unsigned int n, double *ret)
{
	uint64_t total = 0, seen = 0;
	unsigned int at = first;

	for (unsigned int i = first; i < end; i++)
		total += counts[i];
	for (unsigned int k = 0; k < n; k++) {
		uint64_t rank = q[k] <= 0 ? 1 : (uint64_t)ceil(q[k] * (double)total);

		if (!total) {
			ret[k] = NAN;
			continue;
		}
		if (!rank)
			rank = 1;
		if (rank > total)
			rank = total;
		while (seen + counts[at] < rank)
			seen += counts[at++];
		ret[k] = bucket_middle(at);
	}
}

double hist_quantile(const uint64_t *counts, double q)
{
	double ret;

	hist_quantiles(counts, 0, KILTER_EXP_BUCKETS, &q, 1, &ret);
	return ret;
}
