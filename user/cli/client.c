// SPDX-License-Identifier: Apache-2.0
/* One HTTP/1.1 exchange with the daemon over its Unix socket; every answer is bounded. */
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/http.h"
#include "cli/cli.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define ANSWER_MAX (256u << 20)
#define HEAD_MAX   (64u << 10)
/* The front gives up first: we hear its 504. */
#define TIMEOUT_NS (HTTP_COMMAND_NS + 2 * NS_PER_SEC)

/* The value of header `name` within the head [at, end), or NULL. */
static const char *header(const char *at, const char *end, const char *name, size_t *ret_len)
{
	size_t n = strlen(name);

	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		const char *stop = nl ? nl : end;

		if ((size_t)(stop - at) > n && !strncasecmp(at, name, n) && at[n] == ':') {
			at += n + 1;
			while (at < stop && (*at == ' ' || *at == '\t'))
				at++;
			while (stop > at && (stop[-1] == '\r' || stop[-1] == ' '))
				stop--;
			*ret_len = (size_t)(stop - at);
			return at;
		}
		at = stop + 1;
	}
	return NULL;
}

static int unchunk(const char *at, const char *end, char *to, size_t *ret_len)
{
	size_t n = 0;

	for (;;) {
		size_t size = 0, digits = 0;

		for (; at < end && digits < 8; at++, digits++) {
			int c = *at | 0x20;

			if (*at >= '0' && *at <= '9')
				size = size * 16 + (size_t)(*at - '0');
			else if (c >= 'a' && c <= 'f')
				size = size * 16 + (size_t)(c - 'a' + 10);
			else
				break;
		}
		at = digits ? memchr(at, '\n', (size_t)(end - at)) : NULL;
		if (!at)
			return -EBADMSG;
		at++;
		if (!size) {
			*ret_len = n;
			return 0;
		}
		if ((size_t)(end - at) < size + 2)
			return -EBADMSG;
		memcpy(to + n, at, size);
		n += size;
		at += size + 2;
	}
}

int cli_http_parse(const char *raw, size_t len, struct cli_response *ret)
{
	const char *head_end = memmem(raw, len, "\r\n\r\n", 4), *v, *body;
	struct cli_response r = {0};
	size_t n, head;
	int err = 0;

	if (len < 12 || memcmp(raw, "HTTP/1.", 7) || raw[8] != ' ' || !head_end)
		return -EBADMSG;
	head = (size_t)(head_end - raw);
	if (head > HEAD_MAX)
		return -EMSGSIZE;
	for (int i = 9; i < 12; i++) {
		if (raw[i] < '0' || raw[i] > '9')
			return -EBADMSG;
		r.status = r.status * 10 + (raw[i] - '0');
	}
	body = head_end + 4;
	len -= head + 4;
	r.body = malloc(len + 1);
	if (!r.body)
		return -ENOMEM;
	v = header(raw, head_end, "Transfer-Encoding", &n);
	if (v && n == 7 && !strncasecmp(v, "chunked", 7)) {
		err = unchunk(body, body + len, r.body, &r.length);
	} else {
		v = header(raw, head_end, "Content-Length", &n);
		r.length = len;
		if (v) {
			char digits[24];
			unsigned long long want;

			snprintf(digits, sizeof(digits), "%.*s", n < 20 ? (int)n : 20, v);
			want = strtoull(digits, NULL, 10);
			if (*v < '0' || *v > '9' || want > len)
				err = -EBADMSG; /* cut short */
			else
				r.length = (size_t)want;
		}
		memcpy(r.body, body, r.length);
	}
	if (err) {
		free(r.body);
		return err;
	}
	r.body[r.length] = '\0';
	*ret = r;
	return 0;
}

/* How long the whole answer is, once its head is there and says so; else 0: it ends with the
 * connection. */
static size_t answer_length(const char *raw, size_t len)
{
	const char *end = memmem(raw, len, "\r\n\r\n", 4), *v;
	char digits[24];
	size_t n;

	v = end ? header(raw, end, "Content-Length", &n) : NULL;
	if (!v || n > 12)
		return 0;
	snprintf(digits, sizeof(digits), "%.*s", (int)n, v);
	return (size_t)(end - raw) + 4 + (size_t)strtoull(digits, NULL, 10);
}

int cli_http(const char *path_socket, const char *method, const char *path,
	     struct cli_response *ret)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = TIMEOUT_NS / NS_PER_SEC};
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + TIMEOUT_NS;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *buf = NULL;
	char request[2048];
	size_t len = 0, cap = 0, whole = 0;
	int n;

	if (strlen(path_socket) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path_socket);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return -errno;
	n = snprintf(request, sizeof(request),
		     "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kilter/%s\r\n"
		     "Accept: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		     method, path, KILTER_VERSION);
	if (n < 0 || (size_t)n >= sizeof(request))
		return -ENAMETOOLONG;
	if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
		return -errno;
	for (;;) {
		ssize_t got;

		if (len + 65536 > cap) {
			char *p;

			cap = cap ? cap * 2 : 131072;
			if (cap > ANSWER_MAX)
				return -EMSGSIZE;
			p = realloc(buf, cap);
			if (!p)
				return -ENOMEM;
			buf = p;
		}
		got = recv(fd, buf + len, 65536, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		if (!got)
			break;
		len += (size_t)got;
		if (!whole)
			whole = answer_length(buf, len);
		if (whole && len >= whole)
			break;
		if (clock_ns(CLOCK_MONOTONIC) > deadline)
			return -ETIMEDOUT;
	}
	return cli_http_parse(buf, len, ret);
}
