/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests that the kernel's series hold, added up over callers, destinations and routes, and
 * compared with exactly what a test expects: a row too many fails it as a row too few does.
 */
#ifndef KILTER_TESTS_TALLY_H
#define KILTER_TESTS_TALLY_H

#include <stddef.h>

#include <kilter/series.h>

#define TALLIES_MAX 64

struct tally {
	__u16 status;
	__u8 role, method, error, protocol;
	__u64 count;
};

struct tallies {
	struct tally rows[TALLIES_MAX];
	unsigned int count;
};

/* What the map of series held when tallies_read() was called last. */
extern struct tallies tallies;
void tallies_read(int series_fd);
/* Exactly these counts of one role, and no others; `role` of each row is left out. */
void tallies_expect(__u8 role, const struct tally *want, unsigned int n);

/* One of what EXPECT() and EXPECT_ROLE() take. */
#define ROW_OF(protocol_, method_, status_, error_, count_)                  \
	{                                                                    \
		.status = (status_), .method = (method_), .error = (error_), \
		.protocol = (protocol_), .count = (count_)                   \
	}
#define EXPECT_ROLE(role, ...)                                                 \
	do {                                                                   \
		const struct tally want_[] = {__VA_ARGS__};                    \
		tallies_expect(role, want_, sizeof(want_) / sizeof(want_[0])); \
	} while (0)
/* Of a test that is at both ends of its connections. */
#define EXPECT(...)                                           \
	do {                                                  \
		EXPECT_ROLE(KILTER_ROLE_SERVER, __VA_ARGS__); \
		EXPECT_ROLE(KILTER_ROLE_CLIENT, __VA_ARGS__); \
	} while (0)
#define EXPECT_NOTHING()                                     \
	do {                                                 \
		tallies_expect(KILTER_ROLE_SERVER, NULL, 0); \
		tallies_expect(KILTER_ROLE_CLIENT, NULL, 0); \
	} while (0)

#endif
