/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Interning: what <kilter/identity.h> describes, in the kernel. */
#ifndef KILTER_BPF_IDENTITY_H
#define KILTER_BPF_IDENTITY_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "lib/maps.h"

/* The basename of a task's executable, or its comm for a kernel thread. */
static __always_inline void task_exe(struct task_struct *task, char exe[KILTER_EXE_LEN])
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);

	__builtin_memset(exe, 0, KILTER_EXE_LEN);
	if (file) {
		const unsigned char *name = BPF_CORE_READ(file, f_path.dentry, d_name.name);

		if (bpf_probe_read_kernel_str(exe, KILTER_EXE_LEN, name) > 0) {
			/* Bytes after the NUL take part in the hash: the helper leaves them alone,
			 * and they were zeroed above. */
			return;
		}
	}
	{
		struct task_struct *leader = BPF_CORE_READ(task, group_leader);

		bpf_probe_read_kernel_str(exe, KILTER_COMM_LEN, &leader->comm);
	}
}

/* memcmp() of whole words: clang has no call to make for one that it does not unroll. */
static __always_inline bool words_equal(const void *a, const void *b, __u32 words)
{
	const __u32 *x = a, *y = b;
	__u32 differ = 0;

	for (__u32 i = 0; i < words; i++)
		differ |= x[i] ^ y[i];
	return !differ;
}

/* The id of workload w (its key part), inserting it when new. 0 when there is no room. */
static __always_inline __u32 intern_workload(struct kilter_workload *w)
{
	__u32 id = kilter_hash_words((const __u32 *)&w->key, sizeof(w->key) / 4);

	for (int i = 0; i < KILTER_INTERN_PROBES; i++, id++) {
		const struct kilter_workload *known;
		int err;

		if (!id)
			id = 1;
		known = bpf_map_lookup_elem(&workloads, &id);
		if (!known) {
			w->first_seen_ns = bpf_ktime_get_boot_ns();
			err = map_insert(&workloads, &id, w);
			if (!err)
				return id;
			if (err != MAP_TAKEN) {
				count_drop(KILTER_DROP_WORKLOADS_FULL);
				return 0;
			}
			known = bpf_map_lookup_elem(&workloads, &id);
			if (!known)
				continue;
		}
		if (words_equal(&known->key, &w->key, sizeof(w->key) / 4))
			return id;
	}
	count_drop(KILTER_DROP_WORKLOADS_COLLISION);
	return 0;
}

/* The workload of `task`, which need not be current. */
static __always_inline __u32 intern_workload_task(struct task_struct *task, __u64 cgroup_id,
						  __u32 uid)
{
	struct kilter_workload w;

	__builtin_memset(&w, 0, sizeof(w));
	w.key.cgroup_id = cgroup_id;
	task_exe(task, w.key.exe);
	w.pid = BPF_CORE_READ(task, tgid);
	w.uid = uid;
	BPF_CORE_READ_STR_INTO(&w.comm, task, group_leader, comm);
	return intern_workload(&w);
}

/* The workload of the current task; task context only (connect, bind, raw_tp...). */
static __always_inline __u32 intern_workload_current(void)
{
	return intern_workload_task((struct task_struct *)bpf_get_current_task(),
				    bpf_get_current_cgroup_id(), (__u32)bpf_get_current_uid_gid());
}

static __always_inline __u32 intern_peer(const struct kilter_peer *p)
{
	__u32 id = kilter_hash_words((const __u32 *)p, sizeof(*p) / 4);

	for (int i = 0; i < KILTER_INTERN_PROBES; i++, id++) {
		const struct kilter_peer *known;
		int err;

		if (!id)
			id = 1;
		known = bpf_map_lookup_elem(&peers, &id);
		if (!known) {
			err = map_insert(&peers, &id, p);
			if (!err)
				return id;
			if (err != MAP_TAKEN) {
				count_drop(KILTER_DROP_PEERS_FULL);
				return 0;
			}
			known = bpf_map_lookup_elem(&peers, &id);
			if (!known)
				continue;
		}
		if (words_equal(known, p, sizeof(*p) / 4))
			return id;
	}
	count_drop(KILTER_DROP_PEERS_COLLISION);
	return 0;
}

/* A peer from addresses as sock_addr and sock_ops programs have them (network order). */
static __always_inline void peer_v4(struct kilter_peer *p, __u32 addr_be, __be16 port_be)
{
	__builtin_memset(p, 0, sizeof(*p));
	__builtin_memcpy(p->addr, &addr_be, 4);
	p->port_be = port_be;
	p->family = KILTER_FAMILY_V4;
}

static __always_inline void peer_v6(struct kilter_peer *p, const __u32 addr[4], __be16 port_be)
{
	if (!addr[0] && !addr[1] && addr[2] == bpf_htonl(0xffff)) {
		peer_v4(p, addr[3], port_be); /* ::ffff:a.b.c.d: what Java connects to */
		return;
	}
	__builtin_memset(p, 0, sizeof(*p));
	__builtin_memcpy(p->addr, addr, 16);
	p->port_be = port_be;
	p->family = KILTER_FAMILY_V6;
}

static __always_inline void peer_local(struct kilter_peer *p, __be16 port_be)
{
	__builtin_memset(p, 0, sizeof(*p));
	p->port_be = port_be;
	p->family = KILTER_FAMILY_LOCAL;
}

#endif
