/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The duty cycle of the syscall probe: attached for a window of each period, because an
 * armed tracepoint taxes every system call of the node. The phase is jittered, so that
 * what a workload does once a second does not fall into the same place each time.
 */
#ifndef KILTER_PROBE_SAMPLER_H
#define KILTER_PROBE_SAMPLER_H

#include <stdint.h>

#include "core/loop.h"

struct bpf_program;
struct sampler;
/* threads_fd: the map of threads inside a call (__u32 keys), which is emptied when a window ends;
 * -1: there is none. Borrowed. */
int sampler_new(struct sampler **ret, struct loop *loop, struct bpf_program *enter,
		struct bpf_program *leave, int threads_fd, uint64_t window_ns, uint64_t period_ns);
void sampler_free(struct sampler **s);
/* Share of the time since start that the probe was armed, as measured. */
double sampler_ratio(const struct sampler *s);
uint64_t sampler_failures(const struct sampler *s); /* attempts to attach that failed */

#endif
