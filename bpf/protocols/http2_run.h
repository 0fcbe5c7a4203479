/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A run over the payload of a segment, or over what was kept of one: what its readers share. A
 * window of it is in the work space, and the frame under way grows shorter as it is read.
 */
#ifndef KILTER_BPF_HTTP2_RUN_H
#define KILTER_BPF_HTTP2_RUN_H

#include "lib/http2_ahead.h"

struct http2_run {
	struct kilter_sock *s;
	struct http2 *h;
	struct http2_direction *d;
	struct scratch *sc;
};

/* More of the payload, with what is left in the buffer at its front. */
static __noinline int http2_load(PAYLOAD_CTX *ctx, struct scratch *sc)
{
	__u64 n;

	sc->off -= sc->len - sc->pos;
	n = sc->end - sc->off;
	sc->pos = 0;
	sc->len = 0;
	if (n > PAYLOAD_WINDOW)
		n = PAYLOAD_WINDOW;
	if (!n)
		return 0;
	bound_length(n, PAYLOAD_WINDOW);
	if (sc->ahead ? http2_ahead_read(sc->slot) : payload_read(ctx, sc->off, sc, 0, n)) {
		count_drop(KILTER_DROP_HTTP2_LOAD);
		return 0;
	}
	sc->off += n;
	sc->len = n;
	return 1;
}

static __always_inline void http2_take(const struct http2_run *r, __u32 n)
{
	r->sc->pos += n;
	r->d->frame_left -= n;
}

/* n bytes that may not all be in the buffer. */
static __always_inline void http2_skip(const struct http2_run *r, __u32 n)
{
	struct scratch *sc = r->sc;
	__u32 buffered = sc->len - sc->pos;

	r->d->frame_left -= n;
	if (n <= buffered) {
		sc->pos += n;
	} else {
		sc->off += n - buffered;
		sc->pos = sc->len;
	}
}

#endif
