/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KILTER_PROBE_MOUNT_H
#define KILTER_PROBE_MOUNT_H

#include <sys/types.h>

#include <stdbool.h>

int probe_mkdir_p(const char *path, mode_t mode);
/* The kernel says of another directory only "Bad file descriptor", and that when attaching. */
bool probe_is_cgroup2(int dir_fd);
/* Makes dir exist on a bpffs: /sys/fs/bpf is mounted when it is not; elsewhere a bpffs is
 * mounted on dir itself unless it lies on one. */
int probe_bpffs_prepare(const char *dir);

#endif
