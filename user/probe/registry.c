// SPDX-License-Identifier: Apache-2.0
/* Loading order is the order of rows: a row may use the maps of the ones before it. */
#include "probe/registry.h"

#include <bpf/libbpf.h>

#include "audit_process.skel.h"
#include "guard_connect.skel.h"
#include "request.skel.h"
#include "sock_iter.skel.h"
#include "sock_owner.skel.h"
#include "syscall.skel.h"
#include "tcp_conn.skel.h"

/* Every skeleton has its own type: open() and destroy() of one, with its switches in SET. */
#define PROBE_SKELETON(name, SET)                                                                 \
	static struct bpf_object *name##_row_open(const struct probe_options *o, void **ret_skel) \
	{                                                                                         \
		LIBBPF_OPTS(bpf_object_open_opts, opts, .pin_root_path = o->pin_dir);             \
		struct name *skel = name##__open_opts(&opts);                                     \
                                                                                                  \
		if (!skel)                                                                        \
			return NULL;                                                              \
		SET;                                                                              \
		*ret_skel = skel;                                                                 \
		return skel->obj;                                                                 \
	}                                                                                         \
	static void name##_row_destroy(void *skel)                                                \
	{                                                                                         \
		name##__destroy(skel);                                                            \
	}

PROBE_SKELETON(sock_owner, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->audit_connect = o->config->audit.connect;
})
PROBE_SKELETON(tcp_conn, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->audit_connect = o->config->audit.connect;
	skel->rodata->audit_listen = o->config->audit.listen;
})
PROBE_SKELETON(request, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->routes_per_workload = o->config->limits.routes_per_workload;
})
PROBE_SKELETON(guard_connect, skel->rodata->shard_mask = o->shard_mask)
PROBE_SKELETON(audit_process, {
	skel->rodata->audit_exec = o->config->audit.exec;
	skel->rodata->audit_exit = o->config->audit.exit;
})
PROBE_SKELETON(syscall, (void)o)
PROBE_SKELETON(sock_iter, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->observed_id = o->cgroup_id;
})

static bool syscalls_enabled(const struct config *c)
{
	return c->syscalls.enabled;
}

static bool process_audit_enabled(const struct config *c)
{
	return c->audit.exec || c->audit.exit;
}

#define ROW(n) .name = #n, .open = n##_row_open, .destroy = n##_row_destroy

const struct probe_row probe_rows[] = {
    {ROW(sock_owner), .hooks = "cgroup/connect4,6 cgroup/bind4,6", .essential = true,
     .missing = "no socket has an owner without it; cgroup sock_addr programs are Linux 5.10",
     .programs = {{"own_connect4", PROBE_ATTACH_CGROUP, NULL, true},
		  {"own_connect6", PROBE_ATTACH_CGROUP, NULL, true},
		  {"own_bind4", PROBE_ATTACH_CGROUP, NULL, true},
		  {"own_bind6", PROBE_ATTACH_CGROUP, NULL, true}}},
    {ROW(tcp_conn), .hooks = "sockops cgroup/sock_release tp_btf/inet_sock_set_state",
     .essential = true, .missing = "no connection is counted without it; bpf_loop is Linux 5.17",
     .programs = {{"tcp_life", PROBE_ATTACH_CGROUP, NULL, true},
		  {"tcp_release", PROBE_ATTACH_CGROUP, NULL, true},
		  {"tcp_adopted_end", PROBE_ATTACH_TRACE, NULL, true}}},
    {ROW(request), .hooks = "cgroup_skb/ingress,egress", .essential = true,
     .missing = "no request is counted without it; bpf_loop is Linux 5.17",
     .programs = {{"request_ingress", PROBE_ATTACH_CGROUP, NULL, true},
		  {"request_egress", PROBE_ATTACH_CGROUP, NULL, true},
		  {"retire_series", PROBE_ATTACH_NONE, NULL, false}}},
    {ROW(guard_connect), .hooks = "cgroup/connect4,6", .essential = true,
     .missing = "no circuit can be counted or enforced without it",
     .programs = {{"guard_connect4", PROBE_ATTACH_CGROUP, NULL, true},
		  {"guard_connect6", PROBE_ATTACH_CGROUP, NULL, true},
		  {"guard_connect4_rewrite", PROBE_ATTACH_CGROUP, "guard_connect4", true},
		  {"guard_connect6_rewrite", PROBE_ATTACH_CGROUP, "guard_connect6", true}}},
    {ROW(audit_process), .hooks = "tp_btf/sched_process_exec,exit", .essential = false,
     .missing = "no exec or exit records without it", .enabled = process_audit_enabled,
     .programs = {{"audit_process_exec", PROBE_ATTACH_TRACE, NULL, false},
		  {"audit_process_exit", PROBE_ATTACH_TRACE, NULL, false}}},
    {ROW(syscall), .hooks = "raw_tp/sys_enter,exit", .essential = false,
     .missing = "no system-call figures without it; task storage in tracing is Linux 5.12",
     .enabled = syscalls_enabled,
     .programs = {{"syscall_enter", PROBE_ATTACH_NONE, NULL, false},
		  {"syscall_exit", PROBE_ATTACH_NONE, NULL, false}}},
    {ROW(sock_iter), .hooks = "iter/tcp iter/task_file", .essential = false,
     .missing = "sockets older than the agent stay unseen without it; "
		"bpf_sock_from_file in iterators is Linux 5.11",
     .programs = {{"adopt_owner", PROBE_ATTACH_ITER, NULL, true},
		  {"adopt_listeners", PROBE_ATTACH_ITER, NULL, true},
		  {"adopt_tcp", PROBE_ATTACH_ITER, NULL, true},
		  {"poll_listeners", PROBE_ATTACH_ITER, NULL, true}}},
};
const unsigned int probe_rows_count = sizeof(probe_rows) / sizeof(probe_rows[0]);
