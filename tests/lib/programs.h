/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The BPF objects that see connections and requests, loaded into a sandbox as the daemon does it,
 * in one tier (user/probe/registry.c). What fails is an assertion.
 */
#ifndef KILTER_TESTS_PROGRAMS_H
#define KILTER_TESTS_PROGRAMS_H

#include <stdbool.h>

#include <kilter/series.h>

#include "sandbox.h"

struct bpf_link;
struct bpf_object;
struct bpf_object_skeleton;
struct bpf_program;

#define PROGRAMS_LINKS_MAX 16
#define PROGRAMS_SECRET	   42 /* of adoption by hand */

struct programs {
	struct sandbox sandbox;
	struct sock_owner *owner;
	struct tcp_conn *tcp;
	struct request *request;
	struct sock_iter *iter;
	struct guard_connect *guard;
	struct bpf_link *links[PROGRAMS_LINKS_MAX];
	unsigned int links_count;
};

/*
 * The tier of the run under way, and what main() of a test returns: calls run("full") and
 * run("lower"), or what KILTER_TEST_TIERS names (a kernel may have the lower one alone), and adds
 * what they return. Who is not root is told so, and the test counts as skipped.
 */
extern bool tier_lower;
int tier_runs(int (*run)(const char *name));
/* The same, once, in the best tier that is named: for what does not depend on it. */
int tier_run_best(int (*run)(const char *name));
void tier_choose(const char *row, const struct bpf_object *obj);
/* One object that is not among those below, opened and its tier chosen: for the sandbox's cgroup
 * alone. */
void object_load(struct bpf_object_skeleton *skel, const struct sandbox *sandbox);

void programs_load(struct programs *p);	  /* sandbox_init() and every object */
void programs_attach(struct programs *p); /* all that counts; nothing of the iterators */
void programs_link(struct programs *p,
		   const struct bpf_program *prog); /* to the sandbox's cgroup */
void programs_detach(struct programs *p);
void programs_done(struct programs *p);
/* Takes over what is older, once more, as the daemon does at start. */
void programs_adopt(struct programs *p);
/* Everything that was counted is forgotten. */
void programs_clear(struct programs *p);
/* The sums of all connection series, by enum kilter_role. */
void programs_conns(const struct programs *p, struct kilter_conn ret[3]);
/* The same, when the kernel has told of the end of every connection that it has told of. */
void programs_settle(const struct programs *p, struct kilter_conn ret[3]);

/* How often enum kilter_drop `reason` was counted since the objects were loaded; fd is of the map
 * "drops". */
__u64 drops_read(int fd, __u32 reason);

void map_clear(int fd);

#endif
