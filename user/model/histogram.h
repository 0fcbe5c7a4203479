/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User space's side of the exponential histogram of <kilter/histogram.h>: exact merge, and
 * quantiles whose relative error is at most HIST_REL_ERROR (half a bucket, geometric).
 */
#ifndef KILTER_MODEL_HISTOGRAM_H
#define KILTER_MODEL_HISTOGRAM_H

#include <stdint.h>

#include <kilter/histogram.h>

#define HIST_REL_ERROR 0.0443 /* 2^(1/16) - 1 */

/* Seconds: the geometric middle of the bucket that holds the q-th (0..1) value, by the
 * nearest-rank definition; NaN when the histogram is empty. counts has KILTER_EXP_BUCKETS. */
double hist_quantile(const uint64_t *counts, double q);
/* The same for n values of q that do not fall, in one pass; only buckets [first, end) are read, the
 * others are empty. */
void hist_quantiles(const uint64_t *counts, unsigned int first, unsigned int end, const double *q,
		    unsigned int n, double *ret);
/* Inclusive upper bound of bucket i in seconds; +Inf for the last. */
double hist_bucket_upper(unsigned int i);
extern const double hist_classic_bounds[KILTER_CLASSIC_BOUNDS]; /* seconds */
extern const double hist_fine_bounds[KILTER_FINE_BOUNDS];

#endif
