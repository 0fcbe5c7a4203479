// SPDX-License-Identifier: Apache-2.0
/* An answer of a container runtime as anybody may have written it, read whole and in pieces: both
 * must come to the same, and never beyond what one item may cost. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Small ones are reached. */
#define CRI_ANSWER_MAX	 4096
#define CRI_ITEM_MAX	 256
#define CRI_UNPACKED_MAX 2048
#include "model/metadata/cri_wire.c" /* instead of the library's */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	uint64_t items, hash;
};

static void must(bool so)
{
	if (!so)
		abort();
}

static void mix(struct seen *s, const char *text)
{
	for (; *text; text++)
		s->hash = (s->hash ^ (uint8_t)*text) * 0x100000001b3ull;
	s->hash = (s->hash ^ 0xff) * 0x100000001b3ull;
}

static void see(void *ctx, const struct cri_item *item)
{
	struct labels *l = labels_new();
	struct seen *s = ctx;
	uint32_t n = 0;

	must(l && strlen(item->id) <= CRI_ITEM_MAX && strlen(item->sandbox_id) <= CRI_ITEM_MAX);
	s->items++;
	mix(s, item->id);
	mix(s, item->sandbox_id);
	cri_item_labels(item, l);
	for (const char *k = NULL; (k = labels_next(l, k)); n++) {
		must(k[0] && strlen(k) <= LABELS_KEY_MAX);
		must(strlen(labels_value(k)) <= LABELS_VALUE_MAX);
		mix(s, k);
		mix(s, labels_value(k));
	}
	must(n == l->count && n <= LABELS_MAX && l->bytes <= LABELS_BYTES_MAX);
	labels_free(&l);
}

/* What came of it: an error, or how it ends. */
static int read_in(enum cri_list list, const uint8_t *data, size_t size, size_t piece,
		   struct seen *ret, uint64_t *ret_unusable)
{
	struct cri_reader r;
	int err = 0;

	memset(ret, 0, sizeof(*ret));
	cri_reader_init(&r, list, see, ret);
	for (size_t at = 0; !err && at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		uint8_t *copy = malloc(n); /* of its own length, so that ASan sees who reads on */

		must(copy);
		memcpy(copy, data + at, n);
		err = cri_reader_feed(&r, copy, n);
		free(copy);
		must(r.item_size <= CRI_ITEM_MAX && r.item_len <= r.item_size);
		must(r.left <= CRI_ANSWER_MAX && r.skip <= r.left);
	}
	if (!err)
		err = cri_reader_end(&r);
	must(r.items == ret->items);
	*ret_unusable = r.unusable;
	cri_reader_done(&r);
	must(!err || err == -EBADMSG || err == -EFBIG);
	return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum cri_list list;
	struct seen whole, pieces;
	uint64_t unusable, unusable_in_pieces;
	size_t piece;
	int err;

	if (size < 2)
		return 0;
	list = data[0] & 1 ? CRI_SANDBOXES : CRI_CONTAINERS;
	piece = 1 + data[1];
	data += 2;
	size -= 2;
	err = read_in(list, data, size, size ? size : 1, &whole, &unusable);
	must(read_in(list, data, size, piece, &pieces, &unusable_in_pieces) == err);
	must(whole.items == pieces.items && whole.hash == pieces.hash);
	must(unusable == unusable_in_pieces);
	return 0;
}
