/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head of an HTTP/1 request, judged strictly and before any library sees it: what two
 * parsers could read differently (request smuggling) is refused. RFC 9112, sections 2 to 6.
 * Pure functions over a bounded buffer.
 */
#ifndef KILTER_API_HEAD_H
#define KILTER_API_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_BYTES_MAX	16384u
#define HEAD_METHOD_MAX 16u
#define HEAD_TARGET_MAX 2048u
#define HEAD_FIELDS_MAX 64u
#define HEAD_BODY_MAX	4096u /* no request has a use for a larger one */

struct head {
	/* Into the caller's buffer, no NUL; host and authorization may be NULL. */
	const char *method, *target, *host, *authorization;
	size_t method_len, target_len, host_len, authorization_len;
	unsigned int minor; /* HTTP/1.minor */
	bool chunked, has_length;
	uint64_t length;
};

enum head_result {
	HEAD_WHOLE = 1,
	HEAD_MORE = 0
};

/*
 * Looks for the end of the head in buf[0..len); bytes before `seen` were looked at by an
 * earlier call. HEAD_WHOLE with *ret_len, HEAD_MORE, -EBADMSG for a byte that may never be in
 * a head (NUL, control, bare CR or LF) or -EMSGSIZE beyond HEAD_BYTES_MAX.
 */
int head_scan(const char *buf, size_t len, size_t seen, size_t *ret_len);
/* Judges a whole head. 0, or a negative errno with one sentence in *ret_why:
 * -EBADMSG -> 400, -EMSGSIZE -> 431, -ENAMETOOLONG -> 414, -EFBIG -> 413, -EPROTO -> 505. */
int head_parse(const char *buf, size_t len, struct head *ret, const char **ret_why);
/* The token of "Bearer TOKEN", the value of an Authorization (RFC 6750, section 2.1), into the
 * caller's buffer. -EINVAL: another scheme, or no b64token. */
int head_bearer(const char *value, size_t len, const char **ret_token, size_t *ret_len);
/* A b64token of RFC 6750: letters, digits, -._~+/ and then any number of =. */
bool head_is_b64token(const char *s, size_t len);
/* Host against the names this server is known by: "localhost", loopback addresses and
 * listen_host; with any_address (a wildcard listens) every address literal. */
bool head_host_allowed(const char *host, size_t len, const char *listen_host, bool any_address);

#endif
