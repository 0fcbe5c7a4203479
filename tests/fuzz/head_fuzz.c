// SPDX-License-Identifier: Apache-2.0
/*
 * The judge of request heads, over any bytes. Beside crashes: however the bytes are split, the
 * verdict is one; and what it lets pass has none of the features that two parsers may read
 * differently, by a second, naive look at the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/head.h"
#include "api/negotiate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned int fields_named(const char *buf, size_t len, const char *name)
{
	unsigned int n = 0;
	size_t k = strlen(name);

	for (size_t i = 2; i + k < len; i++)
		n += !memcmp(buf + i - 2, "\r\n", 2) && !strncasecmp(buf + i, name, k) &&
		     buf[i + k] == ':';
	return n;
}

static void look_again(const char *buf, size_t len, const struct head *h)
{
	if (memchr(buf, 0, len) || memmem(buf, len, "\r\n ", 3) || memmem(buf, len, "\r\n\t", 3))
		abort();
	for (size_t i = 0; i < len; i++)
		if ((buf[i] == '\n') != (i && buf[i - 1] == '\r'))
			abort();
	if (fields_named(buf, len, "content-length") + fields_named(buf, len, "transfer-encoding") >
		1 ||
	    fields_named(buf, len, "host") > 1)
		abort();
	if (!h->method_len || !h->target_len || h->length > HEAD_BODY_MAX || (h->minor && !h->host))
		abort();
	if (h->method < buf || h->target + h->target_len > buf + len ||
	    (h->host && (h->host < buf || h->host + h->host_len > buf + len)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *buf = (const char *)data, *why = NULL;
	size_t end = 0, split_end = 0, cut = size ? data[0] % (size + 1) : 0;
	char name[64];
	struct head h;
	int whole = head_scan(buf, size, 0, &end), split;

	split = head_scan(buf, cut, 0, &split_end);
	if (split == HEAD_MORE)
		split = head_scan(buf, size, cut, &split_end);
	if (split != whole || (whole == HEAD_WHOLE && split_end != end))
		abort();
	if (whole == HEAD_WHOLE && !head_parse(buf, end, &h, &why)) {
		look_again(buf, end, &h);
		if (h.host)
			head_host_allowed(h.host, h.host_len, "127.0.0.1", data[0] & 1);
		negotiate_decode(h.target, h.target_len, name, sizeof(name));
	} else if (whole == HEAD_WHOLE && !why) {
		abort();
	}
	head_parse(buf, size, &h, &why); /* a text that was not scanned before is safe as well */
	negotiate_decode(buf, size, name, sizeof(name));
	if (size < 4096) {
		char text[4097];

		memcpy(text, buf, size);
		text[size] = '\0';
		negotiate_weight(text, "application/openmetrics-text");
		negotiate_gzip(text);
	}
	return 0;
}
