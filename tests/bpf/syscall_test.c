// SPDX-License-Identifier: Apache-2.0
/* System calls while both tracepoints are armed: each is counted once, for whom it is. Needs root.
 */
#include <sys/syscall.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/series.h>

#include "programs.h"
#include "syscall.skel.h"

#include <cmocka.h>

#define CALLS  1000
#define FAILED 70

static struct {
	struct sandbox sandbox;
	struct syscall *skel; /* named after bpf/probes/syscall.bpf.c */
	struct bpf_link *enter, *leave;
} t;

static int group_setup(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = t.sandbox.bpffs);

	(void)state;
	assert_int_equal(sandbox_init(&t.sandbox), 0);
	t.skel = syscall__open_opts(&opts);
	assert_non_null(t.skel);
	tier_choose("syscall", t.skel->obj);
	object_load(t.skel->skeleton, &t.sandbox);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	syscall__destroy(t.skel);
	sandbox_done(&t.sandbox);
	return 0;
}

static void arm(void)
{
	t.leave = bpf_program__attach(tier_lower ? t.skel->progs.syscall_exit_by_thread
						 : t.skel->progs.syscall_exit);
	assert_int_equal(libbpf_get_error(t.leave), 0);
	t.enter = bpf_program__attach(tier_lower ? t.skel->progs.syscall_enter_by_thread
						 : t.skel->progs.syscall_enter);
	assert_int_equal(libbpf_get_error(t.enter), 0);
}

static void disarm(void)
{
	bpf_link__destroy(t.enter);
	bpf_link__destroy(t.leave);
}

/* What all workloads together have of one system call. */
static struct kilter_syscall total(__u32 nr)
{
	int fd = bpf_map__fd(t.skel->maps.syscalls);
	struct kilter_syscall_key key, *prev = NULL;
	struct kilter_syscall sum = {0};

	for (; !bpf_map_get_next_key(fd, prev, &key); prev = &key) {
		struct kilter_syscall v;

		if (key.nr != nr)
			continue;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &v), 0);
		assert_true(key.workload);
		sum.count += v.count;
		sum.errors += v.errors;
		sum.sum_ns += v.sum_ns;
		for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
			sum.hist[i] += v.hist[i];
	}
	return sum;
}

static uint64_t errors(__u32 nr, __u32 err)
{
	int fd = bpf_map__fd(t.skel->maps.syscall_errors);
	struct kilter_syscall_error_key key, *prev = NULL;
	uint64_t sum = 0, v;

	for (; !bpf_map_get_next_key(fd, prev, &key); prev = &key)
		if (key.nr == nr && key.err == err && !bpf_map_lookup_elem(fd, &key, &v))
			sum += v;
	return sum;
}

static void each_call_is_counted_once_and_timed(void **state)
{
	struct kilter_syscall v;
	uint64_t in_buckets = 0;

	(void)state;
	arm();
	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getpgid, 0);
	disarm();
	syscall(SYS_getpgid, 0); /* after the window: not seen */
	v = total(SYS_getpgid);
	assert_int_equal(v.count, CALLS);
	assert_int_equal(v.errors, 0);
	for (int i = 0; i < KILTER_FINE_BUCKETS; i++)
		in_buckets += v.hist[i];
	assert_int_equal(in_buckets, CALLS);
	assert_true(v.sum_ns > 0);
}

static void errors_are_counted_by_errno(void **state)
{
	struct kilter_syscall before = total(SYS_fchdir), after;

	(void)state;
	arm();
	for (int i = 0; i < FAILED; i++)
		assert_int_equal(syscall(SYS_fchdir, -1), -1);
	disarm();
	after = total(SYS_fchdir);
	assert_int_equal(after.count - before.count, FAILED);
	assert_int_equal(after.errors - before.errors, FAILED);
	assert_int_equal(errors(SYS_fchdir, EBADF), FAILED);
	assert_int_equal(errors(SYS_fchdir, EACCES), 0);
}

static void calls_of_other_cgroups_are_not_counted(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	arm();
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (sandbox_join(t.sandbox.home))
			_exit(1);
		for (int i = 0; i < CALLS; i++)
			syscall(SYS_getsid, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	disarm();
	assert_int_equal(status, 0);
	assert_int_equal(total(SYS_getsid).count, 0);
}

static void a_call_under_way_when_the_window_opens_is_left_out(void **state)
{
	struct kilter_syscall before, after;
	int fds[2], status;
	char c;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		close(fds[1]);
		_exit(read(fds[0], &c, 1) == 1 ? 0 : 1); /* enters before, leaves after */
	}
	close(fds[0]);
	for (;;) { /* until it sleeps in read() */
		char path[64], line[256] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
		f = fopen(path, "re");
		assert_non_null(f);
		if (fgets(line, sizeof(line), f) && strtol(line, NULL, 10) == SYS_read &&
		    line[0] != 'r') {
			fclose(f);
			break;
		}
		fclose(f);
		usleep(1000);
	}
	before = total(SYS_read);
	arm();
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	disarm();
	assert_int_equal(status, 0);
	close(fds[1]);
	after = total(SYS_read);
	assert_int_equal(after.count, before.count);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_call_is_counted_once_and_timed),
	    cmocka_unit_test(errors_are_counted_by_errno),
	    cmocka_unit_test(calls_of_other_cgroups_are_not_counted),
	    cmocka_unit_test(a_call_under_way_when_the_window_opens_is_left_out),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

int main(void)
{
	return tier_runs(run);
}
