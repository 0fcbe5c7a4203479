// SPDX-License-Identifier: Apache-2.0
/* The reader of the snapshot, over an area that a broken or hostile agent wrote; and the text
 * of routes, over any bytes. */
#include <sys/mman.h>

#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "model/route.h"
#include "model/snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapshot_reader *r = NULL;
	struct snapshot s = {0};
	struct snapshot_writer *w = NULL;
	char text[ROUTE_TEXT_MAX];
	volatile unsigned char sink = 0;
	void *map;

	route_text((const char *)data, size, text);
	if (snapshot_writer_new(&w, 16384))
		return 0;
	snapshot_str(w, "a string");
	snapshot_add(w, SNAP_MAPS, sizeof(struct snap_map));
	snapshot_commit(w);
	/* The writer's own mapping cannot be had by its seal: a copy takes the bytes. */
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	size_t len = 4096 + 2 * 16384;

	if (fd < 0 || ftruncate(fd, (off_t)len))
		goto out;
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		goto out;
	if (pread(snapshot_writer_fd(w), map, len, 0) == (ssize_t)len && size > 2) {
		/* Where, then what: the first two bytes say the place. */
		size_t at = 4096 + 16384 + ((size_t)data[0] << 8 | data[1]) % 1024;

		memcpy((char *)map + at, data + 2, size - 2 < 16384 - 1024 ? size - 2 : 15360);
	}
	munmap(map, len);
	if (!snapshot_reader_open(&r, fd) && !snapshot_read(r, &s)) {
		for (unsigned int t = 0; t < SNAP_STRINGS; t++)
			if (s.counts[t])
				sink ^= *(const unsigned char *)s.tables[t];
		for (unsigned int i = 0; i < s.counts[SNAP_MAPS]; i++)
			sink ^= (unsigned char)strlen(snapshot_text(
			    &s, snapshot_rows(&s, SNAP_MAPS, struct snap_map)[i].name));
	}
out:
	(void)sink; /* only so that the reads happen */
	snapshot_done(&s);
	snapshot_reader_free(&r);
	snapshot_writer_free(&w);
	if (fd >= 0)
		close(fd);
	return 0;
}
