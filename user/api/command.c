// SPDX-License-Identifier: Apache-2.0
#include "api/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/negotiate.h"
#include "core/clock.h"
#include "guard/guard.h"

/* An operator ends what stands, or keeps it as it is; to refuse, to force and to turn the switch
 * takes an admin. */
static const struct op {
	uint32_t op;
	enum command_role role;
	enum guard_action action; /* of circuits and limits */
	const char *done;	  /* NULL: the switch */
} ops[] = {
    {COMMAND_CIRCUIT_TRIP, ROLE_ADMIN, GUARD_TRIP, "tripped"},
    {COMMAND_CIRCUIT_RESET, ROLE_OPERATOR, GUARD_RESET, "reset"},
    {COMMAND_CIRCUIT_HOLD, ROLE_OPERATOR, GUARD_HOLD, "held"},
    {COMMAND_CIRCUIT_RELEASE, ROLE_OPERATOR, GUARD_RELEASE, "released"},
    {COMMAND_CIRCUIT_FORCE_OPEN, ROLE_ADMIN, GUARD_FORCE_OPEN, "forced open"},
    {COMMAND_CIRCUIT_FORCE_CLOSED, ROLE_ADMIN, GUARD_FORCE_CLOSED, "forced closed"},
    {COMMAND_CIRCUIT_DISABLE, ROLE_ADMIN, GUARD_DISABLE, "disabled"},
    {COMMAND_LIMIT_SET, ROLE_ADMIN, GUARD_LIMIT_SET, "has other limits"},
    {COMMAND_LIMIT_RESET, ROLE_OPERATOR, GUARD_LIMIT_RESET, "has its policy's limits"},
    {.op = COMMAND_GUARD_RELEASE, .role = ROLE_ADMIN},
    {.op = COMMAND_GUARD_ARM, .role = ROLE_ADMIN},
};

static const struct op *find_op(uint32_t op)
{
	for (unsigned int i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (ops[i].op == op)
			return &ops[i];
	return NULL;
}

enum command_role command_role_needed(uint32_t op)
{
	const struct op *o = find_op(op);

	return o ? o->role : ROLE_ADMIN;
}

const char *command_role_str(enum command_role role)
{
	switch (role) {
	case ROLE_VIEWER:
		return "viewer";
	case ROLE_OPERATOR:
		return "operator";
	case ROLE_ADMIN:
		return "admin";
	case ROLE_NONE:
		break;
	}
	return "none";
}

static bool run_switch(struct guard *g, bool release, const struct guard_hand *hand,
		       struct command_reply *reply)
{
	const char *still;

	reply->err = guard_release(g, release, hand);
	still = guard_released(g);
	snprintf(reply->message, sizeof(reply->message), "%s",
		 release      ? reply->err ? "the guard is released already"
					   : "nothing is refused on this node until the guard is armed"
		 : still      ? still
		 : reply->err ? "the guard is armed already"
			      : "the guard is armed");
	return !reply->err;
}

bool command_run(struct guard *g, const struct command_request *req, struct command_reply *reply)
{
	const struct guard_limits limits = {.rate_limit = req->rate_limit,
					    .burst = req->burst,
					    .max_connections = req->max_connections};
	const struct op *o = find_op(req->op);
	struct guard_hand hand = {.uid = req->uid};

	reply->id = req->id;
	reply->err = -EINVAL;
	snprintf(reply->message, sizeof(reply->message), "unknown command");
	if (!o || !memchr(req->target, 0, sizeof(req->target)) ||
	    !memchr(req->user, 0, sizeof(req->user)) || req->role > ROLE_ADMIN)
		return false;
	if (req->user[0]) { /* it goes into the audit trail: the front is not trusted */
		if (!negotiate_id_valid(req->user))
			return false;
		hand = (struct guard_hand){.uid = UINT32_MAX,
					   .user = req->user,
					   .role = command_role_str((enum command_role)req->role)};
	}
	if (req->role < o->role) {
		reply->err = -EPERM;
		snprintf(reply->message, sizeof(reply->message), "the %s role is required",
			 command_role_str(o->role));
		return false;
	}
	if (!o->done)
		return run_switch(g, req->op == COMMAND_GUARD_RELEASE, &hand, reply);
	reply->err = guard_manual(g, req->target, o->action, &limits, &hand, clock_boot_ns(),
				  clock_real_ns());
	if (!reply->err)
		snprintf(reply->message, sizeof(reply->message), "circuit %.150s %s", req->target,
			 o->done);
	else
		snprintf(reply->message, sizeof(reply->message), "circuit %.120s: %s", req->target,
			 guard_manual_str(reply->err));
	return !reply->err;
}
