/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HPACK (RFC 7541) for the fuzzer of HTTP/2, by two encoders, of which a direction has one:
 * nghttp2's, which is what much of the world uses; and one of our own that does by chance
 * whatever the RFC allows: a path in the dynamic table, names spelt out, padded integers.
 */
#ifndef KILTER_FUZZ_HTTP2_ENCODE_H
#define KILTER_FUZZ_HTTP2_ENCODE_H

#include <nghttp2/nghttp2.h>

#include "kernel.h"

#define STREAM_BYTES (1u << 19)
#define TABLE_BYTES  4096 /* the size that all begin with, RFC 9113 section 6.5.2 */
#define TABLE_MOST   (TABLE_BYTES / 32)
#define FIELDS_MAX   24

struct text {
	size_t len;
	char bytes[STREAM_BYTES];
};

struct field {
	const char *name, *value;
};

struct fields {
	unsigned int count;
	struct field at[FIELDS_MAX];
};

struct encoder {
	nghttp2_hd_deflater *deflater; /* NULL: our own */
	struct {
		char *name, *value;
	} table[TABLE_MOST]; /* our own's, the newest first */
	size_t count, bytes, size, told_size;
};

static void put_bytes(struct text *t, const void *s, size_t n)
{
	if (n > sizeof(t->bytes) - t->len)
		abort();
	memcpy(t->bytes + t->len, s, n);
	t->len += n;
}

static void put_byte(struct text *t, unsigned int c)
{
	char byte = (char)c;

	put_bytes(t, &byte, 1);
}

static void add_field(struct fields *f, const char *name, const char *value)
{
	if (f->count == FIELDS_MAX)
		abort();
	f->at[f->count++] = (struct field){name, value};
}

/* The part of the static table, appendix A, that has what we send. */
static const struct {
	unsigned int index;
	const char *name, *value;
} static_table[] = {
    {1, ":authority", ""},
    {2, ":method", "GET"},
    {3, ":method", "POST"},
    {4, ":path", "/"},
    {5, ":path", "/index.html"},
    {6, ":scheme", "http"},
    {7, ":scheme", "https"},
    {8, ":status", "200"},
    {9, ":status", "204"},
    {10, ":status", "206"},
    {11, ":status", "304"},
    {12, ":status", "400"},
    {13, ":status", "404"},
    {14, ":status", "500"},
    {16, "accept-encoding", "gzip, deflate"},
    {28, "content-length", ""},
    {31, "content-type", ""},
    {32, "cookie", ""},
    {58, "user-agent", ""},
};

#define STATIC_ENTRIES (sizeof(static_table) / sizeof(static_table[0]))
#define STATIC_LAST    61

static void table_evict(struct encoder *e, size_t limit)
{
	while (e->count && e->bytes > limit) {
		char *name = e->table[--e->count].name, *value = e->table[e->count].value;

		e->bytes -= strlen(name) + strlen(value) + 32;
		free(name);
		free(value);
	}
}

static void table_insert(struct encoder *e, const struct field *f)
{
	size_t n = strlen(f->name) + strlen(f->value) + 32;

	if (n > e->size) { /* section 4.4: it empties the table and is not in it */
		table_evict(e, 0);
		return;
	}
	table_evict(e, e->size - n);
	memmove(e->table + 1, e->table, e->count * sizeof(e->table[0]));
	e->table[0].name = strdup(f->name);
	e->table[0].value = strdup(f->value);
	if (!e->table[0].name || !e->table[0].value)
		abort();
	e->count++;
	e->bytes += n;
}

/* Section 5.1. Zeros may follow that change nothing. */
static void put_integer(struct input *in, struct text *t, unsigned int first, unsigned int mask,
			size_t n)
{
	if (n < mask) {
		put_byte(t, first | (unsigned int)n);
		return;
	}
	put_byte(t, first | mask);
	for (n -= mask; n >= 0x80; n >>= 7)
		put_byte(t, 0x80 | (n & 0x7f));
	if (n && chance(in, 8)) {
		put_byte(t, 0x80 | (unsigned int)n);
		n = 0;
	}
	put_byte(t, (unsigned int)n);
}

/* As nghttp2 has it, Huffman's code where that is shorter: the value of a literal. */
static void put_coded(struct text *t, const char *s)
{
	nghttp2_hd_deflater *d;
	nghttp2_nv nv = {.name = (uint8_t *)(uintptr_t) "x",
			 .value = (uint8_t *)(uintptr_t)s,
			 .namelen = 1,
			 .valuelen = strlen(s),
			 .flags = NGHTTP2_NV_FLAG_NO_INDEX};
	static uint8_t to[1 << 14];
	ssize_t n;

	if (nghttp2_hd_deflate_new(&d, TABLE_BYTES))
		abort();
	n = nghttp2_hd_deflate_hd(d, to, sizeof(to), &nv, 1);
	nghttp2_hd_deflate_del(d);
	if (n < 4 || to[0] != 0x10 || to[1] != 1 || to[2] != 'x')
		abort();
	put_bytes(t, to + 3, (size_t)n - 3);
}

static void put_string(struct input *in, struct text *t, const char *s)
{
	if (chance(in, 2)) {
		put_coded(t, s);
		return;
	}
	put_integer(in, t, 0, 0x7f, strlen(s));
	put_bytes(t, s, strlen(s));
}

/* The number of an entry with this name, and this value if there is one; 0: none. */
static size_t table_find(struct input *in, const struct encoder *e, const char *name,
			 const char *value)
{
	size_t found = 0;

	for (size_t i = 0; i < STATIC_ENTRIES; i++)
		if (!strcmp(static_table[i].name, name) &&
		    (!value || !strcmp(static_table[i].value, value)) && (!found || chance(in, 2)))
			found = static_table[i].index;
	for (size_t i = 0; i < e->count; i++)
		if (!strcmp(e->table[i].name, name) &&
		    (!value || !strcmp(e->table[i].value, value)) && (!found || chance(in, 2)))
			found = STATIC_LAST + 1 + i;
	return found;
}

static void put_field(struct input *in, struct encoder *e, struct text *t, const struct field *f)
{
	static const struct {
		unsigned int first, mask;
	} literal[] = {{0x40, 0x3f}, {0x40, 0x3f}, {0x00, 0x0f}, {0x10, 0x0f}};
	size_t index = table_find(in, e, f->name, f->value);
	uint32_t kind;

	if (index && !chance(in, 4)) {
		put_integer(in, t, 0x80, 0x7f, index);
		return;
	}
	kind = pick(in, 4);
	index = chance(in, 4) ? 0 : table_find(in, e, f->name, NULL);
	put_integer(in, t, literal[kind].first, literal[kind].mask, index);
	if (!index)
		put_string(in, t, f->name);
	put_string(in, t, f->value);
	if (literal[kind].first == 0x40)
		table_insert(e, f);
}

static void encoder_begin(struct input *in, struct encoder *e)
{
	memset(e, 0, sizeof(*e));
	e->size = TABLE_BYTES;
	e->told_size = TABLE_BYTES;
	if (!chance(in, 2) && nghttp2_hd_deflate_new(&e->deflater, TABLE_BYTES))
		abort();
}

static void encoder_end(struct encoder *e)
{
	if (e->deflater)
		nghttp2_hd_deflate_del(e->deflater);
	e->deflater = NULL;
	table_evict(e, 0);
}

/* The table gets another size, which the next block begins with (section 4.2). */
static void encoder_resize(struct input *in, struct encoder *e)
{
	static const uint16_t sizes[] = {0, 64, 256, 1000, TABLE_BYTES};
	size_t size = sizes[pick(in, 5)];

	if (e->deflater && nghttp2_hd_deflate_change_table_size(e->deflater, size))
		abort();
	e->size = size;
	table_evict(e, size);
}

static void put_block(struct input *in, struct encoder *e, struct text *t, const struct fields *f)
{
	static uint8_t to[1 << 16];
	nghttp2_nv nv[FIELDS_MAX];
	ssize_t n;

	if (!e->deflater) {
		if (e->size != e->told_size)
			put_integer(in, t, 0x20, 0x1f, e->size);
		e->told_size = e->size;
		for (unsigned int i = 0; i < f->count; i++)
			put_field(in, e, t, &f->at[i]);
		return;
	}
	for (unsigned int i = 0; i < f->count; i++)
		nv[i] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)f->at[i].name,
				     .value = (uint8_t *)(uintptr_t)f->at[i].value,
				     .namelen = strlen(f->at[i].name),
				     .valuelen = strlen(f->at[i].value),
				     .flags = chance(in, 8) ? NGHTTP2_NV_FLAG_NO_INDEX
							    : NGHTTP2_NV_FLAG_NONE};
	n = nghttp2_hd_deflate_hd(e->deflater, to, sizeof(to), nv, f->count);
	if (n < 0)
		abort();
	put_bytes(t, to, (size_t)n);
}

#endif
