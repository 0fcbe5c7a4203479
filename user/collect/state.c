// SPDX-License-Identifier: Apache-2.0
#include "collect/state.h"

#include <sys/stat.h>
#include <sys/uio.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <bpf/bpf.h>

#include <kilter/limits.h>

#include "core/cleanup.h"
#include "core/clock.h"

#define STATE_MAGIC   0x6b696c7473746174ull /* "kiltstat" */
#define STATE_VERSION 1u

struct header {
	uint64_t magic;
	uint32_t version, abi;
	struct state_origin origin;
};

struct disk_record {
	uint32_t crc, pad; /* of what follows, the payload included */
	struct state_record r;
};

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);

	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len) ? info.id : 0;
}

int state_origin_read(struct state_origin *ret, int series_fd, int conns_fd)
{
	int err;

	memset(ret, 0, sizeof(*ret));
	err = clock_boot_id(ret->boot_id);
	if (err)
		return err;
	ret->series_map = map_id(series_fd);
	ret->conns_map = map_id(conns_fd);
	return 0;
}

static uint32_t record_crc(const struct state_record *r, const void *payload)
{
	uLong crc = crc32(0, (const Bytef *)r, sizeof(*r));

	return (uint32_t)crc32(crc, payload, r->size);
}

static struct header make_header(const struct state_origin *o)
{
	return (struct header){.magic = STATE_MAGIC,
			       .version = STATE_VERSION,
			       .abi = KILTER_ABI_VERSION,
			       .origin = *o};
}

int state_load(const char *path, const struct state_origin *o,
	       int (*fn)(void *ctx, const struct state_record *r, const void *payload), void *ctx)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	struct header want = make_header(o), have;
	uint64_t payload[STATE_PAYLOAD_MAX / 8];
	struct disk_record d;
	int err;

	if (!f)
		return errno == ENOENT ? 0 : -errno;
	if (fread(&have, sizeof(have), 1, f) != 1 || memcmp(&have, &want, sizeof(want)))
		return 0;
	for (uint32_t i = 0; i < STATE_RECORDS_MAX; i++) {
		if (fread(&d, sizeof(d), 1, f) != 1 || d.r.size > sizeof(payload) ||
		    fread(payload, 1, d.r.size, f) != d.r.size ||
		    record_crc(&d.r, payload) != d.crc)
			break;
		err = fn(ctx, &d.r, payload);
		if (err)
			return err;
	}
	return ferror(f) ? -EIO : 0;
}

static int temp_path(const char *path, char buf[static PATH_MAX])
{
	int n = snprintf(buf, PATH_MAX, "%s.new", path);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int write_all(int fd, struct iovec *iov, int count, size_t size)
{
	ssize_t n = writev(fd, iov, count);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -ENOSPC;
}

int state_create(const char *path, const struct state_origin *o, int *ret_fd)
{
	struct header h = make_header(o);
	struct iovec iov = {&h, sizeof(h)};
	_cleanup_close_ int fd = -1;
	char temp[PATH_MAX];
	int err = temp_path(path, temp);

	if (err)
		return err;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = write_all(fd, &iov, 1, sizeof(h));
	if (err)
		return err;
	*ret_fd = take_fd(&fd);
	return 0;
}

int state_append(int fd, const struct state_record *r, const void *payload)
{
	struct disk_record d = {.crc = record_crc(r, payload), .r = *r};
	struct iovec iov[2] = {{&d, sizeof(d)}, {(void *)(uintptr_t)payload, r->size}};
	off_t end = lseek(fd, 0, SEEK_CUR);
	int err = write_all(fd, iov, 2, sizeof(d) + r->size);

	/* A torn record would hide all that follow it. */
	if (err && end >= 0 && (ftruncate(fd, end) || lseek(fd, end, SEEK_SET) < 0))
		return -errno;
	return err;
}

int state_commit(const char *path)
{
	char temp[PATH_MAX];
	int err = temp_path(path, temp);

	if (err)
		return err;
	return rename(temp, path) ? -errno : 0;
}
