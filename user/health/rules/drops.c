// SPDX-License-Identifier: Apache-2.0
/* kilter itself: what it lost, what is not running, where it has nothing to go by. */
#include "health/rules/rules.h"

bool rule_drops(const struct rule_input *in, struct health_reason *ret)
{
	for (unsigned int i = 0; i < in->drops_count; i++) {
		const struct health_drop *d = &in->drops[i];

		if (!d->loses || !d->delta)
			continue;
		return rule_verdict(ret, HEALTH_UNKNOWN, (double)d->delta, 0, d->delta, 0,
				    "%llu observations lost (%s: %s): figures are incomplete",
				    (unsigned long long)d->delta, d->where, d->reason);
	}
	return false;
}

/* The figures are whole, the trail is not: it has a records-lost record with the number. */
bool rule_audit(const struct rule_input *in, struct health_reason *ret)
{
	for (unsigned int i = 0; i < in->drops_count; i++) {
		const struct health_drop *d = &in->drops[i];

		if (d->audit && d->delta)
			return rule_verdict(ret, HEALTH_DEGRADED, (double)d->delta, 0, d->delta, 0,
					    "%llu audit records lost (%s: %s)",
					    (unsigned long long)d->delta, d->where, d->reason);
	}
	return false;
}

bool rule_probe(const struct rule_input *in, struct health_reason *ret)
{
	const struct health_probe *p = in->probe;
	const char *why;

	if (in->probes_essential_missing)
		return rule_verdict(ret, HEALTH_UNHEALTHY, in->probes_essential_missing, 0,
				    in->probes_essential_missing, 0,
				    "%u essential probes are not running",
				    in->probes_essential_missing);
	if (!p || p->tier || p->off)
		return false;
	why = p->reason && p->reason[0] ? p->reason : "no reason is known";
	return rule_verdict(ret, p->essential ? HEALTH_UNHEALTHY : HEALTH_DEGRADED, 0, 1, 1, 0,
			    "not running: %.120s", why);
}

/* Connections without a single request that could be read: they may fail or not, we are blind. */
bool rule_undecoded(const struct rule_input *in, struct health_reason *ret)
{
	if (!in->undecoded || in->client || in->red[MODEL_5M].requests ||
	    in->red[MODEL_1H].requests)
		return false;
	return rule_verdict(ret, HEALTH_UNKNOWN, (double)in->undecoded, 0, in->undecoded,
			    model_span_ns[MODEL_1H],
			    "%llu connections carry no protocol that is decoded: no requests seen",
			    (unsigned long long)in->undecoded);
}

/*
 * Quiet is not healthy by itself: without requests, connections or a listener in sight there
 * is nothing that could have gone wrong, and nothing that shows it went right.
 */
bool rule_quiet(const struct rule_input *in, struct health_reason *ret)
{
	uint64_t hour = model_span_ns[MODEL_1H];

	if (in->open_connections || in->listener)
		return false;
	if (in->last_seen_ns && in->boot_ns > in->last_seen_ns &&
	    in->boot_ns - in->last_seen_ns > hour)
		return rule_verdict(ret, HEALTH_UNKNOWN, 0, 1, 0, hour, "nothing seen in 1h");
	if (in->red[MODEL_5M].requests || in->client || in->tcp[MODEL_5M].opened ||
	    in->tcp[MODEL_5M].closed || in->tcp[MODEL_5M].connect_attempts)
		return false;
	return rule_verdict(ret, HEALTH_UNKNOWN, 0, 1, 0, model_span_ns[MODEL_5M],
			    "no requests in 5m");
}
