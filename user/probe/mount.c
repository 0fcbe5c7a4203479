// SPDX-License-Identifier: Apache-2.0
/* Where the cgroup v2 tree and bpffs are, and putting the latter there. */
#include "probe/mount.h"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "probe/probe.h"

/* mountinfo escapes space, tab, newline and backslash as octal (proc(5)). */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ =
			    (char)((unsigned int)(s[1] - '0') << 6 |
				   (unsigned int)(s[2] - '0') << 3 | (unsigned int)(s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

int probe_cgroup2_root(char *ret, unsigned int size)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	size_t cap = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		char *type = strstr(line, " - "), *save = NULL, *field;
		int i = 0;

		if (!type || strncmp(type + 3, "cgroup2 ", 8))
			continue;
		for (field = strtok_r(line, " ", &save); field && i < 4;
		     field = strtok_r(NULL, " ", &save))
			i++;
		if (!field || strlen(field) >= size)
			continue;
		unescape(field);
		snprintf(ret, size, "%s", field);
		return 0;
	}
	return -ENOENT;
}

static bool is_bpffs(const char *path)
{
	struct statfs st;

	return !statfs(path, &st) && (unsigned long)st.f_type == BPF_FS_MAGIC;
}

bool probe_is_cgroup2(int dir_fd)
{
	struct statfs st;

	return !fstatfs(dir_fd, &st) && (unsigned long)st.f_type == CGROUP2_SUPER_MAGIC;
}

int probe_mkdir_p(const char *path, mode_t mode)
{
	char buf[CONFIG_PATH_LEN];

	if (strlen(path) >= sizeof(buf))
		return -ENAMETOOLONG;
	snprintf(buf, sizeof(buf), "%s", path);
	for (char *p = buf + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(buf, mode) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdir(buf, mode) && errno != EEXIST)
		return -errno;
	return 0;
}

int probe_bpffs_prepare(const char *dir)
{
	static const char system_bpffs[] = "/sys/fs/bpf";
	char parent[CONFIG_PATH_LEN], *slash;
	const char *at = dir;
	int err;

	if (!strncmp(dir, system_bpffs, sizeof(system_bpffs) - 1)) {
		at = system_bpffs;
	} else {
		snprintf(parent, sizeof(parent), "%s", dir);
		while (access(parent, F_OK) && (slash = strrchr(parent, '/')) && slash != parent)
			*slash = '\0';
		if (!is_bpffs(parent)) {
			err = probe_mkdir_p(dir, 0700);
			if (err)
				return err;
		} else {
			at = parent;
		}
	}
	if (!is_bpffs(at) && mount("bpf", at, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"))
		return -errno;
	return probe_mkdir_p(dir, 0700);
}
