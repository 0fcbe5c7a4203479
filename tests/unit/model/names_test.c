// SPDX-License-Identifier: Apache-2.0
/* Names of cgroups that are gone: the file they are kept in, whole, cut, foreign. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/metadata/cgroup.h"

#include <cmocka.h>

/* No cgroup of this machine has such an id: kernfs counts up from 1. */
#define GONE 9000000000000000000ull

static char dir[] = "/tmp/kilter-names.XXXXXX", file[64], fresh[80];

static int group_setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/cgroups", dir);
	snprintf(fresh, sizeof(fresh), "%s.new", file);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	unlink(file);
	unlink(fresh);
	return rmdir(dir);
}

/* The first line is this boot's, unless `boot` is another; then `lines`. */
static void file_is(const char *boot, const char *lines)
{
	char here[40] = "";
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	assert_non_null(f);
	assert_non_null(fgets(here, sizeof(here), f));
	fclose(f);
	f = fopen(file, "we");
	assert_non_null(f);
	fprintf(f, "%s%s", boot ? boot : here, lines);
	assert_int_equal(fclose(f), 0);
}

static const char *resolved(uint64_t id)
{
	static char path[CGROUP_PATH_MAX];
	struct cgroup_resolver *r;
	int err;

	assert_int_equal(cgroup_resolver_new(&r), 0);
	assert_int_equal(cgroup_resolver_keep(r, file), 0);
	err = cgroup_resolve(r, id, path);
	assert_int_equal(cgroup_resolver_unkept(r), 0);
	cgroup_resolver_free(&r);
	return err ? NULL : path;
}

static void a_name_outlives_its_cgroup_and_is_kept_on(void **state)
{
	(void)state;
	file_is(NULL, "9000000000000000000 /system.slice/a b.service\n9000000000000000001 /x\n");
	for (int life = 0; life < 3; life++) {
		assert_string_equal(resolved(GONE), "/system.slice/a b.service");
		assert_string_equal(resolved(GONE + 1), "/x");
		assert_null(resolved(GONE + 2));
	}
}

static void names_of_another_boot_are_not_ours(void **state)
{
	(void)state;
	file_is("00000000-0000-0000-0000-000000000000\n", "9000000000000000000 /x\n");
	assert_null(resolved(GONE));
	file_is("", "");
	assert_null(resolved(GONE));
}

static void what_was_cut_or_is_no_name_ends_the_file(void **state)
{
	static const char *const bad[] = {"9000000000000000001 /y",
					  "9000000000000000001\n",
					  "9000000000000000001 relative\n",
					  " /y\n",
					  "0 /y\n",
					  "9000000000000000001  /y\n"};
	char lines[CGROUP_PATH_MAX * 2 + 64];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(lines, sizeof(lines), "9000000000000000000 /x\n%s", bad[i]);
		file_is(NULL, lines);
		assert_string_equal(resolved(GONE), "/x");
		file_is(NULL, lines);
		assert_null(resolved(GONE + 1));
	}
	snprintf(lines, sizeof(lines), "9000000000000000001 /%0*d\n", CGROUP_PATH_MAX, 0);
	file_is(NULL, lines);
	assert_null(resolved(GONE + 1));
}

static void a_place_that_cannot_be_written_is_an_error(void **state)
{
	struct cgroup_resolver *r;

	(void)state;
	assert_int_equal(cgroup_resolver_new(&r), 0);
	assert_int_equal(cgroup_resolver_keep(r, "/nonexistent/cgroups"), -ENOENT);
	cgroup_resolver_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_name_outlives_its_cgroup_and_is_kept_on),
	    cmocka_unit_test(names_of_another_boot_are_not_ours),
	    cmocka_unit_test(what_was_cut_or_is_no_name_ends_the_file),
	    cmocka_unit_test(a_place_that_cannot_be_written_is_an_error),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
