/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a route: what the kernel hashed, written out by the same state machine. */
#ifndef KILTER_MODEL_ROUTE_H
#define KILTER_MODEL_ROUTE_H

#include <stddef.h>

#include <kilter/route.h>

/* 96 path bytes, each at most "%XX", or an identifier's "{id}" for each of 8 segments. */
#define ROUTE_TEXT_MAX 320

/* Writes the template of path (len bytes, no NUL needed), NUL-terminated. Bytes that are
 * not printable ASCII, '"' and '\\' become %XX. */
void route_text(const char *path, size_t len, char ret[static ROUTE_TEXT_MAX]);

#endif
