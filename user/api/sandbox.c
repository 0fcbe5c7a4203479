// SPDX-License-Identifier: Apache-2.0
#include "api/sandbox.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "core/rights.h"

#define SANDBOX_FDS_MAX	    8
#define SANDBOX_PARKED_BASE 64

void sandbox_die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it died before the line above */
		_exit(0);
}

int sandbox_keep_fds(int *fds, size_t count)
{
	int to = STDERR_FILENO + 1;

	if (count > SANDBOX_FDS_MAX)
		return -EINVAL;
	/* Out of the way first: a target may be another's source. */
	for (size_t i = 0; i < count; i++) {
		if (fds[i] < 0)
			continue;
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, SANDBOX_PARKED_BASE);
		if (fds[i] < 0)
			return -errno;
	}
	for (size_t i = 0; i < count; i++) {
		if (fds[i] < 0)
			continue;
		if (dup3(fds[i], to, O_CLOEXEC) < 0)
			return -errno;
		fds[i] = to++;
	}
	if (syscall(SYS_close_range, (unsigned int)to, ~0u, 0)) {
		if (errno != ENOSYS)
			return -errno;
		for (int fd = to; fd < 65536; fd++) /* before Linux 5.9 */
			close(fd);
	}
	return 0;
}

static int limit(int what, rlim_t n)
{
	struct rlimit r = {n, n};

	return setrlimit((__rlimit_resource_t)what, &r) ? -errno : 0;
}

static int change_user(uid_t uid, gid_t gid)
{
	/* Started by systemd with a user of its own, or the worker of a supervisor that did this.
	 */
	bool root = !geteuid();

	/* The bounding set needs CAP_SETPCAP, so it goes first; setresuid() clears the rest. */
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && (root || errno != EPERM))
			return -errno;
	if (!root)
		return 0;
	if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
		return -errno;
	return !getuid() || !geteuid() || !setuid(0) ? -EPERM : 0;
}

int sandbox_enter(uid_t uid, gid_t gid, pid_t parent, unsigned int max_fds)
{
	int err = change_user(uid, gid);

	if (!err)
		err = rights_keep(NULL, 0);
	if (!err && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		err = -errno;
	if (!err)
		err = limit(RLIMIT_CORE, 0);
	if (!err)
		err = limit(RLIMIT_NOFILE, max_fds);
	if (err)
		return err;
	/* A change of user clears it, so it comes last. */
	sandbox_die_with(parent);
	return 0;
}

int sandbox_filter(void)
{
	static const int allowed[] = {
	    /* the loop, its timers, connections */
	    SCMP_SYS(accept4), SCMP_SYS(close), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_pwait),
	    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_create1), SCMP_SYS(getsockname),
	    SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(read),
	    SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(sendto),
	    SCMP_SYS(shutdown), SCMP_SYS(timerfd_settime), SCMP_SYS(write), SCMP_SYS(writev),
	    SCMP_SYS(sendfile), SCMP_SYS(fcntl), SCMP_SYS(poll), SCMP_SYS(ppoll),
	    /* memory, time, chance, locks */
	    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise),
	    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(futex),
	    SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(lseek),
	    /* the end */
	    SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	    SCMP_SYS(rt_sigreturn), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(tgkill),
	    SCMP_SYS(restart_syscall)};
	scmp_filter_ctx ctx;

	tzset(); /* now: the first gmtime_r() would open the zone's file */
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int err = 0;

	if (!ctx)
		return -ENOMEM;
	tzset(); /* reads a file, at the first use of a calendar */
	for (size_t i = 0; !err && i < sizeof(allowed) / sizeof(allowed[0]); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
	/* No memory that is written becomes code. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, 4, 0));
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}
