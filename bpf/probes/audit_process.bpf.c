// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Audit of processes: what was executed, and how it ended. */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/emit.h"
#include "lib/observed.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile bool audit_exec = true;
const volatile bool audit_exit = true;

static __always_inline void event_task(struct kilter_event *h, struct task_struct *task)
{
	h->cgroup_id = bpf_get_current_cgroup_id();
	h->pid = task->tgid;
	h->ppid = BPF_CORE_READ(task, real_parent, tgid);
	h->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(h->comm, sizeof(h->comm));
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(audit_process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct kilter_event_exec *e;
	unsigned long start, end;
	__u64 len;

	if (!audit_exec || !current_observed())
		return 0;
	e = event_reserve(KILTER_EVENT_EXEC, sizeof(*e));
	if (!e)
		return 0;
	event_task(&e->h, task);
	e->h.workload = intern_workload_current();
	e->args_len = 0;
	e->args_truncated = 0;
	if (bpf_probe_read_kernel_str(e->file, sizeof(e->file), BPF_CORE_READ(bprm, filename)) < 0)
		e->file[0] = '\0';
	start = BPF_CORE_READ(task, mm, arg_start);
	end = BPF_CORE_READ(task, mm, arg_end);
	len = end > start ? end - start : 0;
	if (len > sizeof(e->args)) {
		len = sizeof(e->args);
		e->args_truncated = 1;
	}
	barrier_var(len);
	if (len && len <= sizeof(e->args) && !bpf_probe_read_user(e->args, len, (void *)start))
		e->args_len = len;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(audit_process_exit, struct task_struct *task)
{
	struct kilter_event_exit *e;
	__u32 code;

	/* The process ends with its leader's last breath; threads come and go unrecorded. */
	if (!audit_exit || task->pid != task->tgid || !current_observed())
		return 0;
	e = event_reserve(KILTER_EVENT_EXIT, sizeof(*e));
	if (!e)
		return 0;
	event_task(&e->h, task);
	e->h.workload = intern_workload_current();
	code = task->exit_code;
	e->start_ns = task->start_boottime;
	e->code = code >> 8 & 0xff; /* wait(2): the status a parent gets */
	e->signal = code & 0x7f;
	bpf_ringbuf_submit(e, 0);
	return 0;
}
