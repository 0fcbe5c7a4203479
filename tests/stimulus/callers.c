// SPDX-License-Identifier: Apache-2.0
/*
 * callers PORT COUNT RATE SECONDS: COUNT threads ask a server on loopback, each request on a
 * connection of its own; RATE calls a second by all of them together, 0: as fast as they can.
 * What it prints at the end: its CPU time in ns, then for each call START_NS (CLOCK_MONOTONIC)
 * LATENCY_NS OUTCOME. OUTCOME is "ok", "failed" (upstream's own answer, not 200), "turned" (the
 * answer of something before it), "refused" (no connection) or "broken" (anything else).
 */
#include <arpa/inet.h>
#include <sys/socket.h>

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COUNT_MAX	256
#define CALLS_MAX	(1u << 20) /* of one thread; it ends there */
#define ANSWER_BYTES	2048
#define NS_PER_SECOND	1000000000ull
#define TIMEOUT_SECONDS 5

static const char ask[] = "GET / HTTP/1.1\r\nHost: upstream\r\nConnection: close\r\n\r\n";

struct call {
	uint64_t began_ns, took_ns;
	const char *outcome;
};

struct caller {
	struct call *calls;
	size_t count, room;
	uint64_t first_ns, period_ns, end_ns;
	pthread_t thread;
};

static struct sockaddr_in server = {.sin_family = AF_INET};

static uint64_t at(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

static uint64_t now(void)
{
	return at(CLOCK_MONOTONIC);
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_SECOND),
			      .tv_nsec = (long)(ns % NS_PER_SECOND)};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

/* All that comes until the other side ends the connection. */
static const char *answer(int fd)
{
	char text[ANSWER_BYTES];
	size_t have = 0;
	ssize_t n = 0;

	if (send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(ask) - 1)
		return "broken";
	while (have < sizeof(text) - 1 &&
	       (n = recv(fd, text + have, sizeof(text) - 1 - have, 0)) > 0)
		have += (size_t)n;
	text[have] = 0;
	if (n || strncmp(text, "HTTP/1.1 ", 9))
		return "broken";
	if (!strncmp(text + 9, "200 ", 4))
		return "ok";
	return strcasestr(text, "\nserver: upstream\r") ? "failed" : "turned";
}

static const char *call(void)
{
	struct timeval timeout = {.tv_sec = TIMEOUT_SECONDS};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	const char *outcome;

	if (fd < 0)
		return "broken";
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	if (!connect(fd, (struct sockaddr *)&server, sizeof(server)))
		outcome = answer(fd);
	else /* before Linux 6.1 a program's refusal is ENETUNREACH */
		outcome = errno == ECONNREFUSED || errno == ENETUNREACH ? "refused" : "broken";
	close(fd);
	return outcome;
}

static struct call *next(struct caller *c)
{
	if (c->count == c->room) {
		size_t room = c->room ? 2 * c->room : 1024;
		struct call *calls =
		    room <= CALLS_MAX ? realloc(c->calls, room * sizeof(*calls)) : NULL;

		if (!calls)
			return NULL;
		c->calls = calls;
		c->room = room;
	}
	return &c->calls[c->count++];
}

static void *work(void *arg)
{
	struct caller *c = arg;
	struct call *log;

	for (uint64_t due = c->first_ns; now() < c->end_ns; due += c->period_ns) {
		if (c->period_ns && due > now())
			sleep_until(due);
		else
			due = now(); /* late: what was missed is not made up for */
		log = next(c);
		if (!log) {
			fprintf(stderr, "callers: no room for another call\n");
			break;
		}
		log->began_ns = now();
		log->outcome = call();
		log->took_ns = now() - log->began_ns;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static struct caller callers[COUNT_MAX];
	unsigned long numbers[3] = {0};
	double seconds = argc == 5 ? strtod(argv[4], NULL) : 0;
	uint64_t began = now(), cpu = at(CLOCK_PROCESS_CPUTIME_ID), period;

	for (int i = 0; i < 3 && argc == 5; i++)
		numbers[i] = strtoul(argv[i + 1], NULL, 10);
	if (!numbers[0] || numbers[0] > 65535 || !numbers[1] || numbers[1] > COUNT_MAX ||
	    seconds <= 0) {
		fprintf(stderr, "usage: callers PORT COUNT RATE SECONDS\n");
		return 2;
	}
	server.sin_port = htons((uint16_t)numbers[0]);
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	period = numbers[2] ? numbers[1] * NS_PER_SECOND / numbers[2] : 0;
	for (unsigned long i = 0; i < numbers[1]; i++) {
		callers[i].first_ns = began + period * i / numbers[1];
		callers[i].period_ns = period;
		callers[i].end_ns = began + (uint64_t)(seconds * NS_PER_SECOND);
		if (pthread_create(&callers[i].thread, NULL, work, &callers[i])) {
			fprintf(stderr, "callers: no thread\n");
			return 1;
		}
	}
	for (unsigned long i = 0; i < numbers[1]; i++)
		pthread_join(callers[i].thread, NULL);
	printf("%llu\n", (unsigned long long)(at(CLOCK_PROCESS_CPUTIME_ID) - cpu));
	for (unsigned long i = 0; i < numbers[1]; i++) {
		for (size_t k = 0; k < callers[i].count; k++)
			printf("%llu %llu %s\n", (unsigned long long)callers[i].calls[k].began_ns,
			       (unsigned long long)callers[i].calls[k].took_ns,
			       callers[i].calls[k].outcome);
		free(callers[i].calls);
	}
	return 0;
}
