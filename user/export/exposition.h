/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How Prometheus text 0.0.4 and OpenMetrics 1.0.0 are written: families, rows of labels, values.
 *
 * The text is made in pieces, so that a node with many series needs no more memory than one with
 * few. Whoever writes walks through all families for each piece: exposition_family() is false for
 * those that were written before, exposition_first() and exposition_goes_on() are where the rows
 * of one begin and stop. The walk must be the same each time. Begin with a struct that is zero but
 * for `openmetrics`; exposition_piece() is where what went wrong is told.
 */
#ifndef KILTER_EXPORT_EXPOSITION_H
#define KILTER_EXPORT_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPOSITION_PIECE_BYTES (256u << 10) /* a piece ends with the row that reaches it */
#define EXPOSITION_PIECE_MAX   (16u << 20) /* a family that is written without rows may be longer */
#define EXPOSITION_NAME_LEN    96

struct exposition_text {
	char *buf;
	size_t len, cap;
	int err;
};

struct exposition {
	bool openmetrics;
	/* The rest is exposition.c's. */
	struct exposition_text out, labels; /* labels: of the row under way */
	char name[EXPOSITION_NAME_LEN];	    /* of the family under way, without _total */
	bool counter;
	/* The name of each family, without _total, so that none is written twice. */
	char (*families)[EXPOSITION_NAME_LEN];
	unsigned int families_count;
	/* Of the walk: how many families it came by; how many it may pass, as they were written;
	 * whether the last of these is but half written, up to `row`. */
	unsigned int seen, written;
	bool half;
	size_t row;
	bool full, done; /* this piece; the whole text */
};

/* Begins a piece, and the walk through all families. What the last piece held is gone. */
void exposition_begin(struct exposition *x);
/* False when it has no rows here: one of this name was written already, or the piece is full. */
bool exposition_family(struct exposition *x, const char *name, const char *type, const char *help);
/* Which row of the family comes first: those before it were written. */
size_t exposition_first(const struct exposition *x);
/* False when row `at` of the family is for the next piece. */
bool exposition_goes_on(struct exposition *x, size_t at);
/* A new row, without labels so far. */
void exposition_row(struct exposition *x);
void exposition_label(struct exposition *x, const char *name, const char *value);
void exposition_label_u64(struct exposition *x, const char *name, uint64_t v);
/* Labels as they are written, name="value" and commas. */
void exposition_labels(struct exposition *x, const char *text);
/* The value of the row. */
void exposition_u64(struct exposition *x, uint64_t v);
void exposition_seconds(struct exposition *x, uint64_t ns);
void exposition_double(struct exposition *x, double v);
/* buckets: bounds_count + 1 64-bit counts, which the kernel's headers and ours spell differently.
 */
void exposition_histogram(struct exposition *x, const void *buckets, const char *const *bounds,
			  unsigned int bounds_count, uint64_t sum_ns);
/* Ends the walk. *ret is ours, until the next exposition_begin(); x->done: this was the last piece.
 * -ENOMEM, -E2BIG beyond EXPOSITION_PIECE_MAX. */
int exposition_piece(struct exposition *x, const char **ret, size_t *ret_len);
void exposition_free(struct exposition *x);
/* A value as Prometheus writes it: integers without a point, else the shortest that reads
 * back, NaN, +Inf, -Inf. buf holds 32 bytes. Returns the length. */
size_t exposition_number(double v, char *buf);

#endif
