// SPDX-License-Identifier: Apache-2.0
#include "api/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

struct moment {
	struct snapshot s;
	unsigned int holders;
};

struct moments {
	struct snapshot_reader *reader;
	struct moment all[MOMENTS_MAX];
	struct moment *latest;
};

int moments_new(struct moments **ret, int snapshot_fd)
{
	struct moments *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	err = snapshot_reader_open(&m->reader, snapshot_fd);
	if (err) {
		free(m);
		return err;
	}
	*ret = m;
	return 0;
}

void moments_free(struct moments **pm)
{
	struct moments *m = *pm;

	if (!m)
		return;
	for (unsigned int i = 0; i < MOMENTS_MAX; i++)
		snapshot_done(&m->all[i].s);
	snapshot_reader_free(&m->reader);
	free(m);
	*pm = NULL;
}

const struct snapshot *moments_latest(struct moments *m)
{
	struct moment *to = m->latest;

	if (to && snapshot_is_latest(m->reader, &to->s))
		return &to->s;
	if (to && to->holders)
		to = NULL;
	for (unsigned int i = 0; i < MOMENTS_MAX && !to; i++)
		to = m->all[i].holders ? NULL : &m->all[i];
	m->latest = NULL;
	/* moments_hold() leaves one. */
	if (!to || snapshot_read(m->reader, &to->s))
		return NULL;
	m->latest = to;
	return &to->s;
}

static struct moment *moment_of(struct moments *m, const struct snapshot *s)
{
	for (unsigned int i = 0; i < MOMENTS_MAX; i++)
		if (&m->all[i].s == s)
			return &m->all[i];
	return NULL;
}

bool moments_hold(struct moments *m, const struct snapshot *s)
{
	struct moment *moment = moment_of(m, s);
	unsigned int held = 0;

	if (!moment)
		return false;
	for (unsigned int i = 0; i < MOMENTS_MAX; i++)
		held += m->all[i].holders != 0;
	if (!moment->holders && held >= MOMENTS_MAX - 1)
		return false;
	moment->holders++;
	return true;
}

void moments_release(struct moments *m, const struct snapshot *s)
{
	struct moment *moment = moment_of(m, s);

	/* The latest stays: whoever comes before the next tick is answered from it. */
	if (moment && !--moment->holders && moment != m->latest)
		snapshot_done(&moment->s);
}

const struct snapshot *moments_held(const struct moments *m)
{
	const struct moment *found = NULL;

	for (unsigned int i = 0; i < MOMENTS_MAX; i++)
		if (m->all[i].holders && (!found || m->all[i].s.sequence > found->s.sequence))
			found = &m->all[i];
	return found ? &found->s : NULL;
}

struct stream {
	struct moments *moments;
	const struct snapshot *snapshot;
	struct prometheus *text;
	const struct prometheus_family *own;
	unsigned int own_count;
	char *body; /* the first piece; NULL once it is used up */
	const char *at;
	size_t left;
	uint64_t *cut;
	bool gzip, ended;
	z_stream z;
};

int stream_new(struct stream **ret, struct moments *m, const struct snapshot *snapshot,
	       struct prometheus **text, char **body, size_t len, bool gzip,
	       const struct prometheus_family *own, unsigned int own_count, uint64_t *cut)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	/* 15 + 16: a gzip header. Level 1: the scraper is near, the agent's CPU is dear. */
	if (gzip && deflateInit2(&s->z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY)) {
		free(s);
		return -ENOMEM;
	}
	s->moments = m;
	s->snapshot = snapshot;
	s->text = *text;
	s->own = own;
	s->own_count = own_count;
	s->cut = cut;
	s->at = s->body = *body;
	s->left = len;
	s->gzip = gzip;
	*text = NULL;
	*body = NULL;
	*ret = s;
	return 0;
}

/* Makes the next piece when there is nothing left of this one; left stays 0 at the end. */
static int fill(struct stream *s)
{
	int err;

	if (s->left || prometheus_done(s->text))
		return 0;
	free(s->body);
	s->body = NULL;
	err = prometheus_next(s->text, s->own, s->own_count, &s->at, &s->left);
	if (err)
		s->left = 0;
	return err;
}

static int64_t read_plain(struct stream *s, char *buf, size_t size)
{
	int err = fill(s);

	if (err)
		return err;
	if (size > s->left)
		size = s->left;
	memcpy(buf, s->at, size);
	s->at += size;
	s->left -= size;
	return (int64_t)size;
}

static int64_t read_gzip(struct stream *s, char *buf, size_t size)
{
	int err = 0;

	if (size > UINT32_MAX)
		size = UINT32_MAX;
	s->z.next_out = (Bytef *)buf;
	s->z.avail_out = (uInt)size;
	while (!s->ended && s->z.avail_out) {
		err = fill(s);
		if (err)
			return err;
		/* A piece is no longer than EXPOSITION_PIECE_MAX. */
		s->z.next_in = (Bytef *)(uintptr_t)s->at;
		s->z.avail_in = (uInt)s->left;
		err = deflate(&s->z, s->left ? Z_NO_FLUSH : Z_FINISH);
		if (err == Z_STREAM_ERROR)
			return -EIO;
		s->at += s->left - s->z.avail_in;
		s->left = s->z.avail_in;
		s->ended = err == Z_STREAM_END;
	}
	return (int64_t)(size - s->z.avail_out);
}

int64_t stream_read(struct stream *s, char *buf, size_t size)
{
	int64_t n = s->gzip ? read_gzip(s, buf, size) : read_plain(s, buf, size);

	*s->cut += n < 0;
	return n;
}

void stream_free(struct stream **ps)
{
	struct stream *s = *ps;

	if (!s)
		return;
	if (s->gzip)
		deflateEnd(&s->z);
	prometheus_free(&s->text);
	moments_release(s->moments, s->snapshot);
	free(s->body);
	free(s);
	*ps = NULL;
}
