// SPDX-License-Identifier: Apache-2.0
#include "core/bus.h"

#include <errno.h>

static struct {
	bus_fn fn;
	void *ctx;
} subscribers[BUS_SUBSCRIBERS_MAX];
static unsigned int count;

int bus_subscribe(bus_fn fn, void *ctx)
{
	if (count == BUS_SUBSCRIBERS_MAX)
		return -ENOSPC;
	subscribers[count].fn = fn;
	subscribers[count++].ctx = ctx;
	return 0;
}

void bus_publish(const struct bus_event *ev)
{
	for (unsigned int i = 0; i < count; i++)
		subscribers[i].fn(subscribers[i].ctx, ev);
}

void bus_reset(void)
{
	count = 0;
}
