// SPDX-License-Identifier: Apache-2.0
/* Slow requests: against a bound that somebody set, and against the subject's own past. */
#include "health/rules/rules.h"

bool rule_latency(const struct rule_input *in, struct health_reason *ret)
{
	const struct model_red *red = &in->red[MODEL_1M];
	double threshold = (double)in->config->health.latency_p95_ns / 1e9;

	if (threshold <= 0 || red->requests < in->config->health.minimum_requests ||
	    !(red->p95 > threshold))
		return false;
	return rule_verdict(ret, HEALTH_DEGRADED, red->p95, threshold, red->requests,
			    model_span_ns[MODEL_1M], "p95 %.4gs over %.4gs in 1m (%llu requests)",
			    red->p95, threshold, (unsigned long long)red->requests);
}

/* The last hour holds the last minute too: a factor over it is a little stricter than said. */
bool rule_latency_baseline(const struct rule_input *in, struct health_reason *ret)
{
	const struct model_red *now = &in->red[MODEL_1M], *past = &in->red[MODEL_1H];
	uint64_t minimum = in->config->health.minimum_requests;
	double factor = in->config->health.latency_factor;

	if (factor <= 0 || now->requests < minimum ||
	    past->requests < RULE_BASELINE_FACTOR * minimum || past->covered_ns < RULE_BASELINE_NS)
		return false;
	if (!(now->p95 > past->p95 * factor) || !(now->p95 - past->p95 > RULE_LATENCY_FLOOR_S))
		return false;
	return rule_verdict(ret, HEALTH_DEGRADED, now->p95, past->p95 * factor, now->requests,
			    model_span_ns[MODEL_1M],
			    "p95 %.4gs in 1m is %.1f times the %.4gs of the last hour (over %g, "
			    "%llu requests)",
			    now->p95, now->p95 / past->p95, past->p95, factor,
			    (unsigned long long)now->requests);
}
