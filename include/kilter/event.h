/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Records in the ring buffer "events": what the audit trail and the guard need to hear of
 * one by one. Requests never pass through here. A record that finds no room is counted
 * in drops (EVENTS_FULL), exactly.
 */
#ifndef KILTER_EVENT_H
#define KILTER_EVENT_H

#include <kilter/guard.h>
#include <kilter/identity.h>
#include <kilter/limits.h>
#include <kilter/types.h>

enum kilter_event_type {
	KILTER_EVENT_EXEC = 1,
	KILTER_EVENT_EXIT = 2,
	KILTER_EVENT_CONNECT = 3, /* outcome of an outbound connect; of UDP: an ICMP error */
	KILTER_EVENT_LISTEN = 4,
	KILTER_EVENT_TRIP = 5,	  /* the kernel opened a circuit by itself */
	KILTER_EVENT_REFUSED = 6, /* the guard refused a connect */
	KILTER_EVENT_VERDICT = 7, /* trials of a half-open circuit have decided */
	KILTER_EVENT_DNS = 8,	  /* a DNS answer came in */
};

struct kilter_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 cgroup_id;
	__u32 type;
	__u32 size; /* of the whole record, this header included */
	__u32 pid;  /* thread group */
	__u32 ppid; /* 0 where not known */
	__u32 uid;
	__u32 workload; /* 0 where not known */
	char comm[KILTER_COMM_LEN];
};

struct kilter_event_exec {
	struct kilter_event h;
	__u32 args_len;	      /* bytes in args, NUL-separated */
	__u32 args_truncated; /* 1: argv was longer */
	char file[KILTER_EXEC_FILE_LEN];
	char args[KILTER_EXEC_ARGS_LEN];
};

struct kilter_event_exit {
	struct kilter_event h;
	__u64 start_ns; /* CLOCK_BOOTTIME */
	__u32 code;	/* exit status, 0..255 */
	__u32 signal;	/* that ended it, or 0 */
};

struct kilter_event_net { /* CONNECT, LISTEN, REFUSED */
	struct kilter_event h;
	__u64 latency_ns;	 /* CONNECT: SYN, or datagram, to outcome */
	struct kilter_peer peer; /* CONNECT, REFUSED: destination; LISTEN: local address */
	__u32 err;		 /* CONNECT: 0 or the positive errno */
	__u32 backlog;		 /* LISTEN */
	__u32 reason;		 /* REFUSED: enum kilter_refusal */
};

struct kilter_event_trip { /* TRIP, VERDICT */
	struct kilter_event h;
	struct kilter_circuit_key key;
	__u64 generation;
	__u32 consecutive;
	__u32 by; /* enum kilter_trip */
};

struct kilter_event_dns {
	struct kilter_event h;
	__u32 len; /* of msg, 1 to KILTER_DNS_BYTES */
	__u32 pad;
	__u8 msg[KILTER_DNS_BYTES]; /* RFC 1035, as it came */
};

_Static_assert(sizeof(struct kilter_event) == 56, "no holes");
_Static_assert(sizeof(struct kilter_event_net) == 56 + 40, "no holes");
_Static_assert(sizeof(struct kilter_event_trip) == 56 + 24, "no holes");
_Static_assert(sizeof(struct kilter_event_dns) == 56 + 8 + KILTER_DNS_BYTES, "no holes");

#endif
