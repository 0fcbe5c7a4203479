// SPDX-License-Identifier: Apache-2.0
/* Loading order is the order of rows: a row may use the maps of the ones before it. */
#include "probe/registry.h"

#include <string.h>

#include <bpf/libbpf.h>

#include "audit_process.skel.h"
#include "guard_connect.skel.h"
#include "guard_iter.skel.h"
#include "guard_udp.skel.h"
#include "probe/lsm.h"
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

PROBE_SKELETON(sock_owner, skel->rodata->shard_mask = o->shard_mask)
PROBE_SKELETON(tcp_conn, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->audit_connect = o->config->audit.connect;
	skel->rodata->audit_listen = o->config->audit.listen;
	skel->rodata->node_trace = o->tier != PROBE_TIER_LOWER;
})
PROBE_SKELETON(request, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->routes_per_workload = o->config->limits.routes_per_workload;
})
PROBE_SKELETON(guard_connect, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->audit_connect = o->config->audit.connect;
})
PROBE_SKELETON(guard_iter, skel->rodata->shard_mask = o->shard_mask)
PROBE_SKELETON(guard_udp, skel->rodata->audit_connect = o->config->audit.connect)
PROBE_SKELETON(audit_process, {
	skel->rodata->audit_exec = o->config->audit.exec;
	skel->rodata->audit_exit = o->config->audit.exit;
})
PROBE_SKELETON(syscall, (void)o)
PROBE_SKELETON(sock_iter, {
	skel->rodata->shard_mask = o->shard_mask;
	skel->rodata->observed_id = o->cgroup_id;
	skel->rodata->adopt_secret = o->tier == PROBE_TIER_LOWER ? o->adopt_secret : 0;
})

static bool syscalls_enabled(const struct config *c)
{
	return c->syscalls.enabled;
}

static bool process_audit_enabled(const struct config *c)
{
	return c->audit.exec || c->audit.exit;
}

static bool set_retval_allowed(const struct config *c)
{
	return c->kernel.set_retval;
}

static bool sock_destroy_allowed(const struct config *c)
{
	return c->kernel.sock_destroy;
}

static bool error_report_allowed(const struct config *c)
{
	return c->kernel.error_report;
}

static bool tracing_storage_allowed(const struct config *c)
{
	return c->kernel.tracing_storage;
}

static bool task_storage_allowed(const struct config *c)
{
	return c->kernel.task_storage;
}

static bool lsm_allowed(const struct config *c)
{
	return c->kernel.lsm;
}

static bool fentry_allowed(const struct config *c)
{
	return c->kernel.fentry;
}

#define ROW(n) .name = #n, .open = n##_row_open, .destroy = n##_row_destroy

const struct probe_row probe_rows[] = {
    {ROW(sock_owner), .hooks = "cgroup/bind4,6", .essential = true,
     .missing = "no listener has an owner without it; cgroup sock_addr programs are Linux 5.10",
     .programs = {{"own_bind4", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY},
		  {"own_bind6", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY}}},
    {ROW(tcp_conn), .hooks = "sockops cgroup/sock_release tp_btf/inet_sock_set_state",
     .essential = true,
     .missing = "no connection is counted without it; sockops with socket storage is Linux 5.10",
     .better = {{"socket storage in tracing programs (Linux 5.11)", "kernel.tracing_storage",
		 tracing_storage_allowed, NULL}},
     .programs = {{"tcp_life", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY},
		  {"tcp_release", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY},
		  {"tcp_adopted_end", PROBE_ATTACH_TRACE, true, PROBE_TIER_FULL}}},
    {ROW(request), .hooks = "cgroup_skb/ingress,egress", .essential = true,
     .missing = "no request is counted without it; socket storage in cgroup_skb is Linux 5.10",
     .programs = {{"request_ingress", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY},
		  {"request_egress", PROBE_ATTACH_CGROUP, true, PROBE_TIER_ANY},
		  {"retire_series", PROBE_ATTACH_NONE, false, PROBE_TIER_ANY}}},
    {ROW(guard_connect), .hooks = "cgroup/connect4,6 cgroup/sendmsg4,6", .essential = true,
     .missing = "no connection has an owner without it, and no circuit is counted or enforced",
     .better = {{"bpf_set_retval in connect hooks (Linux 6.1)", "kernel.set_retval",
		 set_retval_allowed, NULL}},
     .programs = {{"guard_connect4", PROBE_ATTACH_CGROUP, true, PROBE_TIER_FULL},
		  {"guard_connect6", PROBE_ATTACH_CGROUP, true, PROBE_TIER_FULL},
		  {"guard_sendmsg4", PROBE_ATTACH_CGROUP, true, PROBE_TIER_FULL},
		  {"guard_sendmsg6", PROBE_ATTACH_CGROUP, true, PROBE_TIER_FULL},
		  {"guard_sendmsg4_deny", PROBE_ATTACH_CGROUP, true, PROBE_TIER_LOWER},
		  {"guard_sendmsg6_deny", PROBE_ATTACH_CGROUP, true, PROBE_TIER_LOWER},
		  {"guard_connect4_rewrite", PROBE_ATTACH_CGROUP, true, PROBE_TIER_LOWER},
		  {"guard_connect6_rewrite", PROBE_ATTACH_CGROUP, true, PROBE_TIER_LOWER}}},
    {ROW(guard_iter), .hooks = "iter/bpf_sk_storage_map iter/tcp", .essential = false,
     .missing = "connections older than their circuit join it with their first failure only, and "
		"none is ended when it opens",
     .better = {{"bpf_sock_destroy (Linux 6.5)", "kernel.sock_destroy", sock_destroy_allowed,
		 NULL}},
     .programs = {{"guard_join", PROBE_ATTACH_ITER, true, PROBE_TIER_ANY},
		  {"guard_close", PROBE_ATTACH_ITER, true, PROBE_TIER_FULL}}},
    {ROW(guard_udp), .hooks = "tp_btf/inet_sk_error_report", .essential = false,
     .missing = "ICMP errors are no failures of UDP circuits without it",
     .better = {{"tracepoint inet_sk_error_report (Linux 5.14)", "kernel.error_report",
		 error_report_allowed, NULL}},
     .programs = {{"guard_udp_error", PROBE_ATTACH_TRACE, false, PROBE_TIER_FULL}}},
    {ROW(audit_process), .hooks = "exec: lsm or fentry or tp_btf; exit: tp_btf", .essential = false,
     .missing = "no exec or exit records without it", .enabled = process_audit_enabled,
     .better = {{"LSM programs (Linux 5.7, on arm64 6.4)", "kernel.lsm", lsm_allowed,
		 probe_lsm_there},
		{"fentry (Linux 5.5, on arm64 6.4)", "kernel.fentry", fentry_allowed, NULL}},
     .programs = {{"audit_exec_lsm", PROBE_ATTACH_TRACE, false, PROBE_TIER_FULL},
		  {"audit_exec_func", PROBE_ATTACH_TRACE, false, PROBE_TIER_MIDDLE},
		  {"audit_exec_tp", PROBE_ATTACH_TRACE, false, PROBE_TIER_LOWER},
		  {"audit_exit_tp", PROBE_ATTACH_TRACE, false, PROBE_TIER_ANY}}},
    {ROW(syscall), .hooks = "raw_tp/sys_enter,exit", .essential = false,
     .missing = "no system-call figures without it", .enabled = syscalls_enabled,
     .better = {{"task storage in tracing programs (Linux 5.12)", "kernel.task_storage",
		 task_storage_allowed, NULL}},
     .programs = {{"syscall_enter", PROBE_ATTACH_NONE, false, PROBE_TIER_FULL},
		  {"syscall_exit", PROBE_ATTACH_NONE, false, PROBE_TIER_FULL},
		  {"syscall_enter_by_thread", PROBE_ATTACH_NONE, false, PROBE_TIER_LOWER},
		  {"syscall_exit_by_thread", PROBE_ATTACH_NONE, false, PROBE_TIER_LOWER}},
     .maps = {{"syscall_tasks", PROBE_TIER_FULL}, {"syscall_threads", PROBE_TIER_LOWER}}},
    {ROW(sock_iter), .hooks = "iter/tcp iter/task_file", .essential = false,
     .missing = "sockets older than the agent stay unseen without it",
     .better = {{"sockets in file iterators (Linux 5.11)", "kernel.tracing_storage",
		 tracing_storage_allowed, NULL}},
     .programs = {{"adopt_listeners", PROBE_ATTACH_ITER, true, PROBE_TIER_FULL},
		  {"adopt_tcp", PROBE_ATTACH_ITER, true, PROBE_TIER_FULL},
		  {"poll_listeners", PROBE_ATTACH_ITER, true, PROBE_TIER_FULL},
		  {"adopt_by_hand", PROBE_ATTACH_NONE, false, PROBE_TIER_LOWER}},
     .maps = {{"listen_ports", PROBE_TIER_FULL}}},
};
const unsigned int probe_rows_count = sizeof(probe_rows) / sizeof(probe_rows[0]);

const char *probe_tier_name(enum probe_tier tier)
{
	static const char *const names[] = {[PROBE_TIER_ANY] = "any",
					    [PROBE_TIER_FULL] = "full",
					    [PROBE_TIER_MIDDLE] = "middle",
					    [PROBE_TIER_LOWER] = "lower"};

	return names[tier];
}

static bool is_of(enum probe_tier wanted, enum probe_tier tier)
{
	return wanted == PROBE_TIER_ANY || wanted == tier;
}

void probe_row_choose(const struct probe_row *row, const struct bpf_object *obj,
		      enum probe_tier tier)
{
	for (unsigned int i = 0; i < PROBE_PROGRAMS_MAX && row->programs[i].name; i++) {
		struct bpf_program *prog =
		    bpf_object__find_program_by_name(obj, row->programs[i].name);

		if (prog)
			bpf_program__set_autoload(prog, is_of(row->programs[i].tier, tier));
	}
	for (unsigned int i = 0; i < PROBE_TIER_MAPS_MAX && row->maps[i].name; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, row->maps[i].name);

		if (map)
			bpf_map__set_autocreate(map, is_of(row->maps[i].tier, tier));
	}
}

const struct probe_row *probe_row_find(const char *name)
{
	for (unsigned int i = 0; i < probe_rows_count; i++)
		if (!strcmp(probe_rows[i].name, name))
			return &probe_rows[i];
	return NULL;
}
