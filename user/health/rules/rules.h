/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Health rules: pure functions of the figures of one subject. A new rule is one function in a
 * file here and one row in rules.c. Hysteresis, roll-up and who is asked are the engine's.
 */
#ifndef KILTER_HEALTH_RULES_H
#define KILTER_HEALTH_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"
#include "health/health.h"

/* Bounds that are not worth a key each. */
#define RULE_CONNECTS_MIN      3	       /* attempts in a window before their ratio counts */
#define RULE_BASELINE_FACTOR   10	       /* the past needs this many times minimum_requests */
#define RULE_BASELINE_NS       600000000000ull /* and this much time */
#define RULE_LATENCY_FLOOR_S   0.001	       /* slower by less than this is no news */
#define RULE_LISTENER_STALE_NS 60000000000ull  /* an accept queue not looked at for so long */

/* Everything a rule may look at. What does not apply to a subject is zero. */
struct rule_input {
	const struct config *config;
	uint64_t boot_ns;
	/* WORKLOAD (as a server), EDGE (as a client); a span that was not read has no requests */
	struct model_red red[MODEL_SPANS];
	struct model_tcp tcp[MODEL_SPANS];
	uint64_t open_connections, last_seen_ns;
	uint64_t undecoded; /* WORKLOAD: connections whose protocol is not known, in total */
	bool client;	    /* WORKLOAD: it sent requests in 5m: quiet as a server is its nature */
	bool listener;	    /* WORKLOAD: it listens, and we see the queue */
	/* WORKLOAD: its fullest accept queue */
	uint32_t queue_length, queue_limit;
	uint16_t queue_port;
	/* PROBE */
	const struct health_probe *probe;
	/* NODE */
	const struct health_drop *drops;
	unsigned int drops_count;
	unsigned int probes_essential_missing;
};

/* A verdict: ret->severity UNKNOWN, DEGRADED or UNHEALTHY with text, or false: no objection. */
typedef bool (*rule_fn)(const struct rule_input *in, struct health_reason *ret);

struct rule {
	const char *code;   /* stable; HEALTH_REASON.code of its verdicts */
	unsigned int kinds; /* 1u << enum health_kind */
	rule_fn fn;
};

extern const struct rule health_rules[];
extern const unsigned int health_rules_count;

bool rule_errors_now(const struct rule_input *in, struct health_reason *ret);
bool rule_errors(const struct rule_input *in, struct health_reason *ret);
bool rule_latency(const struct rule_input *in, struct health_reason *ret);
bool rule_latency_baseline(const struct rule_input *in, struct health_reason *ret);
bool rule_connects_now(const struct rule_input *in, struct health_reason *ret);
bool rule_connects(const struct rule_input *in, struct health_reason *ret);
bool rule_retransmits(const struct rule_input *in, struct health_reason *ret);
bool rule_backlog(const struct rule_input *in, struct health_reason *ret);
bool rule_drops(const struct rule_input *in, struct health_reason *ret);
bool rule_audit(const struct rule_input *in, struct health_reason *ret);
bool rule_probe(const struct rule_input *in, struct health_reason *ret);
bool rule_undecoded(const struct rule_input *in, struct health_reason *ret);
bool rule_quiet(const struct rule_input *in, struct health_reason *ret);

/* Fills all of ret but its code. */
bool rule_verdict(struct health_reason *ret, enum health_state severity, double observed,
		  double threshold, uint64_t samples, uint64_t window_ns, const char *fmt, ...)
    __attribute__((format(printf, 7, 8)));

#endif
