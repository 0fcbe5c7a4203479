// SPDX-License-Identifier: Apache-2.0
/* Circuits, limits and the switch: what can be read, and the commands. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/negotiate.h"
#include "api/read.h"
#include "guard/guard.h"

_Static_assert(offsetof(struct snap_circuit, name) == 0, "see read_one()");

#define DIGITS_(number) #number
#define DIGITS(number)	DIGITS_(number)
#define FROM_0_TO_MAX	" must be a number from 0 to " DIGITS(CONFIG_LIMIT_MAX)

/* Counters of `count` reasons: their sum, and each below KEY_by. */
static void put_by_reason(struct json *j, const char *key, const uint64_t *n, uint32_t count,
			  const char *(*name)(uint32_t))
{
	char by[40];
	uint64_t all = 0;

	for (uint32_t i = 0; i < count; i++)
		all += n[i];
	json_kv_u64(j, key, all);
	snprintf(by, sizeof(by), "%s_by", key);
	json_key(j, by);
	json_object_begin(j);
	for (uint32_t i = 0; i < count; i++)
		json_kv_u64(j, name(i), n[i]);
	json_object_end(j);
}

static void put_refusals(struct json *j, const char *key, const uint64_t n[KILTER_REFUSALS])
{
	put_by_reason(j, key, n, KILTER_REFUSALS, guard_refusal_str);
}

static void put_circuit(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_circuit *c = &snapshot_rows(s, SNAP_CIRCUITS, struct snap_circuit)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, c->name);
	read_put_str(j, "policy", s, c->policy);
	read_put_str(j, "policy_match", s, c->match);
	read_put_str(j, "workload", s, c->workload);
	read_put_str(j, "destination", s, c->destination);
	read_put_str(j, "dns_name", s, c->dns_name);
	read_put_str(j, "state", s, c->state);
	read_put_time(j, "since", c->since_real_ns);
	read_put_str(j, "reason", s, c->reason);
	read_put_str(j, "mode", s, c->mode);
	read_put_str(j, "mode_reason", s, c->mode_reason);
	json_kv_bool(j, "held", c->held);
	read_put_str(j, "forced", s, c->forced);
	json_kv_u64(j, "generation", c->generation);
	json_kv_u64(j, "consecutive_failures", c->consecutive);
	json_kv_u64(j, "opens_in_a_row", c->opens);
	json_kv_double(j, "lease_left_seconds", read_seconds(c->lease_left_ns));
	json_kv_double(j, "retry_in_seconds", read_seconds(c->retry_in_ns));
	json_kv_u64(j, "successes", c->successes);
	put_by_reason(j, "failures", c->failed, KILTER_FAILURES, guard_failure_str);
	json_kv_u64(j, "slow", c->slow);
	put_refusals(j, "refused", c->refused);
	put_refusals(j, "would_refuse", c->would_refuse);
	json_kv_u64(j, "redirected", c->redirected);
	json_kv_u64(j, "connections_closed", c->closed);
	json_kv_u64(j, "connections_open", c->open);
	json_kv_u64(j, "lease_expired", c->lease_expired);
	json_kv_u64(j, "trips", c->trips);
	json_key(j, "transitions");
	json_object_begin(j);
	json_kv_u64(j, "closed", c->transitions[0]);
	json_kv_u64(j, "open", c->transitions[1]);
	json_kv_u64(j, "half_open", c->transitions[2]);
	json_object_end(j);
	json_object_end(j);
}

static bool is_limited(const struct snapshot *s, uint32_t row)
{
	const struct snap_circuit *c = &snapshot_rows(s, SNAP_CIRCUITS, struct snap_circuit)[row];

	return c->rate_limit > 0 || c->max_connections;
}

static void put_limit(struct json *j, const struct snapshot *s, uint32_t row)
{
	const struct snap_circuit *c = &snapshot_rows(s, SNAP_CIRCUITS, struct snap_circuit)[row];

	json_object_begin(j);
	read_put_str(j, "name", s, c->name);
	read_put_str(j, "policy", s, c->policy);
	json_kv_bool(j, "by_hand", c->limits_by_hand);
	read_put_str(j, "mode", s, c->mode);
	read_put_str(j, "mode_reason", s, c->mode_reason);
	json_kv_double(j, "rate_limit", c->rate_limit > 0 ? c->rate_limit : NAN);
	json_kv_u64(j, "burst", c->burst);
	json_kv_double(j, "rate_used_ratio", c->rate_fill);
	json_kv_u64(j, "max_connections", c->max_connections);
	json_kv_u64(j, "connections", c->open);
	json_kv_u64(j, "connections_peak", c->open_peak);
	json_key(j, "refused");
	json_object_begin(j);
	json_kv_u64(j, "rate_limit", c->refused[KILTER_REFUSED_RATE]);
	json_kv_u64(j, "max_connections", c->refused[KILTER_REFUSED_CONNECTIONS]);
	json_object_end(j);
	json_key(j, "would_refuse");
	json_object_begin(j);
	json_kv_u64(j, "rate_limit", c->would_refuse[KILTER_REFUSED_RATE]);
	json_kv_u64(j, "max_connections", c->would_refuse[KILTER_REFUSED_CONNECTIONS]);
	json_object_end(j);
	json_object_end(j);
}

void api_get_circuits(struct api_request *r, struct api_reply *reply)
{
	if (*r->name)
		read_one(r, reply, SNAP_CIRCUITS, sizeof(struct snap_circuit), put_circuit);
	else
		read_list(r, reply, SNAP_CIRCUITS, put_circuit);
}

void api_get_limits(struct api_request *r, struct api_reply *reply)
{
	if (*r->name)
		read_one(r, reply, SNAP_CIRCUITS, sizeof(struct snap_circuit), put_limit);
	else
		read_list_of(r, reply, SNAP_CIRCUITS, is_limited, put_limit);
}

void api_get_guard(struct api_request *r, struct api_reply *reply)
{
	const struct snap_node *n = snapshot_rows(r->snapshot, SNAP_NODE, struct snap_node);
	const char *released = TEXT(r->snapshot, n->guard_released);
	struct json j;

	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_kv_bool(&j, "released", released && *released);
	json_kv_string(&j, "reason", released && *released ? released : NULL);
	json_kv_u64(&j, "circuits", r->snapshot->counts[SNAP_CIRCUITS]);
	json_kv_u64(&j, "circuits_not_closed", n->circuits_open);
	json_kv_u64(&j, "destinations", n->destinations);
	json_kv_u64(&j, "destinations_not_closed", n->destinations_open);
	json_object_end(&j);
	api_json(reply, 200, &j);
}

/* Sends the route's command. */
static void command(struct api_request *r, struct api_reply *reply)
{
	reply->command.op = r->op;
	reply->command.role = r->role;
	reply->command.uid = r->uid;
	snprintf(reply->command.user, sizeof(reply->command.user), "%s", r->user);
	snprintf(reply->command.target, sizeof(reply->command.target), "%s", r->name);
	reply->status = API_ASYNC;
}

void api_post_circuit(struct api_request *r, struct api_reply *reply)
{
	command(r, reply);
}

void api_post_guard(struct api_request *r, struct api_reply *reply)
{
	command(r, reply);
}

static bool parse_rate(const char *s, double *ret)
{
	char *end;
	double v;

	if (!*s || strspn(s, "0123456789.") != strlen(s))
		return false;
	v = strtod(s, &end);
	if (*end || end == s || !isfinite(v) || v < 0 || v > CONFIG_LIMIT_MAX)
		return false;
	*ret = v;
	return true;
}

void api_post_limit(struct api_request *r, struct api_reply *reply)
{
	struct command_request *q = &reply->command;

	q->rate_limit = -1; /* what is not given stays as it is */
	q->max_connections = UINT32_MAX;
	if (r->op == COMMAND_LIMIT_SET) {
		if (!r->rate_limit && !r->burst && !r->max_connections) {
			api_problem(reply, 400,
				    "?rate_limit, ?burst or ?max_connections is expected");
			return;
		}
		if (r->rate_limit && !parse_rate(r->rate_limit, &q->rate_limit)) {
			api_problem(reply, 400, "rate_limit" FROM_0_TO_MAX);
			return;
		}
		if (r->burst && negotiate_u32(r->burst, 1, CONFIG_LIMIT_MAX, &q->burst)) {
			api_problem(reply, 400,
				    "burst must be a number from 1 to " DIGITS(CONFIG_LIMIT_MAX));
			return;
		}
		if (r->max_connections &&
		    negotiate_u32(r->max_connections, 0, CONFIG_LIMIT_MAX, &q->max_connections)) {
			api_problem(reply, 400, "max_connections" FROM_0_TO_MAX);
			return;
		}
	}
	command(r, reply);
}
