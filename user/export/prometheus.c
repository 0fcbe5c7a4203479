// SPDX-License-Identifier: Apache-2.0
/*
 * Formatting is by hand: a scrape of 100,000 series is mostly integers, and printf() would
 * be most of the time. Labels of one row are built once and copied into each line.
 */
#include "export/prometheus.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guard/guard.h"

#define NAME_MAX_BYTES 96
#define NUMBER_MAX     32

struct out {
	char *buf;
	size_t len, cap;
	int err;
};

struct render {
	struct out out, labels;
	const struct snapshot *s;
	bool openmetrics;
	char name[NAME_MAX_BYTES]; /* of the family under way, without _total */
	bool counter;
	/* Where each family's name was written, so that none is written twice. */
	size_t *families;
	unsigned int families_count;
};

static const char *const classic_text[KILTER_CLASSIC_BOUNDS] = {
    "0.001", "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
    "0.5",   "0.75",  "1",    "2.5",   "5",    "7.5",	"10"};
static const char *const fine_text[KILTER_FINE_BOUNDS] = {
    "1e-06",  "2.5e-06", "5e-06", "1e-05", "2.5e-05", "5e-05", "0.0001", "0.00025",
    "0.0005", "0.001",	 "0.005", "0.025", "0.1",     "0.5",   "2.5"};
static const char *const methods[KILTER_METHOD_MAX] = {
    "_OTHER", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};

static char *room(struct out *o, size_t n)
{
	char *buf;
	size_t cap;

	if (o->err)
		return NULL;
	if (o->cap - o->len >= n)
		return o->buf + o->len;
	cap = o->cap ? o->cap : 4096;
	while (cap < o->len + n)
		cap *= 2;
	if (cap > 2 * PROMETHEUS_BYTES_MAX || o->len + n > PROMETHEUS_BYTES_MAX) {
		o->err = -E2BIG;
		return NULL;
	}
	buf = realloc(o->buf, cap);
	if (!buf) {
		o->err = -ENOMEM;
		return NULL;
	}
	o->buf = buf;
	o->cap = cap;
	return buf + o->len;
}

static void put(struct out *o, const char *s, size_t n)
{
	char *at = room(o, n);

	if (at) {
		memcpy(at, s, n);
		o->len += n;
	}
}

static void puts_(struct out *o, const char *s)
{
	put(o, s, strlen(s));
}

static size_t format_u64(uint64_t v, char buf[static 20])
{
	char tmp[20];
	size_t n = 0;

	do {
		tmp[n++] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	for (size_t i = 0; i < n; i++)
		buf[i] = tmp[n - 1 - i];
	return n;
}

static void put_u64(struct out *o, uint64_t v)
{
	char *at = room(o, 20);

	if (at)
		o->len += format_u64(v, at);
}

/* Nanoseconds as exact decimal seconds. */
static void put_seconds(struct out *o, uint64_t ns)
{
	uint64_t frac = ns % 1000000000u;
	char *at = room(o, 32);
	size_t n, digits = 9;

	if (!at)
		return;
	n = format_u64(ns / 1000000000u, at);
	if (frac) {
		at[n++] = '.';
		while (frac % 10 == 0) {
			frac /= 10;
			digits--;
		}
		for (size_t i = digits; i-- > 0; frac /= 10)
			at[n + i] = (char)('0' + frac % 10);
		n += digits;
	}
	o->len += n;
}

size_t prometheus_number(double v, char *buf)
{
	if (isnan(v))
		return (size_t)snprintf(buf, NUMBER_MAX, "NaN");
	if (isinf(v))
		return (size_t)snprintf(buf, NUMBER_MAX, v > 0 ? "+Inf" : "-Inf");
	if (v >= 0 && v < 9e15 && v == floor(v))
		return format_u64((uint64_t)v, buf);
	for (int precision = 6;; precision += precision < 15 ? 9 : 1) {
		int n = snprintf(buf, NUMBER_MAX, "%.*g", precision, v);

		if (precision >= 17 || strtod(buf, NULL) == v)
			return (size_t)n;
	}
}

/* The length of the well-formed UTF-8 sequence at s, 0 when there is none. */
static size_t utf8_len(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		return (s[1] & 0xc0) == 0x80 ? 2 : 0;
	if ((s[0] & 0xf0) == 0xe0) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 ||
		    (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f))
			return 0;
		return 3;
	}
	if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80 ||
		    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

static void put_escaped(struct out *o, const char *s)
{
	size_t n = strlen(s);
	char *at = room(o, 3 * n + 1), *to = at;

	if (!at)
		return;
	while (*s) {
		size_t len;

		if (*s == '\\' || *s == '"' || *s == '\n') {
			*to++ = '\\';
			*to++ = *s == '\n' ? 'n' : *s;
			s++;
			continue;
		}
		len = utf8_len((const unsigned char *)s);
		if (len) {
			memcpy(to, s, len);
			to += len;
			s += len;
		} else {
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
			s++;
		}
	}
	o->len += (size_t)(to - at);
}

static void labels_start(struct render *r)
{
	r->labels.len = 0;
}

static void label(struct render *r, const char *name, const char *value)
{
	if (r->labels.len)
		put(&r->labels, ",", 1);
	puts_(&r->labels, name);
	put(&r->labels, "=\"", 2);
	put_escaped(&r->labels, value);
	put(&r->labels, "\"", 1);
}

static void label_u64(struct render *r, const char *name, uint64_t v)
{
	char buf[24];

	buf[format_u64(v, buf)] = '\0';
	label(r, name, buf);
}

/* False when a family of this name was written already. */
static bool family(struct render *r, const char *name, const char *type, const char *help)
{
	size_t n = strlen(name), *families;

	r->counter = !strcmp(type, "counter");
	if (r->counter && n > 6 && !strcmp(name + n - 6, "_total"))
		n -= 6;
	else if (r->counter && r->openmetrics)
		type = "unknown"; /* a counter's samples must end in _total there */
	if (n >= sizeof(r->name))
		return false;
	memcpy(r->name, name, n);
	r->name[n] = '\0';
	r->counter = r->counter && name[n];
	for (unsigned int i = 0; i < r->families_count; i++)
		if (r->out.buf && !strncmp(r->out.buf + r->families[i], r->name, n) &&
		    (r->out.buf[r->families[i] + n] == ' ' ||
		     !strncmp(r->out.buf + r->families[i] + n, "_total ", 7)))
			return false;
	families = reallocarray(r->families, r->families_count + 1, sizeof(*families));
	if (!families) {
		r->out.err = -ENOMEM;
		return false;
	}
	r->families = families;
	puts_(&r->out, "# HELP ");
	r->families[r->families_count++] = r->out.len;
	puts_(&r->out, r->openmetrics ? r->name : name);
	put(&r->out, " ", 1);
	put_escaped(&r->out, help);
	puts_(&r->out, "\n# TYPE ");
	puts_(&r->out, r->openmetrics ? r->name : name);
	put(&r->out, " ", 1);
	puts_(&r->out, type);
	put(&r->out, "\n", 1);
	return r->out.err == 0;
}

/* name{labels} and the space before the value. */
static void line(struct render *r, const char *suffix)
{
	puts_(&r->out, r->name);
	if (r->counter)
		put(&r->out, "_total", 6);
	puts_(&r->out, suffix);
	if (r->labels.len) {
		put(&r->out, "{", 1);
		put(&r->out, r->labels.buf, r->labels.len);
		put(&r->out, "}", 1);
	}
	put(&r->out, " ", 1);
}

static void sample_u64(struct render *r, uint64_t v)
{
	line(r, "");
	put_u64(&r->out, v);
	put(&r->out, "\n", 1);
}

static void sample_seconds(struct render *r, uint64_t ns)
{
	line(r, "");
	put_seconds(&r->out, ns);
	put(&r->out, "\n", 1);
}

static void sample_double(struct render *r, double v)
{
	char buf[32];

	line(r, "");
	put(&r->out, buf, prometheus_number(v, buf));
	put(&r->out, "\n", 1);
}

/* OpenMetrics wants a bound to look like a float; Prometheus takes both as the same. */
static void put_bound(struct render *r, const char *text)
{
	puts_(&r->out, text);
	if (r->openmetrics && !strpbrk(text, ".e"))
		put(&r->out, ".0", 2);
}

/* buckets: 64-bit counts, which the kernel's headers and ours spell differently. */
static void histogram(struct render *r, const void *buckets, const char *const *bounds,
		      unsigned int bounds_count, uint64_t sum_ns)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i <= bounds_count; i++) {
		uint64_t v;

		memcpy(&v, (const char *)buckets + i * sizeof(v), sizeof(v));
		n += v;
		puts_(&r->out, r->name);
		put(&r->out, "_bucket{", 8);
		put(&r->out, r->labels.buf, r->labels.len);
		if (r->labels.len)
			put(&r->out, ",", 1);
		put(&r->out, "le=\"", 4);
		if (i < bounds_count)
			put_bound(r, bounds[i]);
		else
			put(&r->out, "+Inf", 4);
		put(&r->out, "\"} ", 3);
		put_u64(&r->out, n);
		put(&r->out, "\n", 1);
	}
	line(r, "_sum");
	put_seconds(&r->out, sum_ns);
	put(&r->out, "\n", 1);
	line(r, "_count");
	put_u64(&r->out, n);
	put(&r->out, "\n", 1);
}

static const char *text(const struct render *r, snap_str str)
{
	return snapshot_text(r->s, str);
}

static const char *service(const struct render *r, uint32_t row)
{
	return row < r->s->counts[SNAP_WORKLOADS]
		   ? text(r, snapshot_rows(r->s, SNAP_WORKLOADS, struct snap_workload)[row].name)
		   : "unknown";
}

/* A service may be in a pod: what else identifies it. */
static void label_service(struct render *r, uint32_t row)
{
	labels_start(r);
	label(r, "service_name", service(r, row));
}

#define EACH(r, table, type, var)                                              \
	for (const type *var = snapshot_rows((r)->s, table, type),             \
			*var##_end = var ? var + (r)->s->counts[table] : NULL; \
	     var != var##_end; var++)

static void http_labels(struct render *r, const struct snap_series *s)
{
	char status[8];
	const char *route = text(r, s->route), *address = text(r, s->address);
	bool client = s->role == KILTER_ROLE_CLIENT;
	unsigned int code = s->status;

	snprintf(status, sizeof(status), "%u", code);
	label_service(r, s->workload);
	if (s->overflow) { /* OpenTelemetry metrics SDK, "Overflow attribute" */
		label(r, "otel_metric_overflow", "true");
		snprintf(status, sizeof(status), "%uxx", code);
		code *= 100;
	}
	label(r, "http_request_method",
	      s->method < KILTER_METHOD_MAX ? methods[s->method] : methods[0]);
	if (s->status)
		label(r, "http_response_status_code", status);
	if (*route)
		label(r, "url_template", route);
	if (!client)
		label(r, "url_scheme", "http");
	if (client && *address)
		label(r, "server_address", address);
	if (s->port)
		label_u64(r, "server_port", s->port);
	if (s->error)
		label(r, "error_type", s->error == KILTER_REQ_RESET ? "reset" : "closed");
	else if (code >= (client ? 400 : 500))
		label(r, "error_type", status);
}

static void http(struct render *r, enum kilter_role role, const char *name, const char *help)
{
	if (!family(r, name, "histogram", help))
		return;
	EACH(r, SNAP_SERIES, struct snap_series, s)
	{
		if (s->role != role)
			continue;
		http_labels(r, s);
		histogram(r, s->classic, classic_text, KILTER_CLASSIC_BOUNDS, s->sum_ns);
	}
}

static void conn_labels(struct render *r, const struct snap_conn *c)
{
	const char *address = text(r, c->address);

	label_service(r, c->workload);
	label(r, "role", c->role == KILTER_ROLE_SERVER ? "server" : "client");
	if (*address)
		label(r, "server_address", address);
	if (c->port)
		label_u64(r, "server_port", c->port);
}

static void conn_total(struct render *r, const char *name, const char *help, size_t offset)
{
	if (!family(r, name, "counter", help))
		return;
	EACH(r, SNAP_CONNS, struct snap_conn, c)
	{
		uint64_t v;

		memcpy(&v, (const char *)&c->total + offset, sizeof(v));
		conn_labels(r, c);
		sample_u64(r, v);
	}
}

static void conn_directions(struct render *r, const char *name, const char *help, size_t in,
			    size_t out)
{
	if (!family(r, name, "counter", help))
		return;
	EACH(r, SNAP_CONNS, struct snap_conn, c)
	{
		uint64_t v;

		conn_labels(r, c);
		label(r, "direction", "in");
		memcpy(&v, (const char *)&c->total + in, sizeof(v));
		sample_u64(r, v);
		conn_labels(r, c);
		label(r, "direction", "out");
		memcpy(&v, (const char *)&c->total + out, sizeof(v));
		sample_u64(r, v);
	}
}

#define CONN(field) offsetof(struct kilter_conn, field)

static void tcp(struct render *r)
{
	static const char *const failures[KILTER_CONNECT_FAILURES] = {
	    "refused", "reset", "timed_out", "unreachable", "other"};

	conn_total(r, "kilter_tcp_connections_opened_total", "TCP connections established.",
		   CONN(opened));
	conn_total(r, "kilter_tcp_connections_closed_total", "TCP connections that ended.",
		   CONN(closed));
	if (family(r, "kilter_tcp_connections_open", "gauge", "TCP connections open now."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			uint64_t begun = c->total.opened + c->total.adopted;

			conn_labels(r, c);
			sample_u64(r, begun > c->total.closed ? begun - c->total.closed : 0);
		}
	if (family(r, "kilter_tcp_connect_duration_seconds", "histogram",
		   "Time from SYN to ESTABLISHED, client side."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			if (c->role != KILTER_ROLE_CLIENT)
				continue;
			conn_labels(r, c);
			histogram(r, c->total.connect_hist, fine_text, KILTER_FINE_BOUNDS,
				  c->total.connect_sum_ns);
		}
	if (family(r, "kilter_tcp_connect_failures_total", "counter",
		   "Attempts to connect that failed, by reason."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			for (int i = 0;
			     c->role == KILTER_ROLE_CLIENT && i < KILTER_CONNECT_FAILURES; i++) {
				conn_labels(r, c);
				label(r, "reason", failures[i]);
				sample_u64(r, c->total.failed[i]);
			}
		}
	if (family(r, "kilter_tcp_rtt_seconds", "histogram",
		   "Smoothed round-trip time, a sample a second of a connection at most."))
		EACH(r, SNAP_CONNS, struct snap_conn, c)
		{
			conn_labels(r, c);
			histogram(r, c->total.rtt_hist, fine_text, KILTER_FINE_BOUNDS,
				  c->total.rtt_sum_ns);
		}
	conn_total(r, "kilter_tcp_retransmits_total", "Segments sent again.", CONN(retransmits));
	conn_directions(r, "kilter_tcp_resets_total", "Connections reset, by who reset them.",
			CONN(resets_in), CONN(resets_out));
	conn_directions(r, "kilter_tcp_bytes_total", "Payload bytes acknowledged.", CONN(bytes_in),
			CONN(bytes_out));
	conn_total(r, "kilter_tcp_undecoded_connections_total",
		   "Connections on which no known protocol was recognised.", CONN(undecoded));
}

static void listeners(struct render *r)
{
	static const struct {
		const char *name, *type, *help;
	} f[] = {{"kilter_tcp_accept_queue_length", "gauge",
		  "Connections waiting for the process to accept them."},
		 {"kilter_tcp_accept_queue_limit", "gauge", "How many may wait."},
		 {"kilter_tcp_accept_queue_overflows_total", "counter",
		  "Connections that found the accept queue full."}};

	for (int i = 0; i < 3; i++) {
		if (!family(r, f[i].name, f[i].type, f[i].help))
			continue;
		EACH(r, SNAP_LISTENERS, struct snap_listener, l)
		{
			label_service(r, l->workload);
			label_u64(r, "server_port", l->port);
			sample_u64(r, i == 0   ? l->queue_length
				      : i == 1 ? l->queue_limit
					       : l->overflows);
		}
	}
}

static void syscalls(struct render *r, const struct snap_node *node)
{
	if (family(r, "kilter_syscall_duration_seconds", "histogram",
		   "Time in system calls, sampled: see kilter_syscall_sample_ratio."))
		EACH(r, SNAP_SYSCALLS, struct snap_syscall, c)
		{
			label_service(r, c->workload);
			label(r, "syscall", text(r, c->name));
			histogram(r, c->total.hist, fine_text, KILTER_FINE_BOUNDS, c->total.sum_ns);
		}
	if (family(r, "kilter_syscall_errors_total", "counter",
		   "System calls that failed, sampled."))
		EACH(r, SNAP_SYSCALL_ERRORS, struct snap_syscall_error, e)
		{
			label_service(r, e->workload);
			label(r, "syscall", text(r, e->name));
			label(r, "errno", text(r, e->err));
			sample_u64(r, e->total);
		}
	if (node && family(r, "kilter_syscall_sample_ratio", "gauge",
			   "Share of time in which system calls are measured.")) {
		labels_start(r);
		sample_double(r, node->syscall_sample_ratio);
	}
}

static void one_hot(struct render *r, const char *const *states, unsigned int count,
		    const char *state, const char *k1, const char *v1, const char *k2,
		    const char *v2)
{
	for (unsigned int i = 0; i < count; i++) {
		labels_start(r);
		label(r, k1, v1);
		if (k2)
			label(r, k2, v2);
		label(r, "state", states[i]);
		sample_u64(r, !strcmp(states[i], state));
	}
}

static void health(struct render *r)
{
	static const char *const states[] = {"unknown", "healthy", "degraded", "unhealthy"};

	if (!family(r, "kilter_health_state", "gauge", "1 for the state a subject is in."))
		return;
	EACH(r, SNAP_HEALTH, struct snap_health, h)
	one_hot(r, states, 4, text(r, h->state), "kind", text(r, h->kind), "subject",
		text(r, h->name));
}

static void refusals(struct render *r, const char *name, const char *help, size_t offset)
{
	if (!family(r, name, "counter", help))
		return;
	EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
	{
		uint64_t v[KILTER_REFUSALS];

		memcpy(v, (const char *)c + offset, sizeof(v));
		for (int i = 0; i < KILTER_REFUSALS; i++) {
			labels_start(r);
			label(r, "circuit", text(r, c->name));
			label(r, "reason", guard_refusal_str((uint32_t)i));
			sample_u64(r, v[i]);
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
static void limits(struct render *r)
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
		if (!family(r, rows[i].name, "gauge", rows[i].help))
			continue;
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			if (rows[i].rate ? c->rate_limit <= 0 : !c->max_connections)
				continue;
			labels_start(r);
			label(r, "circuit", text(r, c->name));
			sample_double(r, rows[i].value(c));
		}
	}
}

static void circuits(struct render *r)
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

	if (family(r, "kilter_circuit_state", "gauge", "1 for the state a circuit is in."))
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
	one_hot(r, states, 3, text(r, c->state), "circuit", text(r, c->name), NULL, NULL);
	if (family(r, "kilter_circuit_transitions_total", "counter",
		   "Changes of state, by the state entered."))
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			for (int i = 0; i < 3; i++) {
				labels_start(r);
				label(r, "circuit", text(r, c->name));
				label(r, "to", states[i]);
				sample_u64(r, c->transitions[i]);
			}
		}
	refusals(r, "kilter_circuit_refused_total", "Connects refused.",
		 offsetof(struct snap_circuit, refused));
	refusals(r, "kilter_circuit_would_refuse_total",
		 "Connects that enforcing would have refused.",
		 offsetof(struct snap_circuit, would_refuse));
	for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
		if (!family(r, totals[i].name, "counter", totals[i].help))
			continue;
		EACH(r, SNAP_CIRCUITS, struct snap_circuit, c)
		{
			uint64_t v;

			memcpy(&v, (const char *)c + totals[i].offset, sizeof(v));
			labels_start(r);
			label(r, "circuit", text(r, c->name));
			sample_u64(r, v);
		}
	}
}

static void agent(struct render *r, const struct snap_node *node)
{
	labels_start(r);
	if (node && family(r, "kilter_ticks_total", "counter", "Ticks done."))
		sample_u64(r, node->ticks);
	if (node && family(r, "kilter_ticks_late_total", "counter",
			   "Ticks that began a whole period late."))
		sample_u64(r, node->ticks_late);
	if (node &&
	    family(r, "kilter_tick_duration_seconds", "gauge", "Duration of the last tick."))
		sample_seconds(r, node->last_tick_ns);
	if (node && family(r, "kilter_ready", "gauge",
			   "1 when every essential probe is attached and a tick was done."))
		sample_u64(r, node->ready);
	if (node && family(r, "kilter_build_info", "gauge", "1, with the version.")) {
		label(r, "version", text(r, node->version));
		label(r, "revision", text(r, node->revision));
		sample_u64(r, 1);
	}
	if (family(r, "kilter_probe_info", "gauge", "1 for each probe, with what it runs on."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			labels_start(r);
			label(r, "probe", text(r, p->name));
			label(r, "version", text(r, p->version));
			label(r, "tier", text(r, p->tier));
			sample_u64(r, 1);
		}
	if (family(r, "kilter_probe_running", "gauge", "1 while a probe is attached."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			labels_start(r);
			label(r, "probe", text(r, p->name));
			sample_u64(r, p->running != 0);
		}
	if (family(r, "kilter_probe_events_total", "counter", "Runs of a probe's programs."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			labels_start(r);
			label(r, "probe", text(r, p->name));
			sample_u64(r, p->events);
		}
	if (family(r, "kilter_probe_run_seconds_total", "counter",
		   "Time in a probe's programs, as the kernel accounts it; 0 while it does not."))
		EACH(r, SNAP_PROBES, struct snap_probe, p)
		{
			labels_start(r);
			label(r, "probe", text(r, p->name));
			sample_seconds(r, p->run_ns);
		}
	if (family(r, "kilter_dropped_total", "counter", "What found no room, by place."))
		EACH(r, SNAP_DROPS, struct snap_drop, d)
		{
			labels_start(r);
			label(r, "where", text(r, d->where));
			label(r, "reason", text(r, d->reason));
			sample_u64(r, d->total);
		}
	for (int limit = 0; limit < 2; limit++) {
		if (!family(r, limit ? "kilter_series_limit" : "kilter_series", "gauge",
			    limit ? "Entries a kernel map can hold." : "Entries of a kernel map."))
			continue;
		EACH(r, SNAP_MAPS, struct snap_map, m)
		{
			labels_start(r);
			label(r, "map", text(r, m->name));
			sample_u64(r, limit ? m->max_entries : m->entries);
		}
	}
}

/* Two modules may keep samples of one name: they become one family. */
static void selfstats(struct render *r)
{
	const struct snapshot *s = r->s;
	const struct snap_sample *samples = snapshot_rows(s, SNAP_SAMPLES, struct snap_sample);

	EACH(r, SNAP_METRICS, struct snap_metric, m)
	{
		const char *name = text(r, m->name);

		if (!*name || !family(r, name, m->counter ? "counter" : "gauge", text(r, m->help)))
			continue;
		for (const struct snap_metric *same = m; same != m_end; same++) {
			if (strcmp(text(r, same->name), name))
				continue;
			for (uint32_t i = 0; i < same->count; i++) {
				/* In two steps: both come from outside. */
				if (same->first >= s->counts[SNAP_SAMPLES] ||
				    i >= s->counts[SNAP_SAMPLES] - same->first)
					break;
				labels_start(r);
				puts_(&r->labels, text(r, samples[same->first + i].labels));
				sample_double(r, samples[same->first + i].value);
			}
		}
	}
}

static void own_families(struct render *r, const struct prometheus_family *own, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		if (!family(r, own[i].name, own[i].counter ? "counter" : "gauge", own[i].help))
			continue;
		for (unsigned int k = 0; k < own[i].count; k++) {
			labels_start(r);
			label(r, own[i].label, own[i].rows[k].value);
			sample_u64(r, own[i].rows[k].n);
		}
	}
}

int prometheus_render(const struct snapshot *s, bool openmetrics,
		      const struct prometheus_family *own, unsigned int own_count, char **ret,
		      size_t *ret_len)
{
	const struct snap_node *node =
	    s->counts[SNAP_NODE] ? snapshot_rows(s, SNAP_NODE, struct snap_node) : NULL;
	struct render r = {.s = s, .openmetrics = openmetrics};
	int err;

	http(&r, KILTER_ROLE_SERVER, "http_server_request_duration_seconds",
	     "Duration of HTTP server requests.");
	http(&r, KILTER_ROLE_CLIENT, "http_client_request_duration_seconds",
	     "Duration of HTTP client requests.");
	tcp(&r);
	listeners(&r);
	syscalls(&r, node);
	health(&r);
	circuits(&r);
	limits(&r);
	agent(&r, node);
	own_families(&r, own, own_count);
	selfstats(&r);
	if (openmetrics)
		puts_(&r.out, "# EOF\n");
	err = r.out.err ? r.out.err : r.labels.err;
	free(r.labels.buf);
	free(r.families);
	if (err) {
		free(r.out.buf);
		return err;
	}
	*ret = r.out.buf;
	*ret_len = r.out.len;
	return 0;
}
