// SPDX-License-Identifier: Apache-2.0
/* The two seams of the house, the bus and the figures about itself, and the clock's text. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/bus.h"
#include "core/clock.h"
#include "core/selfstat.h"

#include <cmocka.h>

static char heard[64];

static void hear(void *ctx, const struct bus_event *ev)
{
	size_t n = strlen(heard);

	snprintf(heard + n, sizeof(heard) - n, "%s:%s ", (const char *)ctx, ev->subject);
}

static void every_subscriber_hears_in_order(void **state)
{
	char a[] = "a", b[] = "b";

	(void)state;
	bus_reset();
	heard[0] = '\0';
	bus_publish(&(struct bus_event){.subject = "nobody"});
	assert_int_equal(bus_subscribe(hear, a), 0);
	assert_int_equal(bus_subscribe(hear, b), 0);
	bus_publish(&(struct bus_event){.subject = "x"});
	bus_publish(&(struct bus_event){.subject = "y"});
	assert_string_equal(heard, "a:x b:x a:y b:y ");
	bus_reset();
	bus_publish(&(struct bus_event){.subject = "z"});
	assert_string_equal(heard, "a:x b:x a:y b:y ");
}

static void one_subscriber_too_many_is_refused(void **state)
{
	char a[] = "a";

	(void)state;
	bus_reset();
	for (int i = 0; i < BUS_SUBSCRIBERS_MAX; i++)
		assert_int_equal(bus_subscribe(hear, a), 0);
	assert_int_equal(bus_subscribe(hear, a), -ENOSPC);
	bus_reset();
}

static void walk(void *ctx, const struct selfstat *s)
{
	size_t n = strlen(ctx);

	snprintf((char *)ctx + n, 64 - n, "%s ", s->name);
}

static void figures_are_walked_in_order_of_registration(void **state)
{
	struct selfstat a = {.name = "a"}, b = {.name = "b"}, c = {.name = "c"};
	char names[64] = "";

	(void)state;
	selfstat_register(&a);
	selfstat_register(&b);
	selfstat_register(&c);
	selfstat_walk(walk, names);
	assert_string_equal(names, "a b c ");
	selfstat_unregister(&b);
	selfstat_unregister(&b); /* what is not there does no harm */
	names[0] = '\0';
	selfstat_walk(walk, names);
	assert_string_equal(names, "a c ");
	selfstat_register(&b);
	selfstat_unregister(&a);
	names[0] = '\0';
	selfstat_walk(walk, names);
	assert_string_equal(names, "c b ");
	selfstat_unregister(&b);
	selfstat_unregister(&c);
}

static void a_time_is_written_to_the_nanosecond(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
	    {0, "1970-01-01T00:00:00.000000000Z"},
	    {1, "1970-01-01T00:00:00.000000001Z"},
	    {1582934399999999999ull, "2020-02-28T23:59:59.999999999Z"},
	    {1582934400000000000ull, "2020-02-29T00:00:00.000000000Z"},
	    {4102444799123456789ull, "2099-12-31T23:59:59.123456789Z"},
	};
	char buf[31];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(clock_format_rfc3339(rows[i].ns, buf), rows[i].text);
	assert_int_equal(strlen(clock_format_rfc3339(UINT64_MAX, buf)), 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_subscriber_hears_in_order),
	    cmocka_unit_test(one_subscriber_too_many_is_refused),
	    cmocka_unit_test(figures_are_walked_in_order_of_registration),
	    cmocka_unit_test(a_time_is_written_to_the_nanosecond),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
