/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which policy a caller and a destination fall under, and what mode that gives in the end.
 * Pure but for the environment, which names the API server.
 */
#ifndef KILTER_GUARD_POLICY_H
#define KILTER_GUARD_POLICY_H

#include <kilter/identity.h>

#include "core/config.h"
#include "model/dns.h"
#include "model/metadata/labels.h"

#define POLICY_PROTECTED_MAX 4

struct policy_entry {
	const struct config_policy *policy;
	struct config_destination destination;
	struct kilter_peer standby; /* family 0: none */
	unsigned int rank;	    /* how specific; see rank() */
};

/* A configuration, made ready to be asked. Borrows it. */
struct policy_table {
	const struct config *config;
	struct policy_entry entries[CONFIG_POLICIES_MAX];
	unsigned int count;
	struct kilter_peer standby; /* of guard.defaults */
	bool names;		    /* some policy asks for a DNS name */
	bool labels;		    /* some policy asks for labels */
	struct {
		struct config_destination at;
		const char *reason; /* static */
	} protected[POLICY_PROTECTED_MAX];
	unsigned int protected_count;
};

/* Who calls whom. Strings are borrowed; "" in all three: any caller. */
struct policy_subject {
	const char *workload, *executable, *cgroup;
	const struct labels *labels; /* NULL: not known, or any caller */
	struct kilter_peer destination;
	const struct dns *dns; /* what the destination is called; may be NULL */
};

void policy_table_init(struct policy_table *t, const struct config *c);
/* The most specific policy; NULL: none, guard.defaults applies. */
const struct policy_entry *policy_match(const struct policy_table *t,
					const struct policy_subject *s);
/* Why this one: "by address and port, workload; before NAME, NAME". */
void policy_explain(const struct policy_table *t, const struct policy_subject *s,
		    const struct policy_entry *e, char *buf, size_t size);
/* The policies that need no caller: any caller, one address and port. */
bool policy_is_exact(const struct policy_entry *e);
/* The destination of an exact policy as the kernel knows it. */
void policy_peer(const struct policy_entry *e, struct kilter_peer *ret);
/* What is done in the end; *ret_reason: why not what the policy asks for, or NULL. e NULL: of
 * guard.defaults. */
enum kilter_guard_mode policy_mode(const struct policy_table *t, const struct policy_entry *e,
				   const struct kilter_peer *destination, const char **ret_reason);
/* Must this destination not be refused unless a policy names it? NULL, or why. */
const char *policy_protected(const struct policy_table *t, const struct policy_entry *e,
			     const struct kilter_peer *destination);

#endif
