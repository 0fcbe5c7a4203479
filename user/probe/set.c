// SPDX-License-Identifier: Apache-2.0
/*
 * Loading, attaching and pinning. Maps are pinned by libbpf (LIBBPF_PIN_BY_NAME) in
 * <bpffs>/, links by us in <bpffs>/links/<program>. When a link is already there, an earlier
 * daemon left it counting: a cgroup link is updated in place (no packet is missed: measured
 * 0 of 3.6 million), a tracing link cannot be updated and is replaced.
 */
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/limits.h>
#include <kilter/series.h>

#include "core/bus.h"
#include "core/cleanup.h"
#include "core/log.h"
#include "probe/mount.h"
#include "probe/probe.h"
#include "probe/registry.h"

#define ENOTSUPP 524 /* the kernel's own, which strerror() does not know */

struct attached {
	const struct probe_program *desc;
	struct bpf_program *prog;
	struct bpf_link *link;
};

struct loaded {
	const struct probe_row *row;
	struct bpf_object *obj;
	void *skel;
	struct attached programs[PROBE_PROGRAMS_MAX];
	char tier[16], reason[256];
	bool running, off;
};

struct probe_set {
	char dir[CONFIG_PATH_LEN], links[CONFIG_PATH_LEN + 8];
	int lock_fd, cgroup_fd;
	uint64_t cgroup_id, adopt_secret;
	bool resumed;
	struct loaded probes[PROBE_MAX];
};

/* The last lines libbpf printed, for the reason of a failure. */
static char libbpf_last[256];
static bool libbpf_mismatch; /* a pinned map is of another layout */

__attribute__((format(printf, 2, 0))) static int libbpf_print(enum libbpf_print_level level,
							      const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	if (level == LIBBPF_DEBUG)
		return 0;
	vsnprintf(line, sizeof(line), fmt, ap);
	len = strcspn(line, "\n");
	line[len] = '\0';
	if (!strncmp(line, "libbpf: ", 8))
		memmove(line, line + 8, strlen(line + 8) + 1);
	if (level == LIBBPF_WARN)
		snprintf(libbpf_last, sizeof(libbpf_last), "%.255s", line);
	if (strstr(line, "reuse pinned map") && strstr(line, "mismatch"))
		libbpf_mismatch = true;
	log_debug("libbpf: %s", line);
	return 0;
}

static struct bpf_program *find_program(const struct loaded *p, const char *name)
{
	return p->obj ? bpf_object__find_program_by_name(p->obj, name) : NULL;
}

static uint32_t shard_mask(void)
{
	int cpus = libbpf_num_possible_cpus();
	uint32_t shards = 1;

	while ((int)shards < cpus && shards < KILTER_SHARDS)
		shards *= 2;
	return shards - 1;
}

/* Map sizes that the configuration sets; a pinned map keeps the size it was made with. */
static void size_maps(struct bpf_object *obj, const struct config *c, const char *dir)
{
	const struct {
		const char *map;
		uint32_t max, reserve;
	} sizes[] = {
	    {"series", c->limits.series, KILTER_SERIES_OVERFLOWS},
	    {"conns", c->limits.conns, 0},
	    {"workloads", c->limits.workloads, 0},
	    {"peers", c->limits.peers, 0},
	    {"routes", c->limits.routes, 0},
	    {"route_counts", c->limits.workloads, 0},
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, sizes[i].map);
		char path[CONFIG_PATH_LEN + 64];
		struct bpf_map_info info = {};
		__u32 len = sizeof(info), max = sizes[i].max + sizes[i].reserve;
		_cleanup_close_ int fd = -1;

		if (!map || !sizes[i].max)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, sizes[i].map);
		fd = bpf_obj_get(path);
		if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len) &&
		    info.max_entries != max) {
			max = info.max_entries;
			if (max != sizes[i].max) /* nor is it of a version without a reserve */
				log_warn("limits.%s: the pinned map was made for %u entries and "
					 "keeps that size; stop with --unpin to apply %u",
					 sizes[i].map, max - sizes[i].reserve, sizes[i].max);
		}
		bpf_map__set_max_entries(map, max);
	}
}

static int attach_one(struct probe_set *set, struct attached *a)
{
	char path[CONFIG_PATH_LEN + 80];
	struct bpf_link *old;
	int err;

	snprintf(path, sizeof(path), "%s/%s", set->links, a->desc->name);
	old = bpf_link__open(path);
	if (libbpf_get_error(old))
		old = NULL;
	if (old && a->desc->attach == PROBE_ATTACH_CGROUP) {
		struct bpf_link_info info = {};
		__u32 len = sizeof(info);

		if (!bpf_obj_get_info_by_fd(bpf_link__fd(old), &info, &len) &&
		    info.cgroup.cgroup_id == set->cgroup_id &&
		    !bpf_link__update_program(old, a->prog)) {
			a->link = old;
			return 0;
		}
		/* Another cgroup, or one that was removed under the link. */
		bpf_link__unpin(old);
		bpf_link__destroy(old);
		old = NULL;
	}
	if (old && !a->desc->overlap) {
		bpf_link__unpin(old);
		bpf_link__destroy(old);
		old = NULL;
	}
	a->link = a->desc->attach == PROBE_ATTACH_CGROUP
		      ? bpf_program__attach_cgroup(a->prog, set->cgroup_fd)
		      : bpf_program__attach(a->prog);
	err = (int)libbpf_get_error(a->link);
	if (err) {
		a->link = NULL;
		if (old)
			bpf_link__disconnect(old), bpf_link__destroy(old);
		return err;
	}
	if (old) {
		bpf_link__unpin(old);
		bpf_link__destroy(old);
	}
	err = bpf_link__pin(a->link, path);
	if (err) {
		bpf_link__destroy(a->link);
		a->link = NULL;
	}
	return err;
}

static int load_row(struct probe_set *set, struct loaded *p, const struct probe_options *o)
{
	int err;

	errno = 0;
	p->obj = p->row->open(o, &p->skel);
	if (!p->obj)
		return errno ? -errno : -EINVAL;
	size_maps(p->obj, o->config, set->dir);
	probe_row_choose(p->row, p->obj, o->tier);
	libbpf_last[0] = '\0';
	err = bpf_object__load(p->obj);
	if (err)
		snprintf(p->reason, sizeof(p->reason), "%s (%.150s)", strerror(-err), libbpf_last);
	return err;
}

static void unload_row(struct loaded *p)
{
	for (unsigned int i = 0; i < PROBE_PROGRAMS_MAX; i++)
		if (p->programs[i].link)
			bpf_link__destroy(p->programs[i].link);
	memset(p->programs, 0, sizeof(p->programs));
	if (p->skel)
		p->row->destroy(p->skel);
	p->obj = NULL;
	p->skel = NULL;
}

/* Programs on tracepoints learn from this map which tasks are ours (bpf/lib/observed.h). */
static int observe_cgroup(const struct probe_set *set, const struct loaded *p)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(p->obj, "observed_cgroup");
	uint32_t zero = 0;

	if (map && bpf_map_update_elem(bpf_map__fd(map), &zero, &set->cgroup_fd, BPF_ANY))
		return -errno;
	return 0;
}

/* The overflow series, before anything counts: a full map makes none. */
static int make_overflow_series(const struct loaded *p)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(p->obj, "series");
	static const uint8_t roles[] = {KILTER_ROLE_SERVER, KILTER_ROLE_CLIENT};
	static const struct kilter_series none;

	if (!map)
		return 0;
	for (unsigned int i = 0; i < KILTER_SERIES_OVERFLOWS; i++) {
		unsigned int kind = i / 2;
		struct kilter_series_key key = {.role = roles[i % 2],
						.protocol = KILTER_PROTO_HTTP1};

		if (kind < 5)
			key.status = (uint16_t)((kind + 1) * 100);
		else
			key.error = (uint8_t)(kind - 4);
		kilter_series_to_overflow(&key);
		if (bpf_map_update_elem(bpf_map__fd(map), &key, &none, BPF_NOEXIST) &&
		    errno != EEXIST && errno != E2BIG) /* full already, made without them */
			return -errno;
	}
	return 0;
}

/* What an earlier daemon pinned of programs that this tier does not have. Those whose like may run
 * but once have to be gone before this tier's are attached. */
static void unpin_other_tiers(const struct probe_set *set, const struct loaded *p, bool overlap)
{
	char path[CONFIG_PATH_LEN + 80];

	for (unsigned int i = 0; i < PROBE_PROGRAMS_MAX && p->row->programs[i].name; i++) {
		const struct probe_program *desc = &p->row->programs[i];
		const struct bpf_program *prog = find_program(p, desc->name);
		struct bpf_link *old;

		if (desc->overlap != overlap || (prog && bpf_program__autoload(prog)))
			continue;
		snprintf(path, sizeof(path), "%s/%s", set->links, desc->name);
		old = bpf_link__open(path);
		if (libbpf_get_error(old))
			continue;
		bpf_link__unpin(old);
		bpf_link__destroy(old);
	}
}

static bool is_known_program(const char *name)
{
	for (unsigned int i = 0; i < probe_rows_count; i++)
		for (unsigned int k = 0; k < PROBE_PROGRAMS_MAX && probe_rows[i].programs[k].name;
		     k++)
			if (!strcmp(probe_rows[i].programs[k].name, name))
				return true;
	return false;
}

/* What another build has pinned, of programs that this one does not have: they go on running. */
static void unpin_strangers(const struct probe_set *set)
{
	_cleanup_closedir_ DIR *d = opendir(set->links);
	const struct dirent *e;

	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.' || is_known_program(e->d_name))
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0))
			log_err(-errno, "cannot remove %s/%s", set->links, e->d_name);
	}
}

static int open_tier(struct probe_set *set, struct loaded *p, const struct probe_options *o)
{
	unsigned int n = 0;
	int err;

	err = load_row(set, p, o);
	if (err)
		return err;
	err = observe_cgroup(set, p);
	if (err) {
		snprintf(p->reason, sizeof(p->reason), "observed_cgroup: %s", strerror(-err));
		return err;
	}
	err = make_overflow_series(p);
	if (err) {
		snprintf(p->reason, sizeof(p->reason), "series: %s", strerror(-err));
		return err;
	}
	unpin_other_tiers(set, p, false);
	for (unsigned int i = 0; i < PROBE_PROGRAMS_MAX && p->row->programs[i].name; i++) {
		struct attached *a = &p->programs[n];

		a->desc = &p->row->programs[i];
		a->prog = find_program(p, a->desc->name);
		if (!a->prog || !bpf_program__autoload(a->prog))
			continue;
		n++;
		if (a->desc->attach != PROBE_ATTACH_CGROUP && a->desc->attach != PROBE_ATTACH_TRACE)
			continue;
		err = attach_one(set, a);
		if (err == -ENOTSUPP) /* no errno of user space */
			err = -EOPNOTSUPP;
		if (err) {
			snprintf(p->reason, sizeof(p->reason), "%s: attach: %s", a->desc->name,
				 strerror(-err));
			return err;
		}
	}
	unpin_other_tiers(set, p, true);
	p->running = true;
	return 0;
}

/* Opens the tier o->tier, which takes what `better` says (NULL: it is the lowest); p->reason says
 * why it did not work. */
static int try_tier(struct probe_set *set, struct loaded *p, struct probe_options *o,
		    const struct probe_better *better)
{
	char why[sizeof(p->reason)];
	int err;

	p->reason[0] = '\0';
	if (better && !better->allowed(o->config)) {
		snprintf(p->reason, sizeof(p->reason), "%s is false", better->setting);
		return -EOPNOTSUPP;
	}
	err = better && better->there ? better->there(p->reason, sizeof(p->reason)) : 0;
	if (!err)
		err = open_tier(set, p, o);
	if (err && better) {
		snprintf(why, sizeof(why), "no %s: %.150s", better->takes, p->reason);
		memcpy(p->reason, why, sizeof(why));
	}
	return err;
}

/* The best tier that neither the kernel nor the configuration refuses. */
static int open_row(struct probe_set *set, struct loaded *p, struct probe_options *o)
{
	const struct probe_better *better = p->row->better;
	char why[sizeof(p->reason)] = ""; /* not a better one */
	size_t len;
	int err;

	for (unsigned int i = 0;; i++) {
		bool lowest = i == PROBE_BETTER_MAX || !better[i].takes;

		o->tier = lowest && i ? PROBE_TIER_LOWER : PROBE_TIER_FULL + i;
		err = try_tier(set, p, o, lowest ? NULL : &better[i]);
		if (!err || lowest)
			break;
		unload_row(p);
		len = strlen(why);
		snprintf(why + len, sizeof(why) - len, "%s%s", len ? "; " : "", p->reason);
	}
	if (err) {
		unload_row(p);
		p->tier[0] = '\0';
		return err;
	}
	snprintf(p->tier, sizeof(p->tier), "%s", probe_tier_name(o->tier));
	memcpy(p->reason, why, sizeof(why));
	if (p->reason[0])
		log_info("probe %s: tier %s: %s", p->row->name, p->tier, p->reason);
	return 0;
}

static int take_lock(struct probe_set *set)
{
	set->lock_fd = open(set->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (set->lock_fd < 0)
		return -errno;
	if (flock(set->lock_fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return 0;
}

static int open_cgroup(struct probe_set *set, const char *dir)
{
	struct stat st;

	set->cgroup_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (set->cgroup_fd < 0 || fstat(set->cgroup_fd, &st))
		return log_err(-errno, "cgroup: cannot open %s: it must be a cgroup v2 directory",
			       dir);
	if (!probe_is_cgroup2(set->cgroup_fd)) {
		log_error("cgroup: %s is not a cgroup v2 directory (mount -t cgroup2 says where "
			  "they are)",
			  dir);
		return -ENOTDIR;
	}
	set->cgroup_id = st.st_ino; /* kernfs: the id of a cgroup is its inode's */
	return 0;
}

/* Another build's maps: nothing of theirs can be read. `rows` of ours use them already. */
static int start_anew(struct probe_set *set, unsigned int rows)
{
	log_warn("the pins below %s are of another layout: counters start anew", set->dir);
	for (unsigned int i = 0; i < rows; i++)
		unload_row(&set->probes[i]);
	probe_set_unpin(set);
	set->resumed = false;
	return probe_mkdir_p(set->links, 0700);
}

int probe_set_open(struct probe_set **ret, const struct config *c, const char *cgroup_dir)
{
	struct probe_options o = {.config = c};
	struct probe_set *set;
	int err;

	libbpf_set_print(libbpf_print);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	set = calloc(1, sizeof(*set));
	if (!set)
		return -ENOMEM;
	set->lock_fd = set->cgroup_fd = -1;
	snprintf(set->dir, sizeof(set->dir), "%s", c->bpffs);
	snprintf(set->links, sizeof(set->links), "%s/links", c->bpffs);
	if (access("/sys/kernel/btf/vmlinux", R_OK)) {
		err = -ENOSYS;
		log_error("/sys/kernel/btf/vmlinux: %s: kilter needs a kernel built with "
			  "CONFIG_DEBUG_INFO_BTF (Debian has it since 5.10)",
			  strerror(errno));
		goto fail;
	}
	err = probe_bpffs_prepare(c->bpffs);
	if (err) {
		log_err(err, "bpffs: cannot prepare %s", c->bpffs);
		goto fail;
	}
	err = take_lock(set);
	if (err == -EBUSY) {
		log_error("bpffs: %s is in use by another kilterd: stop it, or give this one its "
			  "own --bpffs, --cgroup, --socket and --listen",
			  c->bpffs);
		goto fail;
	} else if (err) {
		log_err(err, "bpffs: cannot lock %s", c->bpffs);
		goto fail;
	}
	err = open_cgroup(set, cgroup_dir);
	if (err)
		goto fail;
	set->resumed = !access(set->links, F_OK);
	err = probe_mkdir_p(set->links, 0700);
	if (err) {
		log_err(err, "bpffs: cannot make %s", set->links);
		goto fail;
	}
	o.pin_dir = set->dir;
	o.shard_mask = shard_mask();
	o.cgroup_id = set->cgroup_id;
	if (getrandom(&set->adopt_secret, sizeof(set->adopt_secret), 0) !=
	    sizeof(set->adopt_secret)) {
		err = -errno;
		log_err(err, "cannot get random bytes");
		goto fail;
	}
	o.adopt_secret = set->adopt_secret;
	for (unsigned int i = 0; i < probe_rows_count; i++) {
		struct loaded *p = &set->probes[i];

		p->row = &probe_rows[i];
		if (p->row->enabled && !p->row->enabled(c)) {
			snprintf(p->reason, sizeof(p->reason), "switched off in the configuration");
			p->off = true;
			continue;
		}
		libbpf_mismatch = false;
		err = open_row(set, p, &o);
		if (err && set->resumed && libbpf_mismatch) {
			err = start_anew(set, i + 1);
			if (err)
				goto fail;
			i = UINT_MAX; /* from the first one */
			continue;
		}
		if (!err)
			continue;
		if (err == -EPERM) {
			log_error("probe %s: %s: kilterd needs root, or CAP_BPF, CAP_PERFMON and "
				  "CAP_NET_ADMIN; before Linux 5.11 CAP_SYS_RESOURCE, too, or no "
				  "limit of locked memory",
				  p->row->name, p->reason);
			goto fail;
		}
		if (p->row->essential) {
			log_error("probe %s: %s: %s", p->row->name, p->reason, p->row->missing);
			err = err == -EINVAL || err == -EOPNOTSUPP ? -ENOSYS : err;
			goto fail;
		}
		log_warn("probe %s: %s: %s, going on without it", p->row->name, p->reason,
			 p->row->missing);
	}
	unpin_strangers(set);
	*ret = set;
	return 0;
fail:
	probe_set_close(&set);
	return err;
}

void probe_set_close(struct probe_set **pset)
{
	struct probe_set *set = *pset;

	if (!set)
		return;
	for (unsigned int i = 0; i < probe_rows_count; i++) {
		struct loaded *p = &set->probes[i];

		if (p->row)
			unload_row(p); /* the pins keep the links */
	}
	if (set->cgroup_fd >= 0)
		close(set->cgroup_fd);
	if (set->lock_fd >= 0)
		close(set->lock_fd);
	free(set);
	*pset = NULL;
}

static int unlink_all(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *e;
	int err = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		/* Our names have no dot; the kernel's own files in a bpffs (progs.debug) do. */
		if (strchr(e->d_name, '.') || e->d_type == DT_DIR)
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0))
			err = -errno;
	}
	return err;
}

int probe_set_unpin(struct probe_set *set)
{
	int err, err2;

	/* Links first: no program runs on half of its maps. */
	err = unlink_all(set->links);
	if (rmdir(set->links) && errno != ENOENT && !err)
		err = -errno;
	err2 = unlink_all(set->dir);
	return err ? err : err2;
}

bool probe_set_resumed(const struct probe_set *set)
{
	return set->resumed;
}

int probe_map_fd(const struct probe_set *set, const char *name)
{
	for (unsigned int i = 0; i < probe_rows_count; i++) {
		const struct bpf_map *map;

		if (!set->probes[i].obj)
			continue;
		map = bpf_object__find_map_by_name(set->probes[i].obj, name);
		if (map)
			return bpf_map__fd(map);
	}
	return -1;
}

struct bpf_program *probe_program(const struct probe_set *set, const char *name)
{
	for (unsigned int i = 0; i < probe_rows_count; i++) {
		struct bpf_program *prog = find_program(&set->probes[i], name);

		if (prog && bpf_program__autoload(prog))
			return prog;
	}
	return NULL;
}

uint64_t probe_adopt_secret(const struct probe_set *set)
{
	return set->adopt_secret;
}

int probe_cgroup_fd(const struct probe_set *set)
{
	return set->cgroup_fd;
}

int probe_program_fd(const struct probe_set *set, const char *name)
{
	const struct bpf_program *prog = probe_program(set, name);

	return prog ? bpf_program__fd(prog) : -1;
}

unsigned int probe_status(const struct probe_set *set, struct probe_status *ret, unsigned int max)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < probe_rows_count && n < max; i++, n++) {
		const struct loaded *p = &set->probes[i];
		struct probe_status *s = &ret[n];

		memset(s, 0, sizeof(*s));
		s->name = p->row->name;
		s->hooks = p->row->hooks;
		s->running = p->running;
		s->off = p->off;
		s->essential = p->row->essential;
		snprintf(s->tier, sizeof(s->tier), "%s", p->tier);
		snprintf(s->reason, sizeof(s->reason), "%s", p->reason);
		for (unsigned int k = 0; k < PROBE_PROGRAMS_MAX && p->programs[k].prog; k++) {
			struct bpf_prog_info info = {};
			__u32 len = sizeof(info);
			int fd = bpf_program__fd(p->programs[k].prog);

			if (fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &len)) {
				s->events += info.run_cnt;
				s->run_ns += info.run_time_ns;
			}
		}
	}
	return n;
}

int probe_set_verify(struct probe_set *set)
{
	int repaired = 0;

	for (unsigned int i = 0; i < probe_rows_count; i++) {
		struct loaded *p = &set->probes[i];

		for (unsigned int k = 0; k < PROBE_PROGRAMS_MAX && p->programs[k].prog; k++) {
			struct attached *a = &p->programs[k];
			struct bpf_link_info info = {};
			__u32 len = sizeof(info);
			int err;

			if (!a->link || a->desc->attach != PROBE_ATTACH_CGROUP)
				continue;
			if (!bpf_obj_get_info_by_fd(bpf_link__fd(a->link), &info, &len) &&
			    info.cgroup.cgroup_id == set->cgroup_id)
				continue;
			bpf_link__unpin(a->link);
			bpf_link__destroy(a->link);
			a->link = NULL;
			err = attach_one(set, a);
			if (err) {
				log_err(err, "probe %s: cannot attach %s again", p->row->name,
					a->desc->name);
				p->running = false;
				snprintf(p->reason, sizeof(p->reason), "%s was detached",
					 a->desc->name);
				continue;
			}
			repaired++;
			log_warn("probe %s: %s had been detached, attached again", p->row->name,
				 a->desc->name);
			bus_publish(&(struct bus_event){.kind = BUS_PROBE,
							.subject = p->row->name,
							.action = "reattached",
							.outcome = "success",
							.uid = UINT32_MAX});
		}
	}
	return repaired;
}

uint64_t probe_map_memory(const struct probe_set *set)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < probe_rows_count; i++) {
		struct bpf_map *map;

		if (!set->probes[i].obj)
			continue;
		bpf_object__for_each_map(map, set->probes[i].obj)
		{
			char path[64], line[128];
			_cleanup_fclose_ FILE *f = NULL;
			unsigned long long v;

			/* Shared maps are found once per object: count them with the first. */
			if (probe_map_fd(set, bpf_map__name(map)) != bpf_map__fd(map))
				continue;
			snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", bpf_map__fd(map));
			f = fopen(path, "re");
			while (f && fgets(line, sizeof(line), f))
				if (sscanf(line, "memlock: %llu", &v) == 1)
					bytes += v;
		}
	}
	return bytes;
}
