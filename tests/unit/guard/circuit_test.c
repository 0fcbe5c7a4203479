// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "guard/circuit.h"

#include <cmocka.h>

#define SEC	      NS_PER_SEC
#define RANDOM_EVENTS 2000000
#define REFERENCE_LOG 4096 /* outcomes that the reference remembers one by one */
#define START	      (1000 * SEC)

static const struct config_policy policy = {
    .consecutive_failures = 5,
    .failure_ratio = 0.5,
    .minimum_requests = 20,
    .window_ns = 10 * SEC,
    .base_open_ns = 5 * SEC,
    .max_open_ns = 120 * SEC,
    .jitter = 0,
    .half_open_permits = 3,
    .half_open_successes = 3,
    .half_open_timeout_ns = 10 * SEC,
    .failures.outcomes = KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_NO_ANSWER,
};

static struct circuit_input at(uint64_t now_ns)
{
	return (struct circuit_input){.now_ns = now_ns, .destinations = 10, .max_open_ratio = 1};
}

static struct circuit opened(uint64_t now_ns)
{
	struct circuit_input in = at(now_ns);
	struct circuit c;

	circuit_init(&c, now_ns);
	in.kernel_tripped = true;
	in.consecutive = 5;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_OPEN);
	return c;
}

static struct circuit half_opened(uint64_t now_ns)
{
	struct circuit c = opened(now_ns - 5 * SEC);
	struct circuit_input in = at(now_ns);

	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_HALF_OPEN);
	return c;
}

static void opens_when_the_kernel_has_tripped_and_says_with_which_numbers(void **state)
{
	struct circuit c = opened(START);

	(void)state;
	assert_string_equal(c.reason, "5 failures in a row reached the threshold of 5");
	assert_int_equal(c.retry_ns, START + 5 * SEC);
	assert_int_equal(c.opens, 1);
	assert_int_equal(c.transitions[KILTER_CIRCUIT_OPEN], 1);
}

static void a_ratio_trips_from_the_minimum_on_and_not_before(void **state)
{
	static const struct {
		uint64_t successes, failures;
		enum circuit_step step;
	} rows[] = {
	    {0, 19, CIRCUIT_STAYS},  {10, 9, CIRCUIT_STAYS}, {10, 10, CIRCUIT_MOVED},
	    {11, 10, CIRCUIT_STAYS}, {0, 20, CIRCUIT_MOVED}, {1000, 999, CIRCUIT_STAYS},
	    {0, 0, CIRCUIT_STAYS},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct circuit_input in = at(START);
		struct circuit c;

		circuit_init(&c, START - SEC);
		in.successes = rows[i].successes;
		in.failures = rows[i].failures;
		assert_int_equal(circuit_step(&c, &policy, &in), rows[i].step);
	}
}

static void outcomes_leave_the_window(void **state)
{
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	circuit_init(&c, START);
	in.failures = 19;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in = at(START + 9 * SEC);
	in.failures = 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);

	circuit_init(&c, START);
	in = at(START);
	in.failures = 19;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in = at(START + 10 * SEC);
	in.failures = 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
}

static void a_policy_without_a_ratio_trips_on_none(void **state)
{
	struct config_policy p = policy;
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	p.failure_ratio = 0;
	circuit_init(&c, START);
	in.failures = 1000;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
}

static void the_model_is_believed_when_it_saw_more_but_not_about_an_earlier_state(void **state)
{
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	circuit_init(&c, START - 5 * SEC);
	in.failures = 1;
	in.edge_requests = 30;
	in.edge_failures = 25;
	in.edge_window_ns = 10 * SEC;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in.now_ns = START + 5 * SEC;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_string_equal(c.reason, "failure ratio 0.83 reached 0.50 in 10s (25 of 30 failed)");
}

static void open_times_double_up_to_the_bound_and_jitter_is_added(void **state)
{
	struct config_policy p = policy;

	(void)state;
	assert_int_equal(circuit_open_ns(&p, 1, 0), 5 * SEC);
	assert_int_equal(circuit_open_ns(&p, 2, 0), 10 * SEC);
	assert_int_equal(circuit_open_ns(&p, 5, 0), 80 * SEC);
	assert_int_equal(circuit_open_ns(&p, 6, 0), 120 * SEC);
	assert_int_equal(circuit_open_ns(&p, CIRCUIT_OPENS_MAX, 0), 120 * SEC);
	p.jitter = 0.5;
	assert_int_equal(circuit_open_ns(&p, 1, 0.5), 6 * SEC + SEC / 4);
	p.base_open_ns = 3600 * SEC;
	p.max_open_ns = 86400 * SEC;
	assert_int_equal(circuit_open_ns(&p, UINT32_MAX, 0), 86400 * SEC);
}

static void half_open_closes_after_enough_successes(void **state)
{
	struct circuit c = half_opened(START);
	struct circuit_input in = at(START + SEC);

	(void)state;
	in.trials = 2;
	in.trial_successes = 2;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in.trial_successes = 3;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_CLOSED);
}

static void one_failed_trial_opens_again_for_twice_as_long(void **state)
{
	struct circuit c = half_opened(START);
	struct circuit_input in = at(START + SEC);

	(void)state;
	in.trials = 4;
	in.trial_successes = 3;
	in.trial_failures = 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_OPEN);
	assert_int_equal(c.retry_ns, START + SEC + 10 * SEC);
	assert_string_equal(c.reason, "a trial failed (1 of 4)");
}

static void half_open_waits_for_callers_but_not_for_a_trial_without_end(void **state)
{
	struct circuit c = half_opened(START);
	struct circuit_input in = at(START + 3600 * SEC);

	(void)state;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in.trials = 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in.now_ns += 10 * SEC - 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	in.now_ns += 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_OPEN);
}

static void back_off_decays_one_step_per_quiet_window(void **state)
{
	struct circuit c = half_opened(START);
	struct circuit_input in = at(START);

	(void)state;
	in.trial_successes = 3;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	c.opens = 3;
	in = at(START + 10 * SEC - 1);
	circuit_step(&c, &policy, &in);
	assert_int_equal(c.opens, 3);
	in = at(START + 10 * SEC);
	circuit_step(&c, &policy, &in);
	assert_int_equal(c.opens, 2);
	in = at(START + 20 * SEC);
	circuit_step(&c, &policy, &in);
	in = at(START + 30 * SEC);
	circuit_step(&c, &policy, &in);
	assert_int_equal(c.opens, 0);
	in = at(START + 40 * SEC);
	circuit_step(&c, &policy, &in);
	assert_int_equal(c.opens, 0);
}

static void what_led_to_a_state_does_not_lead_out_of_it(void **state)
{
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	circuit_init(&c, START);
	in.failures = 30;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	in = at(START + 5 * SEC);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	in.trial_successes = 3;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	in = at(START + 6 * SEC);
	in.failures = 1;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
}

static void the_panic_guard_counts_the_state_after_the_trip(void **state)
{
	static const struct {
		uint32_t open, all;
		double ratio;
		enum circuit_step step;
	} rows[] = {
	    {0, 1, 0.5, CIRCUIT_MOVED},	     /* one may always open */
	    {0, 1, 0, CIRCUIT_SUPPRESSED},   /* unless none may */
	    {1, 3, 0.5, CIRCUIT_SUPPRESSED}, /* 2 of 3 are over a half */
	    {1, 4, 0.5, CIRCUIT_MOVED},	     /* 2 of 4 are not */
	    {2, 4, 0.5, CIRCUIT_SUPPRESSED}, {9, 10, 1, CIRCUIT_MOVED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct circuit_input in = at(START);
		struct circuit c;

		circuit_init(&c, START);
		in.kernel_tripped = true;
		in.other_destinations_open = rows[i].open;
		in.destinations = rows[i].all;
		in.max_open_ratio = rows[i].ratio;
		assert_int_equal(circuit_step(&c, &policy, &in), rows[i].step);
		if (rows[i].step != CIRCUIT_SUPPRESSED)
			continue;
		assert_int_equal(c.state, KILTER_CIRCUIT_CLOSED);
		assert_int_equal(c.suppressed, 1);
		assert_non_null(strstr(c.reason, "suppressed"));
		/* It says so once for a while, and not at every tick. */
		in.now_ns += policy.base_open_ns - 1;
		assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
		in.now_ns += 1;
		assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_SUPPRESSED);
		assert_int_equal(c.suppressed, 2);
	}
}

static void the_panic_guard_counts_destinations_and_caps_circuits(void **state)
{
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	in.kernel_tripped = true;
	in.destinations = 4;
	in.other_destinations_open = 2;
	in.max_open_ratio = 0.5;
	/* A destination that is open to another caller already makes it no worse. */
	in.destination_open = true;
	circuit_init(&c, START);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	in.destination_open = false;
	circuit_init(&c, START);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_SUPPRESSED);
	assert_non_null(strstr(c.reason, "3 of 4 destinations would be open, 2 may be"));

	in.other_destinations_open = 0;
	in.open = 7;
	in.max_open = 7;
	circuit_init(&c, START);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_SUPPRESSED);
	assert_non_null(strstr(c.reason, "8 circuits would be open, 7 may be"));
	in.max_open = 8;
	circuit_init(&c, START);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
}

static void slow_calls_trip_from_the_minimum_on(void **state)
{
	struct config_policy p = policy;
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	p.slow_call_ratio = 0.8;
	p.slow_call_ns = SEC / 4;
	circuit_init(&c, START);
	in.successes = 19;
	in.slow = 19;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
	in.successes = 5;
	in.slow = 0;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS); /* 19 of 24 */
	in.successes = 1;
	in.slow = 1;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED); /* 20 of 25 */
	assert_string_equal(c.reason,
			    "slow call ratio 0.80 reached 0.80 in 10s (20 of 25 took over 0.25s)");
	p.slow_call_ratio = 0;
	circuit_init(&c, START);
	in.successes = 100;
	in.slow = 100;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
}

static void a_count_window_is_the_kernels_to_judge(void **state)
{
	struct config_policy p = policy;
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	p.window_counts = true;
	p.window_calls = 50;
	circuit_init(&c, START);
	in.failures = 1000;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
	in.kernel_tripped = true;
	in.tripped_by = KILTER_TRIP_FAILURE_RATIO;
	in.ring_fill = 40;
	in.ring_failures = 20;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED);
	assert_string_equal(c.reason,
			    "failure ratio reached 0.50 in the last 40 calls (20 failed)");
}

static void what_is_forced_goes_there_and_stays_until_it_is_let_go(void **state)
{
	struct config_policy p = policy;
	struct circuit_input in = at(START);
	struct circuit c;

	(void)state;
	circuit_init(&c, START);
	assert_true(circuit_force(&c, CIRCUIT_FORCED_OPEN));
	assert_false(circuit_force(&c, CIRCUIT_FORCED_OPEN));
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_OPEN);
	assert_string_equal(c.reason, "forced open by hand");
	in.now_ns += 3600 * SEC;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
	assert_true(circuit_force(&c, CIRCUIT_AUTO)); /* its open time is long over */
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_HALF_OPEN);

	assert_true(circuit_force(&c, CIRCUIT_FORCED_CLOSED));
	in.kernel_tripped = true;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);

	/* The policy's word, unless a hand has another. */
	p.force = CONFIG_FORCE_OPEN;
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_STAYS);
	assert_true(circuit_force(&c, CIRCUIT_AUTO));
	assert_int_equal(circuit_step(&c, &p, &in), CIRCUIT_MOVED);
	assert_string_equal(c.reason, "forced open by the policy");
}

static void only_trials_that_succeeded_ramp_up(void **state)
{
	struct circuit_input in = at(START + 5 * SEC);
	struct circuit c = opened(START);

	(void)state;
	assert_true(circuit_reset(&c, &policy, START + SEC, "by hand"));
	assert_int_equal(c.ramp_ns, 0);
	c = opened(START);
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	in.trial_successes = 3;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.ramp_ns, START + 5 * SEC);
}

static void what_is_held_does_not_move_until_it_is_released(void **state)
{
	struct circuit c = opened(START);
	struct circuit_input in = at(START + 3600 * SEC);

	(void)state;
	assert_true(circuit_hold(&c, true));
	assert_false(circuit_hold(&c, true));
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
	assert_true(circuit_hold(&c, false));
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_MOVED);
	assert_int_equal(c.state, KILTER_CIRCUIT_HALF_OPEN);

	circuit_init(&c, START);
	circuit_hold(&c, true);
	in = at(START);
	in.kernel_tripped = true;
	in.failures = 100;
	assert_int_equal(circuit_step(&c, &policy, &in), CIRCUIT_STAYS);
}

static void by_hand_it_trips_and_resets_once(void **state)
{
	struct circuit c;

	(void)state;
	circuit_init(&c, START);
	assert_false(circuit_reset(&c, &policy, START, "by uid 0"));
	assert_true(circuit_trip(&c, &policy, START, 0, "by uid 0"));
	assert_false(circuit_trip(&c, &policy, START, 0, "by uid 0"));
	assert_int_equal(c.state, KILTER_CIRCUIT_OPEN);
	assert_string_equal(c.reason, "tripped by uid 0");
	assert_true(circuit_reset(&c, &policy, START, "by uid 0"));
	assert_int_equal(c.state, KILTER_CIRCUIT_CLOSED);
	assert_int_equal(c.opens, 0);
}

/* --- the same rules once more, as plainly as they can be said --- */

struct outcome {
	uint64_t number; /* of the tenth of a window it fell into */
	uint64_t successes, failures, slow;
};

struct reference {
	enum kilter_circuit_state state;
	bool held;
	enum circuit_force forced;
	uint32_t opens;
	uint64_t since, retry, trial, decay, quiet_until;
	struct outcome log[REFERENCE_LOG];
	unsigned int logged;
};

static void reference_enter(struct reference *r, const struct config_policy *p,
			    enum kilter_circuit_state to, uint64_t now, double random)
{
	r->state = to;
	r->since = now;
	r->trial = 0;
	r->retry = 0;
	r->decay = 0;
	r->quiet_until = 0;
	r->logged = 0;
	if (to == KILTER_CIRCUIT_CLOSED)
		r->decay = now + p->window_ns;
	if (to == KILTER_CIRCUIT_OPEN) {
		double ns = (double)p->base_open_ns;

		r->opens = r->opens == CIRCUIT_OPENS_MAX ? r->opens : r->opens + 1;
		for (uint32_t i = 1; i < r->opens; i++)
			ns = ns * 2 > (double)p->max_open_ns ? (double)p->max_open_ns : ns * 2;
		if (ns > (double)p->max_open_ns)
			ns = (double)p->max_open_ns;
		r->retry = now + (uint64_t)ns + (uint64_t)(ns * p->jitter * random);
	}
}

static void reference_forget(struct reference *r, uint64_t number)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < r->logged; i++)
		if (r->log[i].number + CIRCUIT_SLOTS > number)
			r->log[kept++] = r->log[i];
	r->logged = kept;
}

static void reference_step(struct reference *r, const struct config_policy *p,
			   const struct circuit_input *in)
{
	uint64_t now = in->now_ns, number = now / (p->window_ns / CIRCUIT_SLOTS);
	uint64_t all = 0, failed = 0, slow = 0;
	bool trip;

	if (r->state == KILTER_CIRCUIT_CLOSED) {
		reference_forget(r, number);
		assert_true(r->logged < REFERENCE_LOG);
		r->log[r->logged++] =
		    (struct outcome){number, in->successes, in->failures, in->slow};
	}
	if (r->forced == CIRCUIT_FORCED_OPEN ||
	    (r->forced == CIRCUIT_AUTO && !r->held && p->force == CONFIG_FORCE_OPEN)) {
		if (r->state != KILTER_CIRCUIT_OPEN)
			reference_enter(r, p, KILTER_CIRCUIT_OPEN, now, in->random);
		return;
	}
	if (r->forced != CIRCUIT_AUTO || (!r->held && p->force == CONFIG_FORCE_CLOSED)) {
		if (r->state != KILTER_CIRCUIT_CLOSED) {
			r->opens = 0;
			reference_enter(r, p, KILTER_CIRCUIT_CLOSED, now, 0);
		}
		return;
	}
	if (r->held)
		return;
	if (r->state == KILTER_CIRCUIT_OPEN) {
		if (now >= r->retry)
			reference_enter(r, p, KILTER_CIRCUIT_HALF_OPEN, now, 0);
		return;
	}
	if (r->state == KILTER_CIRCUIT_HALF_OPEN) {
		if (in->trials && !r->trial)
			r->trial = now;
		if (in->trial_failures)
			reference_enter(r, p, KILTER_CIRCUIT_OPEN, now, in->random);
		else if (in->trial_successes >= p->half_open_successes)
			reference_enter(r, p, KILTER_CIRCUIT_CLOSED, now, 0);
		else if (r->trial && now - r->trial >= p->half_open_timeout_ns)
			reference_enter(r, p, KILTER_CIRCUIT_OPEN, now, in->random);
		return;
	}
	if (r->opens && now >= r->decay) {
		r->opens--;
		r->decay = now + p->window_ns;
	}
	for (unsigned int i = 0; i < r->logged; i++) {
		all += r->log[i].successes + r->log[i].failures;
		failed += r->log[i].failures;
		slow += r->log[i].slow;
	}
	trip = in->kernel_tripped;
	if (!p->window_counts && all >= p->minimum_requests && all > 0) {
		if (p->failure_ratio > 0)
			trip |= (double)failed / (double)all >= p->failure_ratio;
		if (p->slow_call_ratio > 0)
			trip |= (double)slow / (double)all >= p->slow_call_ratio;
	}
	if (!trip)
		return;
	if ((in->destination_open ||
	     in->other_destinations_open + 1 <=
		 circuit_open_limit(in->destinations, in->max_open_ratio)) &&
	    (!in->max_open || in->open < in->max_open)) {
		reference_enter(r, p, KILTER_CIRCUIT_OPEN, now, in->random);
	} else if (now >= r->quiet_until) {
		r->quiet_until = now + p->base_open_ns;
		r->logged = 0;
	}
}

static uint64_t rnd(uint64_t *x, uint64_t below)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return (*x >> 33) % below;
}

static struct config_policy random_policy(uint64_t *x)
{
	static const double ratios[] = {0, 0.25, 0.5, 1};
	struct config_policy p = policy;

	p.failure_ratio = ratios[rnd(x, 4)];
	p.slow_call_ratio = ratios[rnd(x, 4)];
	p.window_counts = rnd(x, 4) == 0;
	p.force = rnd(x, 20) ? CONFIG_FORCE_AUTO : CONFIG_FORCE_OPEN + (rnd(x, 2) ? 1 : 0);
	p.minimum_requests = (uint32_t)rnd(x, 30) + 1;
	p.window_ns = (rnd(x, 20) + 1) * SEC;
	p.base_open_ns = (rnd(x, 50) + 1) * SEC / 10;
	p.max_open_ns = p.base_open_ns * (rnd(x, 40) + 1);
	p.jitter = (double)rnd(x, 3) / 2;
	p.half_open_successes = (uint32_t)rnd(x, 4) + 1;
	p.half_open_timeout_ns = (rnd(x, 20) + 1) * SEC;
	return p;
}

static void a_random_life_agrees_with_the_reference(void **state)
{
	uint64_t x = 20261120, now = START, seen[3] = {0}, suppressed = 0;
	static struct reference r;
	struct config_policy p = policy;
	struct circuit c;

	(void)state;
	circuit_init(&c, now);
	for (unsigned int i = 0; i < RANDOM_EVENTS; i++) {
		struct circuit_input in;
		uint64_t what = rnd(&x, 1000);

		if (i % 2000 == 0) { /* a new circuit under a new policy */
			p = random_policy(&x);
			circuit_init(&c, now);
			memset(&r, 0, sizeof(r));
		}
		now += rnd(&x, 2 * SEC);
		in = at(now);
		in.random = (double)rnd(&x, 1000) / 1000;
		in.destinations = 4;
		in.other_destinations_open = what < 30 ? 3 : 0;
		in.destination_open = what < 10;
		in.open = what % 8;
		in.max_open = what < 100 ? 4 : 0;
		in.max_open_ratio = 0.5;
		in.successes = rnd(&x, 8);
		in.failures = rnd(&x, 100) < 60 ? 0 : rnd(&x, 8);
		in.slow = rnd(&x, in.successes + in.failures + 1);
		in.kernel_tripped = rnd(&x, 100) < 3;
		in.consecutive = (uint32_t)rnd(&x, 9);
		in.trials = (uint32_t)rnd(&x, 4);
		in.trial_successes = (uint32_t)rnd(&x, 4);
		in.trial_failures = rnd(&x, 10) == 0;
		if (what >= 990) {
			bool hold = rnd(&x, 3) == 0;

			assert_int_equal(circuit_hold(&c, hold), r.held != hold);
			r.held = hold;
		} else if (what >= 986 && what <= 987) {
			enum circuit_force force = (enum circuit_force)rnd(&x, CIRCUIT_FORCES);

			assert_int_equal(circuit_force(&c, force), r.forced != force);
			r.forced = force;
		} else if (what == 989) {
			bool moves = r.state != KILTER_CIRCUIT_OPEN;

			assert_int_equal(circuit_trip(&c, &p, now, in.random, ""), moves);
			if (moves)
				reference_enter(&r, &p, KILTER_CIRCUIT_OPEN, now, in.random);
		} else if (what == 988) {
			bool moves = r.state != KILTER_CIRCUIT_CLOSED;

			assert_int_equal(circuit_reset(&c, &p, now, ""), moves);
			if (moves) {
				r.opens = 0;
				reference_enter(&r, &p, KILTER_CIRCUIT_CLOSED, now, 0);
			}
		}
		suppressed += circuit_step(&c, &p, &in) == CIRCUIT_SUPPRESSED;
		reference_step(&r, &p, &in);
		assert_int_equal(c.state, r.state);
		assert_int_equal(c.opens, r.opens);
		assert_int_equal(c.retry_ns, r.retry);
		assert_int_equal(c.since_ns, r.since ? r.since : c.since_ns);
		seen[c.state]++;
	}
	/* It has been everywhere. */
	for (unsigned int i = 0; i < 3; i++)
		assert_true(seen[i] > RANDOM_EVENTS / 100);
	assert_true(suppressed > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(opens_when_the_kernel_has_tripped_and_says_with_which_numbers),
	    cmocka_unit_test(a_ratio_trips_from_the_minimum_on_and_not_before),
	    cmocka_unit_test(outcomes_leave_the_window),
	    cmocka_unit_test(a_policy_without_a_ratio_trips_on_none),
	    cmocka_unit_test(the_model_is_believed_when_it_saw_more_but_not_about_an_earlier_state),
	    cmocka_unit_test(open_times_double_up_to_the_bound_and_jitter_is_added),
	    cmocka_unit_test(half_open_closes_after_enough_successes),
	    cmocka_unit_test(one_failed_trial_opens_again_for_twice_as_long),
	    cmocka_unit_test(half_open_waits_for_callers_but_not_for_a_trial_without_end),
	    cmocka_unit_test(back_off_decays_one_step_per_quiet_window),
	    cmocka_unit_test(what_led_to_a_state_does_not_lead_out_of_it),
	    cmocka_unit_test(the_panic_guard_counts_the_state_after_the_trip),
	    cmocka_unit_test(the_panic_guard_counts_destinations_and_caps_circuits),
	    cmocka_unit_test(slow_calls_trip_from_the_minimum_on),
	    cmocka_unit_test(a_count_window_is_the_kernels_to_judge),
	    cmocka_unit_test(what_is_forced_goes_there_and_stays_until_it_is_let_go),
	    cmocka_unit_test(only_trials_that_succeeded_ramp_up),
	    cmocka_unit_test(what_is_held_does_not_move_until_it_is_released),
	    cmocka_unit_test(by_hand_it_trips_and_resets_once),
	    cmocka_unit_test(a_random_life_agrees_with_the_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
