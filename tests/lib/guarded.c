// SPDX-License-Identifier: Apache-2.0
#include "guarded.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/event.h>
#include <kilter/guard.h>
#include <kilter/identity.h>

#include "core/clock.h"
#include "programs.h"

#include <cmocka.h>

struct guarded t;

static int on_event(void *ctx, void *data, size_t size)
{
	const struct kilter_event *h = data;

	(void)ctx;
	if (h->type == KILTER_EVENT_REFUSED) {
		assert_int_equal(size, sizeof(t.refused));
		t.refused_records++;
		memcpy(&t.refused, data, sizeof(t.refused));
	}
	if (h->type == KILTER_EVENT_CONNECT) {
		struct kilter_event_net e;

		assert_int_equal(size, sizeof(e));
		memcpy(&e, data, sizeof(e));
		if (e.peer.transport == KILTER_TRANSPORT_UDP) {
			t.datagram_records++;
			t.datagram = e;
		}
	}
	t.verdict_records += h->type == KILTER_EVENT_VERDICT;
	if (h->type == KILTER_EVENT_TRIP) {
		assert_int_equal(size, sizeof(t.trip));
		t.trip_records++;
		memcpy(&t.trip, data, sizeof(t.trip));
	}
	return 0;
}

void drain(void)
{
	t.refused_records = 0;
	t.trip_records = 0;
	t.verdict_records = 0;
	t.datagram_records = 0;
	assert_true(ring_buffer__consume(t.events) >= 0);
}

static void attach(struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_cgroup(prog, t.sandbox.cgroup_fd);

	assert_int_equal(libbpf_get_error(link), 0);
	assert_true(t.links_count < LINKS_MAX);
	t.links[t.links_count++] = link;
}

int guarded_setup(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = t.sandbox.bpffs);

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(sandbox_init(&t.sandbox), 0);
	t.owner = sock_owner__open_opts(&opts);
	t.tcp = tcp_conn__open_opts(&opts);
	t.request = request__open_opts(&opts);
	t.guard = guard_connect__open_opts(&opts);
	assert_non_null(t.owner);
	assert_non_null(t.tcp);
	assert_non_null(t.request);
	assert_non_null(t.guard);
	t.udp = guard_udp__open_opts(&opts);
	assert_non_null(t.udp);
	tier_choose("tcp_conn", t.tcp->obj);
	tier_choose("guard_connect", t.guard->obj);
	tier_choose("guard_udp", t.udp->obj);
	t.tcp->rodata->node_trace = !tier_lower;
	assert_int_equal(sock_owner__load(t.owner), 0);
	assert_int_equal(tcp_conn__load(t.tcp), 0);
	assert_int_equal(request__load(t.request), 0);
	assert_int_equal(guard_connect__load(t.guard), 0);
	assert_int_equal(guard_udp__load(t.udp), 0);
	attach(t.owner->progs.own_bind4);
	attach(t.owner->progs.own_bind6);
	attach(t.tcp->progs.tcp_life);
	attach(t.tcp->progs.tcp_release);
	attach(t.request->progs.request_ingress);
	attach(t.request->progs.request_egress);
	attach(tier_lower ? t.guard->progs.guard_connect4_rewrite : t.guard->progs.guard_connect4);
	attach(tier_lower ? t.guard->progs.guard_connect6_rewrite : t.guard->progs.guard_connect6);
	attach(tier_lower ? t.guard->progs.guard_sendmsg4_deny : t.guard->progs.guard_sendmsg4);
	attach(tier_lower ? t.guard->progs.guard_sendmsg6_deny : t.guard->progs.guard_sendmsg6);
	if (!tier_lower) {
		struct bpf_link *link = bpf_program__attach(t.udp->progs.guard_udp_error);

		assert_int_equal(libbpf_get_error(link), 0);
		assert_true(t.links_count < LINKS_MAX);
		t.links[t.links_count++] = link;
	}
	t.events = ring_buffer__new(bpf_map__fd(t.guard->maps.events), on_event, NULL, NULL);
	assert_non_null(t.events);
	return 0;
}

int guarded_teardown(void **state)
{
	(void)state;
	assert_int_equal(sandbox_join(t.sandbox.home), 0);
	ring_buffer__free(t.events);
	while (t.links_count)
		bpf_link__destroy(t.links[--t.links_count]);
	guard_udp__destroy(t.udp);
	guard_connect__destroy(t.guard);
	request__destroy(t.request);
	tcp_conn__destroy(t.tcp);
	sock_owner__destroy(t.owner);
	sandbox_done(&t.sandbox);
	return 0;
}

/* --- what a test does --- */

struct dest dest_v4(uint16_t port_be)
{
	struct dest d = {.len = sizeof(struct sockaddr_in)};
	struct sockaddr_in *in = (struct sockaddr_in *)&d.addr;
	union {
		struct kilter_peer p;
		__u32 words[sizeof(struct kilter_peer) / 4];
	} peer = {.p = {.addr = {127, 0, 0, 1}, .port_be = port_be, .family = KILTER_FAMILY_V4}};

	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	in->sin_port = port_be;
	d.key.peer = kilter_hash_words(peer.words, sizeof(peer.words) / 4);
	return d;
}

struct dest dest_v6(uint16_t port_be, bool mapped)
{
	struct dest d = mapped ? dest_v4(port_be) : (struct dest){.len = 0};
	struct sockaddr_in6 *in = (struct sockaddr_in6 *)&d.addr;
	union {
		struct kilter_peer p;
		__u32 words[sizeof(struct kilter_peer) / 4];
	} peer = {.p = {.addr = {[15] = 1}, .port_be = port_be, .family = KILTER_FAMILY_V6}};

	memset(&d.addr, 0, sizeof(d.addr));
	d.len = sizeof(*in);
	in->sin6_family = AF_INET6;
	in->sin6_port = port_be;
	inet_pton(AF_INET6, mapped ? "::ffff:127.0.0.1" : "::1", &in->sin6_addr);
	if (!mapped)
		d.key.peer = kilter_hash_words(peer.words, sizeof(peer.words) / 4);
	return d;
}

/* A listener on loopback; *ret_port is what it got. */
int listen_on(int family, uint16_t *port_be)
{
	struct dest d = family == AF_INET6 ? dest_v6(*port_be, false) : dest_v4(*port_be);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&d.addr, d.len), 0);
	assert_int_equal(listen(fd, 1024), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&d.addr, &d.len), 0);
	*port_be = family == AF_INET6 ? ((struct sockaddr_in6 *)&d.addr)->sin6_port
				      : ((struct sockaddr_in *)&d.addr)->sin_port;
	return fd;
}

/* 0, or the errno; *ret_fd stays open when it is asked for. */
int try_connect(const struct dest *d, int *ret_fd)
{
	int fd = socket(d->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	assert_true(fd >= 0);
	err = connect(fd, (const struct sockaddr *)&d->addr, d->len) ? errno : 0;
	if (ret_fd)
		*ret_fd = fd;
	else
		close(fd);
	return err;
}

/* Takes a connection off the listener if one comes within wait_ms. */
bool arrives(int listener, int wait_ms)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	int fd;

	if (poll(&p, 1, wait_ms) != 1)
		return false;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	close(fd);
	return true;
}

uint64_t next_generation(void)
{
	static uint64_t generation;

	return ++generation;
}

static void fails_on_5xx(struct kilter_guard_policy *p)
{
	for (unsigned int bit = 500 - KILTER_STATUS_FIRST; bit < 600 - KILTER_STATUS_FIRST; bit++)
		p->statuses[bit / 64] |= 1ull << (bit % 64);
}

struct kilter_guard_policy policy(enum kilter_circuit_state state, enum kilter_guard_mode mode)
{
	struct kilter_guard_policy p = {
	    .lease_until_ns = state == KILTER_CIRCUIT_CLOSED ? 0 : clock_boot_ns() + ENOUGH,
	    .permit_timeout_ns = ENOUGH,
	    .permits = 3,
	    .rules = {.generation = next_generation(),
		      .base_open_ns = ENOUGH,
		      .consecutive_failures = 5,
		      .successes = 3,
		      .failures = KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_NO_ANSWER,
		      .state = (__u8)state,
		      .mode = (__u8)mode},
	};

	fails_on_5xx(&p);
	return p;
}

void tell(const struct dest *d, const struct kilter_guard_policy *p)
{
	assert_int_equal(
	    bpf_map_update_elem(bpf_map__fd(t.guard->maps.guard_policy), &d->key, p, BPF_ANY), 0);
}

void make_counters(const struct dest *d)
{
	static const struct kilter_guard_runtime zero;

	assert_int_equal(bpf_map_update_elem(bpf_map__fd(t.guard->maps.guard_runtime), &d->key,
					     &zero, BPF_NOEXIST),
			 0);
}

struct kilter_guard_runtime counters(const struct dest *d)
{
	struct kilter_guard_runtime rt = {0};

	bpf_map_lookup_elem(bpf_map__fd(t.guard->maps.guard_runtime), &d->key, &rt);
	return rt;
}

/*
 * A test is told of one circuit and leaves nothing of it behind. The end of a connection may still
 * be under way on another CPU, in counters whose memory Linux gives to the next ones at once
 * (from 6.1 on): it is to be over by then.
 */
void forget(const struct dest *d)
{
	bpf_map_delete_elem(bpf_map__fd(t.guard->maps.guard_policy), &d->key);
	usleep(50000);
	bpf_map_delete_elem(bpf_map__fd(t.guard->maps.guard_runtime), &d->key);
	drain();
}

void set_switch(enum kilter_guard_switch which, __u32 value)
{
	__u32 key = which;

	assert_int_equal(
	    bpf_map_update_elem(bpf_map__fd(t.guard->maps.guard_switch), &key, &value, BPF_ANY), 0);
}

struct talk talk_begin(const struct dest *d, int listener)
{
	struct talk c;

	assert_int_equal(try_connect(d, &c.client), 0);
	c.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(c.server >= 0);
	return c;
}

void talk_ask(const struct talk *c)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
	char buf[256];

	assert_int_equal(send(c->client, request, sizeof(request) - 1, 0), sizeof(request) - 1);
	assert_int_equal(recv(c->server, buf, sizeof(request) - 1, MSG_WAITALL),
			 sizeof(request) - 1);
}

void talk_answer(const struct talk *c, int status)
{
	char text[128], buf[128];
	int n = snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status);

	assert_int_equal(send(c->server, text, (size_t)n, 0), n);
	assert_int_equal(recv(c->client, buf, (size_t)n, MSG_WAITALL), n);
}

void talk_end(const struct talk *c)
{
	close(c->client);
	close(c->server);
}
