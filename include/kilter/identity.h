/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Identities are small integers interned in the kernel. An id is the hash of what it
 * stands for; a collision moves on to the next integer (KILTER_INTERN_PROBES times, then
 * it is dropped and counted). Being a hash, an id is the same after a restart, and user
 * space can compute the id of a destination that has not been seen yet.
 * Id 0 never names anything: it is "unknown" in a series and "any" in a guard key.
 */
#ifndef KILTER_IDENTITY_H
#define KILTER_IDENTITY_H

#include <kilter/limits.h>
#include <kilter/types.h>

/* Map "workloads": __u32 id -> struct kilter_workload. The key part is hashed. */
struct kilter_workload_key {
	__u64 cgroup_id;
	char exe[KILTER_EXE_LEN]; /* basename of the executable, zero-padded */
};

struct kilter_workload {
	struct kilter_workload_key key;
	__u64 first_seen_ns; /* CLOCK_BOOTTIME */
	__u32 pid;	     /* thread group that was seen first */
	__u32 uid;
	char comm[KILTER_COMM_LEN];
};

enum kilter_family {
	KILTER_FAMILY_LOCAL = 0, /* a local port, whatever the address: the server side */
	KILTER_FAMILY_V4 = 4,
	KILTER_FAMILY_V6 = 6,
};

enum kilter_transport {
	KILTER_TRANSPORT_TCP = 0,
	KILTER_TRANSPORT_UDP = 17, /* IPPROTO_UDP */
};

/*
 * Map "peers": __u32 id -> struct kilter_peer, which is also what is hashed.
 * IPv4 takes addr[0..3] and the rest is zero; an IPv4-mapped IPv6 address is IPv4.
 * With KILTER_FAMILY_LOCAL addr is zero and port_be is the port that was listened on.
 */
struct kilter_peer {
	__u8 addr[16];
	__be16 port_be;
	__u8 family;
	__u8 transport; /* enum kilter_transport */
};

/* Map "routes": __u32 id -> struct kilter_route. Hashed: workload, normalised path. */
struct kilter_route {
	__u32 workload;
	__u32 path_len;			  /* bytes used in path */
	char path[KILTER_ROUTE_PATH_LEN]; /* the first path seen, raw: user space normalises it */
};

_Static_assert(sizeof(struct kilter_workload_key) == 32, "no holes");
_Static_assert(sizeof(struct kilter_workload) == 64, "no holes");
_Static_assert(sizeof(struct kilter_peer) == 20, "no holes");
_Static_assert(sizeof(struct kilter_route) == 8 + KILTER_ROUTE_PATH_LEN, "no holes");

/* One round of the murmur3 mixing (Austin Appleby, public domain) over a 32-bit word. */
static inline __u32 kilter_hash_word(__u32 h, __u32 word)
{
	word *= 0xcc9e2d51u;
	word = (word << 15) | (word >> 17);
	word *= 0x1b873593u;
	h ^= word;
	h = (h << 13) | (h >> 19);
	return h * 5 + 0xe6546b64u;
}

/* The murmur3 finaliser; never returns 0, which is no id. */
static inline __u32 kilter_hash_end(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6bu;
	h ^= h >> 13;
	h *= 0xc2b2ae35u;
	h ^= h >> 16;
	return h ? h : 1;
}

/* The id to try first for an object of `words` 32-bit words. */
static inline __attribute__((always_inline)) __u32 kilter_hash_words(const __u32 *w,
								     unsigned int words)
{
	__u32 h = 0x6b696c74; /* "kilt" */

	for (unsigned int i = 0; i < words; i++)
		h = kilter_hash_word(h, w[i]);
	return kilter_hash_end(h);
}

#endif
