// SPDX-License-Identifier: Apache-2.0
/* The list of active LSMs: a name counts whole, wherever it stands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "probe/lsm.h"

#include <cmocka.h>

static void a_name_is_found_wherever_it_stands(void **state)
{
	(void)state;
	assert_true(probe_lsm_listed("bpf", "bpf"));
	assert_true(probe_lsm_listed("bpf,capability", "bpf"));
	assert_true(probe_lsm_listed("lockdown,capability,bpf", "bpf"));
	assert_true(probe_lsm_listed("lockdown,bpf,yama\n", "bpf"));
	assert_true(probe_lsm_listed("lockdown,bpf\n", "bpf"));
	assert_true(probe_lsm_listed(",,bpf", "bpf"));
}

static void a_part_of_a_name_is_none(void **state)
{
	static const char *const without[] = {
	    "", "\n", ",", "lockdown,capability,yama,apparmor", "bpfx", "xbpf", "bp,f", "BPF", "bp",
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(without) / sizeof(without[0]); i++)
		assert_false(probe_lsm_listed(without[i], "bpf"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_name_is_found_wherever_it_stands),
	    cmocka_unit_test(a_part_of_a_name_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
