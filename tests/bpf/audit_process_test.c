// SPDX-License-Identifier: Apache-2.0
/* What was executed and how it ended: each process once, for whom it is, and the same in each tier
 * that the kernel has. Needs root. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/event.h>

#include "audit_process.skel.h"
#include "core/clock.h"
#include "probe/lsm.h"
#include "probe/registry.h"
#include "programs.h"

#include <cmocka.h>

#define RECORDS_MAX 64
#define SELF	    "/proc/self/exe"
#define ENDS                                                                                     \
	"--ends" /* our own program with this does nothing but end, with the status that follows \
		  */

#define TIERS_VAR "KILTER_TEST_AUDIT_TIERS" /* those that have to be there: full,middle,lower */

static enum probe_tier tier;

static struct {
	struct sandbox sandbox;
	struct audit_process *skel;
	struct bpf_link *links[2];
	struct ring_buffer *events;
	struct kilter_event_exec execs[RECORDS_MAX];
	struct kilter_event_exit exits[RECORDS_MAX];
	unsigned int execs_count, exits_count;
} t;

static int on_event(void *ctx, void *data, size_t size)
{
	const struct kilter_event *h = data;

	(void)ctx;
	assert_int_equal(h->size, size);
	if (h->type == KILTER_EVENT_EXEC) {
		assert_int_equal(size, sizeof(t.execs[0]));
		assert_true(t.execs_count < RECORDS_MAX);
		memcpy(&t.execs[t.execs_count++], data, size);
	} else {
		assert_int_equal(h->type, KILTER_EVENT_EXIT);
		assert_int_equal(size, sizeof(t.exits[0]));
		assert_true(t.exits_count < RECORDS_MAX);
		memcpy(&t.exits[t.exits_count++], data, size);
	}
	return 0;
}

static void drain(void)
{
	assert_true(ring_buffer__consume(t.events) >= 0);
}

static struct bpf_program *exec_program(const struct audit_process *skel)
{
	if (tier == PROBE_TIER_LOWER)
		return skel->progs.audit_exec_tp;
	return tier == PROBE_TIER_FULL ? skel->progs.audit_exec_lsm : skel->progs.audit_exec_func;
}

static int group_setup(void **state)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = t.sandbox.bpffs);

	(void)state;
	assert_int_equal(sandbox_init(&t.sandbox), 0);
	t.skel = audit_process__open_opts(&opts);
	assert_non_null(t.skel);
	probe_row_choose(probe_row_find("audit_process"), t.skel->obj, tier);
	object_load(t.skel->skeleton, &t.sandbox);
	t.links[0] = bpf_program__attach(exec_program(t.skel));
	t.links[1] = bpf_program__attach(t.skel->progs.audit_exit_tp);
	assert_int_equal(libbpf_get_error(t.links[0]), 0);
	assert_int_equal(libbpf_get_error(t.links[1]), 0);
	t.events = ring_buffer__new(bpf_map__fd(t.skel->maps.events), on_event, NULL, NULL);
	assert_non_null(t.events);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	ring_buffer__free(t.events);
	bpf_link__destroy(t.links[0]);
	bpf_link__destroy(t.links[1]);
	audit_process__destroy(t.skel);
	sandbox_done(&t.sandbox);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	drain();
	t.execs_count = 0;
	t.exits_count = 0;
	return 0;
}

/* A child that does this, with its wait(2) status. It may not return. */
static pid_t child(void (*work)(void *), void *arg, int *ret_status)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		work(arg);
		_exit(100);
	}
	assert_int_equal(waitpid(pid, ret_status, 0), pid);
	drain();
	return pid;
}

static void run_self(void *arg)
{
	execv(SELF, arg);
}

static void expect_of(const struct kilter_event *h, pid_t pid)
{
	struct stat st;

	assert_int_equal(stat(t.sandbox.cgroup, &st), 0);
	assert_int_equal(h->cgroup_id, st.st_ino); /* kernfs: the id is the inode */
	assert_int_equal(h->pid, pid);
	assert_int_equal(h->ppid, getpid());
	assert_int_equal(h->uid, getuid());
	assert_true(h->workload);
	assert_true(h->time_ns && h->time_ns <= clock_ns(CLOCK_BOOTTIME));
}

static void what_runs_is_told_and_how_it_ended(void **state)
{
	char *argv[] = {(char *)"what it calls itself", (char *)ENDS, (char *)"7", NULL};
	const struct kilter_event_exec *e = &t.execs[0];
	static const char args[] = "what it calls itself\0" ENDS "\0007";
	int status;
	pid_t pid;

	(void)state;
	pid = child(run_self, argv, &status);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	assert_int_equal(t.execs_count, 1);
	expect_of(&e->h, pid);
	assert_string_equal(e->file, SELF);
	assert_int_equal(e->args_len, sizeof(args));
	assert_memory_equal(e->args, args, sizeof(args));
	assert_int_equal(e->args_truncated, 0);
	assert_string_equal(e->h.comm, "exe"); /* the last of its path */
	assert_int_equal(t.exits_count, 1);
	expect_of(&t.exits[0].h, pid);
	assert_int_equal(t.exits[0].code, 7);
	assert_int_equal(t.exits[0].signal, 0);
	assert_true(t.exits[0].start_ns <= e->h.time_ns);
	assert_true(t.exits[0].h.time_ns >= e->h.time_ns);
}

static void a_long_argv_is_cut_and_says_so(void **state)
{
	static char more[KILTER_EXEC_ARGS_LEN + 1];
	char *argv[] = {(char *)"x", (char *)ENDS, (char *)"0", more, NULL};
	int status;

	(void)state;
	memset(more, 'm', sizeof(more) - 1);
	child(run_self, argv, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.execs_count, 1);
	assert_int_equal(t.execs[0].args_truncated, 1);
	assert_int_equal(t.execs[0].args_len, KILTER_EXEC_ARGS_LEN);
	assert_memory_equal(t.execs[0].args, "x\0" ENDS "\0000\0mmm", 14);
	assert_int_equal(t.execs[0].args[KILTER_EXEC_ARGS_LEN - 1], 'm');
}

/* Arguments up to the last byte of a record are all there, and say so. */
static void an_argv_that_just_fits_is_whole(void **state)
{
	static char more[KILTER_EXEC_ARGS_LEN];
	char *argv[] = {(char *)"x", (char *)ENDS, (char *)"0", more, NULL};
	size_t left = sizeof(more) - sizeof("x") - sizeof(ENDS) - sizeof("0");
	int status;

	(void)state;
	memset(more, 'm', sizeof(more));
	more[left - 1] = '\0';
	child(run_self, argv, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.execs_count, 1);
	assert_int_equal(t.execs[0].args_truncated, 0);
	assert_int_equal(t.execs[0].args_len, KILTER_EXEC_ARGS_LEN);
	assert_int_equal(t.execs[0].args[KILTER_EXEC_ARGS_LEN - 2], 'm');
	assert_int_equal(t.execs[0].args[KILTER_EXEC_ARGS_LEN - 1], '\0');
}

static void run_bare(void *arg)
{
	char *none[] = {NULL};

	execve(SELF, arg, none);
}

static void run_rich(void *arg)
{
	static char big[4 * KILTER_EXEC_ARGS_LEN];
	char *many[] = {(char *)"SECRET=1", big, NULL};

	memset(big, 'e', sizeof(big) - 1);
	execve(SELF, arg, many);
}

static void the_environment_is_none_of_the_arguments(void **state)
{
	/* Empty ones count, too. */
	char *argv[] = {(char *)"", (char *)ENDS, (char *)"0", (char *)"", (char *)"", NULL};
	static const char args[] = "\0" ENDS "\0000\0\0";
	void (*const works[])(void *) = {run_bare, run_rich};

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		int status;

		child(works[i], argv, &status);
		assert_int_equal(status, 0);
		assert_int_equal(t.execs_count, i + 1);
		assert_int_equal(t.execs[i].args_len, sizeof(args));
		assert_memory_equal(t.execs[i].args, args, sizeof(args));
		assert_int_equal(t.execs[i].args_truncated, 0);
	}
}

/* A file of this test's own, on a descriptor; *ret_path is how to execute it. */
static int file_of(const void *bytes, size_t len, char ret_path[64])
{
	int fd = memfd_create("audit", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	snprintf(ret_path, 64, "/proc/%d/fd/%d", getpid(), fd);
	return fd;
}

static void run_path(void *arg)
{
	execl(arg, "not told", "one", (char *)NULL);
}

/* Executed is the script, and what runs is its interpreter, which gets the script's name. */
static void a_script_is_one_exec(void **state)
{
	static const char script[] = "#!" SELF " " ENDS "\n";
	char path[64], args[256];
	int status, len, fd = file_of(script, sizeof(script) - 1, path);

	(void)state;
	len = snprintf(args, sizeof(args), "%s%c%s%c%s%cone", SELF, 0, ENDS, 0, path, 0) + 1;
	child(run_path, path, &status);
	close(fd);
	assert_int_equal(status, 0); /* its name is no number */
	assert_int_equal(t.execs_count, 1);
	assert_string_equal(t.execs[0].file, path);
	assert_int_equal(t.execs[0].args_len, len);
	assert_memory_equal(t.execs[0].args, args, len);
	assert_int_equal(t.exits_count, 1);
}

/*
 * A program that cannot be laid into memory. The old one is gone by then, so that the kernel kills
 * the process: not an exec, but for the LSM hook, which comes before. docs/audit.md
 */
static void a_program_that_does_not_fit_into_memory_never_runs(void **state)
{
	struct {
		Elf64_Ehdr e;
		Elf64_Phdr p;
	} bad = {
	    .e = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			      EV_CURRENT},
		  .e_type = ET_EXEC,
#ifdef __aarch64__
		  .e_machine = EM_AARCH64,
#else
		  .e_machine = EM_X86_64,
#endif
		  .e_version = EV_CURRENT,
		  .e_phoff = sizeof(Elf64_Ehdr),
		  .e_ehsize = sizeof(Elf64_Ehdr),
		  .e_phentsize = sizeof(Elf64_Phdr),
		  .e_phnum = 1},
	    .p = {.p_type = PT_LOAD,
		  .p_flags = PF_R | PF_X,
		  .p_vaddr = 1ull << 62, /* no process has that */
		  .p_filesz = sizeof(bad),
		  .p_memsz = sizeof(bad),
		  .p_align = 4096},
	};
	static const char args[] = "not told\0one";
	char path[64];
	int status, fd = file_of(&bad, sizeof(bad), path);

	(void)state;
	child(run_path, path, &status);
	close(fd);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(t.exits_count, 1);
	assert_int_equal(t.exits[0].signal, WTERMSIG(status));
	assert_int_equal(t.execs_count, tier == PROBE_TIER_FULL ? 1 : 0);
	if (tier == PROBE_TIER_FULL) {
		assert_string_equal(t.execs[0].file, path);
		assert_int_equal(t.execs[0].args_len, sizeof(args));
		assert_memory_equal(t.execs[0].args, args, sizeof(args));
	}
}

static void *exec_thread(void *arg)
{
	run_self(arg);
	return NULL;
}

static void run_self_in_a_thread(void *arg)
{
	pthread_t id;

	if (!pthread_create(&id, NULL, exec_thread, arg))
		pthread_join(id, NULL);
}

static void an_exec_by_a_thread_is_its_process(void **state)
{
	char *argv[] = {(char *)"x", (char *)ENDS, (char *)"0", NULL};
	int status;
	pid_t pid;

	(void)state;
	pid = child(run_self_in_a_thread, argv, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.execs_count, 1);
	expect_of(&t.execs[0].h, pid);
	assert_string_equal(t.execs[0].file, SELF);
	assert_int_equal(t.execs[0].args_len, sizeof("x\0" ENDS "\0000"));
}

static void killed(void *arg)
{
	raise(*(int *)arg);
}

static void a_signal_is_told_as_one(void **state)
{
	int deadly[] = {SIGKILL, SIGTERM}, status;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		pid_t pid = child(killed, &deadly[i], &status);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(t.exits_count, i + 1);
		expect_of(&t.exits[i].h, pid);
		assert_int_equal(t.exits[i].signal, deadly[i]);
		assert_int_equal(t.exits[i].code, 0);
	}
	assert_int_equal(t.execs_count, 0);
}

static void *thread(void *arg)
{
	return arg;
}

static void threads(void *arg)
{
	pthread_t id;

	for (int i = 0; i < 5; i++)
		if (pthread_create(&id, NULL, thread, arg) || pthread_join(id, NULL))
			_exit(1);
	_exit(0);
}

static void threads_are_no_processes(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = child(threads, NULL, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.exits_count, 1);
	assert_int_equal(t.exits[0].h.pid, pid);
}

static void run_nothing(void *arg)
{
	(void)arg;
	execl("/nonexistent", "x", NULL);
	_exit(errno == ENOENT ? 0 : 1);
}

static void what_could_not_be_executed_was_not(void **state)
{
	int status;

	(void)state;
	child(run_nothing, NULL, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.execs_count, 0);
	assert_int_equal(t.exits_count, 1);
}

static void elsewhere(void *arg)
{
	if (sandbox_join(t.sandbox.home))
		_exit(1);
	run_self(arg);
}

static void other_cgroups_are_not_recorded(void **state)
{
	char *argv[] = {(char *)"x", (char *)ENDS, (char *)"0", NULL};
	int status;

	(void)state;
	child(elsewhere, argv, &status);
	assert_int_equal(status, 0);
	assert_int_equal(t.execs_count, 0);
	assert_int_equal(t.exits_count, 0);
}

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(what_runs_is_told_and_how_it_ended, setup),
	    cmocka_unit_test_setup(a_long_argv_is_cut_and_says_so, setup),
	    cmocka_unit_test_setup(an_argv_that_just_fits_is_whole, setup),
	    cmocka_unit_test_setup(the_environment_is_none_of_the_arguments, setup),
	    cmocka_unit_test_setup(a_script_is_one_exec, setup),
	    cmocka_unit_test_setup(a_program_that_does_not_fit_into_memory_never_runs, setup),
	    cmocka_unit_test_setup(an_exec_by_a_thread_is_its_process, setup),
	    cmocka_unit_test_setup(a_signal_is_told_as_one, setup),
	    cmocka_unit_test_setup(threads_are_no_processes, setup),
	    cmocka_unit_test_setup(what_could_not_be_executed_was_not, setup),
	    cmocka_unit_test_setup(other_cgroups_are_not_recorded, setup),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

/* Does the kernel take this tier? A sandbox of its own, for the maps that are pinned. */
static bool tier_loads(void)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts);
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	struct audit_process *skel = NULL;
	struct bpf_link *link = NULL;
	struct sandbox sandbox;

	if (!sandbox_init(&sandbox)) {
		opts.pin_root_path = sandbox.bpffs;
		skel = audit_process__open_opts(&opts);
	}
	if (skel) {
		probe_row_choose(probe_row_find("audit_process"), skel->obj, tier);
		if (!audit_process__load(skel))
			link = bpf_program__attach(exec_program(skel));
		if (libbpf_get_error(link))
			link = NULL;
	}
	libbpf_set_print(print);
	bpf_link__destroy(link);
	audit_process__destroy(skel);
	sandbox_done(&sandbox);
	return link;
}

/* Has to run where TIERS_VAR names it; where nobody says what the kernel has, the best tiers may be
 * refused, as the daemon takes it. */
static bool tier_here(void)
{
	const char *named = getenv(TIERS_VAR), *name = probe_tier_name(tier);
	char why[128] = "refused by the kernel";

	if (named)
		return strstr(named, name);
	if (tier == PROBE_TIER_LOWER)
		return true;
	if ((tier != PROBE_TIER_FULL || !probe_lsm_there(why, sizeof(why))) && tier_loads())
		return true;
	printf("# no tier \"%s\" here: %s\n", name, why);
	return false;
}

static int run_tiers(const char *name)
{
	int failed = 0;

	(void)name;
	for (tier = PROBE_TIER_FULL; tier <= PROBE_TIER_LOWER; tier++)
		if (tier_here())
			failed += run(probe_tier_name(tier));
	return failed;
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], ENDS))
		return (int)strtoul(argv[2], NULL, 10);
	return tier_run_best(run_tiers);
}
