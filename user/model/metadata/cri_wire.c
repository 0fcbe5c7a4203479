// SPDX-License-Identifier: Apache-2.0
#include "model/metadata/cri_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cri.pb-c.h"

#define ITEM_FIELD 1 /* both lists have their items in it */

/* Protocol Buffers, Encoding: wire types. 3 and 4, groups, are no part of proto3. */
enum wire_type {
	WIRE_VARINT = 0,
	WIRE_64BIT = 1,
	WIRE_BYTES = 2,
	WIRE_32BIT = 5,
};

enum reader_state {
	AT_PREFIX,
	AT_TAG,
	AT_VARINT, /* the value of a field that nobody wants */
	AT_LENGTH, /* of a field of bytes */
	AT_SKIP,
	AT_ITEM,
};

static size_t pack(const ProtobufCMessage *m, uint8_t *ret)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	if (n > CRI_REQUEST_MAX - 5) /* the id is longer than any is: ask for all */
		n = 0;
	ret[0] = 0; /* not compressed */
	ret[1] = ret[2] = ret[3] = 0;
	ret[4] = (uint8_t)n;
	if (n)
		protobuf_c_message_pack(m, ret + 5);
	return n + 5;
}

size_t cri_request(enum cri_list list, const char *id, uint8_t ret[static CRI_REQUEST_MAX])
{
	Cri__ListContainersRequest containers = CRI__LIST_CONTAINERS_REQUEST__INIT;
	Cri__ListPodSandboxRequest sandboxes = CRI__LIST_POD_SANDBOX_REQUEST__INIT;
	Cri__ContainerFilter container = CRI__CONTAINER_FILTER__INIT;
	Cri__PodSandboxFilter sandbox = CRI__POD_SANDBOX_FILTER__INIT;

	container.id = sandbox.id = (char *)(id ? id : "");
	containers.filter = id ? &container : NULL;
	sandboxes.filter = id ? &sandbox : NULL;
	return pack(list == CRI_CONTAINERS ? &containers.base : &sandboxes.base, ret);
}

void cri_item_labels(const struct cri_item *item, struct labels *l)
{
	const Cri__Container *c = item->message;
	const Cri__PodSandbox *s = item->message;
	Cri__Label **rows = item->list == CRI_CONTAINERS ? c->labels : s->labels;
	size_t n = item->list == CRI_CONTAINERS ? c->n_labels : s->n_labels;

	for (size_t i = 0; i < n; i++)
		labels_add(l, rows[i]->key, rows[i]->value);
}

void cri_reader_init(struct cri_reader *r, enum cri_list list, cri_item_fn fn, void *ctx)
{
	memset(r, 0, sizeof(*r));
	r->list = list;
	r->fn = fn;
	r->ctx = ctx;
}

void cri_reader_done(struct cri_reader *r)
{
	free(r->item);
	r->item = NULL;
}

/* What protobuf-c takes for one item is counted: a few bytes on the wire may become many. */
static void *take(void *left, size_t n)
{
	size_t *room = left;

	if (n > *room)
		return NULL;
	*room -= n;
	return malloc(n);
}

static void give_back(void *left, void *p)
{
	(void)left;
	free(p);
}

static void tell(struct cri_reader *r)
{
	size_t room = CRI_UNPACKED_MAX;
	ProtobufCAllocator memory = {.alloc = take, .free = give_back, .allocator_data = &room};
	struct cri_item item = {.list = r->list, .sandbox_id = ""};
	ProtobufCMessage *m = protobuf_c_message_unpack(
	    r->list == CRI_CONTAINERS ? &cri__container__descriptor : &cri__pod_sandbox__descriptor,
	    &memory, r->item_size, r->item);

	if (!m) {
		r->unusable++;
		return;
	}
	item.message = m;
	if (r->list == CRI_CONTAINERS) {
		item.id = ((const Cri__Container *)m)->id;
		item.sandbox_id = ((const Cri__Container *)m)->pod_sandbox_id;
	} else {
		item.id = ((const Cri__PodSandbox *)m)->id;
	}
	r->items++;
	r->fn(r->ctx, &item);
	protobuf_c_message_free_unpacked(m, &memory);
}

static int begin_message(struct cri_reader *r)
{
	uint32_t len = (uint32_t)r->prefix[1] << 24 | (uint32_t)r->prefix[2] << 16 |
		       (uint32_t)r->prefix[3] << 8 | r->prefix[4];

	if (r->prefix[0]) /* compressed: we did not offer to take that */
		return -EBADMSG;
	if (len > CRI_ANSWER_MAX)
		return -EFBIG;
	r->left = len;
	r->state = AT_TAG;
	return 0;
}

static int skip(struct cri_reader *r, uint64_t n)
{
	if (n > r->left)
		return -EBADMSG;
	r->skip = (uint32_t)n;
	r->state = n ? AT_SKIP : AT_TAG;
	return 0;
}

static int begin_field(struct cri_reader *r, uint64_t tag)
{
	uint64_t number = tag >> 3;

	if (!number || number >= 1u << 29)
		return -EBADMSG;
	r->wanted = number == ITEM_FIELD && (tag & 7) == WIRE_BYTES;
	switch (tag & 7) {
	case WIRE_VARINT:
		r->state = AT_VARINT;
		return 0;
	case WIRE_BYTES:
		r->state = AT_LENGTH;
		return 0;
	case WIRE_64BIT:
		return skip(r, 8);
	case WIRE_32BIT:
		return skip(r, 4);
	default:
		return -EBADMSG;
	}
}

static int begin_bytes(struct cri_reader *r, uint64_t len)
{
	uint8_t *room;

	if (len > r->left)
		return -EBADMSG;
	if (!r->wanted)
		return skip(r, len);
	if (len > CRI_ITEM_MAX) {
		r->unusable++;
		return skip(r, len);
	}
	room = realloc(r->item, len ? len : 1);
	if (!room)
		return -ENOMEM;
	r->item = room;
	r->item_size = (uint32_t)len;
	r->item_len = 0;
	r->state = AT_ITEM;
	if (!len) {
		r->state = AT_TAG;
		tell(r);
	}
	return 0;
}

/* One more byte of a varint; 1: it is whole, in *ret. */
static int more_varint(struct cri_reader *r, uint8_t byte, uint64_t *ret)
{
	if (r->shift == 63 && byte > 1) /* beyond 64 bits */
		return -EBADMSG;
	r->varint |= (uint64_t)(byte & 0x7f) << r->shift;
	r->shift = (uint8_t)(r->shift + 7);
	if (byte & 0x80)
		return 0;
	*ret = r->varint;
	r->varint = 0;
	r->shift = 0;
	return 1;
}

static int feed_byte(struct cri_reader *r, uint8_t byte)
{
	uint64_t n = 0;
	int err;

	if (r->state == AT_PREFIX) {
		r->prefix[r->prefix_len++] = byte;
		return r->prefix_len == sizeof(r->prefix) ? begin_message(r) : 0;
	}
	if (!r->left) /* a second message, of a call that has one answer */
		return -EBADMSG;
	r->left--;
	err = more_varint(r, byte, &n);
	if (err <= 0)
		return err;
	if (r->state == AT_TAG)
		return begin_field(r, n);
	if (r->state == AT_LENGTH)
		return begin_bytes(r, n);
	r->state = AT_TAG;
	return 0;
}

static size_t at_most(size_t a, size_t b)
{
	return a < b ? a : b;
}

int cri_reader_feed(struct cri_reader *r, const uint8_t *data, size_t len)
{
	while (len) {
		size_t n = 1;
		int err = 0;

		if (r->state == AT_SKIP) {
			n = at_most(len, r->skip);
			r->skip -= (uint32_t)n;
			r->left -= (uint32_t)n;
			if (!r->skip)
				r->state = AT_TAG;
		} else if (r->state == AT_ITEM) {
			n = at_most(len, r->item_size - r->item_len);
			memcpy(r->item + r->item_len, data, n);
			r->item_len += (uint32_t)n;
			r->left -= (uint32_t)n;
			if (r->item_len == r->item_size) {
				r->state = AT_TAG;
				tell(r);
			}
		} else {
			err = feed_byte(r, *data);
		}
		if (err)
			return err;
		data += n;
		len -= n;
	}
	return 0;
}

int cri_reader_end(const struct cri_reader *r)
{
	return r->state == AT_TAG && !r->left && !r->shift ? 0 : -EBADMSG;
}
