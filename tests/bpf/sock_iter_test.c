// SPDX-License-Identifier: Apache-2.0
/* Sockets older than the programs: taken over once and only once. Needs root. */
#include <sys/socket.h>
#include <sys/stat.h>

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/series.h>

#include "pair.h"
#include "request.skel.h"
#include "sandbox.h"
#include "sock_iter.skel.h"
#include "sock_owner.skel.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define LINKS_MAX     8
#define REQUESTS      3
#define QUEUE_LIMIT   7
#define REQUEST_TEXT  "GET /kept HTTP/1.1\r\nHost: a\r\n\r\n"
#define RESPONSE_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct {
	struct sandbox sandbox;
	struct sock_owner *owner;
	struct tcp_conn *tcp;
	struct request *request;
	struct sock_iter *iter;
	struct bpf_link *links[LINKS_MAX];
	unsigned int links_count;
	struct kilter_conn conn[3]; /* by role */
	struct pair pair, later;
} t;

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, ap) : 0;
}

static int group_setup(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = t.sandbox.bpffs);
	struct stat st;

	(void)state;
	libbpf_set_print(quiet);
	assert_int_equal(sandbox_init(&t.sandbox), 0);
	assert_int_equal(fstat(t.sandbox.cgroup_fd, &st), 0);
	t.owner = sock_owner__open_opts(&opts);
	t.tcp = tcp_conn__open_opts(&opts);
	t.request = request__open_opts(&opts);
	t.iter = sock_iter__open_opts(&opts);
	assert_true(t.owner && t.tcp && t.request && t.iter);
	t.iter->rodata->observed_id = st.st_ino; /* kernfs: the inode number is the id */
	assert_int_equal(sock_owner__load(t.owner), 0);
	assert_int_equal(tcp_conn__load(t.tcp), 0);
	assert_int_equal(request__load(t.request), 0);
	assert_int_equal(sock_iter__load(t.iter), 0);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	sock_iter__destroy(t.iter);
	request__destroy(t.request);
	tcp_conn__destroy(t.tcp);
	sock_owner__destroy(t.owner);
	sandbox_done(&t.sandbox);
	return 0;
}

static void map_clear(int fd)
{
	char key[64];

	while (!bpf_map_get_next_key(fd, NULL, key))
		assert_int_equal(bpf_map_delete_elem(fd, key), 0);
}

static int setup(void **state)
{
	(void)state;
	map_clear(bpf_map__fd(t.request->maps.series));
	map_clear(bpf_map__fd(t.tcp->maps.conns));
	map_clear(bpf_map__fd(t.tcp->maps.listeners));
	map_clear(bpf_map__fd(t.iter->maps.listen_ports));
	memset(&t.pair, 0, sizeof(t.pair));
	t.pair.listener = t.pair.client = t.pair.server = -1;
	t.later = t.pair;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	while (t.links_count)
		bpf_link__destroy(t.links[--t.links_count]);
	pair_close(&t.pair, false);
	pair_close(&t.later, false);
	return 0;
}

static void attach(struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_cgroup(prog, t.sandbox.cgroup_fd);

	assert_non_null(link);
	assert_true(t.links_count < LINKS_MAX);
	t.links[t.links_count++] = link;
}

static void start_programs(void)
{
	attach(t.owner->progs.own_connect4);
	attach(t.owner->progs.own_connect6);
	attach(t.owner->progs.own_bind4);
	attach(t.owner->progs.own_bind6);
	attach(t.tcp->progs.tcp_life);
	attach(t.request->progs.request_ingress);
	attach(t.request->progs.request_egress);
}

static void iterate(struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_iter(prog, NULL);
	char buf[64];
	ssize_t n;
	int fd;

	assert_non_null(link);
	fd = bpf_iter_create(bpf_link__fd(link));
	assert_true(fd >= 0);
	do
		n = read(fd, buf, sizeof(buf));
	while (n > 0 || (n < 0 && errno == EAGAIN));
	close(fd);
	bpf_link__destroy(link);
	assert_int_equal(n, 0);
}

static void adopt(void)
{
	iterate(t.iter->progs.adopt_owner);
	iterate(t.iter->progs.adopt_listeners);
	iterate(t.iter->progs.adopt_tcp);
}

static void read_conns(void)
{
	int fd = bpf_map__fd(t.tcp->maps.conns);
	struct kilter_conn_key key, *prev = NULL;

	memset(t.conn, 0, sizeof(t.conn));
	while (!bpf_map_get_next_key(fd, prev, &key)) {
		struct kilter_conn v;

		prev = &key;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &v), 0);
		assert_in_range(key.role, KILTER_ROLE_SERVER, KILTER_ROLE_CLIENT);
		t.conn[key.role].opened += v.opened;
		t.conn[key.role].adopted += v.adopted;
	}
}

static void expect_conns(unsigned int adopted, unsigned int opened)
{
	read_conns();
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++) {
		assert_int_equal(t.conn[role].adopted, adopted);
		assert_int_equal(t.conn[role].opened, opened);
	}
}

static unsigned int listeners_count(struct kilter_listener *last)
{
	int fd = bpf_map__fd(t.tcp->maps.listeners);
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
	int fd = bpf_map__fd(t.request->maps.series);
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
	adopt();
	expect_conns(1, 0);
	assert_int_equal(listeners_count(&l), 1);
	assert_int_equal(l.queue_limit, QUEUE_LIMIT);
	adopt();
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
	start_programs();
	assert_int_equal(pair_open(&t.later), 0);
	expect_conns(0, 1);
	adopt();
	expect_conns(1, 1);
	adopt();
	expect_conns(1, 1);
}

static void requests_on_a_kept_alive_connection_count_after_adoption(void **state)
{
	(void)state;
	assert_int_equal(pair_open(&t.pair), 0);
	assert_int_equal(pair_to_server(&t.pair, REQUEST_TEXT, strlen(REQUEST_TEXT), 0), 0);
	assert_int_equal(pair_to_client(&t.pair, RESPONSE_TEXT, strlen(RESPONSE_TEXT), 0), 0);
	start_programs();
	adopt();
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
	char path[PATH_MAX];
	struct kilter_listener l;
	FILE *f;

	/* A socket belongs to the cgroup that its process was in when it was made. */
	(void)state;
	assert_true(snprintf(path, sizeof(path), "%.4000s/cgroup.procs", t.sandbox.home) > 0);
	f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "%d", getpid());
	assert_int_equal(fclose(f), 0);
	assert_int_equal(pair_open(&t.pair), 0);
	assert_true(snprintf(path, sizeof(path), "%.4000s/cgroup.procs", t.sandbox.cgroup) > 0);
	f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "%d", getpid());
	assert_int_equal(fclose(f), 0);
	adopt();
	expect_conns(0, 0);
	assert_int_equal(listeners_count(&l), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_ipv4_connection_is_adopted_once_on_each_side),
	    TEST(an_ipv6_connection_is_adopted_once_on_each_side),
	    TEST(a_connection_that_the_programs_saw_open_is_not_adopted),
	    TEST(requests_on_a_kept_alive_connection_count_after_adoption),
	    TEST(sockets_of_another_cgroup_are_left_alone),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
