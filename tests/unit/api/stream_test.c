// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "api/stream.h"

#include <cmocka.h>

#define AREA   (4u << 20)
#define SERIES 1000u

struct fixture {
	struct snapshot_writer *w;
	struct moments *m;
	uint64_t cut;
};

static void publish(struct fixture *f, uint64_t ticks)
{
	struct snap_node *node;
	struct snap_series *s;
	char route[32];

	snapshot_begin(f->w);
	node = snapshot_add(f->w, SNAP_NODE, sizeof(*node));
	node->ticks = ticks;
	for (unsigned int i = 0; i < SERIES; i++) {
		snprintf(route, sizeof(route), "/%u", i);
		s = snapshot_add(f->w, SNAP_SERIES, sizeof(*s));
		assert_non_null(s);
		s->role = KILTER_ROLE_SERVER;
		s->route = snapshot_str(f->w, route);
	}
	assert_int_equal(snapshot_commit(f->w), 0);
}

static uint64_t ticks_of(const struct snapshot *s)
{
	return snapshot_rows(s, SNAP_NODE, struct snap_node)->ticks;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || snapshot_writer_new(&f->w, AREA) || moments_new(&f->m, snapshot_writer_fd(f->w)))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	moments_free(&f->m);
	snapshot_writer_free(&f->w);
	free(f);
	return 0;
}

static void what_is_held_stays_and_the_latest_is_always_there(void **state)
{
	struct fixture *f = *state;
	const struct snapshot *held[MOMENTS_MAX], *s;

	assert_null(moments_latest(f->m));
	assert_null(moments_held(f->m));
	for (unsigned int i = 0; i < MOMENTS_MAX; i++) {
		publish(f, i + 1);
		held[i] = moments_latest(f->m);
		assert_non_null(held[i]);
		assert_int_equal(ticks_of(held[i]), i + 1);
		assert_ptr_equal(moments_latest(f->m), held[i]);
		assert_int_equal(moments_hold(f->m, held[i]), i < MOMENTS_MAX - 1);
	}
	assert_ptr_equal(moments_held(f->m), held[MOMENTS_MAX - 2]);
	for (uint64_t i = 10; i < 20; i++) {
		publish(f, i);
		s = moments_latest(f->m);
		assert_non_null(s);
		assert_int_equal(ticks_of(s), i);
	}
	/* A second holder of the same one takes no room. */
	assert_true(moments_hold(f->m, held[0]));
	moments_release(f->m, held[0]);
	assert_false(moments_hold(f->m, s));
	moments_release(f->m, held[0]);
	assert_true(moments_hold(f->m, s));
	assert_int_equal(ticks_of(held[1]), 2);
	moments_release(f->m, held[1]);
	moments_release(f->m, s);
}

/* All that a stream gives, read size bytes at a time. */
static char *read_all(struct fixture *f, bool gzip, size_t size, size_t *ret_len)
{
	const struct snapshot *s = moments_latest(f->m);
	struct prometheus *text = NULL;
	struct stream *stream = NULL;
	const char *piece;
	char *body, *all = NULL;
	size_t len;
	int64_t n;

	assert_true(moments_hold(f->m, s));
	assert_int_equal(prometheus_new(&text, s, false), 0);
	assert_int_equal(prometheus_next(text, NULL, 0, &piece, &len), 0);
	assert_false(prometheus_done(text));
	body = malloc(len);
	assert_non_null(body);
	memcpy(body, piece, len);
	assert_int_equal(stream_new(&stream, f->m, s, &text, &body, len, gzip, NULL, 0, &f->cut),
			 0);
	assert_null(text);
	assert_null(body);
	publish(f, 99); /* what is under way is not concerned */
	assert_non_null(moments_latest(f->m));
	*ret_len = 0;
	do {
		all = realloc(all, *ret_len + size + 1);
		assert_non_null(all);
		n = stream_read(stream, all + *ret_len, size);
		assert_in_range(n, 0, size);
		*ret_len += (size_t)n;
	} while (n);
	all[*ret_len] = '\0';
	stream_free(&stream);
	return all;
}

static void zipped_or_not_it_is_the_same_text(void **state)
{
	static const size_t sizes[] = {1000, 32768, 16u << 20};
	struct fixture *f = *state;
	size_t len, zipped_len, out_len;
	char *plain, *zipped, *out;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		z_stream z = {0};

		publish(f, 7);
		plain = read_all(f, false, sizes[i], &len);
		assert_non_null(strstr(plain, "url_template=\"/999\""));
		assert_non_null(strstr(plain, "\nkilter_ticks_total 7\n"));
		publish(f, 7);
		zipped = read_all(f, true, sizes[i], &zipped_len);
		out = malloc(len + 1);
		assert_non_null(out);
		assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
		z.next_in = (Bytef *)zipped;
		z.avail_in = (uInt)zipped_len;
		z.next_out = (Bytef *)out;
		z.avail_out = (uInt)(len + 1);
		assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
		out_len = z.total_out;
		inflateEnd(&z);
		assert_int_equal(z.avail_in, 0);
		assert_int_equal(out_len, len);
		assert_memory_equal(out, plain, len);
		free(out);
		free(zipped);
		free(plain);
	}
	assert_int_equal(f->cut, 0);
	assert_null(moments_held(f->m));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_held_stays_and_the_latest_is_always_there,
					    setup, teardown),
	    cmocka_unit_test_setup_teardown(zipped_or_not_it_is_the_same_text, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
