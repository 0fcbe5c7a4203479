// SPDX-License-Identifier: Apache-2.0
/* Records in the words of the Elastic Common Schema; keys are flat, so that grep and jq do. */
#include <arpa/inet.h>

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "audit/internal.h"
#include "core/clock.h"
#include "core/json.h"

static void kv_optional(struct json *j, const char *key, const char *s)
{
	if (s && *s)
		json_kv_string(j, key, s);
}

/* ECS makes user.id a keyword: text. */
static void kv_uid(struct json *j, uint32_t uid)
{
	char text[12];

	snprintf(text, sizeof(text), "%u", uid);
	json_kv_string(j, "user.id", text);
}

static void kv_time(struct json *j, const char *key, uint64_t real_ns)
{
	char text[31];

	json_kv_string(j, key, clock_format_rfc3339(real_ns, text));
}

static size_t count_replacements(const char *s, size_t n)
{
	size_t count = 0;

	for (const char *end = s + n; (s = memmem(s, (size_t)(end - s), "\xef\xbf\xbd", 3)); s += 3)
		count++;
	return count;
}

static void put_args(struct json *j, const char *args, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	char text[2 * KILTER_EXEC_ARGS_LEN + 1];
	size_t from = j->len;

	json_key(j, "process.args");
	json_array_begin(j);
	for (size_t i = 0; i < n;) {
		size_t len = strnlen(args + i, n - i);

		json_string_n(j, args + i, len);
		i += len + 1;
	}
	json_array_end(j);
	/* More U+FFFD than came in: the bytes were not UTF-8, so they are kept as they are. */
	if (j->err ||
	    count_replacements(j->buf + from, j->len - from) == count_replacements(args, n))
		return;
	for (size_t i = 0; i < n; i++) {
		text[2 * i] = hex[(unsigned char)args[i] >> 4];
		text[2 * i + 1] = hex[(unsigned char)args[i] & 15];
	}
	text[2 * n] = '\0';
	json_kv_string(j, "kilter.args_hex", text);
}

static void put_peer(struct json *j, const char *side, const struct kilter_peer *p,
		     const char *name)
{
	char key[32], ip[INET6_ADDRSTRLEN] = "";
	int family = p->family == KILTER_FAMILY_V4 ? AF_INET : AF_INET6;

	json_kv_string(j, "network.transport",
		       p->transport == KILTER_TRANSPORT_UDP ? "udp" : "tcp");
	if (p->family != KILTER_FAMILY_LOCAL) {
		json_kv_string(j, "network.type", family == AF_INET ? "ipv4" : "ipv6");
		inet_ntop(family, p->addr, ip, sizeof(ip));
		snprintf(key, sizeof(key), "%s.ip", side);
		json_kv_string(j, key, ip);
	}
	snprintf(key, sizeof(key), "%s.port", side);
	json_kv_u64(j, key, ntohs(p->port_be));
	snprintf(key, sizeof(key), "%s.address", side);
	kv_optional(j, key, name && *name ? name : ip);
}

static void put_process(struct json *j, const struct kilter_event *ev,
			const struct audit_names *names)
{
	json_kv_u64(j, "process.pid", ev->pid);
	if (ev->ppid)
		json_kv_u64(j, "process.parent.pid", ev->ppid);
	json_key(j, "process.name");
	json_string_n(j, ev->comm, strnlen(ev->comm, sizeof(ev->comm)));
	kv_uid(j, ev->uid);
	if (names) {
		kv_optional(j, "service.name", names->service_name);
		kv_optional(j, "container.id", names->container_id);
	}
}

static void put_executable(struct json *j, const struct audit_names *names)
{
	if (names)
		kv_optional(j, "process.executable", names->executable);
}

static void record_exec(struct audit *a, const struct kilter_event *ev,
			const struct audit_names *names, uint64_t at)
{
	const struct kilter_event_exec *x = (const void *)ev;
	struct json *j = audit_record_begin(a, "exec", "process", "start", "success", at);

	put_process(j, ev, names);
	json_key(j, "process.executable");
	json_string_n(j, x->file, strnlen(x->file, sizeof(x->file)));
	put_args(j, x->args, x->args_len);
	if (x->args_truncated)
		json_kv_bool(j, "kilter.args_truncated", true);
	audit_record_end(a);
}

static void record_exit(struct audit *a, const struct kilter_event *ev,
			const struct audit_names *names, uint64_t at, int64_t boot_offset_ns)
{
	const struct kilter_event_exit *x = (const void *)ev;
	bool ok = !x->code && !x->signal;
	struct json *j =
	    audit_record_begin(a, "exit", "process", "end", ok ? "success" : "failure", at);
	char reason[32];

	if (x->signal) {
		snprintf(reason, sizeof(reason), "ended by signal %u", x->signal);
		json_kv_string(j, "event.reason", reason);
		json_kv_u64(j, "kilter.signal", x->signal);
	}
	put_process(j, ev, names);
	put_executable(j, names);
	json_kv_u64(j, "process.exit_code", x->code);
	if (x->start_ns) {
		kv_time(j, "process.start", x->start_ns + (uint64_t)boot_offset_ns);
		if (ev->time_ns > x->start_ns)
			json_kv_u64(j, "event.duration", ev->time_ns - x->start_ns);
	}
	audit_record_end(a);
}

static const char *refusal_text(uint32_t reason)
{
	switch (reason) {
	case KILTER_REFUSED_OPEN:
		return "refused by the guard: the circuit is open";
	case KILTER_REFUSED_HALF_OPEN:
		return "refused by the guard: the circuit is half-open, and its trials are under way";
	case KILTER_REFUSED_RAMP_UP:
		return "refused by the guard: the circuit was closed a moment ago";
	case KILTER_REFUSED_RATE:
		return "refused by the guard: over the rate limit";
	case KILTER_REFUSED_CONNECTIONS:
		return "refused by the guard: max_connections are open";
	case KILTER_REDIRECTED:
		return "sent to the stand-by by the guard: the circuit is not closed";
	}
	return "refused by the guard";
}

static void record_net(struct audit *a, const struct kilter_event *ev,
		       const struct audit_names *names, uint64_t at)
{
	const struct kilter_event_net *x = (const void *)ev;
	const char *to = names ? names->destination_name : NULL;
	struct json *j;

	if (ev->type == KILTER_EVENT_LISTEN) {
		j = audit_record_begin(a, "listen", "network", "start", "success", at);
		put_process(j, ev, names);
		put_executable(j, names);
		put_peer(j, "server", &x->peer, NULL);
		json_kv_u64(j, "kilter.backlog", x->backlog);
	} else if (ev->type == KILTER_EVENT_REFUSED) {
		bool to_standby = x->reason == KILTER_REDIRECTED;

		j = audit_record_begin(a, to_standby ? "connect-redirected" : "connect-refused",
				       "network", to_standby ? "connection" : "denied",
				       to_standby ? "success" : "failure", at);
		json_kv_string(j, "event.reason", refusal_text(x->reason));
		put_process(j, ev, names);
		put_executable(j, names);
		json_kv_string(j, "network.direction", "egress");
		put_peer(j, "destination", &x->peer, to);
	} else {
		const char *code = x->err ? strerrorname_np((int)x->err) : NULL;

		/* Of UDP these are ICMP errors. */
		j = audit_record_begin(
		    a, x->peer.transport == KILTER_TRANSPORT_UDP ? "datagram" : "connect",
		    "network", "connection", x->err ? "failure" : "success", at);
		if (x->err) {
			char reason[128];

			snprintf(reason, sizeof(reason), "%s: %s", code ? code : "error",
				 strerrordesc_np((int)x->err) ? strerrordesc_np((int)x->err)
							      : "unknown errno");
			json_kv_string(j, "event.reason", reason);
			json_kv_u64(j, "kilter.errno", x->err);
		}
		json_kv_u64(j, "event.duration", x->latency_ns);
		put_process(j, ev, names);
		put_executable(j, names);
		json_kv_string(j, "network.direction", "egress");
		put_peer(j, "destination", &x->peer, to);
	}
	audit_record_end(a);
}

/* The daemon's confirmation follows as a circuit-transition of its own. */
static void record_trip(struct audit *a, const struct kilter_event *ev,
			const struct audit_names *names, uint64_t at)
{
	const struct kilter_event_trip *x = (const void *)ev;
	struct json *j =
	    audit_record_begin(a, "circuit-kernel-trip", "network", "change", "success", at);
	char reason[64];

	switch (x->by) {
	case KILTER_TRIP_FAILURE_RATIO:
		snprintf(reason, sizeof(reason), "failure_ratio reached, seen in the kernel");
		break;
	case KILTER_TRIP_SLOW_RATIO:
		snprintf(reason, sizeof(reason), "slow_call_ratio reached, seen in the kernel");
		break;
	default:
		snprintf(reason, sizeof(reason), "%u failures in a row, seen in the kernel",
			 x->consecutive);
	}
	json_kv_string(j, "event.reason", reason);
	if (names)
		kv_optional(j, "kilter.subject", names->circuit);
	json_kv_u64(j, "kilter.generation", x->generation);
	audit_record_end(a);
}

/* Bytes a record of this type needs at least; 0: a type that is not known. */
static size_t least_size(const struct kilter_event *ev)
{
	switch ((enum kilter_event_type)ev->type) {
	case KILTER_EVENT_EXEC:
		return offsetof(struct kilter_event_exec, args);
	case KILTER_EVENT_EXIT:
		return sizeof(struct kilter_event_exit);
	case KILTER_EVENT_CONNECT:
	case KILTER_EVENT_LISTEN:
	case KILTER_EVENT_REFUSED:
		return sizeof(struct kilter_event_net);
	case KILTER_EVENT_TRIP:
		return sizeof(struct kilter_event_trip);
	case KILTER_EVENT_VERDICT: /* no records: a circuit-transition follows */
	case KILTER_EVENT_DNS:
		break;
	}
	return 0;
}

static bool well_formed(const struct kilter_event *ev)
{
	size_t least = least_size(ev);

	if (!least || ev->size < least)
		return false;
	if (ev->type == KILTER_EVENT_EXEC) {
		const struct kilter_event_exec *x = (const void *)ev;

		return x->args_len <= sizeof(x->args) && x->args_len <= ev->size - least;
	}
	return true;
}

void audit_kernel_event(struct audit *a, const struct kilter_event *ev,
			const struct audit_names *names, int64_t boot_offset_ns)
{
	uint64_t at = ev->time_ns + (uint64_t)boot_offset_ns;

	if (!well_formed(ev)) {
		audit_lost(a, 1, "a record from the kernel was malformed");
		return;
	}
	switch ((enum kilter_event_type)ev->type) {
	case KILTER_EVENT_EXEC:
		record_exec(a, ev, names, at);
		break;
	case KILTER_EVENT_EXIT:
		record_exit(a, ev, names, at, boot_offset_ns);
		break;
	case KILTER_EVENT_CONNECT:
	case KILTER_EVENT_LISTEN:
	case KILTER_EVENT_REFUSED:
		record_net(a, ev, names, at);
		break;
	case KILTER_EVENT_TRIP:
		record_trip(a, ev, names, at);
		break;
	case KILTER_EVENT_VERDICT:
	case KILTER_EVENT_DNS:
		break;
	}
}

static const struct {
	const char *action, *category, *type;
} bus_words[] = {
    [BUS_AGENT_START] = {"agent-start", "process", "start"},
    [BUS_AGENT_STOP] = {"agent-stop", "process", "end"},
    [BUS_CONFIG_CHANGED] = {"config-change", "configuration", "change"},
    [BUS_CONFIG_REJECTED] = {"config-rejected", "configuration", "denied"},
    [BUS_CIRCUIT_TRANSITION] = {"circuit-transition", "network", "change"},
    [BUS_HEALTH_TRANSITION] = {"health-transition", "host", "change"},
    [BUS_MANUAL_ACTION] = {"manual-action", "configuration", "change"},
    [BUS_GUARD] = {"guard", "network", "change"},
    [BUS_PROBE] = {"probe-change", "driver", "change"},
    [BUS_FRONT] = {"front-restart", "process", "start"},
};
_Static_assert(sizeof(bus_words) / sizeof(bus_words[0]) == BUS_KIND_MAX, "a row for each kind");

void audit_bus_event(void *audit, const struct bus_event *ev)
{
	struct audit *a = audit;
	const char *action, *outcome = ev->outcome;
	struct json *j;

	if ((unsigned int)ev->kind >= BUS_KIND_MAX)
		return;
	action = bus_words[ev->kind].action;
	if ((ev->kind == BUS_MANUAL_ACTION || ev->kind == BUS_GUARD) && ev->action)
		action = ev->action;
	if (!outcome)
		outcome = ev->kind == BUS_CONFIG_REJECTED ? "failure" : "success";
	j = audit_record_begin(a, action, bus_words[ev->kind].category, bus_words[ev->kind].type,
			       outcome, clock_real_ns());
	kv_optional(j, "event.reason", ev->reason);
	if (ev->uid != UINT32_MAX)
		kv_uid(j, ev->uid);
	kv_optional(j, "user.name", ev->user);
	if (ev->role) { /* ECS has an array */
		json_key(j, "user.roles");
		json_array_begin(j);
		json_string(j, ev->role);
		json_array_end(j);
	}
	kv_optional(j, "kilter.subject", ev->subject);
	kv_optional(j, "kilter.from", ev->from);
	kv_optional(j, "kilter.to", ev->to);
	if (ev->generation)
		json_kv_u64(j, "kilter.generation", ev->generation);
	audit_record_end(a);
}

void audit_record_gap(struct audit *a, uint64_t count, uint64_t since_ns, uint64_t until_ns,
		      const char *reason)
{
	struct json *j =
	    audit_record_begin(a, "records-lost", "host", "error", "failure", clock_real_ns());

	kv_optional(j, "event.reason", reason);
	kv_time(j, "event.start", since_ns);
	kv_time(j, "event.end", until_ns);
	json_kv_u64(j, "kilter.records_lost", count);
	audit_record_end(a);
}
