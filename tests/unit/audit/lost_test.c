// SPDX-License-Identifier: Apache-2.0
/* What the kernel lost is told once, whichever of the daemon's lives sees it, and SIGHUP's options.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "core/clock.h"

#include <cmocka.h>

static char dir[64], file[128];

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/audit_lost_test.XXXXXX");
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

static struct audit *open_trail(uint64_t origin)
{
	struct audit_options o = {
	    .file = file, .state_dir = dir, .keep = 5, .losses_origin = origin};
	struct audit *a = NULL;

	assert_int_equal(audit_open(&a, &o), 0);
	return a;
}

struct lost {
	unsigned int records;
	unsigned long long count;
};

static int see(void *ctx, const char *line, size_t len)
{
	static const char key[] = "\"kilter.records_lost\":";
	struct lost *l = ctx;
	const char *p = memmem(line, len, key, sizeof(key) - 1);

	if (p) {
		l->records++;
		l->count += strtoull(p + sizeof(key) - 1, NULL, 10);
	}
	return 0;
}

static struct lost told(void)
{
	struct audit_query q = {.file = file};
	struct lost l = {0};
	uint64_t bad = 1;

	assert_int_equal(audit_query_run(&q, see, &l, &bad), 0);
	assert_int_equal(bad, 0);
	return l;
}

static void end(struct audit *a)
{
	audit_tick(a, clock_real_ns());
	audit_close(&a);
}

static void a_total_is_told_by_what_it_grew(void **state)
{
	struct audit *a = open_trail(1);

	(void)state;
	audit_lost_total(a, AUDIT_LOST_RING, 0);
	audit_lost_total(a, AUDIT_LOST_RING, 5);
	audit_lost_total(a, AUDIT_LOST_RING, 5);
	audit_lost_total(a, AUDIT_LOST_RING, 12);
	audit_lost_total(a, AUDIT_LOST_RING, 0); /* a read that failed */
	audit_lost_total(a, AUDIT_LOST_RING, 12);
	end(a);
	assert_int_equal(told().records, 2);
	assert_int_equal(told().count, 12);
}

static void another_life_tells_only_what_is_new(void **state)
{
	struct audit *a = open_trail(0xfeedfacecafebeefull);

	(void)state;
	audit_lost_total(a, AUDIT_LOST_RING, 100);
	audit_lost_total(a, AUDIT_LOST_REFUSED, 30);
	audit_lost_total(a, AUDIT_LOST_DATAGRAMS, 8);
	end(a);
	assert_int_equal(told().count, 138);
	a = open_trail(0xfeedfacecafebeefull);
	audit_lost_total(a, AUDIT_LOST_RING, 103); /* 3 while nobody was there */
	audit_lost_total(a, AUDIT_LOST_REFUSED, 30);
	audit_lost_total(a, AUDIT_LOST_DATAGRAMS, 9);
	end(a);
	assert_int_equal(told().count, 142);
}

static void counters_of_another_boot_begin_anew(void **state)
{
	struct audit *a = open_trail(1);

	(void)state;
	audit_lost_total(a, AUDIT_LOST_RING, 100);
	end(a);
	a = open_trail(2);
	audit_lost_total(a, AUDIT_LOST_RING, 7);
	end(a);
	assert_int_equal(told().count, 107);
}

static void a_sequence_file_of_an_older_form_or_a_broken_one_is_read_as_far_as_it_goes(void **state)
{
	static const char *const rows[] = {
	    "00000000000000000041\n",
	    "00000000000000000041\nxxxxxxxxxxxxxxxx 00000000000000000100 00000000000000000100\n",
	    "00000000000000000041\n0000000000000001 000000000",
	};
	char seq[192];

	(void)state;
	snprintf(seq, sizeof(seq), "%s/audit.seq", dir);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct audit_stats stats;
		struct audit *a;
		FILE *f = fopen(seq, "we");

		assert_non_null(f);
		fputs(rows[i], f);
		assert_int_equal(fclose(f), 0);
		unlink(file);
		a = open_trail(1);
		audit_get_stats(a, &stats);
		assert_int_equal(stats.sequence, 41);
		audit_lost_total(a, AUDIT_LOST_RING, 2);
		end(a);
		assert_int_equal(told().count, 2);
	}
}

static void rotation_goes_by_the_newest_options(void **state)
{
	struct audit *a = open_trail(1);
	struct audit_stats stats;

	(void)state;
	for (int i = 0; i < 2; i++) {
		audit_bus_event(a, &(struct bus_event){
				       .kind = BUS_AGENT_START, .subject = "x", .uid = UINT32_MAX});
		audit_tick(a, clock_real_ns());
	}
	audit_get_stats(a, &stats);
	assert_int_equal(stats.rotations, 0);
	audit_reconfigure(a, &(struct audit_options){.max_bytes = 10, .keep = 5});
	audit_tick(a, clock_real_ns());
	audit_get_stats(a, &stats);
	assert_int_equal(stats.rotations, 1);
	end(a);
}

#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_total_is_told_by_what_it_grew),
	    T(another_life_tells_only_what_is_new),
	    T(counters_of_another_boot_begin_anew),
	    T(a_sequence_file_of_an_older_form_or_a_broken_one_is_read_as_far_as_it_goes),
	    T(rotation_goes_by_the_newest_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
