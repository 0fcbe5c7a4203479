// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Audit of processes: what was executed, and how it ended. An exec is seen at one of three places,
 * the first that the kernel allows (user/probe/registry.c); all of them write the same record.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/emit.h"
#include "lib/observed.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile bool audit_exec = true;
const volatile bool audit_exit = true;

/* The current task: each of our hooks runs in the process that it tells of. */
static __always_inline void event_current(struct kilter_event *h)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	h->cgroup_id = bpf_get_current_cgroup_id();
	h->pid = bpf_get_current_pid_tgid() >> 32;
	h->ppid = BPF_CORE_READ(task, real_parent, tgid);
	h->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(h->comm, sizeof(h->comm));
	h->workload = intern_workload_current();
}

/* A record without its arguments, or NULL: not ours, or no room. */
static __always_inline struct kilter_event_exec *exec_reserve(const struct linux_binprm *bprm)
{
	struct kilter_event_exec *e;

	if (!audit_exec || !current_observed())
		return NULL;
	e = event_reserve(KILTER_EVENT_EXEC, sizeof(*e));
	if (!e)
		return NULL;
	event_current(&e->h);
	e->args_len = 0;
	e->args_truncated = 0;
	if (bpf_probe_read_kernel_str(e->file, sizeof(e->file), bprm->filename) < 0)
		e->file[0] = '\0';
	return e;
}

/* Up to a record's worth of the bytes from start to end; how many there are now. */
static __always_inline __u32 exec_copy(struct kilter_event_exec *e, __u64 start, __u64 end)
{
	__u64 len = end > start ? end - start : 0;

	if (len > sizeof(e->args)) {
		len = sizeof(e->args);
		e->args_truncated = 1;
	}
	barrier_var(len);
	if (len && len <= sizeof(e->args) && !bpf_probe_read_user(e->args, len, (void *)start))
		return len;
	return 0;
}

/* The program is laid out and about to run: the kernel knows where its arguments are. */
static __always_inline int exec_done(const struct linux_binprm *bprm)
{
	struct kilter_event_exec *e = exec_reserve(bprm);
	struct mm_struct *mm;

	if (!e)
		return 0;
	mm = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), mm);
	e->args_len = exec_copy(e, BPF_CORE_READ(mm, arg_start), BPF_CORE_READ(mm, arg_end));
	event_submit(e);
	return 0;
}

/*
 * A hook without a verdict. The new memory is in place, its stack not yet: from bprm->p on are argc
 * strings of arguments, those of the environment and, at bprm->exec, the file's name. Where the
 * arguments end nobody has written down: they are counted. What the copy holds behind them is not
 * of the record (args_len).
 */
SEC("lsm/bprm_committed_creds")
int BPF_PROG(audit_exec_lsm, const struct linux_binprm *bprm)
{
	struct kilter_event_exec *e = exec_reserve(bprm);
	__u32 len, end = 0;
	int left;

	if (!e)
		return 0;
	left = bprm->argc;
	len = exec_copy(e, bprm->p, bprm->exec);
	for (__u32 i = 0; i < sizeof(e->args); i++) {
		if (i >= len || left <= 0)
			break;
		if (!e->args[i])
			left--;
		end = i + 1;
	}
	e->args_len = end;
	if (left <= 0)
		e->args_truncated = 0; /* the environment alone was */
	event_submit(e);
	return 0;
}

/* The last that a binary format does before its program runs. */
SEC("fentry/finalize_exec")
int BPF_PROG(audit_exec_func, struct linux_binprm *bprm)
{
	return exec_done(bprm);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(audit_exec_tp, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	return exec_done(bprm);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(audit_exit_tp, struct task_struct *task)
{
	struct kilter_event_exit *e;
	__u32 code;

	/* The process ends with its leader's last breath; threads come and go unrecorded. */
	if (!audit_exit || task->pid != task->tgid || !current_observed())
		return 0;
	e = event_reserve(KILTER_EVENT_EXIT, sizeof(*e));
	if (!e)
		return 0;
	event_current(&e->h);
	code = task->exit_code;
	e->start_ns = task->start_boottime;
	e->code = code >> 8 & 0xff; /* wait(2): the status a parent gets */
	e->signal = code & 0x7f;
	event_submit(e);
	return 0;
}
