// SPDX-License-Identifier: Apache-2.0
/* Connections and listeners as the kernel counts them, over loopback. Needs root. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/drops.h>
#include <kilter/limits.h>
#include <kilter/series.h>

#include "pair.h"
#include "programs.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define BACKLOG 2

static struct {
	struct programs programs;
	struct kilter_conn conn[3]; /* by role */
	struct pair pair;
} t;

static int group_setup(void **state)
{
	(void)state;
	programs_load(&t.programs);
	programs_attach(&t.programs);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	programs_done(&t.programs);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	programs_clear(&t.programs);
	pair_init(&t.pair);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pair_close(&t.pair, false);
	return 0;
}

static void read_conns(void)
{
	programs_conns(&t.programs, t.conn);
}

static void settle(void)
{
	programs_settle(&t.programs, t.conn);
	assert_int_equal(t.conn[KILTER_ROLE_SERVER].adopted + t.conn[KILTER_ROLE_CLIENT].adopted,
			 0);
}

static void each_connection_is_opened_and_closed_once_on_both_sides(void **state)
{
	const struct kilter_conn *client = &t.conn[KILTER_ROLE_CLIENT];
	const struct kilter_conn *server = &t.conn[KILTER_ROLE_SERVER];
	__u64 connects = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(pair_open(&t.pair), 0);
		read_conns();
		assert_int_equal(client->opened, i + 1);
		assert_int_equal(server->opened, i + 1);
		pair_close(&t.pair, i & 1);
		settle();
	}
	assert_int_equal(client->closed, 20);
	assert_int_equal(server->closed, 20);
	assert_int_equal(client->adopted + server->adopted, 0);
	for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
		connects += client->connect_hist[i];
	assert_int_equal(connects, 20);
	for (int i = 0; i < KILTER_CONNECT_FAILURES; i++)
		assert_int_equal(client->failed[i] + server->failed[i], 0);
}

static void bytes_are_payload_in_each_direction(void **state)
{
	static char data[30000];

	(void)state;
	assert_int_equal(pair_open(&t.pair), 0);
	assert_int_equal(pair_to_server(&t.pair, data, 30000, 0), 0);
	assert_int_equal(pair_to_client(&t.pair, data, 7000, 0), 0);
	pair_close(&t.pair, false);
	settle();
	/* TCP counts SYN and FIN among the bytes that were acknowledged or received. */
	assert_in_range(t.conn[KILTER_ROLE_SERVER].bytes_in, 30000, 30002);
	assert_in_range(t.conn[KILTER_ROLE_SERVER].bytes_out, 7000, 7002);
	assert_in_range(t.conn[KILTER_ROLE_CLIENT].bytes_in, 7000, 7002);
	assert_in_range(t.conn[KILTER_ROLE_CLIENT].bytes_out, 30000, 30002);
}

static void a_refused_connect_is_a_failure_and_no_connection(void **state)
{
	const struct kilter_conn *client = &t.conn[KILTER_ROLE_CLIENT];

	(void)state;
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, 1), 0);
	close(t.pair.listener); /* the port is free, and known to be */
	t.pair.listener = -1;
	for (int i = 0; i < 5; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(fd, (struct sockaddr *)&t.pair.addr, t.pair.addr_len), -1);
		assert_int_equal(errno, ECONNREFUSED);
		close(fd);
	}
	read_conns();
	assert_int_equal(client->failed[KILTER_CONNECT_REFUSED], 5);
	assert_int_equal(client->opened, 0);
	assert_int_equal(client->closed, 0);
}

/* The network namespace of its own that a test has until it calls leave_netns(). */
static int enter_netns(void)
{
	int before = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	assert_true(before >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	return before;
}

static void leave_netns(int before)
{
	assert_int_equal(setns(before, CLONE_NEWNET), 0);
	close(before);
}

static void loopback_up(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
}

/* connect() returns at once and no packet is sent; the socket tells when it is used again or
 * closed. */
static void a_connect_without_a_route_is_a_failure(void **state)
{
	const struct sockaddr_in v4 = {
	    .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct sockaddr_in6 v6 = {
	    .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	const struct kilter_conn *client = &t.conn[KILTER_ROLE_CLIENT];
	int before = enter_netns(); /* where not even the loopback is up */

	(void)state;
	for (int i = 0; i < 2; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(connect(fd, (const struct sockaddr *)&v4, sizeof(v4)), -1);
		assert_int_equal(errno, ENETUNREACH);
		assert_int_equal(connect(fd, (const struct sockaddr *)&v4, sizeof(v4)), -1);
		close(fd);
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd, (const struct sockaddr *)&v6, sizeof(v6)), -1);
		close(fd);
		close(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); /* never connected */
	}
	leave_netns(before);
	read_conns();
	assert_int_equal(client->failed[KILTER_CONNECT_UNREACHABLE], 4);
	assert_int_equal(client->failed[KILTER_CONNECT_OTHER], 2); /* IPv6: there may be IPv4 */
	assert_int_equal(client->opened, 0);
}

static void a_connect_without_a_local_port_is_a_failure(void **state)
{
	const struct kilter_conn *client = &t.conn[KILTER_ROLE_CLIENT];
	int before = enter_netns(), range, fd;
	struct sockaddr_in to;
	socklen_t len = sizeof(to);

	(void)state;
	loopback_up();
	range = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(range, "40000 40000", 11), 11);
	close(range);
	memset(&to, 0, sizeof(to));
	to.sin_family = AF_INET;
	to.sin_port = htons(9999);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	t.pair.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(t.pair.listener, (struct sockaddr *)&to, len), 0);
	assert_int_equal(listen(t.pair.listener, 8), 0);
	t.pair.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(t.pair.client, (struct sockaddr *)&to, len), 0);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, len), -1);
	assert_int_equal(errno, EADDRNOTAVAIL);
	close(fd);
	leave_netns(before);
	read_conns();
	assert_int_equal(client->opened, 1);
	/* Without the tracepoint it looks as if there were no route: docs/kernels.md. */
	assert_int_equal(client->failed[KILTER_CONNECT_OTHER], tier_lower ? 0 : 1);
	assert_int_equal(client->failed[KILTER_CONNECT_UNREACHABLE], tier_lower ? 1 : 0);
}

/* SYNs meet an accept queue that is full: nobody answers. */
static void a_connect_that_nobody_answers_is_timed_out(void **state)
{
	const struct kilter_conn *client = &t.conn[KILTER_ROLE_CLIENT];
	int fds[BACKLOG + 1], fd, once = 1;

	(void)state;
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, BACKLOG), 0);
	for (int i = 0; i < BACKLOG + 1; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&t.pair.addr, t.pair.addr_len),
				 0);
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &once, sizeof(once)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&t.pair.addr, t.pair.addr_len), -1);
	assert_int_equal(errno, ETIMEDOUT);
	close(fd);
	read_conns();
	assert_int_equal(client->failed[KILTER_CONNECT_TIMED_OUT], 1);
	for (int i = 0; i < BACKLOG + 1; i++)
		close(fds[i]);
}

static void an_accept_queue_that_nobody_empties_is_seen(void **state)
{
	int fds[BACKLOG + 4], fd = bpf_map__fd(t.programs.tcp->maps.listeners), full = 0;
	struct kilter_listener_key key, next;
	struct kilter_listener l;

	(void)state;
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, BACKLOG), 0);
	for (int i = 0; i < BACKLOG + 4; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		assert_true(fds[i] >= 0);
		if (connect(fds[i], (struct sockaddr *)&t.pair.addr, t.pair.addr_len))
			full += errno == EINPROGRESS;
	}
	assert_true(full > 0);
	assert_int_equal(bpf_map_get_next_key(fd, NULL, &key), 0);
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &l), 0);
	assert_int_equal(bpf_map_get_next_key(fd, &key, &next), -ENOENT);
	assert_int_equal(l.queue_limit, BACKLOG);
	assert_true(l.queue_peak >= BACKLOG);
	assert_true(l.overflows > 0);
	for (int i = 0; i < BACKLOG + 4; i++)
		close(fds[i]);
}

/* Two sockets at one port (SO_REUSEPORT) are one row: the last to close takes it along. */
static void a_closed_listener_leaves_no_row(void **state)
{
	int fd = bpf_map__fd(t.programs.tcp->maps.listeners), one = 1, fds[2];
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	struct kilter_listener_key key;
	struct kilter_listener l;

	(void)state;
	for (int i = 0; i < 2; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_true(fds[i] >= 0);
		assert_int_equal(setsockopt(fds[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)),
				 0);
		assert_int_equal(bind(fds[i], (struct sockaddr *)&at, sizeof(at)), 0);
		assert_int_equal(listen(fds[i], 3), 0);
		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&at, &len), 0);
	}
	assert_int_equal(listen(fds[0], 5), 0); /* a new backlog, no new listener */
	assert_int_equal(bpf_map_get_next_key(fd, NULL, &key), 0);
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &l), 0);
	assert_int_equal(l.sockets, 2);
	close(fds[0]);
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &l), 0);
	assert_int_equal(l.sockets, 1);
	close(fds[1]);
	assert_int_equal(bpf_map_get_next_key(fd, NULL, &key), -ENOENT);
}

/* The others are of nobody. */
static void a_listener_without_a_row_is_counted(void **state)
{
	int fd = bpf_map__fd(t.programs.tcp->maps.listeners);
	int drops = bpf_map__fd(t.programs.tcp->maps.drops);
	struct kilter_listener_key key = {0};
	struct kilter_listener l = {0};
	__u64 before = drops_read(drops, KILTER_DROP_LISTENERS_FULL);

	(void)state;
	for (key.peer = 1; key.peer <= KILTER_LISTENERS_MAX; key.peer++)
		assert_int_equal(bpf_map_update_elem(fd, &key, &l, BPF_NOEXIST), 0);
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, BACKLOG), 0);
	assert_int_equal(drops_read(drops, KILTER_DROP_LISTENERS_FULL), before + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    TEST(each_connection_is_opened_and_closed_once_on_both_sides),
	    TEST(bytes_are_payload_in_each_direction),
	    TEST(a_refused_connect_is_a_failure_and_no_connection),
	    TEST(a_connect_without_a_route_is_a_failure),
	    TEST(a_connect_without_a_local_port_is_a_failure),
	    TEST(a_connect_that_nobody_answers_is_timed_out),
	    TEST(a_closed_listener_leaves_no_row),
	    TEST(a_listener_without_a_row_is_counted),
	    TEST(an_accept_queue_that_nobody_empties_is_seen),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

int main(void)
{
	return tier_runs(run);
}
