/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* HTTP/2's frame header (RFC 9113 section 4.1), and how its connections are told from others. */
#ifndef KILTER_BPF_HTTP2_FRAME_H
#define KILTER_BPF_HTTP2_FRAME_H

#include "lib/scratch.h"

#define HTTP2_FRAME_HEAD 9
#define HTTP2_PREFACE	 24	    /* bytes: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", section 3.4 */
#define HTTP2_FRAME_SURE (1u << 14) /* longer frames have to be agreed on first, section 4.2 */

enum http2_frame_type { /* section 6 */
	HTTP2_DATA = 0,
	HTTP2_HEADERS = 1,
	HTTP2_PRIORITY = 2,
	HTTP2_RST_STREAM = 3,
	HTTP2_SETTINGS = 4,
	HTTP2_PUSH_PROMISE = 5,
	HTTP2_PING = 6,
	HTTP2_GOAWAY = 7,
	HTTP2_WINDOW_UPDATE = 8,
	HTTP2_CONTINUATION = 9,
};

#define HTTP2_END_STREAM    0x01 /* DATA, HEADERS */
#define HTTP2_END_HEADERS   0x04 /* HEADERS, PUSH_PROMISE, CONTINUATION */
#define HTTP2_PADDED	    0x08 /* DATA, HEADERS, PUSH_PROMISE */
#define HTTP2_PRIORITY_FLAG 0x20 /* HEADERS */

/* A frame header from its first eight bytes, big-endian, and its ninth. */
#define HTTP2_LENGTH(w)	   ((__u32)((w) >> 40))
#define HTTP2_TYPE(w)	   ((__u8)((w) >> 32))
#define HTTP2_FLAGS(w)	   ((__u8)((w) >> 24))
#define HTTP2_STREAM(w, b) ((__u32)((w)&0x7fffff) << 8 | (b))
#define HTTP2_RESERVED(w)  ((w) >> 23 & 1)

/* The frame header at buf[at]: its first eight bytes. */
static __always_inline __u64 http2_head_at(const struct scratch *sc, __u32 at)
{
	return __builtin_bswap64(word_at(sc, at));
}

/* A frame that a stream can be joined at: a whole head of a request or a response, whose place and
 * shape leave less than one in 2^30 to chance. */
static __always_inline bool http2_joins(__u64 w, __u8 last)
{
	return HTTP2_LENGTH(w) && HTTP2_LENGTH(w) <= HTTP2_FRAME_SURE &&
	       HTTP2_TYPE(w) == HTTP2_HEADERS && HTTP2_FLAGS(w) & HTTP2_END_HEADERS &&
	       !(HTTP2_FLAGS(w) &
		 ~(HTTP2_END_STREAM | HTTP2_END_HEADERS | HTTP2_PADDED | HTTP2_PRIORITY_FLAG)) &&
	       !HTTP2_RESERVED(w) && last & 1;
}

/*
 * Are the bytes at buf[line] of a connection that speaks HTTP/2? The client begins with the
 * preface; the server, who may speak first, with SETTINGS. In the middle of one (`joining`):
 * a head at the beginning of a segment.
 */
static __always_inline bool http2_speaks(const struct scratch *sc, bool request, bool joining)
{
	__u32 at = sc->line;
	__u64 w = http2_head_at(sc, at);
	__u8 last = byte_at(sc, at + 8);

	if (sc->len - at < HTTP2_FRAME_HEAD)
		return false;
	if (joining)
		return http2_joins(w, last);
	if (request)
		return w == 0x505249202a204854ull; /* "PRI * HT" */
	return HTTP2_LENGTH(w) <= HTTP2_FRAME_SURE && HTTP2_LENGTH(w) % 6 == 0 &&
	       HTTP2_TYPE(w) == HTTP2_SETTINGS && !HTTP2_FLAGS(w) && !(w & 0xffffff) && !last;
}

#endif
