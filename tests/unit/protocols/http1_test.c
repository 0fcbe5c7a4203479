// SPDX-License-Identifier: Apache-2.0
/* The kernel's HTTP/1 parser, natively: the fuzzer's checks on inputs from a fixed generator. */
#include <setjmp.h>
#include <stdarg.h>

#include "../../fuzz/http1_fuzz.c"
#include "inputs.h"

#include <cmocka.h>

#define INPUTS 4000

static void generated_messages_count_exactly_however_they_are_cut(void **state)
{
	(void)state;
	run_generated(INPUTS);
}

static void found_inputs_stay_right(void **state)
{
	(void)state;
	run_found("tests/fuzz/corpus/http1/*");
}

/* Of four answers the second and third are late, and come in the wrong order: the third does not
 * begin where the hole does. */
static void what_was_passed_over_and_never_read_is_counted_as_dropped(void **state)
{
	static const char ask[] = "GET / HTTP/1.1\r\n\r\n",
			  answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	const size_t a = sizeof(ask) - 1, n = sizeof(answer) - 1;
	char asks[4 * sizeof(ask)], answers[4 * sizeof(answer)];
	const uint8_t none[] = {0};
	struct input in = {none, none};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		memcpy(asks + i * a, ask, a);
		memcpy(answers + i * n, answer, n);
	}
	for (int late = 0; late < 2; late++) {
		connection_begin(&in);
		deliver(0, asks, 0, 4 * a);
		deliver(1, answers, 0, n);
		deliver(1, answers, 3 * n, 4 * n);
		deliver(1, answers, (late ? 2 : 1) * n, 3 * n);
		assert_int_equal(conn.results_count, late ? 2 : 4);
		connection_end();
		assert_int_equal(kernel.drops[KILTER_DROP_HTTP1_FRAMING], late);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(generated_messages_count_exactly_however_they_are_cut),
	    cmocka_unit_test(found_inputs_stay_right),
	    cmocka_unit_test(what_was_passed_over_and_never_read_is_counted_as_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
