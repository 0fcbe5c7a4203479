/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A header block (RFC 7541 section 3), field by field. Any of them may be cut at any byte: what
 * is known of the one under way is in struct http2_direction. What its number, its name and its
 * value mean is in protocols/hpack.h; whole, it goes to its stream and into the dynamic table.
 */
#ifndef KILTER_BPF_HPACK_BLOCK_H
#define KILTER_BPF_HPACK_BLOCK_H

#include "protocols/hpack.h"
#include "protocols/http2_run.h"

/* One more byte of an integer with this prefix (RFC 7541 section 5.1). True: d->number is whole. */
static __always_inline bool hpack_integer(struct http2_direction *d, __u8 c, __u32 mask)
{
	if (!d->shift) {
		d->number = c & mask;
		d->shift = d->number == mask;
		return !d->shift;
	}
	if (d->shift > 22) {
		http2_lose(d); /* more than 2^28: nobody means that */
		return false;
	}
	d->number += (c & 0x7fu) << (d->shift - 1);
	d->shift += 7;
	if (c & 0x80)
		return false;
	d->shift = 0;
	return true;
}

/* The field under way is whole. */
static __always_inline void hpack_field(const struct http2_run *r, __u64 entry)
{
	struct http2_direction *d = r->d;
	struct http2_stream *at;
	__u32 value = entry;

	if (d->place == HTTP2_NOWHERE)
		return;
	at = http2_at(r->h, d->place);
	if (at->id != d->stream)
		return; /* it was reset, and another has its place */
	if (r->sc->request && !d->opens)
		return;
	switch (entry >> 32) {
	case HPACK_METHOD:
		if (r->sc->request)
			at->method = value;
		break;
	case HPACK_PATH:
		if (r->sc->request)
			at->route = value;
		break;
	case HPACK_CONTENT_TYPE:
		if (value)
			at->flags |= HTTP2_STREAM_GRPC;
		break;
	case HPACK_STATUS:
		if (!r->sc->request && value >= 200) /* 1xx is no answer yet */
			at->status = value;
		break;
	case HPACK_GRPC_STATUS:
		if (!r->sc->request) {
			at->code = value;
			at->flags |= HTTP2_STREAM_GRPC | HTTP2_STREAM_CODE;
		}
		break;
	case HPACK_UNKNOWN:
		if (!r->sc->request)
			at->flags |= HTTP2_STREAM_UNSURE;
		break;
	}
}

/* A field's first byte, and those of its number. */
static __always_inline void hpack_begin(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	__u8 byte = byte_at(r->sc, r->sc->pos), c;
	__u64 entry;

	http2_take(r, 1);
	if (!d->shift) {
		d->kind = byte; /* which of the four it is, until we know the name */
		d->inserts = (byte & 0xc0) == 0x40;
	}
	c = d->kind;
	if (!hpack_integer(d, byte, c & 0x80 ? 0x7f : c & 0x40 ? 0x3f : c & 0x20 ? 0x1f : 0x0f))
		return;
	if ((c & 0xe0) == 0x20)
		return; /* the table's size: see protocols/hpack.h */
	if (!d->number && !(c & 0x80)) {
		d->phase = HPACK_NAME_LENGTH;
		return;
	}
	entry = hpack_lookup(d, d->number);
	if (c & 0x80) {
		if (d->number == 4 || d->number == 5)
			entry = hpack_entry(
			    HPACK_PATH, hpack_static_path(r->sc->slot, r->s->workload, d->number));
		hpack_field(r, entry);
		return;
	}
	d->kind = entry >> 32;
	d->phase = HPACK_VALUE_LENGTH;
}

static __always_inline void hpack_length(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	__u8 c = byte_at(r->sc, r->sc->pos);

	http2_take(r, 1);
	if (!d->shift)
		d->huffman = c >> 7;
	if (!hpack_integer(d, c, 0x7f))
		return;
	d->string_left = d->number;
	d->value = 0;
	d->phase++; /* HPACK_NAME or HPACK_VALUE */
}

/* What was kept, in the work space. noinline: unrolled, it wants a register a word. */
static __noinline int hpack_kept(const struct http2_direction *d, struct scratch *sc)
{
	for (__u32 i = 0; i < HPACK_TEXT_MAX; i += 8)
		*(volatile __u64 *)&sc->buf[HPACK_KEPT_AT + i] = *(const __u64 *)(d->text + i);
	return 0;
}

/*
 * Is the string under way, or as much of it as is looked at, in the buffer? If so where, and its
 * length. One that a segment or a frame has cut is kept, a byte a turn, until it is.
 */
static __always_inline bool hpack_string(const struct http2_run *r, __u32 have, __u32 *at,
					 __u32 *length)
{
	struct http2_direction *d = r->d;
	__u32 kept = d->text_kept;

	if (!kept && (have >= d->string_left || have >= HPACK_TEXT_MAX)) {
		*at = r->sc->pos;
		*length = d->string_left;
		return true;
	}
	if (d->string_left && kept < HPACK_TEXT_MAX) {
		if (!have)
			return false;
		barrier_var(kept);
		if (kept < HPACK_TEXT_MAX) /* once more, for the verifier */
			d->text[kept] = byte_at(r->sc, r->sc->pos);
		http2_take(r, 1);
		d->string_left--;
		d->text_kept++;
	}
	kept = d->text_kept;
	if (d->string_left && kept < HPACK_TEXT_MAX)
		return false;
	d->text_kept = 0;
	hpack_kept(d, r->sc);
	*at = HPACK_KEPT_AT;
	*length = kept;
	return true;
}

/*
 * A field in three parts, each of which does nothing where the phase is not its own. `have` bytes
 * of the block are in the buffer. Three functions: what is on the stack of one is not on another's.
 */
static __noinline int hpack_numbers(struct kilter_sock *s, struct http2 *h,
				    struct http2_direction *d, struct scratch *sc, __u32 have)
{
	struct http2_run run = {.s = s, .h = h, .d = d, .sc = sc}, *r = &run;

	if (d->phase == HPACK_FIELD) {
		if (!have)
			return 0;
		have--;
		hpack_begin(r);
	}
	if (have && (d->phase == HPACK_NAME_LENGTH || d->phase == HPACK_VALUE_LENGTH))
		hpack_length(r);
	return 0;
}

static __noinline int hpack_strings(struct http2_direction *d, struct scratch *sc, __u32 workload,
				    __u32 have)
{
	struct http2_run run = {.d = d, .sc = sc};
	__u32 at, length;

	if (d->phase != HPACK_NAME && d->phase != HPACK_VALUE)
		return 0;
	if (d->phase == HPACK_VALUE && (d->kind == HPACK_OTHER || d->kind == HPACK_UNKNOWN)) {
		d->phase = HPACK_VALUE_REST;
		return 0;
	}
	if (!hpack_string(&run, have, &at, &length))
		return 0;
	length |= d->huffman ? HPACK_HUFFMAN : 0;
	if (d->phase == HPACK_NAME)
		d->kind = hpack_name(sc->slot, at, length);
	else
		d->value = hpack_value(sc->slot, d->kind, workload, at, length);
	d->phase++; /* its rest */
	return 0;
}

static __noinline int hpack_rests(struct http2 *h, struct http2_direction *d, struct scratch *sc)
{
	struct http2_run run = {.h = h, .d = d, .sc = sc}, *r = &run;
	__u32 n, most;
	__u64 entry;

	if (d->phase != HPACK_NAME_REST && d->phase != HPACK_VALUE_REST)
		return 0;
	n = d->string_left;
	most = sc->len - sc->pos + (sc->end - sc->off);
	if (n > most)
		n = most;
	most = d->frame_left - d->pad_length;
	if (n > most)
		n = most;
	http2_skip(r, n);
	d->string_left -= n;
	if (d->string_left)
		return 0;
	if (d->phase == HPACK_NAME_REST) {
		d->phase = HPACK_VALUE_LENGTH;
		return 0;
	}
	d->phase = HPACK_FIELD;
	entry = hpack_entry(d->kind, d->value);
	if (d->inserts)
		hpack_insert(d, entry);
	hpack_field(r, entry);
	return 0;
}

/* Bytes of the header block that are in the buffer. */
static __always_inline __u32 hpack_have(const struct http2_direction *d, const struct scratch *sc)
{
	__u32 have = sc->len - sc->pos, block = d->frame_left - d->pad_length;

	return have < block ? have : block;
}

#endif
