/* SPDX-License-Identifier: Apache-2.0 */
/* Running BPF iterators. */
#ifndef KILTER_PROBE_ITER_H
#define KILTER_PROBE_ITER_H

#include "probe/probe.h"

struct netns;

/* Runs the program over every object there is; returns how many bytes it wrote, or a negative
 * errno. */
int iter_run(int link_fd);

/* The two that the guard has; see bpf/probes/guard_iter.bpf.c. */
struct guard_iter;
/* -ENOTSUP: the probe guard_iter is not running. */
int guard_iter_new(struct guard_iter **ret, const struct probe_set *set);
void guard_iter_free(struct guard_iter **g);
/* From now on guard_iter_close() reaches the connections of other network namespaces as well, by
 * netns.h; their number comes later. -ENOTSUP, or as netns_start(). */
int guard_iter_everywhere(struct guard_iter *g, struct netns **ret);
/* Both: how many connections were touched, or a negative errno. -ENOTSUP: not on this kernel. */
int guard_iter_join(void *guard_iter);
int guard_iter_close(void *guard_iter);

#endif
