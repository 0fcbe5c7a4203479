/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An iterator over sockets sees one network namespace: that of who opens it. To reach those of
 * containers takes setns(2), and that takes rights which the agent gives up. So a child keeps them,
 * CAP_SYS_ADMIN and CAP_SYS_PTRACE, and does nothing else: told to, it runs one iterator in every
 * network namespace that a process is in, but for its own. It reads a byte at a time from its
 * parent, and from /proc what the kernel writes there.
 */
#ifndef KILTER_PROBE_NETNS_H
#define KILTER_PROBE_NETNS_H

#define NETNS_MAX 4096 /* namespaces in one pass */

struct bpf_link;
struct netns;

/* Forks; single-threaded callers only, before rights are dropped. -EPERM: there are none to keep.
 */
int netns_start(struct netns **ret, const struct bpf_link *link);
void netns_stop(struct netns **n);
/* Asks for a pass; does not wait. One that is under way goes on, and another follows. */
int netns_ask(struct netns *n);
/* Becomes readable when a pass is over. */
int netns_fd(const struct netns *n);
/* How many sockets the last pass touched; -EAGAIN: none is over; -EPIPE: the child is gone. */
int netns_result(struct netns *n);

#endif
