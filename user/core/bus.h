/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Change notices between rooms that may not include one another: guard, health and probe
 * publish, audit and the mains subscribe. Synchronous, in order of subscription.
 */
#ifndef KILTER_CORE_BUS_H
#define KILTER_CORE_BUS_H

#include <stdint.h>

enum bus_kind {
	BUS_AGENT_START,
	BUS_AGENT_STOP,
	BUS_CONFIG_CHANGED,
	BUS_CONFIG_REJECTED,
	BUS_CIRCUIT_TRANSITION, /* subject: circuit name; from, to; reason */
	BUS_HEALTH_TRANSITION,	/* subject: "workload/nginx"; from, to; reason */
	BUS_MANUAL_ACTION,	/* subject: what it acted on; action; uid */
	BUS_GUARD,		/* what the guard did besides; action */
	BUS_PROBE,		/* subject: probe name; from, to: tier */
	BUS_FRONT,		/* the front was (re)started or died */
	BUS_KIND_MAX,
};

/* Strings are borrowed for the duration of the call; NULL where they do not apply. */
struct bus_event {
	enum bus_kind kind;
	const char *subject;
	const char *action;
	const char *from, *to;
	const char *reason;	 /* one sentence with the numbers that caused it */
	const char *outcome;	 /* "success", "failure" or "unknown" */
	uint32_t uid;		 /* who asked; UINT32_MAX when nobody did, or user says it */
	const char *user, *role; /* who asked over TCP: the name and role of a token */
	uint64_t generation;
};

typedef void (*bus_fn)(void *ctx, const struct bus_event *ev);
#define BUS_SUBSCRIBERS_MAX 8
int bus_subscribe(bus_fn fn, void *ctx); /* -ENOSPC */
void bus_publish(const struct bus_event *ev);
void bus_reset(void); /* forgets all subscribers: for tests */

#endif
