// SPDX-License-Identifier: Apache-2.0
#include "api/head.h"

#include <arpa/inet.h>

#include <errno.h>
#include <string.h>
#include <strings.h>

#define HOST_MAX 255u

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* RFC 9110, section 5.6.2 */
static bool is_token(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

int head_scan(const char *buf, size_t len, size_t seen, size_t *ret_len)
{
	size_t end = len < HEAD_BYTES_MAX ? len : HEAD_BYTES_MAX;

	for (size_t i = seen; i < end; i++) {
		unsigned char c = (unsigned char)buf[i];

		if (c == '\n') {
			if (!i || buf[i - 1] != '\r')
				return -EBADMSG;
			if (i >= 3 && buf[i - 2] == '\n') {
				*ret_len = i + 1;
				return HEAD_WHOLE;
			}
		} else if ((i && buf[i - 1] == '\r') || (c < 0x20 && c != '\r' && c != '\t') ||
			   c == 0x7f) {
			return -EBADMSG;
		}
	}
	return len >= HEAD_BYTES_MAX ? -EMSGSIZE : HEAD_MORE;
}

static bool name_is(const char *at, size_t len, const char *name)
{
	return len == strlen(name) && !strncasecmp(at, name, len);
}

static int request_line(const char *at, size_t len, struct head *h, const char **why)
{
	const char *end = at + len, *sp = memchr(at, ' ', len);

	*why = "the request line is not METHOD TARGET HTTP/1.1";
	if (!sp || sp == at)
		return -EBADMSG;
	h->method = at;
	h->method_len = (size_t)(sp - at);
	for (size_t i = 0; i < h->method_len; i++)
		if (!is_token(at[i]))
			return -EBADMSG;
	if (h->method_len > HEAD_METHOD_MAX) {
		*why = "the method is longer than 16 bytes";
		return -EBADMSG;
	}
	at = sp + 1;
	sp = memchr(at, ' ', (size_t)(end - at));
	if (!sp || sp == at)
		return -EBADMSG;
	h->target = at;
	h->target_len = (size_t)(sp - at);
	if (h->target_len > HEAD_TARGET_MAX) {
		*why = "the target is longer than 2048 bytes";
		return -ENAMETOOLONG;
	}
	for (size_t i = 0; i < h->target_len; i++)
		if ((unsigned char)at[i] <= 0x20 || (unsigned char)at[i] >= 0x7f)
			return -EBADMSG;
	if (*at != '/' && !(h->target_len == 1 && *at == '*')) {
		*why = "the target must be a path";
		return -EBADMSG;
	}
	at = sp + 1;
	if (end - at != 8 || memcmp(at, "HTTP/", 5) || !is_digit(at[5]) || at[6] != '.' ||
	    !is_digit(at[7]))
		return -EBADMSG;
	if (at[5] != '1' || at[7] > '1') {
		*why = "only HTTP/1.0 and HTTP/1.1 are spoken here";
		return -EPROTO;
	}
	h->minor = (unsigned int)(at[7] - '0');
	return 0;
}

static int length_field(const char *at, size_t len, struct head *h, const char **why)
{
	if (h->has_length) {
		*why = "more than one Content-Length";
		return -EBADMSG;
	}
	*why = "Content-Length is not a decimal number";
	if (!len || len > 18)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (!is_digit(at[i]))
			return -EBADMSG;
		h->length = h->length * 10 + (uint64_t)(at[i] - '0');
	}
	h->has_length = true;
	return 0;
}

static int field(const char *at, size_t len, struct head *h, const char **why)
{
	const char *end = at + len, *colon = memchr(at, ':', len), *value;
	size_t name_len, value_len;

	if (*at == ' ' || *at == '\t') {
		*why = "a header is folded over lines";
		return -EBADMSG;
	}
	*why = "a header line is not NAME: VALUE";
	if (!colon || colon == at)
		return -EBADMSG;
	name_len = (size_t)(colon - at);
	for (size_t i = 0; i < name_len; i++)
		if (!is_token(at[i])) /* a space before the colon as well */
			return -EBADMSG;
	value = colon + 1;
	while (value < end && (*value == ' ' || *value == '\t'))
		value++;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	value_len = (size_t)(end - value);
	if (name_is(at, name_len, "content-length"))
		return length_field(value, value_len, h, why);
	if (name_is(at, name_len, "transfer-encoding")) {
		*why = "the only Transfer-Encoding known here is chunked, once";
		if (h->chunked || !name_is(value, value_len, "chunked"))
			return -EBADMSG;
		h->chunked = true;
	} else if (name_is(at, name_len, "host")) {
		*why = "more than one Host";
		if (h->host)
			return -EBADMSG;
		*why = "Host is empty or too long";
		if (!value_len || value_len > HOST_MAX)
			return -EBADMSG;
		h->host = value;
		h->host_len = value_len;
	} else if (name_is(at, name_len, "authorization")) {
		*why = "more than one Authorization";
		if (h->authorization)
			return -EBADMSG;
		h->authorization = value;
		h->authorization_len = value_len;
	}
	return 0;
}

int head_parse(const char *buf, size_t len, struct head *ret, const char **ret_why)
{
	struct head h = {0};
	size_t at = 0;
	unsigned int fields = 0;

	*ret_why = "a control byte, a bare CR or a bare LF in the head";
	for (bool first = true;; first = false) {
		const char *nl = at < len ? memchr(buf + at, '\n', len - at) : NULL;
		size_t n = nl ? (size_t)(nl - buf) - at : 0;
		int err;

		if (!nl || !n || nl[-1] != '\r')
			return -EBADMSG;
		n--;
		for (size_t i = 0; i < n; i++) {
			unsigned char c = (unsigned char)buf[at + i];

			if ((c < 0x20 && c != '\t') || c == 0x7f)
				return -EBADMSG;
		}
		if (!n) {
			if (first)
				return -EBADMSG;
			break;
		}
		if (!first && ++fields > HEAD_FIELDS_MAX) {
			*ret_why = "more than 64 headers";
			return -EMSGSIZE;
		}
		err = first ? request_line(buf + at, n, &h, ret_why)
			    : field(buf + at, n, &h, ret_why);
		if (err)
			return err;
		*ret_why = "a control byte, a bare CR or a bare LF in the head";
		at += n + 2;
	}
	*ret_why = "Content-Length together with Transfer-Encoding";
	if (h.has_length && h.chunked)
		return -EBADMSG;
	*ret_why = "Transfer-Encoding in HTTP/1.0";
	if (h.chunked && !h.minor)
		return -EBADMSG;
	*ret_why = "HTTP/1.1 needs a Host";
	if (!h.host && h.minor)
		return -EBADMSG;
	*ret_why = "the body is longer than 4096 bytes";
	if (h.length > HEAD_BODY_MAX)
		return -EFBIG;
	*ret = h;
	*ret_why = NULL;
	return 0;
}

bool head_is_b64token(const char *s, size_t len)
{
	size_t i = 0;

	while (i < len && (is_digit(s[i]) || (s[i] >= 'a' && s[i] <= 'z') ||
			   (s[i] >= 'A' && s[i] <= 'Z') || (s[i] && strchr("-._~+/", s[i]))))
		i++;
	if (!i)
		return false;
	while (i < len && s[i] == '=')
		i++;
	return i == len;
}

int head_bearer(const char *value, size_t len, const char **ret_token, size_t *ret_len)
{
	static const char scheme[] = "Bearer";
	size_t at = sizeof(scheme) - 1;

	/* The scheme's case does not matter, and spaces may be several: RFC 9110, section 11.4. */
	if (len <= at || strncasecmp(value, scheme, at) || value[at] != ' ')
		return -EINVAL;
	while (at < len && value[at] == ' ')
		at++;
	if (!head_is_b64token(value + at, len - at))
		return -EINVAL;
	*ret_token = value + at;
	*ret_len = len - at;
	return 0;
}

bool head_host_allowed(const char *host, size_t len, const char *listen_host, bool any_address)
{
	unsigned char addr[16];
	char name[HOST_MAX + 1];
	bool v6 = false;
	const char *colon;
	size_t n;

	if (!len || len > HOST_MAX)
		return false;
	if (*host == '[') {
		colon = memchr(host, ']', len);
		if (!colon)
			return false;
		n = (size_t)(colon - host) - 1;
		memcpy(name, host + 1, n);
		colon++;
		v6 = true;
	} else {
		colon = memchr(host, ':', len);
		if (!colon)
			colon = host + len;
		n = (size_t)(colon - host);
		memcpy(name, host, n);
	}
	name[n] = '\0';
	if (colon < host + len) {
		if (*colon != ':' || host + len - colon > 6)
			return false;
		while (++colon < host + len)
			if (!is_digit(*colon))
				return false;
	}
	if (strlen(name) != n)
		return false;
	if (v6) {
		static const unsigned char loopback[16] = {[15] = 1};

		if (inet_pton(AF_INET6, name, addr) != 1)
			return false;
		return any_address || !memcmp(addr, loopback, 16) || !strcasecmp(name, listen_host);
	}
	if (inet_pton(AF_INET, name, addr) == 1)
		return any_address || addr[0] == 127 || !strcmp(name, listen_host);
	return !strcasecmp(name, "localhost") || (*listen_host && !strcasecmp(name, listen_host));
}
