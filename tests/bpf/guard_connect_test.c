// SPDX-License-Identifier: Apache-2.0
/*
 * The guard in the kernel, with the real programs on a cgroup of our own, which this process
 * joins. The policy map is written here as the daemon would write it. Needs root.
 */
#include <arpa/inet.h>
#include <sys/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/drops.h>
#include <kilter/event.h>
#include <kilter/guard.h>
#include <kilter/identity.h>

#include "guarded.h"

#include <cmocka.h>

#define PORT	     htons(17772) /* where nobody listens */
#define THREADS	     8
#define CONNECTS     40 /* of each thread */
#define FRESH_ROUNDS 50

static void an_open_circuit_refuses_and_nothing_arrives(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct kilter_guard_runtime rt;

	(void)state;
	assert_int_equal(try_connect(&d, NULL), 0);
	assert_true(arrives(listener, SETTLE_ATTEMPTS));
	drain();
	tell(&d, &p);
	for (int i = 0; i < 10; i++)
		assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_false(arrives(listener, 20));
	rt = counters(&d);
	assert_int_equal(rt.refused[KILTER_REFUSED_OPEN], 10);
	assert_int_equal(rt.would_refuse[KILTER_REFUSED_OPEN], 0);
	assert_int_equal(rt.total_failures, 0); /* a refusal of our own is nobody's failure */
	drain();
	assert_int_equal(t.refused_records, 10);
	assert_int_equal(t.refused.err, REFUSED);
	assert_int_equal(t.refused.peer.port_be, port);
	assert_int_equal(t.refused.h.pid, getpid());
	forget(&d);
	close(listener);
}

/* Counted where nobody else is. */
static void a_refused_connect_sends_no_packet(void **state)
{
	const struct dest dests[] = {dest_v4(PORT), dest_v6(PORT, false), dest_v6(PORT, true)};
	int before = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(before >= 0);
	assert_int_equal(sandbox_network(), 0);
	for (unsigned int i = 0; i < sizeof(dests) / sizeof(dests[0]); i++) {
		struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);

		tell(&dests[i], &p);
		for (int n = 0; n < 10; n++)
			assert_int_equal(try_connect(&dests[i], NULL), REFUSED);
		assert_int_equal(counters(&dests[i]).refused[KILTER_REFUSED_OPEN], 10);
		assert_int_equal(sandbox_packets(), 2 * i);
		forget(&dests[i]);
		/* One that is let through does: its SYN, and a RST, for nobody listens. */
		assert_int_equal(try_connect(&dests[i], NULL), ECONNREFUSED);
		settles(sandbox_packets() == 2 * (i + 1));
	}
	assert_int_equal(setns(before, CLONE_NEWNET), 0);
	close(before);
}

static void one_socket_may_try_again_after_a_refusal(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), fd;
	struct dest d = dest_v4(port);

	(void)state;
	tell(&d, &p);
	assert_int_equal(try_connect(&d, &fd), REFUSED);
	p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	assert_int_equal(connect(fd, (struct sockaddr *)&d.addr, d.len), 0);
	assert_true(arrives(listener, SETTLE_ATTEMPTS));
	close(fd);
	forget(&d);
	close(listener);
}

static void a_mapped_address_is_the_ipv4_destination(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest v4 = dest_v4(port), mapped = dest_v6(port, true);

	(void)state;
	assert_int_equal(try_connect(&mapped, NULL), 0);
	tell(&v4, &p);
	assert_int_equal(try_connect(&mapped, NULL), REFUSED);
	assert_int_equal(counters(&v4).refused[KILTER_REFUSED_OPEN], 1);
	forget(&v4);
	close(listener);
}

static void ipv6_is_refused_as_well(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET6, &port);
	struct dest d = dest_v6(port, false);

	(void)state;
	assert_int_equal(try_connect(&d, NULL), 0);
	tell(&d, &p);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	forget(&d);
	close(listener);
}

static void another_port_and_udp_are_left_alone(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0, other = 0;
	int listener = listen_on(AF_INET, &port), second = listen_on(AF_INET, &other);
	struct dest d = dest_v4(port), e = dest_v4(other);
	int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	tell(&d, &p);
	assert_int_equal(try_connect(&e, NULL), 0);
	assert_int_equal(connect(udp, (struct sockaddr *)&d.addr, d.len), 0);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	close(udp);
	forget(&d);
	close(listener);
	close(second);
}

static void the_callers_own_circuit_comes_before_the_one_for_any(void **state)
{
	struct kilter_guard_policy open = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	struct kilter_guard_policy closed = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest any = dest_v4(port), own = any;

	(void)state;
	tell(&any, &open);
	drain();
	assert_int_equal(try_connect(&any, NULL), REFUSED);
	drain();
	own.key.workload = t.refused.h.workload;
	assert_int_not_equal(own.key.workload, 0);
	tell(&own, &closed);
	assert_int_equal(try_connect(&any, NULL), 0);
	closed.rules.mode = KILTER_GUARD_OFF; /* off is an answer too */
	tell(&own, &closed);
	assert_int_equal(try_connect(&any, NULL), 0);
	forget(&own);
	assert_int_equal(try_connect(&any, NULL), REFUSED);
	forget(&any);
	close(listener);
}

static void observe_refuses_nothing_and_counts_what_it_would(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_OBSERVE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct kilter_guard_runtime rt;

	(void)state;
	tell(&d, &p);
	for (int i = 0; i < 10; i++)
		assert_int_equal(try_connect(&d, NULL), 0);
	rt = counters(&d);
	assert_int_equal(rt.would_refuse[KILTER_REFUSED_OPEN], 10);
	assert_int_equal(rt.refused[KILTER_REFUSED_OPEN], 0);
	drain();
	assert_int_equal(t.refused_records, 0);
	forget(&d);
	close(listener);
}

static void the_switch_lets_everything_through(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);

	(void)state;
	tell(&d, &p);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	set_switch(KILTER_SWITCH_OFF, 1);
	assert_int_equal(try_connect(&d, NULL), 0);
	set_switch(KILTER_SWITCH_OFF, 0);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_int_equal(counters(&d).refused[KILTER_REFUSED_OPEN], 2);
	assert_int_equal(counters(&d).would_refuse[KILTER_REFUSED_OPEN], 1);
	forget(&d);
	close(listener);
}

/* Nothing is assumed of how fast this runs: what was refused began before the lease ended,
 * and what went through came back after it had. */
static void a_lease_ends_by_itself(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), refused = 0, passed = 0;
	struct dest d = dest_v4(port);

	(void)state;
	p.lease_until_ns = clock_boot_ns() + 300 * MS;
	tell(&d, &p);
	while (passed < 3) {
		uint64_t before = clock_boot_ns();
		int err = try_connect(&d, NULL);

		if (err) {
			assert_int_equal(err, REFUSED);
			assert_true(before < p.lease_until_ns);
			refused++;
		} else {
			assert_true(clock_boot_ns() >= p.lease_until_ns);
			passed++;
		}
		usleep(1000);
	}
	assert_int_equal(counters(&d).refused[KILTER_REFUSED_OPEN], refused);
	assert_int_equal(counters(&d).lease_expired, passed);
	forget(&d);
	close(listener);
}

static void five_failures_in_a_row_trip_in_the_kernel(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct kilter_guard_runtime rt;

	(void)state;
	close(listener);
	tell(&d, &p);
	drain();
	for (int i = 0; i < 5; i++) {
		assert_int_equal(counters(&d).trips, 0);
		assert_int_equal(try_connect(&d, NULL), ECONNREFUSED); /* the port's answer */
	}
	rt = counters(&d);
	assert_int_equal(rt.consecutive, 5);
	assert_int_equal(rt.total_failures, 5);
	assert_int_equal(rt.trips, 1);
	assert_int_equal(rt.refused[KILTER_REFUSED_OPEN], 0);
	drain();
	assert_int_equal(t.trip_records, 1);
	assert_memory_equal(&t.trip.key, &d.key, sizeof(d.key));
	assert_int_equal(t.trip.generation, p.rules.generation);
	assert_int_equal(t.trip.consecutive, 5);
	/* Now somebody listens, and the sixth does not arrive. */
	listener = listen_on(AF_INET, &port);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_false(arrives(listener, 20));
	rt = counters(&d);
	assert_int_equal(rt.refused[KILTER_REFUSED_OPEN], 1);
	assert_int_equal(rt.total_failures, 5);
	/* A new generation is a new beginning. */
	p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	assert_int_equal(try_connect(&d, NULL), 0);
	assert_int_equal(counters(&d).consecutive, 0);
	forget(&d);
	close(listener);
}

static void a_trip_that_nobody_confirms_ends(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), err;
	struct dest d = dest_v4(port);
	struct kilter_guard_runtime rt;

	(void)state;
	p.rules.base_open_ns = 200 * MS;
	p.rules.consecutive_failures = 1;
	close(listener);
	tell(&d, &p);
	assert_int_equal(try_connect(&d, NULL), ECONNREFUSED); /* the port's answer */
	listener = listen_on(AF_INET, &port);
	rt = counters(&d);
	assert_int_equal(rt.trips, 1);
	do {
		uint64_t before = clock_boot_ns();

		err = try_connect(&d, NULL);
		if (err)
			assert_true(before < rt.tripped_ns + p.rules.base_open_ns);
		else
			assert_true(clock_boot_ns() >= rt.tripped_ns + p.rules.base_open_ns);
		usleep(1000);
	} while (err);
	assert_int_equal(counters(&d).tripped_ns, 0);
	assert_int_equal(counters(&d).trips, 1);
	forget(&d);
	close(listener);
}

static void a_policy_that_does_not_mind_refusals_does_not_count_them(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);

	(void)state;
	close(listener);
	p.rules.failures = 0;
	tell(&d, &p);
	for (int i = 0; i < 8; i++)
		try_connect(&d, NULL);
	assert_int_equal(counters(&d).total_failures, 0);
	assert_int_equal(counters(&d).trips, 0);
	forget(&d);
}

/* --- HTTP --- */

static void a_success_between_failures_begins_the_count_anew(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	static const int statuses[] = {500, 503, 500, 599, 404, 500, 500, 500, 500};
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	for (unsigned int i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		talk_ask(&c);
		talk_answer(&c, statuses[i]);
	}
	settles(counters(&d).total_failures == 8);
	assert_int_equal(counters(&d).total_successes, 1);
	assert_int_equal(counters(&d).consecutive, 4);
	assert_int_equal(counters(&d).trips, 0);
	talk_ask(&c);
	talk_answer(&c, 500);
	settles(counters(&d).trips == 1);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	/* Results that were under way when it tripped change nothing any more. */
	talk_ask(&c);
	talk_answer(&c, 200);
	assert_int_equal(counters(&d).consecutive, 5);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	talk_end(&c);
	forget(&d);
	close(listener);
}

static void an_unanswered_request_is_a_failure(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	talk_ask(&c);
	close(c.server);
	close(c.client);
	settles(counters(&d).total_failures == 1);
	forget(&d);
	close(listener);
}

static void the_late_result_of_an_older_generation_does_not_count(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	talk_ask(&c);
	p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	talk_answer(&c, 500);
	/* What comes next on the same connection belongs to the present, and counts. */
	talk_ask(&c);
	talk_answer(&c, 500);
	settles(counters(&d).total_failures == 1);
	assert_int_equal(counters(&d).generation, p.rules.generation);
	assert_int_equal(counters(&d).consecutive, 1);
	talk_end(&c);
	forget(&d);
	close(listener);
}

static void a_connection_older_than_its_circuit_joins_with_its_first_failure(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	c = talk_begin(&d, listener);
	talk_ask(&c);
	talk_answer(&c, 500); /* no circuit yet */
	tell(&d, &p);
	talk_ask(&c);
	talk_answer(&c, 200);
	for (int i = 0; i < 5; i++) {
		talk_ask(&c);
		talk_answer(&c, 500);
	}
	settles(counters(&d).trips == 1);
	assert_int_equal(counters(&d).total_failures, 5);
	talk_end(&c);
	forget(&d);
	close(listener);
}

static void without_a_known_protocol_data_is_a_success_and_silence_is_nothing(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;
	char buf[8];

	(void)state;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	talk_end(&c);
	c = talk_begin(&d, listener);
	assert_int_equal(send(c.server, "\x01\x02\x03\x04", 4, 0), 4);
	assert_int_equal(recv(c.client, buf, 4, MSG_WAITALL), 4);
	close(c.server);
	assert_int_equal(recv(c.client, buf, 1, 0), 0);
	close(c.client);
	settles(counters(&d).total_successes == 1);
	assert_int_equal(counters(&d).total_failures, 0);
	forget(&d);
	close(listener);
}

/* --- half-open --- */

struct worker {
	pthread_t thread;
	const struct dest *d;
	pthread_barrier_t *begin; /* NULL: at once */
	int fds[CONNECTS];
	int connects; /* 0: CONNECTS */
	int passed;
};

static void *hammer(void *arg)
{
	struct worker *w = arg;

	if (w->begin)
		pthread_barrier_wait(w->begin);
	for (int i = 0; i < (w->connects ? w->connects : CONNECTS); i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!connect(fd, (const struct sockaddr *)&w->d->addr, w->d->len))
			w->fds[w->passed++] = fd; /* kept open: the permit stays taken */
		else
			close(fd);
	}
	return NULL;
}

/* Connects and outcomes that found no place to be counted, or that nobody could name. */
static __u64 without_counters(void)
{
	int fd = bpf_map__fd(t.guard->maps.drops);

	return drops_read(fd, KILTER_DROP_CIRCUITS_FULL) + drops_read(fd, KILTER_DROP_PEERS_FULL) +
	       drops_read(fd, KILTER_DROP_WORKLOADS_FULL);
}

static void half_open_gives_exactly_its_permits_to_many_threads(void **state)
{
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	__u64 uncounted = without_counters();

	(void)state;
	make_counters(&d);
	for (int round = 0; round < 20; round++) {
		struct kilter_guard_policy p =
		    policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
		struct worker workers[THREADS] = {0};
		struct kilter_guard_runtime before = counters(&d), rt;
		int passed = 0;

		tell(&d, &p);
		for (int i = 0; i < THREADS; i++) {
			workers[i].d = &d;
			assert_int_equal(
			    pthread_create(&workers[i].thread, NULL, hammer, &workers[i]), 0);
		}
		for (int i = 0; i < THREADS; i++) {
			pthread_join(workers[i].thread, NULL);
			passed += workers[i].passed;
		}
		rt = counters(&d);
		assert_int_equal(without_counters(), uncounted);
		assert_int_equal(rt.trials, p.permits);
		assert_int_equal(passed, p.permits);
		assert_int_equal(rt.refused[KILTER_REFUSED_HALF_OPEN] -
				     before.refused[KILTER_REFUSED_HALF_OPEN],
				 THREADS * CONNECTS - p.permits);
		for (int i = 0; i < THREADS; i++)
			for (int k = 0; k < workers[i].passed; k++)
				close(workers[i].fds[k]);
		while (arrives(listener, 0))
			;
		drain();
	}
	forget(&d);
	close(listener);
}

/* The first connects of a circuit that nobody has asked yet, to a destination that nobody has named
 * yet, on all CPUs at once. */
static void the_first_connects_are_counted_however_many_come_at_once(void **state)
{
	__u64 before = without_counters();

	(void)state;
	for (int round = 0; round < FRESH_ROUNDS; round++) {
		uint16_t port = 0;
		int listener = listen_on(AF_INET, &port);
		struct dest d = dest_v4(port);
		struct kilter_guard_policy p =
		    policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
		struct worker workers[THREADS] = {0};
		pthread_barrier_t begin;
		int passed = 0;

		pthread_barrier_init(&begin, NULL, THREADS);
		make_counters(&d);
		tell(&d, &p);
		for (int i = 0; i < THREADS; i++) {
			workers[i].d = &d;
			workers[i].begin = &begin;
			workers[i].connects = 2;
			assert_int_equal(
			    pthread_create(&workers[i].thread, NULL, hammer, &workers[i]), 0);
		}
		for (int i = 0; i < THREADS; i++) {
			pthread_join(workers[i].thread, NULL);
			passed += workers[i].passed;
		}
		pthread_barrier_destroy(&begin);
		assert_int_equal(passed, p.permits);
		assert_int_equal(counters(&d).trials, p.permits);
		for (int i = 0; i < THREADS; i++)
			for (int k = 0; k < workers[i].passed; k++)
				close(workers[i].fds[k]);
		forget(&d);
		close(listener);
	}
	assert_int_equal(without_counters(), before);
}

static void a_trial_gives_its_permit_back_with_its_first_outcome(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	p.permits = 1;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	talk_ask(&c);
	talk_answer(&c, 200);
	settles(counters(&d).successes == 1);
	assert_int_equal(counters(&d).permits, 0);
	talk_ask(&c);
	talk_answer(&c, 200); /* a trial is one: this is not a second success of its */
	talk_end(&c);
	assert_int_equal(counters(&d).successes, 1);
	c = talk_begin(&d, listener);
	talk_end(&c); /* it said nothing, and gives back its permit */
	settles(counters(&d).permits == 0);
	assert_int_equal(counters(&d).successes, 1);
	assert_int_equal(counters(&d).trials, 2);
	forget(&d);
	close(listener);
}

static void a_failed_trial_ends_the_trying(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct talk c;

	(void)state;
	tell(&d, &p);
	c = talk_begin(&d, listener);
	talk_ask(&c);
	talk_answer(&c, 500);
	settles(counters(&d).failures == 1);
	assert_int_equal(counters(&d).permits, 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_int_equal(counters(&d).trials, 1);
	talk_end(&c);
	forget(&d);
	close(listener);
}

static void a_permit_that_nobody_gives_back_is_free_after_its_time(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port), first, err;
	struct dest d = dest_v4(port);
	uint64_t given;

	(void)state;
	p.permits = 1;
	p.permit_timeout_ns = 200 * MS;
	tell(&d, &p);
	assert_int_equal(try_connect(&d, &first), 0);
	given = counters(&d).permit_ns;
	do {
		uint64_t before = clock_boot_ns();

		err = try_connect(&d, NULL);
		if (err)
			assert_true(before < given + p.permit_timeout_ns);
		else
			assert_true(clock_boot_ns() >= given + p.permit_timeout_ns);
		usleep(1000);
	} while (err);
	assert_int_equal(counters(&d).trials, 2);
	close(first);
	forget(&d);
	close(listener);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_open_circuit_refuses_and_nothing_arrives),
	    cmocka_unit_test(a_refused_connect_sends_no_packet),
	    cmocka_unit_test(one_socket_may_try_again_after_a_refusal),
	    cmocka_unit_test(a_mapped_address_is_the_ipv4_destination),
	    cmocka_unit_test(ipv6_is_refused_as_well),
	    cmocka_unit_test(another_port_and_udp_are_left_alone),
	    cmocka_unit_test(the_callers_own_circuit_comes_before_the_one_for_any),
	    cmocka_unit_test(observe_refuses_nothing_and_counts_what_it_would),
	    cmocka_unit_test(the_switch_lets_everything_through),
	    cmocka_unit_test(a_lease_ends_by_itself),
	    cmocka_unit_test(five_failures_in_a_row_trip_in_the_kernel),
	    cmocka_unit_test(a_trip_that_nobody_confirms_ends),
	    cmocka_unit_test(a_policy_that_does_not_mind_refusals_does_not_count_them),
	    cmocka_unit_test(a_success_between_failures_begins_the_count_anew),
	    cmocka_unit_test(an_unanswered_request_is_a_failure),
	    cmocka_unit_test(the_late_result_of_an_older_generation_does_not_count),
	    cmocka_unit_test(a_connection_older_than_its_circuit_joins_with_its_first_failure),
	    cmocka_unit_test(without_a_known_protocol_data_is_a_success_and_silence_is_nothing),
	    cmocka_unit_test(half_open_gives_exactly_its_permits_to_many_threads),
	    cmocka_unit_test(the_first_connects_are_counted_however_many_come_at_once),
	    cmocka_unit_test(a_trial_gives_its_permit_back_with_its_first_outcome),
	    cmocka_unit_test(a_failed_trial_ends_the_trying),
	    cmocka_unit_test(a_permit_that_nobody_gives_back_is_free_after_its_time),
	};

	return cmocka_run_group_tests_name(name, tests, guarded_setup, guarded_teardown);
}

int main(void)
{
	return tier_runs(run);
}
