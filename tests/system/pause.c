// SPDX-License-Identifier: Apache-2.0
/* Does nothing until it is told to end: the first process of a container. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void end(int signo)
{
	(void)signo;
	_exit(0);
}

int main(void)
{
	/* The first process of a pid namespace gets no signal that it does not ask for. */
	if (signal(SIGTERM, end) == SIG_ERR)
		return EXIT_FAILURE;
	for (;;)
		pause();
}
