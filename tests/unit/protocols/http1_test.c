// SPDX-License-Identifier: Apache-2.0
/* The kernel's HTTP/1 parser, natively: the fuzzer's checks on inputs from a fixed generator. */
#include <setjmp.h>
#include <stdarg.h>

#include "../../fuzz/http1_fuzz.c"

#include <cmocka.h>

#define INPUTS	    4000
#define INPUT_BYTES 1024

/* splitmix64 (Sebastiano Vigna, public domain). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* A wrong count aborts: the fuzzer says what it expected. */
static void generated_messages_count_exactly_however_they_are_cut(void **state)
{
	uint64_t seed = 1;

	(void)state;
	for (int i = 0; i < INPUTS; i++) {
		uint8_t data[INPUT_BYTES];
		size_t n = next_random(&seed) % sizeof(data);

		for (size_t k = 0; k < n; k++)
			data[k] = (uint8_t)next_random(&seed);
		LLVMFuzzerTestOneInput(data, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(generated_messages_count_exactly_however_they_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
