// SPDX-License-Identifier: Apache-2.0
#include "guard/policy.h"

#include <arpa/inet.h>

#include <fnmatch.h>
#include <stdarg.h>
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

static bool is_any(const char *glob)
{
	return !strcmp(glob, "*");
}

static unsigned int callers(const struct config_policy *p)
{
	return (unsigned int)!is_any(p->workload) + !is_any(p->executable) + !is_any(p->cgroup) +
	       !!p->labels[0];
}

static unsigned int labels_count(const struct config_policy *p)
{
	unsigned int n = 0;

	for (const char *k = NULL; (k = config_labels_next(p->labels, k));)
		n++;
	return n;
}

static bool has_wildcard(const char *s)
{
	return strpbrk(s, "*?");
}

/*
 * address > name > pattern of names, the longer the more specific > prefix, the longer > any; with
 * a port before without; of equals the one that says more about the caller: in more of four ways,
 * then by more labels. Prefixes of the two families never meet.
 */
static unsigned int rank(const struct config_policy *p, const struct config_destination *d)
{
	unsigned int r = 0;

	if (d->name[0])
		r = has_wildcard(d->name) ? 200 + (unsigned int)strlen(d->name) : 300;
	else if (one_address(d))
		r = 400;
	else if (d->family)
		r = 1 + (unsigned int)d->prefix_len; /* 1 .. 128 */
	r = 5 * (2 * r + !!d->port) + callers(p);
	return (CONFIG_LABELS_MAX + 1) * r + labels_count(p);
}

static void protect(struct policy_table *t, const char *destination, const char *reason)
{
	static const uint8_t any[16];
	struct config_destination d;

	if (t->protected_count >= POLICY_PROTECTED_MAX || config_parse_destination(destination, &d))
		return;
	config_unmap_destination(&d);
	if (!memcmp(d.addr, any, sizeof(any)))
		d.family = 0; /* it listens on every address there is: its port, anywhere */
	t->protected[t->protected_count].at = d;
	t->protected[t->protected_count++].reason = reason;
}

static void to_peer(const struct config_destination *d, struct kilter_peer *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->addr, d->addr, sizeof(ret->addr));
	ret->family = d->family;
	ret->transport = d->transport;
	ret->port_be = htons(d->port);
}

static void read_standby(const struct config_policy *p, struct kilter_peer *ret)
{
	struct config_destination d;

	memset(ret, 0, sizeof(*ret));
	if (!p->standby[0] || config_parse_destination(p->standby, &d))
		return;
	config_unmap_destination(&d);
	to_peer(&d, ret);
}

void policy_table_init(struct policy_table *t, const struct config *c)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	char text[128];

	memset(t, 0, sizeof(*t));
	t->config = c;
	read_standby(&c->guard.defaults, &t->standby);
	for (uint32_t i = 0; i < c->guard.policies_count && i < CONFIG_POLICIES_MAX; i++) {
		struct policy_entry *e = &t->entries[t->count];

		/* The configuration was checked when it was read: it parses. */
		if (config_parse_destination(c->guard.policies[i].destination, &e->destination))
			continue;
		config_unmap_destination(&e->destination);
		e->policy = &c->guard.policies[i];
		read_standby(e->policy, &e->standby);
		t->names = t->names || e->destination.name[0];
		t->labels = t->labels || e->policy->labels[0];
		e->rank = rank(e->policy, &e->destination);
		t->count++;
	}
	/* Where the front listens that is told "localhost". */
	if (!strncmp(c->listen, "localhost:", 10))
		snprintf(text, sizeof(text), "127.0.0.1:%.5s", c->listen + 10);
	else
		snprintf(text, sizeof(text), "%.127s", c->listen);
	protect(t, text, "protected: kilter's own address");
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

static bool covers(const struct config_destination *d, const struct kilter_peer *p,
		   const struct dns *dns)
{
	if (d->transport != p->transport || (d->port && htons(d->port) != p->port_be))
		return false;
	if (d->name[0])
		return dns && dns_is_called(dns, p, d->name);
	return !d->family || in_prefix(d, p);
}

static bool calls(const char *glob, const char *what)
{
	return is_any(glob) || !fnmatch(glob, what, FNM_NOESCAPE);
}

static bool has_labels(const struct labels *l, const char *wanted)
{
	for (const char *k = NULL; (k = config_labels_next(wanted, k));) {
		const char *value = l ? labels_get(l, k) : NULL;

		if (!value || !calls(config_labels_glob(k), value))
			return false;
	}
	return true;
}

static bool matches(const struct policy_entry *e, const struct policy_subject *s)
{
	return covers(&e->destination, &s->destination, s->dns) &&
	       calls(e->policy->workload, s->workload) &&
	       calls(e->policy->executable, s->executable) && calls(e->policy->cgroup, s->cgroup) &&
	       has_labels(s->labels, e->policy->labels);
}

const struct policy_entry *policy_match(const struct policy_table *t,
					const struct policy_subject *s)
{
	const struct policy_entry *best = NULL;

	/* Of equals the first in the file. */
	for (unsigned int i = 0; i < t->count; i++)
		if ((!best || t->entries[i].rank > best->rank) && matches(&t->entries[i], s))
			best = &t->entries[i];
	return best;
}

__attribute__((format(printf, 4, 5))) static void append(char *buf, size_t size, size_t *n,
							 const char *fmt, ...)
{
	va_list ap;
	int more;

	if (*n >= size)
		return;
	va_start(ap, fmt);
	more = vsnprintf(buf + *n, size - *n, fmt, ap);
	va_end(ap);
	*n += more > 0 ? (size_t)more : 0;
}

void policy_explain(const struct policy_table *t, const struct policy_subject *s,
		    const struct policy_entry *e, char *buf, size_t size)
{
	const struct config_destination *d;
	const char *before = "; before";
	size_t n = 0;

	buf[0] = '\0';
	if (!e) {
		append(buf, size, &n, "no policy matches");
		return;
	}
	d = &e->destination;
	append(buf, size, &n, "by %s%s",
	       d->name[0]	? d->name
	       : one_address(d) ? "address"
	       : d->family	? "prefix"
	       : d->port	? "port"
				: "any destination",
	       d->port && (d->name[0] || d->family) ? " and port" : "");
	if (!is_any(e->policy->workload))
		append(buf, size, &n, ", workload");
	if (!is_any(e->policy->executable))
		append(buf, size, &n, ", executable");
	if (!is_any(e->policy->cgroup))
		append(buf, size, &n, ", cgroup");
	for (const char *k = NULL; (k = config_labels_next(e->policy->labels, k));)
		append(buf, size, &n, ", label %s", k);
	for (unsigned int i = 0; i < t->count; i++) {
		if (&t->entries[i] == e || !matches(&t->entries[i], s))
			continue;
		append(buf, size, &n, "%s %s", before, t->entries[i].policy->name);
		before = ",";
	}
}

bool policy_is_exact(const struct policy_entry *e)
{
	return e && !callers(e->policy) && one_address(&e->destination) && e->destination.port;
}

void policy_peer(const struct policy_entry *e, struct kilter_peer *ret)
{
	to_peer(&e->destination, ret);
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
		if (covers(&t->protected[i].at, destination, NULL))
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
