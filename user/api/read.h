/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers that read share: a page of a snapshot table, one row by name, cells. */
#ifndef KILTER_API_READ_H
#define KILTER_API_READ_H

#include "api/routes.h"

#define TEXT(s, str) snapshot_text(s, str)

/* Appends a row as one JSON value. */
typedef void (*read_put_fn)(struct json *j, const struct snapshot *s, uint32_t row);
/* Is it of the list? NULL: every row is. */
typedef bool (*read_row_fn)(const struct snapshot *s, uint32_t row);

double read_seconds(uint64_t ns);
void read_put_str(struct json *j, const char *key, const struct snapshot *s, snap_str str);
/* RFC 3339; null for 0. */
void read_put_time(struct json *j, const char *key, uint64_t real_ns);
/* A page, by ?limit and ?cursor. */
void read_list_of(struct api_request *r, struct api_reply *reply, enum snap_table t, read_row_fn of,
		  read_put_fn put);
void read_list(struct api_request *r, struct api_reply *reply, enum snap_table t, read_put_fn put);
/* The row whose name is the request's; rows of `size` bytes start with their name. Or 404. */
void read_one(struct api_request *r, struct api_reply *reply, enum snap_table t, size_t size,
	      read_put_fn put);

#endif
