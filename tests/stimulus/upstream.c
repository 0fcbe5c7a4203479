// SPDX-License-Identifier: Apache-2.0
/*
 * upstream PORT DELAY_MS: an HTTP server on loopback that is told how well it is. Each line of its
 * input is "well" (it answers 200 at once) or "failing" (503 after DELAY_MS). What it prints for
 * each: REQUESTS CHECKS REQUESTS CHECKS, what has reached it since the start while it was well and
 * while it was failing; a check is a GET of /check. It ends with its input.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS	     128 /* connections at a time */
#define BACKLOG	     1024
#define HEAD_BYTES   4096
#define NS_PER_MS    1000000ul
#define STACK_BYTES  (64 * 1024)
#define ANSWER(s, c) "HTTP/1.1 " s "\r\nServer: upstream\r\nContent-Length: 2\r\n" c "\r\nok"

static int listener;
static struct timespec delay;
static atomic_uint failing;
static atomic_ulong reached[2][2]; /* while failing or not, checks or not */

static const char *const answers[2][2] = {
    {ANSWER("200 OK", ""), ANSWER("200 OK", "Connection: close\r\n")},
    {ANSWER("503 Failing", ""), ANSWER("503 Failing", "Connection: close\r\n")},
};

/* A request without a body: its bytes, or 0 at the end of the connection. */
static size_t request(int fd, char *head)
{
	size_t have = 0;

	for (;;) {
		ssize_t n = recv(fd, head + have, HEAD_BYTES - 1 - have, 0);

		if (n <= 0)
			return 0;
		have += (size_t)n;
		head[have] = 0;
		if (strstr(head, "\r\n\r\n"))
			return have;
	}
}

static void serve(int fd)
{
	char head[HEAD_BYTES];
	unsigned int last = 0;

	while (!last && request(fd, head)) {
		unsigned int bad = atomic_load(&failing);
		const char *answer;

		last = strstr(head, "HTTP/1.0") || strcasestr(head, "\nconnection: close");
		atomic_fetch_add(&reached[bad][!strncmp(head, "GET /check ", 11)], 1);
		if (bad)
			nanosleep(&delay, NULL);
		answer = answers[bad][last];
		if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
			return;
	}
}

static void *work(void *unused)
{
	int one = 1;

	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		serve(fd);
		close(fd);
	}
	return unused;
}

int main(int argc, char **argv)
{
	unsigned long port = argc == 3 ? strtoul(argv[1], NULL, 10) : 0,
		      ms = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	struct sockaddr_in at = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	pthread_attr_t attr;
	pthread_t thread;
	char line[32];
	int one = 1;

	if (!port || port > 65535) {
		fprintf(stderr, "usage: upstream PORT DELAY_MS\n");
		return 2;
	}
	delay.tv_sec = (time_t)(ms / 1000);
	delay.tv_nsec = (long)(ms % 1000 * NS_PER_MS);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, BACKLOG)) {
		perror("upstream: listen");
		return 1;
	}
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&thread, &attr, work, NULL)) {
			fprintf(stderr, "upstream: no thread\n");
			return 1;
		}
	}
	while (fgets(line, sizeof(line), stdin)) {
		atomic_store(&failing, !strcmp(line, "failing\n"));
		printf("%lu %lu %lu %lu\n", atomic_load(&reached[0][0]),
		       atomic_load(&reached[0][1]), atomic_load(&reached[1][0]),
		       atomic_load(&reached[1][1]));
		fflush(stdout);
	}
	return 0;
}
