// SPDX-License-Identifier: Apache-2.0
/*
 * calls BPFFS: request series of gRPC and of both versions of HTTP in the pinned maps of a running
 * daemon, as the kernel leaves them: `rows` below. What it prints: "made" when all are there.
 */
#include <arpa/inet.h>

#include <stdio.h>
#include <string.h>

#include <kilter/identity.h>
#include <kilter/series.h>

#include "pinned.h"

#define DURATION_NS 3000000u /* of each request */
#define PORT	    50051
#define GRPC(code)  (KILTER_STATUS_GRPC + (code))

static const struct {
	const char *path;
	__u64 count;
	__u16 status;
	__u8 role, protocol, error;
} rows[] = {
    /* The same method to whoever reads the label. */
    {"/shop.Cart/Add", 1, GRPC(0), KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, 0},
    {"shop.Cart/Add", 2, GRPC(0), KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, 0},
    {"/grpc.health.v1.Health/Check", 40, GRPC(0), KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, 0},
    {"/grpc.health.v1.Health/Check", 5, GRPC(5), KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, 0},
    {"/grpc.health.v1.Health/Check", 6, GRPC(14), KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, 0},
    {"/grpc.health.v1.Health/Check", 7, 0, KILTER_ROLE_SERVER, KILTER_PROTO_GRPC, KILTER_REQ_RESET},
    {"/orders.v1.Orders/Get", 8, GRPC(0), KILTER_ROLE_CLIENT, KILTER_PROTO_GRPC, 0},
    {"/orders.v1.Orders/Get", 9, GRPC(5), KILTER_ROLE_CLIENT, KILTER_PROTO_GRPC, 0},
    {"/orders.v1.Orders/Get", 10, GRPC(4), KILTER_ROLE_CLIENT, KILTER_PROTO_GRPC, 0},
    {"/orders.v1.Orders/Get", 11, 0, KILTER_ROLE_CLIENT, KILTER_PROTO_GRPC, 0},
    {"/items/42", 12, 200, KILTER_ROLE_SERVER, KILTER_PROTO_HTTP1, 0},
    {"/items/42", 13, 200, KILTER_ROLE_SERVER, KILTER_PROTO_HTTP2, 0},
    {"/items/42", 14, 503, KILTER_ROLE_SERVER, KILTER_PROTO_HTTP2, 0},
};

int main(int argc, char **argv)
{
	const struct kilter_workload w = {.key = {.cgroup_id = 1u << 20, .exe = "shop"},
					  .first_seen_ns = 1};
	struct kilter_peer listens = {.port_be = htons(PORT), .family = KILTER_FAMILY_LOCAL};
	struct kilter_peer called = {
	    .addr = {192, 0, 2, 1}, .port_be = htons(PORT), .family = KILTER_FAMILY_V4};
	/* Ids of ours: what the kernel takes for one is a hash, and as good as any other. */
	const __u32 id = 1, server = 2, client = 3;
	struct pinned workloads, peers, routes, series;

	if (argc != 2) {
		fprintf(stderr, "usage: calls BPFFS\n");
		return 2;
	}
	workloads = pinned_open(argv[1], "workloads");
	peers = pinned_open(argv[1], "peers");
	routes = pinned_open(argv[1], "routes");
	series = pinned_open(argv[1], "series");
	pinned_put(&workloads, &id, &w);
	pinned_put(&peers, &server, &listens);
	pinned_put(&peers, &client, &called);
	for (__u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct kilter_route route = {.workload = id,
					     .path_len = (__u32)strlen(rows[i].path)};
		struct kilter_series_key k = {
		    .workload = id,
		    .peer = rows[i].role == KILTER_ROLE_SERVER ? server : client,
		    .route = i + 1,
		    .status = rows[i].status,
		    .role = rows[i].role,
		    .protocol = rows[i].protocol,
		    .method = rows[i].protocol == KILTER_PROTO_GRPC ? KILTER_METHOD_POST
								    : KILTER_METHOD_GET,
		    .error = rows[i].error};
		struct kilter_series v = {.created_ns = 1, .sum_ns = rows[i].count * DURATION_NS};

		memcpy(route.path, rows[i].path, route.path_len);
		pinned_put(&routes, &k.route, &route);
		v.classic[kilter_classic_index(DURATION_NS)] = rows[i].count;
		v.exp[kilter_exp_index(DURATION_NS)] = (__u32)rows[i].count;
		pinned_put(&series, &k, &v);
	}
	printf("made\n");
	return 0;
}
