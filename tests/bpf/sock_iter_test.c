// SPDX-License-Identifier: Apache-2.0
/* Sockets older than the programs: taken over once and only once. Needs root. */
#include <sys/socket.h>

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/series.h>

#include "pair.h"
#include "programs.h"
#include "request.skel.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define REQUESTS      3
#define QUEUE_LIMIT   7
#define REQUEST_TEXT  "GET /kept HTTP/1.1\r\nHost: a\r\n\r\n"
#define RESPONSE_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct {
	struct programs programs;
	struct kilter_conn conn[3]; /* by role */
	struct pair pair, later;
} t;

static int group_setup(void **state)
{
	(void)state;
	programs_load(&t.programs);
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
	t.later = t.pair;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	programs_detach(&t.programs);
	pair_close(&t.pair, false);
	pair_close(&t.later, false);
	return 0;
}

static void expect_conns(unsigned int adopted, unsigned int opened)
{
	programs_conns(&t.programs, t.conn);
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++) {
		assert_int_equal(t.conn[role].adopted, adopted);
		assert_int_equal(t.conn[role].opened, opened);
	}
}

static unsigned int listeners_count(struct kilter_listener *last)
{
	int fd = bpf_map__fd(t.programs.tcp->maps.listeners);
	struct kilter_listener_key key, *prev = NULL;
	unsigned int n = 0;

	while (!bpf_map_get_next_key(fd, prev, &key)) {
		prev = &key;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, last), 0);
		n++;
	}
	return n;
}

static __u64 requests(enum kilter_role role, unsigned int status)
{
	int fd = bpf_map__fd(t.programs.request->maps.series);
	struct kilter_series_key key, *prev = NULL;
	struct kilter_series v;
	__u64 n = 0;

	while (!bpf_map_get_next_key(fd, prev, &key)) {
		prev = &key;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &v), 0);
		if (key.role != role || key.status != status)
			continue;
		for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
			n += v.classic[i];
	}
	return n;
}

static void check_once(enum pair_family family)
{
	struct kilter_listener l;

	assert_int_equal(pair_listen(&t.pair, family, QUEUE_LIMIT), 0);
	assert_int_equal(pair_connect(&t.pair), 0);
	expect_conns(0, 0);
	programs_adopt(&t.programs);
	expect_conns(1, 0);
	assert_int_equal(listeners_count(&l), 1);
	assert_int_equal(l.queue_limit, QUEUE_LIMIT);
	programs_adopt(&t.programs);
	expect_conns(1, 0);
	assert_int_equal(listeners_count(&l), 1);
}

static void an_ipv4_connection_is_adopted_once_on_each_side(void **state)
{
	(void)state;
	check_once(PAIR_V4);
}

static void an_ipv6_connection_is_adopted_once_on_each_side(void **state)
{
	(void)state;
	check_once(PAIR_V6);
}

static void a_connection_that_the_programs_saw_open_is_not_adopted(void **state)
{
	(void)state;
	assert_int_equal(pair_open(&t.pair), 0);
	programs_attach(&t.programs);
	assert_int_equal(pair_open(&t.later), 0);
	expect_conns(0, 1);
	programs_adopt(&t.programs);
	expect_conns(1, 1);
	programs_adopt(&t.programs);
	expect_conns(1, 1);
}

static void requests_on_a_kept_alive_connection_count_after_adoption(void **state)
{
	(void)state;
	assert_int_equal(pair_open(&t.pair), 0);
	assert_int_equal(pair_to_server(&t.pair, REQUEST_TEXT, strlen(REQUEST_TEXT), 0), 0);
	assert_int_equal(pair_to_client(&t.pair, RESPONSE_TEXT, strlen(RESPONSE_TEXT), 0), 0);
	programs_attach(&t.programs);
	programs_adopt(&t.programs);
	for (int i = 0; i < REQUESTS; i++) {
		assert_int_equal(pair_to_server(&t.pair, REQUEST_TEXT, strlen(REQUEST_TEXT), 0), 0);
		assert_int_equal(pair_to_client(&t.pair, RESPONSE_TEXT, strlen(RESPONSE_TEXT), 0),
				 0);
	}
	assert_int_equal(requests(KILTER_ROLE_SERVER, 200), REQUESTS);
	assert_int_equal(requests(KILTER_ROLE_CLIENT, 200), REQUESTS);
}

static void sockets_of_another_cgroup_are_left_alone(void **state)
{
	struct kilter_listener l;

	/* A socket belongs to the cgroup that its process was in when it was made. */
	(void)state;
	assert_int_equal(sandbox_join(t.programs.sandbox.home), 0);
	assert_int_equal(pair_open(&t.pair), 0);
	assert_int_equal(sandbox_join(t.programs.sandbox.cgroup), 0);
	programs_adopt(&t.programs);
	expect_conns(0, 0);
	assert_int_equal(listeners_count(&l), 0);
}

/* Their ends are not seen by sockops. */
static void the_end_of_an_adopted_connection_is_counted_once(void **state)
{
	(void)state;
	assert_int_equal(pair_open(&t.pair), 0);
	programs_attach(&t.programs);
	programs_adopt(&t.programs);
	expect_conns(1, 0);
	pair_close(&t.pair, false);
	programs_settle(&t.programs, t.conn);
	usleep(1000);
	programs_conns(&t.programs, t.conn);
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].closed, 1);
	assert_int_equal(t.conn[KILTER_ROLE_SERVER].closed, 1);
}

static void an_adopted_listener_that_closes_leaves_no_row(void **state)
{
	struct kilter_listener l;

	(void)state;
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, QUEUE_LIMIT), 0);
	programs_attach(&t.programs);
	programs_adopt(&t.programs);
	assert_int_equal(listeners_count(&l), 1);
	assert_int_equal(l.sockets, 1);
	close(t.pair.listener);
	t.pair.listener = -1;
	assert_int_equal(listeners_count(&l), 0);
}

/* As a container's: the socket lives in a namespace that the agent is not in. */
static void a_socket_of_another_network_namespace_is_adopted(void **state)
{
	int before = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	struct kilter_listener l;

	(void)state;
	assert_true(before >= 0);
	assert_int_equal(sandbox_network(), 0);
	assert_int_equal(pair_open(&t.pair), 0);
	assert_int_equal(setns(before, CLONE_NEWNET), 0);
	close(before);
	programs_adopt(&t.programs);
	expect_conns(1, 0);
	assert_int_equal(listeners_count(&l), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_ipv4_connection_is_adopted_once_on_each_side),
	    TEST(an_ipv6_connection_is_adopted_once_on_each_side),
	    TEST(a_connection_that_the_programs_saw_open_is_not_adopted),
	    TEST(requests_on_a_kept_alive_connection_count_after_adoption),
	    TEST(sockets_of_another_cgroup_are_left_alone),
	    TEST(the_end_of_an_adopted_connection_is_counted_once),
	    TEST(an_adopted_listener_that_closes_leaves_no_row),
	    TEST(a_socket_of_another_network_namespace_is_adopted),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

int main(void)
{
	return tier_runs(run);
}
