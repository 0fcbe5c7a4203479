// SPDX-License-Identifier: Apache-2.0
/*
 * kilterd: the main. It alone sees every room; it starts them from left to right, hands
 * what one publishes to the next, and stops them from right to left.
 *
 * Order at start: configuration -> front (forked while nothing is loaded, so that it inherits
 * nothing) -> probes -> adoption of what was there before us -> model and judges -> rights
 * dropped -> loop.
 */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/command.h"
#include "api/front.h"
#include "audit/audit.h"
#include "collect/collect.h"
#include "collect/state.h"
#include "core/bus.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/process.h"
#include "core/rights.h"
#include "core/selfstat.h"
#include "export/snapshot_build.h"
#include "guard/guard.h"
#include "health/health.h"
#include "kilterd_flags.h"
#include "model/metadata/cri.h"
#include "model/model.h"
#include "model/snapshot.h"
#include "probe/adopt.h"
#include "probe/iter.h"
#include "probe/mount.h"
#include "probe/netns.h"
#include "probe/probe.h"
#include "probe/sampler.h"

#define SNAPSHOT_BYTES	 (512u << 20) /* address space of one area; pages come as they are used */
#define PHASES_MAX	 8
#define FRONT_GRACE_NS	 (5 * NS_PER_SEC)
#define VERIFY_TICKS	 5  /* our links are looked after every so many ticks */
#define LISTENERS_TICKS	 5  /* accept queues are polled every so many ticks */
#define LAST_DRAINS	 16 /* of 4096 records each: more than the ring buffer holds */
#define COMMANDS_PER_RUN 16 /* then the tick gets its turn */
#define FAULT_LEN	 512

struct agent {
	struct config config;
	char cgroup[CONFIG_PATH_LEN];
	char hostname[64];
	struct utsname uts;
	struct loop *loop;
	struct loop_source *guard_timer; /* one shot: the next circuit whose time is over */
	struct snapshot_writer *snapshot;
	struct front *front;
	struct probe_set *probes;
	struct adopt *adopt;
	struct guard_iter *guard_iter;
	struct loop_source *netns_source;
	struct netns *netns; /* NULL: connections of other network namespaces are left */
	struct sampler *sampler;
	struct collect *collect;
	struct model *model;
	struct health *health;
	struct guard *guard;
	struct audit *audit;
	struct snapshot_phase_row phases[PHASES_MAX];
	unsigned int phases_count;
	uint64_t phase_start_ns, start_real_ns;
	uint64_t ticks, ticks_late, last_tick_ns, events_seen;
	uint64_t config_generation, runtime_changes;
	uint32_t front_pid;
	bool unpin, losing;
	uint64_t incomplete_until_ns;
};

static void print_fault(void *ctx, const char *text)
{
	(void)ctx;
	fprintf(stderr, "%s\n", text);
}

/* ctx: a buffer of FAULT_LEN that keeps the first of them. */
static void log_fault(void *ctx, const char *text)
{
	char *first = ctx;

	log_error("configuration: %s", text);
	if (!first[0])
		snprintf(first, FAULT_LEN, "%s", text);
}

/* --- what starting needs --- */

static void phase(struct agent *a, const char *name, const char *result)
{
	uint64_t now = clock_boot_ns();

	if (a->phases_count < PHASES_MAX)
		a->phases[a->phases_count++] = (struct snapshot_phase_row){
		    .name = name, .result = result, .took_ns = now - a->phase_start_ns};
	a->phase_start_ns = now;
}

static void apply_log(const struct config *c)
{
	enum log_level level = LOG_INFO;

	log_level_parse(c->log.level, &level);
	log_setup(level, strcmp(c->log.format, "json") ? LOG_CONSOLE : LOG_JSON);
}

/* What is needed all the time; see docs/operations.md. Without these nothing can be loaded. */
static const cap_value_t agent_rights[] = {CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN};
#define AGENT_RIGHTS 3

/* Said before anything is opened. */
static int check_rights(void)
{
	if (rights_has(agent_rights, AGENT_RIGHTS))
		return 0;
	log_error(
	    "kilterd needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (and the rights to "
	    "its directories): see docs/operations.md");
	return -EPERM;
}

static int make_dir(const char *path, mode_t mode)
{
	int err = probe_mkdir_p(path, mode);

	return err ? log_err(err, "cannot make directory %s", path) : 0;
}

static int make_parent(const char *path, mode_t mode)
{
	char dir[CONFIG_PATH_LEN], *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return 0;
	*slash = '\0';
	return make_dir(dir, mode);
}

/* --- what the rooms tell each other --- */

/* A circuit's time may be over between two ticks. */
static void arm_guard(struct agent *a, uint64_t boot_ns)
{
	uint64_t at = guard_next_ns(a->guard);

	if (!a->guard_timer || !at)
		return;
	loop_set_timer(a->guard_timer, at > boot_ns ? at - boot_ns : 1);
}

static void on_guard_due(void *ctx, uint64_t missed)
{
	struct agent *a = ctx;
	uint64_t boot = clock_boot_ns();

	(void)missed;
	loop_set_timer(a->guard_timer, 0);
	guard_due(a->guard, boot, clock_real_ns());
	arm_guard(a, boot);
}

static void on_event(void *ctx, const struct kilter_event *ev)
{
	struct agent *a = ctx;
	const struct kilter_event_trip *trip =
	    ev->type == KILTER_EVENT_TRIP || ev->type == KILTER_EVENT_VERDICT
		? (const struct kilter_event_trip *)ev
		: NULL;
	const struct model_workload *w = model_workload_by_id(a->model, ev->workload);
	struct audit_names names = {0};
	uint64_t boot = clock_boot_ns();

	a->events_seen++;
	if (ev->type == KILTER_EVENT_DNS) {
		const struct kilter_event_dns *answer = (const struct kilter_event_dns *)ev;

		dns_answer(model_dns(a->model), answer->msg, answer->len);
		return;
	}
	if (trip)
		names.circuit = guard_name_of(a->guard, &trip->key);
	if (w) {
		names.service_name = w->name;
		names.container_id = w->container_id[0] ? w->container_id : NULL;
		names.executable = w->exe;
	}
	if (ev->type != KILTER_EVENT_VERDICT)
		audit_kernel_event(a->audit, ev, &names, (int64_t)(clock_real_ns() - boot));
	/* The guard's own word on it comes after what it is about. */
	if (trip) {
		guard_kernel_trip(a->guard, trip, boot, clock_real_ns());
		arm_guard(a, boot);
	}
}

static void on_events_ready(void *ctx, int fd, uint32_t events)
{
	struct agent *a = ctx;

	(void)fd;
	(void)events;
	collect_drain_events(a->collect);
}

static void log_bus(void *ctx, const struct bus_event *ev)
{
	(void)ctx;
	if (ev->kind == BUS_CIRCUIT_TRANSITION && !strcmp(ev->from, ev->to)) /* suppressed */
		log_info("circuit %s stays %s: %s", ev->subject, ev->to,
			 ev->reason ? ev->reason : "");
	else if (ev->kind == BUS_CIRCUIT_TRANSITION)
		log_info("circuit %s: %s -> %s: %s", ev->subject, ev->from, ev->to,
			 ev->reason ? ev->reason : "");
	else if (ev->kind == BUS_HEALTH_TRANSITION)
		log_info("health %s: %s -> %s%s%s", ev->subject, ev->from, ev->to,
			 ev->reason ? ": " : "", ev->reason ? ev->reason : "");
}

static void read_drops(struct agent *a, struct health_drop *drops, unsigned int *ret_count,
		       uint64_t boot_ns)
{
	static const struct {
		const char *where, *reason;
		bool loses;
	} rows[] = {
#define DROP_ROW(name, where, reason, text, loses) {where, reason, loses},
	    KILTER_DROPS(DROP_ROW)
#undef DROP_ROW
	};
	unsigned int n = 0;

	for (unsigned int i = 0; i < KILTER_DROP_MAX; i++) {
		uint64_t delta = collect_drop_delta(a->collect, (enum kilter_drop)i);

		if (!delta)
			continue;
		drops[n++] = (struct health_drop){.where = rows[i].where,
						  .reason = rows[i].reason,
						  .delta = delta,
						  .loses = rows[i].loses,
						  .audit = i == KILTER_DROP_EVENTS_FULL};
		if (rows[i].loses) /* a window is incomplete until it has slid past the loss */
			a->incomplete_until_ns = boot_ns + 60 * NS_PER_SEC;
	}
	audit_lost_total(a->audit, AUDIT_LOST_RING,
			 collect_drop_total(a->collect, KILTER_DROP_EVENTS_FULL));
	audit_lost_total(a->audit, AUDIT_LOST_REFUSED,
			 collect_drop_total(a->collect, KILTER_DROP_EVENTS_REFUSED));
	audit_lost_total(a->audit, AUDIT_LOST_DATAGRAMS,
			 collect_drop_total(a->collect, KILTER_DROP_EVENTS_UDP));
	*ret_count = n;
}

static void publish_snapshot(struct agent *a)
{
	struct probe_status status[PROBE_MAX];
	struct snapshot_probe_row rows[PROBE_MAX];
	unsigned int n = probe_status(a->probes, status, PROBE_MAX);
	struct snapshot_sources s = {
	    .model = a->model,
	    .collect = a->collect,
	    .health = a->health,
	    .guard = a->guard,
	    .audit = a->audit,
	    .config = &a->config,
	    .probes = rows,
	    .probes_count = n,
	    .phases = a->phases,
	    .phases_count = a->phases_count,
	    .version = KILTER_VERSION,
	    .revision = KILTER_REVISION,
	    .hostname = a->hostname,
	    .kernel = a->uts.release,
	    .cgroup = a->cgroup,
	    .bpffs = a->config.bpffs,
	};
	bool ready = true;

	for (unsigned int i = 0; i < n; i++) {
		rows[i] = (struct snapshot_probe_row){
		    .name = status[i].name,
		    .version = KILTER_VERSION,
		    .tier = status[i].tier,
		    .reason = status[i].reason,
		    .hooks = status[i].hooks,
		    .running = status[i].running,
		    .essential = status[i].essential,
		    .events = status[i].events,
		    .run_ns = status[i].run_ns,
		};
		ready = ready && (status[i].running || !status[i].essential);
	}
	s.node.start_real_ns = a->start_real_ns;
	s.node.now_real_ns = clock_real_ns();
	s.node.now_boot_ns = clock_boot_ns();
	s.node.ticks = a->ticks;
	s.node.ticks_late = a->ticks_late;
	s.node.last_tick_ns = a->last_tick_ns;
	s.node.pid = (uint32_t)getpid();
	s.node.front_pid = a->front_pid;
	s.node.ready = ready && a->ticks > 0;
	s.node.incomplete = model_incomplete(a->model);
	s.node.config_generation = a->config_generation;
	s.node.syscall_sample_ratio = a->sampler ? sampler_ratio(a->sampler) : 0;
	snapshot_build(a->snapshot, &s);
}

/* Once for each change, however often it is asked in vain. */
static void tell_runtime(struct agent *a)
{
	const struct cri *r = model_runtime(a->model);

	if (!r || a->runtime_changes == cri_changes(r))
		return;
	a->runtime_changes = cri_changes(r);
	if (cri_works(r))
		log_info("container runtime %s: %s", a->config.runtime_endpoint, cri_state(r));
	else
		log_warn("container runtime %s: %s: labels that are in no file are not known until "
			 "it answers",
			 a->config.runtime_endpoint, cri_state(r));
}

static void tick(void *ctx, uint64_t missed)
{
	struct agent *a = ctx;
	uint64_t boot = clock_boot_ns(), real = clock_real_ns();
	struct health_drop drops[KILTER_DROP_MAX];
	struct probe_status status[PROBE_MAX];
	struct health_probe probes[PROBE_MAX];
	unsigned int n, drops_count = 0;
	int err;

	a->ticks++;
	a->ticks_late += missed;
	collect_drain_events(a->collect);
	if (a->adopt && a->ticks % LISTENERS_TICKS == 0)
		adopt_poll_listeners(a->adopt);
	err = collect_tick(a->collect, boot);
	if (err && !a->losing)
		log_err(err,
			"reading the maps failed, figures are incomplete until it works again");
	a->losing = err;
	read_drops(a, drops, &drops_count, boot);
	model_set_incomplete(a->model, err || boot < a->incomplete_until_ns);
	model_tick(a->model, boot);
	if (a->ticks % VERIFY_TICKS == 0)
		probe_set_verify(a->probes);
	n = probe_status(a->probes, status, PROBE_MAX);
	for (unsigned int i = 0; i < n; i++)
		probes[i] = (struct health_probe){.name = status[i].name,
						  .tier = status[i].running ? status[i].tier : NULL,
						  .reason = status[i].reason,
						  .essential = status[i].essential,
						  .off = status[i].off};
	health_tick(a->health, a->model, probes, n, drops, drops_count, boot, real);
	guard_tick(a->guard, a->model, boot, real);
	arm_guard(a, boot);
	audit_tick(a->audit, real);
	dns_tick(model_dns(a->model), boot);
	tell_runtime(a);
	publish_snapshot(a);
	a->last_tick_ns = clock_boot_ns() - boot;
}

/* --- the front's commands --- */

static void on_command(void *ctx, int fd, uint32_t events)
{
	struct agent *a = ctx;

	(void)events;
	for (int i = 0; i < COMMANDS_PER_RUN; i++) {
		struct command_request req;
		struct command_reply reply;
		ssize_t n = recv(fd, &req, sizeof(req), MSG_DONTWAIT);

		if (n != sizeof(req)) /* nothing, or not ours: the front is not trusted */
			return;
		memset(&reply, 0, sizeof(reply));
		if (command_run(a->guard, &req, &reply))
			publish_snapshot(a); /* the next read sees it */
		send(fd, &reply, sizeof(reply), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

static void on_front_notice(void *ctx, int fd, uint32_t events)
{
	struct agent *a = ctx;
	uint32_t pid;
	ssize_t n;

	(void)events;
	while ((n = read(fd, &pid, sizeof(pid))) == sizeof(pid)) {
		char text[64];

		if (!pid)
			snprintf(text, sizeof(text), "the worker %u died", a->front_pid);
		else
			snprintf(text, sizeof(text), "worker %u serves", pid);
		a->front_pid = pid;
		log_write(pid ? LOG_INFO : LOG_WARN, "front: %s", text);
		bus_publish(&(struct bus_event){.kind = BUS_FRONT,
						.subject = "front",
						.action = pid ? "front-start" : "front-exit",
						.reason = text,
						.uid = UINT32_MAX,
						.outcome = pid ? "success" : "failure"});
	}
	if (!n) { /* the supervisor itself is gone: a closed pipe would spin the loop */
		log_error("front: its supervisor is gone: no HTTP until kilterd is restarted");
		loop_stop(a->loop, EXIT_RUNTIME);
	}
}

/* --- signals --- */

static struct audit_options audit_options(const struct agent *a)
{
	return (struct audit_options){
	    .file = a->config.audit.file,
	    .state_dir = a->config.state_dir,
	    .max_bytes = a->config.audit.max_bytes,
	    .max_age_ns = a->config.audit.max_age_ns,
	    .keep = a->config.audit.keep,
	    .compress = a->config.audit.compress,
	};
}

/* The first policy that ends connections, or NULL. */
static const struct config_policy *closing_policy(const struct agent *a)
{
	if (a->config.guard.defaults.close_connections)
		return &a->config.guard.defaults;
	for (uint32_t i = 0; i < a->config.guard.policies_count; i++)
		if (a->config.guard.policies[i].close_connections)
			return &a->config.guard.policies[i];
	return NULL;
}

/* What a policy asks for and cannot be had. */
static void warn_of_policies(const struct agent *a)
{
	const struct config_policy *p = closing_policy(a);

	if (!p)
		return;
	if (!probe_program(a->probes, "guard_close"))
		log_warn("policy %s: on_open: close_connections has no effect: it takes "
			 "bpf_sock_destroy (Linux 6.5)",
			 p->name);
	else if (!a->netns)
		log_warn("policy %s: on_open: close_connections leaves the connections of other "
			 "network namespaces: that takes CAP_SYS_ADMIN and CAP_SYS_PTRACE, and the "
			 "policy at the start",
			 p->name);
}

/* A child that ends connections in other network namespaces is through with them. */
static void on_netns(void *ctx, int fd, uint32_t events)
{
	struct agent *a = ctx;
	int n;

	(void)fd;
	(void)events;
	while ((n = netns_result(a->netns)) >= 0)
		if (n)
			guard_connections_ended(n);
	if (n == -EAGAIN)
		return;
	log_error("the child for other network namespaces is gone: their connections are left");
	loop_remove(a->loop, &a->netns_source);
}

static const struct flags *the_flags;

/* Whatever becomes of the rest: a token may have to go at once. */
static void reload_tokens(struct agent *a)
{
	char text[FRONT_TEXT_LEN];
	int err = front_reload_tokens(a->front, text);

	if (err == -ENODATA)
		return;
	if (err)
		log_error("%s; the tokens stay as they were", text);
	else
		log_info("%s", text);
	bus_publish(&(struct bus_event){.kind = err ? BUS_CONFIG_REJECTED : BUS_CONFIG_CHANGED,
					.subject = "tokens",
					.action = err ? "config-rejected" : "config-change",
					.reason = text,
					.outcome = err ? "failure" : "success",
					.uid = UINT32_MAX});
}

static void on_hangup(void *ctx, int signo)
{
	struct agent *a = ctx;
	_cleanup_free_ struct config *fresh = malloc(sizeof(*fresh));
	struct audit_options options;
	const char *path = NULL;
	char text[FAULT_LEN] = "";

	(void)signo;
	audit_reopen(a->audit);
	reload_tokens(a);
	if (!fresh || flags_read_config(fresh, the_flags, log_fault, text)) {
		log_warn("the configuration stays as it was");
		bus_publish(&(struct bus_event){.kind = BUS_CONFIG_REJECTED,
						.subject = "configuration",
						.action = "config-rejected",
						.reason = text,
						.outcome = "failure",
						.uid = UINT32_MAX});
		return;
	}
	if (config_needs_restart(&a->config, fresh, &path))
		log_warn("%s changes with a restart only, the rest is applied", path);
	config_keep(fresh, &a->config);
	config_diff(&a->config, fresh, text, sizeof(text));
	a->config = *fresh;
	a->config_generation++;
	apply_log(&a->config);
	health_reconfigure(a->health, &a->config);
	guard_reconfigure(a->guard, &a->config);
	warn_of_policies(a);
	collect_reconfigure(a->collect, &a->config);
	options = audit_options(a);
	audit_reconfigure(a->audit, &options);
	log_info("configuration reloaded: %s", text[0] ? text : "nothing changed");
	bus_publish(&(struct bus_event){.kind = BUS_CONFIG_CHANGED,
					.subject = "configuration",
					.action = "config-change",
					.reason = text[0] ? text : "nothing changed",
					.outcome = "success",
					.uid = UINT32_MAX});
}

static void on_stop(void *ctx, int signo)
{
	struct agent *a = ctx;

	log_info("signal %d: stopping", signo);
	loop_stop(a->loop, 0);
}

/* --- figures about itself --- */

static void map_memory(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct agent *a = ctx;

	emit(emit_ctx, "", (double)probe_map_memory(a->probes));
}

static void loop_overrun_count(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct agent *a = ctx;

	emit(emit_ctx, "", (double)loop_overruns(a->loop));
}

static void events_seen(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct agent *a = ctx;

	emit(emit_ctx, "", (double)a->events_seen);
}

static struct selfstat own_stats[] = {
    {.name = "kilter_map_memory_bytes",
     .help = "What the kernel charges for our maps.",
     .type = SELFSTAT_GAUGE,
     .collect = map_memory},
    {.name = "kilter_loop_overruns_total",
     .help = "Callbacks that took over 250 ms.",
     .type = SELFSTAT_COUNTER,
     .collect = loop_overrun_count},
    {.name = "kilter_events_total",
     .help = "Records taken from the event ring buffer.",
     .type = SELFSTAT_COUNTER,
     .collect = events_seen},
};

/* --- start and stop --- */

/* One number for "these counters, of this boot" (FNV-1a); 0: not known. */
static uint64_t losses_origin(int drops_fd)
{
	uint64_t h = 0xcbf29ce484222325ull;
	struct state_origin o;

	if (drops_fd < 0 || state_origin_read(&o, drops_fd, -1))
		return 0;
	for (size_t i = 0; i < sizeof(o); i++)
		h = (h ^ ((const unsigned char *)&o)[i]) * 0x100000001b3ull;
	return h ? h : 1;
}

static int start_front(struct agent *a)
{
	int err;

	err = snapshot_writer_new(&a->snapshot, SNAPSHOT_BYTES);
	if (err)
		return log_err(err, "cannot make the snapshot's shared memory");
	if (make_parent(a->config.socket, 0755))
		return -EIO;
	err = front_start(&a->front, &a->config, snapshot_writer_fd(a->snapshot));
	phase(a, "front", err ? strerror(-err) : "ok");
	return err;
}

static int start_probes(struct agent *a)
{
	struct bpf_program *enter, *leave;
	int err;

	err = probe_set_open(&a->probes, &a->config, a->cgroup);
	phase(a, "probes", err ? strerror(-err) : probe_set_resumed(a->probes) ? "resumed" : "ok");
	if (err)
		return err;
	err = adopt_new(&a->adopt, a->probes);
	if (!err)
		err = adopt_run(a->adopt);
	if (err)
		log_warn("sockets older than the agent stay unseen: %s", strerror(-err));
	phase(a, "adopt", err ? strerror(-err) : "ok");
	err = guard_iter_new(&a->guard_iter, a->probes);
	if (err)
		log_warn("open connections do not join new circuits: %s", strerror(-err));
	if (!err && closing_policy(a))
		guard_iter_everywhere(a->guard_iter, &a->netns);
	warn_of_policies(a);
	enter = probe_program(a->probes, "syscall_enter");
	leave = probe_program(a->probes, "syscall_exit");
	if (!enter) {
		enter = probe_program(a->probes, "syscall_enter_by_thread");
		leave = probe_program(a->probes, "syscall_exit_by_thread");
	}
	if (enter && leave) {
		err = sampler_new(&a->sampler, a->loop, enter, leave,
				  probe_map_fd(a->probes, "syscall_threads"),
				  a->config.syscalls.window_ns, a->config.syscalls.period_ns);
		if (err)
			log_warn("system calls are not sampled: %s", strerror(-err));
	}
	/* Loading read the kernel's types, some 10 MiB, and has no use for them any more. */
	malloc_trim(0);
	return 0;
}

static int start_rooms(struct agent *a)
{
	struct collect_maps maps = {
	    .workloads = probe_map_fd(a->probes, "workloads"),
	    .peers = probe_map_fd(a->probes, "peers"),
	    .routes = probe_map_fd(a->probes, "routes"),
	    .series = probe_map_fd(a->probes, "series"),
	    .conns = probe_map_fd(a->probes, "conns"),
	    .listeners = probe_map_fd(a->probes, "listeners"),
	    .syscalls = probe_map_fd(a->probes, "syscalls"),
	    .syscall_errors = probe_map_fd(a->probes, "syscall_errors"),
	    .drops = probe_map_fd(a->probes, "drops"),
	    .events = probe_map_fd(a->probes, "events"),
	    .retire_prog = probe_program_fd(a->probes, "retire_series"),
	    .retire_request = probe_map_fd(a->probes, "retire_request"),
	};
	struct guard_maps guard_maps = {
	    .policy_fd = probe_map_fd(a->probes, "guard_policy"),
	    .runtime_fd = probe_map_fd(a->probes, "guard_runtime"),
	    .switch_fd = probe_map_fd(a->probes, "guard_switch"),
	};
	struct collect_sink sink = {
	    .workload = model_add_workload_id,
	    .peer = model_add_peer_id,
	    .route = model_add_route_id,
	    .requests = model_add_requests,
	    .conns = model_add_conns,
	    .listener = model_set_listener,
	};
	struct audit_options audit = audit_options(a);
	char path[CONFIG_PATH_LEN + 32];
	int err;

	err = make_dir(a->config.state_dir, 0750);
	if (err)
		return err;
	err = make_parent(a->config.audit.file, 0750);
	if (err)
		return err;
	audit.losses_origin = losses_origin(maps.drops);
	err = audit_open(&a->audit, &audit);
	if (err)
		return log_err(err, "audit: cannot open %s", a->config.audit.file);
	err = model_new(&a->model, &a->config);
	if (err)
		return log_err(err, "model");
	err = a->config.runtime_endpoint[0]
		  ? model_ask_runtime(a->model, a->loop, a->config.runtime_endpoint)
		  : 0;
	if (err)
		return log_err(err, "runtime_endpoint %s", a->config.runtime_endpoint);
	snprintf(path, sizeof(path), "%s/cgroups", a->config.state_dir);
	err = model_keep_names(a->model, path);
	if (err) /* a full disk costs names after the next restart, not this start */
		log_warn("model: cannot keep names in %s: %s", path, strerror(-err));
	snprintf(path, sizeof(path), "%s/addresses", a->config.state_dir);
	err = dns_keep(model_dns(a->model), path);
	if (err)
		log_warn("dns: cannot read %s: %s", path, strerror(-err));
	sink.ctx = a->model;
	snprintf(path, sizeof(path), "%s/retired", a->config.state_dir);
	err = collect_new(&a->collect, &a->config, &maps, &sink, path, on_event, a);
	if (err)
		return log_err(err, "cannot read the maps (state in %s)", path);
	err = health_new(&a->health, &a->config);
	if (err)
		return log_err(err, "health");
	snprintf(path, sizeof(path), "%s/circuits", a->config.state_dir);
	err = guard_new(&a->guard, &a->config, &guard_maps, path, model_dns(a->model));
	if (err)
		return log_err(err, "guard (state in %s)", path);
	if (a->guard_iter)
		guard_set_hooks(a->guard, &(struct guard_hooks){.join = guard_iter_join,
								.close = guard_iter_close,
								.ctx = a->guard_iter});
	bus_subscribe(audit_bus_event, a->audit);
	bus_subscribe(log_bus, a);
	process_register_stats(a->start_real_ns);
	for (unsigned int i = 0; i < sizeof(own_stats) / sizeof(own_stats[0]); i++) {
		own_stats[i].ctx = a;
		selfstat_register(&own_stats[i]);
	}
	phase(a, "rooms", "ok");
	return 0;
}

static int start_loop(struct agent *a)
{
	int err = 0;

	err = err ? err : loop_add_timer(a->loop, a->config.tick_ns, tick, a, NULL);
	err = err ? err
		  : loop_add_timer(a->loop, a->config.tick_ns, on_guard_due, a, &a->guard_timer);
	err = err ? err
		  : loop_add_fd(a->loop, collect_events_fd(a->collect), EPOLLIN, on_events_ready, a,
				NULL);
	err = err ? err
		  : loop_add_fd(a->loop, front_command_fd(a->front), EPOLLIN, on_command, a, NULL);
	err = err ? err
		  : loop_add_fd(a->loop, front_notice_fd(a->front), EPOLLIN, on_front_notice, a,
				NULL);
	if (!err && a->netns)
		err = loop_add_fd(a->loop, netns_fd(a->netns), EPOLLIN, on_netns, a,
				  &a->netns_source);
	return err ? log_err(err, "event loop") : 0;
}

/* From here on a signal waits for the loop: a start that has begun is ended in good order. */
static int new_loop(struct agent *a)
{
	int err = loop_new(&a->loop);

	err = err ? err : loop_add_signal(a->loop, SIGTERM, on_stop, a);
	err = err ? err : loop_add_signal(a->loop, SIGINT, on_stop, a);
	err = err ? err : loop_add_signal(a->loop, SIGHUP, on_hangup, a);
	return err ? log_err(err, "event loop") : 0;
}

static void stop_rooms(struct agent *a)
{
	if (a->audit && a->collect && a->model) {
		for (unsigned int i = 0; i < LAST_DRAINS; i++)
			collect_drain_events(a->collect);
		tick(a, 0); /* what has been counted is told before we go */
		bus_publish(&(struct bus_event){.kind = BUS_AGENT_STOP,
						.subject = "kilterd",
						.action = "agent-stop",
						.outcome = "success",
						.uid = UINT32_MAX});
	}
	sampler_free(&a->sampler);
	if (a->front)
		front_stop(&a->front, FRONT_GRACE_NS);
	if (a->unpin && a->guard)
		guard_release_all(a->guard);
	guard_free(&a->guard);
	health_free(&a->health);
	collect_free(&a->collect);
	model_free(&a->model);
	bus_reset();
	audit_close(&a->audit);
	adopt_free(&a->adopt);
	netns_stop(&a->netns);
	guard_iter_free(&a->guard_iter);
	if (a->unpin && a->probes) {
		int err = probe_set_unpin(a->probes);

		if (err)
			log_err(err, "cannot remove every pin below %s", a->config.bpffs);
		else
			log_info("pins below %s removed", a->config.bpffs);
	}
	probe_set_close(&a->probes);
	snapshot_writer_free(&a->snapshot);
	loop_free(&a->loop);
}

static int run(struct agent *a)
{
	int err;

	a->phase_start_ns = clock_boot_ns();
	a->start_real_ns = clock_real_ns();
	gethostname(a->hostname, sizeof(a->hostname) - 1);
	uname(&a->uts);
	if (a->config.cgroup[0]) {
		snprintf(a->cgroup, sizeof(a->cgroup), "%s", a->config.cgroup);
	} else {
		err = probe_cgroup2_root(a->cgroup, sizeof(a->cgroup));
		if (err) {
			log_error(
			    "no cgroup v2 is mounted: kilter attaches there (mount -t cgroup2 "
			    "none DIR, and --cgroup DIR)");
			return EXIT_KERNEL;
		}
	}
	if (check_rights() || new_loop(a) || start_front(a))
		return EXIT_RUNTIME;
	err = start_probes(a);
	if (err)
		return err == -ENOSYS ? EXIT_KERNEL : EXIT_RUNTIME;
	if (start_rooms(a) || start_loop(a))
		return EXIT_RUNTIME;
	err = rights_keep(agent_rights, AGENT_RIGHTS);
	if (err) {
		log_err(err, "cannot drop capabilities");
		return EXIT_RUNTIME;
	}
	phase(a, "rights",
	      a->netns ? "CAP_BPF CAP_PERFMON CAP_NET_ADMIN; of kilterd-netns CAP_SYS_ADMIN "
			 "CAP_SYS_PTRACE CAP_BPF CAP_PERFMON"
		       : "CAP_BPF CAP_PERFMON CAP_NET_ADMIN");
	bus_publish(&(struct bus_event){.kind = BUS_AGENT_START,
					.subject = "kilterd",
					.action = "agent-start",
					.outcome = "success",
					.uid = UINT32_MAX});
	tick(a, 0);
	log_info("kilterd %s observes %s, http://%s/metrics, %s", KILTER_VERSION, a->cgroup,
		 a->config.listen, a->config.socket);
	err = loop_run(a->loop);
	return err < 0 ? EXIT_RUNTIME : err;
}

int main(int argc, char **argv)
{
	static struct agent a; /* large: a configuration holds 256 policies */
	struct flags flags = {0};
	int status = flags_parse(argc, argv, &flags);

	if (status >= 0)
		return status;
	the_flags = &flags;
	if (flags_read_config(&a.config, &flags, print_fault, NULL))
		return EXIT_USAGE;
	if (flags.check) {
		printf("%s: good\n", a.config.file[0] ? a.config.file : "built-in defaults");
		return 0;
	}
	a.unpin = flags.unpin;
	apply_log(&a.config);
	umask(0027);
	signal(SIGPIPE, SIG_IGN);
	status = run(&a);
	stop_rooms(&a);
	return status;
}
