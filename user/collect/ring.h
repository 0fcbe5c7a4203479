/* SPDX-License-Identifier: Apache-2.0 */
/* The event ring buffer: drained in bounded portions, each record checked before use. */
#ifndef KILTER_COLLECT_RING_H
#define KILTER_COLLECT_RING_H

#include "collect/collect.h"

#define RING_DRAIN_MAX 4096 /* records a call, so that a storm does not hold up a tick */

struct ring;
int ring_new(struct ring **ret, int map_fd, collect_event_fn fn, void *ctx);
void ring_free(struct ring **r);
int ring_fd(const struct ring *r);
int ring_drain(struct ring *r);
uint64_t ring_malformed(const struct ring *r); /* records whose size did not fit their type */

/* A record of the kernel's, `size` bytes as the ring buffer delivered it: copied to ret with
 * its strings terminated. 0, or -EBADMSG. */
union ring_event {
	struct kilter_event h;
	struct kilter_event_exec exec;
	struct kilter_event_exit exit;
	struct kilter_event_net net;
	struct kilter_event_trip trip;
	struct kilter_event_dns dns;
};
int ring_check(const void *data, size_t size, union ring_event *ret);

#endif
