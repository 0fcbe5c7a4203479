/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How Prometheus text 0.0.4 and OpenMetrics 1.0.0 are written: families, rows of labels, values.
 * Begin with a struct that is zero but for `openmetrics`; exposition_end() is where what went wrong
 * is told.
 */
#ifndef KILTER_EXPORT_EXPOSITION_H
#define KILTER_EXPORT_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPOSITION_BYTES_MAX (256ull << 20)
#define EXPOSITION_NAME_LEN  96

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
	/* Where each family's name was written, so that none is written twice. */
	size_t *families;
	unsigned int families_count;
};

/* False when a family of this name was written already: it has no rows then. */
bool exposition_family(struct exposition *x, const char *name, const char *type, const char *help);
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
/* *ret is malloc()ed. -ENOMEM, -E2BIG beyond EXPOSITION_BYTES_MAX; frees the rest in any case. */
int exposition_end(struct exposition *x, char **ret, size_t *ret_len);
/* A value as Prometheus writes it: integers without a point, else the shortest that reads
 * back, NaN, +Inf, -Inf. buf holds 32 bytes. Returns the length. */
size_t exposition_number(double v, char *buf);

#endif
