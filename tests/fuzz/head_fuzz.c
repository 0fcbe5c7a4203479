// SPDX-License-Identifier: Apache-2.0
/* The head of a request: whole, in two pieces, and its parts must lie within it. */
#include <stdlib.h>
#include <string.h>

#include "api/head.h"
#include "api/negotiate.h"
#include "api/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(const char *buf, size_t len, const char *at, size_t n)
{
	if (at && (at < buf || n > len || (size_t)(at - buf) > len - n))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *buf = malloc(size + 1), out[256];
	const char *why;
	struct head h;
	size_t whole = 0, pieces = 0;
	int err, again;
	static struct tokens tokens;
	char reason[TOKENS_WHY_LEN];
	const char *token;
	size_t token_len;

	if (!buf)
		return 0;
	memcpy(buf, data, size);
	buf[size] = '\0';
	err = head_scan(buf, size, 0, &whole);
	again = head_scan(buf, size / 2, 0, &pieces);
	if (again == HEAD_MORE)
		again = head_scan(buf, size, size / 2, &pieces);
	if (err != again || whole != pieces)
		abort();
	if (!head_parse(buf, size, &h, &why) && (err < 0 && size < HEAD_BYTES_MAX))
		abort(); /* what the scan refuses, the parser must refuse */
	if (err == HEAD_WHOLE && !head_parse(buf, whole, &h, &why)) {
		within(buf, whole, h.method, h.method_len);
		within(buf, whole, h.target, h.target_len);
		within(buf, whole, h.host, h.host_len);
		within(buf, whole, h.authorization, h.authorization_len);
		if (h.authorization &&
		    !head_bearer(h.authorization, h.authorization_len, &token, &token_len)) {
			within(h.authorization, h.authorization_len, token, token_len);
			if (!head_is_b64token(token, token_len))
				abort();
		}
		if ((h.chunked && h.has_length) || (h.minor && !h.host))
			abort();
		if (h.host)
			head_host_allowed(h.host, h.host_len, "192.0.2.1", false);
		negotiate_decode(h.target, h.target_len, out, sizeof(out));
	}
	/* The file of tokens shares their grammar: each that it takes is found again. */
	if (!tokens_parse(buf, size, &tokens, reason))
		for (uint32_t i = 0; i < tokens.count; i++)
			if (tokens_find(&tokens, tokens.rows[i].value,
					strnlen(tokens.rows[i].value, TOKEN_MAX)) !=
				&tokens.rows[i] ||
			    !negotiate_id_valid(tokens.rows[i].name))
				abort();
	negotiate_weight(buf, "text/plain");
	negotiate_gzip(buf);
	negotiate_id_valid(buf);
	free(buf);
	return 0;
}
