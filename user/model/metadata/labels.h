/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels of a container and its pod, from the files its runtime keeps on the node. To talk with a
 * runtime is cri.h's. What is read was written for others, by others: it is bounded here, and only
 * labels leave (Docker's file has the environment in it, secrets and all).
 */
#ifndef KILTER_MODEL_METADATA_LABELS_H
#define KILTER_MODEL_METADATA_LABELS_H

#include <stdbool.h>
#include <stdint.h>

#define LABELS_MAX		64   /* of one container with its pod */
#define LABELS_KEY_MAX		317  /* Kubernetes: a prefix of 253, '/', a name of 63 */
#define LABELS_VALUE_MAX	255  /* Kubernetes: 63; Docker: any */
#define LABELS_BYTES_MAX	4096 /* of all of them together: what a workload may cost us */
#define LABELS_CONTAINER_ID_LEN 64   /* hexadecimal digits: a SHA-256 */
/* A pod's annotations are in the same file and may have 256 KiB, CRI-O has them twice. */
#define LABELS_FILE_MAX (1u << 20)

/* Keys and values, each ended by NUL. What is not printable ASCII is '?', as in all names. */
struct labels {
	uint32_t count, bytes, room;
	uint32_t dropped; /* found no room */
	bool partial;	  /* there are more, and they are in no file */
	char text[];
};

/* NULL: no memory. */
struct labels *labels_new(void);
void labels_free(struct labels **l);
/* As small as can be: nothing can be added. NULL for NULL, or without memory. */
struct labels *labels_copy(const struct labels *l);
/* -EEXIST: the first one stays; -EINVAL: without a key; -E2BIG: dropped, and counted so. */
int labels_add(struct labels *l, const char *key, const char *value);
/* The value, or NULL. */
const char *labels_get(const struct labels *l, const char *key);
/* Walks: after == NULL for the first key; NULL at the end (and for no labels). */
const char *labels_next(const struct labels *l, const char *after);
/* The value beside a key of labels_next(). */
const char *labels_value(const char *key);
/* The same keys and values in the same order? NULL has none. */
bool labels_equal(const struct labels *a, const struct labels *b);
/* Has s the form of a container's id? */
bool labels_is_container_id(const char *s);

/*
 * Of the container with this id (64 digits), below root ("" for "/"):
 *
 *   CRI-O       its own, and those of its pod: the sandbox is a container of its own
 *   Docker      its own; with cri-dockerd those of the pod as well
 *   containerd  only what the kubelet gives each container: io.kubernetes.pod.name, .namespace and
 *               .uid, io.kubernetes.container.name. The pod's own are in no file: partial.
 *
 * -ENOENT: nobody has labels of it. Else what is wrong with a file: -EBADMSG, -EFBIG, -EACCES, ...
 */
int labels_read(const char *root, const char *container_id, struct labels **ret);

#endif
