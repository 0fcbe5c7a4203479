// SPDX-License-Identifier: Apache-2.0
/*
 * Adoption where no iterator can: every descriptor of the observed processes that is a TCP socket
 * is borrowed with pidfd_getfd(2) (Linux 5.6; CAP_SYS_PTRACE), asked what it is, and told to the
 * program in the kernel by a setsockopt(2) that only that program knows (<kilter/adopt.h>). The
 * hook runs for sockets of its own cgroup alone: those of others answer ENOPROTOOPT.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include <kilter/adopt.h>

#include "core/cleanup.h"
#include "core/log.h"
#include "probe/adopt.h"
#include "probe/probe.h"

struct listen_port {
	uint64_t netns; /* inode */
	uint16_t port;	/* host order */
};

struct walk {
	struct listen_port *ports; /* in the order of compare_ports once pass 1 is over */
	size_t ports_count, ports_size;
	uint64_t secret, lost_ports, refused;
	uint64_t cgroup_id; /* of the processes under way */
	bool listeners;	    /* the pass */
};

struct owner {
	int pidfd;
	uint64_t netns;
	struct kilter_adoptee told; /* what is the same for all its sockets */
};

static int compare_ports(const void *pa, const void *pb)
{
	const struct listen_port *a = pa, *b = pb;

	if (a->netns != b->netns)
		return a->netns < b->netns ? -1 : 1;
	return (int)a->port - (int)b->port;
}

/* The first line of /proc/PID/NAME that starts with `start`, what follows it; "" when there is
 * none. */
static void proc_line(const char *pid, const char *name, const char *start, char *ret, size_t size)
{
	char path[64], line[CONFIG_PATH_LEN + 64];
	_cleanup_fclose_ FILE *f = NULL;

	ret[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%.16s/%s", pid, name);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, start, strlen(start)))
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(ret, size, "%s", line + strlen(start));
		return;
	}
}

static uint64_t inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_ino;
}

/* As bpf/lib/identity.h has it: the executable's basename, the kernel's name of a process without.
 */
static void describe(const struct walk *w, const char *pid, struct owner *o)
{
	struct kilter_adoptee *t = &o->told;
	char line[CONFIG_PATH_LEN], path[64], exe[CONFIG_PATH_LEN];
	const char *name;
	ssize_t n;

	memset(t, 0, sizeof(*t));
	t->secret = w->secret;
	t->pid = (uint32_t)strtoul(pid, NULL, 10);
	proc_line(pid, "status", "Uid:", line, sizeof(line));
	t->uid = (uint32_t)strtoul(line, NULL, 10);
	proc_line(pid, "comm", "", line, sizeof(line));
	memcpy(t->comm, line, strnlen(line, sizeof(t->comm) - 1));
	snprintf(path, sizeof(path), "/proc/%.16s/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n > 0) {
		static const char deleted[] = " (deleted)";
		size_t len = (size_t)n, tail = sizeof(deleted) - 1;

		if (len > tail && !memcmp(exe + len - tail, deleted, tail))
			len -= tail;
		exe[len] = '\0';
		name = strrchr(exe, '/');
		name = name ? name + 1 : exe;
	} else {
		name = t->comm;
	}
	memcpy(t->key.exe, name, strnlen(name, sizeof(t->key.exe) - 1));
	t->key.cgroup_id = w->cgroup_id;
	snprintf(path, sizeof(path), "/proc/%.16s/ns/net", pid);
	o->netns = inode_of(path);
}

/* Addresses as the kernel's side keeps them. */
static __be16 port_of(const struct sockaddr_storage *ss)
{
	return ss->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)ss)->sin6_port
					 : ((const struct sockaddr_in *)ss)->sin_port;
}

static void peer_of(const struct sockaddr_storage *ss, struct kilter_peer *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->port_be = port_of(ss);
	ret->family = KILTER_FAMILY_V4;
	if (ss->ss_family == AF_INET) {
		memcpy(ret->addr, &((const struct sockaddr_in *)ss)->sin_addr, 4);
	} else {
		const struct in6_addr *a = &((const struct sockaddr_in6 *)ss)->sin6_addr;

		if (IN6_IS_ADDR_V4MAPPED(a)) {
			memcpy(ret->addr, &a->s6_addr[12], 4);
		} else {
			memcpy(ret->addr, a, 16);
			ret->family = KILTER_FAMILY_V6;
		}
	}
}

static bool is_tcp(int fd)
{
	int protocol = 0, type = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) || protocol != IPPROTO_TCP)
		return false;
	len = sizeof(int);
	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM;
}

static void remember_port(struct walk *w, const struct owner *o, __be16 port_be)
{
	if (w->ports_count >= KILTER_LISTENERS_MAX) {
		w->lost_ports++;
		return;
	}
	if (w->ports_count == w->ports_size) {
		size_t size = w->ports_size ? 2 * w->ports_size : 64;
		struct listen_port *ports = reallocarray(w->ports, size, sizeof(*ports));

		if (!ports) {
			w->lost_ports++;
			return;
		}
		w->ports = ports;
		w->ports_size = size;
	}
	w->ports[w->ports_count++] =
	    (struct listen_port){.netns = o->netns, .port = be16toh(port_be)};
}

static void socket_seen(struct walk *w, const struct owner *o, int fd)
{
	struct sockaddr_storage local = {0}, remote = {0};
	socklen_t local_len = sizeof(local), remote_len = sizeof(remote), len;
	struct kilter_adoptee told = o->told;
	struct tcp_info info = {0};

	len = sizeof(info);
	if (!is_tcp(fd) || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    getsockname(fd, (struct sockaddr *)&local, &local_len))
		return;
	if (w->listeners != (info.tcpi_state == TCP_LISTEN))
		return;
	told.local_port_be = port_of(&local);
	if (info.tcpi_state == TCP_LISTEN) {
		remember_port(w, o, told.local_port_be);
		told.as = KILTER_ADOPT_LISTENER;
		told.queue_length = info.tcpi_unacked; /* tcp_get_info() of the kernel */
		told.queue_limit = info.tcpi_sacked;
	} else if (info.tcpi_state == TCP_ESTABLISHED) {
		struct listen_port at = {.netns = o->netns, .port = be16toh(told.local_port_be)};

		if (getpeername(fd, (struct sockaddr *)&remote, &remote_len))
			return;
		peer_of(&remote, &told.remote);
		told.as = KILTER_ADOPT_CLIENT;
		if (w->ports && bsearch(&at, w->ports, w->ports_count, sizeof(at), compare_ports))
			told.as = KILTER_ADOPT_SERVER;
	} else {
		told.as = KILTER_ADOPT_OWNER;
	}
	/* ENOPROTOOPT: not of the observed cgroup. Nothing else can fail that would matter. */
	setsockopt(fd, KILTER_ADOPT_LEVEL, KILTER_ADOPT_NAME, &told, sizeof(told));
}

static void process_seen(struct walk *w, const char *pid)
{
	char path[64], link[64];
	_cleanup_closedir_ DIR *d = NULL;
	_cleanup_close_ int pidfd = -1;
	const struct dirent *e;
	struct owner o = {.pidfd = -1};
	bool refused = false;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	if (!d) { /* gone, or not ours to look at */
		w->refused += w->listeners && errno == EACCES;
		return;
	}
	while ((e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
		_cleanup_close_ int fd = -1;

		if (n <= 8 || strncmp(link, "socket:[", 8))
			continue;
		if (pidfd < 0) {
			pidfd = (int)syscall(SYS_pidfd_open, strtol(pid, NULL, 10), 0);
			if (pidfd < 0)
				return;
			describe(w, pid, &o);
		}
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, strtol(e->d_name, NULL, 10), 0);
		if (fd >= 0)
			socket_seen(w, &o, fd);
		else if (errno == EPERM)
			refused = true;
	}
	w->refused += w->listeners && refused;
}

static void cgroup_seen(struct walk *w, const FTSENT *dir)
{
	char path[CONFIG_PATH_LEN + 16], line[32];
	_cleanup_fclose_ FILE *f = NULL;

	snprintf(path, sizeof(path), "%.255s/cgroup.procs", dir->fts_path);
	w->cgroup_id = dir->fts_statp->st_ino; /* kernfs: the id of a cgroup is its inode's */
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "0")) /* of a pid namespace that we do not see */
			process_seen(w, line);
	}
}

static int every_process(struct walk *w, char *cgroup_dir)
{
	char *const roots[] = {cgroup_dir, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	const FTSENT *e;

	if (!fts)
		return -errno;
	while ((e = fts_read(fts)))
		if (e->fts_info == FTS_D)
			cgroup_seen(w, e);
	fts_close(fts);
	return 0;
}

int adopt_by_hand(const struct bpf_program *prog, int cgroup_fd, uint64_t secret)
{
	struct walk w = {.secret = secret, .listeners = true};
	char link_path[64], dir[CONFIG_PATH_LEN];
	struct bpf_link *link = NULL;
	ssize_t n;
	int err;

	snprintf(link_path, sizeof(link_path), "/proc/self/fd/%d", cgroup_fd);
	n = readlink(link_path, dir, sizeof(dir) - 1);
	if (n < 0)
		return -errno;
	dir[n] = '\0';
	link = bpf_program__attach_cgroup(prog, cgroup_fd);
	err = (int)libbpf_get_error(link);
	if (err)
		return err;
	err = every_process(&w, dir);
	if (w.ports_count)
		qsort(w.ports, w.ports_count, sizeof(*w.ports), compare_ports);
	w.listeners = false;
	if (!err)
		err = every_process(&w, dir);
	bpf_link__destroy(link);
	free(w.ports);
	if (w.lost_ports)
		log_warn(
		    "%lu listeners more than %u: connections to them may be taken for clients'",
		    (unsigned long)w.lost_ports, (unsigned int)KILTER_LISTENERS_MAX);
	if (!err && w.refused) {
		log_warn("the sockets of %lu processes cannot be borrowed: CAP_SYS_PTRACE is "
			 "missing at start",
			 (unsigned long)w.refused);
		err = -EACCES;
	}
	return err;
}
