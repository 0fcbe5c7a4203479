/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Routes: a path is normalised as it is hashed, one byte at a time, so that the kernel needs
 * neither a second pass nor a buffer. Segments that look like identifiers collapse to
 * "{id}": those with a digit in them (but not a version such as "v1"), and those longer than
 * 32 bytes. The query is cut off. The same state machine writes the template's text
 * in user space: equal templates have equal hashes.
 *
 * A method of gRPC, "/package.Service/Method", is a name, whatever digits it has and however long
 * it is: "/grpc.health.v1.Health/Check". That a request is gRPC is known only after its path, so
 * the path's looks decide: enum kilter_route_name.
 */
#ifndef KILTER_ROUTE_H
#define KILTER_ROUTE_H

#include <kilter/identity.h>
#include <kilter/types.h>

#define KILTER_ROUTE_SEGMENT_MAX 32
#define KILTER_ROUTE_SEGMENTS	 8 /* what follows the eighth counts as one "{rest}" */

/*
 * What the first segment looks like, and the one behind it, a bit each. A service: words of lower
 * case with dots between, and a last word that begins in upper case, as the style guide of protocol
 * buffers has it; one without a package is like any other segment. A method: a word, after a
 * service. Each begins with a letter and is of letters, digits and '_'. 0: neither.
 */
enum kilter_route_name {
	KILTER_NAME_START = 1 << 0,   /* before the first byte of the first segment */
	KILTER_NAME_PACKAGE = 1 << 1, /* in a word of lower case */
	KILTER_NAME_DOT = 1 << 2,     /* after a dot */
	KILTER_NAME_SERVICE = 1 << 3, /* in the last word */
	KILTER_NAME_METHOD = 1 << 4,  /* before the first byte of what follows a service */
	KILTER_NAME_WORD = 1 << 5,    /* in it */
};

struct kilter_route_hash {
	__u32 hash;	/* of the finished segments */
	__u32 segment;	/* of the bytes of this one */
	__u32 len;	/* of this segment */
	__u32 digits;	/* in it */
	__u32 segments; /* finished */
	__u32 first;	/* its first byte */
	__u32 name;	/* enum kilter_route_name */
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
	r->name = 0;
}

/* True when the segment read so far stands for an identifier. */
static inline __attribute__((always_inline)) int
kilter_route_is_id(const struct kilter_route_hash *r)
{
	if (r->name & (KILTER_NAME_SERVICE | KILTER_NAME_WORD))
		return 0;
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
	/* What is before the first slash is a segment, too, and empty. */
	r->name = (r->segments - 1) >> 31 | (r->name & KILTER_NAME_SERVICE) << 1;
	r->segments++;
	r->segment = 0;
	r->len = 0;
	r->digits = 0;
	r->first = 0;
}

/* 1 when c is one of the n characters from `from` on, else 0, without branches for the verifier's
 * sake: what is below borrows into the top bit. */
static inline __attribute__((always_inline)) __u32 kilter_route_among(__u32 c, __u32 from, __u32 n)
{
	return (c - from - n) >> 31 & ~((c - from) >> 31);
}

/* The next state of enum kilter_route_name: the bits move by shifts, without branches as well. */
static inline __attribute__((always_inline)) __u32 kilter_route_name_next(__u32 name, __u32 c,
									  __u32 digit)
{
	__u32 upper = kilter_route_among(c, 'A', 26);
	__u32 lower = kilter_route_among(c, 'a', 26) | kilter_route_among(c, '_', 1);
	__u32 begins = (name << 1 | name >> 1) & KILTER_NAME_PACKAGE;

	return (begins | (name & KILTER_NAME_PACKAGE)) * lower |
	       (name & KILTER_NAME_PACKAGE) * digit |
	       (name << 1 & KILTER_NAME_DOT) * kilter_route_among(c, '.', 1) |
	       (name << 1 & KILTER_NAME_SERVICE) * upper |
	       (name << 1 & KILTER_NAME_WORD) * (lower | upper) |
	       (name & (KILTER_NAME_SERVICE | KILTER_NAME_WORD)) * (lower | upper | digit);
}

/* One byte of the path; '?', '#', space and the end are the caller's to see. */
static inline __attribute__((always_inline)) void kilter_route_byte(struct kilter_route_hash *r,
								    __u8 c)
{
	__u32 digit;

	if (c == '/') {
		kilter_route_segment(r);
		return;
	}
	digit = kilter_route_among(c, '0', 10);
	/* 1 when this is the first byte, else 0. */
	r->first += c * ((r->len - 1) >> 31);
	r->segment = r->segment * 31 + c + 1;
	r->len++;
	r->digits += digit;
	/* Most bytes are behind the first segment, and of those none is looked at twice. */
	if (r->name)
		r->name = kilter_route_name_next(r->name, c, digit);
}

static inline __attribute__((always_inline)) __u32 kilter_route_end(struct kilter_route_hash *r)
{
	kilter_route_segment(r);
	if (r->segments > KILTER_ROUTE_SEGMENTS)
		r->hash = kilter_hash_word(r->hash, 0x72657374); /* rest */
	return kilter_hash_end(r->hash);
}

#endif
