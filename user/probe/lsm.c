// SPDX-License-Identifier: Apache-2.0
#include "probe/lsm.h"

#include <sys/syscall.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"

/* Linux 6.8, <linux/lsm.h>; the headers of Debian 12 are older. The number is that of all our
 * architectures. */
#ifndef SYS_lsm_list_modules
#define SYS_lsm_list_modules 461
#endif
#define ID_BPF	     109 /* LSM_ID_BPF */
#define MODULES_MAX  64
#define LSM_LIST     "/sys/kernel/security/lsm"
#define LSM_LIST_LEN 256

bool probe_lsm_listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; *p;) {
		size_t n = strcspn(p, ",\n");

		if (n == len && !strncmp(p, name, n))
			return true;
		p += n + (p[n] != '\0');
	}
	return false;
}

/* 1: bpf is active, 0: it is not, -errno: nobody says. */
static int ask_kernel(void)
{
	uint32_t size = MODULES_MAX * sizeof(uint64_t);
	uint64_t ids[MODULES_MAX];
	long n = syscall(SYS_lsm_list_modules, ids, &size, 0);

	if (n < 0)
		return -errno;
	for (long i = 0; i < n && i < MODULES_MAX; i++)
		if (ids[i] == ID_BPF)
			return 1;
	return 0;
}

/* The same of the file, which has been there longer but wants securityfs mounted. */
static int ask_file(void)
{
	_cleanup_fclose_ FILE *f = fopen(LSM_LIST, "re");
	char list[LSM_LIST_LEN];

	if (!f)
		return -errno;
	if (!fgets(list, sizeof(list), f))
		return -EIO;
	return probe_lsm_listed(list, "bpf");
}

int probe_lsm_there(char *ret_why, unsigned int size)
{
	int active = ask_kernel();

	if (active < 0)
		active = ask_file();
	if (active < 0) {
		snprintf(ret_why, size, LSM_LIST ": %s", strerror(-active));
		return active;
	}
	if (!active) {
		snprintf(ret_why, size, "bpf is not among the active LSMs (lsm= at boot)");
		return -EOPNOTSUPP;
	}
	return 0;
}
