// SPDX-License-Identifier: Apache-2.0
/*
 * An agent without BPF for front_test.py: publishes a made-up snapshot every 50 ms, answers
 * commands, and says on stdout what happens: "worker PID", "late N", "command OP TARGET".
 *   front_host ADDR:PORT SOCKET [SERIES [TOKENS]] until SIGTERM; at SIGHUP it reads TOKENS again
 *   front_host --render SERIES          CPU time of one scrape with so many lines
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/command.h"
#include "api/front.h"
#include "core/clock.h"
#include "core/loop.h"
#include "export/prometheus.h"
#include "model/snapshot.h"

#define HOST_TICK_NS	 (50 * NS_PER_MS)
#define HOST_LATE_NS	 (500 * NS_PER_MS)
#define HOST_AREA	 (64u << 20)
#define LINES_PER_SERIES 18u /* 15 bounds, +Inf, sum, count */

struct host {
	struct front *front;
	struct snapshot_writer *w;
	struct loop *loop;
	uint64_t ticks, late, last_ns, commands;
	uint32_t front_pid, series;
};

static void series(struct snapshot_writer *w, uint32_t i)
{
	struct snap_series *s = snapshot_add(w, SNAP_SERIES, sizeof(*s));
	char route[64];

	if (!s)
		return;
	snprintf(route, sizeof(route), "/made/up/%u/{id}", i);
	s->workload = 0;
	s->port = 80;
	s->route = snapshot_str(w, route);
	s->address = snapshot_str(w, "192.0.2.1");
	s->status = i % 5 ? 200 : 503;
	s->role = i % 2 ? KILTER_ROLE_CLIENT : KILTER_ROLE_SERVER;
	s->protocol = KILTER_PROTO_HTTP1;
	s->method = KILTER_METHOD_GET;
	if (i % 7 == 3) {
		s->protocol = KILTER_PROTO_GRPC;
		s->method = KILTER_METHOD_POST;
		s->status = (uint16_t)(KILTER_STATUS_GRPC + i % KILTER_GRPC_CODES);
	} else if (i % 7 == 5) {
		s->protocol = KILTER_PROTO_HTTP2;
	}
	s->sum_ns = 123456789ull * (i + 1);
	for (int k = 0; k < KILTER_CLASSIC_BUCKETS; k++)
		s->classic[k] = (uint64_t)k * (i + 7);
}

static void fill(struct snapshot_writer *w, uint32_t series_count, uint64_t ticks, uint32_t front)
{
	static const char *const names[] = {"web -> 192.0.2.1:80", "slow", "missing"};
	struct snap_workload *k;
	struct snap_circuit *c;
	struct snap_conn *n;
	struct snap_node *node;

	snapshot_begin(w);
	node = snapshot_add(w, SNAP_NODE, sizeof(*node));
	*node = (struct snap_node){.start_real_ns = 1000,
				   .now_real_ns = clock_real_ns(),
				   .ticks = ticks,
				   .pid = (uint32_t)getpid(),
				   .front_pid = front,
				   .ready = ticks > 2};
	node->version = snapshot_str(w, "0.0.0");
	k = snapshot_add(w, SNAP_WORKLOADS, sizeof(*k));
	k->health = SNAPSHOT_NO_INDEX;
	k->name = snapshot_str(w, "we\"b\\\n\xff");
	k->service = 1;
	/* Known from its system calls only. */
	k = snapshot_add(w, SNAP_WORKLOADS, sizeof(*k));
	k->health = SNAPSHOT_NO_INDEX;
	k->name = snapshot_str(w, "sleep");
	n = snapshot_add(w, SNAP_CONNS, sizeof(*n));
	n->role = KILTER_ROLE_CLIENT;
	n->port = 80;
	n->total.opened = 7;
	n->total.connect_hist[3] = 7;
	n->address = snapshot_str(w, "2001:db8::1");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		c = snapshot_add(w, SNAP_CIRCUITS, sizeof(*c));
		c->name = snapshot_str(w, names[i]);
		c->state = snapshot_str(w, "closed");
	}
	for (uint32_t i = 0; i < series_count; i++)
		series(w, i);
	snapshot_commit(w);
}

static void on_tick(void *ctx, uint64_t missed)
{
	struct host *h = ctx;
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	(void)missed;
	if (h->last_ns && now - h->last_ns > HOST_LATE_NS)
		printf("late %llu\n", (unsigned long long)++h->late);
	h->last_ns = now;
	fill(h->w, h->series, ++h->ticks, h->front_pid);
}

static void on_notice(void *ctx, int fd, uint32_t events)
{
	struct host *h = ctx;

	(void)events;
	while (read(fd, &h->front_pid, sizeof(h->front_pid)) == sizeof(h->front_pid))
		printf("worker %u\n", h->front_pid);
}

static void on_command(void *ctx, int fd, uint32_t events)
{
	struct host *h = ctx;
	struct command_request q;

	(void)events;
	while (recv(fd, &q, sizeof(q), MSG_DONTWAIT) == sizeof(q)) {
		struct command_reply a = {.id = q.id};

		printf("command %u %s %s uid=%u role=%u user=%s n=%llu\n", q.op, q.target,
		       q.request_id, q.uid, q.role, q.user, (unsigned long long)++h->commands);
		if (!strcmp(q.target, "slow"))
			continue;
		a.err = strcmp(q.target, "missing") ? 0 : -ENOENT;
		snprintf(a.message, sizeof(a.message), "command %llu",
			 (unsigned long long)h->commands);
		send(fd, &a, sizeof(a), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void on_hangup(void *ctx, int signo)
{
	char text[FRONT_TEXT_LEN];
	int err = front_reload_tokens(((struct host *)ctx)->front, text);

	(void)signo;
	printf("reloaded %d %s\n", err, text);
}

static void on_signal(void *ctx, int signo)
{
	(void)signo;
	loop_stop(((struct host *)ctx)->loop, 0);
}

/* One text, piece by piece. */
static int render_once(struct snapshot_reader *r, struct snapshot *s, size_t *ret_len)
{
	struct prometheus *p = NULL;
	const char *piece;
	size_t n;
	int err = snapshot_read(r, s);

	if (!err)
		err = prometheus_new(&p, s, false);
	for (*ret_len = 0; !err && !prometheus_done(p); *ret_len += n)
		err = prometheus_next(p, NULL, 0, &piece, &n);
	prometheus_free(&p);
	return err;
}

static int render(uint32_t lines)
{
	struct snapshot_reader *r = NULL;
	struct snapshot_writer *w = NULL;
	struct snapshot s = {0};
	uint64_t start, best = UINT64_MAX;
	size_t len = 0;
	int err = snapshot_writer_new(&w, 512u << 20);

	if (!err)
		err = snapshot_reader_open(&r, snapshot_writer_fd(w));
	if (err)
		return err;
	fill(w, lines / LINES_PER_SERIES, 1, 0);
	for (int i = 0; i < 5 && !err; i++) {
		start = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
		err = render_once(r, &s, &len);
		start = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
		best = start < best ? start : best;
	}
	printf("{\"lines\":%u,\"bytes\":%zu,\"cpu_ms\":%.2f}\n", lines, len, (double)best / 1e6);
	snapshot_done(&s);
	snapshot_reader_free(&r);
	snapshot_writer_free(&w);
	return err;
}

int main(int argc, char **argv)
{
	static struct config config;
	struct host h = {.series = 64};
	struct front *f = NULL;
	int err;

	if (argc == 3 && !strcmp(argv[1], "--render")) {
		unsigned long lines = strtoul(argv[2], NULL, 10);

		return lines > 10000000 || render((uint32_t)lines) ? 1 : 0;
	}
	if (argc < 3)
		return 2;
	if (argc >= 4)
		h.series = (uint32_t)strtoul(argv[3], NULL, 10);
	setvbuf(stdout, NULL, _IOLBF, 0);
	config_defaults(&config);
	snprintf(config.listen, sizeof(config.listen), "%s", argv[1]);
	snprintf(config.socket, sizeof(config.socket), "%s", argv[2]);
	if (argc >= 5)
		snprintf(config.api.token_file, sizeof(config.api.token_file), "%s", argv[4]);
	config.api.max_connections = 32;
	config.api.max_connections_per_ip = 24;
	config.api.request_timeout_ns = 3 * NS_PER_SEC;
	err = snapshot_writer_new(&h.w, HOST_AREA);
	if (!err)
		err = loop_new(&h.loop);
	if (!err)
		err = front_start(&f, &config, snapshot_writer_fd(h.w));
	if (err)
		return 1;
	h.front = f;
	err = loop_add_timer(h.loop, HOST_TICK_NS, on_tick, &h, NULL);
	if (!err)
		err = loop_add_fd(h.loop, front_notice_fd(f), EPOLLIN, on_notice, &h, NULL);
	if (!err)
		err = loop_add_fd(h.loop, front_command_fd(f), EPOLLIN, on_command, &h, NULL);
	if (!err)
		err = loop_add_signal(h.loop, SIGTERM, on_signal, &h);
	if (!err)
		err = loop_add_signal(h.loop, SIGHUP, on_hangup, &h);
	printf("supervisor %d\n", (int)front_supervisor_pid(f));
	if (!err)
		err = loop_run(h.loop);
	front_stop(&f, 2 * NS_PER_SEC);
	loop_free(&h.loop);
	snapshot_writer_free(&h.w);
	printf("stopped\n");
	return err ? 1 : 0;
}
