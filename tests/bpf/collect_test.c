// SPDX-License-Identifier: Apache-2.0
/*
 * From the kernel's maps to user space's totals: sockets older than the programs are adopted once,
 * and series retire and come back, over crashes of the reader, without a count lost or made up.
 * Needs root.
 */
#include <sys/stat.h>

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

#include <kilter/series.h>

#include "collect/collect.h"
#include "core/config.h"
#include "pair.h"
#include "programs.h"
#include "request.skel.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define ROUNDS	400
#define SECOND	1000000000ull
#define IDLE_NS (10 * SECOND)

static const char request_text[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
static const char response_text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static struct {
	struct programs programs;
	struct pair old[2]; /* IPv4 and IPv6, opened before the programs were there */
	struct config config;
	struct collect *collect;
	char state_dir[64], state_file[80];
	uint64_t now_ns;
	uint64_t sent;		    /* requests, each seen by a server and a client */
	uint64_t fed[3];	    /* by role: deltas that the sink was given */
	uint64_t requests[3];	    /* by role: totals */
	struct kilter_conn conn[3]; /* by role: totals */

} t;

static void exchange(struct pair *p)
{
	assert_int_equal(pair_to_server(p, request_text, sizeof(request_text) - 1, 0), 0);
	assert_int_equal(pair_to_client(p, response_text, sizeof(response_text) - 1, 0), 0);
	t.sent++;
}

static void reader_close(void)
{
	collect_free(&t.collect);
}

static void on_requests(void *ctx, const struct kilter_series_key *k,
			const struct kilter_series *delta, bool backlog)
{
	(void)ctx;
	(void)backlog;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		t.fed[k->role] += delta->classic[i];
}

static void reader_open(void)
{
	const struct collect_maps maps = {
	    .workloads = bpf_map__fd(t.programs.request->maps.workloads),
	    .peers = bpf_map__fd(t.programs.request->maps.peers),
	    .routes = bpf_map__fd(t.programs.request->maps.routes),
	    .series = bpf_map__fd(t.programs.request->maps.series),
	    .conns = bpf_map__fd(t.programs.request->maps.conns),
	    .listeners = bpf_map__fd(t.programs.request->maps.listeners),
	    .drops = bpf_map__fd(t.programs.request->maps.drops),
	    .syscalls = -1,
	    .syscall_errors = -1,
	    .events = -1,
	    .retire_prog = bpf_program__fd(t.programs.request->progs.retire_series),
	    .retire_request = bpf_map__fd(t.programs.request->maps.retire_request),
	};
	const struct collect_sink sink = {.requests = on_requests};

	memset(t.fed, 0, sizeof(t.fed)); /* a new life hears of everything once more */
	assert_int_equal(collect_new(&t.collect, &t.config, &maps, &sink, t.state_file, NULL, NULL),
			 0);
}

static void tick(uint64_t ns)
{
	t.now_ns += ns;
	assert_int_equal(collect_tick(t.collect, t.now_ns), 0);
}

static void add_series(void *ctx, const struct collect_series *s)
{
	(void)ctx;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		t.requests[s->key.role] += s->classic[i];
}

static void add_conn(void *ctx, const struct collect_conn *s)
{
	struct kilter_conn *sum = &t.conn[s->key.role];

	(void)ctx;
	sum->opened += s->total.opened;
	sum->adopted += s->total.adopted;
	sum->closed += s->total.closed;
}

static void read_totals(void)
{
	memset(t.requests, 0, sizeof(t.requests));
	memset(t.conn, 0, sizeof(t.conn));
	collect_each_series(t.collect, add_series, NULL);
	collect_each_conn(t.collect, add_conn, NULL);
}

static void assert_all_counted(void)
{
	read_totals();
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++) {
		assert_int_equal(t.requests[role], t.sent);
		assert_int_equal(t.fed[role], t.sent);
	}
}

static unsigned int entries(int fd)
{
	struct kilter_series_key key, *prev = NULL;
	unsigned int n = 0;

	for (; !bpf_map_get_next_key(fd, prev, &key); prev = &key)
		n++;
	return n;
}

static int group_setup(void **state)
{
	(void)state;
	programs_load(&t.programs);
	assert_int_equal(pair_open(&t.old[0]), 0);
	assert_int_equal(pair_listen(&t.old[1], PAIR_V6, 4), 0);
	assert_int_equal(pair_connect(&t.old[1]), 0);
	exchange(&t.old[0]); /* nobody saw this */
	t.sent = 0;
	programs_attach(&t.programs);

	config_defaults(&t.config);
	t.config.retire_after_ns = IDLE_NS;
	snprintf(t.state_dir, sizeof(t.state_dir), "/tmp/kilter-collect-%d", getpid());
	assert_int_equal(mkdir(t.state_dir, 0700), 0);
	snprintf(t.state_file, sizeof(t.state_file), "%s/totals", t.state_dir);
	t.now_ns = 1000 * SECOND;
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	reader_close();
	programs_done(&t.programs);
	unlink(t.state_file);
	assert_int_equal(rmdir(t.state_dir), 0);
	return 0;
}

static void older_sockets_are_adopted_once_however_often_it_is_asked(void **state)
{
	(void)state;
	programs_adopt(&t.programs);
	programs_adopt(&t.programs);
	reader_open();
	tick(SECOND);
	read_totals();
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].adopted, 2);
	assert_int_equal(t.conn[KILTER_ROLE_SERVER].adopted, 2);
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].opened, 0);
	assert_int_equal(t.conn[KILTER_ROLE_SERVER].opened, 0);
	assert_int_equal(entries(bpf_map__fd(t.programs.tcp->maps.listeners)), 2);
}

static void requests_on_adopted_connections_count(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++)
		exchange(&t.old[i % 2]);
	programs_adopt(&t.programs); /* a third time, with requests in between */
	for (int i = 0; i < 50; i++)
		exchange(&t.old[i % 2]);
	tick(SECOND);
	assert_all_counted();
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].adopted, 2);
}

static void new_connections_are_opened_not_adopted(void **state)
{
	struct pair p;

	(void)state;
	assert_int_equal(pair_open(&p), 0);
	exchange(&p);
	programs_adopt(&t.programs);
	pair_close(&p, false);
	for (int i = 0; i < 5000; i++) { /* its end may take the network a moment */
		tick(0);
		read_totals();
		if (t.conn[KILTER_ROLE_SERVER].closed && t.conn[KILTER_ROLE_CLIENT].closed)
			break;
		usleep(1000);
	}
	assert_all_counted();
	for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++) {
		assert_int_equal(t.conn[role].adopted, 2);
		assert_int_equal(t.conn[role].opened, 1);
		assert_int_equal(t.conn[role].closed, 1);
	}
}

static void an_idle_series_leaves_the_map_and_keeps_its_count(void **state)
{
	int series = bpf_map__fd(t.programs.request->maps.series);

	(void)state;
	assert_true(entries(series) > 0);
	for (int i = 0; i < 10; i++)
		tick(IDLE_NS);
	assert_int_equal(entries(series), 0);
	assert_all_counted();
	exchange(&t.old[0]);
	tick(SECOND);
	assert_true(entries(series) > 0);
	assert_all_counted();
}

/* Requests come at every point of the retirement, and the reader dies at every point of it. */
static void counts_come_meanwhile_and_the_reader_dies_and_nothing_is_lost(void **state)
{
	int series = bpf_map__fd(t.programs.request->maps.series);
	unsigned int emptied = 0;

	(void)state;
	srand(1);
	for (int i = 0; i < ROUNDS; i++) {
		unsigned int before = entries(series);

		if (rand() % 3 == 0)
			exchange(&t.old[rand() % 2]);
		tick(rand() % 4 ? IDLE_NS + SECOND : SECOND);
		emptied += entries(series) < before;
		if (rand() % 5 == 0) {
			reader_close();
			if (rand() % 2)
				exchange(&t.old[rand() % 2]);
			reader_open();
			tick(SECOND);
		}
		read_totals();
		for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++)
			assert_int_equal(t.requests[role], t.sent);
	}
	assert_true(emptied > 10); /* or the test saw none of what it is about */
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].adopted, 2);
	assert_int_equal(t.conn[KILTER_ROLE_CLIENT].opened, 1);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(older_sockets_are_adopted_once_however_often_it_is_asked),
	    cmocka_unit_test(requests_on_adopted_connections_count),
	    cmocka_unit_test(new_connections_are_opened_not_adopted),
	    cmocka_unit_test(an_idle_series_leaves_the_map_and_keeps_its_count),
	    cmocka_unit_test(counts_come_meanwhile_and_the_reader_dies_and_nothing_is_lost),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

int main(void)
{
	return tier_run_best(run);
}
