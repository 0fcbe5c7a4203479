// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/clock.h"
#include "health/hysteresis.h"

#include <cmocka.h>

/* A verdict a second and the state after it: u unknown, h healthy, d degraded, x unhealthy. */
static const struct {
	uint32_t enter, leave;
	uint64_t dwell_s;
	const char *verdicts, *states;
} rows[] = {
    {2, 3, 0, "h", "h"},		 /* the first verdict is taken at once */
    {2, 3, 0, "u", "u"},		 /* and so is that nothing is known */
    {2, 3, 0, "xx", "ux"},		 /* but not a bad one */
    {2, 3, 0, "hxhxhx", "hhhhhh"},	 /* one bad tick at a time never enters */
    {2, 3, 0, "hdd", "hhd"},		 /* two in a row do */
    {2, 3, 0, "hdx", "hhd"},		 /* the milder of the run */
    {2, 3, 0, "hddxx", "hhddx"},	 /* then on to worse */
    {2, 3, 0, "hddhhh", "hhdddh"},	 /* three in a row leave */
    {2, 3, 0, "hddhhdhhh", "hhddddddh"}, /* a relapse starts the count anew */
    {2, 3, 0, "hxxhdh", "hhxxxd"},	 /* the worst of the way down */
    {2, 3, 0, "huhu", "huhu"},		 /* between no faults at once */
    {2, 3, 0, "uhdd", "uhhd"},		 /* but not into one */
    {2, 3, 0, "hdduuu", "hhdddu"},	 /* nor out of one */
    {1, 1, 0, "hxhx", "hxhx"},		 /* no hysteresis */
    {1, 1, 4, "hdhhhh", "hddddh"},	 /* dwell: at least 4 s in a bad state */
};

static enum health_state state_of(char c)
{
	switch (c) {
	case 'h':
		return HEALTH_HEALTHY;
	case 'd':
		return HEALTH_DEGRADED;
	case 'x':
		return HEALTH_UNHEALTHY;
	default:
		return HEALTH_UNKNOWN;
	}
}

static void states_follow_verdicts_as_the_table_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct hysteresis_rule r = {.enter = rows[i].enter,
					    .leave = rows[i].leave,
					    .dwell_ns = rows[i].dwell_s * NS_PER_SEC};
		struct hysteresis h = {.judged = false};

		for (size_t t = 0; rows[i].verdicts[t]; t++) {
			enum health_state before = h.state;
			bool first = !h.judged;
			bool changed = hysteresis_step(&h, &r, state_of(rows[i].verdicts[t]),
						       (t + 1) * NS_PER_SEC);

			if (h.state != state_of(rows[i].states[t]))
				fail_msg("%s: after %zu it is %s", rows[i].verdicts, t + 1,
					 health_state_str(h.state));
			if (!first)
				assert_int_equal(changed, h.state != before);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(states_follow_verdicts_as_the_table_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
