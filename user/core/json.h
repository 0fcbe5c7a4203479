/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Append-only JSON writer into a growing buffer with a maximum. Commas are placed by
 * the writer. Escapes " \ and < 0x20; invalid UTF-8 becomes U+FFFD. Errors are sticky:
 * check json_error() once at the end (-E2BIG, -ENOMEM, -EINVAL for bad nesting).
 */
#ifndef KILTER_CORE_JSON_H
#define KILTER_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 32

struct json {
	char *buf;
	size_t len, cap, max;
	int err;
	unsigned int depth;
	uint64_t comma; /* a bit per depth: a value was written there */
	bool after_key;
};

void json_init(struct json *j, size_t max_bytes);
void json_done(struct json *j);
void json_reset(struct json *j); /* keeps the buffer */
int json_error(const struct json *j);
void json_object_begin(struct json *j);
void json_object_end(struct json *j);
void json_array_begin(struct json *j);
void json_array_end(struct json *j);
void json_key(struct json *j, const char *key);
/* The labels: libjansson has symbols of these names, and calls its own through its PLT. */
void json_string(struct json *j, const char *s) __asm__("kilter_json_string"); /* NULL: null */
void json_string_n(struct json *j, const char *s, size_t n);
void json_u64(struct json *j, uint64_t v);
void json_i64(struct json *j, int64_t v);
void json_double(struct json *j, double v); /* shortest that reads back; NaN, Inf: null */
void json_bool(struct json *j, bool v);
void json_null(struct json *j) __asm__("kilter_json_null");
void json_raw(struct json *j, const char *s, size_t n); /* a whole value, as it is */
/* key and value in one */
void json_kv_string(struct json *j, const char *key, const char *s);
void json_kv_u64(struct json *j, const char *key, uint64_t v);
void json_kv_i64(struct json *j, const char *key, int64_t v);
void json_kv_double(struct json *j, const char *key, double v);
void json_kv_bool(struct json *j, const char *key, bool v);
/* Length of the well-formed UTF-8 sequence that n > 0 bytes begin with (RFC 3629 section 4); 0 when
 * they do not. */
size_t json_utf8_length(const char *text, size_t n);
void json_newline(struct json *j); /* after a top-level value: ready for the next line */

#endif
