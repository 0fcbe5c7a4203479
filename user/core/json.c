// SPDX-License-Identifier: Apache-2.0
#include "core/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_init(struct json *j, size_t max_bytes)
{
	memset(j, 0, sizeof(*j));
	j->max = max_bytes;
}

void json_done(struct json *j)
{
	free(j->buf);
	memset(j, 0, sizeof(*j));
}

void json_reset(struct json *j)
{
	j->len = 0;
	j->err = 0;
	j->depth = 0;
	j->comma = 0;
	j->after_key = false;
}

int json_error(const struct json *j)
{
	return j->err ? j->err : j->depth ? -EINVAL : 0;
}

/* Room for n more bytes and a NUL, or a sticky error. */
static char *room(struct json *j, size_t n)
{
	if (j->err)
		return NULL;
	if (j->len + n + 1 > j->cap) {
		size_t cap = j->cap ? j->cap * 2 : 1024;
		char *p;

		while (cap < j->len + n + 1)
			cap *= 2;
		if (j->len + n + 1 > j->max) {
			j->err = -E2BIG;
			return NULL;
		}
		if (cap > j->max)
			cap = j->max;
		p = realloc(j->buf, cap);
		if (!p) {
			j->err = -ENOMEM;
			return NULL;
		}
		j->buf = p;
		j->cap = cap;
	}
	return j->buf + j->len;
}

static void put(struct json *j, const char *s, size_t n)
{
	char *to = room(j, n);

	if (!to)
		return;
	memcpy(to, s, n);
	j->len += n;
	j->buf[j->len] = '\0';
}

static void before_value(struct json *j)
{
	if (j->after_key) {
		j->after_key = false;
		return;
	}
	if (j->comma & (1ull << j->depth))
		put(j, ",", 1);
	j->comma |= 1ull << j->depth;
}

static void begin(struct json *j, const char *bracket)
{
	if (j->depth + 1 >= JSON_DEPTH_MAX) { /* comma has a bit per depth */
		j->err = j->err ? j->err : -EINVAL;
		return;
	}
	before_value(j);
	put(j, bracket, 1);
	j->depth++;
	j->comma &= ~(1ull << j->depth);
}

static void end(struct json *j, const char *bracket)
{
	if (!j->depth || j->after_key) {
		j->err = j->err ? j->err : -EINVAL;
		return;
	}
	j->depth--;
	put(j, bracket, 1);
}

void json_object_begin(struct json *j)
{
	begin(j, "{");
}
void json_object_end(struct json *j)
{
	end(j, "}");
}
void json_array_begin(struct json *j)
{
	begin(j, "[");
}
void json_array_end(struct json *j)
{
	end(j, "]");
}

size_t json_utf8_length(const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return n >= 2 && (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if (s[0] >= 0xe0 && s[0] <= 0xef) {
		unsigned char lo = s[0] == 0xe0 ? 0xa0 : 0x80, hi = s[0] == 0xed ? 0x9f : 0xbf;

		return n >= 3 && s[1] >= lo && s[1] <= hi && (s[2] & 0xc0) == 0x80 ? 3 : 0;
	}
	if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		unsigned char lo = s[0] == 0xf0 ? 0x90 : 0x80, hi = s[0] == 0xf4 ? 0x8f : 0xbf;

		return n >= 4 && s[1] >= lo && s[1] <= hi && (s[2] & 0xc0) == 0x80 &&
			       (s[3] & 0xc0) == 0x80
			   ? 4
			   : 0;
	}
	return 0;
}

static void put_string(struct json *j, const char *s, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	size_t i = 0, run = 0;

	put(j, "\"", 1);
	while (i < n) {
		unsigned char c = (unsigned char)s[i];
		size_t len = json_utf8_length(s + i, n - i);
		char esc[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

		if (len && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
			i += len;
			run += len;
			continue;
		}
		put(j, s + i - run, run);
		run = 0;
		i++;
		if (!len)
			put(j, "\xef\xbf\xbd", 3); /* U+FFFD */
		else if (c == '"')
			put(j, "\\\"", 2);
		else if (c == '\\')
			put(j, "\\\\", 2);
		else if (c == '\n')
			put(j, "\\n", 2);
		else if (c == '\t')
			put(j, "\\t", 2);
		else
			put(j, esc, 6);
	}
	put(j, s + i - run, run);
	put(j, "\"", 1);
}

void json_key(struct json *j, const char *key)
{
	before_value(j);
	put_string(j, key, strlen(key));
	put(j, ":", 1);
	j->after_key = true;
}

void json_string_n(struct json *j, const char *s, size_t n)
{
	before_value(j);
	put_string(j, s, n);
}

void json_string(struct json *j, const char *s)
{
	if (s)
		json_string_n(j, s, strlen(s));
	else
		json_null(j);
}

void json_u64(struct json *j, uint64_t v)
{
	char buf[24];
	int n = snprintf(buf, sizeof(buf), "%llu", (unsigned long long)v);

	before_value(j);
	put(j, buf, (size_t)n);
}

void json_i64(struct json *j, int64_t v)
{
	char buf[24];
	int n = snprintf(buf, sizeof(buf), "%lld", (long long)v);

	before_value(j);
	put(j, buf, (size_t)n);
}

void json_double(struct json *j, double v)
{
	char buf[32];
	int n;

	if (!isfinite(v)) {
		json_null(j);
		return;
	}
	for (int digits = 6; digits <= 17; digits += digits < 15 ? 9 : 2) {
		n = snprintf(buf, sizeof(buf), "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	before_value(j);
	put(j, buf, (size_t)n);
}

void json_bool(struct json *j, bool v)
{
	before_value(j);
	put(j, v ? "true" : "false", v ? 4 : 5);
}

void json_null(struct json *j)
{
	before_value(j);
	put(j, "null", 4);
}

void json_raw(struct json *j, const char *s, size_t n)
{
	before_value(j);
	put(j, s, n);
}

void json_kv_string(struct json *j, const char *key, const char *s)
{
	json_key(j, key);
	json_string(j, s);
}
void json_kv_u64(struct json *j, const char *key, uint64_t v)
{
	json_key(j, key);
	json_u64(j, v);
}
void json_kv_i64(struct json *j, const char *key, int64_t v)
{
	json_key(j, key);
	json_i64(j, v);
}
void json_kv_double(struct json *j, const char *key, double v)
{
	json_key(j, key);
	json_double(j, v);
}
void json_kv_bool(struct json *j, const char *key, bool v)
{
	json_key(j, key);
	json_bool(j, v);
}

void json_newline(struct json *j)
{
	if (j->depth && !j->err)
		j->err = -EINVAL;
	put(j, "\n", 1);
	j->comma = 0;
}
