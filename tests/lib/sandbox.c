// SPDX-License-Identifier: Apache-2.0
#include "sandbox.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_PREFIX "kilter-sandbox-" /* then the pid of its owner */

/* Where cgroup v2 is mounted: "/sys/fs/cgroup", or "…/unified" on a hybrid layout. */
static int cgroup_root(char *ret_dir, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX], dir[PATH_MAX];
	int err = -ENOENT;

	if (!f)
		return -errno;
	while (err && fgets(line, sizeof(line), f)) {
		/* proc(5): fields, the fifth is the mount point; " - TYPE SOURCE OPTIONS". */
		if (strstr(line, " - cgroup2 ") &&
		    sscanf(line, "%*s %*s %*s %*s %4095s", dir) == 1 && strlen(dir) < size) {
			snprintf(ret_dir, size, "%s", dir);
			err = 0;
		}
	}
	fclose(f);
	return err;
}

int sandbox_join(const char *dir)
{
	char path[PATH_MAX + 16];
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, "0", 1) != 1)
		err = -errno;
	close(fd);
	return err;
}

static void cgroup_home(const char *root, char *ret_dir, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[512];

	snprintf(ret_dir, size, "%s", root);
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::/", 4))
			snprintf(ret_dir, size, "%s%s", root, line + 3);
	}
	fclose(f);
}

/* Cgroups of sandboxes whose process is gone. rmdir() refuses one that is in use. */
static void remove_stale(const char *root)
{
	DIR *d = opendir(root);
	const struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d))) {
		long pid;

		if (strncmp(e->d_name, NAME_PREFIX, strlen(NAME_PREFIX)))
			continue;
		pid = strtol(e->d_name + strlen(NAME_PREFIX), NULL, 10);
		if (pid > 0 && kill((pid_t)pid, 0) && errno == ESRCH)
			unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
	}
	closedir(d);
}

int sandbox_network(void)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	int fd, err = 0;

	if (unshare(CLONE_NEWNET))
		return -errno;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr))
		err = -errno;
	close(fd);
	return err;
}

int sandbox_init(struct sandbox *s)
{
	char root[1024];
	int err;

	memset(s, 0, sizeof(*s));
	s->cgroup_fd = -1;
	err = cgroup_root(root, sizeof(root));
	if (err)
		return err;
	remove_stale(root);
	/* A private mount namespace: the bpffs goes with the process, however it ends. */
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	err = sandbox_network();
	if (err)
		return err;
	snprintf(s->bpffs, sizeof(s->bpffs), "/tmp/kilter-sandbox-XXXXXX");
	if (!mkdtemp(s->bpffs))
		return -errno;
	if (mount("bpf", s->bpffs, "bpf", 0, NULL)) {
		err = -errno;
		goto fail;
	}
	cgroup_home(root, s->home, sizeof(s->home));
	snprintf(s->cgroup, sizeof(s->cgroup), "%s/" NAME_PREFIX "%d", root, getpid());
	if (mkdir(s->cgroup, 0755)) {
		err = -errno;
		s->cgroup[0] = '\0';
		goto fail;
	}
	s->cgroup_fd = open(s->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->cgroup_fd < 0) {
		err = -errno;
		goto fail;
	}
	err = sandbox_join(s->cgroup);
	if (!err)
		return 0;
fail:
	sandbox_done(s);
	return err;
}

void sandbox_done(struct sandbox *s)
{
	if (s->cgroup[0]) {
		sandbox_join(s->home);
		rmdir(s->cgroup);
	}
	if (s->cgroup_fd >= 0)
		close(s->cgroup_fd);
	s->cgroup_fd = -1;
	if (s->bpffs[0]) {
		umount2(s->bpffs, MNT_DETACH);
		rmdir(s->bpffs);
	}
}

long sandbox_packets(void)
{
	FILE *f = fopen("/proc/self/net/dev", "re");
	char line[512];
	long packets = -1;

	if (!f)
		return -1;
	/* Of what comes in bytes, packets and six more; then the same of what goes out. */
	while (packets < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, " lo: %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld", &packets) != 1)
			packets = -1;
	fclose(f);
	return packets;
}
