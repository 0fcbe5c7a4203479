// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"

#include <stdio.h>
#include <string.h>

char *clock_format_rfc3339(uint64_t real_ns, char buf[static 31])
{
	time_t s = (time_t)(real_ns / NS_PER_SEC);
	char date[21];
	struct tm tm;

	gmtime_r(&s, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, 31, "%.19s.%09uZ", date, (unsigned int)(real_ns % NS_PER_SEC) % 1000000000u);
	return buf;
}
