/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that are made while they are sent. What they are made from must stay as it was, so the
 * snapshots the worker holds are here as well: how many there are at once is what bounds its
 * memory, however many scrape and however slowly they read.
 */
#ifndef KILTER_API_STREAM_H
#define KILTER_API_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "export/prometheus.h"
#include "model/snapshot.h"

#define MOMENTS_MAX 3u /* one of them always free for who asks next */

struct moments;
int moments_new(struct moments **ret, int snapshot_fd); /* not owned */
void moments_free(struct moments **m);
/* The agent's latest, good until the next call unless it is held; NULL: there is none. */
const struct snapshot *moments_latest(struct moments *m);
/* Keeps s of moments_latest() as it is; false: too many are held. */
bool moments_hold(struct moments *m, const struct snapshot *s);
void moments_release(struct moments *m, const struct snapshot *s);
/* The youngest that is held. */
const struct snapshot *moments_held(const struct moments *m);

struct stream;
/* Takes *text, which is made from s (held; released in the end), and *body, its first piece. own:
 * must outlive it, as must *cut, which is bumped when it cannot go on. Takes nothing when it
 * fails. */
int stream_new(struct stream **ret, struct moments *m, const struct snapshot *s,
	       struct prometheus **text, char **body, size_t len, bool gzip,
	       const struct prometheus_family *own, unsigned int own_count, uint64_t *cut);
/* Up to size more bytes; 0: that was all. Negative errno: it cannot go on. */
int64_t stream_read(struct stream *s, char *buf, size_t size);
void stream_free(struct stream **s);

#endif
