/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Header compression for HTTP/2 (RFC 7541), as far as requests are counted by it: the method, the
 * path, the status, gRPC's status. All else is passed over by its length.
 *
 * The dynamic table is what makes this worth its while: nearly every field of a busy connection
 * is a number into it. It is kept without sizes and without eviction. A number counts back from
 * the newest entry, so the last HPACK_ENTRIES insertions are all that a table of 4096 bytes can be
 * asked for; and an encoder that keeps to the RFC asks for nothing that was evicted.
 */
#ifndef KILTER_BPF_HPACK_H
#define KILTER_BPF_HPACK_H

#include "lib/http2_streams.h"
#include "lib/route.h"
#include "protocols/http1_text.h"

#define HPACK_STATIC 61 /* entries of the static table, appendix A */

/* In the work space, behind the window: a string that segments have cut; a string decoded. */
#define HPACK_KEPT_AT 640
#define HPACK_TEXT_AT 896
_Static_assert(HPACK_KEPT_AT + HPACK_TEXT_MAX + 8 <= HPACK_TEXT_AT, "beside each other");
_Static_assert(HPACK_TEXT_AT + HPACK_TEXT_MAX + 8 <= SCRATCH_BYTES, "inside");

/*
 * Appendix B. The codes of 5 to 8 bits, which are those of all that a path or a number is made
 * of, stand in the order of their values: the first of 6 bits follows the last of 5, and so on.
 * Then the few longer ones that a URI may hold or that end its path.
 */
static const char hpack_symbols[128] = "012aceiost"			  /* 00000 on */
				       " %-./3456789=A_bdfghlmnpru"	  /* 010100 on */
				       ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz" /* 1011100 on */
				       "&*,;XZ";			  /* 11111000 on */

/* The code at bit `bit` of buf[at]. Returns the symbol above its length; 0: one that is in no URI.
 * A global function: the verifier takes it once. */
__noinline __u32 hpack_code(__u32 slot, __u32 at, __u32 bit)
{
	const struct scratch *sc = scratch_at(slot);
	__u64 w = sc ? __builtin_bswap64(word_at(sc, at + (bit >> 3))) << (bit & 7) : 0;
	__u32 top = w >> 56, long_ = w >> 51; /* 8 bits; 13 bits */
	__u32 bits;

	if (top < 0x50) {
		at = top >> 3;
		bits = 5;
	} else if (top < 0xb8) {
		at = (top >> 2) - 0x14 + 10;
		bits = 6;
	} else if (top < 0xf8) {
		at = (top >> 1) - 0x5c + 36;
		bits = 7;
	} else if (top < 0xfe) {
		at = top - 0xf8 + 68;
		bits = 8;
	} else if (long_ >> 3 < 0x3fd) { /* ten bits: !"()? */
		at = long_ >> 3;
		return (at == 0x3f8   ? '!'
			: at == 0x3f9 ? '"'
			: at == 0x3fa ? '('
			: at == 0x3fb ? ')'
				      : '?')
			   << 8 |
		       10;
	} else if (long_ >> 2 < 0x7fd) { /* eleven: '+| */
		at = long_ >> 2;
		return (at == 0x7fa ? '\'' : at == 0x7fb ? '+' : '|') << 8 | 11;
	} else if (long_ >> 1 < 0xffc) { /* twelve: #> */
		return (long_ >> 1 == 0xffa ? '#' : '>') << 8 | 12;
	} else if (long_ < 0x1ffe) { /* thirteen: NUL $@[]~ */
		at = long_ - 0x1ff8;
		return (at == 1	  ? '$'
			: at == 2 ? '@'
			: at == 3 ? '['
			: at == 4 ? ']'
				  : '~')
			   << 8 |
		       13;
	} else {
		return 0;
	}
	barrier_var(at);
	return (__u32)hpack_symbols[at & 127] << 8 | bits;
}

#define HPACK_HUFFMAN (1u << 31) /* beside a length */

/*
 * The string of n bytes at buf[at] as text at buf[HPACK_TEXT_AT], with a space behind it. Returns
 * the text's length. A global function: the verifier takes it once.
 */
__noinline __u32 hpack_text(__u32 slot, __u32 at, __u32 length)
{
	struct scratch *sc = scratch_at(slot);
	__u32 n = length & ~HPACK_HUFFMAN, bit = 0, len = 0;

	if (!sc)
		return 0;
	if (n > HPACK_TEXT_MAX)
		n = HPACK_TEXT_MAX;
	if (length & HPACK_HUFFMAN) {
		for (; len < HPACK_TEXT_MAX; len++) {
			__u32 code = hpack_code(slot, at, bit);

			bit += code & 0xff;
			if (!code || bit > 8 * n)
				break; /* what is left is padding */
			sc->buf[(HPACK_TEXT_AT + len) & (SCRATCH_BYTES - 1)] = code >> 8;
		}
	} else {
		__u32 step = WORD(sc); /* 8: unrolled, it would want a register a word */

		for (__u32 i = 0; i < HPACK_TEXT_MAX / 8; i++, at += step, len += step)
			*(volatile __u64 *)&sc->buf[(HPACK_TEXT_AT + len) & (SCRATCH_BYTES - 1)] =
			    word_at(sc, at);
		len = n;
	}
	sc->buf[(HPACK_TEXT_AT + len) & (SCRATCH_BYTES - 1)] = ' ';
	return len;
}

/* The route of a path, n bytes at buf[at]. What was seen lately is known by its bytes as sent. */
static __always_inline __u32 hpack_route(__u32 slot, __u32 workload, __u32 at, __u32 length)
{
	struct scratch *sc = scratch_at(slot);
	__u64 tag = 0x2545f4914f6cdd1dull ^ length;
	__u32 n = length & ~HPACK_HUFFMAN, place;
	struct route_cached *cached;

	if (!sc)
		return 0;
	for (__u32 i = 0; i < HPACK_TEXT_MAX && i < n; i += 8) {
		__u64 w = word_at(sc, at + i);

		if (n - i < 8)
			w &= LOW(n - i);
		tag = (tag ^ w) * 0xff51afd7ed558ccdull;
		tag ^= tag >> 32;
	}
	place = (tag >> 40 ^ workload) & (ROUTE_CACHE - 1);
	cached = bpf_map_lookup_elem(&route_cache, &place);
	if (cached && cached->tag == tag && cached->workload == workload)
		return cached->id;
	n = hpack_text(slot, at, length);
	n = route_find(slot, workload, HPACK_TEXT_AT, HPACK_TEXT_AT + n);
	if (cached) { /* as in route_by_tag() */
		cached->tag = 0;
		cached->workload = workload;
		cached->id = n;
		cached->tag = tag;
	}
	return n;
}

static __always_inline __u64 hpack_entry(__u32 kind, __u32 value)
{
	return (__u64)kind << 32 | value;
}

/* The static table. A path's value is 0 here: hpack_static_path(). */
static __always_inline __u64 hpack_static(__u32 index)
{
	switch (index) {
	case 2:
		return hpack_entry(HPACK_METHOD, KILTER_METHOD_GET);
	case 3:
		return hpack_entry(HPACK_METHOD, KILTER_METHOD_POST);
	case 4:
	case 5:
		return hpack_entry(HPACK_PATH, 0);
	case 8:
		return hpack_entry(HPACK_STATUS, 200);
	case 9:
		return hpack_entry(HPACK_STATUS, 204);
	case 10:
		return hpack_entry(HPACK_STATUS, 206);
	case 11:
		return hpack_entry(HPACK_STATUS, 304);
	case 12:
		return hpack_entry(HPACK_STATUS, 400);
	case 13:
		return hpack_entry(HPACK_STATUS, 404);
	case 14:
		return hpack_entry(HPACK_STATUS, 500);
	case 31:
		return hpack_entry(HPACK_CONTENT_TYPE, 0);
	}
	return 0;
}

/* The route of "/" and of "/index.html", entries 4 and 5. */
static __always_inline __u32 hpack_static_path(__u32 slot, __u32 workload, __u32 index)
{
	struct scratch *sc = scratch_at(slot);
	__u64 *to;

	if (!sc)
		return 0;
	to = (__u64 *)&sc->buf[HPACK_TEXT_AT];
	to[0] = index == 4 ? W8('/', ' ', 0, 0, 0, 0, 0, 0)
			   : W8('/', 'i', 'n', 'd', 'e', 'x', '.', 'h');
	to[1] = W8('t', 'm', 'l', ' ', 0, 0, 0, 0);
	return route_of(slot, workload, HPACK_TEXT_AT, HPACK_TEXT_AT + (index == 4 ? 1 : 11));
}

/* What a name spelt out is: n bytes at buf[at]. Encoders have all of these but gRPC's from the
 * static table; they need not. */
__noinline __u32 hpack_name(__u32 slot, __u32 at, __u32 length)
{
	struct scratch *sc = scratch_at(slot);
	__u32 n = length & ~HPACK_HUFFMAN;
	__u64 w, next;
	__u8 c;

	if (!sc || !n || n > 16)
		return HPACK_OTHER;
	c = byte_at(sc, at);
	/* Begins with ':', 'g' or "co"? Huffman: 1011100, 100110, 00100'00111. */
	if (length & HPACK_HUFFMAN ? c >> 1 != 0x5c && c >> 2 != 0x26 && c != 0x21
				   : c != ':' && c != 'g' && c != 'c')
		return HPACK_OTHER;
	n = hpack_text(slot, at, length);
	w = word_at(sc, HPACK_TEXT_AT);
	next = word_at(sc, HPACK_TEXT_AT + 8);
	if (n == 5 && (w & LOW(5)) == W8(':', 'p', 'a', 't', 'h', 0, 0, 0))
		return HPACK_PATH;
	if (n == 7 && (w & LOW(7)) == W8(':', 'm', 'e', 't', 'h', 'o', 'd', 0))
		return HPACK_METHOD;
	if (n == 7 && (w & LOW(7)) == W8(':', 's', 't', 'a', 't', 'u', 's', 0))
		return HPACK_STATUS;
	if (n == 11 && w == W8('g', 'r', 'p', 'c', '-', 's', 't', 'a') &&
	    (next & LOW(3)) == W4('t', 'u', 's', 0))
		return HPACK_GRPC_STATUS;
	if (n == 12 && w == W8('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
	    (next & LOW(4)) == W4('t', 'y', 'p', 'e'))
		return HPACK_CONTENT_TYPE;
	return HPACK_OTHER;
}

/* The value of a field of this kind: `length` bytes at buf[at], of which HPACK_TEXT_MAX at most are
 * there. */
__noinline __u32 hpack_value(__u32 slot, __u32 kind, __u32 workload, __u32 at, __u32 length)
{
	struct scratch *sc = scratch_at(slot);
	__u32 n, a, b, c;
	__u64 w;

	if (!sc)
		return 0;
	if ((length & ~HPACK_HUFFMAN) > HPACK_TEXT_MAX)
		length = (length & HPACK_HUFFMAN) | HPACK_TEXT_MAX;
	if (kind == HPACK_PATH)
		return hpack_route(slot, workload, at, length);
	/* "application/grpc": most content types begin otherwise. Huffman: 'a', and 'p' begun. */
	if (kind == HPACK_CONTENT_TYPE && byte_at(sc, at) != (length & HPACK_HUFFMAN ? 0x1d : 'a'))
		return 0;
	n = hpack_text(slot, at, length);
	w = word_at(sc, HPACK_TEXT_AT);
	a = (w & 0xff) - '0';
	b = (w >> 8 & 0xff) - '0';
	c = (w >> 16 & 0xff) - '0';
	switch (kind) {
	case HPACK_METHOD:
		return parse_method(slot, HPACK_TEXT_AT) >> METHOD_SHIFT;
	case HPACK_STATUS:
		return n == 3 && a <= 9 && b <= 9 && c <= 9 ? a * 100 + b * 10 + c : 0;
	case HPACK_GRPC_STATUS: /* a code that does not exist is UNKNOWN to the libraries */
		if (n == 1 && a <= 9)
			return a;
		return n == 2 && a == 1 && b <= 6 ? 10 + b : 2;
	case HPACK_CONTENT_TYPE: /* then '+' or ';' or nothing: grpc-web is another protocol */
		c = byte_at(sc, HPACK_TEXT_AT + 16);
		return (c == ' ' || c == '+' || c == ';') &&
		       w == W8('a', 'p', 'p', 'l', 'i', 'c', 'a', 't') &&
		       word_at(sc, HPACK_TEXT_AT + 8) == W8('i', 'o', 'n', '/', 'g', 'r', 'p', 'c');
	}
	return 0;
}

/* A field of the table by its number, from 1. 0 ends nothing: it is no number. */
static __always_inline __u64 hpack_lookup(const struct http2_direction *d, __u32 index)
{
	__u32 back = index - HPACK_STATIC; /* 1: the newest */

	if (index <= HPACK_STATIC)
		return hpack_static(index);
	if (back > d->known)
		return hpack_entry(HPACK_UNKNOWN, 0);
	back = (d->inserted - back) & (HPACK_ENTRIES - 1);
	barrier_var(back);
	return d->table[back & (HPACK_ENTRIES - 1)];
}

static __always_inline void hpack_insert(struct http2_direction *d, __u64 entry)
{
	__u32 at = d->inserted & (HPACK_ENTRIES - 1);

	barrier_var(at);
	d->table[at & (HPACK_ENTRIES - 1)] = entry;
	d->inserted++;
	if (d->known < HPACK_ENTRIES)
		d->known++;
}

#endif
