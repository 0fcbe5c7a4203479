/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Request series: lookup, creation, one bump per finished request. */
#ifndef KILTER_BPF_SERIES_H
#define KILTER_BPF_SERIES_H

#include "lib/maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_SERIES_MAX);
	__type(key, struct kilter_series_key);
	__type(value, struct kilter_series);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} series SEC(".maps");

static __always_inline struct kilter_series *series_find(struct kilter_series_key *key)
{
	static const struct kilter_series zero;
	struct kilter_series *v;

	v = bpf_map_lookup_elem(&series, key);
	if (v && v->retiring) {
		key->shard |= KILTER_SHARD_ALT;
		v = bpf_map_lookup_elem(&series, key);
	}
	if (v)
		return v;
	map_insert(&series, key, &zero);
	v = bpf_map_lookup_elem(&series, key);
	if (v) {
		if (!v->created_ns)
			v->created_ns = bpf_ktime_get_boot_ns();
		return v;
	}

	count_drop(KILTER_DROP_SERIES_FULL);
	kilter_series_to_overflow(key);
	return bpf_map_lookup_elem(&series, key);
}

/* `times` requests of ns each; key->shard is set here. */
static __always_inline void series_bump(struct kilter_series_key *key, __u64 ns, __u64 bytes_in,
					__u64 bytes_out, __u32 times)
{
	struct kilter_series *v;
	__u64 both = classic_and_exp_index(ns), c = both >> 16, e = both & 0xffff;

	key->shard = shard();
	v = series_find(key);
	if (!v)
		return;
	add_to(v->sum_ns, ns * times);
	if (bytes_in)
		add_to(v->bytes_in, bytes_in);
	if (bytes_out)
		add_to(v->bytes_out, bytes_out);
	bound_index(c, KILTER_CLASSIC_BUCKETS);
	add_to(v->classic[c], times);
	bound_index(e, KILTER_EXP_BUCKETS);
	add_to(v->exp[e], times);
}

#endif
