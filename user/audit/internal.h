/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: the open trail, and the names of its rotated files. */
#ifndef KILTER_AUDIT_INTERNAL_H
#define KILTER_AUDIT_INTERNAL_H

#include <limits.h>

#include "audit/audit.h"

struct json; /* core/json.h, whose names jansson.h has too: never both in one file */

#define AUDIT_RECORD_MAX  (16u << 10)  /* one line, its newline included */
#define AUDIT_PENDING_MAX (1u << 20)   /* lines held while they cannot be written */
#define AUDIT_FLUSH_BYTES (64u << 10)  /* written before the tick when this much is held */
#define AUDIT_RECENT_MAX  256	       /* lines kept for audit_recent() */
#define AUDIT_SLICE_BYTES (512u << 10) /* compressed per tick: some 15 ms */
#define AUDIT_ROTATED_MAX 4096	       /* rotated files looked at, the newest */
#define AUDIT_ECS_VERSION "8.11.0"

struct audit_gzip; /* a compression under way: rotate.c */

struct audit {
	char file[PATH_MAX], seq_file[PATH_MAX];
	char host[65];
	uint64_t max_bytes, max_age_ns;
	uint32_t keep;
	bool compress;

	int fd, seq_fd;
	uint64_t size;				     /* of the file */
	uint64_t birth_ns;			     /* CLOCK_REALTIME: when the file was begun */
	uint64_t saved;				     /* sequence that seq_file holds */
	uint64_t losses_origin, told[AUDIT_SOURCES]; /* of the kernel's losses */

	char *pending; /* whole lines that are not on disk */
	size_t pending_len;

	uint64_t gap_count; /* lost and not yet told of */
	uint64_t gap_since_ns, gap_until_ns;
	const char *gap_reason;

	struct json *json;
	char *recent[AUDIT_RECENT_MAX];
	size_t recent_len[AUDIT_RECENT_MAX];
	uint64_t recent_count;

	struct audit_gzip *gzip;
	bool gzip_wanted;
	struct audit_stats stats;
};

/* writer.c: begins a record with what all of them bear, and ends it. */
struct json *audit_record_begin(struct audit *a, const char *action, const char *category,
				const char *type, const char *outcome, uint64_t real_ns);
void audit_record_end(struct audit *a);
void audit_gap(struct audit *a, uint64_t records, const char *reason);
/* record.c */
void audit_record_gap(struct audit *a, uint64_t count, uint64_t since_ns, uint64_t until_ns,
		      const char *reason);
int audit_flush(struct audit *a);
/* Opens (creates) a->file, repairs its tail, sets fd, size, birth. */
int audit_file_open(struct audit *a);

/* rotate.c */
struct audit_rotated {
	char name[NAME_MAX + 1]; /* in the directory of the file */
	uint64_t sequence;	 /* of its last record */
	bool gzip;
};
/* Oldest first; *ret is the caller's to free. A file in both forms is listed once, plain. */
int audit_rotated_list(const char *file, struct audit_rotated **ret, size_t *ret_count);
/* "DIR/name" of a file next to `file`. -ENAMETOOLONG. */
int audit_sibling(const char *file, const char *name, char *buf, size_t size);
int audit_rotate(struct audit *a, uint64_t now_real_ns);
void audit_rotate_tick(struct audit *a); /* a slice of compression, expiry */
void audit_gzip_abort(struct audit *a);

#endif
