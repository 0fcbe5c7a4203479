/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel's parsers need of the kernel, and of the headers that only clang -target bpf
 * takes: for parsers that are compiled natively, over a packet in memory. Who includes it defines
 * the maps that its parser looks into: map_lookup(), map_update(), storage_get().
 */
#ifndef KILTER_FUZZ_KERNEL_H
#define KILTER_FUZZ_KERNEL_H

#include <linux/bpf.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KILTER_BPF_MAPS_H
#define KILTER_BPF_IDENTITY_H
#define KILTER_BPF_SERIES_H
#define KILTER_BPF_GUARD_SOCK_H

#include <kilter/drops.h>
#include <kilter/guard.h>
#include <kilter/identity.h>
#include <kilter/limits.h>
#include <kilter/series.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline	__attribute__((noinline))
#define SEC(name)
#define __uint(name, val)    int(*name)[val]
#define __type(name, val)    __typeof__(val) *name
#define barrier_var(var)     __asm__ volatile("" : "+r"(var))
#define bound_index(i, n)    ((void)0)
#define bound_length(n, max) ((void)0)
#define add_to(counter, n)   ((counter) += (n))

enum {
	LIBBPF_PIN_BY_NAME = 1,
	MAP_TAKEN = -17, /* EEXIST */
};

static struct {
	uint8_t *packet;
	size_t packet_len;
	uint64_t clock_ns, drops[KILTER_DROP_MAX];
} kernel;

static struct kilter_conn conns; /* stands for the map: the parsers do not touch it */

static void *map_lookup(const void *map, const void *key);
static int map_update(const void *map, const void *key, const void *value);
static void *storage_get(const void *map, uint64_t flags);

#define bpf_map_lookup_elem(map, key)		map_lookup(map, key)
#define bpf_map_update_elem(map, key, v, flags) map_update(map, key, v)
#define map_insert(map, key, v)			map_update(map, key, v)
#define bpf_sk_storage_get(map, sk, v, flags)	((void)(sk), storage_get(map, flags))
#define bpf_get_socket_cookie(skb)		1
#define bpf_ktime_get_boot_ns()			(++kernel.clock_ns)
#define bpf_get_current_pid_tgid()		0
#define bpf_get_current_cgroup_id()		0
#define bpf_get_current_uid_gid()		0
#define bpf_get_current_comm(to, n)		memset(to, 0, n)
#define intern_workload_current()		1
#define fine_index(ns)				0
#define shard()					0

static inline void count_drop(enum kilter_drop reason)
{
	kernel.drops[reason]++;
}

static inline long bpf_skb_load_bytes(const struct __sk_buff *skb, uint32_t off, void *to,
				      uint32_t len)
{
	(void)skb;
	if (off > kernel.packet_len || len > kernel.packet_len - off)
		return -14; /* EFAULT */
	memcpy(to, kernel.packet + off, len);
	return 0;
}

/* --- What the guard is told of a socket's requests: this one has no circuit. */

struct kilter_sock;

static inline bool sock_has_circuit(const struct kilter_sock *s)
{
	(void)s;
	return false;
}

static inline void sock_guard_join(struct kilter_sock *s)
{
	(void)s;
}

static inline void sock_guard_tell(struct kilter_sock *s, uint64_t what, uint64_t now_ns)
{
	(void)s;
	(void)what;
	(void)now_ns;
}

static inline bool sock_guard_wants(const struct kilter_sock *s, uint16_t status, uint8_t error)
{
	(void)s;
	(void)status;
	(void)error;
	return false;
}

static inline void sock_guard_request(struct kilter_sock *s, uint16_t status, uint8_t error,
				      uint64_t ns, uint64_t now_ns)
{
	(void)s;
	(void)status;
	(void)error;
	(void)ns;
	(void)now_ns;
}

/* --- The input: a source of small decisions; when it is used up, all are 0. */

struct input {
	const uint8_t *at, *end;
};

static inline uint32_t pick(struct input *in, uint32_t below)
{
	uint32_t v = 0;

	if (below <= 1)
		return 0;
	for (int bytes = below > 256 ? 2 : 1; bytes; bytes--)
		v = v << 8 | (in->at < in->end ? *in->at++ : 0);
	return v % below;
}

static inline bool chance(struct input *in, uint32_t one_in)
{
	return pick(in, one_in) == one_in - 1;
}

#endif
