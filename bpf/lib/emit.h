/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Records for the daemon: reserve, fill, submit; what finds no room is counted. */
#ifndef KILTER_BPF_EMIT_H
#define KILTER_BPF_EMIT_H

#include "lib/sock.h"

static __always_inline void *event_reserve(__u32 type, __u64 size)
{
	struct kilter_event *h = bpf_ringbuf_reserve(&events, size, 0);

	if (!h) {
		count_drop(KILTER_DROP_EVENTS_FULL);
		return NULL;
	}
	__builtin_memset(h, 0, sizeof(*h));
	h->time_ns = bpf_ktime_get_boot_ns();
	h->type = type;
	h->size = size;
	return h;
}

/*
 * A record that waits for the daemon's next tick, as those of the audit trail do: they are written
 * then. The daemon is woken when many wait. To wake it takes an interrupt that a CPU sends to
 * itself: three times what all the rest of a record takes, on a virtual machine.
 */
static __always_inline void event_submit(void *e)
{
	bool many = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= KILTER_EVENTS_WAKE_BYTES;

	bpf_ringbuf_submit(e, many ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* A record to act upon at once. By force: the kernel wakes nobody by itself while older ones wait.
 */
static __always_inline void event_submit_now(void *e)
{
	bpf_ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

/*
 * May there be one more record of a kind that is limited? Else counts it as dropped. *rate is a
 * global of the object's own: the second under way << 32, and how many there were in it. (One word:
 * a static struct would be split by clang, under names with dots, which BTF does not take.)
 * Unlocked: CPUs that race write a few more.
 */
static __always_inline bool record_allowed(__u64 *rate, __u32 per_second, __u64 now_ns,
					   enum kilter_drop drop)
{
	__u64 none = now_ns / 1000000000 << 32, had = *rate;

	if (had >> 32 != none >> 32)
		had = none;
	if ((__u32)had < per_second) {
		*rate = had + 1;
		return true;
	}
	count_drop(drop);
	return false;
}

static __always_inline void event_owner(struct kilter_event *h, const struct kilter_sock *s)
{
	h->cgroup_id = s->cgroup_id;
	h->pid = s->pid;
	h->uid = s->uid;
	h->workload = s->workload;
	__builtin_memcpy(h->comm, s->comm, sizeof(h->comm));
}

static __always_inline void emit_net(__u32 type, const struct kilter_sock *s,
				     const struct kilter_peer *peer, __u32 err, __u64 latency_ns,
				     __u32 backlog)
{
	struct kilter_event_net *e = event_reserve(type, sizeof(*e));

	if (!e)
		return;
	event_owner(&e->h, s);
	e->latency_ns = latency_ns;
	e->peer = *peer;
	e->err = err;
	e->backlog = backlog;
	e->reason = 0;
	event_submit(e);
}

#endif
