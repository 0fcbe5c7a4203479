// SPDX-License-Identifier: Apache-2.0
#include "model/route.h"

#include <string.h>

struct text {
	char *buf;
	size_t len;
};

static void put(struct text *t, const char *s, size_t n)
{
	if (t->len + n >= ROUTE_TEXT_MAX)
		return;
	memcpy(t->buf + t->len, s, n);
	t->len += n;
	t->buf[t->len] = '\0';
}

static void put_escaped(struct text *t, const char *s, size_t n)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		const char code[3] = {'%', hex[c >> 4], hex[c & 15]};

		if (c > ' ' && c < 0x7f && c != '"' && c != '\\')
			put(t, s + i, 1);
		else
			put(t, code, sizeof(code));
	}
}

void route_text(const char *path, size_t len, char ret[static ROUTE_TEXT_MAX])
{
	struct text t = {.buf = ret};
	struct kilter_route_hash h;
	size_t start = 0;

	ret[0] = '\0';
	kilter_route_begin(&h, 0);
	if (len > KILTER_ROUTE_PATH_LEN)
		len = KILTER_ROUTE_PATH_LEN;
	for (size_t i = 0; i <= len; i++) {
		if (i < len && path[i] != '/') {
			kilter_route_byte(&h, (__u8)path[i]);
			continue;
		}
		/* Segments are counted as the hash counts them: the empty one before the first
		 * slash is the first. */
		if (h.segments >= KILTER_ROUTE_SEGMENTS) {
			put(&t, "/{rest}", 7);
			return;
		}
		if (h.segments)
			put(&t, "/", 1);
		if (kilter_route_is_id(&h))
			put(&t, "{id}", 4);
		else
			put_escaped(&t, path + start, i - start);
		kilter_route_segment(&h);
		start = i + 1;
	}
}
