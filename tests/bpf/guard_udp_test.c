// SPDX-License-Identifier: Apache-2.0
/*
 * The guard and UDP: connected sockets and datagrams to an address; and which cgroup a socket
 * belongs to when its process moves. With the real programs on a cgroup of our own. Needs root.
 */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <poll.h>
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

/* --- what becomes of a datagram --- */

#define SILENCE_US 1100000 /* a little more than UDP_SILENCE_NS of bpf/lib/udp.h */

/* A socket that is connected there; it is its program's to close. */
static int talk_to(const struct dest *d)
{
	int fd = socket(d->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&d->addr, d->len), 0);
	return fd;
}

static void say(int fd)
{
	assert_int_equal(send(fd, "x", 1, 0), 1);
}

/* The error of the last datagram, awaited and taken off: on a busy machine ICMP comes later. */
static int pending_error(int fd)
{
	struct pollfd p = {.fd = fd};
	socklen_t len = sizeof(int);
	int err = 0;

	assert_int_equal(poll(&p, 1, SETTLE_ATTEMPTS), 1);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len), 0);
	return err;
}

static int serve_at(const struct dest *d)
{
	int fd = socket(d->addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&d->addr, d->len), 0);
	return fd;
}

/* Answers the one datagram that has come, so many times, and what has come of it is taken in. */
static void answer(int server, int client, int times)
{
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	char c;

	assert_int_equal(recvfrom(server, &c, 1, 0, (struct sockaddr *)&from, &len), 1);
	for (int i = 0; i < times; i++) {
		assert_int_equal(sendto(server, "y", 1, 0, (const struct sockaddr *)&from, len), 1);
		assert_int_equal(recv(client, &c, 1, 0), 1);
	}
}

static void ask(int client, int server)
{
	say(client);
	answer(server, client, 1);
}

/* Its destination is known to answer from now on. */
static void answer_once(const struct dest *d, int server)
{
	int client = talk_to(d);

	ask(client, server);
	close(client);
	assert_int_equal(counters(d).answered, 1);
}

static struct dest begin(const struct dest *d, struct kilter_guard_policy *p)
{
	set_switch(KILTER_SWITCH_UDP, 1);
	tell(d, p);
	drain();
	return *d;
}

static void end(const struct dest *d)
{
	forget(d);
	set_switch(KILTER_SWITCH_UDP, 0);
}

static void a_closed_port_trips(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest dests[] = {udp_v4(), udp_v6(false), udp_v6(true)};
	const unsigned int seen = tier_lower ? 0 : 5; /* nobody tells of ICMP errors there */

	(void)state;
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		const struct dest d = begin(&dests[i], &p);
		struct kilter_guard_runtime rt;

		for (unsigned int k = 0; k < p.rules.consecutive_failures; k++) {
			int fd = talk_to(&d);

			say(fd);
			assert_int_equal(pending_error(fd), ECONNREFUSED);
			close(fd);
		}
		rt = counters(&d);
		assert_int_equal(rt.total_failures, seen);
		assert_int_equal(rt.failed[KILTER_FAILED_CONNECT], seen);
		assert_int_equal(rt.total_successes, 0);
		assert_int_equal(rt.trips, !tier_lower);
		drain();
		assert_int_equal(t.trip_records, !tier_lower);
		assert_int_equal(t.datagram_records, seen);
		if (!tier_lower) {
			assert_int_equal(t.trip.consecutive, 5);
			assert_int_equal(t.datagram.err, ECONNREFUSED);
			assert_int_equal(t.datagram.peer.port_be, PORT);
			assert_int_equal(t.datagram.h.pid, getpid());
			assert_int_equal(connect_one(&d), UDP_REFUSED);
		}
		end(&d);
	}
}

/* The next datagram after an ICMP error is not sent: the error is its outcome. */
static void one_socket_fails_as_often_as_it_is_told(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_OBSERVE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int fd = talk_to(&d);
	struct pollfd told = {.fd = fd};

	(void)state;
	for (int i = 0; i < 4; i++) {
		say(fd);
		assert_int_equal(poll(&told, 1, SETTLE_ATTEMPTS), 1);
		assert_int_equal(send(fd, "x", 1, 0), -1);
		assert_int_equal(errno, ECONNREFUSED);
	}
	assert_int_equal(counters(&d).total_failures, tier_lower ? 0 : 4);
	close(fd);
	end(&d);
}

/* With IP_RECVERR the kernel reports each error twice, to sockets that are not connected as well.
 */
static void an_error_that_is_reported_twice_counts_once(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_OBSERVE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;
	char c;

	(void)state;
	assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one)), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(sendto(fd, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len), 1);
		assert_int_equal(pending_error(fd), ECONNREFUSED);
		assert_int_equal(recv(fd, &c, 1, MSG_ERRQUEUE), 1);
	}
	assert_int_equal(counters(&d).total_failures, tier_lower ? 0 : 2);
	close(fd);
	/* Without it the kernel tells nobody. */
	assert_int_equal(send_one(&d), 0);
	assert_int_equal(counters(&d).total_failures, tier_lower ? 0 : 2);
	end(&d);
}

static void an_answer_is_a_success_and_ends_a_run(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest dests[] = {udp_v4(), udp_v6(false), udp_v6(true)};

	(void)state;
	p.rules.slow = 1; /* anything takes longer */
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		const struct dest d = begin(&dests[i], &p);
		int client = talk_to(&d), server;

		say(client);
		assert_int_equal(pending_error(client), ECONNREFUSED);
		assert_int_equal(counters(&d).consecutive, !tier_lower);
		if (tier_lower) { /* it is still asking */
			close(client);
			client = talk_to(&d);
		}
		server = serve_at(&d);
		say(client);
		usleep(10);
		answer(server, client, 2); /* what comes after the first is no call of its own */
		assert_int_equal(counters(&d).total_successes, 1);
		assert_int_equal(counters(&d).total_slow, 1);
		assert_int_equal(counters(&d).consecutive, 0);
		say(client); /* of one call, as long as nothing has come */
		say(client);
		answer(server, client, 1);
		assert_int_equal(counters(&d).total_successes, 2);
		close(client);
		close(server);
		end(&d);
	}
}

static void a_socket_that_is_not_connected_is_answered_by_its_destination_alone(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest dests[] = {udp_v4(), udp_v6(false), udp_v6(true)};

	(void)state;
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		const struct dest d = begin(&dests[i], &p);
		int server = serve_at(&d), client, stranger;
		struct sockaddr_storage at;
		socklen_t len = sizeof(at);
		char c;

		client = socket(d.addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		stranger = socket(d.addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		assert_true(client >= 0 && stranger >= 0);
		assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len),
				 1);
		assert_int_equal(recvfrom(server, &c, 1, 0, (struct sockaddr *)&at, &len), 1);
		assert_int_equal(sendto(stranger, "z", 1, 0, (struct sockaddr *)&at, len), 1);
		assert_int_equal(recv(client, &c, 1, 0), 1);
		assert_int_equal(counters(&d).total_successes, 0);
		assert_int_equal(sendto(server, "y", 1, 0, (struct sockaddr *)&at, len), 1);
		assert_int_equal(recv(client, &c, 1, 0), 1);
		assert_int_equal(counters(&d).total_successes, 1);
		close(client);
		close(stranger);
		close(server);
		end(&d);
	}
}

/* Once it has turned to another destination, what comes from the first is nobody's. */
static void a_socket_has_one_destination_at_a_time(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	struct dest other = dest_v4(htons(40054));
	int server = serve_at(&d), client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len), 1);
	assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&other.addr, other.len),
			 1);
	answer(server, client, 1);
	assert_int_equal(counters(&d).total_successes, 0);
	close(client);
	close(server);
	end(&d);
}

static void silence_is_a_failure_of_who_has_answered(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int server = serve_at(&d), client, hasty;

	(void)state;
	answer_once(&d, server); /* and from then on it says nothing */
	client = talk_to(&d);
	hasty = talk_to(&d);
	say(client);
	say(hasty);
	close(hasty); /* it did not wait */
	assert_int_equal(counters(&d).total_failures, 0);
	usleep(SILENCE_US);
	say(client); /* another call: the first was in vain */
	assert_int_equal(counters(&d).total_failures, 1);
	usleep(SILENCE_US);
	close(client);
	assert_int_equal(counters(&d).total_failures, 2);
	assert_int_equal(counters(&d).failed[KILTER_FAILED_NO_ANSWER], 2);
	assert_int_equal(counters(&d).consecutive, 2);
	assert_int_equal(counters(&d).total_successes, 1);

	/* A policy that does not name it; and a socket that is not connected. */
	p.rules.failures = KILTER_FAIL_ON_CONNECT;
	tell(&d, &p);
	client = talk_to(&d);
	say(client);
	usleep(SILENCE_US);
	close(client);
	assert_int_equal(counters(&d).total_failures, 2);
	p.rules.failures |= KILTER_FAIL_ON_NO_ANSWER;
	tell(&d, &p);
	client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len), 1);
	usleep(SILENCE_US);
	assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len), 1);
	assert_int_equal(counters(&d).total_failures, 3);
	close(client);
	close(server);
	end(&d);
}

/* statsd, syslog: nothing ever comes back. */
static void silence_of_who_never_answers_is_a_success(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int server = serve_at(&d), client = talk_to(&d), other;

	(void)state;
	other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	say(client);
	assert_int_equal(sendto(other, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len), 1);
	usleep(SILENCE_US);
	close(other); /* nobody would have told it */
	assert_int_equal(counters(&d).total_successes, 0);
	say(client);
	assert_int_equal(counters(&d).total_successes, 1);
	close(client); /* too soon to know */
	assert_int_equal(counters(&d).total_successes, 1);
	assert_int_equal(counters(&d).total_failures, 0);
	close(server);
	end(&d);
}

static void trials_are_decided_by_answers(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	const struct dest dests[] = {udp_v4(), udp_v6(false), udp_v6(true)};

	(void)state;
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		const struct dest d = begin(&dests[i], &p);
		int server = serve_at(&d), client[3];

		for (int k = 0; k < 3; k++)
			client[k] = talk_to(&d);
		assert_int_equal(counters(&d).permits, 3);
		assert_int_equal(connect_one(&d), UDP_REFUSED);
		for (int k = 0; k < 3; k++)
			ask(client[k], server);
		assert_int_equal(counters(&d).successes, 3);
		assert_int_equal(counters(&d).permits, 0);
		drain();
		assert_int_equal(t.verdict_records, 1);
		/* No trial any more; but of ::ffff:a.b.c.d the kernel asks for each datagram. */
		ask(client[0], server);
		assert_int_equal(counters(&d).successes, i == 2 ? 4 : 3);
		assert_int_equal(counters(&d).trials, i == 2 ? 4 : 3);
		for (int k = 0; k < 3; k++)
			close(client[k]);
		close(server);
		end(&d);
	}
}

static void a_trial_that_meets_a_closed_port_has_failed(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int fd = talk_to(&d);

	(void)state;
	say(fd);
	assert_int_equal(pending_error(fd), ECONNREFUSED);
	assert_int_equal(counters(&d).failures, !tier_lower);
	drain();
	assert_int_equal(t.verdict_records, !tier_lower);
	assert_int_equal(connect_one(&d), tier_lower ? 0 : UDP_REFUSED);
	close(fd);
	end(&d);
}

static void a_trial_that_asks_nothing_gives_its_permit_back(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int server = serve_at(&d), fd;

	(void)state;
	assert_int_equal(connect_one(&d), 0); /* as getaddrinfo(3) sorts addresses */
	assert_int_equal(counters(&d).permits, 0);
	assert_int_equal(counters(&d).trials, 1);
	assert_int_equal(counters(&d).successes, 0);
	/* Of who never answers, that is all there is to know of a trial. */
	fd = talk_to(&d);
	say(fd);
	close(fd);
	assert_int_equal(counters(&d).permits, 0);
	assert_int_equal(counters(&d).successes, 1);
	close(server);
	server = serve_at(&d); /* with nothing to read */
	/* Of who does, nothing: it did not wait. */
	answer_once(&d, server);
	fd = talk_to(&d);
	say(fd);
	close(fd);
	assert_int_equal(counters(&d).permits, 0);
	assert_int_equal(counters(&d).successes, 2); /* with the answer's own */
	assert_int_equal(counters(&d).failures, 0);
	close(server);
	end(&d);
}

/* A datagram to an address, of a destination that answers: a trial like any other, and one however
 * often it is sent. */
static void a_trial_that_is_sent_again_is_one(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int server = serve_at(&d), client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	answer_once(&d, server);
	p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(sendto(client, "x", 1, 0, (const struct sockaddr *)&d.addr, d.len),
				 1);
		assert_int_equal(counters(&d).permits, 1);
		assert_int_equal(counters(&d).successes, 0);
	}
	answer(server, client, 1);
	assert_int_equal(counters(&d).permits, 0);
	assert_int_equal(counters(&d).successes, 1);
	close(client);
	close(server);
	end(&d);
}

static void an_answer_to_what_began_before_does_not_count(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	const struct dest to = udp_v4(), d = begin(&to, &p);
	int server = serve_at(&d), client = talk_to(&d);

	(void)state;
	say(client);
	p.rules.generation = next_generation();
	tell(&d, &p);
	answer(server, client, 1);
	assert_int_equal(counters(&d).total_successes, 0);
	ask(client, server);
	assert_int_equal(counters(&d).total_successes, 1);
	close(client);
	close(server);
	end(&d);
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
	    cmocka_unit_test(a_closed_port_trips),
	    cmocka_unit_test(one_socket_fails_as_often_as_it_is_told),
	    cmocka_unit_test(an_error_that_is_reported_twice_counts_once),
	    cmocka_unit_test(an_answer_is_a_success_and_ends_a_run),
	    cmocka_unit_test(a_socket_that_is_not_connected_is_answered_by_its_destination_alone),
	    cmocka_unit_test(a_socket_has_one_destination_at_a_time),
	    cmocka_unit_test(silence_is_a_failure_of_who_has_answered),
	    cmocka_unit_test(silence_of_who_never_answers_is_a_success),
	    cmocka_unit_test(trials_are_decided_by_answers),
	    cmocka_unit_test(a_trial_that_meets_a_closed_port_has_failed),
	    cmocka_unit_test(a_trial_that_asks_nothing_gives_its_permit_back),
	    cmocka_unit_test(a_trial_that_is_sent_again_is_one),
	    cmocka_unit_test(an_answer_to_what_began_before_does_not_count),
	    cmocka_unit_test(a_socket_stays_in_the_cgroup_that_it_was_made_in),
	};

	return cmocka_run_group_tests_name(name, tests, guarded_setup, guarded_teardown);
}

int main(void)
{
	return tier_runs(run);
}
