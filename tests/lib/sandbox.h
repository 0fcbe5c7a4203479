/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test that loads BPF runs in: a cgroup of its own (programs attach there and nowhere
 * else), a network namespace of its own with loopback up, and a bpffs that only this process
 * can see. All of it ends with the process; what a crash leaves (an empty cgroup) is
 * removed by the next sandbox.
 */
#ifndef KILTER_TESTS_SANDBOX_H
#define KILTER_TESTS_SANDBOX_H

#include <limits.h>

struct sandbox {
	char cgroup[PATH_MAX]; /* this process is in it */
	char home[PATH_MAX];   /* where it was before */
	char bpffs[64];	       /* for bpf_object_open_opts.pin_root_path */
	int cgroup_fd;
};

/* 0 or a negative errno; the process must be root. Call it before any thread is started. */
int sandbox_init(struct sandbox *s);
void sandbox_done(struct sandbox *s);
/* Moves this process into a cgroup. */
int sandbox_join(const char *dir);
/* A network namespace of this thread's own, with loopback up; and how many packets were ever sent
 * there, whoever sent them and whatever became of them. */
int sandbox_network(void);
long sandbox_packets(void);

#endif
