// SPDX-License-Identifier: Apache-2.0
#include "export/prometheus.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/grpc.h"
#include "export/exposition.h"
#include "guard/guard.h"

struct prometheus {
	struct exposition x;
	const struct snapshot *s;
};

static const char *const classic_text[KILTER_CLASSIC_BOUNDS] = {
    "0.001", "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
    "0.5",   "0.75",  "1",    "2.5",   "5",    "7.5",	"10"};
static const char *const fine_text[KILTER_FINE_BOUNDS] = {
    "1e-06",  "2.5e-06", "5e-06", "1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025",
    "0.0005", "0.001",	 "0.005", "0.025", "0.1",     "0.5",   "2.5"};
static const char *const methods[KILTER_METHOD_MAX] = {
    "_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

static const char *text(const struct prometheus *r, snap_str str)
{
	return snapshot_text(r->s, str);
}

static const char *service(const struct prometheus *r, uint32_t row)
{
	return row < r->s->counts[SNAP_WORKLOADS]
		   ? text(r, snapshot_rows(r->s, SNAP_WORKLOADS, struct snap_workload)[row].name)
		   : "unknown";
}

/* A service may be in a pod: what else identifies it. */
static void label_service(struct prometheus *r, uint32_t row)
{
	exposition_row(&r->x);
	exposition_label(&r->x, "service_name", service(r, row));
}

/* The rows of the family under way that are this piece's. */
#define EACH(r, table, type, var)                                                            \
	for (const type *var##_rows = snapshot_rows((r)->s, table, type),                    \
			*var##_end = var##_rows ? var##_rows + (r)->s->counts[table] : NULL, \
			*var = var##_rows ? var##_rows + exposition_first(&(r)->x) : NULL;   \
	     var != var##_end && exposition_goes_on(&(r)->x, (size_t)(var - var##_rows)); var++)

/* error_type of a request without a whole response. */
static const char *unanswered(const struct snap_series *s)
{
	return s->error == KILTER_REQ_RESET ? "reset" : "closed";
}

static void http_labels(struct prometheus *r, const struct snap_series *s)
{
	char status[8];
	const char *route = text(r, s->route), *address = text(r, s->address);
	bool client = s->role == KILTER_ROLE_CLIENT;
	unsigned int code = s->status;

	snprintf(status, sizeof(status), "%u", code);
	label_service(r, s->workload);
	if (s->overflow) { /* OpenTelemetry metrics SDK, "Overflow attribute" */
		exposition_label(&r->x, "otel_metric_overflow", "true");
		snprintf(status, sizeof(status), "%uxx", code);
		code *= 100;
	}
	exposition_label(&r->x, "http_request_method",
			 s->method < KILTER_METHOD_MAX ? methods[s->method] : methods[0]);
	if (s->status)
		exposition_label(&r->x, "http_response_status_code", status);
	if (*route)
		exposition_label(&r->x, "url_template", route);
	if (!client)
		exposition_label(&r->x, "url_scheme", "http");
	if (client && *address)
		exposition_label(&r->x, "server_address", address);
	if (s->port)
		exposition_label_u64(&r->x, "server_port", s->port);
	/* Of HTTP/1 the kernel keeps no version: 1.0 and 1.1 are one series. */
	if (s->protocol == KILTER_PROTO_HTTP2)
		exposition_label(&r->x, "network_protocol_version", "2");
	if (s->error)
		exposition_label(&r->x, "error_type", unanswered(s));
	else if (code >= (client ? 400 : 500))
		exposition_label(&r->x, "error_type", status);
}

/* Which codes are errors: OpenTelemetry, semantic conventions for gRPC. */
static void rpc_labels(struct prometheus *r, const struct snap_series *s)
{
	const char *route = text(r, s->route), *address = text(r, s->address);
	bool client = s->role == KILTER_ROLE_CLIENT;
	const char *status = s->status < KILTER_STATUS_GRPC
				 ? NULL
				 : grpc_code_str(s->status - (unsigned int)KILTER_STATUS_GRPC);

	label_service(r, s->workload);
	exposition_label(&r->x, "rpc_system_name", "grpc");
	if (*route)
		exposition_label(&r->x, "rpc_method", route);
	if (status)
		exposition_label(&r->x, "rpc_response_status_code", status);
	if (client && *address)
		exposition_label(&r->x, "server_address", address);
	if (s->port)
		exposition_label_u64(&r->x, "server_port", s->port);
	if (s->error)
		exposition_label(&r->x, "error_type", unanswered(s));
	else if (status &&
		 (client ? s->status != KILTER_STATUS_GRPC : kilter_status_is_error(s->status)))
		exposition_label(&r->x, "error_type", status);
}

static void requests(struct prometheus *r, bool rpc, enum kilter_role role, const char *name,
		     const char *help)
{
	if (!exposition_family(&r->x, name, "histogram", help))
		return;
	EACH(r, SNAP_SERIES, struct snap_series, s)
	{
		if (s->role != role || (s->protocol == KILTER_PROTO_GRPC) != rpc)
			continue;
		if (rpc)
			rpc_labels(r, s);
		else
			http_labels(r, s);
		exposition_histogram(&r->x, s->classic, classic_text, KILTER_CLASSIC_BOUNDS,
				     s->sum_ns);
	}
}

static void conn_labels(struct prometheus *r, const struct snap_conn *c)
{
	const char *address = text(r, c->address);

	label_service(r, c->workload);
	exposition_label(&r->x, "role", c->role == KILTER_ROLE_SERVER ? "server" : "client");
	if (*address)
		exposition_label(&r->x, "server_address", address);
	if (c->port)
		exposition_label_u64(&r->x, "server_port", c->port);
}

static void conn_total(struct prometheus *r, const char *name, const char *help, size_t offset)
{
	if (!exposition_family(&r->x, name, "counter", help))
		return;
	EACH(r, SNAP_CONNS, struct snap_conn, c)
	{
		uint64_t v;

		memcpy(&v, (const char *)&c->total + offset, sizeof(v));
		conn_labels(r, c);
		exposition_u64(&r->x, v);
	}
}

static void conn_directions(struct prometheus *r, const char *name, const char *help, size_t in,
			    size_t out)
{
	if (!exposition_family(&r->x, name, "counter", help))
		return;
	EACH(r, SNAP_CONNS, struct snap_conn, c)
	{
		uint64_t v;

		conn_labels(r, c);
		exposition_label(&r->x, "direction", "in");
		memcpy(&v, (const char *)&c->total + in, sizeof(v));
		exposition_u64(&r->x, v);
		conn_labels(r, c);
		exposition_label(&r->x, "direction", "out");
		memcpy(&v, (const char *)&c->total + out, sizeof(v));
		exposition_u64(&r->x, v);
	}
}

#define CONN(field) offsetof(struct kilter_conn, field)

static void tcp(struct prometheus *r)
{
	static const char *const failures[KILTER_CONNECT_FAILURES] = {
	    "refused", "reset", "timed_out", "unreachable", "other"};

	conn_total(r, "kilter_tcp_connections_opened_total", "TCP connections established.",
		   CONN(opened));
	conn_total(r, "kilter_tcp_connections_closed_total", "TCP connections that ended.",
		   CONN(closed));
	if (exposition_family(&r->x, "kilter_tcp_connections_open", "gauge",
			      "TCP connections open now."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			uint64_t begun = c->total.opened + c->total.adopted;

			conn_labels(r, c);
			exposition_u64(&r->x,
				       begun > c->total.closed ? begun - c->total.closed : 0);
		}
	if (exposition_family(&r->x, "kilter_tcp_connect_duration_seconds", "histogram",
			      "Time from SYN to ESTABLISHED, client side."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			if (c->role != KILTER_ROLE_CLIENT)
				continue;
			conn_labels(r, c);
			exposition_histogram(&r->x, c->total.connect_hist, fine_text,
					     KILTER_FINE_BOUNDS, c->total.connect_sum_ns);
		}
	if (exposition_family(&r->x, "kilter_tcp_connect_failures_total", "counter",
			      "Attempts to connect that failed, by reason."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			for (int i = 0;
			     c->role == KILTER_ROLE_CLIENT && i < KILTER_CONNECT_FAILURES; i++) {
				conn_labels(r, c);
				exposition_label(&r->x, "reason", failures[i]);
				exposition_u64(&r->x, c->total.failed[i]);
			}
		}
	if (exposition_family(
		&r->x, "kilter_tcp_rtt_seconds", "histogram",
		"Smoothed round-trip time, a sample a second of a connection at most."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			conn_labels(r, c);
			exposition_histogram(&r->x, c->total.rtt_hist, fine_text,
					     KILTER_FINE_BOUNDS, c->total.rtt_sum_ns);
		}
	conn_total(r, "kilter_tcp_retransmits_total", "Segments sent again.", CONN(retransmits));
	conn_directions(r, "kilter_tcp_resets_total", "Connections reset, by who reset them.",
			CONN(resets_in), CONN(resets_out));
	conn_directions(r, "kilter_tcp_bytes_total", "Payload bytes acknowledged.", CONN(bytes_in),
			CONN(bytes_out));
	conn_total(r, "kilter_tcp_undecoded_connections_total",
		   "Connections on which no known protocol was recognised.", CONN(undecoded));
}

static void listeners(struct prometheus *r)
{
	static const struct {
		const char *name, *type, *help;
	} f[] = {{"kilter_tcp_accept_queue_length", "gauge",
		  "Connections waiting for the process to accept them."},
		 {"kilter_tcp_accept_queue_limit", "gauge", "How many may wait."},
		 {"kilter_tcp_accept_queue_overflows_total", "counter",
		  "Connections that found the accept queue full."}};

	for (int i = 0; i < 3; i++) {
		if (!exposition_family(&r->x, f[i].name, f[i].type, f[i].help))
			continue;
		EACH(r, SNAP_LISTENERS, struct snap_listener, l)
		{
			label_service(r, l->workload);
			exposition_label_u64(&r->x, "server_port", l->port);
			exposition_u64(&r->x, i == 0   ? l->queue_length
					      : i == 1 ? l->queue_limit
						       : l->overflows);
		}
	}
}

static void syscalls(struct prometheus *r, const struct snap_node *node)
{
	if (exposition_family(&r->x, "kilter_syscall_duration_seconds", "histogram",
			      "Time in system calls, sampled: see kilter_syscall_sample_ratio."))
		EACH(r, SNAP_SYSCALLS, struct snap_syscall, c)
		{
			label_service(r, c->workload);
			exposition_label(&r->x, "syscall", text(r, c->name));
			exposition_histogram(&r->x, c->total.hist, fine_text, KILTER_FINE_BOUNDS,
					     c->total.sum_ns);
		}
	if (exposition_family(&r->x, "kilter_syscall_errors_total", "counter",
			      "System calls that failed, sampled."))
		EACH(r, SNAP_SYSCALL_ERRORS, struct snap_syscall_error, e)
		{
			label_service(r, e->workload);
			exposition_label(&r->x, "syscall", text(r, e->name));
			exposition_label(&r->x, "errno", text(r, e->err));
			exposition_u64(&r->x, e->total);
		}
	if (node && exposition_family(&r->x, "kilter_syscall_sample_ratio", "gauge",
				      "Share of time in which system calls are measured.")) {
		exposition_row(&r->x);
		exposition_double(&r->x, node->syscall_sample_ratio);
	}
}

static void one_hot(struct prometheus *r, const char *const *states, unsigned int count,
		    const char *state, const char *k1, const char *v1, const char *k2,
		    const char *v2)
{
	for (unsigned int i = 0; i < count; i++) {
		exposition_row(&r->x);
		exposition_label(&r->x, k1, v1);
		if (k2)
			exposition_label(&r->x, k2, v2);
		exposition_label(&r->x, "state", states[i]);
		exposition_u64(&r->x, !strcmp(states[i], state));
	}
}

static void health(struct prometheus *r)
{
	static const char *const states[] = {"unknown", "healthy", "degraded", "unhealthy"};

	if (!exposition_family(&r->x, "kilter_health_state", "gauge",
			       "1 for the state a subject is in."))
		return;
	EACH(r, SNAP_HEALTH, struct snap_health, h)
	one_hot(r, states, 4, text(r, h->state), "kind", text(r, h->kind), "subject",
		text(r, h->name));
}

/* Counters of `count` reasons at this offset of struct snap_circuit. */
static void by_reason(struct prometheus *r, const char *name, const char *help, size_t offset,
		      uint32_t count, const char *(*reason)(uint32_t))
{
	if (!exposition_family(&r->x, name, "counter", help))
		return;
	EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
	{
		for (uint32_t i = 0; i < count; i++) {
			uint64_t v;

			memcpy(&v, (const char *)c + offset + i * sizeof(v), sizeof(v));
			exposition_row(&r->x);
			exposition_label(&r->x, "circuit", text(r, c->name));
			exposition_label(&r->x, "reason", reason(i));
			exposition_u64(&r->x, v);
		}
	}
}

static double limit_rate(const struct snap_circuit *c)
{
	return c->rate_limit;
}

static double limit_rate_used(const struct snap_circuit *c)
{
	return c->rate_fill;
}

static double limit_open(const struct snap_circuit *c)
{
	return c->open;
}

static double limit_max(const struct snap_circuit *c)
{
	return c->max_connections;
}

/* Of circuits that have one. */
static void limits(struct prometheus *r)
{
	static const struct {
		const char *name, *help;
		bool rate;
		double (*value)(const struct snap_circuit *c);
	} rows[] = {
	    {"kilter_limit_rate", "Connects a second that are let through.", true, limit_rate},
	    {"kilter_limit_rate_used_ratio", "Share of the burst that is used up now.", true,
	     limit_rate_used},
	    {"kilter_limit_connections", "Connections open now.", false, limit_open},
	    {"kilter_limit_connections_max", "Connections that may be open.", false, limit_max},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!exposition_family(&r->x, rows[i].name, "gauge", rows[i].help))
			continue;
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			if (rows[i].rate ? c->rate_limit <= 0 : !c->max_connections)
				continue;
			exposition_row(&r->x);
			exposition_label(&r->x, "circuit", text(r, c->name));
			exposition_double(&r->x, rows[i].value(c));
		}
	}
}

static void circuits(struct prometheus *r)
{
	static const char *const states[] = {"closed", "open", "half_open"};
	static const struct {
		const char *name, *help;
		size_t offset;
	} totals[] = {
	    {"kilter_circuit_slow_calls_total",
	     "Requests that took longer than slow_call_duration.",
	     offsetof(struct snap_circuit, slow)},
	    {"kilter_circuit_redirected_total", "Connects sent to the stand-by.",
	     offsetof(struct snap_circuit, redirected)},
	    {"kilter_circuit_connections_closed_total",
	     "Established connections ended because the circuit opened.",
	     offsetof(struct snap_circuit, closed)},
	    {"kilter_circuit_lease_expired_total",
	     "Connects let through because the agent's lease had run out.",
	     offsetof(struct snap_circuit, lease_expired)},
	};

	if (exposition_family(&r->x, "kilter_circuit_state", "gauge",
			      "1 for the state a circuit is in."))
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
	one_hot(r, states, 3, text(r, c->state), "circuit", text(r, c->name), NULL, NULL);
	if (exposition_family(&r->x, "kilter_circuit_transitions_total", "counter",
			      "Changes of state, by the state entered."))
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			for (int i = 0; i < 3; i++) {
				exposition_row(&r->x);
				exposition_label(&r->x, "circuit", text(r, c->name));
				exposition_label(&r->x, "to", states[i]);
				exposition_u64(&r->x, c->transitions[i]);
			}
		}
	by_reason(r, "kilter_circuit_failures_total", "Failures, by what they were.",
		  offsetof(struct snap_circuit, failed), KILTER_FAILURES, guard_failure_str);
	by_reason(r, "kilter_circuit_refused_total", "Connects refused.",
		  offsetof(struct snap_circuit, refused), KILTER_REFUSALS, guard_refusal_str);
	by_reason(r, "kilter_circuit_would_refuse_total",
		  "Connects that enforcing would have refused.",
		  offsetof(struct snap_circuit, would_refuse), KILTER_REFUSALS, guard_refusal_str);
	for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
		if (!exposition_family(&r->x, totals[i].name, "counter", totals[i].help))
			continue;
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			uint64_t v;

			memcpy(&v, (const char *)c + totals[i].offset, sizeof(v));
			exposition_row(&r->x);
			exposition_label(&r->x, "circuit", text(r, c->name));
			exposition_u64(&r->x, v);
		}
	}
}

static void agent(struct prometheus *r, const struct snap_node *node)
{
	exposition_row(&r->x);
	if (node && exposition_family(&r->x, "kilter_ticks_total", "counter", "Ticks done."))
		exposition_u64(&r->x, node->ticks);
	if (node && exposition_family(&r->x, "kilter_ticks_late_total", "counter",
				      "Ticks that began a whole period late."))
		exposition_u64(&r->x, node->ticks_late);
	if (node && exposition_family(&r->x, "kilter_tick_duration_seconds", "gauge",
				      "Duration of the last tick."))
		exposition_seconds(&r->x, node->last_tick_ns);
	if (node &&
	    exposition_family(&r->x, "kilter_ready", "gauge",
			      "1 when every essential probe is attached and a tick was done."))
		exposition_u64(&r->x, node->ready);
	if (node &&
	    exposition_family(&r->x, "kilter_build_info", "gauge", "1, with the version.")) {
		exposition_label(&r->x, "version", text(r, node->version));
		exposition_label(&r->x, "revision", text(r, node->revision));
		exposition_u64(&r->x, 1);
	}
	if (exposition_family(&r->x, "kilter_probe_info", "gauge",
			      "1 for each probe, with what it runs on."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "probe", text(r, p->name));
			exposition_label(&r->x, "version", text(r, p->version));
			exposition_label(&r->x, "tier", text(r, p->tier));
			exposition_u64(&r->x, 1);
		}
	if (exposition_family(&r->x, "kilter_probe_running", "gauge",
			      "1 while a probe is attached."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "probe", text(r, p->name));
			exposition_u64(&r->x, p->running != 0);
		}
	if (exposition_family(&r->x, "kilter_probe_events_total", "counter",
			      "Runs of a probe's programs."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "probe", text(r, p->name));
			exposition_u64(&r->x, p->events);
		}
	if (exposition_family(
		&r->x, "kilter_probe_run_seconds_total", "counter",
		"Time in a probe's programs, as the kernel accounts it; 0 while it does not."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "probe", text(r, p->name));
			exposition_seconds(&r->x, p->run_ns);
		}
	if (exposition_family(&r->x, "kilter_dropped_total", "counter",
			      "What found no room, by place."))
		EACH(r, SNAP_DROPS, struct snap_drop, d)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "where", text(r, d->where));
			exposition_label(&r->x, "reason", text(r, d->reason));
			exposition_u64(&r->x, d->total);
		}
	for (int limit = 0; limit < 2; limit++) {
		if (!exposition_family(
			&r->x, limit ? "kilter_series_limit" : "kilter_series", "gauge",
			limit ? "Entries a kernel map can hold." : "Entries of a kernel map."))
			continue;
		EACH(r, SNAP_MAPS, struct snap_map, m)
		{
			exposition_row(&r->x);
			exposition_label(&r->x, "map", text(r, m->name));
			exposition_u64(&r->x, limit ? m->max_entries : m->entries);
		}
	}
}

/* Two modules may keep samples of one name: they become one family. */
static void selfstats(struct prometheus *r)
{
	const struct snapshot *s = r->s;
	const struct snap_sample *samples = snapshot_rows(s, SNAP_SAMPLES, struct snap_sample);
	const struct snap_metric *metrics = snapshot_rows(s, SNAP_METRICS, struct snap_metric);
	const struct snap_metric *end = metrics + s->counts[SNAP_METRICS];

	for (const struct snap_metric *m = metrics; m != end; m++) {
		const char *name = text(r, m->name);

		if (!*name || !exposition_family(&r->x, name, m->counter ? "counter" : "gauge",
						 text(r, m->help)))
			continue;
		for (const struct snap_metric *same = m; same != end; same++) {
			if (strcmp(text(r, same->name), name))
				continue;
			for (uint32_t i = 0; i < same->count; i++) {
				/* In two steps: both come from outside. */
				if (same->first >= s->counts[SNAP_SAMPLES] ||
				    i >= s->counts[SNAP_SAMPLES] - same->first)
					break;
				exposition_row(&r->x);
				exposition_labels(&r->x, text(r, samples[same->first + i].labels));
				exposition_double(&r->x, samples[same->first + i].value);
			}
		}
	}
}

static void own_families(struct prometheus *r, const struct prometheus_family *own,
			 unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		if (!exposition_family(&r->x, own[i].name, own[i].counter ? "counter" : "gauge",
				       own[i].help))
			continue;
		for (unsigned int k = 0; k < own[i].count; k++) {
			exposition_row(&r->x);
			exposition_label(&r->x, own[i].label, own[i].rows[k].value);
			exposition_u64(&r->x, own[i].rows[k].n);
		}
	}
}

int prometheus_new(struct prometheus **ret, const struct snapshot *s, bool openmetrics)
{
	struct prometheus *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->s = s;
	r->x.openmetrics = openmetrics;
	*ret = r;
	return 0;
}

int prometheus_next(struct prometheus *r, const struct prometheus_family *own,
		    unsigned int own_count, const char **ret, size_t *ret_len)
{
	const struct snap_node *node =
	    r->s->counts[SNAP_NODE] ? snapshot_rows(r->s, SNAP_NODE, struct snap_node) : NULL;

	exposition_begin(&r->x);
	requests(r, false, KILTER_ROLE_SERVER, "http_server_request_duration_seconds",
		 "Duration of HTTP server requests.");
	requests(r, false, KILTER_ROLE_CLIENT, "http_client_request_duration_seconds",
		 "Duration of HTTP client requests.");
	requests(r, true, KILTER_ROLE_SERVER, "rpc_server_call_duration_seconds",
		 "Duration of incoming calls of gRPC.");
	requests(r, true, KILTER_ROLE_CLIENT, "rpc_client_call_duration_seconds",
		 "Duration of outgoing calls of gRPC.");
	tcp(r);
	listeners(r);
	syscalls(r, node);
	health(r);
	circuits(r);
	limits(r);
	agent(r, node);
	own_families(r, own, own_count);
	selfstats(r);
	return exposition_piece(&r->x, ret, ret_len);
}

bool prometheus_done(const struct prometheus *r)
{
	return r->x.done;
}

void prometheus_free(struct prometheus **r)
{
	if (!*r)
		return;
	exposition_free(&(*r)->x);
	free(*r);
	*r = NULL;
}
