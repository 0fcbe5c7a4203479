// SPDX-License-Identifier: Apache-2.0
/*
 * The guard and its two maps: what it tells the kernel, what it takes over after a restart. The
 * maps are real, what the kernel side would write into them is written here. Needs root.
 */
#include <arpa/inet.h>

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

#include "core/bus.h"
#include "core/clock.h"
#include "core/selfstat.h"
#include "guard/guard.h"
#include "guard/sync.h"
#include "model/model.h"
#include "programs.h"

#include <cmocka.h>

#define SEC    NS_PER_SEC
#define CALLER 77
#define OTHER  78

/* Who does something by hand. */
static const struct guard_hand hand = {.uid = 1000}, root = {.uid = 0},
			       bearer = {UINT32_MAX, "deploy", "operator"};

/* A destination that a policy names, and one of a caller that none does. */
#define UPSTREAM "*->10.0.0.1:80"
#define EDGE	 "curl->10.0.0.9:80"

static struct {
	struct config config;
	struct guard_maps maps;
	struct guard *guard;
	struct model *model;
	char state[64];
	uint64_t now;
	uint32_t upstream, edge; /* peer ids */
	struct bus_event last;
	char reason[256], subject[256], action[64];
	unsigned int transitions, manual;
} t;

union peer {
	struct kilter_peer p;
	__u32 words[sizeof(struct kilter_peer) / 4];
};

static union peer peer(const char *addr, uint16_t port)
{
	union peer u = {.p = {.port_be = htons(port), .family = KILTER_FAMILY_V4}};

	assert_int_equal(inet_pton(AF_INET, addr, u.p.addr), 1);
	return u;
}

static uint32_t peer_id(const char *addr, uint16_t port)
{
	union peer u = peer(addr, port);

	return kilter_hash_words(u.words, sizeof(u.words) / 4);
}

static void on_bus(void *ctx, const struct bus_event *ev)
{
	(void)ctx;
	if (ev->kind == BUS_MANUAL_ACTION) {
		t.manual++;
		snprintf(t.action, sizeof(t.action), "%s", ev->action);
	}
	if (ev->kind != BUS_CIRCUIT_TRANSITION)
		return;
	t.transitions++;
	t.last = *ev;
	snprintf(t.reason, sizeof(t.reason), "%s", ev->reason ? ev->reason : "");
	snprintf(t.subject, sizeof(t.subject), "%s", ev->subject);
}

static void make_maps(uint32_t max)
{
	t.maps.policy_fd =
	    bpf_map_create(BPF_MAP_TYPE_HASH, "policy", sizeof(struct kilter_circuit_key),
			   sizeof(struct kilter_guard_policy), max, NULL);
	t.maps.runtime_fd =
	    bpf_map_create(BPF_MAP_TYPE_HASH, "runtime", sizeof(struct kilter_circuit_key),
			   sizeof(struct kilter_guard_runtime), max, NULL);
	t.maps.switch_fd =
	    bpf_map_create(BPF_MAP_TYPE_ARRAY, "switch", 4, 4, KILTER_SWITCHES, NULL);
	assert_true(t.maps.policy_fd >= 0);
	assert_true(t.maps.runtime_fd >= 0);
	assert_true(t.maps.switch_fd >= 0);
}

static void close_maps(void)
{
	close(t.maps.policy_fd);
	close(t.maps.runtime_fd);
	close(t.maps.switch_fd);
}

static void add_policy(const char *workload, const char *destination, enum kilter_guard_mode mode)
{
	struct config_policy *p = &t.config.guard.policies[t.config.guard.policies_count++];

	*p = t.config.guard.defaults;
	snprintf(p->workload, sizeof(p->workload), "%s", workload);
	snprintf(p->destination, sizeof(p->destination), "%s", destination);
	snprintf(p->name, sizeof(p->name), "policy-%s", workload[0] == '*' ? "any" : workload);
	p->mode = mode;
	p->jitter = 0;
}

static void add_upstream(void)
{
	add_policy("*", "10.0.0.1:80", KILTER_GUARD_ENFORCE);
}

static void start_guard(void)
{
	assert_int_equal(guard_new(&t.guard, &t.config, &t.maps, t.state, NULL), 0);
}

static void restart_guard(void)
{
	guard_free(&t.guard);
	start_guard();
}

static void guard_upstream(void)
{
	add_upstream();
	start_guard();
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	config_defaults(&t.config);
	t.config.guard.max_open_ratio = 1;
	snprintf(t.state, sizeof(t.state), "/tmp/kilter-guard-sync-test-%d", getpid());
	unlink(t.state);
	make_maps(64);
	assert_int_equal(model_new(&t.model, &t.config), 0);
	assert_int_equal(bus_subscribe(on_bus, NULL), 0);
	t.now = clock_boot_ns();
	t.upstream = peer_id("10.0.0.1", 80);
	t.edge = peer_id("10.0.0.9", 80);
	return 0;
}

static int setup_guarded(void **state)
{
	int err = setup(state);

	guard_upstream();
	return err;
}

static int teardown(void **state)
{
	(void)state;
	guard_free(&t.guard);
	model_free(&t.model);
	bus_reset();
	close_maps();
	unlink(t.state);
	return 0;
}

static void tick(uint64_t seconds)
{
	t.now += seconds * SEC;
	model_tick(t.model, t.now);
	guard_tick(t.guard, t.model, t.now, t.now);
}

static void add_edge(uint32_t workload, const char *exe, const char *addr, uint16_t port)
{
	struct kilter_workload w = {.key.cgroup_id = 1, .pid = 1};
	struct kilter_conn_key k = {
	    .workload = workload, .peer = peer_id(addr, port), .role = KILTER_ROLE_CLIENT};
	struct kilter_conn c = {.opened = 1};
	union peer u = peer(addr, port);

	snprintf(w.key.exe, sizeof(w.key.exe), "%s", exe);
	snprintf(w.comm, sizeof(w.comm), "%.15s", exe);
	model_add_workload_id(t.model, workload, &w);
	model_add_peer_id(t.model, k.peer, &u.p);
	model_add_conns(t.model, &k, &c, false);
}

static void call_edge(uint32_t workload)
{
	add_edge(workload, "curl", "10.0.0.9", 80);
}

static int manual(const char *name, enum guard_action action)
{
	return guard_manual(t.guard, name, action, NULL, &hand, t.now, t.now);
}

static int limit(const char *name, const struct guard_limits *limits)
{
	return guard_manual(t.guard, name, GUARD_LIMIT_SET, limits, &hand, t.now, t.now);
}

static bool find_policy(uint32_t workload, uint32_t id, struct kilter_guard_policy *ret)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = id};

	return !bpf_map_lookup_elem(t.maps.policy_fd, &key, ret);
}

static bool in_kernel(uint32_t workload, uint32_t id)
{
	struct kilter_guard_policy p;

	return find_policy(workload, id, &p);
}

/* What the kernel is told of {workload, id}: it must be told something. */
static struct kilter_guard_policy told(uint32_t workload, uint32_t id)
{
	struct kilter_guard_policy p;

	assert_true(find_policy(workload, id, &p));
	return p;
}

static struct kilter_guard_policy upstream(void)
{
	return told(0, t.upstream);
}

static void runtime(uint32_t workload, uint32_t id, const struct kilter_guard_runtime *rt)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = id};

	assert_int_equal(bpf_map_update_elem(t.maps.runtime_fd, &key, rt, BPF_ANY), 0);
}

/* The kernel has counted this in a generation of UPSTREAM. */
#define upstream_counts(in, ...) \
	runtime(0, t.upstream, &(struct kilter_guard_runtime){.generation = (in), __VA_ARGS__})

/* The kernel has tripped {workload, id} by itself, and says so. */
static void trip(uint32_t workload, uint32_t id)
{
	struct kilter_event_trip ev = {.key = {.workload = workload, .peer = id}, .consecutive = 5};
	struct kilter_guard_runtime rt = {
	    .consecutive = 5, .tripped_ns = t.now, .failures = 5, .total_failures = 5, .trips = 1};

	rt.generation = told(workload, id).rules.generation;
	ev.generation = rt.generation;
	runtime(workload, id, &rt);
	guard_kernel_trip(t.guard, &ev, t.now, t.now);
}

/* What the kernel has counted; false: there is no place for it. */
static bool counted(uint32_t workload, uint32_t id, struct kilter_guard_runtime *ret)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = id};

	return !bpf_map_lookup_elem(t.maps.runtime_fd, &key, ret);
}

static void copy_circuit(void *ctx, const struct guard_circuit *c)
{
	struct guard_circuit *to = ctx;

	if (!strcmp(to->name, c->name))
		*to = *c;
}

static struct guard_circuit circuit(const char *name)
{
	struct guard_circuit c = {.generation = 0};

	snprintf(c.name, sizeof(c.name), "%s", name);
	guard_each(t.guard, copy_circuit, &c);
	return c;
}

static void count_circuit(void *ctx, const struct guard_circuit *c)
{
	(void)c;
	++*(unsigned int *)ctx;
}

static unsigned int circuits(void)
{
	unsigned int n = 0;

	guard_each(t.guard, count_circuit, &n);
	return n;
}

static double stat_value;
static const char *stat_name, *stat_labels;

static void on_sample(void *ctx, const char *labels, double value)
{
	(void)ctx;
	if (!strcmp(labels, stat_labels))
		stat_value = value;
}

static void on_stat(void *ctx, const struct selfstat *s)
{
	(void)ctx;
	if (!strcmp(s->name, stat_name))
		s->collect(s->ctx, on_sample, NULL);
}

static double stat_of(const char *name, const char *labels)
{
	stat_value = -1;
	stat_name = name;
	stat_labels = labels;
	selfstat_walk(on_stat, NULL);
	return stat_value;
}

static void an_exact_policy_is_in_the_kernel_before_the_first_connect(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(p.rules.mode, KILTER_GUARD_ENFORCE);
	assert_int_equal(p.rules.consecutive_failures, 5);
	assert_int_not_equal(p.rules.generation, 0);
	assert_int_equal(circuits(), 1);
	/* An edge to it needs no circuit of its own. */
	add_edge(CALLER, "curl", "10.0.0.1", 80);
	tick(1);
	assert_int_equal(circuits(), 1);
	assert_string_equal(circuit(UPSTREAM).policy, "policy-any");
}

static void its_counters_are_there_before_the_first_connect_and_stay(void **state)
{
	struct kilter_circuit_key key = {.peer = t.upstream};
	struct kilter_guard_runtime rt, zero = {.lock = 0};

	(void)state;
	assert_true(counted(0, t.upstream, &rt));
	assert_memory_equal(&rt, &zero, sizeof(rt));
	upstream_counts(1, .made_ns = 7, .total_successes = 9);
	tick(1);
	restart_guard(); /* neither a tick nor another daemon begins them anew */
	tick(1);
	assert_true(counted(0, t.upstream, &rt));
	assert_int_equal(rt.made_ns, 7);
	assert_int_equal(rt.total_successes, 9);
	assert_int_equal(bpf_map_delete_elem(t.maps.runtime_fd, &key), 0);
	tick(1);
	assert_true(counted(0, t.upstream, &rt));
	assert_memory_equal(&rt, &zero, sizeof(rt));
	/* All ids of a caller count in one place: where it began. */
	call_edge(1000);
	tick(1);
	call_edge(1001);
	tick(1);
	assert_true(in_kernel(1001, t.edge));
	assert_true(counted(1000, t.edge, &rt));
	assert_false(counted(1001, t.edge, &rt));
	guard_release_all(t.guard);
	assert_false(counted(0, t.upstream, &rt));
}

static void a_trip_of_the_kernel_is_confirmed_with_a_lease_and_told(void **state)
{
	struct kilter_guard_policy before, p;

	(void)state;
	before = upstream();
	trip(0, t.upstream);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_true(p.rules.generation > before.rules.generation);
	assert_int_equal(p.lease_until_ns, t.now + t.config.guard.lease_ns);
	assert_int_equal(t.transitions, 1);
	assert_string_equal(t.subject, UPSTREAM);
	assert_string_equal(t.last.to, "open");
	assert_string_equal(t.reason, "5 failures in a row reached the threshold of 5");
	tick(1);
	p = upstream();
	assert_int_equal(p.lease_until_ns, t.now + t.config.guard.lease_ns); /* renewed */
	assert_int_equal(t.transitions, 1);
	tick(5);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_HALF_OPEN);
	assert_int_equal(p.permits, 3);
	upstream_counts(p.rules.generation, .trials = 3, .successes = 3, .total_failures = 5,
			.total_successes = 3, .trips = 1);
	tick(1);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(p.lease_until_ns, 0);
	assert_int_equal(t.transitions, 3);
	assert_int_equal(circuit(UPSTREAM).transitions[KILTER_CIRCUIT_OPEN], 1);
}

static void a_trip_whose_record_was_lost_is_found_by_the_tick(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	tick(1);
	p = upstream();
	/* One that is over already, cleared by the kernel or not: traffic has gone on since. */
	upstream_counts(p.rules.generation, .total_failures = 5, .trips = 1);
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_CLOSED);
	upstream_counts(p.rules.generation, .tripped_ns = t.now - 10 * SEC, .total_failures = 10,
			.trips = 2);
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_CLOSED);
	upstream_counts(p.rules.generation, .tripped_ns = t.now, .total_failures = 15, .trips = 3);
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_OPEN);
}

/* A policy that went while the daemon was down, and a state file that fell behind. */
static void nobody_is_refused_for_a_policy_that_is_gone(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	tick(1);
	p = upstream();
	assert_int_equal(p.rules.mode, KILTER_GUARD_ENFORCE);
	guard_free(&t.guard);
	t.config.guard.policies_count = 0;
	start_guard();
	p = upstream();
	assert_int_equal(p.rules.mode, KILTER_GUARD_OBSERVE);
}

static void the_kernel_is_believed_when_the_state_file_fell_behind(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	tick(1);
	trip(0, t.upstream);
	guard_free(&t.guard); /* the file says open */
	p = upstream();
	p.rules.generation += 5;
	p.rules.state = KILTER_CIRCUIT_CLOSED;
	assert_int_equal(bpf_map_update_elem(t.maps.policy_fd,
					     &(struct kilter_circuit_key){.peer = t.upstream}, &p,
					     BPF_ANY),
			 0);
	start_guard();
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(circuit(UPSTREAM).generation, p.rules.generation);
}

static uint32_t kernel_switch(void)
{
	uint32_t which = KILTER_SWITCH_OFF, value = 99;

	assert_int_equal(bpf_map_lookup_elem(t.maps.switch_fd, &which, &value), 0);
	return value;
}

static void the_release_file_releases_while_it_is_there_and_no_longer(void **state)
{
	FILE *f;

	(void)state;
	snprintf(t.config.guard.release_file, sizeof(t.config.guard.release_file),
		 "/tmp/kilter-guard-release-%d", getpid());
	guard_upstream();
	tick(1);
	assert_null(guard_released(t.guard));
	f = fopen(t.config.guard.release_file, "we");
	assert_non_null(f);
	fclose(f);
	tick(1);
	assert_non_null(guard_released(t.guard));
	assert_string_equal(t.action, "guard-release");
	assert_int_not_equal(kernel_switch(), 0);
	assert_int_equal(circuit(UPSTREAM).mode, KILTER_GUARD_OBSERVE);
	restart_guard(); /* a restart does not make it somebody's wish */
	assert_non_null(guard_released(t.guard));
	unlink(t.config.guard.release_file);
	tick(1);
	assert_null(guard_released(t.guard));
	assert_string_equal(t.action, "guard-arm");
	assert_int_equal(kernel_switch(), 0);
	assert_int_equal(circuit(UPSTREAM).mode, KILTER_GUARD_ENFORCE);

	/* By hand it stays, and so does what others wrote into the kernel. */
	assert_int_equal(guard_release(t.guard, true, &root), 0);
	assert_int_equal(guard_release(t.guard, true, &root), -EALREADY);
	restart_guard();
	assert_non_null(guard_released(t.guard));
	assert_int_equal(guard_release(t.guard, false, &root), 0);
	assert_int_equal(kernel_switch(), 0);
	assert_int_equal(bpf_map_update_elem(t.maps.switch_fd, &(uint32_t){KILTER_SWITCH_OFF},
					     &(uint32_t){1}, BPF_ANY),
			 0);
	tick(1);
	assert_non_null(guard_released(t.guard));
}

static void what_was_set_by_hand_is_not_forgotten_when_nobody_calls(void **state)
{
	const struct guard_limits limits = {.rate_limit = 5, .burst = 2, .max_connections = 7};
	const struct guard_limits less = {.rate_limit = -1, .max_connections = 3};

	(void)state;
	start_guard();
	call_edge(CALLER);
	add_edge(CALLER, "curl", "10.0.0.8", 80);
	tick(1);
	assert_int_equal(limit(EDGE, &limits), 0);
	assert_int_equal(manual("curl->10.0.0.8:80", GUARD_DISABLE), 0);
	guard_free(&t.guard);
	model_free(&t.model);
	assert_int_equal(model_new(&t.model, &t.config), 0);
	start_guard();
	for (int i = 0; i < 20; i++)
		tick(10);
	assert_int_equal(circuits(), 2);
	assert_int_equal(circuit(EDGE).limits.max_connections, 7);
	assert_int_equal(circuit("curl->10.0.0.8:80").mode, KILTER_GUARD_OFF);
	/* What is not given stays as it is. */
	assert_int_equal(limit(EDGE, &less), 0);
	assert_int_equal(circuit(EDGE).limits.max_connections, 3);
	assert_int_equal(circuit(EDGE).limits.burst, 2);
	assert_true(circuit(EDGE).limits.rate_limit == 5);
}

static void forced_closed_takes_back_what_the_kernel_did(void **state)
{
	struct kilter_guard_policy before, p;

	(void)state;
	tick(1);
	before = upstream();
	upstream_counts(before.rules.generation, .tripped_ns = t.now, .total_failures = 5,
			.trips = 1);
	assert_int_equal(manual(UPSTREAM, GUARD_FORCE_CLOSED), 0);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED);
	assert_true(p.rules.generation > before.rules.generation);
	assert_int_equal(p.rules.consecutive_failures, 0);
	assert_int_equal(manual(UPSTREAM, GUARD_TRIP), -EBUSY);
}

/* A unit that is restarted has another id each time; a caller must not run out of them. */
static void the_latest_ids_of_a_caller_are_guarded(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	start_guard();
	for (uint32_t i = 0; i < 30; i++) {
		call_edge(1000 + i);
		tick(1);
		p = told(1000 + i, t.edge);
		assert_int_equal(p.rules.counters.workload, 1000); /* where it began */
	}
	assert_int_equal(circuits(), 1);
	assert_true(in_kernel(1000, t.edge));
	assert_true(in_kernel(1000 + 22, t.edge));
	assert_false(in_kernel(1000 + 21, t.edge));
}

static void the_record_of_an_older_generation_moves_nothing(void **state)
{
	struct kilter_event_trip ev = {.key.peer = t.upstream};

	(void)state;
	guard_kernel_trip(t.guard, &ev, t.now, t.now);
	assert_int_equal(t.transitions, 0);
	ev.key.peer++;
	guard_kernel_trip(t.guard, &ev, t.now, t.now);
	assert_int_equal(t.transitions, 0);
}

static void an_open_circuit_is_open_after_a_restart_until_its_time(void **state)
{
	struct kilter_guard_policy before, p;
	uint64_t retry;

	(void)state;
	trip(0, t.upstream);
	retry = circuit(UPSTREAM).retry_boot_ns;
	before = upstream();
	guard_free(&t.guard);
	assert_true(in_kernel(0, t.upstream)); /* the lease runs */
	start_guard();
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(p.rules.generation,
			 before.rules.generation); /* the same stay in the same state */
	assert_int_equal(circuit(UPSTREAM).retry_boot_ns, retry);
	assert_int_equal(circuit(UPSTREAM).opens, 1);
	assert_string_equal(circuit(UPSTREAM).reason,
			    "5 failures in a row reached the threshold of 5");
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_OPEN);
	tick(5);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_HALF_OPEN);
}

static void a_killed_daemon_leaves_the_same(void **state)
{
	char copy[80];

	(void)state;
	trip(0, t.upstream);
	/* What the file says now is what a killed daemon leaves. */
	snprintf(copy, sizeof(copy), "%s.copy", t.state);
	assert_int_equal(link(t.state, copy), 0);
	guard_free(&t.guard);
	assert_int_equal(rename(copy, t.state), 0);
	start_guard();
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(circuit(UPSTREAM).opens, 1);
}

static void what_the_kernel_holds_is_taken_over_without_a_state_file(void **state)
{
	struct kilter_guard_policy before, p;

	(void)state;
	trip(0, t.upstream);
	before = upstream();
	guard_free(&t.guard);
	unlink(t.state);
	start_guard();
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(p.rules.generation, before.rules.generation);
	tick(5);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_HALF_OPEN);
	assert_true(p.rules.generation > before.rules.generation);
}

static void generations_go_on_where_the_kernel_has_forgotten_them(void **state)
{
	struct kilter_guard_policy before, p;

	(void)state;
	trip(0, t.upstream);
	tick(1);
	before = upstream();
	guard_free(&t.guard);
	close_maps();
	make_maps(64);
	start_guard();
	p = upstream();
	assert_true(p.rules.generation > before.rules.generation);
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
}

static void a_state_file_that_is_none_costs_the_state_and_not_the_start(void **state)
{
	static const char *const texts[] = {
	    "",
	    "{",
	    "[]",
	    "{\"version\":99}",
	    "{\"version\":1,\"circuits\":7}",
	    "{\"version\":1,\"circuits\":[1,{},{\"name\":\"*->10.0.0.1:80\",\"state\":9}]}",
	};

	(void)state;
	add_upstream();
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		FILE *f = fopen(t.state, "we");

		assert_non_null(f);
		fputs(texts[i], f);
		fclose(f);
		start_guard();
		assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_CLOSED);
		guard_free(&t.guard);
	}
	start_guard();
}

static void an_edge_gets_a_circuit_with_a_key_for_each_id_of_its_caller(void **state)
{
	struct kilter_guard_policy p, q;

	(void)state;
	start_guard();
	call_edge(CALLER);
	tick(1);
	assert_int_equal(circuits(), 1);
	p = told(CALLER, t.edge);
	assert_int_equal(p.rules.mode, KILTER_GUARD_OBSERVE); /* guard.defaults */
	assert_false(in_kernel(0, t.edge));
	call_edge(OTHER); /* the same service under another id */
	tick(1);
	assert_int_equal(circuits(), 1);
	p = told(CALLER, t.edge);
	q = told(OTHER, t.edge);
	assert_int_equal(p.rules.generation, q.rules.generation);
	/* Both are counted in one place. */
	assert_int_equal(p.rules.counters.workload, CALLER);
	assert_int_equal(q.rules.counters.workload, CALLER);
	assert_int_equal(q.rules.counters.peer, t.edge);
	trip(CALLER, t.edge);
	p = told(CALLER, t.edge);
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN); /* one circuit, both keys */
}

static void a_ratio_in_the_window_trips(void **state)
{
	struct kilter_guard_policy p;
	struct kilter_guard_runtime rt = {.total_failures = 0};

	(void)state;
	start_guard();
	call_edge(CALLER);
	tick(1);
	p = told(CALLER, t.edge);
	rt.generation = p.rules.generation;
	rt.total_failures = 6;
	rt.total_successes = 6;
	runtime(CALLER, t.edge, &rt);
	tick(1);
	p = told(CALLER, t.edge);
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED); /* 12 of the 20 it takes */
	rt.total_failures = 11;
	rt.total_successes = 9;
	runtime(CALLER, t.edge, &rt);
	tick(1);
	p = told(CALLER, t.edge);
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_string_equal(t.reason, "failure ratio 0.55 reached 0.50 in 10s (11 of 20 failed)");
}

static void totals_of_before_we_looked_are_in_no_window(void **state)
{
	(void)state;
	add_upstream();
	upstream_counts(4, .total_failures = 1000);
	start_guard();
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(circuit(UPSTREAM).failures, 1000); /* and yet they are shown */
	assert_true(circuit(UPSTREAM).generation > 4);
}

static void the_panic_guard_takes_back_what_the_kernel_did(void **state)
{
	uint32_t second = peer_id("10.0.0.2", 80);
	struct kilter_guard_policy before, p;

	(void)state;
	t.config.guard.max_open_ratio = 0.5;
	add_upstream();
	add_policy("*", "10.0.0.2:80", KILTER_GUARD_ENFORCE);
	start_guard();
	trip(0, t.upstream);
	before = told(0, second);
	trip(0, second);
	p = told(0, second);
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED);
	assert_true(p.rules.generation > before.rules.generation); /* its trip is of the past */
	assert_int_equal(p.rules.consecutive_failures, 0); /* and it does not trip again at once */
	assert_non_null(strstr(t.reason, "suppressed"));
	assert_string_equal(t.last.outcome, "failure");
	assert_int_equal(stat_of("kilter_circuit_suppressed_total", "circuit=\"*->10.0.0.2:80\""),
			 1);
	tick(6);
	p = told(0, second);
	assert_int_equal(p.rules.consecutive_failures, 5);
}

static void a_change_of_configuration_keeps_an_open_circuit_open(void **state)
{
	struct kilter_guard_policy before, p;

	(void)state;
	trip(0, t.upstream);
	before = upstream();
	t.config.guard.policies[0].consecutive_failures = 9;
	guard_reconfigure(t.guard, &t.config);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(p.rules.generation, before.rules.generation);
	assert_int_equal(p.rules.consecutive_failures, 9);
	t.config.guard.mode = KILTER_GUARD_OBSERVE;
	guard_reconfigure(t.guard, &t.config);
	p = upstream();
	assert_int_equal(p.rules.mode, KILTER_GUARD_OBSERVE);
	assert_string_equal(circuit(UPSTREAM).mode_reason, "guard.mode is observe");
	t.config.guard.policies_count = 0;
	guard_reconfigure(t.guard, &t.config);
	assert_false(in_kernel(0, t.upstream));
	assert_int_equal(circuits(), 0);
	assert_string_equal(t.last.to, "closed");
}

static void by_hand(void **state)
{
	struct kilter_guard_policy p;

	(void)state;
	assert_int_equal(manual("nobody", GUARD_TRIP), -ENOENT);
	assert_int_equal(manual(UPSTREAM, GUARD_RESET), -EALREADY);
	assert_int_equal(manual(UPSTREAM, GUARD_RELEASE), -EALREADY);
	assert_int_equal(manual(UPSTREAM, GUARD_TRIP), 0);
	assert_string_equal(t.action, "circuit-trip");
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_string_equal(circuit(UPSTREAM).reason, "tripped by hand, uid 1000");
	assert_int_equal(guard_manual(t.guard, UPSTREAM, GUARD_RESET, NULL, &bearer, t.now, t.now),
			 0);
	assert_string_equal(circuit(UPSTREAM).reason, "reset by hand, operator deploy");
	assert_int_equal(manual(UPSTREAM, GUARD_TRIP), 0);
	assert_int_equal(manual(UPSTREAM, GUARD_TRIP), -EALREADY);
	assert_int_equal(manual(UPSTREAM, GUARD_HOLD), 0);
	assert_int_equal(manual(UPSTREAM, GUARD_HOLD), -EALREADY);
	tick(3600);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(p.lease_until_ns, t.now + t.config.guard.lease_ns);
	restart_guard(); /* held is held, over a restart too */
	assert_true(circuit(UPSTREAM).held);
	assert_int_equal(manual(UPSTREAM, GUARD_RELEASE), 0);
	tick(1);
	assert_int_equal(circuit(UPSTREAM).state, KILTER_CIRCUIT_HALF_OPEN);
	assert_int_equal(manual(UPSTREAM, GUARD_RESET), 0);
	p = upstream();
	assert_int_equal(p.rules.state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(manual(UPSTREAM, GUARD_HOLD), 0);
	p = upstream();
	assert_int_equal(p.rules.consecutive_failures,
			 0); /* nor does the kernel trip what is held */
	assert_int_equal(t.manual, 11);
}

static void a_protected_destination_is_not_tripped_by_hand(void **state)
{
	(void)state;
	add_policy("*", "*", KILTER_GUARD_ENFORCE);
	start_guard();
	add_edge(CALLER, "curl", "127.0.0.1", 8080);
	tick(1);
	assert_int_equal(circuit("curl->127.0.0.1:8080").mode, KILTER_GUARD_OBSERVE);
	assert_non_null(circuit("curl->127.0.0.1:8080").mode_reason);
	assert_int_equal(manual("curl->127.0.0.1:8080", GUARD_TRIP), -EPERM);
}

static void a_full_map_is_counted_and_tried_again(void **state)
{
	uint32_t second = peer_id("10.0.0.2", 80);

	(void)state;
	close_maps();
	make_maps(1);
	add_upstream();
	add_policy("*", "10.0.0.2:80", KILTER_GUARD_ENFORCE);
	start_guard();
	assert_true(in_kernel(0, t.upstream));
	assert_false(in_kernel(0, second));
	assert_int_equal(stat_of("kilter_guard_sync_errors_total", "reason=\"full\""), 1);
	tick(1);
	assert_int_equal(stat_of("kilter_guard_sync_errors_total", "reason=\"full\""), 2);
	t.config.guard.policies[0] = t.config.guard.policies[1];
	t.config.guard.policies_count = 1;
	guard_reconfigure(t.guard, &t.config);
	usleep(SYNC_GRACE_NS / 1000); /* until then an outcome may be at work in its counters */
	tick(1);
	assert_true(in_kernel(0, second));
}

static void a_destination_whose_id_was_taken_is_guarded_under_the_next(void **state)
{
	union peer stranger = peer("10.9.9.9", 9), own = peer("10.0.0.1", 80);

	(void)state;
	model_add_peer_id(t.model, t.upstream, &stranger.p);
	tick(1);
	assert_false(in_kernel(0, t.upstream)); /* that would be the stranger's */
	assert_true(in_kernel(0, t.upstream + 1));
	model_add_peer_id(t.model, t.upstream + 1, &own.p);
	tick(1);
	assert_true(in_kernel(0, t.upstream + 1));
}

static void entries_that_nobody_owns_are_swept(void **state)
{
	struct kilter_circuit_key stale = {.workload = 5, .peer = 6};
	struct kilter_guard_policy p = {.rules.generation = 3};

	(void)state;
	assert_int_equal(bpf_map_update_elem(t.maps.policy_fd, &stale, &p, BPF_ANY), 0);
	runtime(5, 6, &(struct kilter_guard_runtime){.generation = 3});
	guard_upstream();
	tick(60);
	assert_true(in_kernel(5, 6)); /* its owner may still be found */
	tick(61);
	assert_false(in_kernel(5, 6));
	assert_true(in_kernel(0, t.upstream));
	guard_release_all(t.guard);
	assert_false(in_kernel(0, t.upstream));
}

static void guard_mode_off_takes_everything_out_of_the_kernel(void **state)
{
	(void)state;
	t.config.guard.mode = KILTER_GUARD_OFF;
	guard_reconfigure(t.guard, &t.config);
	assert_false(in_kernel(0, t.upstream));
	call_edge(CALLER);
	tick(1);
	assert_int_equal(circuits(), 0);
}

#define TEST(f)	   cmocka_unit_test_setup_teardown(f, setup, teardown)
#define GUARDED(f) cmocka_unit_test_setup_teardown(f, setup_guarded, teardown)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    GUARDED(an_exact_policy_is_in_the_kernel_before_the_first_connect),
	    GUARDED(its_counters_are_there_before_the_first_connect_and_stay),
	    GUARDED(a_trip_of_the_kernel_is_confirmed_with_a_lease_and_told),
	    GUARDED(a_trip_whose_record_was_lost_is_found_by_the_tick),
	    GUARDED(nobody_is_refused_for_a_policy_that_is_gone),
	    TEST(the_latest_ids_of_a_caller_are_guarded),
	    GUARDED(forced_closed_takes_back_what_the_kernel_did),
	    TEST(what_was_set_by_hand_is_not_forgotten_when_nobody_calls),
	    TEST(the_release_file_releases_while_it_is_there_and_no_longer),
	    GUARDED(the_kernel_is_believed_when_the_state_file_fell_behind),
	    GUARDED(the_record_of_an_older_generation_moves_nothing),
	    GUARDED(an_open_circuit_is_open_after_a_restart_until_its_time),
	    GUARDED(a_killed_daemon_leaves_the_same),
	    GUARDED(what_the_kernel_holds_is_taken_over_without_a_state_file),
	    GUARDED(generations_go_on_where_the_kernel_has_forgotten_them),
	    TEST(a_state_file_that_is_none_costs_the_state_and_not_the_start),
	    TEST(an_edge_gets_a_circuit_with_a_key_for_each_id_of_its_caller),
	    TEST(a_ratio_in_the_window_trips),
	    TEST(totals_of_before_we_looked_are_in_no_window),
	    TEST(the_panic_guard_takes_back_what_the_kernel_did),
	    GUARDED(a_change_of_configuration_keeps_an_open_circuit_open),
	    GUARDED(by_hand),
	    TEST(a_protected_destination_is_not_tripped_by_hand),
	    TEST(a_full_map_is_counted_and_tried_again),
	    GUARDED(a_destination_whose_id_was_taken_is_guarded_under_the_next),
	    TEST(entries_that_nobody_owns_are_swept),
	    GUARDED(guard_mode_off_takes_everything_out_of_the_kernel),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return tier_run_best(run);
}
