// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * System calls: counts, errors by errno and latency per workload. An armed tracepoint taxes
 * every system call of the node, so user space attaches these two for a window of each
 * period only (probe/sampler.c) and says so with the figures.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/identity.h"
#include "lib/observed.h"

/*
 * Two pairs of programs. Where a task can have storage in a tracing program (Linux 5.12), what is
 * known of it lies there; before that, in a hash by thread, which costs more and is emptied by user
 * space when a window ends. That pair is on tp_btf, for older kernels warn in their log when a
 * raw_tp program uses a map that is not preallocated.
 */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_ERRNO 4095 /* include/linux/err.h */

#ifdef __TARGET_ARCH_x86
#define NR_EXIT	      60
#define NR_EXIT_GROUP 231
#else /* asm-generic/unistd.h */
#define NR_EXIT	      93
#define NR_EXIT_GROUP 94
#endif

/* x86-64: a 32-bit task's numbers mean other calls; there they are left out. */
#define TS_COMPAT 0x0002

struct task_state {
	__u64 start_ns; /* 0: not inside a call that we saw enter */
	__u32 nr;
	__u32 workload;	  /* 0: not looked up yet */
	__u64 cgroup_id;  /* of that workload: a task may move */
	__u64 exec_start; /* self_exec_id: an exec makes another workload of it */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} syscall_tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_SYSCALLS_MAX);
	__type(key, struct kilter_syscall_key);
	__type(value, struct kilter_syscall);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} syscalls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_SYSCALL_ERRORS_MAX);
	__type(key, struct kilter_syscall_error_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} syscall_errors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KILTER_SYSCALL_THREADS_MAX);
	__type(key, __u32); /* thread id */
	__type(value, struct task_state);
} syscall_threads SEC(".maps");

static __always_inline bool is_compat(struct task_struct *task)
{
#ifdef __TARGET_ARCH_x86
	return BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
#else
	return false;
#endif
}

static __always_inline void entered(struct task_state *t, __u64 exec_id, __u32 nr)
{
	__u64 cgroup_id = bpf_get_current_cgroup_id();

	if (!t->workload || t->exec_start != exec_id || t->cgroup_id != cgroup_id) {
		t->workload = intern_workload_current();
		t->exec_start = exec_id;
		t->cgroup_id = cgroup_id;
	}
	t->nr = nr;
	t->start_ns = bpf_ktime_get_ns();
}

static __always_inline void count_error(const struct task_state *t, __u32 err)
{
	struct kilter_syscall_error_key key = {.workload = t->workload, .nr = t->nr, .err = err};
	__u64 one = 1, *n = bpf_map_lookup_elem(&syscall_errors, &key);

	if (!n && map_insert(&syscall_errors, &key, &one)) {
		n = bpf_map_lookup_elem(&syscall_errors, &key);
		if (!n)
			count_drop(KILTER_DROP_SYSCALL_ERRORS_FULL);
	}
	if (n)
		add_to(*n, 1);
}

static __always_inline void left(struct task_state *t, long ret)
{
	static const struct kilter_syscall zero;
	struct kilter_syscall_key key = {};
	struct kilter_syscall *v;
	__u64 ns, i;

	if (!t->start_ns)
		return; /* entered before the window opened */
	ns = bpf_ktime_get_ns() - t->start_ns;
	t->start_ns = 0;
	key.workload = t->workload;
	key.nr = t->nr;
	v = bpf_map_lookup_elem(&syscalls, &key);
	if (!v) {
		map_insert(&syscalls, &key, &zero);
		v = bpf_map_lookup_elem(&syscalls, &key);
		if (!v) {
			count_drop(KILTER_DROP_SYSCALLS_FULL);
			return;
		}
	}
	i = fine_index(ns);
	bound_index(i, KILTER_FINE_BUCKETS);
	add_to(v->count, 1);
	add_to(v->sum_ns, ns);
	add_to(v->hist[i], 1);
	if (ret < 0 && ret >= -MAX_ERRNO) {
		add_to(v->errors, 1);
		count_error(t, (__u32)-ret);
	}
}

SEC("raw_tp/sys_enter")
int syscall_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *t;

	if (!current_observed() || is_compat(task))
		return 0;
	t = bpf_task_storage_get(&syscall_tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (t)
		entered(t, task->self_exec_id, (__u32)ctx->args[1]);
	else
		count_drop(KILTER_DROP_TASK_STORAGE);
	return 0;
}

SEC("raw_tp/sys_exit")
int syscall_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_state *t =
	    bpf_task_storage_get(&syscall_tasks, bpf_get_current_task_btf(), NULL, 0);

	if (t)
		left(t, (long)ctx->args[1]);
	return 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(syscall_enter_by_thread, struct pt_regs *regs, long nr)
{
	static const struct task_state zero;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct task_state *t;

	/* These do not return, and would leave what is known of the thread behind. */
	if (nr == NR_EXIT || nr == NR_EXIT_GROUP || !current_observed() || is_compat(task))
		return 0;
	t = bpf_map_lookup_elem(&syscall_threads, &thread);
	if (!t) {
		map_insert(&syscall_threads, &thread, &zero);
		t = bpf_map_lookup_elem(&syscall_threads, &thread);
	}
	if (t)
		entered(t, BPF_CORE_READ(task, self_exec_id), (__u32)nr);
	else
		count_drop(KILTER_DROP_TASK_STORAGE);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_exit_by_thread, struct pt_regs *regs, long ret)
{
	__u32 thread = (__u32)bpf_get_current_pid_tgid();
	struct task_state *t = bpf_map_lookup_elem(&syscall_threads, &thread);

	if (!t)
		return 0;
	left(t, ret);
	bpf_map_delete_elem(&syscall_threads, &thread);
	return 0;
}
