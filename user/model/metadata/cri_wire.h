/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said to a container runtime, and what it says: messages of the container runtime
 * interface (cri.proto) as gRPC carries them, each behind five bytes (gRPC over HTTP/2,
 * Length-Prefixed-Message).
 *
 * An answer is one message, a list, that may be long. It is taken apart while it comes in: its
 * items are unpacked one by one, and never are two of them in memory. What is sent is an attacker's
 * here.
 */
#ifndef KILTER_MODEL_METADATA_CRI_WIRE_H
#define KILTER_MODEL_METADATA_CRI_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/metadata/labels.h"

#ifndef CRI_ANSWER_MAX		      /* the fuzzer has its own: small ones are reached */
#define CRI_ANSWER_MAX	 (16u << 20)  /* of one list; the kubelet takes no more either */
#define CRI_ITEM_MAX	 (512u << 10) /* one item: a pod's annotations alone may have 256 KiB */
#define CRI_UNPACKED_MAX (4u << 20)   /* all memory that one item may take, unpacked */
#endif
#define CRI_REQUEST_MAX 128 /* a request with its five bytes: at most an id is in it */

enum cri_list {
	CRI_CONTAINERS,
	CRI_SANDBOXES, /* of pods */
};

/* Writes a question for a list, with the five bytes before it; id: of the one that is wanted, or
 * NULL for all. Returns how many bytes it has. */
size_t cri_request(enum cri_list list, const char *id, uint8_t ret[static CRI_REQUEST_MAX]);

/* One of a list, borrowed. */
struct cri_item {
	const char *id;
	const char *sandbox_id; /* of a container: that of its pod; else "" */
	const void *message;
	enum cri_list list;
};
/* To what l has; see labels_add(). */
void cri_item_labels(const struct cri_item *item, struct labels *l);

typedef void (*cri_item_fn)(void *ctx, const struct cri_item *item);

/* The reader of one answer. */
struct cri_reader {
	enum cri_list list;
	cri_item_fn fn;
	void *ctx;
	uint64_t items;	   /* that were told */
	uint64_t unusable; /* that are too large, or no such message: passed over */
	/* Below is the reader's own. */
	int state;
	bool wanted;	    /* the field that is being read is an item */
	uint8_t prefix[5];  /* of gRPC */
	uint8_t prefix_len; /* so much of it is here */
	uint8_t shift;	    /* bits of the varint that is being read */
	uint64_t varint;
	uint32_t left; /* bytes of the message to come */
	uint32_t skip; /* bytes of a field that nobody wants, to come */
	uint8_t *item;
	uint32_t item_len, item_size; /* what is here of it, and what there will be */
};

void cri_reader_init(struct cri_reader *r, enum cri_list list, cri_item_fn fn, void *ctx);
void cri_reader_done(struct cri_reader *r);
/* More of the answer, cut anywhere. -EBADMSG: it is none; -EFBIG; -ENOMEM. After an error it is
 * over. */
int cri_reader_feed(struct cri_reader *r, const uint8_t *data, size_t len);
/* No more will come. -EBADMSG: something is missing. */
int cri_reader_end(const struct cri_reader *r);

#endif
