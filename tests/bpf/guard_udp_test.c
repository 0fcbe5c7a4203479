// SPDX-License-Identifier: Apache-2.0
/*
 * The guard and UDP: connected sockets and datagrams to an address; and which cgroup a socket
 * belongs to when its process moves. With the real programs on a cgroup of our own. Needs root.
 */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <bpf/bpf.h>

#include "guarded.h"

#include <cmocka.h>

/* What a refused datagram is to the caller. */
#define UDP_REFUSED (tier_lower ? EPERM : ECONNREFUSED)
#define PORT	    htons(40053) /* nobody need listen there */

static struct dest udp(struct dest d, const struct sockaddr_storage *at)
{
	union {
		struct kilter_peer p;
		__u32 words[sizeof(struct kilter_peer) / 4];
	} peer = {.p = {.port_be = PORT, .transport = KILTER_TRANSPORT_UDP}};
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)at;

	if (at->ss_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		peer.p.family = KILTER_FAMILY_V4;
		memcpy(peer.p.addr, (uint8_t[4]){127, 0, 0, 1}, 4);
	} else {
		peer.p.family = KILTER_FAMILY_V6;
		peer.p.addr[15] = 1;
	}
	d.key.peer = kilter_hash_words(peer.words, sizeof(peer.words) / 4);
	return d;
}

static struct dest udp_v4(void)
{
	struct dest d = dest_v4(PORT);

	return udp(d, &d.addr);
}

static struct dest udp_v6(bool mapped)
{
	struct dest d = dest_v6(PORT, mapped);

	return udp(d, &d.addr);
}

/* 0 or the errno of one datagram from an unconnected socket. */
static int send_one(const struct dest *d)
{
	int fd = socket(d->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	assert_true(fd >= 0);
	if (sendto(fd, "x", 1, 0, (const struct sockaddr *)&d->addr, d->len) < 0)
		err = errno;
	close(fd);
	return err;
}

static int connect_one(const struct dest *d)
{
	int fd = socket(d->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	assert_true(fd >= 0);
	err = connect(fd, (const struct sockaddr *)&d->addr, d->len) ? errno : 0;
	close(fd);
	return err;
}

static void an_open_circuit_refuses_datagrams_and_connects(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	const struct dest dests[] = {udp_v4(), udp_v6(false), udp_v6(true)};

	(void)state;
	set_switch(KILTER_SWITCH_UDP, 1);
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		tell(&dests[i], &p);
		assert_int_equal(send_one(&dests[i]), UDP_REFUSED);
		assert_int_equal(connect_one(&dests[i]), UDP_REFUSED);
		assert_int_equal(counters(&dests[i]).refused[KILTER_REFUSED_OPEN], 2);
		assert_int_equal(counters(&dests[i]).open, 0);
		drain();
		assert_int_equal(t.refused_records, 2);
		assert_int_equal(t.refused.peer.transport, KILTER_TRANSPORT_UDP);
		assert_int_equal(t.refused.err, UDP_REFUSED);
		assert_int_equal(t.refused.h.pid, getpid());
		forget(&dests[i]);
		assert_int_equal(send_one(&dests[i]), 0);
	}
	set_switch(KILTER_SWITCH_UDP, 0);
}

static void without_a_policy_for_udp_nothing_is_looked_up(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	struct dest d = udp_v4();

	(void)state;
	tell(&d, &p);
	assert_int_equal(send_one(&d), 0);
	assert_int_equal(counters(&d).made_ns, 0);
	forget(&d);
}

static void tcp_and_udp_of_one_port_are_two_destinations(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = PORT;
	int listener = listen_on(AF_INET, &port);
	struct dest tcp = dest_v4(PORT), d = udp_v4();

	(void)state;
	set_switch(KILTER_SWITCH_UDP, 1);
	tell(&d, &p);
	assert_int_equal(try_connect(&tcp, NULL), 0);
	assert_int_equal(send_one(&d), UDP_REFUSED);
	forget(&d);
	tell(&tcp, &p);
	assert_int_equal(try_connect(&tcp, NULL), REFUSED);
	assert_int_equal(send_one(&d), 0);
	forget(&tcp);
	set_switch(KILTER_SWITCH_UDP, 0);
	close(listener);
}

static void datagrams_are_limited_by_rate(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	struct dest d = udp_v4();

	(void)state;
	set_switch(KILTER_SWITCH_UDP, 1);
	p.lease_until_ns = clock_boot_ns() + ENOUGH;
	p.rate_interval_ns = 600 * NS_PER_SEC;
	p.rate_tolerance_ns = 9 * p.rate_interval_ns;
	tell(&d, &p);
	for (int i = 0; i < 10; i++)
		assert_int_equal(send_one(&d), 0);
	assert_int_equal(send_one(&d), UDP_REFUSED);
	assert_int_equal(counters(&d).refused[KILTER_REFUSED_RATE], 1);
	forget(&d);
	set_switch(KILTER_SWITCH_UDP, 0);
}

/* Nothing is known of what becomes of a datagram: that it was let through has to do. */
static void half_open_is_decided_by_what_is_let_through(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	struct dest d = udp_v4();

	(void)state;
	set_switch(KILTER_SWITCH_UDP, 1);
	tell(&d, &p);
	drain();
	for (unsigned int i = 0; i < p.rules.successes; i++)
		assert_int_equal(send_one(&d), 0);
	assert_int_equal(counters(&d).successes, p.rules.successes);
	assert_int_equal(counters(&d).permits, 0);
	drain();
	assert_int_equal(t.verdict_records, 1);
	forget(&d);
	set_switch(KILTER_SWITCH_UDP, 0);
}

/* The socket's cgroup decides, as it was when the socket was made; not where its process is. */
static void a_socket_stays_in_the_cgroup_that_it_was_made_in(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), inside, outside;
	struct dest d = dest_v4(port);

	(void)state;
	tell(&d, &p);
	inside = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(sandbox_join(t.sandbox.home), 0);
	outside = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(inside, (struct sockaddr *)&d.addr, d.len), -1);
	assert_int_equal(errno, REFUSED);
	assert_int_equal(sandbox_join(t.sandbox.cgroup), 0);
	assert_int_equal(connect(outside, (struct sockaddr *)&d.addr, d.len), 0);
	assert_int_equal(counters(&d).refused[KILTER_REFUSED_OPEN], 1);
	close(inside);
	close(outside);
	forget(&d);
	close(listener);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_open_circuit_refuses_datagrams_and_connects),
	    cmocka_unit_test(without_a_policy_for_udp_nothing_is_looked_up),
	    cmocka_unit_test(tcp_and_udp_of_one_port_are_two_destinations),
	    cmocka_unit_test(datagrams_are_limited_by_rate),
	    cmocka_unit_test(half_open_is_decided_by_what_is_let_through),
	    cmocka_unit_test(a_socket_stays_in_the_cgroup_that_it_was_made_in),
	};

	return cmocka_run_group_tests_name(name, tests, guarded_setup, guarded_teardown);
}

int main(void)
{
	return tier_runs(run);
}
