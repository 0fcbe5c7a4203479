// SPDX-License-Identifier: Apache-2.0
#include "probe/iter.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "core/cleanup.h"
#include "probe/netns.h"

struct guard_iter {
	struct bpf_link *join, *close;
	struct netns *elsewhere; /* not ours */
};

int iter_run(int link_fd)
{
	_cleanup_close_ int fd = bpf_iter_create(link_fd);
	int written = 0;
	char buf[256];
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, buf, sizeof(buf));
		written += n > 0 ? (int)n : 0;
	} while (n > 0 || (n < 0 && errno == EAGAIN));
	return n < 0 ? -errno : written;
}

static int attach(const struct probe_set *set, const char *name, int map_fd, struct bpf_link **ret)
{
	union bpf_iter_link_info info = {.map.map_fd = (__u32)map_fd};
	LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_program *prog = probe_program(set, name);
	struct bpf_link *link;
	long err;

	if (!prog)
		return -ENOTSUP;
	link = bpf_program__attach_iter(prog, map_fd < 0 ? NULL : &opts);
	err = libbpf_get_error(link);
	if (err)
		return (int)err;
	*ret = link;
	return 0;
}

int guard_iter_new(struct guard_iter **ret, const struct probe_set *set)
{
	struct guard_iter *g = calloc(1, sizeof(*g));
	int err;

	if (!g)
		return -ENOMEM;
	err = attach(set, "guard_join", probe_map_fd(set, "socks"), &g->join);
	if (!err) {
		err = attach(set, "guard_close", -1, &g->close);
		if (err == -ENOTSUP) /* the lower tier */
			err = 0;
	}
	if (err) {
		guard_iter_free(&g);
		return err;
	}
	*ret = g;
	return 0;
}

void guard_iter_free(struct guard_iter **pg)
{
	if (!*pg)
		return;
	bpf_link__destroy((*pg)->join);
	bpf_link__destroy((*pg)->close);
	free(*pg);
	*pg = NULL;
}

int guard_iter_join(void *guard_iter)
{
	const struct guard_iter *g = guard_iter;

	return iter_run(bpf_link__fd(g->join));
}

int guard_iter_close(void *guard_iter)
{
	const struct guard_iter *g = guard_iter;

	if (g->elsewhere)
		netns_ask(g->elsewhere);
	return g->close ? iter_run(bpf_link__fd(g->close)) : -ENOTSUP;
}

int guard_iter_everywhere(struct guard_iter *g, struct netns **ret)
{
	int err;

	if (!g->close)
		return -ENOTSUP;
	err = netns_start(ret, g->close);
	if (!err)
		g->elsewhere = *ret;
	return err;
}
