// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"

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

int clock_boot_id(char buf[static CLOCK_BOOT_ID_LEN + 1])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(buf, 0, CLOCK_BOOT_ID_LEN + 1);
	if (fd < 0)
		return -errno;
	return read(fd, buf, CLOCK_BOOT_ID_LEN) == CLOCK_BOOT_ID_LEN ? 0 : -EIO;
}
