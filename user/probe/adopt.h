/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that were there before us, and the fill of accept queues between connections: both
 * are BPF iterators over the sockets of our own network namespace. Sockets of other
 * namespaces (containers) that are older than the agent stay unseen until they connect anew.
 */
#ifndef KILTER_PROBE_ADOPT_H
#define KILTER_PROBE_ADOPT_H

#include "probe/probe.h"

struct adopt;
/* -ENOTSUP: the iterators could not be loaded (see the probe sock_iter). */
int adopt_new(struct adopt **ret, const struct probe_set *set);
void adopt_free(struct adopt **a);
/* Owners, then listeners, then established connections. Once, at start. */
int adopt_run(const struct adopt *a);
int adopt_poll_listeners(const struct adopt *a);

#endif
