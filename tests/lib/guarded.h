/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox with the programs that the guard needs. The policy map is written by the test as the
 * daemon would write it.
 */
#ifndef KILTER_TESTS_GUARDED_H
#define KILTER_TESTS_GUARDED_H

#include <sys/socket.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include <kilter/event.h>
#include <kilter/guard.h>

#include "core/clock.h"
#include "guard_connect.skel.h"
#include "guard_udp.skel.h"
#include "programs.h"
#include "request.skel.h"
#include "sandbox.h"
#include "sock_owner.skel.h"
#include "tcp_conn.skel.h"

#define MS	  NS_PER_MS
#define LINKS_MAX 16
/* What a refusal of ours is to the caller. */
#define REFUSED		(tier_lower ? ENETUNREACH : ECONNREFUSED)
#define SETTLE_ATTEMPTS 2000 /* of 1 ms: how long a count may take to arrive before it is lost */
#define ENOUGH		(3600 * NS_PER_SEC)

struct guarded {
	struct sandbox sandbox;
	struct sock_owner *owner;
	struct tcp_conn *tcp;
	struct request *request;
	struct guard_connect *guard;
	struct guard_udp *udp; /* without it, or in the lower tier: no ICMP errors */
	struct bpf_link *links[LINKS_MAX];
	unsigned int links_count;
	struct ring_buffer *events;
	unsigned int refused_records, trip_records, verdict_records, datagram_records;
	struct kilter_event_trip trip;
	struct kilter_event_net refused, datagram;
};
extern struct guarded t;

struct dest {
	struct sockaddr_storage addr;
	socklen_t len;
	struct kilter_circuit_key key; /* for any caller */
};

/* Of a group of tests. */
int guarded_setup(void **state);
int guarded_teardown(void **state);
/* Takes the records that came since the last time. */
void drain(void);
struct dest dest_v4(uint16_t port_be);
struct dest dest_v6(uint16_t port_be, bool mapped);
/* A listener on loopback; *port_be is what it got. */
int listen_on(int family, uint16_t *port_be);
/* 0, or the errno; *ret_fd stays open when it is asked for. */
int try_connect(const struct dest *d, int *ret_fd);
/* Takes a connection off the listener if one comes within wait_ms. */
bool arrives(int listener, int wait_ms);
uint64_t next_generation(void);
struct kilter_guard_policy policy(enum kilter_circuit_state state, enum kilter_guard_mode mode);
void tell(const struct dest *d, const struct kilter_guard_policy *p);
/* As the daemon does it, before the policy. */
void make_counters(const struct dest *d);
struct kilter_guard_runtime counters(const struct dest *d);
/* A test is told of one circuit and leaves nothing of it behind. */
void forget(const struct dest *d);
void set_switch(enum kilter_guard_switch which, __u32 value);

/* HTTP, one exchange at a time, both ends in one thread. */
struct talk {
	int client, server;
};
struct talk talk_begin(const struct dest *d, int listener);
void talk_ask(const struct talk *c);
void talk_answer(const struct talk *c, int status);
void talk_end(const struct talk *c);

/* Waits for a count that is made in another context; its value is what is asserted. */
#define settles(expression)                                    \
	do {                                                   \
		for (int i_ = 0; i_ < SETTLE_ATTEMPTS; i_++) { \
			if (expression)                        \
				break;                         \
			usleep(1000);                          \
		}                                              \
		assert_true(expression);                       \
	} while (0)

#endif
