/* SPDX-License-Identifier: Apache-2.0 */
/* One internal unit of time: nanoseconds. Boot time is what the kernel side stamps with. */
#ifndef KILTER_CORE_CLOCK_H
#define KILTER_CORE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS  1000000ull

static inline uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}
static inline uint64_t clock_boot_ns(void)
{
	return clock_ns(CLOCK_BOOTTIME);
}
static inline uint64_t clock_real_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}
/* RFC 3339, UTC, nanoseconds: "2026-11-20T10:11:12.123456789Z"; buf holds 31 bytes. */
char *clock_format_rfc3339(uint64_t real_ns, char buf[static 31]);

/* The kernel's id of this boot (a UUID as text), under which boot times and the kernel's own ids
 * mean anything; buf holds CLOCK_BOOT_ID_LEN + 1 bytes. Negative errno: buf is zeroed. */
#define CLOCK_BOOT_ID_LEN 36
int clock_boot_id(char buf[static CLOCK_BOOT_ID_LEN + 1]);

#endif
