// SPDX-License-Identifier: Apache-2.0
/*
 * From a cgroup id to its path. On cgroup v2 the id is the kernfs node's, which is both the
 * inode number of the directory (64-bit kernels) and a file handle of type FILEID_KERNFS
 * (fs/kernfs/mount.c): open_by_handle_at() finds it at once, and needs CAP_DAC_READ_SEARCH.
 * Without it the task that was seen there is asked, and when that has gone or moved the tree
 * is walked. A walk remembers every directory, for the ids that are asked next; ids only grow
 * (kernfs_new_node()), so none that is older than the walk is worth another.
 */
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect/table.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/selfstat.h"
#include "model/metadata/cgroup.h"

#define FILEID_KERNFS_TYPE 0xfe
#define MOUNTINFO_MAX	   (1u << 20)
#define WALK_DEPTH_MAX	   32
#define KEPT_LINES_MAX	   (4 * CGROUP_CACHE_MAX) /* in the file, before it is written anew */

struct cached {
	struct table_node node;
	uint64_t id;
	char path[CGROUP_PATH_MAX];
};

/* A directory of the tree as it was walked last. */
struct dir {
	struct table_node node;
	uint64_t id;
	uint32_t parent; /* entry number + 1; 0: right below the mount */
	uint32_t name;	 /* in names */
};

struct cgroup_resolver {
	int mount_fd;
	size_t mount_len;
	char mount[CGROUP_PATH_MAX];
	struct table cache;
	uint64_t order[CGROUP_CACHE_MAX]; /* the ids in the cache, a ring */
	uint32_t next;
	bool by_handle_failed;
	struct table tree;
	char *names; /* of the directories, each ended by NUL */
	uint32_t names_len, names_cap;
	uint64_t walked_for; /* the newest id that the tree was walked for */
	uint64_t walks;
	struct selfstat stat;
	/* The file: a line with the boot's id, then a line "<id> <path>" for each; append only. No
	 * path has a newline in it: cgroup_mkdir() refuses one. */
	FILE *kept;
	char kept_file[PATH_MAX];
	uint32_t kept_lines;
	uint64_t unkept;
};

static int read_mountinfo(char **ret)
{
	_cleanup_close_ int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *buf = malloc(MOUNTINFO_MAX);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (!buf)
		return -ENOMEM;
	while (len < MOUNTINFO_MAX - 1 && (n = read(fd, buf + len, MOUNTINFO_MAX - 1 - len)) > 0)
		len += (size_t)n;
	buf[len] = '\0';
	*ret = take_ptr(buf);
	return 0;
}

static void stat_walks(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct cgroup_resolver *)ctx)->walks);
}

int cgroup_resolver_new(struct cgroup_resolver **ret)
{
	struct cgroup_resolver *r = calloc(1, sizeof(*r));
	_cleanup_free_ char *mountinfo = NULL;

	if (!r)
		return -ENOMEM;
	r->mount_fd = -1;
	table_init(&r->cache, sizeof(uint64_t), sizeof(struct cached), CGROUP_CACHE_MAX);
	table_init(&r->tree, sizeof(uint64_t), sizeof(struct dir), CGROUP_WALK_MAX);
	r->stat = (struct selfstat){.name = "kilter_cgroup_walks_total",
				    .help = "Times that the tree of cgroups was walked for a path.",
				    .type = SELFSTAT_COUNTER,
				    .collect = stat_walks,
				    .ctx = r};
	selfstat_register(&r->stat);
	/* Without cgroup v2 every workload is named after its executable. */
	if (!read_mountinfo(&mountinfo) &&
	    !cgroup_find_mount(mountinfo, r->mount, sizeof(r->mount))) {
		r->mount_len = strlen(r->mount);
		r->mount_fd = open(r->mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	*ret = r;
	return 0;
}

void cgroup_resolver_free(struct cgroup_resolver **r)
{
	if (!*r)
		return;
	cleanup_close(&(*r)->mount_fd);
	cleanup_fclose(&(*r)->kept);
	selfstat_unregister(&(*r)->stat);
	table_done(&(*r)->cache);
	table_done(&(*r)->tree);
	free((*r)->names);
	free(*r);
	*r = NULL;
}

static int by_handle(const struct cgroup_resolver *r, uint64_t id, char *ret)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + sizeof(uint64_t)];
	} u;
	_cleanup_close_ int fd = -1;
	char link[64], path[PATH_MAX];
	ssize_t n;

	memset(&u, 0, sizeof(u));
	u.h.handle_bytes = sizeof(id);
	u.h.handle_type = FILEID_KERNFS_TYPE;
	memcpy(u.room + sizeof(struct file_handle), &id, sizeof(id));
	fd = open_by_handle_at(r->mount_fd, &u.h, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ESTALE ? -ENOENT : -errno;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = '\0';
	if (strncmp(path, r->mount, r->mount_len))
		return -ENOENT;
	snprintf(ret, CGROUP_PATH_MAX, "%s", path[r->mount_len] ? path + r->mount_len : "/");
	return 0;
}

/* Of a task's own file, "0::/path": that of the id, if it is still there. The pid may be another's
 * by now, and the path another's as well: the inode decides. */
static int by_pid(const struct cgroup_resolver *r, uint64_t id, uint32_t pid, char *ret)
{
	_cleanup_fclose_ FILE *f = NULL;
	char name[32], line[CGROUP_PATH_MAX + 16];
	struct stat st;

	snprintf(name, sizeof(name), "/proc/%u/cgroup", pid);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof(line), f)) {
		size_t len = strlen(line);

		if (strncmp(line, "0::/", 4))
			continue; /* of cgroup v1, or the rest of a long line */
		if (line[len - 1] != '\n' || len - 4 >= CGROUP_PATH_MAX || strstr(line, "/.."))
			break;
		line[len - 1] = '\0';
		if (fstatat(r->mount_fd, line[4] ? line + 4 : ".", &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISDIR(st.st_mode) || st.st_ino != id)
			break;
		memcpy(ret, line + 3, len - 3);
		return 0;
	}
	return -ENOENT;
}

/* The entry's number + 1; 0: there is no room for it. */
static uint32_t add_dir(struct cgroup_resolver *r, uint64_t id, uint32_t parent, const char *name)
{
	uint32_t n = (uint32_t)strlen(name) + 1;
	struct dir *d;

	if (r->names_cap - r->names_len < n) {
		uint32_t cap = r->names_cap ? r->names_cap * 2 : 4096;
		char *names = realloc(r->names, cap);

		if (!names)
			return 0;
		r->names = names;
		r->names_cap = cap; /* CGROUP_WALK_MAX names of CGROUP_PATH_MAX fit well */
	}
	d = table_add(&r->tree, &id);
	if (!d)
		return 0;
	memcpy(r->names + r->names_len, name, n);
	d->parent = parent;
	d->name = r->names_len;
	r->names_len += n;
	return d->node.number + 1;
}

/* What lies below directory `name` of `in`, whose own path has len bytes. False: no room. */
static bool walk(struct cgroup_resolver *r, int in, const char *name, uint32_t number, size_t len,
		 int depth)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *e;
	int fd = openat(in, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return true; /* it has gone */
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return false;
	}
	while ((e = readdir(dir))) {
		size_t n = strlen(e->d_name);
		uint64_t id = e->d_ino;
		uint32_t child;

		if (e->d_type != DT_DIR || e->d_name[0] == '.' || len + n + 2 > CGROUP_PATH_MAX ||
		    table_find(&r->tree, &id))
			continue;
		child = add_dir(r, id, number, e->d_name);
		if (!child || (depth < WALK_DEPTH_MAX &&
			       !walk(r, dirfd(dir), e->d_name, child, len + 1 + n, depth + 1)))
			return false;
	}
	return true;
}

static void walk_anew(struct cgroup_resolver *r, uint64_t id)
{
	table_done(&r->tree);
	table_init(&r->tree, sizeof(uint64_t), sizeof(struct dir), CGROUP_WALK_MAX);
	r->names_len = 0;
	r->walks++;
	r->walked_for = id;
	walk(r, r->mount_fd, ".", 0, 0, 0);
}

/* From the end to the front: a directory knows its parent. walk() saw to it that it fits. */
static void path_of(const struct cgroup_resolver *r, const struct dir *d, char *ret)
{
	char path[CGROUP_PATH_MAX] = "";
	size_t at = sizeof(path) - 1;

	for (; d; d = d->parent ? table_at(&r->tree, d->parent - 1) : NULL) {
		const char *name = r->names + d->name;
		size_t n = strlen(name);

		if (n + 1 > at)
			break;
		at -= n;
		memcpy(path + at, name, n);
		path[--at] = '/';
	}
	memcpy(ret, path + at, sizeof(path) - at);
}

static int by_walk(struct cgroup_resolver *r, uint64_t id, char *ret)
{
	const struct dir *d = table_find(&r->tree, &id);
	struct stat st;

	if (!d && !fstat(r->mount_fd, &st) && st.st_ino == id) {
		memcpy(ret, "/", 2);
		return 0;
	}
	if (!d && id > r->walked_for) {
		walk_anew(r, id);
		d = table_find(&r->tree, &id);
	}
	if (!d)
		return -ENOENT;
	path_of(r, d, ret);
	return 0;
}

static void cache(struct cgroup_resolver *r, uint64_t id, const char *path)
{
	struct cached *c, *oldest;

	if (r->cache.count >= CGROUP_CACHE_MAX) {
		oldest = table_find(&r->cache, &r->order[r->next]);
		if (oldest)
			table_remove(&r->cache, oldest);
	}
	c = table_add(&r->cache, &id);
	if (!c)
		return;
	r->order[r->next] = id;
	r->next = (r->next + 1) % CGROUP_CACHE_MAX;
	snprintf(c->path, sizeof(c->path), "%s", path);
}

/* Into the cache, unless the file is of another boot. A line that is cut or is no such line ends
 * it. */
static void load(struct cgroup_resolver *r, FILE *f, const char *boot)
{
	char line[CGROUP_PATH_MAX + 32];

	if (!fgets(line, sizeof(line), f) || strncmp(line, boot, CLOCK_BOOT_ID_LEN) ||
	    line[CLOCK_BOOT_ID_LEN] != '\n')
		return;
	while (fgets(line, sizeof(line), f)) {
		size_t len = strlen(line);
		unsigned long long id;
		char *path;

		id = strtoull(line, &path, 10);
		if (path == line || !id || path[0] != ' ' || path[1] != '/' ||
		    line[len - 1] != '\n' || len - (size_t)(path + 2 - line) > CGROUP_PATH_MAX)
			return;
		line[len - 1] = '\0';
		if (!table_find(&r->cache, &(uint64_t){id}))
			cache(r, id, path + 1);
	}
}

/* The whole cache to a new file, which takes the place of the old one. */
static int write_anew(struct cgroup_resolver *r, const char *boot)
{
	char fresh[PATH_MAX + 8];
	_cleanup_fclose_ FILE *f = NULL;
	const struct cached *c;
	uint32_t pos = 0;
	int fd;

	snprintf(fresh, sizeof(fresh), "%s.new", r->kept_file);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return -errno;
	f = fdopen(fd, "w");
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	fprintf(f, "%s\n", boot);
	while ((c = table_next(&r->cache, &pos)))
		fprintf(f, "%llu %s\n", (unsigned long long)c->id, c->path);
	if (fflush(f) || rename(fresh, r->kept_file))
		return -errno;
	cleanup_fclose(&r->kept);
	r->kept = take_ptr(f);
	r->kept_lines = r->cache.count;
	return 0;
}

int cgroup_resolver_keep(struct cgroup_resolver *r, const char *file)
{
	_cleanup_fclose_ FILE *f = fopen(file, "re");
	char boot[CLOCK_BOOT_ID_LEN + 1];
	int err = clock_boot_id(boot);

	if (err)
		return err;
	if ((size_t)snprintf(r->kept_file, sizeof(r->kept_file), "%s", file) >=
	    sizeof(r->kept_file))
		return -ENAMETOOLONG;
	if (f)
		load(r, f, boot);
	else if (errno != ENOENT)
		return -errno;
	return write_anew(r, boot);
}

uint64_t cgroup_resolver_unkept(const struct cgroup_resolver *r)
{
	return r->unkept;
}

static void keep(struct cgroup_resolver *r, uint64_t id, const char *path)
{
	char boot[CLOCK_BOOT_ID_LEN + 1];

	if (r->kept_lines >= KEPT_LINES_MAX) { /* with this one in it */
		if (clock_boot_id(boot) || write_anew(r, boot))
			r->unkept++;
		return;
	}
	r->kept_lines++;
	clearerr(r->kept); /* the disk may have room again */
	if (fprintf(r->kept, "%llu %s\n", (unsigned long long)id, path) < 0 || fflush(r->kept))
		r->unkept++;
}

static void remember(struct cgroup_resolver *r, uint64_t id, const char *path)
{
	cache(r, id, path);
	if (r->kept)
		keep(r, id, path);
}

int cgroup_resolve(struct cgroup_resolver *r, uint64_t id, uint32_t pid,
		   char ret[static CGROUP_PATH_MAX])
{
	const struct cached *c = table_find(&r->cache, &id);
	int err = -EPERM;

	if (c) {
		memcpy(ret, c->path, CGROUP_PATH_MAX);
		return 0;
	}
	if (r->mount_fd < 0 || !id)
		return -ENOENT;
	if (!r->by_handle_failed) {
		err = by_handle(r, id, ret);
		if (err && err != -ENOENT)
			r->by_handle_failed = true;
	}
	if (err && err != -ENOENT) {
		err = pid ? by_pid(r, id, pid, ret) : -ENOENT;
		if (err)
			err = by_walk(r, id, ret);
	}
	if (!err)
		remember(r, id, ret);
	return err;
}
