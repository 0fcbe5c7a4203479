// SPDX-License-Identifier: Apache-2.0
#include "api/negotiate.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define ID_MAX 63u

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* "1", "0.5", "0.123" in thousandths; RFC 9110, section 12.4.2. A malformed one counts as 0. */
static int weight(const char *at, const char *end)
{
	int q;

	if (at == end || (*at != '0' && *at != '1'))
		return 0;
	q = (*at++ - '0') * 1000;
	if (at < end && *at == '.') {
		at++;
		for (int unit = 100; unit && at < end && *at >= '0' && *at <= '9'; unit /= 10)
			q += (*at++ - '0') * unit;
	}
	return at == end && q <= 1000 ? q : 0;
}

/* How well pattern [at, at + n) names `name`: 3 exactly, 2 its group, 1 any, 0 not at all. */
static int fits(const char *at, size_t n, const char *name)
{
	const char *slash = strchr(name, '/');

	if (n == strlen(name) && !strncasecmp(at, name, n))
		return 3;
	if (slash && n == (size_t)(slash - name) + 2 && at[n - 1] == '*' &&
	    !strncasecmp(at, name, n - 1))
		return 2;
	return (n == 1 && *at == '*' && !slash) || (n == 3 && !memcmp(at, "*/*", 3) && slash);
}

int negotiate_weight(const char *list, const char *name)
{
	int best = 0, q = -1;

	while (list && *list) {
		const char *end = list + strcspn(list, ","), *at = list, *stop;
		int fit, w = 1000;

		while (at < end && is_blank(*at))
			at++;
		stop = at;
		while (stop < end && *stop != ';' && !is_blank(*stop))
			stop++;
		fit = stop > at ? fits(at, (size_t)(stop - at), name) : 0;
		for (const char *p = memchr(stop, ';', (size_t)(end - stop)); fit && p;) {
			const char *next = memchr(p + 1, ';', (size_t)(end - p - 1));
			const char *last = next ? next : end;

			p++;
			while (p < last && is_blank(*p))
				p++;
			while (last > p && is_blank(last[-1]))
				last--;
			if (last - p >= 2 && (*p | 0x20) == 'q' && p[1] == '=')
				w = weight(p + 2, last);
			p = next;
		}
		if (fit > best) {
			best = fit;
			q = w;
		} else if (fit && fit == best && w > q) {
			q = w; /* the same type with other parameters: the kinder one */
		}
		list = *end ? end + 1 : end;
	}
	return q;
}

bool negotiate_gzip(const char *accept_encoding)
{
	int gzip = negotiate_weight(accept_encoding, "gzip");
	int identity = negotiate_weight(accept_encoding, "identity");

	return gzip > 0 && gzip >= identity;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int negotiate_decode(const char *in, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)in[i];

		if (c == '%') {
			if (len - i < 3 || hex(in[i + 1]) < 0 || hex(in[i + 2]) < 0)
				return -EBADMSG;
			c = (unsigned char)(hex(in[i + 1]) * 16 + hex(in[i + 2]));
			i += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return -EBADMSG;
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		out[n++] = (char)c;
	}
	if (!size)
		return -ENAMETOOLONG;
	out[n] = '\0';
	return 0;
}

int negotiate_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint64_t v = 0;

	if (!*s || strlen(s) > 10)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	if (v < min || v > max)
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

bool negotiate_id_valid(const char *s)
{
	static const char allowed[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = s ? strspn(s, allowed) : 0;

	return n && n <= ID_MAX && !s[n];
}
