/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a whole BPF hash map: in batches, or key by key where a kernel has none (< 5.6). */
#ifndef KILTER_COLLECT_WALK_H
#define KILTER_COLLECT_WALK_H

#include <stddef.h>
#include <stdint.h>

struct map_walk {
	int fd;
	size_t key_size, value_size;
	uint32_t batch; /* entries a call; grows when a bucket does not fit */
	int no_batch;	/* the kernel refused it once, or the configuration does */
	uint32_t max_entries;
	uint64_t entries; /* seen in the last whole walk */
};

/* Learns max_entries and checks the sizes: -EINVAL when the map has others. */
int map_walk_init(struct map_walk *w, int fd, size_t key_size, size_t value_size);
/* fn borrows key and value. 0, or the negative errno that ended the walk early. */
int map_walk_run(struct map_walk *w, void (*fn)(void *ctx, const void *key, const void *value),
		 void *ctx);

#endif
