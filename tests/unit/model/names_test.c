// SPDX-License-Identifier: Apache-2.0
/* Names of cgroups that are gone: the file they are kept in, whole, cut, foreign. And of those that
 * are there, found without the right to open them by their id. */
#include <sys/capability.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/selfstat.h"
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
	err = cgroup_resolve(r, id, 0, path);
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

#define CGROUPS 40

/* A cgroup of the test's own, with more below. */
static struct {
	char mount[CGROUP_PATH_MAX / 2], path[CGROUP_PATH_MAX];
	char below[CGROUPS + 1][CGROUP_PATH_MAX];
	uint64_t ids[CGROUPS + 1];
	struct cgroup_resolver *r;
} own;

static void add_walks(void *ctx, const char *labels, double value)
{
	(void)labels;
	*(double *)ctx += value;
}

static void find_walks(void *ctx, const struct selfstat *s)
{
	if (!strcmp(s->name, "kilter_cgroup_walks_total"))
		s->collect(s->ctx, add_walks, ctx);
}

static int walks(void)
{
	double n = 0;

	selfstat_walk(find_walks, &n);
	return (int)n;
}

static void make_cgroup(unsigned int i)
{
	struct stat st;
	int n;

	/* Some lie in others. */
	n = snprintf(own.below[i], sizeof(own.below[i]), "%s/c%u",
		     i % 4 ? own.below[i - 1] : own.path, i);
	assert_in_range(n, 1, sizeof(own.below[i]) - 1);
	assert_int_equal(mkdir(own.below[i], 0755), 0);
	assert_int_equal(stat(own.below[i], &st), 0);
	own.ids[i] = st.st_ino;
}

/* 0; -1 where no cgroup can be made. */
static int own_cgroups(void)
{
	char mountinfo[65536] = "";
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t n = f ? fread(mountinfo, 1, sizeof(mountinfo) - 1, f) : 0;

	if (f)
		fclose(f);
	mountinfo[n] = '\0';
	if (cgroup_find_mount(mountinfo, own.mount, sizeof(own.mount)))
		return -1;
	snprintf(own.path, sizeof(own.path), "%s/kilter-names-%d", own.mount, (int)getpid());
	if (mkdir(own.path, 0755))
		return -1;
	for (unsigned int i = 0; i < CGROUPS; i++)
		make_cgroup(i);
	return 0;
}

/* Whether the resolver finds cgroup i, and by its right name. */
static bool finds(unsigned int i, uint32_t pid)
{
	char path[CGROUP_PATH_MAX];
	int err = cgroup_resolve(own.r, own.ids[i], pid, path);

	assert_true(!err || err == -ENOENT);
	if (!err)
		assert_string_equal(path, own.below[i] + strlen(own.mount));
	return !err;
}

static int cgroups_setup(void **state)
{
	const cap_value_t right = CAP_DAC_READ_SEARCH;
	cap_t caps = cap_get_proc();

	(void)state;
	if (!caps || cap_set_flag(caps, CAP_EFFECTIVE, 1, &right, CAP_CLEAR) || cap_set_proc(caps))
		return -1;
	cap_free(caps);
	return cgroup_resolver_new(&own.r);
}

static int cgroups_teardown(void **state)
{
	(void)state;
	cgroup_resolver_free(&own.r);
	for (unsigned int i = CGROUPS + 1; i-- > 0;)
		if (own.below[i][0])
			rmdir(own.below[i]);
	rmdir(own.path);
	memset(&own, 0, sizeof(own));
	return 0;
}

static void one_walk_finds_all_that_are_there(void **state)
{
	(void)state;
	if (own_cgroups())
		skip();
	for (unsigned int i = 0; i < CGROUPS; i++)
		assert_true(finds(i * 7 % CGROUPS, 0)); /* every one, in no order */
	assert_int_equal(walks(), 1);
	/* One that is gone, and older than a walk: not worth another. A newer one is. */
	assert_int_equal(rmdir(own.below[CGROUPS - 1]), 0);
	cgroup_resolver_free(&own.r);
	assert_int_equal(cgroup_resolver_new(&own.r), 0);
	make_cgroup(CGROUPS);
	assert_true(finds(CGROUPS, 0));
	assert_false(finds(CGROUPS - 1, 0));
	assert_int_equal(walks(), 1);
	assert_int_equal(rmdir(own.below[CGROUPS]), 0);
	make_cgroup(CGROUPS);
	assert_true(finds(CGROUPS, 0));
	assert_false(finds(CGROUPS - 1, 0));
	assert_true(finds(0, 0));
	assert_int_equal(walks(), 2);
}

static void a_task_says_where_it_is_and_is_not_believed(void **state)
{
	char procs[CGROUP_PATH_MAX + 16];
	pid_t pid;
	FILE *f;

	(void)state;
	if (own_cgroups())
		skip();
	pid = fork();
	if (!pid) {
		pause();
		_exit(0);
	}
	assert_true(pid > 0);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", own.below[3]);
	f = fopen(procs, "we");
	assert_non_null(f);
	fprintf(f, "%d", (int)pid);
	assert_int_equal(fclose(f), 0);
	assert_true(finds(3, (uint32_t)pid));
	assert_int_equal(walks(), 0);
	/* Another's pid by now, or none's. */
	assert_true(finds(2, (uint32_t)pid));
	assert_int_equal(walks(), 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_true(finds(1, (uint32_t)pid));
	assert_int_equal(walks(), 1);
}

static void the_names_kept_are_the_latest(void **state)
{
	char lines[64];
	FILE *f;

	(void)state;
	file_is(NULL, "");
	f = fopen(file, "ae");
	assert_non_null(f);
	for (uint64_t i = 0; i < CGROUP_CACHE_MAX + 5; i++)
		fprintf(f, "%llu /%llu\n", (unsigned long long)(GONE + i), (unsigned long long)i);
	assert_int_equal(fclose(f), 0);
	for (int life = 0; life < 2; life++) {
		assert_null(resolved(GONE + 4));
		for (uint64_t i = 5; i < CGROUP_CACHE_MAX + 5; i += 997) {
			snprintf(lines, sizeof(lines), "/%llu", (unsigned long long)i);
			assert_string_equal(resolved(GONE + i), lines);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_name_outlives_its_cgroup_and_is_kept_on),
	    cmocka_unit_test(names_of_another_boot_are_not_ours),
	    cmocka_unit_test(what_was_cut_or_is_no_name_ends_the_file),
	    cmocka_unit_test(a_place_that_cannot_be_written_is_an_error),
	    cmocka_unit_test(the_names_kept_are_the_latest),
	    cmocka_unit_test_setup_teardown(one_walk_finds_all_that_are_there, cgroups_setup,
					    cgroups_teardown),
	    cmocka_unit_test_setup_teardown(a_task_says_where_it_is_and_is_not_believed,
					    cgroups_setup, cgroups_teardown),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
