// SPDX-License-Identifier: Apache-2.0
/* The table of rules. Of several verdicts the worst counts; the order here is that of the
 * reasons of equal weight. Described in docs/health.md. */
#include "health/rules/rules.h"

#include <stdarg.h>
#include <stdio.h>

#define ON(kind) (1u << HEALTH_##kind)

const struct rule health_rules[] = {
    {"error_ratio", ON(WORKLOAD) | ON(EDGE), rule_errors_now},
    {"error_ratio", ON(WORKLOAD) | ON(EDGE), rule_errors},
    {"connect_failures", ON(EDGE), rule_connects_now},
    {"connect_failures", ON(EDGE), rule_connects},
    {"latency_threshold", ON(WORKLOAD) | ON(EDGE), rule_latency},
    {"latency_baseline", ON(WORKLOAD) | ON(EDGE), rule_latency_baseline},
    {"accept_queue", ON(WORKLOAD), rule_backlog},
    {"retransmits", ON(WORKLOAD) | ON(EDGE), rule_retransmits},
    {"probe", ON(PROBE) | ON(NODE), rule_probe},
    {"drops", ON(NODE), rule_drops},
    {"records_lost", ON(NODE), rule_audit},
    {"undecoded", ON(WORKLOAD), rule_undecoded},
    {"no_data", ON(WORKLOAD) | ON(EDGE), rule_quiet},
};
const unsigned int health_rules_count = sizeof(health_rules) / sizeof(health_rules[0]);

bool rule_verdict(struct health_reason *ret, enum health_state severity, double observed,
		  double threshold, uint64_t samples, uint64_t window_ns, const char *fmt, ...)
{
	va_list ap;

	ret->severity = severity;
	ret->observed = observed;
	ret->threshold = threshold;
	ret->samples = samples;
	ret->window_ns = window_ns;
	va_start(ap, fmt);
	vsnprintf(ret->text, sizeof(ret->text), fmt, ap);
	va_end(ap);
	return true;
}
