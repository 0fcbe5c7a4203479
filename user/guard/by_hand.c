// SPDX-License-Identifier: Apache-2.0
/* What somebody does to a circuit or its limits. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/bus.h"
#include "guard/internal.h"

bool guard_limits_valid(const struct guard_limits *l)
{
	return l->rate_limit >= 0 && l->rate_limit <= CONFIG_LIMIT_MAX && l->burst >= 1 &&
	       l->burst <= CONFIG_LIMIT_MAX && l->max_connections <= CONFIG_LIMIT_MAX;
}

const char *guard_manual_str(int err)
{
	switch (err) {
	case -ENOENT:
		return "there is no circuit of that name";
	case -EALREADY:
		return "it is in that state already";
	case -EPERM:
		return "its destination is protected";
	case -EINVAL:
		return "a limit is out of range";
	case -EBUSY:
		return "it is forced: release it first";
	}
	return strerror(-err);
}

/* 0: done. */
static int act(struct guard *g, struct entry *e, enum guard_action action,
	       const struct guard_limits *limits, const char *who)
{
	const struct config_policy *p = guard_config_of(g, e);
	struct guard_limits wanted;
	bool done = false;

	if ((action == GUARD_TRIP || action == GUARD_RESET) &&
	    circuit_forced(&e->c, p) != CIRCUIT_AUTO)
		return -EBUSY;
	switch (action) {
	case GUARD_TRIP:
		if (e->protected)
			return -EPERM;
		done = circuit_trip(&e->c, p, g->now_ns, guard_random(g), who);
		break;
	case GUARD_RESET:
		done = circuit_reset(&e->c, p, g->now_ns, who);
		break;
	case GUARD_HOLD:
		done = circuit_hold(&e->c, true);
		break;
	case GUARD_RELEASE:
		if (e->c.forced == CIRCUIT_DISABLED)
			g->join_passes = JOIN_PASSES; /* what was connected meanwhile */
		done = circuit_hold(&e->c, false);
		done = circuit_force(&e->c, CIRCUIT_AUTO) || done;
		break;
	case GUARD_FORCE_OPEN:
		if (e->protected)
			return -EPERM;
		done = circuit_force(&e->c, CIRCUIT_FORCED_OPEN);
		break;
	case GUARD_FORCE_CLOSED:
		done = circuit_force(&e->c, CIRCUIT_FORCED_CLOSED);
		break;
	case GUARD_DISABLE:
		done = circuit_force(&e->c, CIRCUIT_DISABLED);
		break;
	case GUARD_LIMIT_SET:
		if (!limits)
			return -EINVAL;
		wanted = guard_limits_of(g, e);
		if (limits->rate_limit >= 0)
			wanted.rate_limit = limits->rate_limit;
		if (limits->burst)
			wanted.burst = limits->burst;
		if (limits->max_connections != GUARD_LIMIT_KEEP)
			wanted.max_connections = limits->max_connections;
		if (!guard_limits_valid(&wanted))
			return -EINVAL;
		if (e->protected)
			return -EPERM;
		e->limits = wanted;
		e->limits_set = true;
		done = true;
		break;
	case GUARD_LIMIT_RESET:
		e->limits_set = false;
		e->limits_epoch++;
		done = true;
		break;
	}
	return done ? 0 : -EALREADY;
}

int guard_manual(struct guard *g, const char *name, enum guard_action action,
		 const struct guard_limits *limits, const struct guard_hand *hand, uint64_t boot_ns,
		 uint64_t real_ns)
{
	static const char *const actions[] = {
	    [GUARD_TRIP] = "circuit-trip",
	    [GUARD_RESET] = "circuit-reset",
	    [GUARD_HOLD] = "circuit-hold",
	    [GUARD_RELEASE] = "circuit-release",
	    [GUARD_FORCE_OPEN] = "circuit-force-open",
	    [GUARD_FORCE_CLOSED] = "circuit-force-closed",
	    [GUARD_DISABLE] = "circuit-disable",
	    [GUARD_LIMIT_SET] = "limit-set",
	    [GUARD_LIMIT_RESET] = "limit-reset",
	};
	struct entry *e = guard_find(g, name);
	enum kilter_circuit_state from;
	char who[112], reason[96];
	const char *why = NULL;
	int err;

	if ((unsigned int)action >= sizeof(actions) / sizeof(actions[0]))
		return -EINVAL;
	if (!e)
		return -ENOENT;
	g->now_ns = boot_ns;
	g->real_ns = real_ns;
	from = e->c.state;
	if (hand->user)
		snprintf(who, sizeof(who), "by hand, %s %s", hand->role, hand->user);
	else
		snprintf(who, sizeof(who), "by hand, uid %u", hand->uid);
	err = act(g, e, action, limits, who);
	if (err) {
		why = guard_manual_str(err);
	} else if (action == GUARD_LIMIT_SET) {
		snprintf(reason, sizeof(reason), "rate_limit %g, burst %u, max_connections %u",
			 e->limits.rate_limit, e->limits.burst, e->limits.max_connections);
		why = reason;
	}
	bus_publish(&(struct bus_event){
	    .kind = BUS_MANUAL_ACTION,
	    .subject = e->pub.name,
	    .action = actions[action],
	    .reason = why,
	    .outcome = err ? "failure" : "success",
	    .uid = hand->uid,
	    .user = hand->user,
	    .role = hand->role,
	    .generation = e->pub.generation,
	});
	if (err)
		return err;
	if (e->c.state != from)
		guard_moved(g, e, from);
	else
		guard_step(g, e, NULL); /* what is forced moves now */
	if (g->close_passes == CLOSE_PASSES)
		guard_run_hooks(g);
	g->changed = true;
	guard_save(g);
	return 0;
}
