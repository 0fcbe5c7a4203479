/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Work space too large for the 512-byte stack. A cgroup program may be interrupted on its
 * CPU by a softirq that runs another one (and, with full preemption, by another task), so a
 * per-CPU buffer alone is not private: each CPU has a few, taken by an atomic exchange.
 */
#ifndef KILTER_BPF_SCRATCH_H
#define KILTER_BPF_SCRATCH_H

#include <kilter/route.h>

#include "lib/sock.h"

#ifdef __bpf__
#include <bpf/bpf_core_read.h>
#endif

#define SCRATCH_SOFTIRQ 0 /* the slot of softirqs, which do not interrupt each other */
#define SCRATCH_SLOTS	5 /* of a CPU, with that one */
#define SCRATCH_BYTES	1024

struct scratch {
	__u32 busy;
	__u32 slot; /* which one this is: global functions are told the number, see scratch_at() */
	struct kilter_route_hash route;
	/* The cursor of the parser at work. Here and not on its stack: what is read from a map is
	 * any number to the verifier, so that it need not follow every position there can be. */
	__u32 off;  /* in the packet: next payload byte not yet in buf */
	__u32 end;  /* in the packet: end of payload */
	__u32 line; /* in buf: start of the line under way */
	__u32 pos;  /* in buf: next byte to look at */
	__u32 len;  /* in buf: bytes that are valid */
	__u32 zero; /* always 0 */
	/* What read_head() and scan_headers() found. */
	__u32 start;	      /* request: method << METHOD_SHIFT | its length; response: status */
	__u32 path_end;	      /* in buf: end of the start line */
	__u32 fields;	      /* HTTP1_CONTENT_LENGTH, HTTP1_CHUNKED */
	__u64 content_length; /* valid with HTTP1_CONTENT_LENGTH */
	__u64 path_tag;
	/* The run under way, between the steps of its parser. */
	__u64 now_ns;
	__u32 seq_end;
	__u32 request;
	__u32 lost;
	__u32 ahead; /* the payload is in http2_aheads, this index + 1 */
	/* A stream of HTTP/2 that has ended, on its way to its series. */
	struct http2_stream ended;
	__u32 status;
	__u64 took_ns;
	struct stream kept;	      /* the parser's state, while a late segment is looked at */
	char buf[SCRATCH_BYTES + 16]; /* 16: an 8-byte read at any masked offset stays inside */
};

/* 8, and the verifier need not know: a position that grows by it stays any number, so that the
 * turns of a loop are alike (Linux 6.12 would follow each of their pairs). */
#define WORD(sc) (8 + forgotten((sc)->zero))

#ifdef __bpf__
struct task_struct___rt { /* as it is with CONFIG_PREEMPT_RT */
	int softirq_disable_cnt;
} __attribute__((preserve_access_index));

static __always_inline bool softirqs_are_threads(void)
{
	return bpf_core_field_exists(struct task_struct___rt, softirq_disable_cnt);
}
#else
static inline bool softirqs_are_threads(void)
{
	return false;
}
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/*
 * The slot of this number on this CPU. Global functions, which the verifier takes once, are
 * given the number: pointers as their arguments are Linux 5.12.
 */
static __always_inline struct scratch *scratch_at(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

static __always_inline struct scratch *scratch_take(bool softirq)
{
	struct scratch *sc;

	/* Softirqs do not interrupt each other, except where they are threads. */
	if (softirq && !softirqs_are_threads())
		return scratch_at(SCRATCH_SOFTIRQ);
	for (__u32 i = SCRATCH_SOFTIRQ + 1; i < SCRATCH_SLOTS; i++) {
		sc = scratch_at(i);
		if (!sc)
			return NULL;
		/* An atomic that returns something is 5.12. Who reads 1 after adding his own is
		 * alone: all are on this CPU. Two that meet may both go on to the next slot. */
		add_to(sc->busy, 1);
		if (forgotten(sc->busy) == 1) {
			sc->slot = i;
			return sc;
		}
		add_to(sc->busy, -1);
	}
	return NULL;
}

static __always_inline void scratch_release(struct scratch *sc)
{
	if (sc->slot != SCRATCH_SOFTIRQ)
		add_to(sc->busy, -1);
}

/* One 8-byte load at any offset; left to itself clang makes eight of it, for alignment. */
static __always_inline __u64 word_at(const struct scratch *sc, __u32 at)
{
	const char *p = &sc->buf[at & (SCRATCH_BYTES - 1)];
	__u64 w;

#ifdef __bpf__
	asm volatile("%0 = *(u64 *)(%1 + 0)" : "=r"(w) : "r"(p));
#else /* the fuzzer runs the parser natively */
	__builtin_memcpy(&w, p, sizeof(w));
#endif
	return w;
}

/* The eight bytes behind them. */
static __always_inline __u64 word_after(const struct scratch *sc, __u32 at)
{
	const char *p = &sc->buf[at & (SCRATCH_BYTES - 1)];
	__u64 w;

#ifdef __bpf__
	asm volatile("%0 = *(u64 *)(%1 + 8)" : "=r"(w) : "r"(p));
#else
	__builtin_memcpy(&w, p + 8, sizeof(w));
#endif
	return w;
}

/* How many bytes lie below the one whose lowest bit is `bit`; 8 if bit is 0. */
static __always_inline __u32 bytes_below(__u64 bit)
{
	return ((bit - 1) & 0x0101010101010101ull) * 0x0101010101010101ull >> 56;
}

static __always_inline __u8 byte_at(const struct scratch *sc, __u32 at)
{
	return *(const volatile __u8 *)&sc->buf[at & (SCRATCH_BYTES - 1)];
}

#endif
