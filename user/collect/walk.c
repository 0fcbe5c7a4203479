// SPDX-License-Identifier: Apache-2.0
#include "collect/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "core/cleanup.h"

/* 256 series are 270 KiB: they stay in the L2 cache while they are compared. */
#define WALK_BATCH     256u
#define WALK_BATCH_MAX 65536u
#define WALK_KEY_MAX   64u

int map_walk_init(struct map_walk *w, int fd, size_t key_size, size_t value_size)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);

	memset(w, 0, sizeof(*w));
	w->fd = fd;
	w->key_size = key_size;
	w->value_size = value_size;
	w->batch = WALK_BATCH;
	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	if (info.key_size != key_size || info.value_size != value_size || key_size > WALK_KEY_MAX)
		return -EINVAL;
	w->max_entries = info.max_entries;
	return 0;
}

static int walk_batches(struct map_walk *w, void (*fn)(void *, const void *, const void *),
			void *ctx)
{
	_cleanup_free_ unsigned char *keys = NULL, *values = NULL;
	unsigned char in[WALK_KEY_MAX], out[WALK_KEY_MAX];
	int started = 0, err = 0;
	uint64_t seen = 0;

	while (!err) {
		__u32 count;

		if (!keys) {
			keys = reallocarray(NULL, w->batch, w->key_size);
			values = reallocarray(NULL, w->batch, w->value_size);
			if (!keys || !values)
				return -ENOMEM;
		}
		count = w->batch;
		err = bpf_map_lookup_batch(w->fd, started ? in : NULL, out, keys, values, &count,
					   NULL)
			  ? -errno
			  : 0;
		if (err == -ENOSPC && w->batch < WALK_BATCH_MAX) { /* one bucket holds more */
			w->batch *= 2;
			free(take_ptr(keys));
			free(take_ptr(values));
			err = 0;
			continue;
		}
		if (err && err != -ENOENT)
			return err;
		for (__u32 i = 0; i < count; i++)
			fn(ctx, keys + i * w->key_size, values + i * w->value_size);
		seen += count;
		memcpy(in, out, sizeof(in));
		started = 1;
	}
	w->entries = seen;
	return 0;
}

/* A key that is deleted under us makes the kernel start over: the bound ends a runaway walk. */
static int walk_keys(struct map_walk *w, void (*fn)(void *, const void *, const void *), void *ctx)
{
	_cleanup_free_ unsigned char *value = malloc(w->value_size);
	unsigned char key[WALK_KEY_MAX], next[WALK_KEY_MAX];
	uint64_t steps = 0, seen = 0;
	const void *prev = NULL;

	if (!value)
		return -ENOMEM;
	while (!bpf_map_get_next_key(w->fd, prev, next)) {
		if (++steps > 2ull * w->max_entries)
			return -EAGAIN;
		memcpy(key, next, w->key_size);
		prev = key;
		if (bpf_map_lookup_elem(w->fd, key, value))
			continue;
		fn(ctx, key, value);
		seen++;
	}
	if (errno != ENOENT)
		return -errno;
	w->entries = seen;
	return 0;
}

int map_walk_run(struct map_walk *w, void (*fn)(void *ctx, const void *key, const void *value),
		 void *ctx)
{
	int err;

	if (w->fd < 0)
		return 0;
	if (!w->no_batch) {
		err = walk_batches(w, fn, ctx);
		if (err != -ENOTSUP && err != -EINVAL && err != -524 /* ENOTSUPP */)
			return err;
		w->no_batch = 1;
	}
	return walk_keys(w, fn, ctx);
}
