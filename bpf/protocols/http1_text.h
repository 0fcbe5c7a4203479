/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The text of HTTP/1 in the work space, eight bytes at a time: methods, numbers, lines, heads. What
 * it means for the stream is http1.h's. Global functions: the verifier takes each once, by the
 * number of its work space.
 */
#ifndef KILTER_BPF_HTTP1_TEXT_H
#define KILTER_BPF_HTTP1_TEXT_H

#include "lib/http1_queue.h"
#include "lib/route.h"

#define HTTP1_SCAN	   32 /* 8-byte words looked at per step */
#define HTTP1_SCAN_HEADERS 80 /* the same in header lines: a window is 64 words */

/* The n-letter prefix of a little-endian word, as a constant. */
#define W1(a)			   ((__u64)(__u8)(a))
#define W4(a, b, c, d)		   (W1(a) | W1(b) << 8 | W1(c) << 16 | W1(d) << 24)
#define W8(a, b, c, d, e, f, g, h) (W4(a, b, c, d) | W4(e, f, g, h) << 32)
#define LOW(n)			   ((1ull << (8 * (n))) - 1)
#define LOWER			   0x2020202020202020ull

/* Methods are case-sensitive tokens (RFC 9110 section 9.1). Returns the length of the method and
 * its space, and the method above METHOD_SHIFT; 0: there is none. */
#define METHOD_SHIFT 16

__noinline __u32 parse_method(__u32 slot, __u32 line)
{
	struct scratch *sc = scratch_at(slot);
	__u64 w;

	if (!sc)
		return 0;
	w = word_at(sc, line);

#define METHOD(name, n, word)       \
	if ((w & LOW(n)) == (word)) \
		return KILTER_METHOD_##name << METHOD_SHIFT | (n);
	METHOD(GET, 4, W4('G', 'E', 'T', ' '))
	METHOD(POST, 5, W8('P', 'O', 'S', 'T', ' ', 0, 0, 0))
	METHOD(PUT, 4, W4('P', 'U', 'T', ' '))
	METHOD(HEAD, 5, W8('H', 'E', 'A', 'D', ' ', 0, 0, 0))
	METHOD(DELETE, 7, W8('D', 'E', 'L', 'E', 'T', 'E', ' ', 0))
	METHOD(PATCH, 6, W8('P', 'A', 'T', 'C', 'H', ' ', 0, 0))
	METHOD(TRACE, 6, W8('T', 'R', 'A', 'C', 'E', ' ', 0, 0))
#undef METHOD
	if (w == W8('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		return KILTER_METHOD_OPTIONS << METHOD_SHIFT | 8;
	if (w == W8('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		return KILTER_METHOD_CONNECT << METHOD_SHIFT | 8;
	for (__u32 i = 0; i < 24; i++) {
		__u8 c = byte_at(sc, line + i);

		if (c == ' ')
			return i ? KILTER_METHOD_OTHER << METHOD_SHIFT | (i + 1) : 0;
		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '_' ||
		      (i && c >= '0' && c <= '9')))
			return 0;
	}
	return 0;
}

#define NO_NUMBER (~0ull)

/*
 * Numbers, as global functions: the verifier takes each once and its result as any number.
 * Content-Length: digits between optional blanks; 18 of them at most, so that it fits.
 */
__noinline __u64 parse_decimal(__u32 slot, __u32 at, __u32 nl)
{
	struct scratch *sc = scratch_at(slot);
	__u64 n = 0;
	__u32 digits = 0;

	if (!sc)
		return NO_NUMBER;
	for (int i = 0; i < 24; i++) {
		__u8 c = byte_at(sc, at + i);

		if (at + i >= nl)
			break;
		if (c >= '0' && c <= '9') {
			n = n * 10 + (c - '0');
			digits++;
		} else if ((c != ' ' && c != '\t') || digits) {
			break;
		}
	}
	return digits && digits <= 18 ? n : NO_NUMBER;
}

/* Chunk size: hexadecimal digits, then anything; 12 at most. */
__noinline __u64 parse_hex(__u32 slot, __u32 at, __u32 nl)
{
	struct scratch *sc = scratch_at(slot);
	__u64 n = 0;
	__u32 digits = 0;

	if (!sc)
		return NO_NUMBER;
	for (int i = 0; i < 16; i++) {
		__u8 c = byte_at(sc, at + i), lower = c | 0x20;

		if (at + i >= nl)
			break;
		if (c >= '0' && c <= '9')
			n = n << 4 | (c - '0');
		else if (lower >= 'a' && lower <= 'f')
			n = n << 4 | (lower - 'a' + 10);
		else
			break;
		digits++;
	}
	return digits && digits <= 12 ? n : NO_NUMBER;
}

/* Where LFs are among these eight bytes, as 0x80 bits: Mycroft's zero-byte test, whose lowest hit
 * is always true. */
static __always_inline __u64 lf_bits(__u64 w)
{
	w ^= 0x0a0a0a0a0a0a0a0aull;
	return (w - 0x0101010101010101ull) & ~w & 0x8080808080808080ull;
}

/* How many bytes lie below the lowest hit, which there is. */
static __always_inline __u32 bytes_before(__u64 bits)
{
	return bytes_below((bits & -bits) >> 7);
}

/*
 * Moves sc->pos behind the next LF and returns 1, or to where the search stopped (the end of
 * the valid bytes, or HTTP1_SCAN words on) and returns 0. A global function: verified once.
 */
__noinline int find_lf(__u32 slot)
{
	struct scratch *sc = scratch_at(slot);
	__u32 pos, len, word;

	if (!sc)
		return 0;
	pos = sc->pos;
	len = sc->len;
	word = WORD(sc);
	for (int i = 0; i < HTTP1_SCAN && pos < len; i++) {
		__u64 bits = lf_bits(word_at(sc, pos));

		if (bits) {
			pos += bytes_before(bits) + 1;
			if (pos > len) /* what follows the valid bytes is of an earlier load */
				break;
			sc->pos = pos;
			return 1;
		}
		pos += word;
	}
	sc->pos = pos < len ? pos : len;
	return 0;
}

/*
 * A header line that begins [line, nl) with Content- or Transfer: only Content-Length and
 * Transfer-Encoding say where the message ends. nl: its LF. A global function: verified once.
 */
__noinline int header_line(__u32 slot, __u32 line, __u32 nl)
{
	struct scratch *sc = scratch_at(slot);
	__u64 w, n, stop;

	if (!sc)
		return 0;
	if (byte_at(sc, nl - 1) == '\r')
		nl--;
	w = word_at(sc, line) | LOWER;
	if (w == W8('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		w = (word_at(sc, line + 8) | LOWER) & LOW(7);
		if (w != W8('l', 'e', 'n', 'g', 't', 'h', ':', 0))
			return 0;
		/* The usual form, a space and one to seven digits, in one go: each byte's value,
		 * where the digits stop, then pairs, fours and eights of them (SWAR). */
		n = word_at(sc, line + 16) ^ 0x3030303030303030ull;
		stop = ((n + 0x7676767676767676ull) | n) & 0x8080808080808080ull;
		stop = (stop & -stop) >> 7; /* one bit: the lowest of the byte that is no digit */
		if (byte_at(sc, line + 15) == ' ' && stop > 1 &&
		    line + 16 + bytes_below(stop) == nl) {
			n = (n & (stop - 1)) << (64 - 8 * bytes_below(stop));
			n = (n * 10 + (n >> 8)) & 0x00ff00ff00ff00ffull;
			n = (n * 100 + (n >> 16)) & 0x0000ffff0000ffffull;
			n = (n * 10000 + (n >> 32)) & 0xffffffffull;
		} else {
			n = parse_decimal(slot, line + 15, nl);
			if (n == NO_NUMBER)
				return 0;
		}
		sc->content_length = n;
		sc->fields |= HTTP1_CONTENT_LENGTH;
	} else {
		w = word_at(sc, line + 8) | LOWER;
		if (w != W8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') || nl < line + 25)
			return 0;
		/* RFC 9112 section 6.1: chunked is the last coding or not there. */
		w = (word_at(sc, nl - 7) | LOWER) & LOW(7);
		if (w == W8('c', 'h', 'u', 'n', 'k', 'e', 'd', 0))
			sc->fields |= HTTP1_CHUNKED;
	}
	return 0;
}

/*
 * Through header lines: what they say of the message's end goes to sc->fields. Returns 1 when
 * the empty line was passed, and 0 when the valid bytes (or HTTP1_SCAN_HEADERS words) are
 * through; sc->line is then where the line under way began. This is where most of the time
 * goes: one turn per eight bytes.
 */
static __always_inline int scan_fields(struct scratch *sc)
{
	__u32 pos = forgotten(sc->pos), len = forgotten(sc->len), line = forgotten(sc->line);
	__u32 zero = forgotten(sc->zero), word = zero + 8;

	for (int i = 0; i < HTTP1_SCAN_HEADERS && pos < len; i++) {
		__u64 bits = lf_bits(word_at(sc, pos)), w;
		__u32 next;

		if (!bits) {
			bits = lf_bits(word_after(sc, pos));
			pos += word;
			if (!bits) {
				pos += word;
				continue;
			}
		}
		next = pos + bytes_before(bits) + 1;
		if (next > len) { /* what follows the valid bytes is of an earlier load */
			pos = len;
			break;
		}
		w = word_at(sc, line);
		if (next - line < 3 && (next - line == 1 || (w & 0xff) == '\r')) {
			sc->pos = next;
			sc->line = next;
			return 1;
		}
		w |= LOWER;
		if ((w == W8('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
		     (byte_at(sc, line + 8) | 0x20) == 'l') ||
		    w == W8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r'))
			header_line(sc->slot, line, next - 1);
		pos = next + zero; /* any number, to the verifier: each line is like the first */
		line = pos;
	}
	sc->pos = pos < len ? pos : len;
	sc->line = line;
	return 0;
}

/* Global functions are verified once. */
__noinline int scan_headers(__u32 slot)
{
	struct scratch *sc = scratch_at(slot);

	return sc ? scan_fields(sc) : 0;
}

/*
 * The usual case in one go: a whole head, start line and headers, at the front of the buffer.
 * Returns 1 with sc->start, sc->fields, sc->content_length, for a request sc->path_tag and
 * sc->path_end, and sc->pos behind the head; 0: not that, the parser has to take its steps.
 */
__noinline int read_head(__u32 slot, __u32 request)
{
	struct scratch *sc = scratch_at(slot);
	__u32 pos, len, n, method, word;
	__u64 w, bits = 0;

	if (!sc)
		return 0;
	pos = sc->pos; /* 0, which the verifier need not know */
	len = sc->len;
	w = word_at(sc, 0);
	sc->fields = 0;
	word = WORD(sc);
	for (int i = 0; i < HTTP1_SCAN_HEADERS && pos < len; i++) {
		bits = lf_bits(word_at(sc, pos));
		if (bits)
			break;
		bits = lf_bits(word_after(sc, pos));
		pos += word;
		if (bits)
			break;
		pos += word;
	}
	sc->pos = pos + bytes_before(bits);
	pos = forgotten(sc->pos);
	len = forgotten(sc->len);
	if (!bits || pos >= len || byte_at(sc, pos - 1) != '\r')
		return 0;
	if (request) {
		if (pos < 15 ||
		    (word_at(sc, pos - 9) & LOW(7)) != W8('H', 'T', 'T', 'P', '/', '1', '.', 0))
			return 0;
		if ((w & LOW(4)) == W4('G', 'E', 'T', ' '))
			method = KILTER_METHOD_GET << METHOD_SHIFT | 4;
		else if ((w & LOW(5)) == W8('P', 'O', 'S', 'T', ' ', 0, 0, 0))
			method = KILTER_METHOD_POST << METHOD_SHIFT | 5;
		else
			method = parse_method(slot, 0);
		n = method & ((1u << METHOD_SHIFT) - 1);
		if (!method || method >> METHOD_SHIFT == KILTER_METHOD_CONNECT || pos - 1 < n + 9)
			return 0;
		sc->start = method;
		sc->path_end = pos - 1;
		sc->path_tag = path_hash(sc, n);
	} else {
		__u32 a, b, c;

		if ((w & LOW(7)) != W8('H', 'T', 'T', 'P', '/', '1', '.', 0) || pos < 13)
			return 0;
		w = word_at(sc, 8) ^ W4(' ', '0', '0', '0');
		a = w >> 8 & 0xff;
		b = w >> 16 & 0xff;
		c = w >> 24 & 0xff;
		if ((w & 0xff) || a - 1 > 8 || b > 9 || c > 9)
			return 0;
		sc->start = a * 100 + b * 10 + c;
	}
	sc->pos = pos + 1;
	sc->line = pos + 1;
	return scan_fields(sc);
}

#endif
