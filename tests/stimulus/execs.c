// SPDX-License-Identifier: Apache-2.0
/* execs SECONDS: starts /bin/true and waits for it, over and over; prints how many a second. */
#include <sys/wait.h>

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	char name[] = "true";
	char *const child_argv[] = {name, NULL}, *const child_env[] = {NULL};
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0, began = now(), ended;
	unsigned long starts = 0;

	if (seconds <= 0) {
		fprintf(stderr, "usage: execs SECONDS\n");
		return 2;
	}
	do {
		pid_t pid;
		int status;

		if (posix_spawn(&pid, "/bin/true", NULL, NULL, child_argv, child_env) ||
		    waitpid(pid, &status, 0) != pid || status) {
			fprintf(stderr, "execs: /bin/true cannot be started\n");
			return 1;
		}
		starts++;
		ended = now();
	} while (ended < began + seconds);
	printf("%.0f\n", (double)starts / (ended - began));
	return 0;
}
