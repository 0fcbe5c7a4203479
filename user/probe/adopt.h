/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets that were there before us, in whatever network namespace, and the fill of accept queues
 * between connections, in our own. Both are BPF iterators; where the kernel's cannot do it, the
 * first goes through /proc (by_hand.c) and the second is left to the SYNs that come.
 */
#ifndef KILTER_PROBE_ADOPT_H
#define KILTER_PROBE_ADOPT_H

#include "probe/probe.h"

struct adopt;
/* -ENOTSUP: the probe sock_iter is not running. */
int adopt_new(struct adopt **ret, const struct probe_set *set);
void adopt_free(struct adopt **a);
/* Listeners with their owners, then connections. Once, at start. -EACCES: sockets of some
 * processes could not be borrowed (logged with their number), the others are adopted. */
int adopt_run(const struct adopt *a);
/* 0 and nothing done in the lower tier. */
int adopt_poll_listeners(const struct adopt *a);

/* by_hand.c: the same for the processes of a cgroup's subtree, through /proc, pidfd_getfd(2) and a
 * setsockopt(2) that `prog`, attached to cgroup_fd meanwhile, answers. */
struct bpf_program;
int adopt_by_hand(const struct bpf_program *prog, int cgroup_fd, uint64_t secret);

#endif
