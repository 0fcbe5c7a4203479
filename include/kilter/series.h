/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * What the kernel aggregates. Every value is a monotonic total: user space takes
 * deltas and never resets anything. Counters of one logical series are spread over
 * shards (a few bits of the CPU number); the reader adds them up.
 *
 * Retiring without losing a count: user space runs the program `retire_series`, which sets
 * `retiring` in place. A program that finds it set uses the key with KILTER_SHARD_ALT
 * flipped instead. One tick later no program can still hold the old value (RCU), so its
 * last reading is final and the entry is deleted.
 */
#ifndef KILTER_SERIES_H
#define KILTER_SERIES_H

#include <kilter/histogram.h>
#include <kilter/limits.h>
#include <kilter/types.h>

#define KILTER_SHARD_ALT 0x80 /* see above */

enum kilter_role {
	KILTER_ROLE_UNKNOWN = 0,
	KILTER_ROLE_SERVER = 1, /* accepted the connection */
	KILTER_ROLE_CLIENT = 2, /* opened it */
};

enum kilter_protocol {
	KILTER_PROTO_UNKNOWN = 0, /* not looked at yet */
	KILTER_PROTO_NONE = 1,	  /* looked at: none that is known */
	KILTER_PROTO_HTTP1 = 2,
	KILTER_PROTO_UPGRADED = 3, /* was HTTP/1.1, switched by 101 or CONNECT: left alone */
	KILTER_PROTO_HTTP2 = 4,
	KILTER_PROTO_GRPC = 5, /* of a series only: a request over HTTP/2 that is a call of gRPC */
};

/*
 * kilter_series_key.status of a gRPC call: KILTER_STATUS_GRPC + its code, above all that HTTP's
 * three digits can be, so that one number serves both. 0: not known.
 */
#define KILTER_STATUS_GRPC 1000
#define KILTER_GRPC_CODES  17 /* OK = 0 to UNAUTHENTICATED = 16 */
/* The codes that OpenTelemetry calls errors of the server: UNKNOWN, DEADLINE_EXCEEDED,
 * UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS. */
#define KILTER_GRPC_ERRORS (1u << 2 | 1u << 4 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 15)

/* Is this a failure of whoever answered? HTTP from 500 on; gRPC: KILTER_GRPC_ERRORS. */
static inline int kilter_status_is_error(__u32 status)
{
	if (status >= KILTER_STATUS_GRPC)
		return KILTER_GRPC_ERRORS >> ((status - KILTER_STATUS_GRPC) & 31) & 1;
	return status >= 500;
}

/* OpenTelemetry http.request.method; anything else MUST be _OTHER. */
enum kilter_http_method {
	KILTER_METHOD_OTHER = 0,
	KILTER_METHOD_GET,
	KILTER_METHOD_HEAD,
	KILTER_METHOD_POST,
	KILTER_METHOD_PUT,
	KILTER_METHOD_DELETE,
	KILTER_METHOD_CONNECT,
	KILTER_METHOD_OPTIONS,
	KILTER_METHOD_TRACE,
	KILTER_METHOD_PATCH,
	KILTER_METHOD_MAX,
};

/* Why a request ended without a whole response; OpenTelemetry error.type. */
enum kilter_request_error {
	KILTER_REQ_OK = 0,
	KILTER_REQ_RESET = 1,  /* connection reset before the response was whole */
	KILTER_REQ_CLOSED = 2, /* connection closed before the response was whole */
	KILTER_REQ_ERROR_MAX,
};

/* Map "series". peer: client role the destination, server role the local port. */
struct kilter_series_key {
	__u32 workload;
	__u32 peer;
	__u32 route;
	__u16 status; /* HTTP status, or KILTER_STATUS_GRPC + code; 0: no response */
	__u8 role;
	__u8 protocol;
	__u8 method;
	__u8 error; /* enum kilter_request_error */
	__u8 shard;
	__u8 pad;
};

/*
 * Overflow series: where requests are counted when the map has no room for theirs. They are made
 * at start, have no workload, destination, route, method or shard, and the class of the
 * status (1 to 5) in its place; with an error status 0.
 */
#define KILTER_SERIES_OVERFLOWS (2 * (5 + KILTER_REQ_ERROR_MAX - 1)) /* each role */

static inline void kilter_series_to_overflow(struct kilter_series_key *k)
{
	__u32 class = (__u32)k->status / 100;

	if (k->protocol == KILTER_PROTO_GRPC)
		class = kilter_status_is_error(k->status) ? 5 : 2;
	k->protocol = KILTER_PROTO_HTTP1;
	k->workload = 0;
	k->peer = 0;
	k->route = 0;
	k->status = k->error ? 0 : class > 5 ? 5 : class < 1 ? 1 : class;
	k->method = KILTER_METHOD_OTHER;
	k->shard = 0;
}

static inline int kilter_series_is_overflow(const struct kilter_series_key *k)
{
	return !k->workload && !k->peer && !k->route && !k->method &&
	       (k->error ? !k->status : k->status >= 1 && k->status <= 5);
}

struct kilter_series {
	__u64 created_ns; /* CLOCK_BOOTTIME; tells two lives of one key apart */
	__u64 sum_ns;
	__u64 bytes_in;	 /* payload received by this socket for these requests */
	__u64 bytes_out; /* payload sent */
	__u32 retiring;
	__u32 pad;
	__u64 classic[KILTER_CLASSIC_BUCKETS]; /* their sum is the number of requests */
	__u32 exp[KILTER_EXP_BUCKETS];	       /* may wrap: take deltas modulo 2^32 */
};

/* Why a connect() did not become a connection. */
enum kilter_connect_failure {
	KILTER_CONNECT_REFUSED = 0,
	KILTER_CONNECT_RESET,
	KILTER_CONNECT_TIMED_OUT,
	KILTER_CONNECT_UNREACHABLE,
	KILTER_CONNECT_OTHER,
	KILTER_CONNECT_FAILURES,
};

/* Map "conns". */
struct kilter_conn_key {
	__u32 workload;
	__u32 peer;
	__u8 role;
	__u8 shard;
	__u8 pad[2];
};

struct kilter_conn {
	__u64 created_ns;
	__u32 retiring;
	__u32 pad;
	__u64 opened;  /* established: client role connected, server role accepted */
	__u64 adopted; /* found established when the agent started */
	__u64 closed;  /* open now = opened + adopted - closed */
	__u64 failed[KILTER_CONNECT_FAILURES];
	__u64 retransmits;
	__u64 resets_in;
	__u64 resets_out;
	__u64 bytes_in;	 /* payload, as TCP acknowledged it to the peer */
	__u64 bytes_out; /* payload, as the peer acknowledged it */
	__u64 undecoded; /* connections on which no known protocol was recognised */
	__u64 connect_sum_ns;
	__u64 connect_hist[KILTER_FINE_BUCKETS]; /* client role: SYN to ESTABLISHED */
	__u64 rtt_sum_ns;
	__u64 rtt_hist[KILTER_FINE_BUCKETS]; /* smoothed RTT, a sample a second at most */
};

/* Map "listeners": struct kilter_listener_key -> struct kilter_listener. */
struct kilter_listener_key {
	__u32 workload;
	__u32 peer; /* KILTER_FAMILY_LOCAL */
};

struct kilter_listener {
	__u64 updated_ns;   /* CLOCK_BOOTTIME of queue_length */
	__u32 queue_length; /* accepted by the kernel, not yet by the process */
	__u32 queue_limit;
	__u32 queue_peak; /* since the listener was first seen */
	__u32 sockets;	  /* that listen here; the last to close takes the entry along */
	__u64 overflows;  /* SYNs that found the queue full */
};

/* Map "syscalls", sampled: see docs/metrics.md. */
struct kilter_syscall_key {
	__u32 workload;
	__u32 nr;
};

struct kilter_syscall {
	__u64 count;
	__u64 errors;
	__u64 sum_ns;
	__u64 hist[KILTER_FINE_BUCKETS];
};

/* Map "syscall_errors" -> __u64 count. */
struct kilter_syscall_error_key {
	__u32 workload;
	__u32 nr;
	__u32 err; /* positive errno */
};

/* Array map "retire_request", one element: the argument of the program "retire_series". */
enum kilter_retire_map {
	KILTER_RETIRE_SERIES = 1,
	KILTER_RETIRE_CONN = 2
};
struct kilter_retire_request {
	__u32 map;  /* enum kilter_retire_map */
	__u32 done; /* set to 1 by the program when it found and marked the entry */
	union {
		struct kilter_series_key series;
		struct kilter_conn_key conn;
	};
};

_Static_assert(sizeof(struct kilter_series_key) == 20, "no holes");
_Static_assert(sizeof(struct kilter_series) ==
		   40 + 8 * KILTER_CLASSIC_BUCKETS + 4 * KILTER_EXP_BUCKETS,
	       "no holes");
_Static_assert(sizeof(struct kilter_conn_key) == 12, "no holes");
_Static_assert(sizeof(struct kilter_conn) ==
		   16 + 8 * (3 + KILTER_CONNECT_FAILURES + 8 + 2 * KILTER_FINE_BUCKETS),
	       "no holes");
_Static_assert(sizeof(struct kilter_listener) == 32, "no holes");

#endif
