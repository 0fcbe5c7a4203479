/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Routes: a path is normalised as it is hashed, one byte at a time, so that the kernel needs
 * neither a second pass nor a buffer. Segments that look like identifiers collapse to
 * "{id}": those with a digit in them (but not a version such as "v1"), and those longer than
 * 32 bytes. The query is cut off. The same state machine writes the template's text
 * in user space: equal templates have equal hashes.
 */
#ifndef KILTER_ROUTE_H
#define KILTER_ROUTE_H

#include <kilter/identity.h>
#include <kilter/types.h>

#define KILTER_ROUTE_SEGMENT_MAX 32
#define KILTER_ROUTE_SEGMENTS	 8 /* what follows the eighth counts as one "{rest}" */

struct kilter_route_hash {
	__u32 hash;	/* of the finished segments */
	__u32 segment;	/* of the bytes of this one */
	__u32 len;	/* of this segment */
	__u32 digits;	/* in it */
	__u32 segments; /* finished */
	__u32 first;	/* its first byte */
};

static inline __attribute__((always_inline)) void kilter_route_begin(struct kilter_route_hash *r,
								     __u32 workload)
{
	r->hash = kilter_hash_word(0x726f7574, workload); /* "rout" */
	r->segment = 0;
	r->len = 0;
	r->digits = 0;
	r->segments = 0;
	r->first = 0;
}

/* True when the segment read so far stands for an identifier. */
static inline __attribute__((always_inline)) int
kilter_route_is_id(const struct kilter_route_hash *r)
{
	if (r->len > KILTER_ROUTE_SEGMENT_MAX)
		return 1;
	if (!r->digits)
		return 0;
	return !(r->first == 'v' && r->len <= 3 && r->digits == r->len - 1);
}

static inline __attribute__((always_inline)) void kilter_route_segment(struct kilter_route_hash *r)
{
	__u32 word = kilter_route_is_id(r) ? 0x7b69647du /* {id} */ : r->segment;

	if (r->segments < KILTER_ROUTE_SEGMENTS)
		r->hash = kilter_hash_word(r->hash, word);
	r->segments++;
	r->segment = 0;
	r->len = 0;
	r->digits = 0;
	r->first = 0;
}

/* One byte of the path; '?', '#', space and the end are the caller's to see. */
static inline __attribute__((always_inline)) void kilter_route_byte(struct kilter_route_hash *r,
								    __u8 c)
{
	if (c == '/') {
		kilter_route_segment(r);
		return;
	}
	/* Without branches, for the verifier's sake: 1 when this is the first byte; 1 when it is
	 * a digit (below ten, minus ten, borrows into the top bit). */
	r->first += c * ((r->len - 1) >> 31);
	r->segment = r->segment * 31 + c + 1;
	r->len++;
	r->digits += ((__u32)c - '0' - 10) >> 31 & ~(((__u32)c - '0') >> 31);
}

static inline __attribute__((always_inline)) __u32 kilter_route_end(struct kilter_route_hash *r)
{
	kilter_route_segment(r);
	if (r->segments > KILTER_ROUTE_SEGMENTS)
		r->hash = kilter_hash_word(r->hash, 0x72657374); /* rest */
	return kilter_hash_end(r->hash);
}

#endif
