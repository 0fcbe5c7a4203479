/* SPDX-License-Identifier: Apache-2.0 */
/* What the worker gives up before it reads the first byte from outside. */
#ifndef KILTER_API_SANDBOX_H
#define KILTER_API_SANDBOX_H

#include <sys/types.h>

#include <stddef.h>

/* Dies (SIGKILL) when parent does; exits at once when it is already gone. */
void sandbox_die_with(pid_t parent);
/* Moves fds to 3, 4, ... (written back; -1 stays) and closes every other above stderr. */
int sandbox_keep_fds(int *fds, size_t count);
/* User, groups, capabilities with the bounding set, no_new_privs, limits, no dumps. */
int sandbox_enter(uid_t uid, gid_t gid, pid_t parent, unsigned int max_fds);
/* The system calls that serving needs; any other kills the process. */
int sandbox_filter(void);

#endif
