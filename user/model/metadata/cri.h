/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels from the container runtime itself, over the container runtime interface (CRI): for
 * containerd, where the labels of pods are in no file. A client of two calls, ListContainers and
 * ListPodSandbox, over HTTP/2 on the runtime's Unix socket. It never waits: it lives in the event
 * loop, and reads a bounded piece at a time.
 *
 * Ids that are wanted gather for a moment and go in one batch, a connection for each: one question
 * for containers, one for pods, however many there are. An id that the runtime does not know is
 * asked for again, CRI_ATTEMPTS_MAX times in all; without an answer the batch is repeated, later
 * and later.
 */
#ifndef KILTER_MODEL_METADATA_CRI_H
#define KILTER_MODEL_METADATA_CRI_H

#include <stdbool.h>
#include <stdint.h>

#include "core/clock.h"
#include "model/metadata/labels.h"

#define CRI_WANTED_MAX	 16384u /* ids that wait for an answer */
#define CRI_ATTEMPTS_MAX 5	/* answers without an id in them, until it is taken for unknown */
#define CRI_GATHER_NS	 (100 * NS_PER_MS)
#define CRI_DEADLINE_NS	 (10 * NS_PER_SEC) /* of a batch, all of it */
#define CRI_RETRY_MIN_NS (1 * NS_PER_SEC)  /* and twice that each time, up to */
#define CRI_RETRY_MAX_NS (60 * NS_PER_SEC)
#define CRI_STATE_LEN	 192

struct loop;
struct cri;

/* What is known of a container, for good. l: of the container and its pod, the caller's now; NULL:
 * the runtime does not know it. */
typedef void (*cri_found_fn)(void *ctx, const char *id, struct labels *l);

/* endpoint: see config_runtime_path(). Nothing happens before something is wanted. */
int cri_new(struct cri **ret, struct loop *l, const char *endpoint, cri_found_fn found, void *ctx);
/* Before the loop is freed. */
void cri_free(struct cri **c);
/* found() will be called for it, later. -EEXIST: it is wanted already; -EINVAL: no id of a
 * container; -ENOSPC (counted), -ENOMEM. */
int cri_want(struct cri *c, const char *id);
/* "answers (runtime.v1)", or what is wrong; never NULL, changes with the loop. */
const char *cri_state(const struct cri *c);
/* How often it went from answering to not answering and back: a change is worth a line in the log.
 */
uint64_t cri_changes(const struct cri *c);
/* The last batch was answered, or there was none. */
bool cri_works(const struct cri *c);

#endif
