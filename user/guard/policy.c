// SPDX-License-Identifier: Apache-2.0
#include "guard/policy.h"

#include <arpa/inet.h>

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DNS_PORT 53

static unsigned int full_prefix(const struct config_destination *d)
{
	return d->family == KILTER_FAMILY_V4 ? 32 : 128;
}

static bool one_address(const struct config_destination *d)
{
	return d->family && d->prefix_len == full_prefix(d);
}

/*
 * address and port > address > longest prefix (with a port before without) > port > any; of
 * equals the one that names a workload. Prefixes of the two families never meet.
 */
static unsigned int rank(const struct config_policy *p, const struct config_destination *d)
{
	unsigned int r = 0;

	if (d->family)
		r = 2 + 2 * (unsigned int)d->prefix_len; /* 2 .. 258 */
	if (d->port)
		r++;
	return 2 * r + !policy_any_workload(p);
}

bool policy_any_workload(const struct config_policy *p)
{
	return !strcmp(p->workload, "*");
}

/* ::ffff:a.b.c.d is a.b.c.d, as the kernel side has it. */
static void unmap(struct config_destination *d)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (d->family != KILTER_FAMILY_V6 || d->prefix_len < 96 ||
	    memcmp(d->addr, mapped, sizeof(mapped)))
		return;
	memmove(d->addr, d->addr + 12, 4);
	memset(d->addr + 4, 0, 12);
	d->family = KILTER_FAMILY_V4;
	d->prefix_len -= 96;
}

static void protect(struct policy_table *t, const char *destination, const char *reason)
{
	static const uint8_t any[16];
	struct config_destination d;

	if (t->protected_count >= POLICY_PROTECTED_MAX || config_parse_destination(destination, &d))
		return;
	unmap(&d);
	if (!memcmp(d.addr, any, sizeof(any)))
		d.family = 0; /* it listens on every address there is: its port, anywhere */
	t->protected[t->protected_count].at = d;
	t->protected[t->protected_count++].reason = reason;
}

void policy_table_init(struct policy_table *t, const struct config *c)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	char text[128];

	memset(t, 0, sizeof(*t));
	t->config = c;
	for (uint32_t i = 0; i < c->guard.policies_count && i < CONFIG_POLICIES_MAX; i++) {
		struct policy_entry *e = &t->entries[t->count];

		/* The configuration was checked when it was read: it parses. */
		if (config_parse_destination(c->guard.policies[i].destination, &e->destination))
			continue;
		unmap(&e->destination);
		e->policy = &c->guard.policies[i];
		e->rank = rank(e->policy, &e->destination);
		t->count++;
	}
	protect(t, c->listen, "protected: kilter's own address");
	if (!host)
		return;
	snprintf(text, sizeof(text), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
		 port ? port : "443");
	protect(t, text, "protected: the API server");
}

static bool in_prefix(const struct config_destination *d, const struct kilter_peer *p)
{
	unsigned int bytes = d->prefix_len / 8, bits = d->prefix_len % 8;

	if (d->family != p->family)
		return false;
	if (memcmp(d->addr, p->addr, bytes))
		return false;
	return !bits || !((d->addr[bytes] ^ p->addr[bytes]) >> (8 - bits));
}

static bool covers(const struct config_destination *d, const struct kilter_peer *p)
{
	if (d->port && htons(d->port) != p->port_be)
		return false;
	return !d->family || in_prefix(d, p);
}

const struct policy_entry *policy_match(const struct policy_table *t, const char *workload,
					const struct kilter_peer *destination)
{
	const struct policy_entry *best = NULL;

	for (unsigned int i = 0; i < t->count; i++) {
		const struct policy_entry *e = &t->entries[i];

		/* Of equals the first in the file. */
		if ((best && e->rank <= best->rank) || !covers(&e->destination, destination))
			continue;
		if (!policy_any_workload(e->policy) &&
		    fnmatch(e->policy->workload, workload, FNM_NOESCAPE))
			continue;
		best = e;
	}
	return best;
}

bool policy_is_exact(const struct policy_entry *e)
{
	return e && policy_any_workload(e->policy) && one_address(&e->destination) &&
	       e->destination.port;
}

void policy_peer(const struct policy_entry *e, struct kilter_peer *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->addr, e->destination.addr, sizeof(ret->addr));
	ret->family = e->destination.family;
	ret->port_be = htons(e->destination.port);
}

static bool is_loopback(const struct kilter_peer *p)
{
	static const uint8_t v6[16] = {[15] = 1};

	return p->family == KILTER_FAMILY_V4 ? p->addr[0] == 127 : !memcmp(p->addr, v6, 16);
}

const char *policy_protected(const struct policy_table *t, const struct policy_entry *e,
			     const struct kilter_peer *destination)
{
	if (e && one_address(&e->destination))
		return NULL; /* named */
	if (t->config->guard.protect_loopback && is_loopback(destination))
		return "protected: loopback; a policy must name the address";
	if (destination->port_be == htons(DNS_PORT))
		return "protected: DNS; a policy must name the address";
	for (unsigned int i = 0; i < t->protected_count; i++)
		if (covers(&t->protected[i].at, destination))
			return t->protected[i].reason;
	return NULL;
}

enum kilter_guard_mode policy_mode(const struct policy_table *t, const struct policy_entry *e,
				   const struct kilter_peer *destination, const char **ret_reason)
{
	const struct config *c = t->config;
	enum kilter_guard_mode mode = e ? e->policy->mode : c->guard.defaults.mode;
	const char *why = NULL;

	if (mode == KILTER_GUARD_ENFORCE)
		why = policy_protected(t, e, destination);
	if (why)
		mode = KILTER_GUARD_OBSERVE;
	if (c->guard.mode < mode) {
		mode = c->guard.mode;
		why = mode == KILTER_GUARD_OFF ? "guard.mode is off" : "guard.mode is observe";
	}
	*ret_reason = why;
	return mode;
}
