/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps that probes share. Each is pinned by name below the daemon's --bpffs directory,
 * so that every object that includes this header gets the same one, and so that a daemon
 * that dies leaves its counters behind. Plain hashes only: nothing is evicted behind
 * anyone's back; a full map is counted in `drops`.
 */
#ifndef KILTER_BPF_MAPS_H
#define KILTER_BPF_MAPS_H

#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include <kilter/drops.h>
#include <kilter/event.h>
#include <kilter/identity.h>
#include <kilter/limits.h>
#include <kilter/series.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_WORKLOADS_MAX);
	__type(key, __u32);
	__type(value, struct kilter_workload);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} workloads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_PEERS_MAX);
	__type(key, __u32);
	__type(value, struct kilter_peer);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_CONNS_MAX);
	__type(key, struct kilter_conn_key);
	__type(value, struct kilter_conn);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_LISTENERS_MAX);
	__type(key, struct kilter_listener_key);
	__type(value, struct kilter_listener);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KILTER_DROP_MAX);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, KILTER_EVENTS_BYTES);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");

static __always_inline void count_drop(enum kilter_drop reason)
{
	__u32 key = reason;
	__u64 *n = bpf_map_lookup_elem(&drops, &key);

	if (n)
		__sync_fetch_and_add(n, 1); /* a softirq may interrupt us on this CPU */
}

enum {
	MAP_TAKEN = -17, /* EEXIST */
};

/*
 * A new element of a hash: 0, MAP_TAKEN if another CPU was faster, or that there was no room, of
 * the map or of memory. An int: before Linux 6.4 a map's function returns one, the verifier calls
 * it directly, and what the upper half of the register then has is anyone's guess: the helper's
 * long was 4294967279 and no -17 (iovisor/bcc#4571).
 */
static __always_inline int map_insert(void *map, const void *key, const void *value)
{
	return (int)bpf_map_update_elem(map, key, value, BPF_NOEXIST);
}

/* *ret_made: it is `fresh`, and counts one socket. NULL: no room, counted. */
static __always_inline struct kilter_listener *
listener_get_or_create(const struct kilter_listener_key *key, const struct kilter_listener *fresh,
		       bool *ret_made)
{
	struct kilter_listener *l = bpf_map_lookup_elem(&listeners, key);

	*ret_made = false;
	if (l)
		return l;
	*ret_made = !map_insert(&listeners, key, fresh);
	l = bpf_map_lookup_elem(&listeners, key);
	if (!l && !*ret_made)
		count_drop(KILTER_DROP_LISTENERS_FULL);
	return l;
}

/* Counters of one series are spread over this many CPUs' worth of entries. A power of two. */
const volatile __u32 shard_mask = 0;

static __always_inline __u8 shard(void)
{
	return bpf_get_smp_processor_id() & shard_mask & (KILTER_SHARDS - 1);
}

/*
 * Bucket indexes as global functions: the verifier takes each on its own, once, and its
 * result as any number, instead of following 16 times 217 paths through every caller.
 */
__noinline __u32 classic_and_exp_index(__u64 ns)
{
	return kilter_classic_index(ns) << 16 | kilter_exp_index(ns);
}

__noinline __u32 fine_index(__u64 ns)
{
	return kilter_fine_index(ns);
}

/* Bounds a __u64 index in a register that the verifier then sees used, whatever clang does. */
#define bound_index(i, n)            \
	do {                         \
		barrier_var(i);      \
		if ((i) >= (n))      \
			(i) = (n)-1; \
		barrier_var(i);      \
	} while (0)

/*
 * Shows the verifier that a __u64 length, which is 1 to max already, is: max a power of two.
 * Before Linux 6.8 it learns no lower bound from a test against 0, and clang knows too much
 * to leave a plain mask standing.
 */
#define bound_length(n, max)    \
	do {                    \
		(n)--;          \
		barrier_var(n); \
		(n) &= (max)-1; \
		barrier_var(n); \
		(n)++;          \
	} while (0)

#define add_to(counter, n) __sync_fetch_and_add(&(counter), (n))

#endif
