// SPDX-License-Identifier: Apache-2.0
/* Failed requests: a large share of the last seconds is unhealthy, a small one of the last
 * minute degrades. What counts as an error: struct model_red. */
#include "health/rules/rules.h"

static bool errors(const struct rule_input *in, enum model_span span, double threshold,
		   enum health_state severity, const char *window, struct health_reason *ret)
{
	const struct model_red *red = &in->red[span];

	if (threshold <= 0 || red->requests < in->config->health.minimum_requests ||
	    red->error_ratio < threshold)
		return false;
	return rule_verdict(ret, severity, red->error_ratio, threshold, red->requests,
			    model_span_ns[span], "error ratio %.3f over %.3f in %s (%llu requests)",
			    red->error_ratio, threshold, window, (unsigned long long)red->requests);
}

bool rule_errors_now(const struct rule_input *in, struct health_reason *ret)
{
	return errors(in, MODEL_10S, in->config->health.error_ratio_unhealthy, HEALTH_UNHEALTHY,
		      "10s", ret);
}

bool rule_errors(const struct rule_input *in, struct health_reason *ret)
{
	return errors(in, MODEL_1M, in->config->health.error_ratio_degraded, HEALTH_DEGRADED, "1m",
		      ret);
}
