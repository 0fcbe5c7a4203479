/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where the parsers' payload comes from: a packet, or (in sockops) a first segment that was kept.
 */
#ifndef KILTER_BPF_PAYLOAD_H
#define KILTER_BPF_PAYLOAD_H

#include "lib/scratch.h"

#define PAYLOAD_WINDOW 512 /* bytes read at a time */

#ifdef PAYLOAD_FROM_MEMORY
#define PAYLOAD_CTX struct bpf_sock_ops

/* A global function: its loops are verified once. */
__noinline int early_read(__u32 slot, __u32 off, __u32 at)
{
	struct scratch *sc = scratch_at(slot);
	__u32 zero = 0;
	const struct sock_early *e = bpf_map_lookup_elem(&early_segment, &zero);

	if (!e || !sc)
		return -1;
	for (__u32 i = 0; i < PAYLOAD_WINDOW; i++)
		sc->buf[(at + i) & (SCRATCH_BYTES - 1)] =
		    e->data[(off + i) & (SOCK_EARLY_BYTES - 1)];
	return 0;
}

static __always_inline long payload_read(struct bpf_sock_ops *ctx, __u32 off, struct scratch *sc,
					 __u32 at, __u32 n)
{
	return early_read(sc->slot, off, at);
}
#else
#define PAYLOAD_CTX struct __sk_buff

static __always_inline long payload_read(struct __sk_buff *skb, __u32 off, struct scratch *sc,
					 __u32 at, __u32 n)
{
	return bpf_skb_load_bytes(skb, off, &sc->buf[at], n);
}
#endif

#endif
