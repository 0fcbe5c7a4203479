// SPDX-License-Identifier: Apache-2.0
/*
 * Ids of the kernel come in, workloads and edges come out. A workload that was not seen for
 * MODEL_FORGET_NS is hidden and loses its windows but keeps its index and name, so that
 * its totals stay attributed; when the table is full the one hidden longest makes room.
 */
#include "model/model.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collect/table.h"
#include "core/clock.h"
#include "core/selfstat.h"
#include "model/metadata/cgroup.h"
#include "model/metadata/cri.h"
#include "model/route.h"
#include "model/window.h"

#define MODEL_FORGET_NS	    (3600 * NS_PER_SEC)
#define MODEL_ADDRESSES_NS  (30 * NS_PER_SEC) /* how often this node's addresses are read */
#define MODEL_ADDRESSES_MAX 1024u
#define MODEL_ID_HEX	    12 /* characters of a container id in a name, as `docker ps` */

/* What all workloads of a container have in common. It goes with the last of them. */
struct container {
	struct table_node node;
	char id[72];
	struct labels *labels;
	uint32_t labels_version;
	bool pending, asked; /* the runtime is being asked; was asked, or is */
	struct workload *first;
};

struct workload {
	struct table_node node;
	char key[128]; /* the name */
	struct model_workload pub;
	struct container *container; /* NULL: in none */
	struct workload *next;	     /* of the same container */
	struct window_red *red[2];   /* server, client */
	struct window_tcp *tcp;
	int64_t open;
};

struct id_workload {
	struct table_node node;
	__u32 id;
	__u32 pad;
	struct kilter_workload info;
	struct workload *w; /* NULL: forgotten, resolved anew when it is seen */
};

struct id_peer {
	struct table_node node;
	__u32 id;
	struct kilter_peer peer;
};

struct id_route {
	struct table_node node;
	__u32 id;
	__u32 pad;
	char *text;
};

struct edge_key {
	uint32_t workload, peer;
};

struct edge {
	struct table_node node;
	struct edge_key key;
	struct model_edge pub;
	struct window_red *red;
	struct window_tcp *tcp;
	int64_t open;
};

struct listener {
	struct table_node node;
	struct kilter_listener_key key;
	struct kilter_listener value;
	uint64_t seen_ns;
};

/* Who serves a local port. Two at once (in different network namespaces): nobody. */
struct port {
	struct table_node node;
	uint32_t port;
	uint32_t workload; /* index */
	uint64_t seen_ns, contested_ns;
};

struct address {
	uint8_t addr[16];
	uint8_t family;
};

struct model {
	struct table ids, peers, routes, workloads, containers, edges, listeners, ports;
	struct cgroup_resolver *resolver;
	struct dns *dns;
	struct cri *cri;	 /* NULL: no runtime is asked */
	uint32_t labels_version; /* given last */
	char runtime_root[CONFIG_PATH_LEN];
	struct window_clock clock;
	uint64_t fed_since_ns; /* clock.now_ns while the last tick's figures came */
	struct address *addresses;
	unsigned int addresses_count;
	uint64_t addresses_ns;
	bool incomplete;
	uint64_t overflow[8]; /* enum overflow */
	uint64_t labels_unread;
	struct selfstat stat, labels_stat;
};

enum overflow {
	OVER_WORKLOADS,
	OVER_EDGES,
	OVER_PEERS,
	OVER_ROUTES,
	OVER_LISTENERS,
	OVER_WINDOWS,
	OVER_NAMES, /* not kept on disk */
	OVER_LABELS,
};
static const char *const overflow_labels[] = {
    [OVER_WORKLOADS] = "table=\"workloads\"", [OVER_EDGES] = "table=\"edges\"",
    [OVER_PEERS] = "table=\"peers\"",	      [OVER_ROUTES] = "table=\"routes\"",
    [OVER_LISTENERS] = "table=\"listeners\"", [OVER_WINDOWS] = "table=\"windows\"",
    [OVER_NAMES] = "table=\"names\"",	      [OVER_LABELS] = "table=\"labels\"",
};

static void stat_overflow(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct model *m = ctx;

	for (size_t i = 0; i < sizeof(overflow_labels) / sizeof(overflow_labels[0]); i++)
		emit(emit_ctx, overflow_labels[i],
		     i == OVER_NAMES ? (double)cgroup_resolver_unkept(m->resolver)
				     : (double)m->overflow[i]);
}

static void stat_labels(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct model *)ctx)->labels_unread);
}

static uint32_t limit(uint32_t configured, uint32_t fallback)
{
	return configured ? configured : fallback;
}

int model_new(struct model **ret, const struct config *c)
{
	struct model *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	table_init(&m->ids, sizeof(__u32), sizeof(struct id_workload),
		   limit(c->limits.workloads, KILTER_WORKLOADS_MAX));
	table_init(&m->peers, sizeof(__u32), sizeof(struct id_peer),
		   limit(c->limits.peers, KILTER_PEERS_MAX));
	table_init(&m->routes, sizeof(__u32), sizeof(struct id_route),
		   limit(c->limits.routes, KILTER_ROUTES_MAX));
	table_init(&m->workloads, sizeof(((struct workload *)0)->key), sizeof(struct workload),
		   limit(c->limits.services, MODEL_SERVICES_MAX));
	table_init(&m->containers, sizeof(((struct container *)0)->id), sizeof(struct container),
		   limit(c->limits.services, MODEL_SERVICES_MAX));
	table_init(&m->edges, sizeof(struct edge_key), sizeof(struct edge),
		   limit(c->limits.edges, MODEL_EDGES_MAX));
	table_init(&m->listeners, sizeof(struct kilter_listener_key), sizeof(struct listener),
		   KILTER_LISTENERS_MAX);
	table_init(&m->ports, sizeof(uint32_t), sizeof(struct port), 65536);
	m->clock.tick_ns = c->tick_ns;
	memcpy(m->runtime_root, c->runtime_root, sizeof(m->runtime_root));
	err = cgroup_resolver_new(&m->resolver);
	if (!err)
		err = dns_new(&m->dns);
	if (err) {
		model_free(&m);
		return err;
	}
	m->stat = (struct selfstat){.name = "kilter_model_overflow_total",
				    .help = "Observations that found no room in the model.",
				    .type = SELFSTAT_COUNTER,
				    .collect = stat_overflow,
				    .ctx = m};
	selfstat_register(&m->stat);
	m->labels_stat = (struct selfstat){
	    .name = "kilter_labels_unread_total",
	    .help = "Containers whose runtime's file could not be read for labels.",
	    .type = SELFSTAT_COUNTER,
	    .collect = stat_labels,
	    .ctx = m};
	selfstat_register(&m->labels_stat);
	*ret = m;
	return 0;
}

/* To its workloads. */
static void container_tell(const struct container *c)
{
	for (struct workload *w = c->first; w; w = w->next) {
		w->pub.labels = c->labels;
		w->pub.labels_version = c->labels_version;
		w->pub.labels_pending = c->pending;
	}
}

/* The runtime's come first; what only a file has stays. Takes l. */
static void on_found(void *ctx, const char *id, struct labels *l)
{
	struct model *m = ctx;
	char key[sizeof(((struct container *)0)->id)] = {0};
	struct labels *all = l ? labels_new() : NULL;
	struct container *c;

	memcpy(key, id, strlen(id));
	c = table_find(&m->containers, key);
	if (c) {
		c->pending = false;
		for (const char *k = NULL; all && (k = labels_next(l, k));)
			labels_add(all, k, labels_value(k));
		for (const char *k = NULL; all && (k = labels_next(c->labels, k));)
			labels_add(all, k, labels_value(k));
		if (all) {
			m->overflow[OVER_LABELS] += l->dropped + all->dropped;
			labels_free(&c->labels);
			c->labels = labels_copy(all);
			c->labels_version = ++m->labels_version;
		}
		container_tell(c);
	}
	labels_free(&all);
	labels_free(&l);
}

int model_ask_runtime(struct model *m, struct loop *l, const char *endpoint)
{
	return cri_new(&m->cri, l, endpoint, on_found, m);
}

const struct cri *model_runtime(const struct model *m)
{
	return m->cri;
}

int model_keep_names(struct model *m, const char *file)
{
	return cgroup_resolver_keep(m->resolver, file);
}

static void workload_windows_free(struct workload *w)
{
	window_red_free(&w->red[0]);
	window_red_free(&w->red[1]);
	window_tcp_free(&w->tcp);
}

static void edge_remove(struct model *m, struct edge *e)
{
	window_red_free(&e->red);
	window_tcp_free(&e->tcp);
	table_remove(&m->edges, e);
}

void model_free(struct model **mp)
{
	struct model *m = *mp;
	struct id_route *r;
	struct container *c;
	struct workload *w;
	struct edge *e;
	uint32_t pos = 0;

	if (!m)
		return;
	cri_free(&m->cri);
	if (m->stat.collect)
		selfstat_unregister(&m->stat);
	if (m->labels_stat.collect)
		selfstat_unregister(&m->labels_stat);
	while ((w = table_next(&m->workloads, &pos)))
		workload_windows_free(w);
	for (pos = 0; (c = table_next(&m->containers, &pos));)
		labels_free(&c->labels);
	for (pos = 0; (e = table_next(&m->edges, &pos));)
		edge_remove(m, e);
	for (pos = 0; (r = table_next(&m->routes, &pos));)
		free(r->text);
	table_done(&m->ids);
	table_done(&m->peers);
	table_done(&m->routes);
	table_done(&m->workloads);
	table_done(&m->containers);
	table_done(&m->edges);
	table_done(&m->listeners);
	table_done(&m->ports);
	cgroup_resolver_free(&m->resolver);
	dns_free(&m->dns);
	free(m->addresses);
	free(m);
	*mp = NULL;
}

/* Naming. */

static void printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || (unsigned char)*s >= 0x7f)
			*s = '?';
}

static void identify(struct model *m, const struct kilter_workload *info,
		     struct model_workload *ret)
{
	struct cgroup_identity id;
	const char *exe;

	memset(ret, 0, sizeof(*ret));
	snprintf(ret->exe, sizeof(ret->exe), "%.*s", (int)sizeof(info->key.exe) - 1, info->key.exe);
	snprintf(ret->comm, sizeof(ret->comm), "%.*s", (int)sizeof(info->comm) - 1, info->comm);
	printable(ret->exe);
	printable(ret->comm);
	ret->cgroup_id = info->key.cgroup_id;
	ret->pid = info->pid;
	if (cgroup_resolve(m->resolver, info->key.cgroup_id, info->pid, ret->cgroup_path))
		ret->cgroup_path[0] = '\0';
	printable(ret->cgroup_path);
	cgroup_parse(ret->cgroup_path, &id);
	snprintf(ret->container_id, sizeof(ret->container_id), "%s", id.container_id);
	snprintf(ret->pod_uid, sizeof(ret->pod_uid), "%s", id.pod_uid);
	snprintf(ret->unit, sizeof(ret->unit), "%s", id.unit);
	exe = ret->exe[0] ? ret->exe : ret->comm[0] ? ret->comm : "unknown";
	switch (id.kind) {
	case CGROUP_CONTAINER:
		snprintf(ret->kind, sizeof(ret->kind), "container");
		snprintf(ret->name, sizeof(ret->name), "%s@%.*s", exe,
			 strlen(id.container_id) == 64 ? MODEL_ID_HEX : 72, id.container_id);
		break;
	case CGROUP_UNIT:
		snprintf(ret->kind, sizeof(ret->kind), "unit");
		snprintf(ret->name, sizeof(ret->name), "%s", id.unit);
		break;
	case CGROUP_OTHER:
		snprintf(ret->kind, sizeof(ret->kind), "executable");
		snprintf(ret->name, sizeof(ret->name), "%s", exe);
		break;
	}
}

/* From its files; what is in none is asked for. */
static void container_read(struct model *m, struct container *c)
{
	int err = m->runtime_root[0] ? labels_read(m->runtime_root, c->id, &c->labels) : -ENOENT;

	if (err && err != -ENOENT)
		m->labels_unread++;
	if (c->labels) {
		m->overflow[OVER_LABELS] += c->labels->dropped;
		c->labels_version = ++m->labels_version;
	}
	if (m->cri && !c->asked && (!c->labels || c->labels->partial)) {
		err = cri_want(m->cri, c->id);
		c->pending = c->asked = !err || err == -EEXIST;
	}
}

/* Another executable of the container may have been seen before: a file is read once, and the
 * runtime asked once. */
static void container_join(struct model *m, struct workload *w)
{
	char key[sizeof(((struct container *)0)->id)] = {0};
	struct container *c;

	if (!w->pub.container_id[0] || (!m->runtime_root[0] && !m->cri))
		return;
	memcpy(key, w->pub.container_id, strlen(w->pub.container_id));
	c = table_find(&m->containers, key);
	if (!c)
		c = table_add(&m->containers, key);
	if (!c) /* as many as workloads: only without memory */
		return;
	w->container = c;
	w->next = c->first;
	c->first = w;
	if (!c->labels && !c->pending)
		container_read(m, c);
	container_tell(c);
}

static void container_leave(struct model *m, struct workload *w)
{
	struct container *c = w->container;
	struct workload **at;

	if (!c)
		return;
	for (at = &c->first; *at != w; at = &(*at)->next)
		;
	*at = w->next;
	if (c->first)
		return;
	labels_free(&c->labels);
	table_remove(&m->containers, c);
}

static struct workload *make_room(struct model *m)
{
	struct workload *w, *oldest = NULL;
	struct id_workload *i;
	struct port *p;
	struct edge *e;
	uint32_t pos = 0;

	while ((w = table_next(&m->workloads, &pos)))
		if (!w->pub.visible && (!oldest || w->pub.last_seen_ns < oldest->pub.last_seen_ns))
			oldest = w;
	if (!oldest)
		return NULL;
	for (pos = 0; (i = table_next(&m->ids, &pos));)
		if (i->w == oldest)
			i->w = NULL;
	for (pos = 0; (e = table_next(&m->edges, &pos));)
		if (e->pub.caller == &oldest->pub)
			edge_remove(m, e);
	/* Its number is given to another, who does not serve its ports. */
	for (pos = 0; (p = table_next(&m->ports, &pos));)
		if (p->workload == oldest->pub.index)
			table_remove(&m->ports, p);
	for (pos = 0; (e = table_next(&m->edges, &pos));)
		if (e->pub.callee == &oldest->pub)
			e->pub.callee = NULL;
	workload_windows_free(oldest);
	container_leave(m, oldest);
	table_remove(&m->workloads, oldest);
	return oldest;
}

static struct workload *workload_resolve(struct model *m, struct id_workload *i)
{
	struct model_workload pub;
	char key[sizeof(((struct workload *)0)->key)] = {0};
	struct workload *w;

	if (i->w)
		return i->w;
	identify(m, &i->info, &pub);
	memcpy(key, pub.name, strlen(pub.name));
	w = table_find(&m->workloads, key);
	if (!w) {
		w = table_add(&m->workloads, key);
		if (!w && make_room(m))
			w = table_add(&m->workloads, key);
		if (!w) {
			m->overflow[OVER_WORKLOADS]++;
			return NULL;
		}
		w->pub = pub;
		container_join(m, w);
		w->pub.index = w->node.number;
		w->pub.last_seen_ns = m->clock.now_ns;
	}
	i->w = w;
	return w;
}

static struct workload *workload_seen(struct model *m, __u32 id)
{
	struct id_workload *i = table_find(&m->ids, &id);
	struct workload *w = i ? workload_resolve(m, i) : NULL;

	if (w) {
		w->pub.visible = true;
		w->pub.last_seen_ns = m->clock.now_ns;
	}
	return w;
}

void model_add_workload_id(void *mv, __u32 id, const struct kilter_workload *info)
{
	struct model *m = mv;
	struct id_workload *i = table_find(&m->ids, &id);

	if (i)
		return;
	i = table_add(&m->ids, &id);
	if (!i) {
		m->overflow[OVER_WORKLOADS]++;
		return;
	}
	i->info = *info;
	/* Named now, while its cgroup is there to ask; shown once it serves, calls or listens: a
	 * node executes many programs that never touch the network. */
	workload_resolve(m, i);
}

void model_add_peer_id(void *mv, __u32 id, const struct kilter_peer *p)
{
	struct model *m = mv;
	struct id_peer *e = table_find(&m->peers, &id);

	if (!e)
		e = table_add(&m->peers, &id);
	if (e)
		e->peer = *p;
	else
		m->overflow[OVER_PEERS]++;
}

void model_add_route_id(void *mv, __u32 id, const struct kilter_route *r)
{
	struct model *m = mv;
	char text[ROUTE_TEXT_MAX];
	struct id_route *e;

	if (table_find(&m->routes, &id))
		return;
	route_text(r->path, r->path_len < sizeof(r->path) ? r->path_len : sizeof(r->path), text);
	e = table_add(&m->routes, &id);
	if (e)
		e->text = strdup(text);
	if (!e || !e->text)
		m->overflow[OVER_ROUTES]++;
}

/* Edges and ports. */

static void port_served(struct model *m, const struct workload *w, uint32_t peer)
{
	const struct kilter_peer *p = model_peer_by_id(m, peer);
	struct port *e;
	uint32_t key;

	if (!p || p->family != KILTER_FAMILY_LOCAL)
		return;
	key = ntohs(p->port_be);
	e = table_find(&m->ports, &key);
	if (!e) {
		e = table_add(&m->ports, &key);
		if (!e)
			return;
		e->workload = w->pub.index;
	}
	if (e->workload != w->pub.index) {
		if (m->clock.now_ns - e->seen_ns < 2 * m->clock.tick_ns)
			e->contested_ns = m->clock.now_ns;
		else
			e->workload = w->pub.index;
	}
	e->seen_ns = m->clock.now_ns;
}

static bool is_local_address(const struct model *m, const struct kilter_peer *p)
{
	static const uint8_t loopback6[16] = {[15] = 1};

	if (p->family == KILTER_FAMILY_V4 && p->addr[0] == 127)
		return true;
	if (p->family == KILTER_FAMILY_V6 && !memcmp(p->addr, loopback6, 16))
		return true;
	for (unsigned int i = 0; i < m->addresses_count; i++)
		if (m->addresses[i].family == p->family &&
		    !memcmp(m->addresses[i].addr, p->addr, 16))
			return true;
	return false;
}

static void edge_resolve(struct model *m, struct edge *e)
{
	uint32_t key = ntohs(e->pub.destination.port_be);
	const struct workload *w;
	const struct port *p;

	e->pub.callee = NULL;
	if (!is_local_address(m, &e->pub.destination))
		return;
	p = table_find(&m->ports, &key);
	if (!p || (p->contested_ns && m->clock.now_ns - p->contested_ns < MODEL_FORGET_NS))
		return;
	w = table_at(&m->workloads, p->workload);
	e->pub.callee = w ? &w->pub : NULL;
}

/* To the front; what was in front of it moves back by one, and the last one goes when it is new. */
static void id_used(uint32_t *ids, unsigned int n, uint32_t id)
{
	unsigned int at = 0;

	while (at < n - 1 && ids[at] && ids[at] != id)
		at++;
	memmove(ids + 1, ids, at * sizeof(*ids));
	ids[0] = id;
}

static struct edge *edge_seen(struct model *m, const struct workload *w, __u32 id, __u32 peer)
{
	struct edge_key key = {.workload = w->pub.index, .peer = peer};
	const struct kilter_peer *p = model_peer_by_id(m, peer);
	struct edge *e;

	if (!peer || !p || p->family == KILTER_FAMILY_LOCAL)
		return NULL;
	e = table_find(&m->edges, &key);
	if (!e) {
		e = table_add(&m->edges, &key);
		if (!e) {
			m->overflow[OVER_EDGES]++;
			return NULL;
		}
		e->pub.caller = &w->pub;
		e->pub.peer = peer;
		e->pub.destination = *p;
		model_peer_format(p, e->pub.destination_text);
		e->pub.index = e->node.number;
	}
	e->pub.last_seen_ns = m->clock.now_ns;
	id_used(e->pub.workload_ids, sizeof(e->pub.workload_ids) / sizeof(e->pub.workload_ids[0]),
		id);
	return e;
}

static void red_add(struct model *m, struct window_red **w, const struct window_red_delta *d)
{
	if ((!*w && window_red_new(w)) || window_red_add(*w, d))
		m->overflow[OVER_WINDOWS]++;
}

static void tcp_add(struct model *m, struct window_tcp **w, const struct kilter_conn *d,
		    bool client)
{
	if ((!*w && window_tcp_new(w)) || window_tcp_add(*w, d, client))
		m->overflow[OVER_WINDOWS]++;
}

void model_add_requests(void *mv, const struct kilter_series_key *k,
			const struct kilter_series *delta, bool backlog)
{
	struct window_red_delta d = {.sum_ns = delta->sum_ns, .exp = delta->exp};
	struct model *m = mv;
	struct workload *w = workload_seen(m, k->workload);
	bool client = k->role == KILTER_ROLE_CLIENT;
	struct edge *e = NULL;

	if (!w || (k->role != KILTER_ROLE_SERVER && !client))
		return;
	if (client)
		e = edge_seen(m, w, k->workload, k->peer);
	else
		port_served(m, w, k->peer);
	if (backlog)
		return;
	for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
		d.requests += delta->classic[i];
	if (kilter_status_is_error(k->status) || k->error != KILTER_REQ_OK)
		d.errors = d.requests;
	red_add(m, &w->red[client], &d);
	if (e)
		red_add(m, &e->red, &d);
}

void model_add_conns(void *mv, const struct kilter_conn_key *k, const struct kilter_conn *delta,
		     bool backlog)
{
	struct model *m = mv;
	struct workload *w = workload_seen(m, k->workload);
	int64_t open = (int64_t)(delta->opened + delta->adopted - delta->closed);
	bool client = k->role == KILTER_ROLE_CLIENT;
	struct edge *e = NULL;

	if (!w)
		return;
	if (client)
		e = edge_seen(m, w, k->workload, k->peer);
	else if (k->role == KILTER_ROLE_SERVER)
		port_served(m, w, k->peer);
	w->open += open;
	w->pub.undecoded += delta->undecoded;
	if (e)
		e->open += open;
	if (backlog)
		return;
	tcp_add(m, &w->tcp, delta, client);
	if (e)
		tcp_add(m, &e->tcp, delta, client);
}

void model_set_listener(void *mv, const struct kilter_listener_key *k,
			const struct kilter_listener *now)
{
	struct model *m = mv;
	struct workload *w = workload_seen(m, k->workload);
	struct listener *l = table_find(&m->listeners, k);

	if (!l)
		l = table_add(&m->listeners, k);
	if (!l) {
		m->overflow[OVER_LISTENERS]++;
		return;
	}
	l->value = *now;
	l->seen_ns = m->clock.now_ns;
	if (w)
		port_served(m, w, k->peer);
}

void model_set_incomplete(struct model *m, bool incomplete)
{
	m->incomplete = incomplete;
}

bool model_incomplete(const struct model *m)
{
	return m->incomplete;
}

/* Time. */

static void read_addresses(struct model *m)
{
	struct ifaddrs *list, *i;
	unsigned int n = 0;

	if (getifaddrs(&list))
		return; /* the last known ones hold */
	if (!m->addresses)
		m->addresses = calloc(MODEL_ADDRESSES_MAX, sizeof(*m->addresses));
	for (i = list; m->addresses && i && n < MODEL_ADDRESSES_MAX; i = i->ifa_next) {
		struct address *a = &m->addresses[n];

		if (!i->ifa_addr)
			continue;
		memset(a, 0, sizeof(*a));
		if (i->ifa_addr->sa_family == AF_INET) {
			struct sockaddr_in sin;

			memcpy(&sin, i->ifa_addr, sizeof(sin));
			memcpy(a->addr, &sin.sin_addr, 4);
			a->family = KILTER_FAMILY_V4;
			n++;
		} else if (i->ifa_addr->sa_family == AF_INET6) {
			struct sockaddr_in6 sin6;

			memcpy(&sin6, i->ifa_addr, sizeof(sin6));
			memcpy(a->addr, &sin6.sin6_addr, 16);
			a->family = KILTER_FAMILY_V6;
			n++;
		}
	}
	m->addresses_count = n;
	freeifaddrs(list);
}

static bool forgotten(const struct model *m, uint64_t seen_ns)
{
	return m->clock.now_ns > seen_ns && m->clock.now_ns - seen_ns > MODEL_FORGET_NS;
}

static void settle_workload(struct model *m, struct workload *w)
{
	for (int role = 0; role < 2; role++)
		if (w->red[role] && window_red_settle(w->red[role], &m->clock))
			m->overflow[OVER_WINDOWS]++;
	if (w->tcp)
		window_tcp_settle(w->tcp, &m->clock);
	w->pub.open_connections = w->open > 0 ? (uint64_t)w->open : 0;
	if (w->pub.visible && w->open <= 0 && forgotten(m, w->pub.last_seen_ns)) {
		w->pub.visible = false;
		workload_windows_free(w);
	}
}

void model_tick(struct model *m, uint64_t boot_ns)
{
	struct listener *l;
	struct workload *w;
	struct edge *e;
	uint32_t pos = 0;

	m->fed_since_ns = m->clock.now_ns;
	window_clock_tick(&m->clock, boot_ns);
	if (!m->addresses_ns || boot_ns - m->addresses_ns >= MODEL_ADDRESSES_NS) {
		read_addresses(m);
		m->addresses_ns = boot_ns;
	}
	while ((w = table_next(&m->workloads, &pos))) {
		if (!w->pub.last_seen_ns) /* seen before the first tick */
			w->pub.last_seen_ns = boot_ns;
		settle_workload(m, w);
	}
	for (pos = 0; (l = table_next(&m->listeners, &pos));)
		if (l->seen_ns && forgotten(m, l->seen_ns))
			table_remove(&m->listeners, l);
	for (pos = 0; (e = table_next(&m->edges, &pos));) {
		if (!e->pub.last_seen_ns)
			e->pub.last_seen_ns = boot_ns;
		if (e->open <= 0 && forgotten(m, e->pub.last_seen_ns)) {
			edge_remove(m, e);
			continue;
		}
		if (e->red && window_red_settle(e->red, &m->clock))
			m->overflow[OVER_WINDOWS]++;
		if (e->tcp)
			window_tcp_settle(e->tcp, &m->clock);
		e->pub.open_connections = e->open > 0 ? (uint64_t)e->open : 0;
		edge_resolve(m, e);
	}
}

/* Reading. */

static const struct workload *from_pub(const struct model_workload *w)
{
	return (const struct workload *)(const void *)((const char *)w -
						       offsetof(struct workload, pub));
}

static const struct edge *from_edge(const struct model_edge *e)
{
	return (const struct edge *)(const void *)((const char *)e - offsetof(struct edge, pub));
}

void model_each_workload(struct model *m, void (*fn)(void *ctx, const struct model_workload *w),
			 void *ctx)
{
	const struct workload *w;
	uint32_t pos = 0;

	while ((w = table_next(&m->workloads, &pos)))
		if (w->pub.visible)
			fn(ctx, &w->pub);
}

void model_each_edge(struct model *m, void (*fn)(void *ctx, const struct model_edge *e), void *ctx)
{
	const struct edge *e;
	uint32_t pos = 0;

	while ((e = table_next(&m->edges, &pos)))
		fn(ctx, &e->pub);
}

void model_each_listener(struct model *m, void (*fn)(void *ctx, const struct model_listener *l),
			 void *ctx)
{
	const struct listener *l;
	uint32_t pos = 0;

	while ((l = table_next(&m->listeners, &pos))) {
		const struct kilter_peer *p = model_peer_by_id(m, l->key.peer);
		struct model_listener out = {
		    .workload = model_workload_by_id(m, l->key.workload),
		    .queue_length = l->value.queue_length,
		    .queue_limit = l->value.queue_limit,
		    .queue_peak = l->value.queue_peak,
		    .overflows = l->value.overflows,
		    .updated_ns = l->value.updated_ns,
		};

		/* A closed one leaves the kernel's map; whose port it was stays known a while. */
		if (!p || !out.workload || l->seen_ns < m->fed_since_ns)
			continue;
		out.port = ntohs(p->port_be);
		fn(ctx, &out);
	}
}

void model_workload_red(const struct model *m, const struct model_workload *w, uint8_t role,
			enum model_span span, struct model_red *ret)
{
	window_red_read(from_pub(w)->red[role == KILTER_ROLE_CLIENT], &m->clock, span, ret);
}

void model_workload_tcp(const struct model *m, const struct model_workload *w, enum model_span span,
			struct model_tcp *ret)
{
	window_tcp_read(from_pub(w)->tcp, &m->clock, span, ret);
}

void model_edge_red(const struct model *m, const struct model_edge *e, enum model_span span,
		    struct model_red *ret)
{
	window_red_read(from_edge(e)->red, &m->clock, span, ret);
}

void model_edge_tcp(const struct model *m, const struct model_edge *e, enum model_span span,
		    struct model_tcp *ret)
{
	window_tcp_read(from_edge(e)->tcp, &m->clock, span, ret);
}

const struct model_workload *model_workload_by_id(const struct model *m, uint32_t id)
{
	const struct id_workload *i = table_find(&m->ids, &id);

	return i && i->w ? &i->w->pub : NULL;
}

const char *model_route_text(const struct model *m, uint32_t id)
{
	const struct id_route *r = id ? table_find(&m->routes, &id) : NULL;

	return r && r->text ? r->text : "";
}

const struct kilter_peer *model_peer_by_id(const struct model *m, uint32_t id)
{
	const struct id_peer *p = table_find(&m->peers, &id);

	return p ? &p->peer : NULL;
}

char *model_peer_format(const struct kilter_peer *p, char buf[static 64])
{
	char addr[INET6_ADDRSTRLEN] = "";
	const char *scheme = p->transport == KILTER_TRANSPORT_UDP ? "udp://" : "";
	unsigned int port = ntohs(p->port_be);

	if (p->family == KILTER_FAMILY_V4) {
		inet_ntop(AF_INET, p->addr, addr, sizeof(addr));
		snprintf(buf, 64, "%s%s:%u", scheme, addr, port);
	} else if (p->family == KILTER_FAMILY_V6) {
		inet_ntop(AF_INET6, p->addr, addr, sizeof(addr));
		snprintf(buf, 64, "%s[%s]:%u", scheme, addr, port);
	} else {
		snprintf(buf, 64, ":%u", port);
	}
	return buf;
}

struct dns *model_dns(const struct model *m)
{
	return m->dns;
}
