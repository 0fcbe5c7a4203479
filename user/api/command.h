/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Front -> agent: small fixed messages over a SOCK_SEQPACKET pair, with the caller's
 * authenticated role. The agent checks them again and answers with the same id.
 */
#ifndef KILTER_API_COMMAND_H
#define KILTER_API_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

struct guard;

enum command_op {
	COMMAND_CIRCUIT_TRIP = 1,
	COMMAND_CIRCUIT_RESET,
	COMMAND_CIRCUIT_HOLD,
	COMMAND_CIRCUIT_RELEASE,
	COMMAND_CIRCUIT_FORCE_OPEN,
	COMMAND_CIRCUIT_FORCE_CLOSED,
	COMMAND_CIRCUIT_DISABLE,
	COMMAND_LIMIT_SET,
	COMMAND_LIMIT_RESET,
	COMMAND_GUARD_RELEASE, /* no target */
	COMMAND_GUARD_ARM,
};
enum command_role {
	ROLE_NONE, /* over TCP, no token: what is open to all */
	ROLE_VIEWER,
	ROLE_OPERATOR,
	ROLE_ADMIN
};

struct command_request {
	uint64_t id;
	uint32_t op;
	uint32_t role;
	uint32_t uid;	  /* of the caller (SO_PEERCRED); UINT32_MAX over TCP */
	char target[228]; /* circuit name, NUL-terminated */
	char request_id[64];
	char user[64]; /* over TCP: the name of the token; else "" */
	/* COMMAND_LIMIT_SET */
	double rate_limit;	  /* connects a second; 0: none; under 0: as it is */
	uint32_t burst;		  /* 0: as it is */
	uint32_t max_connections; /* 0: none; UINT32_MAX: as it is */
};

struct command_reply {
	uint64_t id;
	int32_t err;	   /* 0 or negative errno: -ENOENT, -EALREADY, -EPERM, -EINVAL */
	char message[196]; /* one sentence for the caller */
};

_Static_assert(sizeof(struct command_request) == 392, "no holes");
_Static_assert(sizeof(struct command_reply) == 208, "no holes");

/* The least role that may do it; ROLE_ADMIN for what is no command. */
enum command_role command_role_needed(uint32_t op);
/* "viewer"; of what is none: "none". */
const char *command_role_str(enum command_role role);

/* The agent's side: does what the request says, as far as its role may, and fills the whole reply
 * in. True when it did something, which the next snapshot is to show. */
bool command_run(struct guard *g, const struct command_request *req, struct command_reply *reply);

#endif
