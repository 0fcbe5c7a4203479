// SPDX-License-Identifier: Apache-2.0
#include "core/grpc.h"

#include <stddef.h>
#include <string.h>

#include <kilter/series.h>

/* In the order of their numbers. */
#define GRPC_CODES(X)                               \
	X(OK, ok)                                   \
	X(CANCELLED, cancelled)                     \
	X(UNKNOWN, unknown)                         \
	X(INVALID_ARGUMENT, invalid_argument)       \
	X(DEADLINE_EXCEEDED, deadline_exceeded)     \
	X(NOT_FOUND, not_found)                     \
	X(ALREADY_EXISTS, already_exists)           \
	X(PERMISSION_DENIED, permission_denied)     \
	X(RESOURCE_EXHAUSTED, resource_exhausted)   \
	X(FAILED_PRECONDITION, failed_precondition) \
	X(ABORTED, aborted)                         \
	X(OUT_OF_RANGE, out_of_range)               \
	X(UNIMPLEMENTED, unimplemented)             \
	X(INTERNAL, internal)                       \
	X(UNAVAILABLE, unavailable)                 \
	X(DATA_LOSS, data_loss)                     \
	X(UNAUTHENTICATED, unauthenticated)

#define NAME(upper, lower) #upper,
#define WORD(upper, lower) #lower,
static const char *const names[] = {GRPC_CODES(NAME)};
static const char *const words[] = {GRPC_CODES(WORD)};

_Static_assert(sizeof(names) / sizeof(names[0]) == KILTER_GRPC_CODES, "a name for each");

const char *grpc_code_str(unsigned int code)
{
	return code < KILTER_GRPC_CODES ? names[code] : NULL;
}

const char *grpc_code_word(unsigned int code)
{
	return code < KILTER_GRPC_CODES ? words[code] : NULL;
}

int grpc_code_from_word(const char *word)
{
	for (int i = 0; i < KILTER_GRPC_CODES; i++)
		if (!strcmp(words[i], word))
			return i;
	return -1;
}
