/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Nothing is lost in silence: each place in the kernel that can give up has a row here, a
 * slot in the per-CPU array map "drops" and a series kilter_dropped_total{where,reason}.
 * X(NAME, where, reason, sentence, loses): loses is 1 when a request, connection or record
 * is missing from the figures (health becomes `unknown`), 0 when only detail is.
 */
#ifndef KILTER_DROPS_H
#define KILTER_DROPS_H

#define KILTER_DROPS(X)                                                                            \
	X(WORKLOADS_FULL, "workloads", "full", "the map of workloads is full", 1)                  \
	X(WORKLOADS_COLLISION, "workloads", "collision", "four workload ids in a row were taken",  \
	  1)                                                                                       \
	X(PEERS_FULL, "peers", "full", "the map of destinations is full: counted under peer 0", 0) \
	X(PEERS_COLLISION, "peers", "collision", "four peer ids in a row were taken", 0)           \
	X(ROUTES_FULL, "routes", "full", "the map of routes is full: counted as 'other'", 0)       \
	X(ROUTES_LIMIT, "routes", "limit", "too many routes in one workload: counted as 'other'",  \
	  0)                                                                                       \
	X(SERIES_FULL, "series", "full",                                                           \
	  "the map of request series is full: counted without service, destination and route", 1)  \
	X(CONNS_FULL, "conns", "full", "the map of connection series is full", 1)                  \
	X(LISTENERS_FULL, "listeners", "full", "the map of listeners is full", 1)                  \
	X(SYSCALLS_FULL, "syscalls", "full", "the map of system calls is full", 0)                 \
	X(SYSCALL_ERRORS_FULL, "syscall_errors", "full", "the map of errnos is full", 0)           \
	X(SOCK_STORAGE, "sockets", "storage", "no memory for a socket's state", 1)                 \
	X(TASK_STORAGE, "tasks", "storage", "no memory for a task's state", 0)                     \
	X(EVENTS_FULL, "events", "full", "the audit ring buffer is full", 0)                       \
	X(CIRCUITS_FULL, "circuits", "full", "no room for a circuit's counters", 0)                \
	X(HTTP1_FRAMING, "http1", "framing", "lost track of message boundaries: resynchronised",   \
	  0)                                                                                       \
	X(HTTP1_PIPELINE, "http1", "pipeline", "more requests outstanding than are remembered", 0) \
	X(HTTP1_STEPS, "http1", "steps", "one segment took more parser steps than allowed", 0)     \
	X(HTTP1_LOAD, "http1", "load", "payload could not be read from the packet", 0)             \
	X(EVENTS_REFUSED, "events", "refused_limit",                                               \
	  "more refused connects in a second than are recorded one by one", 0)                     \
	X(EVENTS_DNS, "events", "dns_limit", "more DNS answers in a second than are read", 0)      \
	X(EVENTS_UDP, "events", "udp_limit",                                                       \
	  "more ICMP errors of UDP circuits in a second than are recorded one by one", 0)          \
	X(DNS_LOAD, "dns", "load", "a DNS answer was too long, or could not be read", 0)           \
	X(HTTP1_BUSY, "http1", "busy", "another CPU stayed too long in the same connection", 0)    \
	X(HTTP2_FRAMING, "http2", "framing", "lost track of the frames of a connection", 1)        \
	X(HTTP2_STREAMS, "http2", "streams", "more requests under way than are remembered", 0)     \
	X(HTTP2_STEPS, "http2", "steps", "one segment took more parser steps than allowed", 0)     \
	X(HTTP2_LOAD, "http2", "load", "payload could not be read from the packet", 0)

#define KILTER_DROP_ENUM(name, where, reason, sentence, loses) KILTER_DROP_##name,
enum kilter_drop {
	KILTER_DROPS(KILTER_DROP_ENUM) KILTER_DROP_MAX
};
#undef KILTER_DROP_ENUM

#endif
