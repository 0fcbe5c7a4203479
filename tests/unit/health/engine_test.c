// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/bus.h"
#include "core/clock.h"
#include "health/health.h"

#include <cmocka.h>

#define SERVER 11u
#define CLIENT 12u
#define PORT   21u
#define DEST   22u

static struct config config;
static struct model *model;
static struct health *health;
static uint64_t now;
static unsigned int published;
static char last_subject[64], last_from[16], last_to[16], last_reason[160];

static void on_bus(void *ctx, const struct bus_event *ev)
{
	(void)ctx;
	if (ev->kind != BUS_HEALTH_TRANSITION || !ev->subject ||
	    strcmp(ev->subject, "workload/srv"))
		return;
	published++;
	snprintf(last_subject, sizeof(last_subject), "%s", ev->subject);
	snprintf(last_from, sizeof(last_from), "%s", ev->from);
	snprintf(last_to, sizeof(last_to), "%s", ev->to);
	snprintf(last_reason, sizeof(last_reason), "%s", ev->reason ? ev->reason : "");
}

/* A listener is told of in each tick, or it is gone. */
static struct kilter_listener listening; /* queue_limit 0: nobody listens */

static int setup(void **state)
{
	struct kilter_workload srv = {.key = {.cgroup_id = 1, .exe = "srv"}, .pid = 1};
	struct kilter_workload cli = {.key = {.cgroup_id = 1, .exe = "cli"}, .pid = 2};
	struct kilter_peer port = {.port_be = __builtin_bswap16(80)};
	struct kilter_peer dest = {
	    .addr = {192, 0, 2, 1}, .port_be = __builtin_bswap16(81), .family = KILTER_FAMILY_V4};

	(void)state;
	config_defaults(&config);
	now = 10000 * NS_PER_SEC;
	published = 0;
	bus_reset();
	if (model_new(&model, &config) || health_new(&health, &config) ||
	    bus_subscribe(on_bus, NULL))
		return -1;
	model_tick(model, now);
	model_add_workload_id(model, SERVER, &srv);
	model_add_workload_id(model, CLIENT, &cli);
	model_add_peer_id(model, PORT, &port);
	model_add_peer_id(model, DEST, &dest);
	return 0;
}

static int teardown(void **state)
{
	listening.queue_limit = 0;
	(void)state;
	health_free(&health);
	model_free(&model);
	bus_reset();
	return 0;
}

static void add_requests(uint8_t role, uint16_t status, uint64_t n, uint64_t ns)
{
	struct kilter_series_key k = {.workload = role == KILTER_ROLE_SERVER ? SERVER : CLIENT,
				      .peer = role == KILTER_ROLE_SERVER ? PORT : DEST,
				      .status = status,
				      .role = role,
				      .protocol = KILTER_PROTO_HTTP1,
				      .method = KILTER_METHOD_GET};
	struct kilter_series d = {.created_ns = 1, .sum_ns = n * ns};

	if (!n)
		return;
	d.classic[kilter_classic_index(ns)] = n;
	d.exp[kilter_exp_index(ns)] = (__u32)n;
	model_add_requests(model, &k, &d, false);
}

static void add_conns(uint8_t role, const struct kilter_conn *d)
{
	struct kilter_conn_key k = {.workload = role == KILTER_ROLE_SERVER ? SERVER : CLIENT,
				    .peer = role == KILTER_ROLE_SERVER ? PORT : DEST,
				    .role = role};

	model_add_conns(model, &k, d, false);
}

static void listen_with(uint32_t length)
{
	listening =
	    (struct kilter_listener){.queue_length = length, .queue_limit = 100, .updated_ns = now};
}

static void tick_with(const struct health_probe *p, unsigned int n, const struct health_drop *d,
		      unsigned int dn)
{
	const struct kilter_listener_key k = {.workload = SERVER, .peer = PORT};

	if (listening.queue_limit)
		model_set_listener(model, &k, &listening);
	now += NS_PER_SEC;
	model_tick(model, now);
	health_tick(health, model, p, n, d, dn, now, now);
}

static void ticks(unsigned int n)
{
	while (n--)
		tick_with(NULL, 0, NULL, 0);
}

struct wanted {
	enum health_kind kind;
	const char *name;
	struct health_subject found;
	unsigned int count;
};

static void match(void *ctx, const struct health_subject *s)
{
	struct wanted *w = ctx;

	if (s->kind != w->kind || strcmp(s->name, w->name))
		return;
	w->found = *s;
	w->count++;
}

static struct health_subject get(enum health_kind kind, const char *name)
{
	struct wanted w = {.kind = kind, .name = name};

	health_each(health, match, &w);
	if (w.count != 1)
		fail_msg("%s %s: %u subjects", health_kind_str(kind), name, w.count);
	return w.found;
}

#define WORKLOAD() get(HEALTH_WORKLOAD, "srv")
#define EDGE()	   get(HEALTH_EDGE, "cli -> 192.0.2.1:81")
#define NODE()	   get(HEALTH_NODE, "node")

static void expect(struct health_subject s, enum health_state state, const char *code)
{
	if (s.state != state)
		fail_msg("%s is %s, not %s", s.name, health_state_str(s.state),
			 health_state_str(state));
	if (!code) {
		assert_int_equal(s.reasons_count, 0);
		return;
	}
	assert_true(s.reasons_count >= 1);
	assert_string_equal(s.reasons[0].code, code);
	assert_true(strlen(s.reasons[0].text) > 0);
}

static void errors_count_from_their_threshold_on(void **state)
{
	static const struct {
		uint64_t good, bad;
		enum health_state want;
	} rows[] = {
	    {100, 0, HEALTH_HEALTHY},  {96, 4, HEALTH_HEALTHY},	   {95, 5, HEALTH_DEGRADED},
	    {76, 24, HEALTH_DEGRADED}, {75, 25, HEALTH_UNHEALTHY}, {0, 100, HEALTH_UNHEALTHY},
	    {0, 9, HEALTH_HEALTHY}, /* below minimum_requests: the rule is silent */
	    {0, 10, HEALTH_UNHEALTHY},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int role = KILTER_ROLE_SERVER; role <= KILTER_ROLE_CLIENT; role++) {
			struct health_subject s;

			teardown(state);
			assert_int_equal(setup(state), 0);
			add_requests((uint8_t)role, 200, rows[i].good, 1000000);
			add_requests((uint8_t)role, 503, rows[i].bad, 1000000);
			ticks(3);
			s = role == KILTER_ROLE_SERVER ? WORKLOAD() : EDGE();
			expect(s, rows[i].want,
			       rows[i].want == HEALTH_HEALTHY ? NULL : "error_ratio");
			if (s.reasons_count)
				assert_int_equal(s.reasons[0].samples, rows[i].good + rows[i].bad);
		}
	}
}

static void a_client_error_is_no_failure_of_the_service(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 404, 100, 1000000);
	ticks(3);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
}

static void a_slow_service_is_degraded_by_the_bound_that_was_set(void **state)
{
	(void)state;
	config.health.latency_p95_ns = 100000000;
	health_reconfigure(health, &config);
	add_requests(KILTER_ROLE_SERVER, 200, 50, 50000000);
	ticks(3);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	add_requests(KILTER_ROLE_SERVER, 200, 50, 200000000);
	ticks(2);
	expect(WORKLOAD(), HEALTH_DEGRADED, "latency_threshold");
}

static void slow_against_the_own_past_is_degraded(void **state)
{
	(void)state;
	for (int i = 0; i < 700; i++) {
		add_requests(KILTER_ROLE_SERVER, 200, 10, 2000000);
		ticks(1);
	}
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	for (int i = 0; i < 10; i++) {
		add_requests(KILTER_ROLE_SERVER, 200, 10, 20000000);
		ticks(1);
	}
	expect(WORKLOAD(), HEALTH_DEGRADED, "latency_baseline");
}

static void failed_connects_count_from_their_threshold_on(void **state)
{
	static const struct {
		uint64_t opened, refused, other;
		enum health_state want;
	} rows[] = {
	    {19, 1, 0, HEALTH_HEALTHY},	 {9, 1, 0, HEALTH_DEGRADED},  {6, 4, 0, HEALTH_DEGRADED},
	    {5, 5, 0, HEALTH_UNHEALTHY}, {0, 3, 0, HEALTH_UNHEALTHY}, {0, 2, 0, HEALTH_HEALTHY},
	    {10, 0, 90, HEALTH_HEALTHY}, /* the caller's own cancellations */
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kilter_conn d = {.created_ns = 1, .opened = rows[i].opened};

		teardown(state);
		assert_int_equal(setup(state), 0);
		d.failed[KILTER_CONNECT_REFUSED] = rows[i].refused;
		d.failed[KILTER_CONNECT_OTHER] = rows[i].other;
		add_conns(KILTER_ROLE_CLIENT, &d);
		ticks(3);
		expect(EDGE(), rows[i].want,
		       rows[i].want == HEALTH_HEALTHY ? NULL : "connect_failures");
	}
}

static void retransmits_count_per_connection(void **state)
{
	struct kilter_conn d = {.created_ns = 1, .opened = 20, .retransmits = 19};

	add_conns(KILTER_ROLE_CLIENT, &d);
	ticks(3);
	expect(EDGE(), HEALTH_HEALTHY, NULL);
	teardown(state);
	assert_int_equal(setup(state), 0);
	d.retransmits = 20;
	add_conns(KILTER_ROLE_CLIENT, &d);
	ticks(3);
	expect(EDGE(), HEALTH_DEGRADED, "retransmits");
}

static void a_filling_accept_queue_degrades_and_a_full_one_is_unhealthy(void **state)
{
	static const struct {
		uint32_t length;
		enum health_state want;
	} rows[] = {{0, HEALTH_HEALTHY},
		    {89, HEALTH_HEALTHY},
		    {90, HEALTH_DEGRADED},
		    {100, HEALTH_UNHEALTHY}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		teardown(state);
		assert_int_equal(setup(state), 0);
		listen_with(rows[i].length);
		ticks(3);
		expect(WORKLOAD(), rows[i].want,
		       rows[i].want == HEALTH_HEALTHY ? NULL : "accept_queue");
	}
}

static void a_quiet_service_keeps_its_state_for_an_hour(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	ticks(1);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	ticks(1800);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
}

static void connections_that_cannot_be_read_are_unknown_with_their_number(void **state)
{
	struct kilter_conn d = {.created_ns = 1, .opened = 7, .undecoded = 7};

	(void)state;
	add_conns(KILTER_ROLE_SERVER, &d);
	ticks(1);
	expect(WORKLOAD(), HEALTH_UNKNOWN, "undecoded");
	assert_int_equal(WORKLOAD().reasons[0].samples, 7);
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	ticks(1);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
}

static void incomplete_data_is_unknown_but_hides_no_fault(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	ticks(1);
	model_set_incomplete(model, true);
	ticks(1);
	expect(WORKLOAD(), HEALTH_UNKNOWN, "incomplete");
	expect(NODE(), HEALTH_UNKNOWN, "incomplete");
	add_requests(KILTER_ROLE_SERVER, 500, 100, 1000000);
	ticks(config.health.enter);
	expect(WORKLOAD(), HEALTH_UNHEALTHY, "error_ratio");
}

static void what_was_lost_is_told_for_as_long_as_figures_miss_it(void **state)
{
	struct health_drop d[] = {
	    {.where = "series", .reason = "full", .delta = 300, .loses = true},
	    {.where = "routes", .reason = "full", .delta = 9000},
	};

	(void)state;
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	model_set_incomplete(model, true);
	tick_with(NULL, 0, d, 2);
	d[0].delta = 36;
	tick_with(NULL, 0, d, 2);
	ticks(3);
	expect(NODE(), HEALTH_UNKNOWN, "incomplete");
	assert_string_equal(NODE().reasons[0].text,
			    "336 observations lost (series: full): figures are incomplete");
	assert_int_equal(NODE().reasons[0].samples, 336);
	expect(WORKLOAD(), HEALTH_UNKNOWN, "incomplete");
	assert_string_equal(WORKLOAD().reasons[0].text, NODE().reasons[0].text);
	model_set_incomplete(model, false);
	ticks(1);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	model_set_incomplete(model, true); /* of another cause: the old number is not told again */
	ticks(1);
	assert_null(strstr(WORKLOAD().reasons[0].text, "336"));
}

static void losses_make_the_node_unknown_and_lesser_drops_do_not(void **state)
{
	struct health_drop d = {.where = "series", .reason = "full", .delta = 3, .loses = false};

	(void)state;
	tick_with(NULL, 0, &d, 1);
	tick_with(NULL, 0, &d, 1);
	expect(NODE(), HEALTH_HEALTHY, NULL);
	d.loses = true;
	tick_with(NULL, 0, &d, 1);
	tick_with(NULL, 0, &d, 1);
	expect(NODE(), HEALTH_UNKNOWN, "drops");
	assert_non_null(strstr(NODE().reasons[0].text, "3"));
}

static void a_trail_with_gaps_degrades_the_node_alone(void **state)
{
	struct health_drop d = {.where = "events", .reason = "full", .delta = 9, .audit = true};

	(void)state;
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	for (int i = 0; i < 3; i++)
		tick_with(NULL, 0, &d, 1);
	expect(NODE(), HEALTH_DEGRADED, "records_lost");
	assert_non_null(strstr(NODE().reasons[0].text, "9 audit records lost"));
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	d.delta = 0;
	for (int i = 0; i < 15; i++)
		tick_with(NULL, 0, &d, 1);
	expect(NODE(), HEALTH_HEALTHY, NULL);
}

/* Everything goes wrong at once, so that every rule of a threshold has something to say. */
static void make_all_bad(void)
{
	struct kilter_conn d = {.created_ns = 1, .opened = 10, .retransmits = 1000};

	d.failed[KILTER_CONNECT_REFUSED] = 10;
	add_requests(KILTER_ROLE_SERVER, 500, 20, 2000000000);
	add_requests(KILTER_ROLE_CLIENT, 500, 20, 2000000000);
	add_conns(KILTER_ROLE_CLIENT, &d);
	listen_with(100);
}

static bool has_code(const struct health_subject *s, const char *code)
{
	for (unsigned int i = 0; i < s->reasons_count; i++)
		if (!strcmp(s->reasons[i].code, code))
			return true;
	return false;
}

static void every_threshold_is_a_key_and_zero_switches_its_rule_off(void **state)
{
	static const struct {
		const char *code, *key, *key2, *low;
		bool edge;
	} rows[] = {
	    {"error_ratio", "health.error_ratio_degraded", "health.error_ratio_unhealthy", "0.5",
	     false},
	    {"error_ratio", "health.error_ratio_degraded", "health.error_ratio_unhealthy", "0.5",
	     true},
	    {"connect_failures", "health.connect_failure_ratio", "health.connect_failure_unhealthy",
	     "0.5", true},
	    {"latency_threshold", "health.latency_p95", NULL, "1s", false},
	    {"latency_threshold", "health.latency_p95", NULL, "1s", true},
	    {"retransmits", "health.retransmit_rate", NULL, "90", true},
	    {"accept_queue", "health.accept_queue_ratio", NULL, "1", false},
	};
	static const char *const keys[] = {
	    "health.error_ratio_degraded",  "health.error_ratio_unhealthy",
	    "health.connect_failure_ratio", "health.connect_failure_unhealthy",
	    "health.retransmit_rate",	    "health.accept_queue_ratio",
	    "health.latency_factor"};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int on = 0; on < 2; on++) {
			struct health_subject s;

			teardown(state);
			assert_int_equal(setup(state), 0);
			/* This rule alone, so that it is among the three reasons. */
			for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
				assert_int_equal(
				    config_set(&config, keys[k], "0", 0, "", NULL, NULL), 0);
			if (on)
				assert_int_equal(config_set(&config, rows[i].key, rows[i].low, 0,
							    "", NULL, NULL),
						 0);
			health_reconfigure(health, &config);
			make_all_bad();
			ticks(3);
			s = rows[i].edge ? EDGE() : WORKLOAD();
			if (has_code(&s, rows[i].code) != on)
				fail_msg("%s is %s with %s %s", rows[i].code,
					 on ? "silent" : "not silent", rows[i].key,
					 on ? rows[i].low : "0");
			if (on && rows[i].key2) {
				assert_int_equal(s.state, HEALTH_DEGRADED);
				assert_int_equal(config_set(&config, rows[i].key2, rows[i].low, 0,
							    "", NULL, NULL),
						 0);
				health_reconfigure(health, &config);
				ticks(2);
				assert_int_equal((rows[i].edge ? EDGE() : WORKLOAD()).state,
						 HEALTH_UNHEALTHY);
			}
		}
	}
}

static void a_least_number_of_requests_is_asked_for(void **state)
{
	(void)state;
	assert_int_equal(config_set(&config, "health.minimum_requests", "21", 0, "", NULL, NULL),
			 0);
	health_reconfigure(health, &config);
	add_requests(KILTER_ROLE_SERVER, 500, 20, 1000000);
	ticks(3);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	add_requests(KILTER_ROLE_SERVER, 500, 1, 1000000);
	ticks(3);
	expect(WORKLOAD(), HEALTH_UNHEALTHY, "error_ratio");
}

static void probes_that_do_not_run_are_judged_by_what_they_are_for(void **state)
{
	static const struct health_probe rows[] = {
	    {.name = "a", .tier = "tcp", .essential = true},
	    {.name = "b", .tier = NULL, .reason = "kernel too old", .essential = true},
	    {.name = "c", .tier = NULL, .reason = "no fentry"},
	    {.name = "d", .tier = NULL, .off = true},
	};

	(void)state;
	for (int i = 0; i < 3; i++)
		tick_with(rows, 4, NULL, 0);
	expect(get(HEALTH_PROBE, "a"), HEALTH_HEALTHY, NULL);
	expect(get(HEALTH_PROBE, "b"), HEALTH_UNHEALTHY, "probe");
	expect(get(HEALTH_PROBE, "c"), HEALTH_DEGRADED, "probe");
	assert_non_null(strstr(get(HEALTH_PROBE, "c").reasons[0].text, "no fentry"));
	expect(get(HEALTH_PROBE, "d"), HEALTH_HEALTHY, NULL);
	expect(NODE(), HEALTH_UNHEALTHY, "probe");
}

static void services_are_summed_up_and_only_degrade_the_node(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 500, 100, 1000000);
	add_requests(KILTER_ROLE_CLIENT, 200, 100, 1000000);
	ticks(6);
	expect(WORKLOAD(), HEALTH_UNHEALTHY, "error_ratio");
	expect(NODE(), HEALTH_DEGRADED, "workloads");
	assert_non_null(strstr(NODE().reasons[0].text, "1 of 2 services"));
	assert_non_null(strstr(NODE().reasons[0].text, "srv"));
}

static void a_transition_is_published_once_with_its_numbers(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
	ticks(1);
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	assert_int_equal(published, 0);
	add_requests(KILTER_ROLE_SERVER, 500, 100, 1000000);
	ticks(1);
	assert_int_equal(published, 0); /* once is not yet a state */
	ticks(5);
	assert_int_equal(published, 1);
	assert_string_equal(last_from, "healthy");
	assert_string_equal(last_to, "unhealthy");
	assert_non_null(strstr(last_reason, "120 requests"));
	assert_int_equal(WORKLOAD().transitions, 1);
	assert_true(WORKLOAD().since_real_ns > 10000 * NS_PER_SEC);
}

static void an_unhealthy_service_recovers_when_requests_succeed(void **state)
{
	(void)state;
	add_requests(KILTER_ROLE_SERVER, 500, 20, 1000000);
	ticks(3);
	expect(WORKLOAD(), HEALTH_UNHEALTHY, "error_ratio");
	for (int i = 0; i < 80; i++) {
		add_requests(KILTER_ROLE_SERVER, 200, 20, 1000000);
		ticks(1);
	}
	expect(WORKLOAD(), HEALTH_HEALTHY, NULL);
	assert_string_equal(last_to, "healthy");
}

static void count(void *ctx, const struct health_subject *s)
{
	*(unsigned int *)ctx += s->kind == HEALTH_PROBE;
}

static void a_subject_that_is_gone_is_forgotten(void **state)
{
	struct health_probe p = {.name = "a", .tier = "x"};
	unsigned int n = 0;

	(void)state;
	tick_with(&p, 1, NULL, 0);
	health_each(health, count, &n);
	assert_int_equal(n, 1);
	ticks(1);
	n = 0;
	health_each(health, count, &n);
	assert_int_equal(n, 0);
	assert_null(health_find(health, HEALTH_PROBE, 0));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(errors_count_from_their_threshold_on),
	    T(a_client_error_is_no_failure_of_the_service),
	    T(a_slow_service_is_degraded_by_the_bound_that_was_set),
	    T(slow_against_the_own_past_is_degraded),
	    T(failed_connects_count_from_their_threshold_on),
	    T(retransmits_count_per_connection),
	    T(a_filling_accept_queue_degrades_and_a_full_one_is_unhealthy),
	    T(a_quiet_service_keeps_its_state_for_an_hour),
	    T(connections_that_cannot_be_read_are_unknown_with_their_number),
	    T(incomplete_data_is_unknown_but_hides_no_fault),
	    T(what_was_lost_is_told_for_as_long_as_figures_miss_it),
	    T(losses_make_the_node_unknown_and_lesser_drops_do_not),
	    T(a_trail_with_gaps_degrades_the_node_alone),
	    T(every_threshold_is_a_key_and_zero_switches_its_rule_off),
	    T(a_least_number_of_requests_is_asked_for),
	    T(probes_that_do_not_run_are_judged_by_what_they_are_for),
	    T(services_are_summed_up_and_only_degrade_the_node),
	    T(a_transition_is_published_once_with_its_numbers),
	    T(an_unhealthy_service_recovers_when_requests_succeed),
	    T(a_subject_that_is_gone_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
