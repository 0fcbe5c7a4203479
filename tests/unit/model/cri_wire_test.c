// SPDX-License-Identifier: Apache-2.0
/* Lists of the container runtime interface: as a runtime sends them, cut anywhere, and as nobody
 * should. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/metadata/cri_wire.h"

#include <cmocka.h>

#define ID "3f9ad9c21f000000000000000000000000000000000000000000000000000001"

/* A message as it is built: bytes of fields, then the five of gRPC before them. */
static uint8_t message[CRI_ITEM_MAX + 65536];
static size_t message_len;
/* What the reader told. */
static char told[4096];

static int setup(void **state)
{
	(void)state;
	message_len = 5;
	memset(message, 0, 5);
	told[0] = '\0';
	return 0;
}

static void put_varint(uint64_t n)
{
	for (; n > 0x7f; n >>= 7)
		message[message_len++] = (uint8_t)(n | 0x80);
	message[message_len++] = (uint8_t)n;
}

static void put_bytes(unsigned int field, const void *data, size_t len)
{
	put_varint(field << 3 | 2);
	put_varint(len);
	memcpy(message + message_len, data, len);
	message_len += len;
}

static void put_text(unsigned int field, const char *s)
{
	put_bytes(field, s, strlen(s));
}

/* Opens a field of bytes; its length, which is not known yet, takes two bytes. */
static size_t open_field(unsigned int field)
{
	put_varint(field << 3 | 2);
	message_len += 2;
	return message_len;
}

static void close_field(size_t at)
{
	size_t len = message_len - at;

	assert_true(len < 1 << 14);
	message[at - 2] = (uint8_t)(len | 0x80);
	message[at - 1] = (uint8_t)(len >> 7);
}

static void put_label(unsigned int field, const char *key, const char *value)
{
	size_t at = open_field(field);

	put_text(1, key);
	put_text(2, value);
	close_field(at);
}

/* The length of the message, into the bytes before it. */
static void frame(void)
{
	size_t n = message_len - 5;

	for (int i = 4; i > 0; i--, n >>= 8)
		message[i] = (uint8_t)n;
}

static void tell(void *ctx, const struct cri_item *item)
{
	struct labels *l = labels_new();
	size_t n = strlen(told);

	(void)ctx;
	assert_non_null(l);
	cri_item_labels(item, l);
	n += (size_t)snprintf(told + n, sizeof(told) - n, "%s@%s", item->id, item->sandbox_id);
	for (const char *k = NULL; (k = labels_next(l, k));)
		n += (size_t)snprintf(told + n, sizeof(told) - n, " %s=%s", k, labels_value(k));
	snprintf(told + n, sizeof(told) - n, "\n");
	labels_free(&l);
}

/* Reads it in pieces of so many bytes. */
static int read_in(enum cri_list list, size_t piece, uint64_t *ret_unusable)
{
	struct cri_reader r;
	int err = 0;

	told[0] = '\0';
	cri_reader_init(&r, list, tell, NULL);
	for (size_t at = 0; !err && at < message_len; at += piece) {
		size_t n = message_len - at < piece ? message_len - at : piece;
		uint8_t *copy = malloc(n); /* so that ASan sees who reads on */

		assert_non_null(copy);
		memcpy(copy, message + at, n);
		err = cri_reader_feed(&r, copy, n);
		free(copy);
	}
	if (!err)
		err = cri_reader_end(&r);
	if (ret_unusable)
		*ret_unusable = r.unusable;
	cri_reader_done(&r);
	return err;
}

static void two_containers(void)
{
	size_t at = open_field(1), inner;

	put_text(1, "a");
	put_text(2, "pod");
	inner = open_field(3); /* metadata */
	put_text(1, "cart");
	close_field(inner);
	put_varint(6 << 3); /* state */
	put_varint(1);
	put_varint(7 << 3); /* created_at */
	put_varint(1795285762677700544);
	put_label(8, "app", "cart");
	put_label(8, "tier", "");
	put_label(9, "annotation", "none of ours");
	close_field(at);
	at = open_field(1);
	put_text(1, "b");
	close_field(at);
	frame();
}

static void a_list_of_containers_is_read_however_it_is_cut(void **state)
{
	(void)state;
	two_containers();
	for (size_t piece = 1; piece <= message_len; piece++) {
		assert_int_equal(read_in(CRI_CONTAINERS, piece, NULL), 0);
		assert_string_equal(told, "a@pod app=cart tier=\nb@\n");
	}
}

static void a_list_of_pods_has_its_labels_elsewhere(void **state)
{
	size_t at = open_field(1);

	(void)state;
	put_text(1, "pod");
	put_label(5, "app", "cart");
	put_label(8, "no", "label");
	close_field(at);
	frame();
	assert_int_equal(read_in(CRI_SANDBOXES, message_len, NULL), 0);
	assert_string_equal(told, "pod@ app=cart\n");
}

static void an_empty_list_is_one(void **state)
{
	(void)state;
	assert_int_equal(read_in(CRI_CONTAINERS, 1, NULL), 0);
	assert_string_equal(told, "");
}

static void fields_that_are_not_known_are_passed_over(void **state)
{
	(void)state;
	put_varint(2 << 3); /* a varint */
	put_varint(UINT64_MAX);
	put_varint(3 << 3 | 1);
	message_len += 8;
	put_varint(4 << 3 | 5);
	message_len += 4;
	put_text(5, "text");
	put_text(7, "");
	put_varint(1 << 3); /* of the items' number, and no item */
	put_varint(7);
	put_text(1, "");
	frame();
	for (size_t piece = 1; piece <= message_len; piece++) {
		assert_int_equal(read_in(CRI_CONTAINERS, piece, NULL), 0);
		assert_string_equal(told, "@\n");
	}
}

static void an_answer_that_ends_early_is_none(void **state)
{
	size_t whole;

	(void)state;
	two_containers();
	whole = message_len;
	for (message_len = 0; message_len < whole; message_len++)
		assert_int_equal(read_in(CRI_CONTAINERS, 7, NULL), -EBADMSG);
	message_len = whole + 1; /* and one that goes on */
	assert_int_equal(read_in(CRI_CONTAINERS, 7, NULL), -EBADMSG);
}

static void what_is_no_message_is_refused(void **state)
{
	static const struct {
		const char *what;
		uint8_t bytes[16];
		size_t len;
		int err;
	} rows[] = {
	    {"compressed", {1, 0, 0, 0, 0}, 5, -EBADMSG},
	    {"too long", {0, 1, 0, 0, 1}, 5, -EFBIG},
	    {"field 0", {0, 0, 0, 0, 2, 0x02, 0}, 7, -EBADMSG},
	    {"a group", {0, 0, 0, 0, 1, 0x0b}, 6, -EBADMSG},
	    {"an item beyond the end", {0, 0, 0, 0, 3, 0x0a, 2, 0}, 8, -EBADMSG},
	    {"8 bytes beyond the end", {0, 0, 0, 0, 3, 0x19, 0, 0}, 8, -EBADMSG},
	    {"a length beyond 64 bits",
	     {0, 0, 0, 0, 11, 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
	     16,
	     -EBADMSG},
	    {"a field that is too high",
	     {0, 0, 0, 0, 6, 0x80, 0x80, 0x80, 0x80, 0x10, 0},
	     11,
	     -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memcpy(message, rows[i].bytes, rows[i].len);
		message_len = rows[i].len;
		for (size_t piece = 1; piece <= 16; piece += 15)
			if (read_in(CRI_CONTAINERS, piece, NULL) != rows[i].err)
				fail_msg("%s, in pieces of %zu", rows[i].what, piece);
		assert_string_equal(told, "");
	}
}

static void an_item_that_is_no_message_is_counted_and_the_next_is_read(void **state)
{
	uint64_t unusable;

	(void)state;
	put_text(1, "\x0a\x05"); /* five bytes of an id, and there are none */
	put_bytes(1, "\x0a\x01z", 3);
	frame();
	assert_int_equal(read_in(CRI_CONTAINERS, 1, &unusable), 0);
	assert_string_equal(told, "z@\n");
	assert_int_equal(unusable, 1);
}

static void an_item_that_is_too_large_is_counted_and_the_next_is_read(void **state)
{
	uint64_t unusable;

	(void)state;
	put_varint(1 << 3 | 2);
	put_varint(CRI_ITEM_MAX + 1);
	memset(message + message_len, 0, CRI_ITEM_MAX + 1);
	message_len += CRI_ITEM_MAX + 1;
	put_bytes(1, "\x0a\x01z", 3);
	frame();
	assert_int_equal(read_in(CRI_CONTAINERS, 4096, &unusable), 0);
	assert_string_equal(told, "z@\n");
	assert_int_equal(unusable, 1);
}

/* Two bytes on the wire are a field, and a field costs its structure and a piece of memory. */
static void an_item_that_becomes_too_much_memory_is_counted(void **state)
{
	uint64_t unusable;

	(void)state;
	put_varint(1 << 3 | 2);
	put_varint(CRI_ITEM_MAX);
	for (size_t i = 0; i < CRI_ITEM_MAX; i += 2) {
		message[message_len++] = 15 << 3; /* a varint nobody knows */
		message[message_len++] = 0;
	}
	put_bytes(1, "\x0a\x01z", 3);
	frame();
	assert_int_equal(read_in(CRI_CONTAINERS, 65536, &unusable), 0);
	assert_string_equal(told, "z@\n");
	assert_int_equal(unusable, 1);
}

static void a_question_has_the_id_or_nothing(void **state)
{
	uint8_t ret[CRI_REQUEST_MAX];
	char too_long[200];

	(void)state;
	assert_int_equal(cri_request(CRI_CONTAINERS, NULL, ret), 5);
	assert_memory_equal(ret, "\0\0\0\0\0", 5);
	for (int list = CRI_CONTAINERS; list <= CRI_SANDBOXES; list++) {
		assert_int_equal(cri_request((enum cri_list)list, ID, ret), 5 + 68);
		assert_memory_equal(ret, "\0\0\0\0\x44\x0a\x42\x0a\x40" ID, 5 + 68);
	}
	memset(too_long, 'a', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	assert_int_equal(cri_request(CRI_CONTAINERS, too_long, ret), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(a_list_of_containers_is_read_however_it_is_cut, setup),
	    cmocka_unit_test_setup(a_list_of_pods_has_its_labels_elsewhere, setup),
	    cmocka_unit_test_setup(an_empty_list_is_one, setup),
	    cmocka_unit_test_setup(fields_that_are_not_known_are_passed_over, setup),
	    cmocka_unit_test_setup(an_answer_that_ends_early_is_none, setup),
	    cmocka_unit_test_setup(what_is_no_message_is_refused, setup),
	    cmocka_unit_test_setup(an_item_that_is_no_message_is_counted_and_the_next_is_read,
				   setup),
	    cmocka_unit_test_setup(an_item_that_is_too_large_is_counted_and_the_next_is_read,
				   setup),
	    cmocka_unit_test_setup(an_item_that_becomes_too_much_memory_is_counted, setup),
	    cmocka_unit_test_setup(a_question_has_the_id_or_nothing, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
