// SPDX-License-Identifier: Apache-2.0
/* The table of the configuration, and how each type is read, checked and written. */
#include "core/config_fields.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <kilter/series.h>

#include "core/clock.h"
#include "core/grpc.h"

#define AT(member) offsetof(struct config, member), sizeof(((struct config *)0)->member)
#define IN(member) \
	offsetof(struct config_policy, member), sizeof(((struct config_policy *)0)->member)

const struct config_field config_fields[] = {
    {"listen", FIELD_STRING, AT(listen), 0, 0, NULL, "127.0.0.1:9470", false,
     "ADDR:PORT or [V6]:PORT of the HTTP server, on loopback. See api.token_file. Empty: the "
     "Unix socket alone."},
    {"socket", FIELD_STRING, AT(socket), 0, 0, NULL, "/run/kilter/kilter.sock", false,
     "Unix socket of the same server, mode 0660; the peer's uid decides what it may do."},
    {"socket_group", FIELD_STRING, AT(socket_group), 0, 0, NULL, "", false,
     "Group that may use the Unix socket to read; empty: root alone."},
    {"cgroup", FIELD_STRING, AT(cgroup), 0, 0, NULL, "", false,
     "Root of the cgroup v2 subtree to observe and guard; empty: the host's root."},
    {"bpffs", FIELD_STRING, AT(bpffs), 0, 0, NULL, "/sys/fs/bpf/kilter", false,
     "Directory on a bpffs where maps and links are pinned."},
    {"state_dir", FIELD_STRING, AT(state_dir), 0, 0, NULL, "/var/lib/kilter", false,
     "What has to survive a restart and is not in the kernel."},
    {"runtime_root", FIELD_STRING, AT(runtime_root), 0, 0, NULL, "/", false,
     "Below it container runtimes keep their files (run/containers, var/lib/docker), read for labels. "
     "Empty: they are not read."},
    {"runtime_endpoint", FIELD_STRING, AT(runtime_endpoint), 0, 0, NULL, "", false,
     "CRI socket of the container runtime, such as unix:///run/containerd/containerd.sock, asked for the "
     "labels that are in no file. Who may use it has power over the node. Empty: no runtime is asked."},
    {"front_user", FIELD_STRING, AT(front_user), 0, 0, NULL, "kilter", false,
     "User of the HTTP front; nobody where there is no such user."},
    {"log.level", FIELD_STRING, AT(log.level), 0, 0, "debug info warn error", "info", true,
     "Least level that is logged."},
    {"log.format", FIELD_STRING, AT(log.format), 0, 0, "console json", "console", true,
     "Form of the log on standard error."},
    {"tick", FIELD_DURATION, AT(tick_ns), 0.1, 60, NULL, "1s", false,
     "How often the maps are read, health is judged and circuits are moved."},
    {"retire_after", FIELD_DURATION, AT(retire_after_ns), 10, 86400, NULL, "15m", true,
     "A series idle for this long leaves the kernel; its totals stay."},
    {"limits.series", FIELD_U32, AT(limits.series), 64, 1048576, NULL, "65536", false,
     "Request series in the kernel, about 1 KiB each while used."},
    {"limits.conns", FIELD_U32, AT(limits.conns), 64, 1048576, NULL, "65536", false,
     "Connection series in the kernel."},
    {"limits.workloads", FIELD_U32, AT(limits.workloads), 64, 262144, NULL, "16384", false,
     "Pairs of cgroup and executable."},
    {"limits.services", FIELD_U32, AT(limits.services), 64, 65536, NULL, "4096", false,
     "Services (names of workloads) in the agent, about 17 KiB each with an edge while used."},
    {"limits.edges", FIELD_U32, AT(limits.edges), 64, 262144, NULL, "16384", false,
     "Edges (a service and a destination) in the agent, about 10 KiB each while used."},
    {"limits.peers", FIELD_U32, AT(limits.peers), 64, 1048576, NULL, "65536", false,
     "Destinations."},
    {"limits.routes", FIELD_U32, AT(limits.routes), 64, 262144, NULL, "8192", false,
     "URL templates, all workloads together."},
    {"limits.routes_per_workload", FIELD_U32, AT(limits.routes_per_workload), 1, 8192, NULL, "200",
     false, "URL templates of one workload; what is beyond has none."},
    {"syscalls.enabled", FIELD_BOOL, AT(syscalls.enabled), 0, 0, NULL, "true", false,
     "Sample system calls."},
    {"syscalls.window", FIELD_DURATION, AT(syscalls.window_ns), 0.01, 60, NULL, "250ms", false,
     "For how long of each period the sampler is armed."},
    {"syscalls.period", FIELD_DURATION, AT(syscalls.period_ns), 0.01, 600, NULL, "4s", false,
     "See syscalls.window; equal to it: every system call is seen."},
    {"kernel.set_retval", FIELD_BOOL, AT(kernel.set_retval), 0, 0, NULL, "true", false,
     "Refuse a connect() with ECONNREFUSED where the kernel can (Linux 6.1); false: with "
     "ENETUNREACH, as before that."},
    {"kernel.tracing_storage", FIELD_BOOL, AT(kernel.tracing_storage), 0, 0, NULL, "true", false,
     "Read socket storage in tracing programs where the kernel can (Linux 5.11); false: sockets "
     "older than the agent are adopted through /proc, their ends seen when they are released."},
    {"kernel.task_storage", FIELD_BOOL, AT(kernel.task_storage), 0, 0, NULL, "true", false,
     "Keep what is known of a system call under way with its task where the kernel can (Linux "
     "5.12); false: in a hash by thread."},
    {"kernel.sock_destroy", FIELD_BOOL, AT(kernel.sock_destroy), 0, 0, NULL, "true", false,
     "End established connections of an open circuit where the kernel can (Linux 6.5) and a policy "
     "asks for it; false: they are left."},
    {"kernel.lsm", FIELD_BOOL, AT(kernel.lsm), 0, 0, NULL, "true", false,
     "See what is executed with an LSM program where the kernel can (Linux 5.7, with bpf among its "
     "LSMs); false: see kernel.fentry."},
    {"kernel.fentry", FIELD_BOOL, AT(kernel.fentry), 0, 0, NULL, "true", false,
     "See what is executed at a function of the kernel where it can (Linux 5.5, on arm64 6.4) and no "
     "LSM program does; false: at a tracepoint."},
    {"kernel.error_report", FIELD_BOOL, AT(kernel.error_report), 0, 0, NULL, "true", false,
     "Count ICMP errors as failures of UDP circuits where the kernel tells of them (Linux 5.14); "
     "false: a missing answer alone is one."},
    {"kernel.map_batch", FIELD_BOOL, AT(kernel.map_batch), 0, 0, NULL, "true", false,
     "Read maps many entries a call; false: key by key."},
    {"audit.file", FIELD_STRING, AT(audit.file), 0, 0, NULL, "/var/log/kilter/audit.jsonl", false,
     "The audit trail, JSON Lines."},
    {"audit.max_size", FIELD_SIZE, AT(audit.max_bytes), 4096, 1e12, NULL, "100MiB", true,
     "Rotate beyond this size."},
    {"audit.max_age", FIELD_DURATION, AT(audit.max_age_ns), 1, 31622400, NULL, "24h", true,
     "Rotate when the oldest record of the file is older."},
    {"audit.keep", FIELD_U32, AT(audit.keep), 1, 10000, NULL, "10", true,
     "Rotated files that are kept."},
    {"audit.compress", FIELD_BOOL, AT(audit.compress), 0, 0, NULL, "true", true,
     "Compress rotated files with gzip."},
    {"audit.exec", FIELD_BOOL, AT(audit.exec), 0, 0, NULL, "true", false,
     "Record executed programs."},
    {"audit.exit", FIELD_BOOL, AT(audit.exit), 0, 0, NULL, "true", false,
     "Record ended processes and their status."},
    {"audit.connect", FIELD_BOOL, AT(audit.connect), 0, 0, NULL, "true", false,
     "Record outbound connects and their outcome."},
    {"audit.listen", FIELD_BOOL, AT(audit.listen), 0, 0, NULL, "true", false,
     "Record new listeners."},
    {"health.minimum_requests", FIELD_U32, AT(health.minimum_requests), 1, 1000000, NULL, "10",
     true, "Fewer requests in a window say nothing."},
    {"health.error_ratio_degraded", FIELD_RATIO, AT(health.error_ratio_degraded), 0, 1, NULL,
     "0.05", true, "Share of failed requests in 1 min that degrades."},
    {"health.error_ratio_unhealthy", FIELD_RATIO, AT(health.error_ratio_unhealthy), 0, 1, NULL,
     "0.25", true, "Share of failed requests in 10 s that is unhealthy."},
    {"health.latency_p95", FIELD_DURATION, AT(health.latency_p95_ns), 0, 3600, NULL, "0s", true,
     "p95 over 1 min that degrades; 0s: no such rule."},
    {"health.latency_factor", FIELD_RATIO, AT(health.latency_factor), 0, 1000, NULL, "3", true,
     "p95 of 1 min against that of the last hour, as a factor; 0: no such rule."},
    {"health.connect_failure_ratio", FIELD_RATIO, AT(health.connect_failure_ratio), 0, 1, NULL,
     "0.1", true, "Share of failed connects in 1 min that degrades."},
    {"health.connect_failure_unhealthy", FIELD_RATIO, AT(health.connect_failure_unhealthy), 0, 1,
     NULL, "0.5", true, "Share of failed connects in 10 s that is unhealthy."},
    {"health.retransmit_rate", FIELD_RATIO, AT(health.retransmit_rate), 0, 1000000, NULL, "1", true,
     "Retransmitted segments per connection and minute that degrade."},
    {"health.accept_queue_ratio", FIELD_RATIO, AT(health.accept_queue_ratio), 0, 1, NULL, "0.9",
     true, "Fill of an accept queue that degrades."},
    {"health.enter", FIELD_U32, AT(health.enter), 1, 1000, NULL, "2", true,
     "Evaluations in a row before a worse state is entered."},
    {"health.leave", FIELD_U32, AT(health.leave), 1, 1000, NULL, "3", true,
     "Evaluations in a row before a worse state is left."},
    {"health.dwell", FIELD_DURATION, AT(health.dwell_ns), 0, 3600, NULL, "10s", true,
     "Least stay in a worse state."},
    {"guard.mode", FIELD_MODE, AT(guard.mode), 0, 0, "off observe enforce", "enforce", true,
     "Upper bound for every policy: observe lets none enforce."},
    {"guard.lease", FIELD_DURATION, AT(guard.lease_ns), 1, 60, NULL, "10s", true,
     "For how long the kernel holds a circuit without hearing from the daemon."},
    {"guard.max_open_ratio", FIELD_RATIO, AT(guard.max_open_ratio), 0, 1, NULL, "0.5", true,
     "Share of all destinations that may be open at once; beyond: nothing more is tripped."},
    {"guard.max_open", FIELD_U32, AT(guard.max_open), 0, 16384, NULL, "0", true,
     "Circuits that may be open at once; beyond: nothing more is tripped. 0: any number."},
    {"guard.release_file", FIELD_STRING, AT(guard.release_file), 0, 0, NULL, "/etc/kilter/release",
     true,
     "While a file of this name exists nothing is refused; looked for at every tick. Empty: none."},
    {"guard.protect_loopback", FIELD_BOOL, AT(guard.protect_loopback), 0, 0, NULL, "true", true,
     "Loopback destinations are enforced only by a policy that names the address."},
    {"api.max_connections", FIELD_U32, AT(api.max_connections), 1, 10000, NULL, "64", false,
     "Connections to the HTTP server."},
    {"api.max_connections_per_ip", FIELD_U32, AT(api.max_connections_per_ip), 1, 10000, NULL, "32",
     false, "The same from one address."},
    {"api.request_timeout", FIELD_DURATION, AT(api.request_timeout_ns), 0.1, 600, NULL, "10s",
     false, "A request that has not arrived whole by then is cut off."},
    {"api.token_file", FIELD_STRING, AT(api.token_file), 0, 0, NULL, "", false,
     "File of bearer tokens for TCP, a line each: ROLE TOKEN [NAME]; root's, mode 0600 or less, read "
     "again at SIGHUP. Empty: TCP asks nobody who they are, and only reads."},
};
const unsigned int config_fields_count = sizeof(config_fields) / sizeof(config_fields[0]);
_Static_assert(sizeof(config_fields) / sizeof(config_fields[0]) <= CONFIG_FIELDS_MAX, "origins");

/* Of guard.defaults (without CONFIG_POLICY_MATCHERS) and of each entry of guard.policies. */
const struct config_field config_policy_fields[] = {
    {"name", FIELD_STRING, IN(name), 0, 0, NULL, "", true, "How it is shown."},
    {"workload", FIELD_STRING, IN(workload), 0, 0, NULL, "*", true, "Caller: a glob on its name."},
    {"executable", FIELD_STRING, IN(executable), 0, 0, NULL, "*", true,
     "Caller: a glob on the name of its executable."},
    {"cgroup", FIELD_STRING, IN(cgroup), 0, 0, NULL, "*", true,
     "Caller: a glob on the path of its cgroup below the mount."},
    {"labels", FIELD_LABELS, IN(labels), 0, 0, "mapping of keys to globs, at most 8", "", true,
     "Caller: labels of its container or pod, all of which must match; a caller without known labels "
     "does not. {}: any."},
    {"destination", FIELD_STRING, IN(destination), 0, 0, NULL, "*", true,
     "ADDR:PORT, [V6]:PORT, ADDR, CIDR, CIDR:PORT, NAME, NAME:PORT, :PORT or *; udp:// before it: "
     "of UDP."},
    {"mode", FIELD_MODE, IN(mode), 0, 0, "off observe enforce", "observe", true,
     "observe decides and records; enforce refuses as well."},
    {"force", FIELD_FORCE, IN(force), 0, 0, "auto open closed", "auto", true,
     "open refuses whatever the outcomes, closed lets through; auto: the circuit decides."},
    {"consecutive_failures", FIELD_U32, IN(consecutive_failures), 0, 1000000, NULL, "5", true,
     "Failures in a row that trip, in the kernel; 0: off."},
    {"failure_ratio", FIELD_RATIO, IN(failure_ratio), 0, 1, NULL, "0.5", true,
     "Share of failures in the window that trips; 0: off."},
    {"slow_call_ratio", FIELD_RATIO, IN(slow_call_ratio), 0, 1, NULL, "0", true,
     "Share of slow requests in the window that trips; 0: off."},
    {"slow_call_duration", FIELD_DURATION, IN(slow_call_ns), 0.0001, 3600, NULL, "1s", true,
     "A request that took longer is slow."},
    {"minimum_requests", FIELD_U32, IN(minimum_requests), 1, 1000000, NULL, "20", true,
     "Outcomes in the window before a ratio counts."},
    {"window_type", FIELD_CHOICE, IN(window_counts), 0, 0, "time count", "time", true,
     "time: the window is the last `window`, read once a tick; count: the last `window_calls` "
     "outcomes, judged in the kernel with each."},
    {"window", FIELD_DURATION, IN(window_ns), 1, 3600, NULL, "10s", true,
     "Sliding window of the ratios; also how long a closed circuit takes to forget a trip."},
    {"window_calls", FIELD_U32, IN(window_calls), 1, KILTER_WINDOW_CALLS_MAX, NULL, "100", true,
     "See window_type."},
    {"base_open", FIELD_DURATION, IN(base_open_ns), 0.1, 3600, NULL, "5s", true,
     "How long the first trip lasts; doubled by each that follows."},
    {"max_open", FIELD_DURATION, IN(max_open_ns), 0.1, 86400, NULL, "2m", true,
     "The doubling ends here."},
    {"jitter", FIELD_RATIO, IN(jitter), 0, 1, NULL, "0.5", true,
     "Random share of the open time that is added to it."},
    {"half_open_permits", FIELD_U32, IN(half_open_permits), 1, 1000, NULL, "3", true,
     "Trial connections under way at a time while half-open."},
    {"half_open_successes", FIELD_U32, IN(half_open_successes), 1, 1000, NULL, "3", true,
     "Trials that must succeed, none failing, to close."},
    {"half_open_timeout", FIELD_DURATION, IN(half_open_timeout_ns), 0.1, 3600, NULL, "10s", true,
     "From the first trial on: without a verdict by then, open again."},
    {"ramp_up", FIELD_DURATION, IN(ramp_up_ns), 0, 3600, NULL, "0s", true,
     "After closing, the share of connects let through rises to all over this time; 0s: at once."},
    {"failures", FIELD_FAILURES, IN(failures), 0, 0,
     "connect no_answer http_5xx http_400..http_599 grpc_errors grpc_CODE",
     "connect no_answer http_5xx grpc_errors", true,
     "What counts as a failure. grpc_errors: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, "
     "UNAVAILABLE and DATA_LOSS; CODE: any but OK, in lower case (grpc_aborted)."},
    {"on_open", FIELD_CHOICE, IN(close_connections), 0, 0, "keep close_connections", "keep", true,
     "What becomes of connections that are established when the circuit opens (Linux 6.5)."},
    {"standby", FIELD_STRING, IN(standby), 0, 0, NULL, "", true,
     "ADDR:PORT that connects are sent to while the circuit is not closed, instead of refused; of "
     "the destination's family; its own circuit and limits are not asked. Empty: none."},
    {"rate_limit", FIELD_RATIO, IN(rate_limit), 0, CONFIG_LIMIT_MAX, NULL, "0", true,
     "Connects a second from each caller to each destination, in the kernel; a policy for any caller "
     "and one address and port counts all of them together. 0: no limit."},
    {"burst", FIELD_U32, IN(burst), 1, CONFIG_LIMIT_MAX, NULL, "10", true,
     "Connects that rate_limit lets through at once after a pause."},
    {"max_connections", FIELD_U32, IN(max_connections), 0, CONFIG_LIMIT_MAX, NULL, "0", true,
     "Connections open at a time, counted as for rate_limit; 0: no limit."},
};
const unsigned int config_policy_fields_count =
    sizeof(config_policy_fields) / sizeof(config_policy_fields[0]);

int config_field_find(const struct config_field *fields, unsigned int count, const char *path)
{
	for (unsigned int i = 0; i < count; i++)
		if (!strcmp(fields[i].path, path))
			return (int)i;
	return -1;
}

static void format_labels(const char *labels, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (const char *k = NULL; n < size && (k = config_labels_next(labels, k));)
		n += (size_t)snprintf(buf + n, size - n, "%s%s=%s", n ? " " : "", k,
				      config_labels_glob(k));
}

static const char *const outcome_names[] = {"connect", "no_answer"};
static const char *const mode_names[] = {"off", "observe", "enforce"};
static const char *const force_names[] = {"auto", "open", "closed"};

/* Bits of struct config_failures.statuses. */
#define STATUSES_5XX_FIRST (500 - KILTER_STATUS_FIRST)
#define STATUSES	   KILTER_STATUSES_HTTP
#define STATUSES_GRPC	   KILTER_STATUSES_HTTP /* the first of gRPC's */

/* As it is written out, a list is no longer than as it was read. */
_Static_assert(CONFIG_FAILURES_LEN <= CONFIG_LABELS_LEN, "what is written out is not cut");

static bool has_status(const struct config_failures *f, unsigned int bit)
{
	return f->statuses[bit / 64] >> (bit % 64) & 1;
}

static void add_statuses(struct config_failures *f, unsigned int from, unsigned int count)
{
	for (unsigned int bit = from; bit < from + count; bit++)
		f->statuses[bit / 64] |= 1ull << (bit % 64);
}

/* What is behind "http_". */
static int decode_http(const char *word, struct config_failures *f)
{
	unsigned long status;
	char *end;

	if (!strcmp(word, "5xx")) {
		add_statuses(f, STATUSES_5XX_FIRST, STATUSES - STATUSES_5XX_FIRST);
		return 0;
	}
	status = strtoul(word, &end, 10);
	if (*word < '0' || *word > '9' || *end || status < KILTER_STATUS_FIRST ||
	    status >= KILTER_STATUS_FIRST + STATUSES)
		return -EINVAL;
	add_statuses(f, (unsigned int)status - KILTER_STATUS_FIRST, 1);
	return 0;
}

/* What is behind "grpc_". */
static int decode_grpc(const char *word, struct config_failures *f)
{
	int code;

	if (!strcmp(word, "errors")) {
		for (unsigned int i = 0; i < KILTER_GRPC_CODES; i++)
			if (KILTER_GRPC_ERRORS >> i & 1)
				add_statuses(f, STATUSES_GRPC + i, 1);
		return 0;
	}
	code = grpc_code_from_word(word);
	if (code <= 0) /* OK is no failure */
		return -EINVAL;
	add_statuses(f, STATUSES_GRPC + (unsigned int)code, 1);
	return 0;
}

static int decode_failure(const char *word, struct config_failures *f)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (!strcmp(word, outcome_names[i])) {
			f->outcomes |= 1u << i;
			return 0;
		}
	}
	if (!strncmp(word, "http_", 5))
		return decode_http(word + 5, f);
	return strncmp(word, "grpc_", 5) ? -EINVAL : decode_grpc(word + 5, f);
}

static void why_failures(const char *word, const char *choices, char *why, size_t size)
{
	size_t n = (size_t)snprintf(why, size, "a list of: %s", choices);

	if (strncmp(word, "grpc_", 5) != 0)
		return;
	for (unsigned int i = 1; i < KILTER_GRPC_CODES && n < size; i++)
		n += (size_t)snprintf(why + n, size - n, "%s%s",
				      i > 1 ? " " : "; CODE is one of: ", grpc_code_word(i));
}

static int decode_failures(const char *value, struct config_failures *ret, const char *choices,
			   char *why, size_t why_size)
{
	struct config_failures f = {.outcomes = 0};
	char buf[CONFIG_FAILURES_LEN], *save = NULL;
	bool any = false;

	why_failures("", choices, why, why_size);
	if (strlen(value) >= sizeof(buf))
		return -EINVAL;
	snprintf(buf, sizeof(buf), "%s", value);
	for (char *w = strtok_r(buf, " ,", &save); w; w = strtok_r(NULL, " ,", &save)) {
		if (decode_failure(w, &f)) {
			why_failures(w, choices, why, why_size);
			return -EINVAL;
		}
		any = true;
	}
	*ret = f;
	return any ? 0 : -EINVAL;
}

/* Adds a word to the n bytes that buf has; returns how many it has then, or would have. */
static size_t put_word(char *buf, size_t size, size_t n, const char *word)
{
	return n < size ? n + (size_t)snprintf(buf + n, size - n, "%s%s", n ? " " : "", word) : n;
}

static void format_failures(const struct config_failures *f, char *buf, size_t size)
{
	bool all_5xx = true, all_errors = true;
	char word[CONFIG_NAME_LEN];
	size_t n = 0;

	buf[0] = '\0';
	for (unsigned int i = 0; i < 2; i++)
		if (f->outcomes & (1u << i))
			n = put_word(buf, size, n, outcome_names[i]);
	for (unsigned int i = STATUSES_5XX_FIRST; i < STATUSES; i++)
		all_5xx = all_5xx && has_status(f, i);
	if (all_5xx)
		n = put_word(buf, size, n, "http_5xx");
	for (unsigned int i = 0; i < (all_5xx ? STATUSES_5XX_FIRST : STATUSES); i++) {
		if (!has_status(f, i))
			continue;
		snprintf(word, sizeof(word), "http_%u", i + KILTER_STATUS_FIRST);
		n = put_word(buf, size, n, word);
	}
	for (unsigned int i = 0; i < KILTER_GRPC_CODES; i++)
		all_errors = all_errors &&
			     (!(KILTER_GRPC_ERRORS >> i & 1) || has_status(f, STATUSES_GRPC + i));
	if (all_errors)
		n = put_word(buf, size, n, "grpc_errors");
	for (unsigned int i = 0; i < KILTER_GRPC_CODES; i++) {
		if (!has_status(f, STATUSES_GRPC + i) ||
		    (all_errors && KILTER_GRPC_ERRORS >> i & 1))
			continue;
		snprintf(word, sizeof(word), "grpc_%s", grpc_code_word(i));
		n = put_word(buf, size, n, word);
	}
}

/* The place of value among n names, or -1. */
static int name_index(const char *const *names, int n, const char *value)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], value))
			return i;
	return -1;
}

static bool is_choice(const char *choices, const char *value)
{
	size_t n = strlen(value);

	for (const char *p = choices; *p;) {
		size_t len = strcspn(p, " ");

		if (len == n && !memcmp(p, value, n))
			return true;
		p += len;
		p += *p == ' ';
	}
	return false;
}

static void why_range(const struct config_field *f, char *why, size_t size)
{
	if (f->type == FIELD_DURATION)
		snprintf(why, size, "a duration from %gs to %gs, such as \"%s\"", f->min, f->max,
			 f->initial);
	else if (f->type == FIELD_SIZE)
		snprintf(why, size, "a size from %.0f to %.0f bytes, such as \"%s\"", f->min,
			 f->max, f->initial);
	else if (f->type == FIELD_U32)
		snprintf(why, size, "a whole number from %.0f to %.0f", f->min, f->max);
	else
		snprintf(why, size, "a number from %g to %g", f->min, f->max);
}

static int decode_string(const struct config_field *f, char *at, const char *value, char *why,
			 size_t why_size)
{
	struct config_destination dest;

	if (f->choices && !is_choice(f->choices, value)) {
		snprintf(why, why_size, "one of: %s", f->choices);
		return -EINVAL;
	}
	if (strlen(value) >= f->size) {
		snprintf(why, why_size, "at most %zu characters", f->size - 1);
		return -EINVAL;
	}
	if (!strcmp(f->path, "destination") && config_parse_destination(value, &dest)) {
		snprintf(why, why_size, "%s", f->doc);
		return -EINVAL;
	}
	if (!strcmp(f->path, "standby") && *value &&
	    (config_parse_destination(value, &dest) || !dest.port || !dest.family ||
	     strchr(value, '/'))) {
		snprintf(why, why_size, "ADDR:PORT or [V6]:PORT");
		return -EINVAL;
	}
	if (!strcmp(f->path, "listen") && config_check_listen(value)) {
		snprintf(why, why_size,
			 "a loopback address and a port, such as \"%s\" or \"[::1]:9470\"",
			 f->initial);
		return -EINVAL;
	}
	if (!strcmp(f->path, "runtime_endpoint") && *value && !config_runtime_path(value)) {
		snprintf(
		    why, why_size,
		    "unix:// and the absolute path of a socket, at most %d characters, or empty",
		    CONFIG_RUNTIME_PATH_MAX);
		return -EINVAL;
	}
	snprintf(at, f->size, "%s", value);
	return 0;
}

int config_field_decode(const struct config_field *f, void *base, const char *value, char *why,
			size_t why_size)
{
	void *at = (char *)base + f->offset;
	uint64_t u;
	char *end;
	double d;
	int i = -1;

	switch (f->type) {
	case FIELD_STRING:
		return decode_string(f, at, value, why, why_size);
	case FIELD_BOOL:
		if (strcmp(value, "true") && strcmp(value, "false")) {
			snprintf(why, why_size, "true or false");
			return -EINVAL;
		}
		*(bool *)at = value[0] == 't';
		return 0;
	case FIELD_U32:
		u = *value >= '0' && *value <= '9' ? strtoull(value, &end, 10) : 0;
		if (*value < '0' || *value > '9' || *end || (double)u < f->min ||
		    (double)u > f->max) {
			why_range(f, why, why_size);
			return -EINVAL;
		}
		*(uint32_t *)at = (uint32_t)u;
		return 0;
	case FIELD_RATIO:
		d = strtod(value, &end);
		if (end == value || *end || !isfinite(d) || d < f->min || d > f->max) {
			why_range(f, why, why_size);
			return -EINVAL;
		}
		*(double *)at = d;
		return 0;
	case FIELD_DURATION:
		if (config_parse_duration(value, &u) || (double)u < f->min * 1e9 ||
		    (double)u > f->max * 1e9) {
			why_range(f, why, why_size);
			return -EINVAL;
		}
		*(uint64_t *)at = u;
		return 0;
	case FIELD_SIZE:
		if (config_parse_size(value, &u) || (double)u < f->min || (double)u > f->max) {
			why_range(f, why, why_size);
			return -EINVAL;
		}
		*(uint64_t *)at = u;
		return 0;
	case FIELD_MODE:
		i = name_index(mode_names, 3, value);
		if (i >= 0)
			*(enum kilter_guard_mode *)at = (enum kilter_guard_mode)i;
		break;
	case FIELD_FORCE:
		i = name_index(force_names, 3, value);
		if (i >= 0)
			*(enum config_force *)at = (enum config_force)i;
		break;
	case FIELD_CHOICE:
		i = is_choice(f->choices, value) ? 0 : -1;
		if (!i)
			*(bool *)at = strncmp(f->choices, value, strlen(value));
		break;
	case FIELD_LABELS: /* none; the mapping is read by pairs */
		memset(at, 0, f->size);
		return 0;
	case FIELD_FAILURES:
		return decode_failures(value, at, f->choices, why, why_size);
	}
	if (i < 0)
		snprintf(why, why_size, "one of: %s", f->choices);
	return i < 0 ? -EINVAL : 0;
}

static void format_duration(uint64_t ns, char *buf, size_t size)
{
	if (ns && ns % (60 * NS_PER_SEC) == 0)
		snprintf(buf, size, "%llum", (unsigned long long)(ns / (60 * NS_PER_SEC)));
	else if (ns % NS_PER_SEC == 0)
		snprintf(buf, size, "%llus", (unsigned long long)(ns / NS_PER_SEC));
	else if (ns % NS_PER_MS == 0)
		snprintf(buf, size, "%llums", (unsigned long long)(ns / NS_PER_MS));
	else
		snprintf(buf, size, "%lluns", (unsigned long long)ns);
}

void config_field_format(const struct config_field *f, const void *base, char *buf, size_t size)
{
	const void *at = (const char *)base + f->offset;
	size_t n;

	switch (f->type) {
	case FIELD_STRING:
		snprintf(buf, size, "%s", (const char *)at);
		break;
	case FIELD_BOOL:
		snprintf(buf, size, "%s", *(const bool *)at ? "true" : "false");
		break;
	case FIELD_U32:
		snprintf(buf, size, "%u", *(const uint32_t *)at);
		break;
	case FIELD_RATIO:
		snprintf(buf, size, "%.15g", *(const double *)at);
		break;
	case FIELD_DURATION:
		format_duration(*(const uint64_t *)at, buf, size);
		break;
	case FIELD_SIZE:
		snprintf(buf, size, "%llu", (unsigned long long)*(const uint64_t *)at);
		break;
	case FIELD_MODE:
		snprintf(buf, size, "%s", mode_names[*(const enum kilter_guard_mode *)at]);
		break;
	case FIELD_FORCE:
		snprintf(buf, size, "%s", force_names[*(const enum config_force *)at]);
		break;
	case FIELD_CHOICE: /* the first word, or what comes after it */
		n = strcspn(f->choices, " ");
		if (*(const bool *)at)
			snprintf(buf, size, "%s", f->choices + n + 1);
		else
			snprintf(buf, size, "%.*s", (int)n, f->choices);
		break;
	case FIELD_FAILURES:
		format_failures(at, buf, size);
		break;
	case FIELD_LABELS:
		format_labels(at, buf, size);
		break;
	}
}
