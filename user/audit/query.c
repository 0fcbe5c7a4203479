// SPDX-License-Identifier: Apache-2.0
/* Reads the trail back, by itself: it needs no daemon, only the files. */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "audit/internal.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define READ_BLOCK (64u << 10)

struct kept {
	char *line;
	size_t len;
};

struct query {
	const struct audit_query *q;
	int (*fn)(void *ctx, const char *line, size_t len);
	void *ctx;
	uint64_t bad;
	struct kept *kept; /* with a limit: a ring of the newest */
	uint64_t kept_cap, matched;
};

/* 2026-11-20T10:11:12.123456789Z; 0 when it is not that. */
static uint64_t parse_time(const char *s)
{
	struct tm tm = {0};
	uint64_t ns = 0, unit = NS_PER_SEC / 10;
	const char *end = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
	time_t t;

	if (!end)
		return 0;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++, unit /= 10)
			ns += (uint64_t)(*end - '0') * unit;
	t = timegm(&tm);
	return *end == 'Z' && t >= 0 ? (uint64_t)t * NS_PER_SEC + ns : 0;
}

static bool field_is(const json_t *o, const char *key, const char *want)
{
	const char *s;

	if (!want)
		return true;
	s = json_string_value(json_object_get(o, key));
	return s && !strcmp(s, want);
}

static bool matches(const struct audit_query *q, const json_t *o)
{
	if (!field_is(o, "event.action", q->action) || !field_is(o, "service.name", q->service) ||
	    !field_is(o, "event.outcome", q->outcome))
		return false;
	if (q->since_real_ns || q->until_real_ns) {
		const char *s = json_string_value(json_object_get(o, "@timestamp"));
		uint64_t at = s ? parse_time(s) : 0;

		if (at < q->since_real_ns || (q->until_real_ns && at > q->until_real_ns))
			return false;
	}
	return true;
}

static int keep(struct query *r, const char *line, size_t len)
{
	struct kept *k;

	if (r->matched == r->kept_cap && r->kept_cap < r->q->limit) {
		uint64_t cap = r->kept_cap ? r->kept_cap * 2 : 64;

		if (cap > r->q->limit)
			cap = r->q->limit;
		k = realloc(r->kept, cap * sizeof(*k));
		if (!k)
			return -ENOMEM;
		memset(k + r->kept_cap, 0, (cap - r->kept_cap) * sizeof(*k));
		r->kept = k;
		r->kept_cap = cap;
	}
	k = &r->kept[r->matched % r->kept_cap];
	free(k->line);
	k->line = malloc(len ? len : 1);
	if (!k->line)
		return -ENOMEM;
	memcpy(k->line, line, len);
	k->len = len;
	r->matched++;
	return 0;
}

static int take_line(struct query *r, const char *line, size_t len)
{
	json_t *o = json_loadb(line, len, 0, NULL);
	bool match;

	if (!json_is_object(o)) {
		json_decref(o);
		r->bad++;
		return 0;
	}
	match = matches(r->q, o);
	json_decref(o);
	if (!match)
		return 0;
	return r->q->limit ? keep(r, line, len) : r->fn(r->ctx, line, len);
}

/* fd is taken. gzread() gives a file that is not gzip as it is. */
static int read_file(struct query *r, int fd)
{
	_cleanup_free_ char *buf = malloc(AUDIT_RECORD_MAX + READ_BLOCK);
	gzFile z = gzdopen(fd, "rb");
	size_t have = 0;
	bool skip = false; /* inside a line that is longer than a record may be */
	int n, ret = 0;

	if (!z || !buf) {
		if (z)
			gzclose(z);
		else
			close(fd);
		return -ENOMEM;
	}
	while (!ret && (n = gzread(z, buf + have, READ_BLOCK)) > 0) {
		char *at = buf, *end = buf + have + n, *nl;

		while (!ret && (nl = memchr(at, '\n', (size_t)(end - at)))) {
			if (skip)
				r->bad++;
			else
				ret = take_line(r, at, (size_t)(nl - at));
			skip = false;
			at = nl + 1;
		}
		have = (size_t)(end - at);
		if (have > AUDIT_RECORD_MAX) {
			skip = true;
			have = 0;
		}
		memmove(buf, at, have);
	}
	if (!ret && n < 0)
		r->bad++; /* a damaged gzip file: what came before the damage was read */
	/* No newline at the end: a line that is being written, or a torn one. */
	gzclose(z);
	return ret;
}

static int read_all(struct query *r, int current, const struct audit_rotated *list, size_t count)
{
	_cleanup_close_ int fd_current = current;
	struct stat now = {0}, st;
	int ret = 0;

	if (fd_current >= 0 && fstat(fd_current, &now))
		return -errno;
	for (size_t i = 0; i < count && !ret; i++) {
		char path[PATH_MAX];
		int fd;

		ret = audit_sibling(r->q->file, list[i].name, path, sizeof(path) - 3);
		if (ret)
			return ret;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 && errno == ENOENT && !list[i].gzip) { /* compressed meanwhile */
			memcpy(path + strlen(path), ".gz", 4);
			fd = open(path, O_RDONLY | O_CLOEXEC);
		}
		if (fd < 0) {
			if (errno == ENOENT) /* expired meanwhile */
				continue;
			return -errno;
		}
		/* Rotated since we opened it: it is read last, once. */
		if (fd_current >= 0 && !fstat(fd, &st) && st.st_dev == now.st_dev &&
		    st.st_ino == now.st_ino) {
			close(fd);
			continue;
		}
		ret = read_file(r, fd);
	}
	if (!ret && fd_current >= 0)
		ret = read_file(r, take_fd(&fd_current));
	return ret;
}

int audit_query_run(const struct audit_query *q, int (*fn)(void *ctx, const char *line, size_t len),
		    void *ctx, uint64_t *ret_bad)
{
	struct query r = {.q = q, .fn = fn, .ctx = ctx};
	_cleanup_free_ struct audit_rotated *list = NULL;
	size_t count = 0;
	/* Opened before the directory is read: a rotation in between loses nothing. */
	int current = open(q->file, O_RDONLY | O_CLOEXEC), ret;

	if (current < 0 && errno != ENOENT)
		return -errno;
	ret = audit_rotated_list(q->file, &list, &count);
	if (ret || (current < 0 && !count)) {
		if (current >= 0)
			close(current);
		return ret ? ret : -ENOENT;
	}
	ret = read_all(&r, current, list, count);
	if (!ret && q->limit) {
		uint64_t n = r.matched < r.kept_cap ? r.matched : r.kept_cap;

		for (uint64_t i = r.matched - n; i < r.matched && !ret; i++)
			ret = fn(ctx, r.kept[i % r.kept_cap].line, r.kept[i % r.kept_cap].len);
	}
	for (uint64_t i = 0; i < r.kept_cap; i++)
		free(r.kept[i].line);
	free(r.kept);
	if (ret_bad)
		*ret_bad = r.bad;
	return ret;
}
