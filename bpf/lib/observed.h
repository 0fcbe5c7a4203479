/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs on tracepoints see the whole node: this says which tasks are ours. Element 0 is the
 * --cgroup directory, put there by user space before anything is attached; while it is
 * empty the helper fails and nothing is ours.
 */
#ifndef KILTER_BPF_OBSERVED_H
#define KILTER_BPF_OBSERVED_H

#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} observed_cgroup SEC(".maps");

static __always_inline bool current_observed(void)
{
	return bpf_current_task_under_cgroup(&observed_cgroup, 0) == 1;
}

#endif
