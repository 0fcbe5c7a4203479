// SPDX-License-Identifier: Apache-2.0
/*
 * The guard in the kernel, with the real programs on a cgroup of our own, which this process
 * joins. The policy map is written here as the daemon would write it. Needs root.
 */
#include <arpa/inet.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/event.h>
#include <kilter/guard.h>
#include <kilter/identity.h>

#include "core/clock.h"
#include "guard_connect.skel.h"
#include "probe/probe.h"
#include "programs.h"
#include "request.skel.h"
#include "sock_owner.skel.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define MS	  NS_PER_MS
#define LINKS_MAX 16
/* What a refusal of ours is to the caller. */
#define REFUSED		(tier_lower ? ENETUNREACH : ECONNREFUSED)
#define THREADS		8
#define CONNECTS	40   /* of each thread */
#define SETTLE_ATTEMPTS 2000 /* of 1 ms: how long a count may take to arrive before it is lost */
#define ENOUGH		(3600 * NS_PER_SEC)

static struct {
	char cgroup[256], home[256], bpffs[64];
	int cgroup_fd;
	struct sock_owner *owner;
	struct tcp_conn *tcp;
	struct request *request;
	struct guard_connect *guard;
	struct bpf_link *links[LINKS_MAX];
	unsigned int links_count;
	struct ring_buffer *events;
	unsigned int refused_records, trip_records;
	struct kilter_event_trip trip;
	struct kilter_event_net refused;
} t;

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static void join_cgroup(const char *dir)
{
	char path[512], pid[16];

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	snprintf(pid, sizeof(pid), "%d", getpid());
	assert_int_equal(write_file(path, pid), 0);
}

/* Where this process is in the cgroup v2 hierarchy: the line "0::/path". */
static void find_home(const char *root)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[256];

	assert_non_null(f);
	snprintf(t.home, sizeof(t.home), "%s", root);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3))
			snprintf(t.home, sizeof(t.home), "%.100s%.150s", root, line + 3);
	}
	fclose(f);
}

static int on_event(void *ctx, void *data, size_t size)
{
	const struct kilter_event *h = data;

	(void)ctx;
	if (h->type == KILTER_EVENT_REFUSED) {
		assert_int_equal(size, sizeof(t.refused));
		t.refused_records++;
		memcpy(&t.refused, data, sizeof(t.refused));
	}
	if (h->type == KILTER_EVENT_TRIP) {
		assert_int_equal(size, sizeof(t.trip));
		t.trip_records++;
		memcpy(&t.trip, data, sizeof(t.trip));
	}
	return 0;
}

static void drain(void)
{
	t.refused_records = 0;
	t.trip_records = 0;
	assert_true(ring_buffer__consume(t.events) >= 0);
}

static void attach(struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_cgroup(prog, t.cgroup_fd);

	assert_int_equal(libbpf_get_error(link), 0);
	assert_true(t.links_count < LINKS_MAX);
	t.links[t.links_count++] = link;
}

__attribute__((format(printf, 2, 0))) static int quiet(enum libbpf_print_level level,
						       const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, ap) : 0;
}

static int setup(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = t.bpffs);
	char root[128];

	(void)state;
	libbpf_set_print(quiet);
	assert_int_equal(probe_cgroup2_root(root, sizeof(root)), 0);
	find_home(root);
	snprintf(t.cgroup, sizeof(t.cgroup), "%s/kilter-guard-connect-test-%d", root, getpid());
	assert_int_equal(mkdir(t.cgroup, 0755), 0);
	t.cgroup_fd = open(t.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(t.cgroup_fd >= 0);
	snprintf(t.bpffs, sizeof(t.bpffs), "/tmp/kilter-guard-test.XXXXXX");
	assert_non_null(mkdtemp(t.bpffs));
	assert_int_equal(mount("bpf", t.bpffs, "bpf", 0, NULL), 0);

	t.owner = sock_owner__open_opts(&opts);
	t.tcp = tcp_conn__open_opts(&opts);
	t.request = request__open_opts(&opts);
	t.guard = guard_connect__open_opts(&opts);
	assert_non_null(t.owner);
	assert_non_null(t.tcp);
	assert_non_null(t.request);
	assert_non_null(t.guard);
	tier_choose("tcp_conn", t.tcp->obj);
	tier_choose("guard_connect", t.guard->obj);
	t.tcp->rodata->node_trace = !tier_lower;
	assert_int_equal(sock_owner__load(t.owner), 0);
	assert_int_equal(tcp_conn__load(t.tcp), 0);
	assert_int_equal(request__load(t.request), 0);
	assert_int_equal(guard_connect__load(t.guard), 0);
	attach(t.owner->progs.own_connect4);
	attach(t.owner->progs.own_connect6);
	attach(t.owner->progs.own_bind4);
	attach(t.owner->progs.own_bind6);
	attach(t.tcp->progs.tcp_life);
	attach(t.request->progs.request_ingress);
	attach(t.request->progs.request_egress);
	attach(tier_lower ? t.guard->progs.guard_connect4_rewrite : t.guard->progs.guard_connect4);
	attach(tier_lower ? t.guard->progs.guard_connect6_rewrite : t.guard->progs.guard_connect6);
	t.events = ring_buffer__new(bpf_map__fd(t.guard->maps.events), on_event, NULL, NULL);
	assert_non_null(t.events);
	join_cgroup(t.cgroup);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	join_cgroup(t.home);
	ring_buffer__free(t.events);
	for (unsigned int i = 0; i < t.links_count; i++)
		bpf_link__destroy(t.links[i]);
	guard_connect__destroy(t.guard);
	request__destroy(t.request);
	tcp_conn__destroy(t.tcp);
	sock_owner__destroy(t.owner);
	close(t.cgroup_fd);
	umount(t.bpffs);
	rmdir(t.bpffs);
	rmdir(t.cgroup);
	return 0;
}

/* --- what a test does --- */

struct dest {
	struct sockaddr_storage addr;
	socklen_t len;
	struct kilter_circuit_key key; /* for any caller */
};

static struct dest dest_v4(uint16_t port_be)
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

static struct dest dest_v6(uint16_t port_be, bool mapped)
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
static int listen_on(int family, uint16_t *port_be)
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
static int try_connect(const struct dest *d, int *ret_fd)
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
static bool arrives(int listener, int wait_ms)
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

static uint64_t next_generation(void)
{
	static uint64_t generation;

	return ++generation;
}

static struct kilter_guard_policy policy(enum kilter_circuit_state state,
					 enum kilter_guard_mode mode)
{
	return (struct kilter_guard_policy){
	    .generation = next_generation(),
	    .lease_until_ns = state == KILTER_CIRCUIT_CLOSED ? 0 : clock_boot_ns() + ENOUGH,
	    .base_open_ns = ENOUGH,
	    .permit_timeout_ns = ENOUGH,
	    .consecutive_failures = 5,
	    .permits = 3,
	    .failures = KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_HTTP_5XX | KILTER_FAIL_ON_NO_ANSWER,
	    .state = (__u8)state,
	    .mode = (__u8)mode,
	};
}

static void tell(const struct dest *d, const struct kilter_guard_policy *p)
{
	assert_int_equal(
	    bpf_map_update_elem(bpf_map__fd(t.guard->maps.guard_policy), &d->key, p, BPF_ANY), 0);
}

static struct kilter_guard_runtime counters(const struct dest *d)
{
	struct kilter_guard_runtime rt = {0};

	bpf_map_lookup_elem(bpf_map__fd(t.guard->maps.guard_runtime), &d->key, &rt);
	return rt;
}

/* A test is told of one circuit and leaves nothing of it behind. */
static void forget(const struct dest *d)
{
	bpf_map_delete_elem(bpf_map__fd(t.guard->maps.guard_policy), &d->key);
	bpf_map_delete_elem(bpf_map__fd(t.guard->maps.guard_runtime), &d->key);
	drain();
}

static void set_switch(__u32 value)
{
	__u32 zero = 0;

	assert_int_equal(
	    bpf_map_update_elem(bpf_map__fd(t.guard->maps.guard_switch), &zero, &value, BPF_ANY),
	    0);
}

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
	assert_int_equal(rt.refused, 10);
	assert_int_equal(rt.would_refuse, 0);
	assert_int_equal(rt.total_failures, 0); /* a refusal of our own is nobody's failure */
	drain();
	assert_int_equal(t.refused_records, 10);
	assert_int_equal(t.refused.err, REFUSED);
	assert_int_equal(t.refused.peer.port_be, port);
	assert_int_equal(t.refused.h.pid, getpid());
	forget(&d);
	close(listener);
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
	assert_int_equal(counters(&v4).refused, 1);
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
	closed.mode = KILTER_GUARD_OFF; /* off is an answer too */
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
	assert_int_equal(rt.would_refuse, 10);
	assert_int_equal(rt.refused, 0);
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
	set_switch(1);
	assert_int_equal(try_connect(&d, NULL), 0);
	set_switch(0);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_int_equal(counters(&d).refused, 2);
	assert_int_equal(counters(&d).would_refuse, 1);
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
	assert_int_equal(counters(&d).refused, refused);
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
	assert_int_equal(rt.refused, 0);
	drain();
	assert_int_equal(t.trip_records, 1);
	assert_memory_equal(&t.trip.key, &d.key, sizeof(d.key));
	assert_int_equal(t.trip.generation, p.generation);
	assert_int_equal(t.trip.consecutive, 5);
	/* Now somebody listens, and the sixth does not arrive. */
	listener = listen_on(AF_INET, &port);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_false(arrives(listener, 20));
	rt = counters(&d);
	assert_int_equal(rt.refused, 1);
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
	p.base_open_ns = 200 * MS;
	p.consecutive_failures = 1;
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
			assert_true(before < rt.tripped_ns + p.base_open_ns);
		else
			assert_true(clock_boot_ns() >= rt.tripped_ns + p.base_open_ns);
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
	p.failures = KILTER_FAIL_ON_HTTP_5XX;
	tell(&d, &p);
	for (int i = 0; i < 8; i++)
		try_connect(&d, NULL);
	assert_int_equal(counters(&d).total_failures, 0);
	assert_int_equal(counters(&d).trips, 0);
	forget(&d);
}

/* --- HTTP, one exchange at a time, both ends in this thread --- */

struct pair {
	int client, server;
};

static struct pair make_pair(const struct dest *d, int listener)
{
	struct pair c;

	assert_int_equal(try_connect(d, &c.client), 0);
	c.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(c.server >= 0);
	return c;
}

static void ask(const struct pair *c)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
	char buf[256];

	assert_int_equal(send(c->client, request, sizeof(request) - 1, 0), sizeof(request) - 1);
	assert_int_equal(recv(c->server, buf, sizeof(request) - 1, MSG_WAITALL),
			 sizeof(request) - 1);
}

static void answer(const struct pair *c, int status)
{
	char text[128], buf[128];
	int n = snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status);

	assert_int_equal(send(c->server, text, (size_t)n, 0), n);
	assert_int_equal(recv(c->client, buf, (size_t)n, MSG_WAITALL), n);
}

static void close_pair(const struct pair *c)
{
	close(c->client);
	close(c->server);
}

static void a_success_between_failures_begins_the_count_anew(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	static const int statuses[] = {500, 503, 500, 599, 404, 500, 500, 500, 500};
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct pair c;

	(void)state;
	tell(&d, &p);
	c = make_pair(&d, listener);
	for (unsigned int i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		ask(&c);
		answer(&c, statuses[i]);
	}
	settles(counters(&d).total_failures == 8);
	assert_int_equal(counters(&d).total_successes, 1);
	assert_int_equal(counters(&d).consecutive, 4);
	assert_int_equal(counters(&d).trips, 0);
	ask(&c);
	answer(&c, 500);
	settles(counters(&d).trips == 1);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	/* Results that were under way when it tripped change nothing any more. */
	ask(&c);
	answer(&c, 200);
	assert_int_equal(counters(&d).consecutive, 5);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	close_pair(&c);
	forget(&d);
	close(listener);
}

static void an_unanswered_request_is_a_failure(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct pair c;

	(void)state;
	tell(&d, &p);
	c = make_pair(&d, listener);
	ask(&c);
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
	struct pair c;

	(void)state;
	tell(&d, &p);
	c = make_pair(&d, listener);
	ask(&c);
	p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	answer(&c, 500);
	/* What comes next on the same connection belongs to the present, and counts. */
	ask(&c);
	answer(&c, 500);
	settles(counters(&d).total_failures == 1);
	assert_int_equal(counters(&d).generation, p.generation);
	assert_int_equal(counters(&d).consecutive, 1);
	close_pair(&c);
	forget(&d);
	close(listener);
}

static void a_connection_older_than_its_circuit_joins_with_its_first_failure(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct pair c;

	(void)state;
	c = make_pair(&d, listener);
	ask(&c);
	answer(&c, 500); /* no circuit yet */
	tell(&d, &p);
	ask(&c);
	answer(&c, 200);
	for (int i = 0; i < 5; i++) {
		ask(&c);
		answer(&c, 500);
	}
	settles(counters(&d).trips == 1);
	assert_int_equal(counters(&d).total_failures, 5);
	close_pair(&c);
	forget(&d);
	close(listener);
}

static void without_a_known_protocol_data_is_a_success_and_silence_is_nothing(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct pair c;
	char buf[8];

	(void)state;
	tell(&d, &p);
	c = make_pair(&d, listener);
	close_pair(&c);
	c = make_pair(&d, listener);
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
	int fds[CONNECTS];
	int passed;
};

static void *hammer(void *arg)
{
	struct worker *w = arg;

	for (int i = 0; i < CONNECTS; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!connect(fd, (const struct sockaddr *)&w->d->addr, w->d->len))
			w->fds[w->passed++] = fd; /* kept open: the permit stays taken */
		else
			close(fd);
	}
	return NULL;
}

static void half_open_gives_exactly_its_permits_to_many_threads(void **state)
{
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);

	(void)state;
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
		assert_int_equal(passed, p.permits);
		assert_int_equal(rt.trials, p.permits);
		assert_int_equal(rt.refused - before.refused, THREADS * CONNECTS - p.permits);
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

static void a_trial_gives_its_permit_back_with_its_first_outcome(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_HALF_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);
	struct pair c;

	(void)state;
	p.permits = 1;
	tell(&d, &p);
	c = make_pair(&d, listener);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	ask(&c);
	answer(&c, 200);
	settles(counters(&d).successes == 1);
	assert_int_equal(counters(&d).permits, 0);
	ask(&c);
	answer(&c, 200); /* a trial is one: this is not a second success of its */
	close_pair(&c);
	assert_int_equal(counters(&d).successes, 1);
	c = make_pair(&d, listener);
	close_pair(&c); /* it said nothing, and gives back its permit */
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
	struct pair c;

	(void)state;
	tell(&d, &p);
	c = make_pair(&d, listener);
	ask(&c);
	answer(&c, 500);
	settles(counters(&d).failures == 1);
	assert_int_equal(counters(&d).permits, 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(try_connect(&d, NULL), REFUSED);
	assert_int_equal(counters(&d).trials, 1);
	close_pair(&c);
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

/* The owner's program runs after ours when its link was lost and made again. */
static void it_works_before_the_owner_as_well(void **state)
{
	struct kilter_guard_policy p = policy(KILTER_CIRCUIT_OPEN, KILTER_GUARD_ENFORCE);
	uint16_t port = 0;
	int listener = listen_on(AF_INET, &port);
	struct dest d = dest_v4(port);

	(void)state;
	bpf_link__destroy(t.links[0]); /* own_connect4 */
	t.links[0] = bpf_program__attach_cgroup(t.owner->progs.own_connect4, t.cgroup_fd);
	assert_int_equal(libbpf_get_error(t.links[0]), 0);
	tell(&d, &p);
	assert_int_equal(try_connect(&d, NULL), REFUSED);
	p = policy(KILTER_CIRCUIT_CLOSED, KILTER_GUARD_ENFORCE);
	tell(&d, &p);
	close(listener);
	for (int i = 0; i < 5; i++)
		try_connect(&d, NULL);
	assert_int_equal(counters(&d).trips, 1);
	forget(&d);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_open_circuit_refuses_and_nothing_arrives),
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
	    cmocka_unit_test(a_trial_gives_its_permit_back_with_its_first_outcome),
	    cmocka_unit_test(a_failed_trial_ends_the_trying),
	    cmocka_unit_test(a_permit_that_nobody_gives_back_is_free_after_its_time),
	    cmocka_unit_test(it_works_before_the_owner_as_well),
	};

	t.links_count = 0;
	return cmocka_run_group_tests_name(name, tests, setup, teardown);
}

int main(void)
{
	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 77;
	}
	return tier_runs(run);
}
