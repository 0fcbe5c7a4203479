// SPDX-License-Identifier: Apache-2.0
#include "api/routes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/negotiate.h"

#define API_TYPE_JSON	 "application/json"
#define API_TYPE_PROBLEM "application/problem+json"

enum route_flags {
	ROUTE_LIST = 1,	 /* takes ?limit and ?cursor */
	ROUTE_EARLY = 2, /* answers without a snapshot */
	ROUTE_OPEN = 4,	 /* to whoever can connect */
	ROUTE_TEXT = 8,	 /* not JSON */
};

struct route {
	const char *method, *path; /* "{name}" is one segment */
	api_fn fn;
	unsigned int flags;
	const char *summary;
	uint32_t op; /* enum command_op of a POST; 0: it reads */
};

#define API_CHALLENGE "Bearer realm=\"kilter\""

static void get_landing(struct api_request *r, struct api_reply *reply);
static void get_openapi(struct api_request *r, struct api_reply *reply);

#define READ(path, fn, flags, summary)             \
	{                                          \
		"GET", path, fn, flags, summary, 0 \
	}
#define ACT(path, fn, op, summary)               \
	{                                        \
		"POST", path, fn, 0, summary, op \
	}
static const struct route routes[] = {
    READ("/", get_landing, ROUTE_OPEN | ROUTE_EARLY | ROUTE_TEXT, "What there is here"),
    READ("/metrics", api_get_metrics, ROUTE_OPEN | ROUTE_TEXT,
	 "Prometheus text or OpenMetrics, by Accept"),
    READ("/health/live", api_get_live, ROUTE_OPEN | ROUTE_EARLY, "This process answers"),
    READ("/health/ready", api_get_ready, ROUTE_OPEN | ROUTE_EARLY,
	 "Every essential probe is attached and a tick was done"),
    READ("/health/startup", api_get_startup, ROUTE_OPEN | ROUTE_EARLY, "The agent has started"),
    READ("/api/v1/status", api_get_status, 0, "The agent: probes, drops, maps, start-up"),
    READ("/api/v1/services", api_get_services, ROUTE_LIST, "Every workload"),
    READ("/api/v1/services/{name}", api_get_services, 0, "One workload"),
    READ("/api/v1/dependencies", api_get_dependencies, ROUTE_LIST,
	 "Every edge from a caller to a destination"),
    READ("/api/v1/health", api_get_health, 0, "Health of all, with reasons"),
    READ("/api/v1/health/summary", api_get_health_summary, 0, "How many are in which state"),
    READ("/api/v1/circuits", api_get_circuits, ROUTE_LIST, "Every circuit"),
    READ("/api/v1/circuits/{name}", api_get_circuits, 0, "One circuit"),
    READ("/api/v1/limits", api_get_limits, ROUTE_LIST, "Rate limits and bulkheads"),
    READ("/api/v1/limits/{name}", api_get_limits, 0, "The limits of one circuit"),
    READ("/api/v1/guard", api_get_guard, 0, "The guard as a whole: its switch, what is open"),
    READ("/api/v1/listeners", api_get_listeners, ROUTE_LIST, "Accept queues"),
    READ("/api/v1/syscalls", api_get_syscalls, ROUTE_LIST, "Sampled system calls"),
    READ("/api/v1/probes", api_get_probes, ROUTE_LIST, "Every kernel probe"),
    READ("/api/v1/probes/{name}", api_get_probes, 0, "One kernel probe"),
    READ("/api/v1/audit", api_get_audit, ROUTE_LIST, "The latest audit records, newest last"),
    READ("/api/v1/config", api_get_config, ROUTE_LIST, "The configuration in force"),
    READ("/api/v1/startup", api_get_phases, ROUTE_LIST, "Phases of the start-up"),
    READ("/api/openapi.json", get_openapi, ROUTE_EARLY, "This description"),
    ACT("/api/v1/circuits/{name}/trip", api_post_circuit, COMMAND_CIRCUIT_TRIP, "Open it now"),
    ACT("/api/v1/circuits/{name}/reset", api_post_circuit, COMMAND_CIRCUIT_RESET,
	"Close it and forget its failures"),
    ACT("/api/v1/circuits/{name}/hold", api_post_circuit, COMMAND_CIRCUIT_HOLD,
	"Keep its state until released"),
    ACT("/api/v1/circuits/{name}/release", api_post_circuit, COMMAND_CIRCUIT_RELEASE,
	"Let it decide by itself again"),
    ACT("/api/v1/circuits/{name}/force-open", api_post_circuit, COMMAND_CIRCUIT_FORCE_OPEN,
	"Refuse until released"),
    ACT("/api/v1/circuits/{name}/force-closed", api_post_circuit, COMMAND_CIRCUIT_FORCE_CLOSED,
	"Let through until released"),
    ACT("/api/v1/circuits/{name}/disable", api_post_circuit, COMMAND_CIRCUIT_DISABLE,
	"Neither count nor refuse until released"),
    ACT("/api/v1/limits/{name}/set", api_post_limit, COMMAND_LIMIT_SET,
	"Other limits than the policy's: ?rate_limit, ?burst, ?max_connections"),
    ACT("/api/v1/limits/{name}/reset", api_post_limit, COMMAND_LIMIT_RESET,
	"The policy's limits again, with the whole burst to give"),
    ACT("/api/v1/guard/release", api_post_guard, COMMAND_GUARD_RELEASE,
	"Refuse nothing on this node"),
    ACT("/api/v1/guard/arm", api_post_guard, COMMAND_GUARD_ARM, "End that"),
};
#define ROUTES (sizeof(routes) / sizeof(routes[0]))

const char *api_status_text(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 406:
		return "Not Acceptable";
	case 408:
		return "Request Timeout";
	case 409:
		return "Conflict";
	case 413:
		return "Content Too Large";
	case 414:
		return "URI Too Long";
	case 422:
		return "Unprocessable Content";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 503:
		return "Service Unavailable";
	case 504:
		return "Gateway Timeout";
	case 505:
		return "HTTP Version Not Supported";
	default:
		return "Error";
	}
}

void api_json(struct api_reply *reply, int status, struct json *j)
{
	int err;

	json_newline(j);
	err = json_error(j);
	free(reply->body);
	reply->body = NULL;
	reply->len = 0;
	if (err) {
		json_done(j);
		api_problem(reply, 500,
			    err == -E2BIG ? "the answer would be too large: use ?limit"
					  : "out of memory");
		return;
	}
	reply->status = status;
	reply->type = API_TYPE_JSON;
	reply->body = j->buf;
	reply->len = j->len;
}

void api_problem(struct api_reply *reply, int status, const char *detail)
{
	struct json j;

	free(reply->body);
	reply->body = NULL;
	reply->len = 0;
	reply->status = status;
	reply->type = API_TYPE_PROBLEM;
	json_init(&j, 4096);
	json_object_begin(&j);
	json_kv_string(&j, "type", "about:blank");
	json_kv_string(&j, "title", api_status_text(status));
	json_kv_u64(&j, "status", (uint64_t)status);
	json_kv_string(&j, "detail", detail);
	json_object_end(&j);
	json_newline(&j);
	if (json_error(&j)) {
		json_done(&j);
		return; /* the status still says it */
	}
	reply->body = j.buf;
	reply->len = j.len;
}

static void get_landing(struct api_request *r, struct api_reply *reply)
{
	size_t len;
	FILE *f = open_memstream(&reply->body, &len);

	(void)r;
	if (!f) {
		api_problem(reply, 500, "out of memory");
		return;
	}
	fputs(
	    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>kilter</title>"
	    "</head><body>\n<h1>kilter " KILTER_VERSION "</h1>\n<ul>\n",
	    f);
	for (size_t i = 0; i < ROUTES; i++)
		if (!strcmp(routes[i].method, "GET") && !strchr(routes[i].path, '{'))
			fprintf(f, "<li><a href=\"%s\">%s</a>: %s</li>\n", routes[i].path,
				routes[i].path, routes[i].summary);
	fputs("</ul>\n</body></html>\n", f);
	if (fclose(f)) {
		free(reply->body);
		reply->body = NULL;
		api_problem(reply, 500, "out of memory");
		return;
	}
	reply->status = 200;
	reply->type = "text/html; charset=utf-8";
	reply->len = len;
}

static void openapi_parameter(struct json *j, const char *name, const char *in, const char *type)
{
	json_object_begin(j);
	json_kv_string(j, "name", name);
	json_kv_string(j, "in", in);
	json_kv_bool(j, "required", !strcmp(in, "path"));
	json_key(j, "schema");
	json_object_begin(j);
	json_kv_string(j, "type", type);
	json_object_end(j);
	json_object_end(j);
}

static void openapi_answer(struct json *j, const char *status, const char *text, const char *type)
{
	json_key(j, status);
	json_object_begin(j);
	json_kv_string(j, "description", text);
	json_key(j, "content");
	json_object_begin(j);
	json_key(j, type);
	json_object_begin(j);
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

static enum command_role role_needed(const struct route *route)
{
	if (route->op)
		return command_role_needed(route->op);
	return route->flags & ROUTE_OPEN ? ROLE_NONE : ROLE_VIEWER;
}

/* Of a role's name: OpenAPI 3.1, Security Requirement Object. */
static void openapi_security(struct json *j, enum command_role role)
{
	json_key(j, "security");
	json_array_begin(j);
	json_object_begin(j);
	json_key(j, "bearer");
	json_array_begin(j);
	json_string(j, command_role_str(role));
	json_array_end(j);
	json_object_end(j);
	json_array_end(j);
}

static void openapi_schemes(struct json *j)
{
	json_key(j, "components");
	json_object_begin(j);
	json_key(j, "securitySchemes");
	json_object_begin(j);
	json_key(j, "bearer");
	json_object_begin(j);
	json_kv_string(j, "type", "http");
	json_kv_string(j, "scheme", "bearer");
	json_object_end(j);
	json_object_end(j);
	json_object_end(j);
}

static void openapi_operation(struct json *j, const struct route *route, bool tokens)
{
	bool post = !strcmp(route->method, "POST");

	json_key(j, post ? "post" : "get");
	json_object_begin(j);
	json_kv_string(j, "summary", route->summary);
	if (tokens && role_needed(route) != ROLE_NONE)
		openapi_security(j, role_needed(route));
	json_key(j, "parameters");
	json_array_begin(j);
	if (strchr(route->path, '{'))
		openapi_parameter(j, "name", "path", "string");
	if (route->flags & ROUTE_LIST) {
		openapi_parameter(j, "limit", "query", "integer");
		openapi_parameter(j, "cursor", "query", "string");
	}
	if (post)
		openapi_parameter(j, "Idempotency-Key", "header", "string");
	json_array_end(j);
	json_key(j, "responses");
	json_object_begin(j);
	openapi_answer(j, "200", "done", route->flags & ROUTE_TEXT ? "text/plain" : API_TYPE_JSON);
	openapi_answer(j, "default", "a problem (RFC 9457)", API_TYPE_PROBLEM);
	json_object_end(j);
	json_object_end(j);
}

static void get_openapi(struct api_request *r, struct api_reply *reply)
{
	struct json j;

	json_init(&j, API_JSON_MAX);
	json_object_begin(&j);
	json_kv_string(&j, "openapi", "3.1.0");
	json_key(&j, "info");
	json_object_begin(&j);
	json_kv_string(&j, "title", "kilter");
	json_kv_string(&j, "version", "v1");
	json_object_end(&j);
	json_key(&j, "paths");
	json_object_begin(&j);
	for (size_t i = 0; i < ROUTES; i++) {
		json_key(&j, routes[i].path);
		json_object_begin(&j);
		openapi_operation(&j, &routes[i], r->tokens);
		json_object_end(&j);
	}
	json_object_end(&j);
	if (r->tokens)
		openapi_schemes(&j);
	json_object_end(&j);
	api_json(reply, 200, &j);
}

/* 0 when path is pattern (a NAME is decoded into name), -ENOENT, or the error of the NAME. */
static int match(const char *pattern, const char *path, char name[static API_NAME_MAX + 1])
{
	const char *brace = strchr(pattern, '{'), *tail;
	size_t n;

	if (!brace)
		return strcmp(pattern, path) ? -ENOENT : 0;
	n = (size_t)(brace - pattern);
	if (strncmp(pattern, path, n))
		return -ENOENT;
	path += n;
	tail = strchr(brace, '}') + 1;
	n = strcspn(path, "/");
	if (!n || strcmp(path + n, tail))
		return -ENOENT;
	return negotiate_decode(path, n, name, API_NAME_MAX + 1);
}

static bool acceptable(const struct api_request *r, const struct route *route)
{
	static const char *const json_types[] = {API_TYPE_JSON, "application/vnd.kilter.v1+json",
						 API_TYPE_PROBLEM};

	if (!r->accept || !*r->accept || route->flags & ROUTE_TEXT)
		return true; /* /metrics falls back to text, as every exporter does */
	for (size_t i = 0; i < sizeof(json_types) / sizeof(json_types[0]); i++)
		if (negotiate_weight(r->accept, json_types[i]) > 0)
			return true;
	return false;
}

/* RFC 6750, section 3: what is missing, and nothing about what there would be. */
static void forbid(const struct api_request *r, enum command_role needed, struct api_reply *reply)
{
	char why[64];

	if (r->bad_token) {
		api_problem(reply, 401, "this token is none of ours");
		reply->challenge = API_CHALLENGE ", error=\"invalid_token\"";
	} else if (r->tokens && r->role == ROLE_NONE) {
		api_problem(reply, 401, "a token is needed: Authorization: Bearer TOKEN");
		reply->challenge = API_CHALLENGE;
	} else if (r->tokens) {
		snprintf(why, sizeof(why), "this takes the role %s", command_role_str(needed));
		api_problem(reply, 403, why);
		reply->challenge = API_CHALLENGE ", error=\"insufficient_scope\"";
	} else {
		api_problem(reply, 403,
			    r->unix_socket ? "only root may do this"
					   : "this address only reads: use the Unix socket");
	}
}

void api_dispatch(struct api_request *r, struct api_reply *reply)
{
	const char *method = strcmp(r->method, "HEAD") ? r->method : "GET";
	const struct route *found = NULL;
	int err = -ENOENT;

	for (size_t i = 0; i < ROUTES && !found; i++) {
		int e = match(routes[i].path, r->path, r->name);

		if (e == -ENOENT)
			continue;
		err = e;
		if (!strcmp(routes[i].method, method))
			found = &routes[i];
		else
			snprintf(reply->allow, sizeof(reply->allow), "%s",
				 strcmp(routes[i].method, "GET") ? routes[i].method : "GET, HEAD");
	}
	if (err == -ENOENT)
		api_problem(reply, 404, "there is no such path: see /api/openapi.json");
	else if (err)
		api_problem(reply, 400, "the name in the path is not well encoded or too long");
	else if (!found)
		api_problem(reply, 405, "this path takes other methods: see Allow");
	else if (!acceptable(r, found))
		api_problem(reply, 406, "this is application/json, version v1");
	else if (r->role < role_needed(found))
		forbid(r, role_needed(found), reply);
	else if (!r->snapshot && !(found->flags & ROUTE_EARLY))
		api_problem(reply, 503, "the agent has published nothing yet");
	else {
		r->op = found->op;
		found->fn(r, reply);
	}
	if (reply->status != 405)
		reply->allow[0] = '\0';
}
