// SPDX-License-Identifier: Apache-2.0
#include "programs.h"

#include <sys/stat.h>

#include <errno.h>
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

#include "guard_connect.skel.h"
#include "probe/adopt.h"
#include "probe/registry.h"
#include "request.skel.h"
#include "sock_iter.skel.h"
#include "sock_owner.skel.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define EXIT_SKIPPED	77   /* for tests/run.sh */
#define SETTLE_ATTEMPTS 5000 /* of 1 ms, before a connection's end is held to be lost */

bool tier_lower;

static bool wanted(const char *name)
{
	const char *tiers = getenv("KILTER_TEST_TIERS");

	return !tiers || strstr(tiers, name);
}

__attribute__((format(printf, 2, 0))) static int quiet(enum libbpf_print_level level,
						       const char *fmt, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, fmt, ap) : 0;
}

static bool may_run(void)
{
	libbpf_set_print(quiet);
	if (geteuid())
		printf("# SKIP needs root\n");
	return !geteuid();
}

int tier_runs(int (*run)(const char *name))
{
	int failed = 0;

	if (!may_run())
		return EXIT_SKIPPED;
	if (wanted("full")) {
		tier_lower = false;
		failed += run("full");
	}
	if (wanted("lower")) {
		tier_lower = true;
		failed += run("lower");
	}
	return failed;
}

int tier_run_best(int (*run)(const char *name))
{
	if (!may_run())
		return EXIT_SKIPPED;
	tier_lower = !wanted("full");
	return run(tier_lower ? "lower" : "full");
}

void tier_choose(const char *row, const struct bpf_object *obj)
{
	const struct probe_row *r = probe_row_find(row);

	assert_non_null(r);
	probe_row_choose(r, obj, tier_lower ? PROBE_TIER_LOWER : PROBE_TIER_FULL);
}

void object_load(struct bpf_object_skeleton *skel, const struct sandbox *sandbox)
{
	__u32 zero = 0;
	int fd;

	assert_int_equal(bpf_object__load_skeleton(skel), 0);
	fd = bpf_object__find_map_fd_by_name(*skel->obj, "observed_cgroup");
	assert_true(fd >= 0);
	assert_int_equal(bpf_map_update_elem(fd, &zero, &sandbox->cgroup_fd, BPF_ANY), 0);
}

void programs_load(struct programs *p)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = p->sandbox.bpffs);
	struct stat st;

	memset(p, 0, sizeof(*p));
	assert_int_equal(sandbox_init(&p->sandbox), 0);
	assert_int_equal(fstat(p->sandbox.cgroup_fd, &st), 0);
	p->owner = sock_owner__open_opts(&opts);
	p->tcp = tcp_conn__open_opts(&opts);
	p->request = request__open_opts(&opts);
	p->iter = sock_iter__open_opts(&opts);
	p->guard = guard_connect__open_opts(&opts);
	assert_true(p->owner && p->tcp && p->request && p->iter && p->guard);
	tier_choose("guard_connect", p->guard->obj);
	tier_choose("tcp_conn", p->tcp->obj);
	tier_choose("sock_iter", p->iter->obj);
	p->tcp->rodata->node_trace = !tier_lower;
	p->iter->rodata->observed_id = st.st_ino; /* kernfs: the inode number is the id */
	p->iter->rodata->adopt_secret = PROGRAMS_SECRET;
	assert_int_equal(sock_owner__load(p->owner), 0);
	assert_int_equal(tcp_conn__load(p->tcp), 0);
	assert_int_equal(request__load(p->request), 0);
	assert_int_equal(sock_iter__load(p->iter), 0);
	assert_int_equal(guard_connect__load(p->guard), 0);
}

void programs_link(struct programs *p, const struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_cgroup(prog, p->sandbox.cgroup_fd);

	assert_int_equal(libbpf_get_error(link), 0);
	assert_true(p->links_count < PROGRAMS_LINKS_MAX);
	p->links[p->links_count++] = link;
}

void programs_attach(struct programs *p)
{
	programs_link(p, tier_lower ? p->guard->progs.guard_connect4_rewrite
				    : p->guard->progs.guard_connect4);
	programs_link(p, tier_lower ? p->guard->progs.guard_connect6_rewrite
				    : p->guard->progs.guard_connect6);
	programs_link(p, p->owner->progs.own_bind4);
	programs_link(p, p->owner->progs.own_bind6);
	programs_link(p, p->tcp->progs.tcp_life);
	programs_link(p, p->tcp->progs.tcp_release);
	programs_link(p, p->request->progs.request_ingress);
	programs_link(p, p->request->progs.request_egress);
	if (!tier_lower) {
		struct bpf_link *link = bpf_program__attach(p->tcp->progs.tcp_adopted_end);

		assert_int_equal(libbpf_get_error(link), 0);
		assert_true(p->links_count < PROGRAMS_LINKS_MAX);
		p->links[p->links_count++] = link;
	}
}

void programs_detach(struct programs *p)
{
	while (p->links_count)
		bpf_link__destroy(p->links[--p->links_count]);
}

void programs_done(struct programs *p)
{
	programs_detach(p);
	guard_connect__destroy(p->guard);
	sock_iter__destroy(p->iter);
	request__destroy(p->request);
	tcp_conn__destroy(p->tcp);
	sock_owner__destroy(p->owner);
	sandbox_done(&p->sandbox);
}

static void iterate(const struct bpf_program *prog)
{
	struct bpf_link *link = bpf_program__attach_iter(prog, NULL);
	char buf[64];
	ssize_t n;
	int fd;

	assert_int_equal(libbpf_get_error(link), 0);
	fd = bpf_iter_create(bpf_link__fd(link));
	assert_true(fd >= 0);
	do
		n = read(fd, buf, sizeof(buf));
	while (n > 0 || (n < 0 && errno == EAGAIN));
	close(fd);
	bpf_link__destroy(link);
	assert_int_equal(n, 0);
}

void programs_adopt(struct programs *p)
{
	if (tier_lower) {
		assert_int_equal(adopt_by_hand(p->iter->progs.adopt_by_hand, p->sandbox.cgroup_fd,
					       PROGRAMS_SECRET),
				 0);
	} else {
		iterate(p->iter->progs.adopt_listeners);
		iterate(p->iter->progs.adopt_tcp);
	}
}

void map_clear(int fd)
{
	char key[64];

	while (!bpf_map_get_next_key(fd, NULL, key))
		assert_int_equal(bpf_map_delete_elem(fd, key), 0);
}

void programs_clear(struct programs *p)
{
	map_clear(bpf_map__fd(p->request->maps.series));
	map_clear(bpf_map__fd(p->tcp->maps.conns));
	map_clear(bpf_map__fd(p->tcp->maps.listeners));
	if (!tier_lower)
		map_clear(bpf_map__fd(p->iter->maps.listen_ports));
}

__u64 drops_read(int fd, __u32 reason)
{
	int cpus = libbpf_num_possible_cpus();
	__u64 *n = calloc((size_t)cpus, sizeof(*n)), sum = 0;

	assert_non_null(n);
	assert_int_equal(bpf_map_lookup_elem(fd, &reason, n), 0);
	for (int i = 0; i < cpus; i++)
		sum += n[i];
	free(n);
	return sum;
}

void programs_conns(const struct programs *p, struct kilter_conn ret[3])
{
	int fd = bpf_map__fd(p->tcp->maps.conns);
	struct kilter_conn_key key, *prev = NULL;

	memset(ret, 0, 3 * sizeof(*ret));
	while (!bpf_map_get_next_key(fd, prev, &key)) {
		struct kilter_conn v, *sum;

		prev = &key;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &v), 0);
		assert_in_range(key.role, KILTER_ROLE_SERVER, KILTER_ROLE_CLIENT);
		sum = &ret[key.role];
		sum->opened += v.opened;
		sum->adopted += v.adopted;
		sum->closed += v.closed;
		sum->undecoded += v.undecoded;
		sum->resets_in += v.resets_in;
		sum->resets_out += v.resets_out;
		sum->bytes_in += v.bytes_in;
		sum->bytes_out += v.bytes_out;
		for (int i = 0; i < KILTER_CONNECT_FAILURES; i++)
			sum->failed[i] += v.failed[i];
		for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
			sum->connect_hist[i] += v.connect_hist[i];
	}
}

static bool all_closed(const struct kilter_conn conn[3])
{
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++)
		if (conn[role].closed != conn[role].opened + conn[role].adopted)
			return false;
	return true;
}

void programs_settle(const struct programs *p, struct kilter_conn ret[3])
{
	programs_conns(p, ret);
	for (int i = 0; i < SETTLE_ATTEMPTS && !all_closed(ret); i++) {
		usleep(1000);
		programs_conns(p, ret);
	}
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++)
		assert_int_equal(ret[role].closed, ret[role].opened + ret[role].adopted);
}
