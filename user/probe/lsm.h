/* SPDX-License-Identifier: Apache-2.0 */
/* Which Linux security modules are active: without "bpf" among them an LSM program loads and
 * attaches, and is never called. */
#ifndef KILTER_PROBE_LSM_H
#define KILTER_PROBE_LSM_H

#include <stdbool.h>

/* 0, or a negative errno and why not. */
int probe_lsm_there(char *ret_why, unsigned int size);
/* Is `name` in a list as /sys/kernel/security/lsm has it: names with commas between them? */
bool probe_lsm_listed(const char *list, const char *name);

#endif
