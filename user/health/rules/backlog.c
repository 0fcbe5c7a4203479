// SPDX-License-Identifier: Apache-2.0
/* A service that does not accept fast enough: its queue of finished handshakes. */
#include "health/rules/rules.h"

bool rule_backlog(const struct rule_input *in, struct health_reason *ret)
{
	double threshold = in->config->health.accept_queue_ratio, fill;

	if (threshold <= 0 || !in->queue_limit)
		return false;
	fill = (double)in->queue_length / (double)in->queue_limit;
	if (fill < threshold)
		return false;
	/* Full: the kernel drops SYNs, callers wait for a second and more. */
	return rule_verdict(
	    ret, in->queue_length >= in->queue_limit ? HEALTH_UNHEALTHY : HEALTH_DEGRADED, fill,
	    threshold, 1, 0, "accept queue of port %u holds %u of %u", in->queue_port,
	    in->queue_length, in->queue_limit);
}
