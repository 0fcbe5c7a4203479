// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "model/metadata/cgroup.h"
#include "model/route.h"
#include "model/snapshot.h"
#include "model/window.h"

#include <cmocka.h>

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static uint64_t random_ns(void)
{
	return (((uint64_t)rand() << 31) ^ (uint64_t)rand()) >> (rand() % 50 + 10);
}

static void every_index_holds_its_value(void **state)
{
	(void)state;
	srand(1);
	for (int i = 0; i < 1000000; i++) {
		uint64_t ns = random_ns();
		long double s = (long double)ns / 1e9L, exact;
		uint32_t idx = kilter_exp_index(ns);
		long double upper = exp2l((long double)idx / 8 - 20);
		long double lower = exp2l((long double)((int)idx - 1) / 8 - 20);

		/* The constants are 32 bits, the scale factor 0.32 fixed point. */
		exact = 1e-9L;
		if (idx < KILTER_EXP_BUCKETS - 1)
			assert_true(s <= upper * (1 + exact) + 1e-9L);
		if (idx)
			assert_true(s >= lower * (1 - exact) - 1e-9L);
	}
	assert_int_equal(kilter_exp_index(0), 0);
	assert_int_equal(kilter_exp_index(UINT64_MAX), KILTER_EXP_BUCKETS - 1);
	assert_int_equal(kilter_exp_index(NS_PER_SEC), 160);
	assert_int_equal(kilter_exp_index(NS_PER_SEC + 2), 161);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void quantiles_are_within_the_stated_error(void **state)
{
	static const double qs[] = {0, 0.5, 0.9, 0.95, 0.99, 1};

	(void)state;
	srand(2);
	for (int round = 0; round < 200; round++) {
		uint64_t counts[KILTER_EXP_BUCKETS] = {0}, values[500];
		size_t n = (size_t)rand() % 500 + 1;

		for (size_t i = 0; i < n; i++) {
			values[i] = 1000 + random_ns() % (100 * NS_PER_SEC);
			counts[kilter_exp_index(values[i])]++;
		}
		qsort(values, n, sizeof(values[0]), by_value);
		for (size_t q = 0; q < sizeof(qs) / sizeof(qs[0]); q++) {
			size_t rank = (size_t)ceil(qs[q] * (double)n);
			double exact = (double)values[rank ? rank - 1 : 0] / 1e9;

			assert_true(fabs(hist_quantile(counts, qs[q]) / exact - 1) <=
				    HIST_REL_ERROR + 1e-3);
		}
	}
}

static void an_empty_histogram_has_no_quantile(void **state)
{
	uint64_t counts[KILTER_EXP_BUCKETS] = {0};

	(void)state;
	assert_true(isnan(hist_quantile(counts, 0.5)));
}

/* Ticks at irregular times, random counts; what a window must hold is summed naively. */
static void windows_agree_with_a_naive_reference(void **state)
{
	static const uint64_t slot[] = {1, 10, 60, 300};
	static const uint64_t slots[] = {10, 6, 5, 12};
	static struct {
		uint64_t mid, count, took;
	} log[4000];
	struct window_clock c = {.tick_ns = NS_PER_SEC};
	struct window_red *w = NULL;
	uint64_t now = 1000 * NS_PER_SEC, prev = now;

	(void)state;
	srand(3);
	assert_int_equal(window_red_new(&w), 0);
	window_clock_tick(&c, now);
	for (int i = 0; i < 4000; i++) {
		__u32 exp[KILTER_EXP_BUCKETS] = {0};
		uint64_t n = (uint64_t)(rand() % 3) * (uint64_t)(rand() % 50);
		struct window_red_delta d = {.requests = n, .errors = n / 2, .exp = exp};

		exp[rand() % KILTER_EXP_BUCKETS] = (__u32)n;
		if (n)
			assert_int_equal(window_red_add(w, &d), 0);
		now += NS_PER_SEC - 20000000 + (uint64_t)(rand() % 40000000);
		if (rand() % 50 == 0)
			now += (uint64_t)(rand() % 20) * NS_PER_SEC;
		window_clock_tick(&c, now);
		assert_int_equal(window_red_settle(w, &c), 0);
		log[i].took = now - prev;
		log[i].mid = now - log[i].took / 2;
		log[i].count = n;
		prev = now;
		for (int s = 0; s < MODEL_SPANS; s++) {
			uint64_t step = slot[s] * NS_PER_SEC, sum = 0, took = 0;
			uint64_t back = log[i].took < NS_PER_SEC ? log[i].took : NS_PER_SEC;
			uint64_t head = (now - back / 2) / step;
			struct model_red red;

			for (int k = i; k >= 0; k--) {
				if (log[k].mid / step + slots[s] <= head)
					break;
				sum += log[k].count;
				took += log[k].took;
			}
			window_red_read(w, &c, (enum model_span)s, &red);
			assert_int_equal(red.requests, sum);
			assert_true(red.covered_ns ==
				    (took < model_span_ns[s] ? took : model_span_ns[s]));
		}
	}
	window_red_free(&w);
}

static void a_new_window_says_how_little_it_has_seen(void **state)
{
	struct window_clock c = {.tick_ns = NS_PER_SEC};
	struct model_red red;

	(void)state;
	for (uint64_t s = 100; s <= 103; s++)
		window_clock_tick(&c, s * NS_PER_SEC);
	window_red_read(NULL, &c, MODEL_1M, &red);
	assert_true(red.covered_ns == 3 * NS_PER_SEC);
	assert_true(isnan(red.error_ratio));
}

static void cgroup_paths_name_what_runs_in_them(void **state)
{
	static const struct {
		const char *path;
		enum cgroup_kind kind;
		const char *id, *pod, *unit;
	} rows[] = {
	    {"/", CGROUP_OTHER, "", "", ""},
	    {"", CGROUP_OTHER, "", "", ""},
	    {"/system.slice/nginx.service", CGROUP_UNIT, "", "", "nginx"},
	    {"/system.slice/system-getty.slice/getty@tty1.service", CGROUP_UNIT, "", "",
	     "getty@tty1"},
	    {"/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", CGROUP_UNIT, "",
	     "", "foo"},
	    {"/user.slice/user-1000.slice/session-3.scope", CGROUP_OTHER, "", "", ""},
	    {"/user.slice/user-1000.slice/user@1000.service/init.scope", CGROUP_OTHER, "", "", ""},
	    {"/system.slice/docker-" HEX64 ".scope", CGROUP_CONTAINER, HEX64, "", ""},
	    {"/docker/" HEX64, CGROUP_CONTAINER, HEX64, "", ""},
	    {"/machine.slice/libpod-" HEX64 ".scope", CGROUP_CONTAINER, HEX64, "", ""},
	    {"/machine.slice/libpod-conmon-" HEX64 ".scope", CGROUP_OTHER, "", "", ""},
	    {"/kubepods.slice/kubepods-burstable.slice/"
	     "kubepods-burstable-pod11111111_2222_3333_4444_555555555555.slice/"
	     "cri-containerd-" HEX64 ".scope",
	     CGROUP_CONTAINER, HEX64, "11111111-2222-3333-4444-555555555555", ""},
	    {"/kubepods.slice/kubepods-pod11111111_2222_3333_4444_555555555555.slice/crio-" HEX64
	     ".scope",
	     CGROUP_CONTAINER, HEX64, "11111111-2222-3333-4444-555555555555", ""},
	    {"/kubepods/burstable/pod11111111-2222-3333-4444-555555555555/" HEX64, CGROUP_CONTAINER,
	     HEX64, "11111111-2222-3333-4444-555555555555", ""},
	    {"/system.slice/docker-" HEX64 ".scope/system.slice/ssh.service", CGROUP_CONTAINER,
	     HEX64, "", ""},
	    {"/lxc.payload.web/system.slice/nginx.service", CGROUP_CONTAINER, "web", "", ""},
	    {"/lxc/web", CGROUP_CONTAINER, "web", "", ""},
	    {"/system.slice/not-hex-"
	     "g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
	     CGROUP_OTHER, "", "", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct cgroup_identity id;

		cgroup_parse(rows[i].path, &id);
		if (id.kind != rows[i].kind)
			fail_msg("%s: kind %d", rows[i].path, (int)id.kind);
		assert_string_equal(id.container_id, rows[i].id);
		assert_string_equal(id.pod_uid, rows[i].pod);
		assert_string_equal(id.unit, rows[i].unit);
	}
}

static void the_mount_of_the_whole_hierarchy_is_found(void **state)
{
	char buf[64];

	(void)state;
	assert_int_equal(
	    cgroup_find_mount("1 2 0:28 / /sys rw - tmpfs tmpfs rw\n"
			      "3 2 0:41 /sub /mnt rw - cgroup2 cgroup2 rw\n"
			      "4 2 0:41 / /sys/fs/c\\040g rw shared:4 - cgroup2 x rw\n",
			      buf, sizeof(buf)),
	    0);
	assert_string_equal(buf, "/sys/fs/c g");
	assert_int_not_equal(cgroup_find_mount("garbage\n - cgroup2 ", buf, sizeof(buf)), 0);
}

static __u32 route_hash(const char *p)
{
	struct kilter_route_hash h;

	kilter_route_begin(&h, 1);
	for (; *p; p++)
		kilter_route_byte(&h, (__u8)*p);
	return kilter_route_end(&h);
}

static void equal_templates_have_equal_hashes(void **state)
{
	static const struct {
		const char *a, *b, *text;
	} rows[] = {
	    {"/users/42/posts", "/users/7/posts", "/users/{id}/posts"},
	    {"/v1/items/abc9", "/v1/items/1", "/v1/items/{id}"},
	    {"/", "/", "/"},
	    {"/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/x", "/a/b/c/d/e/f/g/{rest}"},
	    {"/a b\"", "/a b\"", "/a%20b%22"},
	    {"*", "*", "*"},
	    {"/a1b2", "/7.x", "/{id}"},
	    {"/deploy/2024.Report/1", "/deploy/a1.Report/2", "/deploy/{id}/{id}"},
	};
	char text[ROUTE_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		route_text(rows[i].a, strlen(rows[i].a), text);
		assert_string_equal(text, rows[i].text);
		route_text(rows[i].b, strlen(rows[i].b), text);
		assert_string_equal(text, rows[i].text);
		assert_int_equal(route_hash(rows[i].a), route_hash(rows[i].b));
	}
	assert_int_not_equal(route_hash("/a"), route_hash("/b"));
}

static void a_method_of_grpc_is_no_identifier(void **state)
{
	static const struct {
		const char *path, *text;
	} rows[] = {
	    {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Check"},
	    {"/pb2.Sha256/Sum512", "/pb2.Sha256/Sum512"},
	    {"/a_1._b.C3/_d4", "/a_1._b.C3/_d4"},
	    /* Longer than an identifier's 32 bytes. */
	    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	     "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"},
	    {"/a.B/TheQuickBrownFoxJumpsOverTheLazyDog",
	     "/a.B/TheQuickBrownFoxJumpsOverTheLazyDog"},
	    /* What is behind a service and no word, or behind its method, is as ever. */
	    {"/grpc.health.v1.Health/42", "/grpc.health.v1.Health/{id}"},
	    {"/grpc.health.v1.Health/a-1", "/grpc.health.v1.Health/{id}"},
	    {"/grpc.health.v1.Health/Check/a1", "/grpc.health.v1.Health/Check/{id}"},
	    {"/grpc.health.v1.Health//a1", "/grpc.health.v1.Health//{id}"},
	    /* What looks like one and is none: where it stands, its words, its case. */
	    {"/x/grpc.health.v1.Health/Check2", "/x/{id}/{id}"},
	    {"/Greeter2/Hello2", "/{id}/{id}"},
	    {"/IMG_0001.Jpg/a1", "/{id}/{id}"},
	    {"/app.v2.js", "/{id}"},
	    {"/a.1b.Cd/x1", "/{id}/{id}"},
	    {"/a1..Cd/x1", "/{id}/{id}"},
	    {"/.a1.Cd/x1", "/{id}/{id}"},
	    {"/a1.Cd./x1", "/{id}/{id}"},
	    {"/a1.Cd.Ef/x1", "/{id}/{id}"},
	    {"/a1.Cd-Ef/x1", "/{id}/{id}"},
	    {"/a1.B~/x1", "/{id}/{id}"},
	    {"/a1.B\xe9/x1", "/{id}/{id}"},
	    {"a1.Cd/x1", "{id}/{id}"},
	};
	char text[ROUTE_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		route_text(rows[i].path, strlen(rows[i].path), text);
		assert_string_equal(text, rows[i].text);
	}
	assert_int_not_equal(route_hash("/a.v1.B/C1"), route_hash("/a.v1.B/C2"));
	assert_int_not_equal(route_hash("/a.v1.B/C"), route_hash("/a.v2.B/C"));
	assert_int_equal(route_hash("/a.v1.B/1"), route_hash("/a.v1.B/2"));
}

static void a_snapshot_reads_back_and_repeats_no_string(void **state)
{
	struct snapshot s = {0};
	struct snapshot_writer *w = NULL;
	struct snapshot_reader *r = NULL;
	struct snap_map *row;

	(void)state;
	assert_int_equal(snapshot_writer_new(&w, 1 << 20), 0);
	assert_int_equal(snapshot_reader_open(&r, snapshot_writer_fd(w)), 0);
	assert_int_not_equal(snapshot_read(r, &s), 0);
	for (int i = 0; i < 5; i++) {
		snapshot_begin(w);
		row = snapshot_add(w, SNAP_MAPS, sizeof(*row));
		row->name = snapshot_str(w, "series");
		row->entries = (uint64_t)i;
		assert_int_equal(snapshot_str(w, "series").off, row->name.off);
		assert_int_equal(snapshot_commit(w), 0);
		assert_int_equal(snapshot_read(r, &s), 0);
		assert_int_equal(s.counts[SNAP_MAPS], 1);
		assert_int_equal(snapshot_rows(&s, SNAP_MAPS, struct snap_map)->entries, i);
		assert_string_equal(
		    snapshot_text(&s, snapshot_rows(&s, SNAP_MAPS, struct snap_map)->name),
		    "series");
	}
	assert_string_equal(snapshot_text(&s, (snap_str){UINT32_MAX, 4}), "");
	assert_string_equal(snapshot_text(&s, (snap_str){0, UINT32_MAX}), "");
	snapshot_done(&s);
	snapshot_reader_free(&r);
	snapshot_writer_free(&w);
}

static void a_full_area_is_counted_and_still_readable(void **state)
{
	struct snapshot s = {0};
	struct snapshot_writer *w = NULL;
	struct snapshot_reader *r = NULL;
	uint32_t fit = 0;

	(void)state;
	assert_int_equal(snapshot_writer_new(&w, 16384), 0);
	assert_int_equal(snapshot_reader_open(&r, snapshot_writer_fd(w)), 0);
	for (int i = 0; i < 1000; i++)
		fit += !!snapshot_add(w, SNAP_MAPS, sizeof(struct snap_map));
	assert_true(fit > 0 && fit < 1000);
	assert_int_not_equal(snapshot_commit(w), 0);
	assert_int_equal(snapshot_dropped(w), 1000 - fit);
	assert_int_equal(snapshot_read(r, &s), 0);
	assert_int_equal(s.counts[SNAP_MAPS], fit);
	snapshot_done(&s);
	snapshot_reader_free(&r);
	snapshot_writer_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_index_holds_its_value),
	    cmocka_unit_test(quantiles_are_within_the_stated_error),
	    cmocka_unit_test(an_empty_histogram_has_no_quantile),
	    cmocka_unit_test(windows_agree_with_a_naive_reference),
	    cmocka_unit_test(a_new_window_says_how_little_it_has_seen),
	    cmocka_unit_test(cgroup_paths_name_what_runs_in_them),
	    cmocka_unit_test(the_mount_of_the_whole_hierarchy_is_found),
	    cmocka_unit_test(equal_templates_have_equal_hashes),
	    cmocka_unit_test(a_method_of_grpc_is_no_identifier),
	    cmocka_unit_test(a_snapshot_reads_back_and_repeats_no_string),
	    cmocka_unit_test(a_full_area_is_counted_and_still_readable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
