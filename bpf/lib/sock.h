/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is known of one TCP socket, in its sk_storage. BPF_F_CLONE makes an accepted child
 * start as a copy of its listener: the owner is inherited in softirq, for free.
 *
 * Who writes: connect/bind hooks (owner, in task context), sockops (life), cgroup_skb (parser:
 * ingress writes one direction, egress the other, each one packet at a time: lib/turn.h; the
 * request queue has one producer and one consumer).
 */
#ifndef KILTER_BPF_SOCK_H
#define KILTER_BPF_SOCK_H

#include "lib/identity.h"

/* A field read anew, so that the verifier takes it for any number and need not follow what it
 * can be: the ways through a loop then meet again. */
#define forgotten(field) (*(volatile typeof(field) *)&(field))

#define SOCK_LISTENER	(1u << 0)
#define SOCK_OPEN	(1u << 1) /* counted as opened or adopted, not yet as closed */
#define SOCK_ADOPTED	(1u << 2) /* older than the agent: sockops will not tell of its end */
#define SOCK_CONNECTING (1u << 3) /* connect() called, SYN not yet sent */
#define SOCK_HAD_DATA	(1u << 4) /* payload came in */

struct sock_request { /* one outstanding request */
	__u64 start_ns;
	__u32 route;
	__u8 method;
	__u8 pad[3];
};

enum stream_state {
	STREAM_START = 0, /* a start line comes next */
	STREAM_HEADERS,
	STREAM_BODY,	   /* until end_seq (and body_left beyond it) */
	STREAM_BODY_EOF,   /* until the connection ends */
	STREAM_CHUNK_SIZE, /* a chunk-size line comes next */
	STREAM_CHUNK_DATA, /* until end_seq */
	STREAM_CHUNK_END,  /* the CRLF after chunk data */
	STREAM_TRAILERS,
	STREAM_RESYNC, /* lost track: wait for a segment that begins with a start line */
};

struct stream {		/* the parser's state in one direction */
	__u32 next_seq; /* first byte not yet parsed */
	__u32 end_seq;	/* of the body or the chunk under way */
	__u32 gap_end;	/* end of segments that came before their turn; valid if has_gap */
	__u8 state;	/* enum stream_state */
	__u8 has_seq;	/* next_seq is known */
	__u8 has_gap;
	__u8 flags; /* HTTP1_*: what the headers said so far */
	union {
		__u64 content_length; /* in the headers */
		__u64 body_left;      /* in the body: bytes beyond end_seq, if over 1 GiB */
	};
	__u32 hole_seq, hole_len; /* passed over between two messages, and still to come */
	__u16 status;
	__u8 carry_len; /* bytes of an unfinished line kept in struct sock_carry */
	__u8 packets;	/* with payload, modulo 256 */
	__u32 bytes;	/* payload since the last finished request, saturating */
};

struct kilter_sock {
	/*
	 * The two directions of a connection often run on two CPUs, and a cache line that both
	 * write costs more than all else we do. So, a line each (the kernel puts us 8 bytes
	 * into the first): what both read and seldom write; what the request direction
	 * writes, and the response direction once a request; what the response direction writes.
	 */
	__u32 workload, peer;
	__u32 flags; /* SOCK_* */
	__u8 role;
	__u8 protocol;
	__u8 guard_flags; /* of lib/guard.h */
	__u8 pad0;
	struct kilter_circuit_key circuit; /* {0,0}: no circuit */
	__u64 guard_generation;		   /* of the policy when we connected */
	__u64 trial_generation;		   /* 0: not a half-open trial */
	__u64 cgroup_id;
	__u32 pid, uid;

	/* The queue of outstanding requests. head: written by the request direction, tail by
	 * the response direction. Slot 0 is here, the others in struct sock_pipeline. */
	__u16 head, tail;
	__u32 busy; /* ingress, by one CPU: lib/turn.h */
	struct sock_request first;
	struct stream request;

	struct stream response;
	__u64 sample_ns;		   /* last look at the TCP counters */
	__u64 bytes_received, bytes_acked; /* of tcp_sock, at that look */

	__u64 connect_ns;	 /* CLOCK_BOOTTIME of connect() */
	struct kilter_peer dest; /* for the audit record of the outcome */
	char comm[KILTER_COMM_LEN];

	/* As an open connection it is counted in the runtime `counters` that was made at
	 * counted_ns; 0: in none. Under that runtime's lock. */
	struct kilter_circuit_key counters;
	__u64 counted_ns;

#ifndef __TARGET_ARCH_x86
	struct bpf_spin_lock turn;
	__u32 pad1;
#endif
};

_Static_assert(__builtin_offsetof(struct kilter_sock, head) == 64 - 8, "a cache line");
_Static_assert(__builtin_offsetof(struct kilter_sock, response) == 128 - 8, "a cache line");

struct http2_stream { /* a request over HTTP/2: lib/http2_streams.h */
	__u64 start_ns;
	__u64 generation; /* of its circuit, when it began */
	__u32 id;	  /* 0: a free place */
	__u32 route;
	__u32 bytes_request, bytes_response; /* of its frames, saturating */
	__u16 status;
	__u8 method;
	__u8 flags; /* HTTP2_STREAM_* */
	__u8 code;  /* gRPC's, valid with HTTP2_STREAM_CODE */
	__u8 pad[3];
};

#define HTTP2_STREAM_GRPC   (1u << 0)
#define HTTP2_STREAM_CODE   (1u << 1)
#define HTTP2_STREAM_UNSURE (1u << 2) /* a field of its response is not known */

struct sock_pipeline {
	struct sock_request slots[KILTER_PIPELINE_MAX];
};

#define SOCK_CARRY_LEN 160 /* of a start or header line that is spread over segments */
struct sock_carry {
	char request[SOCK_CARRY_LEN];
	char response[SOCK_CARRY_LEN];
};

/*
 * The first segment of a connection may come before its socket: with TCP_DEFER_ACCEPT (Apache
 * httpd sets it, nginx on demand), or when the handshake's last ACK was lost, the packet that
 * completes the handshake carries payload and is seen with the listener's socket. In the same
 * softirq, on the same CPU, the child is made and sockops hears of it: ingress leaves the
 * segment in a per-CPU slot, and the child's first callback parses it there.
 */
#define SOCK_EARLY_BYTES 1024

struct sock_early {
	__u64 time_ns;
	__u32 seq, len; /* of the payload; len bytes are below, the rest is not kept */
	__u32 remote_port, local_port;
	char data[SOCK_EARLY_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sock_early);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} early_segment SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct kilter_sock);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} socks SEC(".maps");

/* Created when a second request is outstanding, or a line is cut: most sockets have neither. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_pipeline);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sock_pipelines SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_carry);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} sock_carries SEC(".maps");

/* Macros, because the type that sk may have differs by program type. */
#define sock_get(sk) bpf_sk_storage_get(&socks, sk, NULL, 0)
#define sock_get_or_create(sk)                                                         \
	({                                                                             \
		struct kilter_sock *s_ =                                               \
		    bpf_sk_storage_get(&socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); \
		if (!s_)                                                               \
			count_drop(KILTER_DROP_SOCK_STORAGE);                          \
		s_;                                                                    \
	})

/* Task context: the current task becomes the owner; `workload` is its id. */
static __always_inline void sock_own(struct kilter_sock *s, __u32 workload)
{
	__u64 id = bpf_get_current_pid_tgid();

	s->cgroup_id = bpf_get_current_cgroup_id();
	s->workload = workload;
	s->pid = id >> 32;
	s->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(s->comm, sizeof(s->comm));
}

/* The connection series of s, created when new; NULL (counted) when there is no room. */
static __always_inline struct kilter_conn *sock_conn(const struct kilter_sock *s)
{
	static const struct kilter_conn zero;
	struct kilter_conn_key key = {
	    .workload = s->workload,
	    .peer = s->peer,
	    .role = s->role,
	    .shard = shard(),
	};
	struct kilter_conn *c = bpf_map_lookup_elem(&conns, &key);

	if (c && c->retiring) {
		key.shard |= KILTER_SHARD_ALT;
		c = bpf_map_lookup_elem(&conns, &key);
	}
	if (c)
		return c;
	map_insert(&conns, &key, &zero);
	c = bpf_map_lookup_elem(&conns, &key);
	if (!c) {
		count_drop(KILTER_DROP_CONNS_FULL);
		return NULL;
	}
	if (!c->created_ns)
		c->created_ns = bpf_ktime_get_boot_ns();
	return c;
}

/* Takes a TCP sample when tp (struct bpf_tcp_sock *) is at hand: RTT and bytes since last. */
static __always_inline void sock_sample(struct kilter_sock *s, struct kilter_conn *c, __u64 now_ns,
					__u32 srtt_us8, __u64 bytes_received, __u64 bytes_acked)
{
	if (bytes_received > s->bytes_received)
		add_to(c->bytes_in, bytes_received - s->bytes_received);
	if (bytes_acked > s->bytes_acked)
		add_to(c->bytes_out, bytes_acked - s->bytes_acked);
	s->bytes_received = bytes_received;
	s->bytes_acked = bytes_acked;
	s->sample_ns = now_ns;
	if (srtt_us8) {
		__u64 rtt_ns = (__u64)(srtt_us8 >> 3) * 1000; /* tcp_sock.srtt_us is 8 times it */
		__u64 i = fine_index(rtt_ns);

		bound_index(i, KILTER_FINE_BUCKETS);
		add_to(c->rtt_sum_ns, rtt_ns);
		add_to(c->rtt_hist[i], 1);
	}
}

/* The socket is established: count it, whoever found out. */
static __always_inline void sock_opened(struct kilter_sock *s, bool adopted)
{
	struct kilter_conn *c = sock_conn(s);

	s->flags |= SOCK_OPEN | (adopted ? SOCK_ADOPTED : 0);
	if (!c)
		return;
	if (adopted)
		add_to(c->adopted, 1);
	else
		add_to(c->opened, 1);
}

/*
 * A socket that was there before us (found by an iterator). The parsers join mid-stream:
 * they wait for a segment that begins with a start line.
 */
static __always_inline void sock_adopt(struct kilter_sock *s, __u8 role, __u32 peer)
{
	s->role = role;
	s->peer = peer;
	s->protocol = KILTER_PROTO_UNKNOWN;
	s->request.state = STREAM_RESYNC;
	s->response.state = STREAM_RESYNC;
	sock_opened(s, true);
}

#endif
