// SPDX-License-Identifier: Apache-2.0
/*
 * A rotated file is FILE.<UTC time>-<sequence of its last record>, and .gz once it is
 * compressed: some slices of it at each tick, into FILE....gz.tmp, which takes its name only
 * when it is whole and on disk. A restart begins a compression that was cut short again.
 */
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "audit/internal.h"
#include "core/cleanup.h"
#include "core/clock.h"

#define STAMP_LEN   16	      /* 20261120T101112Z */
#define GZIP_WINDOW (15 + 16) /* zlib: the largest window, with a gzip header */
#define GZIP_BLOCK  (64u << 10)

struct audit_gzip {
	char from[PATH_MAX], to[PATH_MAX], tmp[PATH_MAX];
	uint64_t sequence;
	int in_fd, out_fd;
	z_stream z;
	unsigned char in[GZIP_BLOCK], out[GZIP_BLOCK];
};

static const char *base_name(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash ? slash + 1 : file;
}

int audit_sibling(const char *file, const char *name, char *buf, size_t size)
{
	int dir = (int)(base_name(file) - file);

	return (size_t)snprintf(buf, size, "%.*s%s", dir, file, name) < size ? 0 : -ENAMETOOLONG;
}

/* True for a name that rotation gives: nothing else in the directory is ever touched. */
static bool parse_name(const char *base, const char *name, struct audit_rotated *ret, bool *tmp)
{
	size_t n = strlen(base);
	const char *s = name + n + 1;
	char *end;

	if (strncmp(name, base, n) || name[n] != '.' || strlen(s) < STAMP_LEN + 2)
		return false;
	for (int i = 0; i < STAMP_LEN; i++) {
		bool ok = i == 8 ? s[i] == 'T' : i == 15 ? s[i] == 'Z' : s[i] >= '0' && s[i] <= '9';

		if (!ok)
			return false;
	}
	if (s[STAMP_LEN] != '-' || s[STAMP_LEN + 1] < '0' || s[STAMP_LEN + 1] > '9')
		return false;
	errno = 0;
	ret->sequence = strtoull(s + STAMP_LEN + 1, &end, 10);
	if (errno)
		return false;
	ret->gzip = !strncmp(end, ".gz", 3);
	if (ret->gzip)
		end += 3;
	*tmp = ret->gzip && !strcmp(end, ".tmp");
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return *tmp || !*end;
}

static int by_sequence(const void *pa, const void *pb)
{
	const struct audit_rotated *a = pa, *b = pb;

	if (a->sequence != b->sequence)
		return a->sequence < b->sequence ? -1 : 1;
	if (a->gzip != b->gzip)
		return a->gzip ? 1 : -1; /* plain first: it is the one that is whole for sure */
	return strcmp(a->name, b->name);
}

static DIR *open_directory(const char *file)
{
	char dir[PATH_MAX];

	if (audit_sibling(file, ".", dir, sizeof(dir))) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	return opendir(dir);
}

int audit_rotated_list(const char *file, struct audit_rotated **ret, size_t *ret_count)
{
	_cleanup_closedir_ DIR *d = open_directory(file);
	struct audit_rotated *list = NULL;
	size_t n = 0, cap = 0, kept = 0;
	struct dirent *e;

	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		struct audit_rotated r;
		bool tmp;

		if (!parse_name(base_name(file), e->d_name, &r, &tmp) || tmp)
			continue;
		if (n == AUDIT_ROTATED_MAX)
			break;
		if (n == cap) {
			struct audit_rotated *p;

			cap = cap ? cap * 2 : 16;
			p = realloc(list, cap * sizeof(*list));
			if (!p) {
				free(list);
				return -ENOMEM;
			}
			list = p;
		}
		list[n++] = r;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_sequence);
	for (size_t i = 0; i < n; i++)
		if (!kept || list[kept - 1].sequence != list[i].sequence)
			list[kept++] = list[i];
	*ret = list;
	*ret_count = kept;
	return 0;
}

static int sync_directory(const char *file)
{
	char dir[PATH_MAX];
	_cleanup_close_ int fd = -1;
	int err = audit_sibling(file, ".", dir, sizeof(dir));

	if (err)
		return err;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) ? -errno : 0;
}

int audit_rotate(struct audit *a, uint64_t now_real_ns)
{
	time_t s = (time_t)(now_real_ns / NS_PER_SEC);
	char to[PATH_MAX], stamp[STAMP_LEN + 1];
	struct stat st;
	struct tm tm;
	int err;

	if (fstat(a->fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	gmtime_r(&s, &tm);
	if (!strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm))
		return -ERANGE;
	audit_flush(a); /* so that the sequence in the name covers all that is in the file */
	if ((size_t)snprintf(to, sizeof(to), "%s.%s-%" PRIu64, a->file, stamp, a->stats.sequence) >=
	    sizeof(to))
		return -ENAMETOOLONG;
	if (fsync(a->fd) || rename(a->file, to))
		return -errno;
	err = audit_file_open(a);
	if (err) {
		/* The open descriptor still writes to the file: give it its name back. */
		return rename(to, a->file) ? -errno : err;
	}
	sync_directory(a->file);
	a->stats.rotations++;
	a->gzip_wanted = true;
	return 0;
}

static void gzip_free(struct audit *a)
{
	struct audit_gzip *g = a->gzip;

	if (!g)
		return;
	deflateEnd(&g->z);
	if (g->in_fd >= 0)
		close(g->in_fd);
	if (g->out_fd >= 0)
		close(g->out_fd);
	free(g);
	a->gzip = NULL;
}

void audit_gzip_abort(struct audit *a)
{
	if (a->gzip)
		unlink(a->gzip->tmp);
	gzip_free(a);
}

static int gzip_begin(struct audit *a, const struct audit_rotated *r)
{
	struct audit_gzip *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return -ENOMEM;
	if (deflateInit2(&g->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8,
			 Z_DEFAULT_STRATEGY) != Z_OK) {
		free(g);
		return -ENOMEM;
	}
	g->in_fd = g->out_fd = -1;
	g->sequence = r->sequence;
	a->gzip = g;
	err = audit_sibling(a->file, r->name, g->from, sizeof(g->from));
	if (!err && ((size_t)snprintf(g->to, sizeof(g->to), "%s.gz", g->from) >= sizeof(g->to) ||
		     (size_t)snprintf(g->tmp, sizeof(g->tmp), "%s.tmp", g->to) >= sizeof(g->tmp)))
		err = -ENAMETOOLONG;
	if (!err) {
		g->in_fd = open(g->from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (g->in_fd < 0)
			err = -errno;
	}
	if (!err) {
		g->out_fd =
		    open(g->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
		if (g->out_fd < 0 || fchmod(g->out_fd, 0640))
			err = -errno;
	}
	if (err)
		gzip_free(a);
	return err;
}

static int write_all(int fd, const unsigned char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w ? -errno : -EIO;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

/* 1: finished. */
static int gzip_slice(struct audit *a)
{
	struct audit_gzip *g = a->gzip;
	size_t done = 0;

	while (done < AUDIT_SLICE_BYTES) {
		ssize_t n = read(g->in_fd, g->in, sizeof(g->in));
		int z, err;

		if (n < 0)
			return -errno;
		g->z.next_in = g->in;
		g->z.avail_in = (unsigned int)n;
		do {
			g->z.next_out = g->out;
			g->z.avail_out = sizeof(g->out);
			z = deflate(&g->z, n ? Z_NO_FLUSH : Z_FINISH);
			if (z == Z_STREAM_ERROR)
				return -EIO;
			err = write_all(g->out_fd, g->out, sizeof(g->out) - g->z.avail_out);
			if (err)
				return err;
		} while (!g->z.avail_out);
		done += (size_t)n;
		if (!n) {
			if (fsync(g->out_fd) || rename(g->tmp, g->to) || unlink(g->from))
				return -errno;
			return 1;
		}
	}
	return 0;
}

/* The oldest beyond `keep` go, whatever form they are in. */
static void expire(struct audit *a, const struct audit_rotated *list, size_t count)
{
	char path[PATH_MAX];

	for (size_t i = 0; i + a->keep < count; i++) {
		if (a->gzip && a->gzip->sequence == list[i].sequence)
			audit_gzip_abort(a);
		if (!audit_sibling(a->file, list[i].name, path, sizeof(path)))
			unlink(path);
	}
}

static void remove_unfinished(struct audit *a)
{
	_cleanup_closedir_ DIR *d = open_directory(a->file);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		struct audit_rotated r;
		char path[PATH_MAX];
		bool tmp;

		if (parse_name(base_name(a->file), e->d_name, &r, &tmp) && tmp &&
		    !audit_sibling(a->file, e->d_name, path, sizeof(path)))
			unlink(path);
	}
}

void audit_rotate_tick(struct audit *a)
{
	_cleanup_free_ struct audit_rotated *list = NULL;
	size_t count = 0, i;

	if (a->gzip) {
		int ret = gzip_slice(a);

		if (ret < 0)
			audit_gzip_abort(a); /* begun again at the next rotation or start */
		else if (ret > 0)
			gzip_free(a);
		return;
	}
	if (!a->gzip_wanted)
		return;
	a->gzip_wanted = false;
	remove_unfinished(a);
	if (audit_rotated_list(a->file, &list, &count))
		return;
	expire(a, list, count);
	if (!a->compress)
		return;
	for (i = count > a->keep ? count - a->keep : 0; i < count; i++) {
		if (list[i].gzip)
			continue;
		if (!gzip_begin(a, &list[i]))
			a->gzip_wanted = true; /* there may be more */
		return;
	}
}
