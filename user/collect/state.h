/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file: totals of retired series, so that a counter never goes back when the daemon
 * restarts. A header that names the boot and the maps it belongs to (of others it is
 * void: the kernel's counters began at zero too), then records with a checksum each; the
 * first bad record ends the file, for a torn append can only be the last.
 */
#ifndef KILTER_COLLECT_STATE_H
#define KILTER_COLLECT_STATE_H

#include <stddef.h>
#include <stdint.h>

#define STATE_RECORDS_MAX 262144u /* read at most; 500 MiB of a file that is compacted */
#define STATE_PAYLOAD_MAX 2048u

struct state_origin {
	char boot_id[40];
	uint32_t series_map, conns_map; /* kernel ids: a map made anew has another */
};

struct state_record {
	uint32_t kind;	       /* enum kilter_retire_map */
	uint32_t size;	       /* of the payload */
	uint64_t created_ns;   /* of the life it ended; 0: a merge of several */
	unsigned char key[24]; /* raw, with its shard */
};

int state_origin_read(struct state_origin *ret, int series_fd, int conns_fd);
/* Calls fn for each good record. 0 also when there is no file or it is of another origin. */
int state_load(const char *path, const struct state_origin *o,
	       int (*fn)(void *ctx, const struct state_record *r, const void *payload), void *ctx);
/* Begins a file beside path; ret_fd takes records; state_commit() renames it over path. */
int state_create(const char *path, const struct state_origin *o, int *ret_fd);
int state_append(int fd, const struct state_record *r, const void *payload);
int state_commit(const char *path);

#endif
