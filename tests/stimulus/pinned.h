/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned maps of a running daemon, into which a stimulus writes what the kernel would. */
#ifndef KILTER_STIMULUS_PINNED_H
#define KILTER_STIMULUS_PINNED_H

#include <err.h>
#include <stdio.h>

#include <bpf/bpf.h>

struct pinned {
	const char *name;
	int fd;
};

/* What fails ends the program, and says with which map. */
static inline struct pinned pinned_open(const char *dir, const char *name)
{
	struct pinned m = {.name = name};
	char path[512];

	snprintf(path, sizeof(path), "%.400s/%s", dir, name);
	m.fd = bpf_obj_get(path);
	if (m.fd < 0)
		err(1, "%s", path);
	return m;
}

static inline void pinned_put(const struct pinned *m, const void *key, const void *value)
{
	if (bpf_map_update_elem(m->fd, key, value, BPF_ANY))
		err(1, "no room in %s", m->name);
}

#endif
