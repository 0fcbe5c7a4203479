/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment on its way to the parsers of HTTP, which are included before this: the packet that it
 * is in, its place in the stream, and the work space that the parsers share.
 */
#ifndef KILTER_FUZZ_SEGMENT_H
#define KILTER_FUZZ_SEGMENT_H

#include "kernel.h"
#include "lib/scratch.h"

#define SEGMENT_HEADERS 52 /* bytes before the payload */

static struct scratch slots[SCRATCH_SLOTS];
static struct bpf_sock bpf_sock;
static uint32_t first_seq[2]; /* of the requests' stream, and of the responses' */

static inline struct scratch *slot_at(uint32_t n)
{
	return n < SCRATCH_SLOTS ? &slots[n] : NULL;
}

/* What an earlier packet left in the scratch buffer must not matter. */
static inline void slots_begin(int left)
{
	memset(&slots, left, sizeof(slots));
	for (uint32_t i = 0; i < SCRATCH_SLOTS; i++) {
		slots[i].zero = 0;
		slots[i].busy = 0;
		slots[i].slot = 0;
	}
}

static inline void sock_begin(struct kilter_sock *s, struct input *in)
{
	s->role = chance(in, 2) ? KILTER_ROLE_SERVER : KILTER_ROLE_CLIENT;
	for (int d = 0; d < 2; d++)
		first_seq[d] = chance(in, 2) ? 0u - pick(in, 2000) : pick(in, 60000);
	s->request.next_seq = first_seq[0];
	s->response.next_seq = first_seq[1];
	s->request.has_seq = 1;
	s->response.has_seq = 1;
}

/* The kernel's packet is this payload behind its headers, in memory that ends where it ends. */
static inline struct __sk_buff segment_begin(const char *payload, size_t n)
{
	size_t len = SEGMENT_HEADERS + n;

	kernel.packet = calloc(1, len);
	if (!kernel.packet)
		abort();
	memcpy(kernel.packet + SEGMENT_HEADERS, payload, n);
	kernel.packet_len = len;
	return (struct __sk_buff){.len = (uint32_t)len, .sk = &bpf_sock};
}

/* By now whoever took work space has given it back. */
static inline void segment_end(void)
{
	free(kernel.packet); /* and kernel.packet stays: who reads it now is found out */
	for (int i = 0; i < SCRATCH_SLOTS; i++)
		if (slots[i].busy)
			abort();
}

#endif
