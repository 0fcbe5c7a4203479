// SPDX-License-Identifier: Apache-2.0
/* What TCP says: connects that came to nothing, segments that had to be sent again. */
#include "health/rules/rules.h"

/* Cancelled by the caller itself (KILTER_CONNECT_OTHER) is neither attempt nor failure. */
static bool connects(const struct rule_input *in, enum model_span span, double threshold,
		     enum health_state severity, const char *window, struct health_reason *ret)
{
	const struct model_tcp *tcp = &in->tcp[span];
	uint64_t failed = 0, other = tcp->failed[KILTER_CONNECT_OTHER], attempts;
	double ratio;

	for (unsigned int i = 0; i < KILTER_CONNECT_OTHER; i++)
		failed += tcp->failed[i];
	attempts = tcp->connect_attempts > other ? tcp->connect_attempts - other : 0;
	if (threshold <= 0 || attempts < RULE_CONNECTS_MIN)
		return false;
	ratio = (double)failed / (double)attempts;
	if (ratio < threshold)
		return false;
	return rule_verdict(ret, severity, ratio, threshold, attempts, model_span_ns[span],
			    "%llu of %llu connects failed in %s: ratio %.3f over %.3f "
			    "(refused %llu, reset %llu, timed out %llu, unreachable %llu)",
			    (unsigned long long)failed, (unsigned long long)attempts, window, ratio,
			    threshold, (unsigned long long)tcp->failed[KILTER_CONNECT_REFUSED],
			    (unsigned long long)tcp->failed[KILTER_CONNECT_RESET],
			    (unsigned long long)tcp->failed[KILTER_CONNECT_TIMED_OUT],
			    (unsigned long long)tcp->failed[KILTER_CONNECT_UNREACHABLE]);
}

bool rule_connects_now(const struct rule_input *in, struct health_reason *ret)
{
	return connects(in, MODEL_10S, in->config->health.connect_failure_unhealthy,
			HEALTH_UNHEALTHY, "10s", ret);
}

bool rule_connects(const struct rule_input *in, struct health_reason *ret)
{
	return connects(in, MODEL_1M, in->config->health.connect_failure_ratio, HEALTH_DEGRADED,
			"1m", ret);
}

/* A connection that sends much may lose much: the rate is per connection and minute. */
bool rule_retransmits(const struct rule_input *in, struct health_reason *ret)
{
	const struct model_tcp *tcp = &in->tcp[MODEL_1M];
	double threshold = in->config->health.retransmit_rate, rate;
	uint64_t connections = in->open_connections + tcp->closed;

	if (threshold <= 0 || tcp->retransmits < in->config->health.minimum_requests)
		return false;
	rate = (double)tcp->retransmits / (double)(connections ? connections : 1);
	if (rate < threshold)
		return false;
	return rule_verdict(ret, HEALTH_DEGRADED, rate, threshold, connections,
			    model_span_ns[MODEL_1M],
			    "%.2f retransmitted segments per connection in 1m, over %.2f "
			    "(%llu connections)",
			    rate, threshold, (unsigned long long)connections);
}
