// SPDX-License-Identifier: Apache-2.0
/*
 * Connections that exist when a circuit is made or opens: they join it, are counted as open, and
 * are ended where a policy asks for it. With the real programs on a cgroup of our own. Needs root.
 */
#include <arpa/inet.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "guard_iter.skel.h"
#include "guarded.h"
#include "probe/iter.h"
#include "probe/netns.h"
#include "probe/registry.h"

#include <cmocka.h>

#define CONNECTIONS 3

static struct guard_iter *skel;
static struct bpf_link *join_link, *close_link;
static bool have_close;

static bool load(const struct bpf_object_open_opts *opts, bool lower)
{
	skel = guard_iter__open_opts(opts);
	assert_non_null(skel);
	probe_row_choose(probe_row_find("guard_iter"), skel->obj,
			 lower ? PROBE_TIER_LOWER : PROBE_TIER_FULL);
	if (!guard_iter__load(skel))
		return true;
	guard_iter__destroy(skel);
	skel = NULL;
	return false;
}

static int setup(void **state)
{
	union bpf_iter_link_info info = {0};
	LIBBPF_OPTS(bpf_iter_attach_opts, with_map, .link_info = &info,
		    .link_info_len = sizeof(info));
	LIBBPF_OPTS(bpf_object_open_opts, opts);

	guarded_setup(state);
	opts.pin_root_path = t.sandbox.bpffs;
	have_close = !tier_lower;
	if (!load(&opts, !have_close)) {
		have_close = false; /* bpf_sock_destroy is Linux 6.5 */
		if (!load(&opts, true)) {
			/* Spin locks in tracing programs are Linux 5.11, as is the full tier of
			 * others: where that is not asked for, there may be no such probe. */
			const char *tiers = getenv("KILTER_TEST_TIERS");

			assert_true(tiers && !strstr(tiers, "full"));
			return 0;
		}
	}
	info.map.map_fd = (__u32)bpf_map__fd(skel->maps.socks);
	join_link = bpf_program__attach_iter(skel->progs.guard_join, &with_map);
	assert_int_equal(libbpf_get_error(join_link), 0);
	if (have_close) {
		close_link = bpf_program__attach_iter(skel->progs.guard_close, NULL);
		assert_int_equal(libbpf_get_error(close_link), 0);
	}
	return 0;
}

static int teardown(void **state)
{
	bpf_link__destroy(join_link);
	bpf_link__destroy(close_link);
	join_link = NULL;
	close_link = NULL;
	guard_iter__destroy(skel);
	skel = NULL;
	return guarded_teardown(state);
}

static struct kilter_guard_policy limited(void)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);

	p.lease_until_ns = clock_boot_ns() + ENOUGH;
	p.max_connections = CONNECTIONS;
	return p;
}

static void connect_some(const struct dest *d, int fds[CONNECTIONS])
{
	for (int i = 0; i < CONNECTIONS; i++)
		assert_int_equal(try_connect(d, &fds[i]), 0);
}

static void close_some(int fds[CONNECTIONS])
{
	for (int i = 0; i < CONNECTIONS; i++)
		close(fds[i]);
}

static void connections_older_than_their_circuit_count(void **state)
{
	struct kilter_guard_policy p = limited();
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), fds[CONNECTIONS];
	struct dest d = dest_v4(port);

	(void)state;
	if (!join_link)
		return;
	connect_some(&d, fds);
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(join_link)), CONNECTIONS);
	assert_int_equal(counters(&d).open, CONNECTIONS);
	assert_int_equal(iter_run(bpf_link__fd(join_link)), 0); /* once */
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	close(fds[0]);
	assert_int_equal(counters(&d).open, CONNECTIONS - 1);
	assert_int_equal(try_connect(&d, &fds[0]), 0);

	/* The circuit goes and comes again: they are open still. */
	forget(&d);
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(join_link)), CONNECTIONS);
	assert_int_equal(counters(&d).open, CONNECTIONS);
	close_some(fds);
	assert_int_equal(counters(&d).open, 0);
	/* Closed by its program, with the server's end open: no connection any more. */
	assert_int_equal(iter_run(bpf_link__fd(join_link)), 0);
	forget(&d);
	close(listener);
}

static uint32_t our_id(void)
{
	int fd = bpf_map__fd(t.guard->maps.workloads);
	uint32_t key = 0, next;
	struct kilter_workload w;

	for (bool have = false; !bpf_map_get_next_key(fd, have ? &key : NULL, &next); have = true) {
		key = next;
		if (!bpf_map_lookup_elem(fd, &key, &w) && w.pid == (uint32_t)getpid())
			return key;
	}
	return 0;
}

/* From the circuit for any caller to the caller's own: the old one must not keep them. */
static void a_connection_counts_in_one_circuit_alone(void **state)
{
	struct kilter_guard_policy p = limited();
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), fds[CONNECTIONS];
	struct dest any = dest_v4(port), own = any;

	(void)state;
	if (!join_link)
		return;
	tell(&any, &p);
	connect_some(&any, fds);
	assert_int_equal(counters(&any).open, CONNECTIONS);
	own.key.workload = our_id();
	assert_int_not_equal(own.key.workload, 0);
	tell(&own, &p);
	assert_int_equal(iter_run(bpf_link__fd(join_link)), CONNECTIONS);
	assert_int_equal(counters(&any).open, 0);
	assert_int_equal(counters(&own).open, CONNECTIONS);
	close_some(fds);
	assert_int_equal(counters(&own).open, 0);
	forget(&own);
	forget(&any);
	close(listener);
}

static void joined_connections_are_judged(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	if (!join_link)
		return;
	c = talk_begin(&d, listener);
	talk_ask(&c);
	talk_answer(&c, 200);
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(join_link)), 1);
	talk_ask(&c);
	talk_answer(&c, 200);
	settles(counters(&d).total_successes == 1); /* a success, without a failure before it */
	talk_end(&c);
	forget(&d);
	close(listener);
}

static void an_open_circuit_ends_its_connections_and_no_others(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0, port2 = 0;
	int listener = listen_on(AF_INET, &port), listener2 = listen_on(AF_INET, &port2);
	struct dest d = dest_v4(port), other = dest_v4(port2);
	int fds[CONNECTIONS], bystander;
	char byte;

	(void)state;
	if (!have_close)
		return;
	tell(&d, &p);
	tell(&other, &p);
	connect_some(&d, fds);
	assert_int_equal(try_connect(&other, &bystander), 0);
	p.rules.state = KILTER_CIRCUIT_OPEN;
	p.rules.generation = next_generation();
	p.lease_until_ns = clock_boot_ns() + ENOUGH;
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(close_link)), 0); /* nobody asked for it */
	p.close_connections = 1;
	p.rules.mode = KILTER_GUARD_OBSERVE;
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(close_link)), 0);
	p.rules.mode = KILTER_GUARD_ENFORCE;
	tell(&d, &p);
	set_switch(KILTER_SWITCH_OFF, 1);
	assert_int_equal(iter_run(bpf_link__fd(close_link)), 0);
	set_switch(KILTER_SWITCH_OFF, 0);
	assert_int_equal(counters(&d).open, CONNECTIONS);

	assert_int_equal(iter_run(bpf_link__fd(close_link)), CONNECTIONS);
	assert_int_equal(counters(&d).closed, CONNECTIONS);
	settles(!counters(&d).open);
	for (int i = 0; i < CONNECTIONS; i++) {
		assert_int_equal(recv(fds[i], &byte, 1, MSG_DONTWAIT), -1);
		assert_int_equal(errno, ECONNABORTED);
	}
	assert_int_equal(send(bystander, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(counters(&d).total_failures,
			 0); /* our own doing is no failure of theirs */
	close_some(fds);
	close(bystander);
	forget(&d);
	forget(&other);
	close(listener);
	close(listener2);
}

/* A connection in a network namespace of its own. Exits with 0 when it was ended in the end. */
static pid_t somewhere_else(int *ret_up, int *ret_go, const struct dest *d)
{
	int up[2], go[2], fd = -1;
	uint16_t port;
	pid_t pid;
	char byte;

	assert_int_equal(pipe2(up, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid) {
		close(up[1]);
		close(go[0]);
		*ret_up = up[0];
		*ret_go = go[1];
		return pid;
	}
	close(up[0]);
	close(go[1]); /* a parent that has failed ends us as well */
	if (sandbox_network())
		_exit(2);
	port = ((const struct sockaddr_in *)&d->addr)->sin_port;
	listen_on(AF_INET, &port);
	if (try_connect(d, &fd) || write(up[1], "x", 1) != 1 || read(go[0], &byte, 1) != 1)
		_exit(4);
	_exit(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNABORTED ? 0 : 5);
}

static void connections_of_other_namespaces_end_as_well(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	struct dest d = dest_v4(htons(17771));
	int up, go, status;
	struct netns *elsewhere;
	pid_t pid;
	char byte;

	(void)state;
	if (!have_close)
		return;
	assert_int_equal(netns_start(&elsewhere, close_link), 0);
	tell(&d, &p);
	pid = somewhere_else(&up, &go, &d);
	assert_int_equal(read(up, &byte, 1), 1);
	p.rules.state = KILTER_CIRCUIT_OPEN;
	p.rules.generation = next_generation();
	p.lease_until_ns = clock_boot_ns() + ENOUGH;
	p.close_connections = 1;
	tell(&d, &p);
	assert_int_equal(iter_run(bpf_link__fd(close_link)), 0); /* it is not here */
	assert_int_equal(netns_ask(elsewhere), 0);
	assert_int_equal(
	    poll(&(struct pollfd){.fd = netns_fd(elsewhere), .events = POLLIN}, 1, SETTLE_ATTEMPTS),
	    1);
	assert_int_equal(netns_result(elsewhere), 1);
	assert_int_equal(write(go, "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_int_equal(counters(&d).closed, 1);
	netns_stop(&elsewhere);
	close(up);
	close(go);
	forget(&d);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(connections_older_than_their_circuit_count),
	    cmocka_unit_test(a_connection_counts_in_one_circuit_alone),
	    cmocka_unit_test(joined_connections_are_judged),
	    cmocka_unit_test(an_open_circuit_ends_its_connections_and_no_others),
	    cmocka_unit_test(connections_of_other_namespaces_end_as_well),
	};

	return cmocka_run_group_tests_name(name, tests, setup, teardown);
}

int main(void)
{
	return tier_runs(run);
}
