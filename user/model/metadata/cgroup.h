/* SPDX-License-Identifier: Apache-2.0 */
/* What a cgroup path says about who runs in it, and the path behind a cgroup id. */
#ifndef KILTER_MODEL_METADATA_CGROUP_H
#define KILTER_MODEL_METADATA_CGROUP_H

#include <stddef.h>
#include <stdint.h>

enum cgroup_kind {
	CGROUP_OTHER, /* named after the executable */
	CGROUP_UNIT,  /* a systemd service */
	CGROUP_CONTAINER,
};

struct cgroup_identity {
	enum cgroup_kind kind;
	char container_id[72];
	char pod_uid[40];
	char unit[96]; /* without ".service" */
};

/* Pure. path is relative to the cgroup v2 mount ("/system.slice/nginx.service"). The deepest
 * container wins over any unit; the deepest service wins unless a scope lies below it. */
void cgroup_parse(const char *path, struct cgroup_identity *ret);

/* The mount point of cgroup v2 in the text of a mountinfo file; -ENOENT. Pure. */
int cgroup_find_mount(const char *mountinfo, char *ret, size_t size);

#define CGROUP_PATH_MAX	 256
#define CGROUP_CACHE_MAX 16384 /* paths remembered; the one seen first goes first */
#define CGROUP_WALK_MAX	 65536 /* directories remembered of a walk of the tree, ~64 bytes each */

struct cgroup_resolver;
int cgroup_resolver_new(struct cgroup_resolver **ret);
/*
 * Keeps the paths in `file` as well, so that what a service has counted stays under its name when
 * its cgroup is gone (the service was restarted) and then the daemon is started anew. The file
 * is one boot's: ids begin anew with the kernel. Negative errno: nothing is kept.
 */
int cgroup_resolver_keep(struct cgroup_resolver *r, const char *file);
/* Paths that could not be written to the file. */
uint64_t cgroup_resolver_unkept(const struct cgroup_resolver *r);
void cgroup_resolver_free(struct cgroup_resolver **r);
/* Writes the path, "/" for the root. pid: a task that was in it, 0 for none; it saves a walk of the
 * tree. -ENOENT: no such cgroup (any more). */
int cgroup_resolve(struct cgroup_resolver *r, uint64_t id, uint32_t pid,
		   char ret[static CGROUP_PATH_MAX]);

#endif
