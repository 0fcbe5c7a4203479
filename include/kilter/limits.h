/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Every bound that kernel and user space share, with its reason. Bounds a user may
 * change are defaults here and keys in the configuration (core/config.h).
 */
#ifndef KILTER_LIMITS_H
#define KILTER_LIMITS_H

#define KILTER_ABI_VERSION 1 /* of the pinned maps; a mismatch refuses the pins */

#define KILTER_EXE_LEN	      24 /* basename of the executable, NUL-terminated */
#define KILTER_COMM_LEN	      16 /* TASK_COMM_LEN */
#define KILTER_ROUTE_PATH_LEN 96 /* bytes of a path that take part in its route */

#define KILTER_WORKLOADS_MAX	   16384 /* {cgroup, executable} pairs since start */
#define KILTER_PEERS_MAX	   65536 /* distinct destinations since start */
#define KILTER_ROUTES_MAX	   8192	 /* route hashes, all workloads together */
#define KILTER_ROUTES_PER_WORKLOAD 200	 /* beyond it a path counts under route 0, "other" */
#define KILTER_SERIES_MAX	   65536 /* request series; ~1 KiB each, allocated as used */
#define KILTER_CONNS_MAX	   65536 /* connection series */
#define KILTER_LISTENERS_MAX	   4096
#define KILTER_SYSCALLS_MAX	   32768      /* {workload, syscall} pairs */
#define KILTER_SYSCALL_THREADS_MAX 16384      /* inside a call, where tasks have no storage */
#define KILTER_SYSCALL_ERRORS_MAX  32768      /* {workload, syscall, errno} triples */
#define KILTER_CIRCUITS_MAX	   16384      /* guard policy and runtime entries */
#define KILTER_EVENTS_BYTES	   (4u << 20) /* audit ring buffer; a power of two */
#define KILTER_EVENTS_WAKE_BYTES   (KILTER_EVENTS_BYTES / 8) /* waiting: the daemon is woken */

#define KILTER_INTERN_PROBES 4 /* linear probes on a hash collision of an id */
#define KILTER_PIPELINE_MAX                                                   \
	16		/* outstanding requests on one connection whose start \
			 * is remembered one by one */
#define KILTER_SHARDS 8 /* at most; see series.h */

/* Of a DNS answer over UDP: more than the 1232 that resolvers agree on (DNS flag day 2020). A power
 * of two: see bound_length(). */
#define KILTER_DNS_BYTES 2048

#define KILTER_EXEC_FILE_LEN 256
#define KILTER_EXEC_ARGS_LEN 512

#endif
