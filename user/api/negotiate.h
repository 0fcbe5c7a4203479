/* SPDX-License-Identifier: Apache-2.0 */
/* Small pure parsers of header and query values. */
#ifndef KILTER_API_NEGOTIATE_H
#define KILTER_API_NEGOTIATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The weight in thousandths that a list such as "gzip;q=0.5, *;q=0" gives to name, -1 when
 * neither it nor a wildcard is listed. A media type may be meant by its group or by the wildcard
 * of both; what is most specific wins. Parameters other than q are ignored.
 */
int negotiate_weight(const char *list, const char *name);
bool negotiate_gzip(const char *accept_encoding);
/* Percent-decodes in[0..len) to out of size bytes, NUL-terminated. -EBADMSG for a bad escape or
 * a control byte, -ENAMETOOLONG. */
int negotiate_decode(const char *in, size_t len, char *out, size_t size);
/* A decimal in [min, max]. -EINVAL. */
int negotiate_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret);
/* 1 to 63 of [A-Za-z0-9._-]: safe in a header, a log and the audit trail. */
bool negotiate_id_valid(const char *s);

#endif
