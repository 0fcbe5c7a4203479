// SPDX-License-Identifier: Apache-2.0
#include "tally.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bpf/bpf.h>

#include <cmocka.h>

struct tallies tallies;

/* The row of these requests, or NULL. */
static struct tally *find(__u8 role, const struct tally *like)
{
	for (unsigned int i = 0; i < tallies.count; i++) {
		struct tally *x = &tallies.rows[i];

		if (x->role == role && x->status == like->status && x->method == like->method &&
		    x->error == like->error && x->protocol == like->protocol)
			return x;
	}
	return NULL;
}

void tallies_read(int series_fd)
{
	struct kilter_series_key key, *prev = NULL;

	tallies.count = 0;
	while (!bpf_map_get_next_key(series_fd, prev, &key)) {
		const struct tally row = {key.status, key.role,	    key.method,
					  key.error,  key.protocol, 0};
		struct tally *at = find(key.role, &row);
		struct kilter_series v;

		prev = &key;
		assert_int_equal(bpf_map_lookup_elem(series_fd, &key, &v), 0);
		if (!at) {
			assert_true(tallies.count < TALLIES_MAX);
			at = &tallies.rows[tallies.count++];
			*at = row;
		}
		for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
			at->count += v.classic[i];
	}
}

static void print_row(const char *what, __u8 role, const struct tally *x)
{
	print_error("%s role %u protocol %u method %u status %u error %u: %llu\n", what, role,
		    x->protocol, x->method, x->status, x->error, x->count);
}

void tallies_expect(__u8 role, const struct tally *want, unsigned int n)
{
	unsigned int of_role = 0;
	bool same;

	for (unsigned int i = 0; i < tallies.count; i++)
		of_role += tallies.rows[i].role == role;
	same = of_role == n;
	for (unsigned int i = 0; i < n; i++) {
		const struct tally *x = find(role, &want[i]);

		same = same && x && x->count == want[i].count;
	}
	if (same)
		return;
	for (unsigned int i = 0; i < tallies.count; i++)
		print_row("got", tallies.rows[i].role, &tallies.rows[i]);
	for (unsigned int i = 0; i < n; i++)
		print_row("want", role, &want[i]);
	fail_msg("counts differ");
}
