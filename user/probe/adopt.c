// SPDX-License-Identifier: Apache-2.0
#include "probe/adopt.h"

#include <errno.h>
#include <stdlib.h>

#include <bpf/libbpf.h>

#include "probe/iter.h"

enum {
	LISTENERS,
	CONNECTIONS,
	POLL,
	ITERATORS
};

struct adopt {
	const struct probe_set *set;
	struct bpf_link *links[ITERATORS];
	struct bpf_program *by_hand; /* the lower tier: no iterators */
};

int adopt_new(struct adopt **ret, const struct probe_set *set)
{
	static const char *const programs[ITERATORS] = {"adopt_listeners", "adopt_tcp",
							"poll_listeners"};
	struct adopt *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->set = set;
	a->by_hand = probe_program(set, "adopt_by_hand");
	for (int i = 0; i < ITERATORS && !a->by_hand; i++) {
		struct bpf_program *prog = probe_program(set, programs[i]);
		long err = -ENOTSUP;

		if (prog) {
			a->links[i] = bpf_program__attach_iter(prog, NULL);
			err = libbpf_get_error(a->links[i]);
		}
		if (err) {
			a->links[i] = NULL;
			adopt_free(&a);
			return (int)err;
		}
	}
	*ret = a;
	return 0;
}

void adopt_free(struct adopt **pa)
{
	if (!*pa)
		return;
	for (int i = 0; i < ITERATORS; i++)
		bpf_link__destroy((*pa)->links[i]);
	free(*pa);
	*pa = NULL;
}

int adopt_run(const struct adopt *a)
{
	int err;

	if (a->by_hand)
		return adopt_by_hand(a->by_hand, probe_cgroup_fd(a->set),
				     probe_adopt_secret(a->set));
	err = iter_run(bpf_link__fd(a->links[LISTENERS]));
	return err ? err : iter_run(bpf_link__fd(a->links[CONNECTIONS]));
}

int adopt_poll_listeners(const struct adopt *a)
{
	return a->by_hand ? 0 : iter_run(bpf_link__fd(a->links[POLL]));
}
