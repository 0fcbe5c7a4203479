// SPDX-License-Identifier: Apache-2.0
/* What no field can say by itself: which values do not go together. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "core/config_fields.h"

/* Where the field got its value, as the start of a fault: "file:12: ", "flag: ", or "". */
static const char *place(const struct config *c, const char *path, char *buf, size_t size)
{
	int i = config_field_find(config_fields, config_fields_count, path);
	int32_t origin = i < 0 ? 0 : c->origins[i];

	if (origin > 0)
		snprintf(buf, size, "%.200s:%d: ", c->file, origin);
	else
		snprintf(buf, size, "%s",
			 origin == CONFIG_ORIGIN_FLAG  ? "flag: "
			 : origin == CONFIG_ORIGIN_ENV ? "environment: "
						       : "");
	return buf;
}

/* The place of whichever of two fields was set; the second when both were. */
static const char *place_of(const struct config *c, const char *a, const char *b, char *buf,
			    size_t size)
{
	return *place(c, b, buf, size) ? buf : place(c, a, buf, size);
}

static uint8_t family_of(struct config_destination d)
{
	config_unmap_destination(&d);
	return d.family;
}

/* What is wrong with the fields of one policy together. */
static bool policy_fault(const struct config_policy *p, char *why, size_t size)
{
	struct config_destination destination, standby;

	if (p->base_open_ns > p->max_open_ns)
		snprintf(why, size, "base_open must not be longer than max_open");
	else if (p->window_counts && p->minimum_requests > p->window_calls)
		snprintf(why, size,
			 "minimum_requests must not be above window_calls, or no ratio "
			 "ever counts");
	else if (!config_parse_destination(p->destination, &destination) &&
		 destination.transport == KILTER_TRANSPORT_UDP &&
		 (!destination.family || !destination.port || destination.prefix_len < 32 ||
		  (destination.family == KILTER_FAMILY_V6 && destination.prefix_len < 128) ||
		  strcmp(p->workload, "*") || strcmp(p->executable, "*") ||
		  strcmp(p->cgroup, "*") || p->labels[0]))
		snprintf(why, size, "of UDP a policy takes one address and port, and any caller");
	else if (!p->standby[0] || config_parse_destination(p->destination, &destination) ||
		 config_parse_destination(p->standby, &standby))
		return false;
	else if (destination.transport != KILTER_TRANSPORT_TCP)
		snprintf(why, size, "standby is for TCP alone");
	else if (destination.family && family_of(destination) != family_of(standby))
		snprintf(why, size, "standby must be of the destination's address family");
	else
		return false;
	return true;
}

int config_check(const struct config *c, config_fault_fn fault, void *ctx)
{
	char text[640], at[CONFIG_PATH_LEN + 16], name[CONFIG_NAME_LEN + 16], why[160];
	int err = 0;

#define FAULT(...)                                         \
	do {                                               \
		snprintf(text, sizeof(text), __VA_ARGS__); \
		if (fault)                                 \
			fault(ctx, text);                  \
		err = -EINVAL;                             \
	} while (0)
#define FAULT_OF_TWO(a, b, what) FAULT("%s%s %s %s", place_of(c, a, b, at, sizeof(at)), a, what, b)

	if (c->syscalls.window_ns > c->syscalls.period_ns)
		FAULT_OF_TWO("syscalls.window", "syscalls.period", "must not be longer than");
	if (c->health.error_ratio_degraded > c->health.error_ratio_unhealthy &&
	    c->health.error_ratio_unhealthy > 0)
		FAULT_OF_TWO("health.error_ratio_degraded", "health.error_ratio_unhealthy",
			     "must not be above");
	if (c->health.connect_failure_ratio > c->health.connect_failure_unhealthy &&
	    c->health.connect_failure_unhealthy > 0)
		FAULT_OF_TWO("health.connect_failure_ratio", "health.connect_failure_unhealthy",
			     "must not be above");
	if (c->guard.lease_ns < 2 * c->tick_ns)
		FAULT("%sguard.lease must be at least two ticks, or circuits lapse between "
		      "renewals",
		      place_of(c, "tick", "guard.lease", at, sizeof(at)));
	for (uint32_t i = 0; i < c->guard.policies_count; i++) {
		const struct config_policy *p = &c->guard.policies[i];

		snprintf(at, sizeof(at), "%.200s:%u: ", c->file, p->line);
		snprintf(name, sizeof(name), "policy '%s'", p->name);
		if (policy_fault(p, why, sizeof(why)))
			FAULT("%s%s: %s", at, name, why);
		for (uint32_t k = 0; k < i; k++)
			if (!strcmp(p->name, c->guard.policies[k].name))
				FAULT("%s%s is there twice; the other is in line %u", at, name,
				      c->guard.policies[k].line);
	}
	if (policy_fault(&c->guard.defaults, why, sizeof(why)))
		FAULT("%.200s:%u: guard.defaults: %s", c->file, c->guard.defaults.line, why);
#undef FAULT_OF_TWO
#undef FAULT
	return err;
}
