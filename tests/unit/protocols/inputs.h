/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target's checks on inputs that are the same each time, for the test that includes it. A
 * wrong count aborts: the fuzzer says what it expected.
 */
#ifndef KILTER_TESTS_INPUTS_H
#define KILTER_TESTS_INPUTS_H

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define INPUT_BYTES 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* splitmix64 (Sebastiano Vigna, public domain). */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline void run_generated(int inputs)
{
	uint64_t seed = 1;

	for (int i = 0; i < inputs; i++) {
		uint8_t data[INPUT_BYTES];
		size_t n = next_random(&seed) % sizeof(data);

		for (size_t k = 0; k < n; k++)
			data[k] = (uint8_t)next_random(&seed);
		LLVMFuzzerTestOneInput(data, n);
	}
}

/* What the fuzzer once found. */
static inline void run_found(const char *pattern)
{
	glob_t found;

	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		static uint8_t data[1 << 16];
		FILE *f = fopen(found.gl_pathv[i], "re");

		assert_non_null(f);
		LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof(data), f));
		fclose(f);
	}
	globfree(&found);
}

#endif
