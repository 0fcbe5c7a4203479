// SPDX-License-Identifier: Apache-2.0
/* The trail as a whole: what is written is read back, across rotation, damage and full disks. */
#include <sys/resource.h>
#include <sys/stat.h>

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* clang-format off: cmocka.h needs those above */
#include <cmocka.h>
/* clang-format on */

#include "audit/audit.h"
#include "core/clock.h"

static char dir[64], file[128];

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/audit_trail_test.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(file, sizeof(file), "%s/audit.jsonl", dir);
	return 0;
}

static int remove_dir(void **state)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	(void)state;
	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	return rmdir(dir);
}

static struct audit *open_trail(uint64_t max_bytes, uint32_t keep, bool compress)
{
	struct audit_options o = {.file = file,
				  .state_dir = dir,
				  .max_bytes = max_bytes,
				  .keep = keep,
				  .compress = compress};
	struct audit *a = NULL;

	assert_int_equal(audit_open(&a, &o), 0);
	return a;
}

static void start(struct audit *a, const char *subject)
{
	audit_bus_event(
	    a, &(struct bus_event){.kind = BUS_AGENT_START, .subject = subject, .uid = UINT32_MAX});
}

struct seen {
	unsigned int lines;
	unsigned long long last, lost;
	bool disorder;
	char text[4096];
};

static int see(void *ctx, const char *line, size_t len)
{
	struct seen *s = ctx;
	unsigned long long seq;
	const char *p;

	snprintf(s->text, sizeof(s->text), "%.*s", (int)len, line);
	p = strstr(s->text, "\"event.sequence\":");
	assert_non_null(p);
	seq = strtoull(p + 17, NULL, 10);
	s->disorder |= s->lines && seq <= s->last;
	s->last = seq;
	s->lines++;
	p = strstr(s->text, "\"kilter.records_lost\":");
	if (p)
		s->lost += strtoull(p + 22, NULL, 10);
	return 0;
}

static struct seen query(const char *action, uint64_t limit)
{
	struct audit_query q = {.file = file, .action = action, .limit = limit};
	struct seen s = {0};
	uint64_t bad = 1;

	assert_int_equal(audit_query_run(&q, see, &s, &bad), 0);
	assert_int_equal(bad, 0);
	return s;
}

static void sequence_goes_on_after_a_restart(void **state)
{
	struct audit *a = open_trail(0, 3, false);
	char seq[160];

	(void)state;
	start(a, "one");
	start(a, "two");
	audit_close(&a);
	snprintf(seq, sizeof(seq), "%s/audit.seq", dir);
	assert_int_equal(unlink(seq), 0); /* the file itself is witness enough */
	a = open_trail(0, 3, false);
	start(a, "three");
	audit_close(&a);
	assert_int_equal(query(NULL, 0).last, 3);
	assert_int_equal(query(NULL, 0).lines, 3);
	assert_int_equal(query(NULL, 2).lines, 2);
	assert_int_equal(query("agent-stop", 0).lines, 0);
}

static void a_torn_tail_is_cut_and_told_of(void **state)
{
	struct audit *a = open_trail(0, 3, false);
	int fd;

	(void)state;
	start(a, "one");
	audit_close(&a);
	fd = open(file, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "{\"@times", 8), 8);
	close(fd);
	a = open_trail(0, 3, false);
	start(a, "two");
	audit_close(&a);
	assert_int_equal(query(NULL, 0).lines, 3);
	assert_int_equal(query("records-lost", 0).lost, 1);
}

static void query_reads_across_compressed_files(void **state)
{
	struct audit *a = open_trail(2000, 100, true);
	struct audit_stats st;
	unsigned int gz = 0;
	struct dirent *e;
	DIR *d;

	(void)state;
	for (int i = 0; i < 200; i++) {
		start(a, "x");
		audit_tick(a, clock_real_ns());
	}
	for (int i = 0; i < 200; i++)
		audit_tick(a, clock_real_ns());
	audit_get_stats(a, &st);
	assert_true(st.rotations > 10);
	audit_close(&a);
	d = opendir(dir);
	while ((e = readdir(d)))
		gz += strlen(e->d_name) > 3 && !strcmp(e->d_name + strlen(e->d_name) - 3, ".gz");
	closedir(d);
	assert_int_equal(gz, st.rotations);
	assert_int_equal(query(NULL, 0).lines, 200);
	assert_false(query(NULL, 0).disorder);
}

static void only_so_many_rotated_files_are_kept(void **state)
{
	struct audit *a = open_trail(600, 2, false);
	unsigned int rotated = 0;
	struct dirent *e;
	DIR *d;

	(void)state;
	for (int i = 0; i < 50; i++) {
		start(a, "x");
		audit_tick(a, clock_real_ns());
	}
	audit_close(&a);
	d = opendir(dir);
	while ((e = readdir(d)))
		rotated += !strncmp(e->d_name, "audit.jsonl.", 12);
	closedir(d);
	assert_int_equal(rotated, 2);
}

static void what_a_full_disk_cost_is_counted_exactly(void **state)
{
	struct rlimit old, small;
	struct audit *a = open_trail(0, 3, false);
	struct audit_stats st;
	struct seen s;

	(void)state;
	signal(SIGXFSZ, SIG_IGN); /* write(2) says EFBIG instead, after a short write */
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 5000;
	setrlimit(RLIMIT_FSIZE, &small);
	for (int i = 0; i < 8000; i++)
		start(a, "a subject that takes room in the record, so that the buffer fills up");
	audit_tick(a, clock_real_ns());
	audit_get_stats(a, &st);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_true(st.failing);
	assert_true(st.lost > 0);
	audit_tick(a, clock_real_ns());
	start(a, "again");
	audit_close(&a);
	s = query("records-lost", 0);
	assert_int_equal(s.lost, st.lost);
	assert_int_equal(query("agent-start", 0).lines + st.lost, 8001);
	assert_false(query(NULL, 0).disorder);
}

static void arguments_that_are_not_utf8_are_kept_in_hex(void **state)
{
	struct kilter_event_exec x = {
	    .h = {.type = KILTER_EVENT_EXEC, .size = sizeof(x), .comm = "sh"},
	    .args_len = 5,
	    .file = "/bin/sh",
	    .args = "a\0\xff\""};
	struct audit *a = open_trail(0, 3, false);
	struct seen s;

	(void)state;
	audit_kernel_event(a, &x.h, NULL, 0);
	audit_close(&a);
	s = query("exec", 0);
	assert_int_equal(s.lines, 1);
	assert_non_null(strstr(s.text, "\"process.args\":[\"a\",\"\xef\xbf\xbd\\\"\"]"));
	assert_non_null(strstr(s.text, "\"kilter.args_hex\":\"6100ff2200\""));
}

static void a_malformed_kernel_record_is_counted_as_lost(void **state)
{
	struct kilter_event_exec x = {.h = {.type = KILTER_EVENT_EXEC, .size = sizeof(x.h)}};
	struct audit *a = open_trail(0, 3, false);

	(void)state;
	audit_kernel_event(a, &x.h, NULL, 0);
	x.h.size = sizeof(x);
	x.args_len = sizeof(x.args) + 1;
	audit_kernel_event(a, &x.h, NULL, 0);
	audit_close(&a);
	assert_int_equal(query("records-lost", 0).lost, 2);
	assert_int_equal(query("exec", 0).lines, 0);
}

#define TRAIL_TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TRAIL_TEST(sequence_goes_on_after_a_restart),
	    TRAIL_TEST(a_torn_tail_is_cut_and_told_of),
	    TRAIL_TEST(query_reads_across_compressed_files),
	    TRAIL_TEST(only_so_many_rotated_files_are_kept),
	    TRAIL_TEST(what_a_full_disk_cost_is_counted_exactly),
	    TRAIL_TEST(arguments_that_are_not_utf8_are_kept_in_hex),
	    TRAIL_TEST(a_malformed_kernel_record_is_counted_as_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
