// SPDX-License-Identifier: Apache-2.0
/* Workloads that keep their index, edges that find who serves the other end, what is forgotten and
 * when, and what happens at each limit. */
#include <arpa/inet.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/selfstat.h"
#include "model/model.h"

#include <cmocka.h>

#define WEB	  11u
#define BACKEND	  12u
#define CURL	  13u
#define PORT_80	  101u
#define PORT_81	  102u
#define LOOPBACK  201u /* 127.0.0.1:80 */
#define LOOPBACK6 202u /* [::1]:80 */
#define ELSEWHERE 203u /* 192.0.2.1:80 */
#define LOOP_81	  204u
#define NAMES_MAX 4096u
#define EDGES_MAX 16384u
#define HOUR	  3600u

static struct config config;
static struct model *model;
static uint64_t now; /* seconds */

static void add_id(__u32 id, const char *exe)
{
	struct kilter_workload w = {.key = {.cgroup_id = 1}, .pid = id};

	snprintf(w.key.exe, sizeof(w.key.exe), "%s", exe);
	model_add_workload_id(model, id, &w);
}

static void add_peer(__u32 id, int family, const char *addr, uint16_t port)
{
	struct kilter_peer p = {.port_be = htons(port), .family = (__u8)family};

	if (addr)
		assert_int_equal(
		    inet_pton(family == KILTER_FAMILY_V4 ? AF_INET : AF_INET6, addr, p.addr), 1);
	model_add_peer_id(model, id, &p);
}

static int setup(void **state)
{
	(void)state;
	config_defaults(&config);
	if (model_new(&model, &config))
		return -1;
	now = 100000;
	model_tick(model, now * NS_PER_SEC);
	add_id(WEB, "web");
	add_id(BACKEND, "backend");
	add_id(CURL, "curl");
	add_peer(PORT_80, KILTER_FAMILY_LOCAL, NULL, 80);
	add_peer(PORT_81, KILTER_FAMILY_LOCAL, NULL, 81);
	add_peer(LOOPBACK, KILTER_FAMILY_V4, "127.0.0.1", 80);
	add_peer(LOOP_81, KILTER_FAMILY_V4, "127.9.9.9", 81);
	add_peer(LOOPBACK6, KILTER_FAMILY_V6, "::1", 80);
	add_peer(ELSEWHERE, KILTER_FAMILY_V4, "192.0.2.1", 80);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	model_free(&model);
	return 0;
}

static void tick(uint64_t seconds)
{
	now += seconds;
	model_tick(model, now * NS_PER_SEC);
}

static void add(const struct kilter_series_key *k, uint64_t n)
{
	struct kilter_series d = {.created_ns = 1};

	d.classic[0] = n;
	d.exp[1] = (__u32)n;
	model_add_requests(model, k, &d, false);
}

static void requests(uint8_t role, __u32 id, __u32 peer, uint64_t n)
{
	struct kilter_series_key k = {.workload = id,
				      .peer = peer,
				      .status = 200,
				      .role = role,
				      .protocol = KILTER_PROTO_HTTP1};

	add(&k, n);
}

static void conns(uint8_t role, __u32 id, __u32 peer, uint64_t opened, uint64_t closed)
{
	struct kilter_conn_key k = {.workload = id, .peer = peer, .role = role};
	struct kilter_conn d = {.created_ns = 1, .opened = opened, .closed = closed};

	model_add_conns(model, &k, &d, false);
}

struct seen {
	const char *name;
	struct model_workload w;
	struct model_edge e;
	unsigned int workloads, edges, found;
};

static void on_workload(void *ctx, const struct model_workload *w)
{
	struct seen *s = ctx;

	s->workloads++;
	if (!s->name || strcmp(w->name, s->name))
		return;
	s->w = *w;
	s->found++;
}

static void on_edge(void *ctx, const struct model_edge *e)
{
	struct seen *s = ctx;

	s->edges++;
	if (!s->name || strcmp(e->destination_text, s->name))
		return;
	s->e = *e;
	s->found++;
}

static struct seen workload(const char *name)
{
	struct seen s = {.name = name};

	model_each_workload(model, on_workload, &s);
	return s;
}

static struct seen edge(const char *destination)
{
	struct seen s = {.name = destination};

	model_each_edge(model, on_edge, &s);
	return s;
}

static double overflow_of(const char *table);

static void a_program_is_shown_once_it_touches_the_network(void **state)
{
	(void)state;
	tick(1);
	assert_int_equal(workload(NULL).workloads, 0);
	assert_string_equal(model_workload_by_id(model, WEB)->name, "web");
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	tick(1);
	assert_int_equal(workload("web").found, 1);
	assert_int_equal(workload("curl").found, 0);
	assert_null(model_workload_by_id(model, 999));
}

static void ids_of_one_name_are_one_workload(void **state)
{
	struct model_red r;

	(void)state;
	add_id(77, "web");
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 3);
	requests(KILTER_ROLE_SERVER, 77, PORT_81, 4);
	tick(1);
	assert_int_equal(workload(NULL).workloads, 1);
	assert_ptr_equal(model_workload_by_id(model, WEB), model_workload_by_id(model, 77));
	model_workload_red(model, model_workload_by_id(model, 77), KILTER_ROLE_SERVER, MODEL_10S,
			   &r);
	assert_int_equal(r.requests, 7);
	model_workload_red(model, model_workload_by_id(model, 77), KILTER_ROLE_CLIENT, MODEL_10S,
			   &r);
	assert_int_equal(r.requests, 0);
}

static void an_id_keeps_its_workload_and_its_index(void **state)
{
	const struct model_workload *w = model_workload_by_id(model, WEB);
	uint32_t index = w->index;

	(void)state;
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	for (uint32_t i = 0; i < 500; i++) {
		char exe[16];

		snprintf(exe, sizeof(exe), "other-%u", i);
		add_id(1000 + i, exe);
		add_id(WEB, "impostor"); /* an id is never given anew */
		tick(1);
	}
	assert_ptr_equal(model_workload_by_id(model, WEB), w);
	assert_int_equal(w->index, index);
	assert_string_equal(w->name, "web");
}

static void an_edge_finds_who_serves_the_other_end(void **state)
{
	static const char *const local[] = {"127.0.0.1:80", "[::1]:80"};

	(void)state;
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	requests(KILTER_ROLE_SERVER, BACKEND, PORT_81, 1);
	requests(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 2);
	requests(KILTER_ROLE_CLIENT, CURL, LOOPBACK6, 3);
	requests(KILTER_ROLE_CLIENT, CURL, ELSEWHERE, 4);
	conns(KILTER_ROLE_CLIENT, WEB, LOOP_81, 5, 2);
	tick(1);
	assert_int_equal(edge(NULL).edges, 4);
	for (size_t i = 0; i < 2; i++) {
		struct seen s = edge(local[i]);

		assert_int_equal(s.found, 1);
		assert_string_equal(s.e.caller->name, "curl");
		assert_non_null(s.e.callee);
		assert_string_equal(s.e.callee->name, "web");
		assert_int_equal(s.e.workload_ids[0], CURL);
		assert_int_equal(s.e.workload_ids[1], 0);
	}
	assert_null(edge("192.0.2.1:80").e.callee); /* not this node's address */
	assert_string_equal(edge("127.9.9.9:81").e.callee->name, "backend");
	assert_string_equal(edge("127.9.9.9:81").e.caller->name, "web");
	assert_int_equal(edge("127.9.9.9:81").e.open_connections, 3);
}

static void count_edge(void *ctx, const struct model_edge *e)
{
	bool other = !strcmp(e->destination_text, "192.0.2.1:80");
	struct model_red r;
	struct model_tcp t;

	(void)ctx;
	model_edge_red(model, e, MODEL_1M, &r);
	model_edge_tcp(model, e, MODEL_1M, &t);
	assert_int_equal(r.requests, other ? 5 : 2);
	assert_int_equal(t.opened, other ? 9 : 0);
}

static void counts_of_an_edge_are_its_own(void **state)
{
	struct model_red r;
	struct model_tcp t;

	(void)state;
	requests(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 2);
	requests(KILTER_ROLE_CLIENT, CURL, ELSEWHERE, 5);
	conns(KILTER_ROLE_CLIENT, CURL, ELSEWHERE, 9, 9);
	tick(1);
	model_each_edge(model, count_edge, NULL);
	model_workload_red(model, model_workload_by_id(model, CURL), KILTER_ROLE_CLIENT, MODEL_1M,
			   &r);
	assert_int_equal(r.requests, 7);
	model_workload_tcp(model, model_workload_by_id(model, CURL), MODEL_1M, &t);
	assert_int_equal(t.opened, 9);
}

static void a_listener_alone_names_the_server(void **state)
{
	struct kilter_listener_key k = {.workload = BACKEND, .peer = PORT_81};
	struct kilter_listener l = {.queue_limit = 128};

	(void)state;
	model_set_listener(model, &k, &l);
	conns(KILTER_ROLE_CLIENT, CURL, LOOP_81, 1, 0);
	tick(1);
	assert_string_equal(edge("127.9.9.9:81").e.callee->name, "backend");
}

/* The same port in two network namespaces: who is meant cannot be told from the address. */
static void a_port_that_two_serve_names_nobody(void **state)
{
	(void)state;
	requests(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 1);
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	tick(1);
	assert_string_equal(edge("127.0.0.1:80").e.callee->name, "web");
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	requests(KILTER_ROLE_SERVER, BACKEND, PORT_80, 1);
	tick(1);
	assert_null(edge("127.0.0.1:80").e.callee);
}

static void a_port_goes_to_who_serves_it_next(void **state)
{
	(void)state;
	conns(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 1, 0);
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1);
	tick(1);
	tick(60);
	requests(KILTER_ROLE_SERVER, BACKEND, PORT_80, 1);
	tick(1);
	assert_string_equal(edge("127.0.0.1:80").e.callee->name, "backend");
}

static void the_past_belongs_to_connections_and_not_to_windows(void **state)
{
	struct kilter_conn_key ck = {.workload = WEB, .peer = PORT_80, .role = KILTER_ROLE_SERVER};
	struct kilter_series_key sk = {
	    .workload = WEB, .peer = PORT_80, .role = KILTER_ROLE_SERVER};
	struct kilter_conn c = {.opened = 10, .adopted = 2, .closed = 4};
	struct kilter_series s = {.created_ns = 1};
	struct model_red r;
	struct model_tcp t;

	(void)state;
	s.classic[0] = 1000;
	model_add_conns(model, &ck, &c, true);
	model_add_requests(model, &sk, &s, true);
	tick(1);
	assert_int_equal(workload("web").w.open_connections, 8);
	model_workload_red(model, model_workload_by_id(model, WEB), KILTER_ROLE_SERVER, MODEL_1H,
			   &r);
	model_workload_tcp(model, model_workload_by_id(model, WEB), MODEL_1H, &t);
	assert_int_equal(r.requests, 0);
	assert_int_equal(t.opened, 0);
}

static void the_quiet_are_hidden_after_an_hour_and_keep_their_name(void **state)
{
	const struct model_workload *w = model_workload_by_id(model, WEB);
	uint32_t index = w->index;
	struct model_red r;

	(void)state;
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 5);
	requests(KILTER_ROLE_CLIENT, CURL, ELSEWHERE, 1);
	tick(1);
	tick(HOUR - 1);
	assert_int_equal(workload("web").found, 1);
	assert_int_equal(edge(NULL).edges, 1);
	tick(2);
	assert_int_equal(workload(NULL).workloads, 0);
	assert_int_equal(edge(NULL).edges, 0);
	/* Totals of its series are still told under its name. */
	assert_ptr_equal(model_workload_by_id(model, WEB), w);
	assert_string_equal(w->name, "web");
	model_workload_red(model, w, KILTER_ROLE_SERVER, MODEL_1H, &r);
	assert_int_equal(r.requests, 0);
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 2);
	tick(1);
	assert_int_equal(workload("web").found, 1);
	assert_int_equal(workload("web").w.index, index);
	model_workload_red(model, w, KILTER_ROLE_SERVER, MODEL_1H, &r);
	assert_int_equal(r.requests, 2);
}

static void what_has_connections_is_not_forgotten(void **state)
{
	(void)state;
	conns(KILTER_ROLE_SERVER, WEB, PORT_80, 1, 0);
	conns(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 1, 0);
	tick(1);
	tick(5 * HOUR);
	assert_int_equal(workload("web").found, 1);
	assert_int_equal(workload("web").w.open_connections, 1);
	assert_int_equal(edge("127.0.0.1:80").found, 1);
	assert_string_equal(edge("127.0.0.1:80").e.callee->name, "web");
	conns(KILTER_ROLE_SERVER, WEB, PORT_80, 0, 1);
	conns(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 0, 1);
	tick(1);
	tick(HOUR + 1);
	assert_int_equal(workload(NULL).workloads, 0);
	assert_int_equal(edge(NULL).edges, 0);
}

struct sample {
	const char *table;
	double value;
};

static void emit(void *ctx, const char *labels, double value)
{
	struct sample *s = ctx;

	if (strstr(labels, s->table))
		s->value = value;
}

static void on_stat(void *ctx, const struct selfstat *s)
{
	if (!strcmp(s->name, "kilter_model_overflow_total"))
		s->collect(s->ctx, emit, ctx);
}

static double overflow_of(const char *table)
{
	struct sample s = {.table = table, .value = NAN};

	selfstat_walk(on_stat, &s);
	return s.value;
}

static void what_finds_no_room_is_counted(void **state)
{
	teardown(state);
	config_defaults(&config);
	config.limits.workloads = 64;
	config.limits.peers = 64;
	config.limits.routes = 64;
	assert_int_equal(model_new(&model, &config), 0);
	for (uint32_t i = 1; i <= 70; i++) {
		struct kilter_route route = {.path = "/x", .path_len = 2};
		char exe[16];

		snprintf(exe, sizeof(exe), "exe-%u", i);
		add_id(i, exe);
		add_id(i, exe); /* what is there needs no room */
		add_peer(i, KILTER_FAMILY_V4, "192.0.2.1", (uint16_t)i);
		add_peer(i <= 64 ? i : 1, KILTER_FAMILY_V4, "192.0.2.1", (uint16_t)i);
		model_add_route_id(model, i, &route);
	}
	assert_true(overflow_of("\"workloads\"") == 12); /* 6, asked for twice */
	assert_true(overflow_of("\"peers\"") == 6);
	assert_true(overflow_of("\"routes\"") == 6);
	assert_true(overflow_of("\"edges\"") == 0);
	assert_null(model_workload_by_id(model, 65));
	assert_string_equal(model_route_text(model, 64), "/x");
	assert_string_equal(model_route_text(model, 65), "");
	/* Those without room do no harm when they turn up. */
	requests(KILTER_ROLE_CLIENT, 65, 65, 1);
	requests(KILTER_ROLE_CLIENT, 64, 65, 1);
	requests(KILTER_ROLE_CLIENT, 64, 64, 1);
	tick(1);
	assert_int_equal(workload(NULL).workloads, 1);
	assert_int_equal(edge(NULL).edges, 1);
}

static unsigned int with_services(uint32_t services, uint32_t ids)
{
	unsigned int n;

	config_defaults(&config);
	if (services)
		config.limits.services = services;
	assert_int_equal(model_new(&model, &config), 0);
	add_peer(1, KILTER_FAMILY_V4, "192.0.2.1", 80);
	for (uint32_t i = 1; i <= ids; i++) {
		char exe[16];

		snprintf(exe, sizeof(exe), "exe-%u", i);
		add_id(i, exe);
		requests(KILTER_ROLE_CLIENT, i, 1, 1);
	}
	tick(1);
	n = workload(NULL).workloads;
	assert_true((n < ids) == (overflow_of("\"workloads\"") > 0));
	model_free(&model);
	return n;
}

static void as_many_services_have_names_as_are_configured(void **state)
{
	teardown(state);
	assert_int_equal(with_services(0, 4100), 4096);
	assert_int_equal(with_services(64, 70), 64);
	assert_int_equal(with_services(10000, 10000), 10000);
	assert_int_equal(with_services(10000, 10001), 10000);
}

static unsigned int with_edges(uint32_t edges, uint32_t destinations)
{
	unsigned int n;

	config_defaults(&config);
	if (edges)
		config.limits.edges = edges;
	assert_int_equal(model_new(&model, &config), 0);
	add_id(1, "exe");
	for (uint32_t i = 0; i < destinations; i++) {
		add_peer(1000 + i, KILTER_FAMILY_V4, "192.0.2.1", (uint16_t)i);
		conns(KILTER_ROLE_CLIENT, 1, 1000 + i, 1, 1);
	}
	tick(1);
	n = edge(NULL).edges;
	assert_true(overflow_of("\"edges\"") == (double)(destinations - n));
	model_free(&model);
	return n;
}

static void as_many_edges_are_kept_as_are_configured(void **state)
{
	teardown(state);
	assert_int_equal(with_edges(0, 16390), 16384);
	assert_int_equal(with_edges(64, 70), 64);
	assert_int_equal(with_edges(50000, 50000), 50000);
	assert_int_equal(with_edges(50000, 50003), 50000);
}

static void edges_and_listeners_have_their_limits(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < EDGES_MAX + 5; i++) {
		add_peer(1000 + i, KILTER_FAMILY_V4, "192.0.2.1", (uint16_t)i);
		conns(KILTER_ROLE_CLIENT, CURL, 1000 + i, 1, 1);
	}
	for (uint32_t i = 0; i < KILTER_LISTENERS_MAX + 3; i++) {
		struct kilter_listener_key k = {.workload = WEB, .peer = 1000 + i};
		struct kilter_listener l = {.queue_limit = 1};

		model_set_listener(model, &k, &l);
	}
	tick(1);
	assert_int_equal(edge(NULL).edges, EDGES_MAX);
	assert_true(overflow_of("\"edges\"") == 5);
	assert_true(overflow_of("\"listeners\"") == 3);
}

/* A full table of names gives the place of the one that was hidden longest. */
static void a_name_makes_room_and_takes_nothing_over(void **state)
{
	struct model_red r;

	(void)state;
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 7);
	conns(KILTER_ROLE_CLIENT, CURL, LOOPBACK, 1, 0);
	tick(1);
	assert_string_equal(edge("127.0.0.1:80").e.callee->name, "web");
	tick(2 * HOUR); /* web is hidden, curl holds its connection */
	assert_int_equal(workload("web").found, 0);
	for (uint32_t i = 0; i < NAMES_MAX - 3; i++) {
		char exe[16];

		snprintf(exe, sizeof(exe), "exe-%u", i);
		add_id(1000 + i, exe);
		requests(KILTER_ROLE_SERVER, 1000 + i, PORT_81, 1);
	}
	requests(KILTER_ROLE_SERVER, BACKEND, PORT_81, 1);
	tick(1);
	assert_int_equal(workload(NULL).workloads, NAMES_MAX - 1);
	assert_true(overflow_of("\"workloads\"") == 0);
	add_id(900, "new");
	assert_string_equal(model_workload_by_id(model, 900)->name, "new");
	assert_null(model_workload_by_id(model, WEB));
	requests(KILTER_ROLE_SERVER, 900, PORT_81, 1);
	tick(1);
	assert_null(edge("127.0.0.1:80").e.callee); /* nor does it serve web's port */
	model_workload_red(model, model_workload_by_id(model, 900), KILTER_ROLE_SERVER, MODEL_1H,
			   &r);
	assert_int_equal(r.requests, 1);
	/* Now all are in sight: nobody makes room, and that is counted. */
	add_id(901, "late");
	assert_null(model_workload_by_id(model, 901));
	assert_true(overflow_of("\"workloads\"") == 1);
	requests(KILTER_ROLE_SERVER, WEB, PORT_80, 1); /* comes back, finds no room */
	tick(1);
	assert_int_equal(workload("web").found, 0);
	assert_true(overflow_of("\"workloads\"") == 2);
}

static void an_error_is_what_its_protocol_calls_one(void **state)
{
	static const struct {
		uint8_t protocol;
		uint16_t status;
		uint8_t error;
		bool is_error;
	} rows[] = {
	    {KILTER_PROTO_HTTP1, 499, 0, false},
	    {KILTER_PROTO_HTTP1, 500, 0, true},
	    {KILTER_PROTO_HTTP2, 429, 0, false},
	    {KILTER_PROTO_HTTP2, 503, 0, true},
	    {KILTER_PROTO_HTTP2, 0, KILTER_REQ_RESET, true},
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 0, 0, false},  /* OK */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 1, 0, false},  /* CANCELLED */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 2, 0, true},   /* UNKNOWN */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 4, 0, true},   /* DEADLINE_EXCEEDED */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 5, 0, false},  /* NOT_FOUND */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 8, 0, false},  /* RESOURCE_EXHAUSTED */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 12, 0, true},  /* UNIMPLEMENTED */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 13, 0, true},  /* INTERNAL */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 14, 0, true},  /* UNAVAILABLE */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 15, 0, true},  /* DATA_LOSS */
	    {KILTER_PROTO_GRPC, KILTER_STATUS_GRPC + 16, 0, false}, /* UNAUTHENTICATED */
	    {KILTER_PROTO_GRPC, 0, KILTER_REQ_CLOSED, true},
	    {KILTER_PROTO_GRPC, 0, 0, false}, /* it ended well, its status was not read */
	};
	uint64_t errors = 0;
	struct model_red r;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kilter_series_key k = {.workload = CURL,
					      .peer = ELSEWHERE,
					      .status = rows[i].status,
					      .role = KILTER_ROLE_CLIENT,
					      .protocol = rows[i].protocol,
					      .error = rows[i].error};

		add(&k, 1);
		tick(1);
		errors += rows[i].is_error;
		model_workload_red(model, model_workload_by_id(model, CURL), KILTER_ROLE_CLIENT,
				   MODEL_1H, &r);
		if (r.requests != i + 1 || r.errors != errors)
			fail_msg("row %zu: %llu of %llu are errors", i,
				 (unsigned long long)r.errors, (unsigned long long)r.requests);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_program_is_shown_once_it_touches_the_network),
	    T(ids_of_one_name_are_one_workload),
	    T(an_id_keeps_its_workload_and_its_index),
	    T(an_edge_finds_who_serves_the_other_end),
	    T(counts_of_an_edge_are_its_own),
	    T(an_error_is_what_its_protocol_calls_one),
	    T(a_listener_alone_names_the_server),
	    T(a_port_that_two_serve_names_nobody),
	    T(a_port_goes_to_who_serves_it_next),
	    T(the_past_belongs_to_connections_and_not_to_windows),
	    T(the_quiet_are_hidden_after_an_hour_and_keep_their_name),
	    T(what_has_connections_is_not_forgotten),
	    T(what_finds_no_room_is_counted),
	    T(as_many_services_have_names_as_are_configured),
	    T(as_many_edges_are_kept_as_are_configured),
	    T(edges_and_listeners_have_their_limits),
	    T(a_name_makes_room_and_takes_nothing_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
