// SPDX-License-Identifier: Apache-2.0
/*
 * series BPFFS COUNT SECONDS: COUNT request series in the pinned maps of a running daemon, as if
 * COUNT/10 services asked five destinations each and got two kinds of answers; a tenth of them
 * moves on every second. What it prints: "COUNT made" when all are there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <kilter/identity.h>
#include <kilter/series.h>

#include "pinned.h"

#define EDGES	      5
#define STATUSES      2
#define ACTIVE_ONE_IN 10
#define DURATION_NS   3000000u /* of each request */

static __u32 make_workload(const struct pinned *m, unsigned int i)
{
	struct kilter_workload w = {.key = {.cgroup_id = 1u << 20 | i}, .first_seen_ns = 1};
	__u32 id;

	snprintf(w.key.exe, sizeof(w.key.exe), "svc%u", i);
	id = kilter_hash_words((const __u32 *)&w.key, sizeof(w.key) / 4);
	pinned_put(m, &id, &w);
	return id;
}

static __u32 make_peer(const struct pinned *m, unsigned int i)
{
	struct kilter_peer p = {.addr = {10, (__u8)(i >> 16), (__u8)(i >> 8), (__u8)i},
				.port_be = 0x5000,
				.family = KILTER_FAMILY_V4};
	__u32 id = kilter_hash_words((const __u32 *)&p, sizeof(p) / 4);

	pinned_put(m, &id, &p);
	return id;
}

int main(int argc, char **argv)
{
	unsigned int count, seconds, per = EDGES * STATUSES;
	struct kilter_series_key *keys;
	struct kilter_series v = {.created_ns = 1};
	struct pinned workloads, peers, series;
	unsigned int classic = kilter_classic_index(DURATION_NS),
		     fine = kilter_exp_index(DURATION_NS);

	if (argc != 4 || !(count = (unsigned int)strtoul(argv[2], NULL, 10)) || count % per) {
		fprintf(stderr, "usage: series BPFFS COUNT SECONDS (COUNT: a multiple of %u)\n",
			per);
		return 2;
	}
	seconds = (unsigned int)strtoul(argv[3], NULL, 10);
	workloads = pinned_open(argv[1], "workloads");
	peers = pinned_open(argv[1], "peers");
	series = pinned_open(argv[1], "series");
	keys = calloc(count, sizeof(*keys));
	if (!keys)
		return 1;
	for (unsigned int i = 0; i < count; i++) {
		keys[i].workload =
		    i % per ? keys[i - 1].workload : make_workload(&workloads, i / per);
		keys[i].peer = make_peer(&peers, (i / per * 7 + i / STATUSES % EDGES) % 5000);
		keys[i].status = i % STATUSES ? 500 : 200;
		keys[i].role = KILTER_ROLE_CLIENT;
		keys[i].protocol = KILTER_PROTO_HTTP1;
		keys[i].method = KILTER_METHOD_GET;
		v.classic[classic] = v.exp[fine] = 1;
		v.sum_ns = DURATION_NS;
		pinned_put(&series, &keys[i], &v);
	}
	printf("%u made\n", count);
	fflush(stdout);
	for (unsigned int s = 0; s < seconds; s++) {
		for (unsigned int i = s % ACTIVE_ONE_IN; i < count; i += ACTIVE_ONE_IN) {
			v.classic[classic] = v.exp[fine] = 2 + s;
			v.sum_ns = (2ull + s) * DURATION_NS;
			pinned_put(&series, &keys[i], &v);
		}
		sleep(1);
	}
	free(keys);
	return 0;
}
