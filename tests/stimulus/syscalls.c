// SPDX-License-Identifier: Apache-2.0
/* syscalls SECONDS: the cheapest system call over and over; prints how many a second. */
#include <sys/syscall.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define BATCH 1000 /* between looks at the clock */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0, began = now(), ended;
	unsigned long calls = 0;

	if (seconds <= 0) {
		fprintf(stderr, "usage: syscalls SECONDS\n");
		return 2;
	}
	do {
		for (int i = 0; i < BATCH; i++)
			syscall(SYS_getppid);
		calls += BATCH;
		ended = now();
	} while (ended < began + seconds);
	printf("%.0f\n", (double)calls / (ended - began));
	return 0;
}
