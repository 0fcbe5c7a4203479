// SPDX-License-Identifier: Apache-2.0
#include "probe/netns.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "core/cleanup.h"
#include "core/rights.h"
#include "probe/iter.h"

#define CHILD_SOCKET 3 /* the child's only descriptors */
#define CHILD_LINK   4

struct netns {
	pid_t child;
	int fd;
};

static const cap_value_t kept[] = {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_BPF, CAP_PERFMON};
#define KEPT ((int)(sizeof(kept) / sizeof(kept[0])))

/* The number of a process's network namespace, from "net:[4026531840]"; 0: it is gone. */
static uint64_t net_of(int proc, const char *pid)
{
	char path[64], link[64] = "";
	unsigned long long number;

	snprintf(path, sizeof(path), "%.20s/ns/net", pid);
	if (readlinkat(proc, path, link, sizeof(link) - 1) < 0 ||
	    sscanf(link, "net:[%llu]", &number) != 1)
		return 0;
	return number;
}

static bool seen_before(uint64_t *seen, unsigned int *count, uint64_t number)
{
	for (unsigned int i = 0; i < *count; i++)
		if (seen[i] == number)
			return true;
	if (*count == NETNS_MAX)
		return true;
	seen[(*count)++] = number;
	return false;
}

static int pass(int own)
{
	static uint64_t seen[NETNS_MAX];
	_cleanup_closedir_ DIR *d = opendir("/proc");
	const struct dirent *e;
	unsigned int count = 0;
	int touched = 0;

	if (!d)
		return 0;
	seen_before(seen, &count, net_of(dirfd(d), "self"));
	while ((e = readdir(d))) {
		_cleanup_close_ int fd = -1;
		char path[64];
		uint64_t number;
		int n;

		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		number = net_of(dirfd(d), e->d_name);
		if (!number || seen_before(seen, &count, number))
			continue;
		snprintf(path, sizeof(path), "%.20s/ns/net", e->d_name);
		fd = openat(dirfd(d), path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || setns(fd, CLONE_NEWNET))
			continue; /* its last process has just ended */
		n = iter_run(CHILD_LINK);
		touched += n > 0 ? n : 0;
		if (setns(own, CLONE_NEWNET))
			_exit(1); /* lost: the parent hears of it */
	}
	return touched;
}

static void child(int socket, int link)
{
	sigset_t none;
	int own, s, l;
	char byte;

	/* Out of the way of 3 and 4 first, whichever they are. */
	s = fcntl(socket, F_DUPFD, CHILD_LINK + 1);
	l = fcntl(link, F_DUPFD, CHILD_LINK + 1);
	if (s < 0 || l < 0 || dup2(s, CHILD_SOCKET) < 0 || dup2(l, CHILD_LINK) < 0)
		_exit(1);
	close_range(CHILD_LINK + 1, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGINT, SIG_IGN); /* of a terminal; the parent says when */
	prctl(PR_SET_NAME, "kilterd-netns");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own < 0 || rights_keep(kept, KEPT))
		_exit(1);
	while (read(CHILD_SOCKET, &byte, 1) == 1) {
		int32_t touched = pass(own);

		if (write(CHILD_SOCKET, &touched, sizeof(touched)) != sizeof(touched))
			break;
	}
	_exit(0);
}

int netns_start(struct netns **ret, const struct bpf_link *link)
{
	struct netns *n;
	int fds[2];

	if (!rights_has(kept, KEPT))
		return -EPERM;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		return -errno;
	n = calloc(1, sizeof(*n));
	if (n)
		n->child = fork();
	if (!n || n->child < 0) {
		int err = n ? -errno : -ENOMEM;

		close(fds[0]);
		close(fds[1]);
		free(n);
		return err;
	}
	if (!n->child)
		child(fds[1], bpf_link__fd(link));
	close(fds[1]);
	n->fd = fds[0];
	*ret = n;
	return 0;
}

void netns_stop(struct netns **pn)
{
	struct netns *n = *pn;

	if (!n)
		return;
	close(n->fd); /* it ends after the pass under way */
	kill(n->child, SIGTERM);
	waitpid(n->child, NULL, 0);
	free(n);
	*pn = NULL;
}

int netns_ask(struct netns *n)
{
	return send(n->fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int netns_fd(const struct netns *n)
{
	return n->fd;
}

int netns_result(struct netns *n)
{
	int32_t touched;
	ssize_t got = recv(n->fd, &touched, sizeof(touched), MSG_DONTWAIT);

	if (got == sizeof(touched))
		return touched;
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	return -EPIPE;
}
