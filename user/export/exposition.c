// SPDX-License-Identifier: Apache-2.0
/*
 * Formatting is by hand: a scrape of 100,000 series is mostly integers, and printf() would
 * be most of the time. Labels of one row are built once and copied into each line.
 */
#include "export/exposition.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 32

static char *room(struct exposition_text *o, size_t n)
{
	char *buf;
	size_t cap;

	if (o->err)
		return NULL;
	if (o->cap - o->len >= n)
		return o->buf + o->len;
	cap = o->cap ? o->cap : 4096;
	while (cap < o->len + n)
		cap *= 2;
	if (o->len + n > EXPOSITION_PIECE_MAX) {
		o->err = -E2BIG;
		return NULL;
	}
	buf = realloc(o->buf, cap);
	if (!buf) {
		o->err = -ENOMEM;
		return NULL;
	}
	o->buf = buf;
	o->cap = cap;
	return buf + o->len;
}

static void put(struct exposition_text *o, const char *s, size_t n)
{
	char *at = room(o, n);

	if (at) {
		memcpy(at, s, n);
		o->len += n;
	}
}

static void puts_(struct exposition_text *o, const char *s)
{
	put(o, s, strlen(s));
}

static size_t format_u64(uint64_t v, char buf[static 20])
{
	char tmp[20];
	size_t n = 0;

	do {
		tmp[n++] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	for (size_t i = 0; i < n; i++)
		buf[i] = tmp[n - 1 - i];
	return n;
}

static void put_u64(struct exposition_text *o, uint64_t v)
{
	char *at = room(o, 20);

	if (at)
		o->len += format_u64(v, at);
}

/* Nanoseconds as exact decimal seconds. */
static void put_seconds(struct exposition_text *o, uint64_t ns)
{
	uint64_t frac = ns % 1000000000u;
	char *at = room(o, 32);
	size_t n, digits = 9;

	if (!at)
		return;
	n = format_u64(ns / 1000000000u, at);
	if (frac) {
		at[n++] = '.';
		while (frac % 10 == 0) {
			frac /= 10;
			digits--;
		}
		for (size_t i = digits; i-- > 0; frac /= 10)
			at[n + i] = (char)('0' + frac % 10);
		n += digits;
	}
	o->len += n;
}

size_t exposition_number(double v, char *buf)
{
	if (isnan(v))
		return (size_t)snprintf(buf, NUMBER_MAX, "NaN");
	if (isinf(v))
		return (size_t)snprintf(buf, NUMBER_MAX, v > 0 ? "+Inf" : "-Inf");
	if (v >= 0 && v < 9e15 && v == floor(v))
		return format_u64((uint64_t)v, buf);
	for (int precision = 6;; precision += precision < 15 ? 9 : 1) {
		int n = snprintf(buf, NUMBER_MAX, "%.*g", precision, v);

		if (precision >= 17 || strtod(buf, NULL) == v)
			return (size_t)n;
	}
}

/* The length of the well-formed UTF-8 sequence at s, 0 when there is none. */
static size_t utf8_len(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if ((s[0] & 0xf0) == 0xe0) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 ||
		    (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))
			return 0;
		return 3;
	}
	if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80 ||
		    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

static void put_escaped(struct exposition_text *o, const char *s)
{
	size_t n = strlen(s);
	char *at = room(o, 3 * n + 1), *to = at;

	if (!at)
		return;
	while (*s) {
		size_t len;

		if (*s == '\\' || *s == '"' || *s == '\n') {
			*to++ = '\\';
			*to++ = *s == '\n' ? 'n' : *s;
			s++;
			continue;
		}
		len = utf8_len((const unsigned char *)s);
		if (len) {
			memcpy(to, s, len);
			to += len;
			s += len;
		} else {
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
			s++;
		}
	}
	o->len += (size_t)(to - at);
}

void exposition_row(struct exposition *x)
{
	x->labels.len = 0;
}

void exposition_label(struct exposition *x, const char *name, const char *value)
{
	if (x->labels.len)
		put(&x->labels, ",", 1);
	puts_(&x->labels, name);
	put(&x->labels, "=\"", 2);
	put_escaped(&x->labels, value);
	put(&x->labels, "\"", 1);
}

void exposition_label_u64(struct exposition *x, const char *name, uint64_t v)
{
	char buf[24];

	buf[format_u64(v, buf)] = '\0';
	exposition_label(x, name, buf);
}

/* Into x->name, without _total. False when one of this name was written already. */
static bool remember(struct exposition *x, const char *name)
{
	size_t n = strlen(name);
	char(*families)[EXPOSITION_NAME_LEN];

	if (n > 6 && !strcmp(name + n - 6, "_total"))
		n -= 6;
	if (n >= EXPOSITION_NAME_LEN)
		return false;
	for (unsigned int i = 0; i < x->families_count; i++)
		if (!strncmp(x->families[i], name, n) && !x->families[i][n])
			return false;
	families = reallocarray(x->families, x->families_count + 1, sizeof(*families));
	if (!families) {
		x->out.err = -ENOMEM;
		return false;
	}
	x->families = families;
	memset(families[x->families_count], 0, sizeof(*families));
	memcpy(families[x->families_count++], name, n);
	return true;
}

/* What its samples are called: a counter's name without _total, which line() puts back. */
static void name_samples(struct exposition *x, const char *name, bool counter)
{
	size_t n = strlen(name);

	x->counter = counter && n > 6 && !strcmp(name + n - 6, "_total");
	snprintf(x->name, sizeof(x->name), "%.*s", (int)(x->counter ? n - 6 : n), name);
}

bool exposition_family(struct exposition *x, const char *name, const char *type, const char *help)
{
	unsigned int at = x->seen++;
	bool counter = !strcmp(type, "counter");

	if (x->out.err || x->full || at + 1 < x->written || (at + 1 == x->written && !x->half))
		return false;
	if (at + 1 == x->written) {
		name_samples(x, name, counter);
		return true;
	}
	/* The one before it is complete. */
	x->half = false;
	x->row = 0;
	if (x->out.len >= EXPOSITION_PIECE_BYTES) {
		x->full = true;
		return false;
	}
	x->written = at + 1;
	if (strlen(name) >= sizeof(x->name) || !remember(x, name))
		return false;
	name_samples(x, name, counter);
	if (counter && x->openmetrics && !x->counter)
		type = "unknown"; /* a counter's samples must end in _total there */
	puts_(&x->out, "# HELP ");
	puts_(&x->out, x->openmetrics ? x->name : name);
	put(&x->out, " ", 1);
	put_escaped(&x->out, help);
	puts_(&x->out, "\n# TYPE ");
	puts_(&x->out, x->openmetrics ? x->name : name);
	put(&x->out, " ", 1);
	puts_(&x->out, type);
	put(&x->out, "\n", 1);
	return x->out.err == 0;
}

size_t exposition_first(const struct exposition *x)
{
	return x->half ? x->row : 0;
}

bool exposition_goes_on(struct exposition *x, size_t at)
{
	if (!x->full && x->out.len < EXPOSITION_PIECE_BYTES)
		return true;
	x->full = x->half = true;
	x->row = at;
	return false;
}

void exposition_begin(struct exposition *x)
{
	x->out.len = 0;
	x->seen = 0;
	x->full = false;
}

/* name{labels} and the space before the value. */
static void line(struct exposition *x, const char *suffix)
{
	puts_(&x->out, x->name);
	if (x->counter)
		put(&x->out, "_total", 6);
	puts_(&x->out, suffix);
	if (x->labels.len) {
		put(&x->out, "{", 1);
		put(&x->out, x->labels.buf, x->labels.len);
		put(&x->out, "}", 1);
	}
	put(&x->out, " ", 1);
}

void exposition_u64(struct exposition *x, uint64_t v)
{
	line(x, "");
	put_u64(&x->out, v);
	put(&x->out, "\n", 1);
}

void exposition_seconds(struct exposition *x, uint64_t ns)
{
	line(x, "");
	put_seconds(&x->out, ns);
	put(&x->out, "\n", 1);
}

void exposition_double(struct exposition *x, double v)
{
	char buf[32];

	line(x, "");
	put(&x->out, buf, exposition_number(v, buf));
	put(&x->out, "\n", 1);
}

/* OpenMetrics wants a bound to look like a float; Prometheus takes both as the same. */
static void put_bound(struct exposition *x, const char *text)
{
	puts_(&x->out, text);
	if (x->openmetrics && !strpbrk(text, ".e"))
		put(&x->out, ".0", 2);
}

void exposition_histogram(struct exposition *x, const void *buckets, const char *const *bounds,
			  unsigned int bounds_count, uint64_t sum_ns)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i <= bounds_count; i++) {
		uint64_t v;

		memcpy(&v, (const char *)buckets + i * sizeof(v), sizeof(v));
		n += v;
		puts_(&x->out, x->name);
		put(&x->out, "_bucket{", 8);
		put(&x->out, x->labels.buf, x->labels.len);
		if (x->labels.len)
			put(&x->out, ",", 1);
		put(&x->out, "le=\"", 4);
		if (i < bounds_count)
			put_bound(x, bounds[i]);
		else
			put(&x->out, "+Inf", 4);
		put(&x->out, "\"} ", 3);
		put_u64(&x->out, n);
		put(&x->out, "\n", 1);
	}
	line(x, "_sum");
	put_seconds(&x->out, sum_ns);
	put(&x->out, "\n", 1);
	line(x, "_count");
	put_u64(&x->out, n);
	put(&x->out, "\n", 1);
}

void exposition_labels(struct exposition *x, const char *text)
{
	puts_(&x->labels, text);
}

int exposition_piece(struct exposition *x, const char **ret, size_t *ret_len)
{
	int err;

	if (!x->full && x->openmetrics)
		puts_(&x->out, "# EOF\n");
	err = x->out.err ? x->out.err : x->labels.err;
	if (err)
		return err;
	x->done = !x->full;
	*ret = x->out.buf;
	*ret_len = x->out.len;
	return 0;
}

void exposition_free(struct exposition *x)
{
	free(x->out.buf);
	free(x->labels.buf);
	free(x->families);
	*x = (struct exposition){0};
}
