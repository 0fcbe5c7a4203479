// SPDX-License-Identifier: Apache-2.0
/*
 * Agent -> supervisor -> worker. Both have given up root and every capability; the supervisor
 * reads nothing from outside, so that it survives what its worker may not. The listening
 * sockets are opened in the agent: an address in use is an error at start, and a worker that
 * dies drops no connection that waits in the queue.
 */
#include "api/front.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#ifdef KILTER_STATIC
#include <nss.h>
#endif
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/http.h"
#include "api/sandbox.h"
#include "api/tokens.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/loop.h"

#define FRONT_BACKLOG	  128
#define FRONT_NSS_MAX	  16384
#define FRONT_BACKOFF_MIN (100 * NS_PER_MS)
#define FRONT_BACKOFF_MAX (10 * NS_PER_SEC)
#define FRONT_STEADY_NS	  (30 * NS_PER_SEC) /* a worker that lived so long starts afresh */

struct front {
	const struct config *config;
	int tcp_fd, unix_fd, snapshot_fd, command_fd, worker_command_fd, notice_fd,
	    supervisor_notice_fd, signal_fd;
	struct token_store *tokens; /* NULL: no api.token_file */
	pid_t supervisor, agent;
	uid_t uid;
	gid_t gid;
	char socket_path[CONFIG_PATH_LEN];
	dev_t socket_dev; /* ours, so that another's is not removed */
	ino_t socket_ino;
};

/* The supervisor and the worker: single-threaded children of a single-threaded process. */

static void worker(struct front *f, pid_t supervisor)
{
	struct http_options o = {.config = f->config,
				 .tcp_fd = f->tcp_fd,
				 .unix_fd = f->unix_fd,
				 .snapshot_fd = f->snapshot_fd,
				 .command_fd = f->worker_command_fd,
				 .tokens = f->tokens};
	struct loop *loop = NULL;
	struct http *http = NULL;
	sigset_t none;
	int err;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	close(f->supervisor_notice_fd);
	close(f->signal_fd);
	err = sandbox_enter(f->uid, f->gid, supervisor,
			    f->config->api.max_connections + HTTP_FDS_EXTRA);
	if (err) {
		log_err(err, "front: giving up rights");
		_exit(1);
	}
	err = loop_new(&loop);
	if (!err)
		err = http_new(&http, loop, &o);
	if (!err)
		err = sandbox_filter();
	if (err) {
		log_err(err, "front: starting the HTTP server");
		_exit(1);
	}
	err = loop_run(loop);
	http_free(&http);
	loop_free(&loop);
	_exit(err ? 1 : 0);
}

static void notice(const struct front *f, uint32_t pid)
{
	/* When the agent reads none for long the pipe is full: it is only a notice. */
	if (write(f->supervisor_notice_fd, &pid, sizeof(pid)) != sizeof(pid))
		return;
}

/*
 * Waits for SIGTERM or SIGCHLD, both blocked, so that neither is missed. 0: time is up. The
 * agent has no right to signal us once it has dropped its own (we are of another user): it
 * closes its end of the notice pipe instead, which counts as SIGTERM.
 */
static int next_signal(const struct front *f, const struct timespec *timeout)
{
	struct pollfd p[] = {{.fd = f->signal_fd, .events = POLLIN},
			     {.fd = f->supervisor_notice_fd}};
	struct signalfd_siginfo si;

	if (ppoll(p, 2, timeout, NULL) <= 0)
		return 0;
	if (p[1].revents)
		return SIGTERM;
	return read(f->signal_fd, &si, sizeof(si)) == sizeof(si) ? (int)si.ssi_signo : 0;
}

/* A new worker after ns, unless we are to stop before. */
static bool pause_for(const struct front *f, uint64_t ns)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + ns, now;

	while ((now = clock_ns(CLOCK_MONOTONIC)) < until) {
		struct timespec ts = {(time_t)((until - now) / NS_PER_SEC),
				      (long)((until - now) % NS_PER_SEC)};

		if (next_signal(f, &ts) == SIGTERM)
			return false;
	}
	return true;
}

/* True when the worker died, false when we are to stop. */
static bool watch(const struct front *f, pid_t pid)
{
	for (;;) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return true;
		if (next_signal(f, NULL) != SIGTERM)
			continue;
		kill(pid, SIGKILL); /* it holds nothing that needs saving */
		waitpid(pid, NULL, 0);
		return false;
	}
}

/* All that the supervisor needs was opened by the agent: from here on nothing is root's. */
static int give_up_rights(struct front *f)
{
	int keep[] = {f->tcp_fd, f->unix_fd, f->snapshot_fd, f->worker_command_fd,
		      f->supervisor_notice_fd};
	int err = sandbox_keep_fds(keep, sizeof(keep) / sizeof(keep[0]));

	if (err)
		return log_err(err, "front: closing inherited descriptors");
	f->tcp_fd = keep[0];
	f->unix_fd = keep[1];
	f->snapshot_fd = keep[2];
	f->worker_command_fd = keep[3];
	f->supervisor_notice_fd = keep[4];
	err = sandbox_enter(f->uid, f->gid, f->agent,
			    f->config->api.max_connections + HTTP_FDS_EXTRA);
	return err ? log_err(err, "front: giving up rights") : 0;
}

static void supervise(struct front *f)
{
	uint64_t backoff = FRONT_BACKOFF_MIN;
	bool go_on = true;
	pid_t self = getpid();
	sigset_t set;

	prctl(PR_SET_NAME, "kilterd-front");
	signal(SIGINT, SIG_IGN); /* Ctrl-C goes to the whole group: the agent decides */
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_SETMASK, &set, NULL);
	if (give_up_rights(f))
		_exit(1);
	f->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (f->signal_fd < 0)
		_exit(1);
	while (go_on) {
		uint64_t start = clock_ns(CLOCK_MONOTONIC);
		pid_t pid = fork();

		if (!pid)
			worker(f, self);
		if (pid > 0) {
			notice(f, (uint32_t)pid);
			if (!watch(f, pid))
				break;
			notice(f, 0);
		}
		if (clock_ns(CLOCK_MONOTONIC) - start > FRONT_STEADY_NS)
			backoff = FRONT_BACKOFF_MIN;
		go_on = pause_for(f, backoff);
		backoff = backoff * 2 > FRONT_BACKOFF_MAX ? FRONT_BACKOFF_MAX : backoff * 2;
	}
	_exit(0);
}

/* The agent's part. */

static int open_tcp(const char *listen_at, int *ret)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} at = {0};
	_cleanup_close_ int fd = -1;
	char host[64];
	bool wildcard;
	uint16_t port;
	int one = 1, err;

	err = http_split_listen(listen_at, host, &port, &wildcard);
	if (err)
		return err;
	if (!strcmp(host, "localhost"))
		snprintf(host, sizeof(host), "127.0.0.1");
	else if (!*host || !strcmp(host, "*"))
		snprintf(host, sizeof(host), "0.0.0.0");
	if (inet_pton(AF_INET, host, &at.v4.sin_addr) == 1) {
		at.v4.sin_family = AF_INET;
		at.v4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, host, &at.v6.sin6_addr) == 1) {
		at.v6.sin6_family = AF_INET6;
		at.v6.sin6_port = htons(port);
	} else {
		return -EINVAL;
	}
	fd = socket(at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, &at.any, at.any.sa_family == AF_INET ? sizeof(at.v4) : sizeof(at.v6)) ||
	    listen(fd, FRONT_BACKLOG))
		return -errno;
	*ret = take_fd(&fd);
	return 0;
}

static int unix_address(const char *path, struct sockaddr_un *addr)
{
	if (strlen(path) >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(addr->sun_path, sizeof(addr->sun_path), "%s", path);
	return 0;
}

/* A socket that nobody listens on is what a killed daemon left. */
static int remove_stale(const struct sockaddr_un *addr)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(addr->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(addr->sun_path) && errno != ENOENT ? -errno : 0;
}

static int open_unix(struct front *f, const char *path, gid_t gid)
{
	_cleanup_close_ int fd = -1;
	char dir[CONFIG_PATH_LEN], *slash;
	struct sockaddr_un addr;
	struct stat st;
	mode_t mask;
	int err;

	err = unix_address(path, &addr);
	if (err)
		return err;
	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		if (mkdir(dir, 0755) && errno != EEXIST)
			return -errno;
	}
	err = remove_stale(&addr);
	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	mask = umask(0117); /* 0660 from the first moment */
	err = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
	umask(mask);
	if (err)
		return err;
	if ((gid != (gid_t)-1 && chown(path, (uid_t)-1, gid)) || listen(fd, FRONT_BACKLOG) ||
	    lstat(path, &st)) {
		err = -errno;
		unlink(path);
		return err;
	}
	snprintf(f->socket_path, sizeof(f->socket_path), "%s", path);
	f->socket_dev = st.st_dev;
	f->socket_ino = st.st_ino;
	f->unix_fd = take_fd(&fd);
	return 0;
}

static void remove_socket(const struct front *f)
{
	struct stat st;

	if (*f->socket_path && !lstat(f->socket_path, &st) && st.st_dev == f->socket_dev &&
	    st.st_ino == f->socket_ino)
		unlink(f->socket_path);
}

/* A static program must not load the modules of another machine's C library: /etc/passwd and
 * /etc/group are all it asks. */
static void users_from_files(void)
{
#ifdef KILTER_STATIC
	__nss_configure_lookup("passwd", "files");
	__nss_configure_lookup("group", "files");
#endif
}

/* The user's ids, or those of nobody. Root is none to serve as. */
static int find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	const char *const names[] = {name, "nobody"};
	char buf[FRONT_NSS_MAX];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct passwd pw, *found = NULL;

		if (!*names[i] || getpwnam_r(names[i], &pw, buf, sizeof(buf), &found) || !found)
			continue;
		if (!pw.pw_uid)
			return -EPERM;
		*ret_uid = pw.pw_uid;
		*ret_gid = pw.pw_gid;
		return 0;
	}
	return -ENOENT;
}

static int find_group(const char *name, gid_t *ret)
{
	struct group gr, *found = NULL;
	char buf[FRONT_NSS_MAX];

	*ret = (gid_t)-1; /* the creator's */
	if (!*name)
		return 0;
	if (getgrnam_r(name, &gr, buf, sizeof(buf), &found) || !found)
		return -ENOENT;
	*ret = gr.gr_gid;
	return 0;
}

static void close_all(struct front *f)
{
	int *const fds[] = {&f->tcp_fd,	    &f->unix_fd,
			    &f->command_fd, &f->worker_command_fd,
			    &f->notice_fd,  &f->supervisor_notice_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int open_sockets(struct front *f, const struct config *c)
{
	gid_t gid;
	int err;

	users_from_files();
	err = find_group(c->socket_group, &gid);
	if (err)
		return log_err(err, "front: socket_group %s", c->socket_group);
	err = *c->listen ? open_tcp(c->listen, &f->tcp_fd) : 0;
	if (err)
		return log_err(err, "front: listening on %s", c->listen);
	err = *c->socket ? open_unix(f, c->socket, gid) : 0;
	if (err)
		return log_err(err, "front: listening on %s", c->socket);
	err = find_user(c->front_user, &f->uid, &f->gid);
	if (err)
		return log_err(err, "front: serving as user %s or nobody", c->front_user);
	return 0;
}

int front_reload_tokens(struct front *f, char ret_text[static FRONT_TEXT_LEN])
{
	const char *path = f->config->api.token_file;
	char why[TOKENS_WHY_LEN];
	struct tokens tokens;
	int err;

	if (!f->tokens)
		return -ENODATA;
	err = tokens_read(path, &tokens, why);
	if (err) {
		snprintf(ret_text, FRONT_TEXT_LEN, "api.token_file: %s%s%s", path,
			 *why == ' ' ? "" : ":", why);
		return err;
	}
	token_store_set(f->tokens, &tokens);
	snprintf(ret_text, FRONT_TEXT_LEN, "api.token_file: %s: %u tokens", path, tokens.count);
	explicit_bzero(&tokens, sizeof(tokens));
	return 0;
}

static int start_tokens(struct front *f)
{
	char text[FRONT_TEXT_LEN];
	int err;

	if (!*f->config->api.token_file)
		return 0;
	err = token_store_new(&f->tokens);
	if (err)
		return log_err(err, "front: memory for tokens");
	err = front_reload_tokens(f, text);
	log_write(err ? LOG_ERROR : LOG_INFO, "%s", text);
	return err;
}

int front_start(struct front **ret, const struct config *c, int snapshot_fd)
{
	struct front *f = calloc(1, sizeof(*f));
	int pair[2], pipe_fds[2], err;

	if (!f)
		return log_err(-ENOMEM, "front");
	*f = (struct front){.config = c,
			    .snapshot_fd = snapshot_fd,
			    .tcp_fd = -1,
			    .unix_fd = -1,
			    .command_fd = -1,
			    .worker_command_fd = -1,
			    .notice_fd = -1,
			    .supervisor_notice_fd = -1,
			    .agent = getpid()};
	err = start_tokens(f);
	if (!err)
		err = open_sockets(f, c);
	if (err)
		goto fail;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		err = log_err(-errno, "front: socketpair");
		goto fail;
	}
	f->command_fd = pair[0];
	f->worker_command_fd = pair[1];
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK)) {
		err = log_err(-errno, "front: pipe");
		goto fail;
	}
	f->notice_fd = pipe_fds[0];
	f->supervisor_notice_fd = pipe_fds[1];
	f->supervisor = fork();
	if (f->supervisor < 0) {
		err = log_err(-errno, "front: fork");
		goto fail;
	}
	if (!f->supervisor) {
		supervise(f);
	}
	close(f->tcp_fd);
	close(f->unix_fd);
	close(f->worker_command_fd);
	close(f->supervisor_notice_fd);
	f->tcp_fd = f->unix_fd = f->worker_command_fd = f->supervisor_notice_fd = -1;
	*ret = f;
	return 0;
fail:
	remove_socket(f);
	close_all(f);
	token_store_free(&f->tokens);
	free(f);
	return err;
}

int front_command_fd(const struct front *f)
{
	return f->command_fd;
}

pid_t front_supervisor_pid(const struct front *f)
{
	return f->supervisor;
}

int front_notice_fd(const struct front *f)
{
	return f->notice_fd;
}

void front_stop(struct front **pf, uint64_t grace_ns)
{
	struct front *f = *pf;
	uint64_t until;
	pid_t got = 0;

	if (!f)
		return;
	remove_socket(f);
	close(f->notice_fd); /* see next_signal() */
	f->notice_fd = -1;
	until = clock_ns(CLOCK_MONOTONIC) + grace_ns;
	while ((got = waitpid(f->supervisor, NULL, WNOHANG)) == 0 &&
	       clock_ns(CLOCK_MONOTONIC) < until) {
		struct timespec ts = {.tv_nsec = (long)(5 * NS_PER_MS)};

		nanosleep(&ts, NULL);
	}
	/* If it still lives it dies with us (PR_SET_PDEATHSIG), and its worker with it. */
	if (!got && !kill(f->supervisor, SIGKILL))
		waitpid(f->supervisor, NULL, 0);
	close_all(f);
	token_store_free(&f->tokens);
	free(f);
	*pf = NULL;
}
