/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes: one table drives dispatch, 405 with Allow, the landing page and
 * /api/openapi.json. Handlers see a request that was already judged and a snapshot.
 */
#ifndef KILTER_API_ROUTES_H
#define KILTER_API_ROUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/command.h"
#include "core/json.h"
#include "export/prometheus.h"
#include "model/snapshot.h"

#define API_NAME_MAX   227u /* of a NAME in a path, decoded: struct command_request.target */
#define API_JSON_MAX   (64u << 20)
#define API_LIMIT_MAX  1000u
#define API_LIMIT      1000u /* items a page when not asked otherwise */
#define API_CURSOR_MAX 16u
#define API_ASYNC      0 /* status: the reply comes later */

struct api_request {
	const char *method, *path, *accept;
	const char *limit, *cursor;			  /* of the query, or NULL */
	const char *rate_limit, *burst, *max_connections; /* the same */
	const struct snapshot *snapshot;		  /* NULL: none yet */
	bool unix_socket;
	bool tokens;	/* over TCP with api.token_file: role is the token's, or ROLE_NONE */
	bool bad_token; /* there was one, and it is none of ours */
	enum command_role role;
	uint32_t uid;		     /* UINT32_MAX over TCP */
	const char *user;	     /* the token's name, or "" */
	uint32_t op;		     /* enum command_op of the route; 0: it reads */
	char name[API_NAME_MAX + 1]; /* the NAME of the path, decoded */
	const struct prometheus_family *own;
	unsigned int own_count;
};

struct api_reply {
	int status;
	const char *type; /* static */
	char *body;	  /* malloc()ed */
	size_t len;
	struct prometheus *text;	/* that body is the first piece of; NULL: body is all */
	char allow[64];			/* of a 405 */
	const char *challenge;		/* WWW-Authenticate of a 401 or 403, static; or NULL */
	struct command_request command; /* with API_ASYNC: to be sent */
};

/* Fills reply; never fails: what goes wrong is a problem in the reply. */
void api_dispatch(struct api_request *r, struct api_reply *reply);
/* An application/problem+json; takes what was in the reply. */
void api_problem(struct api_reply *reply, int status, const char *detail);
const char *api_status_text(int status);
/* Takes j's buffer, or turns into a 500. */
void api_json(struct api_reply *reply, int status, struct json *j);

/* One of the table's handlers. */
typedef void (*api_fn)(struct api_request *r, struct api_reply *reply);
void api_get_metrics(struct api_request *r, struct api_reply *reply);
void api_get_live(struct api_request *r, struct api_reply *reply);
void api_get_ready(struct api_request *r, struct api_reply *reply);
void api_get_startup(struct api_request *r, struct api_reply *reply);
void api_get_status(struct api_request *r, struct api_reply *reply);
void api_get_services(struct api_request *r, struct api_reply *reply);
void api_get_dependencies(struct api_request *r, struct api_reply *reply);
void api_get_health(struct api_request *r, struct api_reply *reply);
void api_get_health_summary(struct api_request *r, struct api_reply *reply);
void api_get_circuits(struct api_request *r, struct api_reply *reply);
void api_get_listeners(struct api_request *r, struct api_reply *reply);
void api_get_syscalls(struct api_request *r, struct api_reply *reply);
void api_get_probes(struct api_request *r, struct api_reply *reply);
void api_get_audit(struct api_request *r, struct api_reply *reply);
void api_get_config(struct api_request *r, struct api_reply *reply);
void api_get_phases(struct api_request *r, struct api_reply *reply);
void api_post_circuit(struct api_request *r, struct api_reply *reply);
void api_get_limits(struct api_request *r, struct api_reply *reply);
void api_post_limit(struct api_request *r, struct api_reply *reply);
void api_get_guard(struct api_request *r, struct api_reply *reply);
void api_post_guard(struct api_request *r, struct api_reply *reply);

#endif
