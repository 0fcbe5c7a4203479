/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model: workloads, edges (caller -> destination), and what they did over sliding
 * windows of 10 s, 1 min, 5 min and 1 h. Fed with deltas by collect; read by health, guard
 * and the snapshot. Single-threaded; pointers stay valid until model_tick().
 *
 * A workload here is what an operator calls a service: all {cgroup, executable} ids
 * that resolve to one name (container or pod, else systemd unit, else executable).
 */
#ifndef KILTER_MODEL_MODEL_H
#define KILTER_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <kilter/identity.h>
#include <kilter/series.h>

#include "core/config.h"
#include "model/dns.h"
#include "model/histogram.h"
#include "model/metadata/labels.h"

/* Where the configuration says nothing: names, and edges. */
#define MODEL_SERVICES_MAX 4096u
#define MODEL_EDGES_MAX	   16384u

enum model_span {
	MODEL_10S,
	MODEL_1M,
	MODEL_5M,
	MODEL_1H,
	MODEL_SPANS
};
extern const uint64_t model_span_ns[MODEL_SPANS];

/* What happened in a window. Errors, in both roles: kilter_status_is_error(), or no answer.
 * (OpenTelemetry counts the client's 4xx, and every code of gRPC but OK: see docs/health.md.) */
struct model_red {
	uint64_t requests, errors;
	uint64_t covered_ns;  /* how much of the window we have seen; < span right after start */
	double rate;	      /* requests a second over covered_ns */
	double error_ratio;   /* NaN without requests */
	double p50, p95, p99; /* seconds; NaN without requests; within HIST_REL_ERROR */
	double mean;
};

struct model_tcp {
	uint64_t opened, closed, retransmits, resets, bytes_in, bytes_out;
	uint64_t failed[KILTER_CONNECT_FAILURES], connect_attempts;
	uint64_t covered_ns;
	double connect_p95; /* seconds */
};

struct model_workload {
	char name[128];
	char kind[16]; /* "container", "unit", "executable" */
	char container_id[72], pod_uid[40], unit[96], exe[KILTER_EXE_LEN];
	char cgroup_path[256];
	/* Of the container and its pod; NULL: not known. They may change between ticks, when the
	 * runtime answers. */
	const struct labels *labels;
	uint32_t labels_version; /* other labels, other number; 0: none were known yet */
	bool labels_pending;	 /* the runtime is being asked: these are not all */
	uint64_t cgroup_id;	 /* of the id seen first */
	uint32_t pid;
	char comm[KILTER_COMM_LEN];
	uint64_t open_connections; /* both roles, now */
	uint64_t undecoded;	   /* connections without a known protocol, total */
	uint32_t index;		   /* stable while the workload lives */
	bool visible; /* it listens, calls or was called; false: only other records name it */
	uint64_t last_seen_ns;
};

struct model_edge {
	const struct model_workload *caller;
	const struct model_workload *callee; /* NULL: not on this node, or not known */
	uint32_t peer;			     /* id in the kernel's map */
	struct kilter_peer destination;
	char destination_text[64]; /* "10.0.0.1:80", "[::1]:80" */
	uint64_t open_connections;
	uint32_t index;
	uint32_t workload_ids[8]; /* kernel ids of the caller that used it, the latest first;
				     0-terminated if < 8: beyond, the one seen longest ago goes */
	uint64_t last_seen_ns;
};

struct model_listener {
	const struct model_workload *workload;
	uint16_t port;
	uint32_t queue_length, queue_limit, queue_peak;
	uint64_t overflows, updated_ns;
};

struct cri;
struct loop;
struct model;
int model_new(struct model **ret, const struct config *c);
/* Before anything is added: names of cgroups outlive them, and us, in `file`. Negative errno. */
int model_keep_names(struct model *m, const char *file);
/*
 * Before anything is added: containers whose labels are in no file are asked for at the runtime,
 * see metadata/cri.h, in the loop, which has to outlive the model. Negative errno.
 */
int model_ask_runtime(struct model *m, struct loop *l, const char *endpoint);
/* NULL where none is asked. */
const struct cri *model_runtime(const struct model *m);
void model_free(struct model **m);

/* Feeding (collect). Deltas since the previous call for the same key. */
/* backlog: happened before we looked: belongs to open connections, not to windows. The
 * signatures are those of struct collect_sink, so that a main can wire them. */
void model_add_workload_id(void *m, __u32 id, const struct kilter_workload *w);
void model_add_peer_id(void *m, __u32 id, const struct kilter_peer *p);
void model_add_route_id(void *m, __u32 id, const struct kilter_route *r);
void model_add_requests(void *m, const struct kilter_series_key *k,
			const struct kilter_series *delta, bool backlog);
void model_add_conns(void *m, const struct kilter_conn_key *k, const struct kilter_conn *delta,
		     bool backlog);
void model_set_listener(void *m, const struct kilter_listener_key *k,
			const struct kilter_listener *now);
/* Kernel drops with `loses`: figures since then are incomplete. */
void model_set_incomplete(struct model *m, bool incomplete);
/* Ends the current second: windows slide. Call once per tick after feeding. */
void model_tick(struct model *m, uint64_t boot_ns);

/* Reading. role: KILTER_ROLE_SERVER or _CLIENT. */
bool model_incomplete(const struct model *m);
void model_each_workload(struct model *m, void (*fn)(void *ctx, const struct model_workload *w),
			 void *ctx);
void model_each_edge(struct model *m, void (*fn)(void *ctx, const struct model_edge *e), void *ctx);
void model_each_listener(struct model *m, void (*fn)(void *ctx, const struct model_listener *l),
			 void *ctx);
void model_workload_red(const struct model *m, const struct model_workload *w, uint8_t role,
			enum model_span span, struct model_red *ret);
void model_workload_tcp(const struct model *m, const struct model_workload *w, enum model_span span,
			struct model_tcp *ret);
void model_edge_red(const struct model *m, const struct model_edge *e, enum model_span span,
		    struct model_red *ret);
void model_edge_tcp(const struct model *m, const struct model_edge *e, enum model_span span,
		    struct model_tcp *ret);
/* The workload behind a kernel id, the text of a route id ("" for 0); NULL when unknown. */
const struct model_workload *model_workload_by_id(const struct model *m, uint32_t id);
const char *model_route_text(const struct model *m, uint32_t id);
const struct kilter_peer *model_peer_by_id(const struct model *m, uint32_t id);
/* What destinations are called; never NULL. Answers are fed to it as they come. */
struct dns *model_dns(const struct model *m);
/* "10.0.0.1:80", "udp://[::1]:80", ":80" for a local port. buf of 64. */
char *model_peer_format(const struct kilter_peer *p, char buf[static 64]);

#endif
