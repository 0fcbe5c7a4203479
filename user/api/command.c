// SPDX-License-Identifier: Apache-2.0
#include "api/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "guard/guard.h"

static bool run_switch(struct guard *g, bool release, uint32_t uid, struct command_reply *reply)
{
	const char *still;

	reply->err = guard_release(g, release, uid);
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
	static const struct {
		uint32_t op;
		enum guard_action action;
		const char *done;
	} ops[] = {
	    {COMMAND_CIRCUIT_TRIP, GUARD_TRIP, "tripped"},
	    {COMMAND_CIRCUIT_RESET, GUARD_RESET, "reset"},
	    {COMMAND_CIRCUIT_HOLD, GUARD_HOLD, "held"},
	    {COMMAND_CIRCUIT_RELEASE, GUARD_RELEASE, "released"},
	    {COMMAND_CIRCUIT_FORCE_OPEN, GUARD_FORCE_OPEN, "forced open"},
	    {COMMAND_CIRCUIT_FORCE_CLOSED, GUARD_FORCE_CLOSED, "forced closed"},
	    {COMMAND_CIRCUIT_DISABLE, GUARD_DISABLE, "disabled"},
	    {COMMAND_LIMIT_SET, GUARD_LIMIT_SET, "has other limits"},
	    {COMMAND_LIMIT_RESET, GUARD_LIMIT_RESET, "has its policy's limits"},
	};
	const struct guard_limits limits = {.rate_limit = req->rate_limit,
					    .burst = req->burst,
					    .max_connections = req->max_connections};

	reply->id = req->id;
	reply->err = -EINVAL;
	snprintf(reply->message, sizeof(reply->message), "unknown command");
	if (!memchr(req->target, 0, sizeof(req->target)))
		return false;
	if (req->role != ROLE_ADMIN) {
		reply->err = -EPERM;
		snprintf(reply->message, sizeof(reply->message), "the admin role is required");
		return false;
	}
	if (req->op == COMMAND_GUARD_RELEASE || req->op == COMMAND_GUARD_ARM)
		return run_switch(g, req->op == COMMAND_GUARD_RELEASE, req->uid, reply);
	for (unsigned int i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (ops[i].op != req->op)
			continue;
		reply->err = guard_manual(g, req->target, ops[i].action, &limits, req->uid,
					  clock_boot_ns(), clock_real_ns());
		if (!reply->err) {
			snprintf(reply->message, sizeof(reply->message), "circuit %.150s %s",
				 req->target, ops[i].done);
		} else {
			snprintf(reply->message, sizeof(reply->message), "circuit %.120s: %s",
				 req->target, guard_manual_str(reply->err));
		}
		return !reply->err;
	}
	return false;
}
