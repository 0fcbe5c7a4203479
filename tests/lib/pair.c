// SPDX-License-Identifier: Apache-2.0
#include "pair.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 20000 /* for the other end; reached only when bytes are lost for good */

void pair_init(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	p->listener = p->client = p->server = -1;
}

int pair_listen(struct pair *p, enum pair_family family, int backlog)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&p->addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&p->addr;
	int zero = 0;

	memset(p, 0, sizeof(*p));
	p->client = -1;
	p->server = -1;
	if (family == PAIR_V4) {
		v4->sin_family = AF_INET;
		v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		p->addr_len = sizeof(*v4);
	} else {
		v6->sin6_family = AF_INET6;
		v6->sin6_addr = family == PAIR_V6 ? in6addr_loopback : in6addr_any;
		p->addr_len = sizeof(*v6);
	}
	p->listener = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->listener < 0)
		return -errno;
	if (family == PAIR_MAPPED)
		setsockopt(p->listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(p->listener, (struct sockaddr *)&p->addr, p->addr_len) ||
	    listen(p->listener, backlog) ||
	    getsockname(p->listener, (struct sockaddr *)&p->addr, &p->addr_len))
		return -errno;
	if (family == PAIR_MAPPED)
		inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6->sin6_addr);
	return 0;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

int pair_connect(struct pair *p)
{
	p->client = socket(p->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->client < 0 || connect(p->client, (struct sockaddr *)&p->addr, p->addr_len))
		return -errno;
	p->server = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
	if (p->server < 0)
		return -errno;
	no_delay(p->client);
	no_delay(p->server);
	return 0;
}

int pair_open(struct pair *p)
{
	int err = pair_listen(p, PAIR_V4, 16);

	return err ? err : pair_connect(p);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void pair_close(struct pair *p, bool server_first)
{
	if (server_first)
		close_fd(&p->server);
	close_fd(&p->client);
	close_fd(&p->server);
	close_fd(&p->listener);
}

/* Reads what is there and compares it with what was sent. */
static ssize_t drain(int fd, const char *expected, size_t len, int timeout_ms)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	char buf[16384];
	ssize_t n;

	if (poll(&pfd, 1, timeout_ms) <= 0)
		return timeout_ms ? -ETIMEDOUT : 0;
	n = recv(fd, buf, len < sizeof(buf) ? len : sizeof(buf), MSG_DONTWAIT);
	if (n < 0)
		return -errno;
	if (!n)
		return -ECONNABORTED;
	return memcmp(buf, expected, n) ? -EBADMSG : n;
}

static int flow(int from, int to, const char *data, size_t len, size_t piece)
{
	size_t sent = 0, got = 0;

	while (got < len) {
		ssize_t n;

		if (sent < len && (!piece || sent == got)) {
			size_t want = len - sent;

			if (piece && want > piece)
				want = piece;
			n = send(from, data + sent, want, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				return -errno;
			if (n > 0)
				sent += n;
		}
		if (sent > got) {
			n = drain(to, data + got, sent - got, WAIT_MS);
			if (n < 0)
				return n;
			got += n;
		}
	}
	return 0;
}

int pair_to_server(struct pair *p, const void *data, size_t len, size_t piece)
{
	return flow(p->client, p->server, data, len, piece);
}

int pair_to_client(struct pair *p, const void *data, size_t len, size_t piece)
{
	return flow(p->server, p->client, data, len, piece);
}
