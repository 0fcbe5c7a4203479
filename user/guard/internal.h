/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the guard share, and nobody else.
 *
 *   guard.c     the tick, transitions, what is shown
 *   by_hand.c   what somebody does to a circuit
 *   switch.c    the switch of all
 *   circuits.c  which circuits there are: they come with edges and policies, and go
 *   kernel.c    one circuit's side in the kernel: what it is told, what it has counted
 *   restore.c   the state file
 *   stats.c     figures about itself
 */
#ifndef KILTER_GUARD_INTERNAL_H
#define KILTER_GUARD_INTERNAL_H

#include "collect/table.h"
#include "core/selfstat.h"
#include "guard/circuit.h"
#include "guard/guard.h"
#include "guard/policy.h"
#include "guard/sync.h"

#define GUARD_WITHOUT_POLICY "no policy concerns it any more"
#define GUARD_STATS	     5
/* Over the sockets: a connect under way at the first pass may be established at the second. */
#define JOIN_PASSES  2
#define CLOSE_PASSES 2

_Static_assert(SYNC_KEYS_MAX ==
		   1 + sizeof(((struct model_edge *)0)->workload_ids) / sizeof(uint32_t),
	       "a key for each id of an edge's caller");

struct kernel_key { /* what the guard has in the kernel, by its key there */
	struct table_node node;
	struct kilter_circuit_key key;
	uint32_t circuit; /* number of its entry */
	bool told;	  /* the kernel has the policy in `written` of its circuit */
	bool counts;	  /* and the counters, where it is the first key of its circuit */
};

/* How much of the node is open: the panic guard asks. */
struct destination {
	struct table_node node;
	struct kilter_peer at;
	uint32_t circuits, open; /* open: those that are not closed */
};

struct entry {
	struct table_node node;
	char name[sizeof(((struct guard_circuit *)0)->name)]; /* zero-padded: the table's key */
	struct circuit c;
	struct guard_circuit pub;
	const struct policy_entry *policy; /* NULL: guard.defaults */
	struct kilter_peer destination;
	struct destination *at;
	char executable[KILTER_EXE_LEN], cgroup[256]; /* of the caller */
	struct labels *labels;	 /* of the caller; NULL: not known, or nobody asks */
	uint32_t labels_version; /* of the model; 0: of the state file */
	bool any, checked_peer, protected;
	/* The first key is also the one of the runtime, for all of them. */
	struct kernel_key *keys[SYNC_KEYS_MAX];
	unsigned int keys_count;
	struct {
		uint64_t successes, failures, slow, trips;
	} seen;			    /* totals of the runtime at the last look */
	struct guard_limits limits; /* set by hand; see limits_set */
	bool limits_set;
	uint32_t limits_epoch;
	uint64_t edge_ns;	       /* when the model last had its edge */
	const struct model_edge *edge; /* during a tick */
	struct kilter_guard_policy written;
};

struct guard {
	struct config config;
	struct policy_table policies;
	struct sync sync;
	struct table circuits, keys, destinations;
	const struct dns *dns; /* the model's */
	uint64_t dns_generation;
	char state_file[CONFIG_PATH_LEN + 32];
	uint64_t random[2];
	uint64_t sweep_ns, now_ns, real_ns;
	uint64_t circuits_full;	    /* edges that found no room for a circuit */
	uint32_t open;		    /* circuits that are not closed */
	uint32_t destinations_open; /* destinations with such a circuit */
	unsigned int
	    join_passes; /* to come: keys were added, open connections may belong to them */
	unsigned int close_passes; /* to come, since a circuit opened that ends its connections */
	bool changed;		   /* the state file is behind */
	bool released_by_hand, released_by_file;
	bool tell_released; /* as it was at start: said when somebody listens */
	uint32_t switched;  /* the kernel's switch as we know it */
	struct guard_hooks hooks;
	struct selfstat stats[GUARD_STATS];
};

/* guard.c */
double guard_random(struct guard *g); /* from 0 up to 1 */
/* One step of e's state machine, with what the kernel has counted. m: NULL between two ticks. */
void guard_step(struct guard *g, struct entry *e, const struct model *m);
/* e has left `from`: the kernel hears of it, then everybody. */
void guard_moved(struct guard *g, struct entry *e, enum kilter_circuit_state from);
/* What concerns connections, after the kernel has heard of every circuit. */
void guard_run_hooks(struct guard *g);

/* by_hand.c */
bool guard_limits_valid(const struct guard_limits *l);
/* What somebody has set stays until somebody takes it back. */
static inline bool guard_by_hand(const struct entry *e)
{
	return e->c.held || e->c.forced != CIRCUIT_AUTO || e->limits_set;
}

/* switch.c */
void guard_switch_start(struct guard *g);
/* At each tick. */
void guard_switch_look(struct guard *g);

/* kernel.c */
const struct config_policy *guard_config_of(const struct guard *g, const struct entry *e);
struct guard_limits guard_limits_of(const struct guard *g, const struct entry *e);
void guard_tell_kernel(struct guard *g, struct entry *e);
/* What happened since the last look. */
void guard_read_kernel(struct guard *g, struct entry *e, struct circuit_input *in);
bool guard_add_key(struct guard *g, struct entry *e, uint32_t workload, uint32_t peer);
/* Keys of ids that the caller does not use any more, but for the first: what it counts goes on. */
void guard_drop_old_keys(struct guard *g, struct entry *e, const struct model_edge *edge);
void guard_drop_keys(struct guard *g, struct entry *e);
/* Another destination may have taken the integer that ours hashes to: see kilter/identity.h. */
void guard_check_peer(struct guard *g, struct entry *e, const struct model *m);

/* circuits.c */
struct entry *guard_find(const struct guard *g, const char *name);
struct entry *guard_add(struct guard *g, const struct policy_subject *s);
void guard_drop(struct guard *g, struct entry *e, const char *why);
/* Gives e its policy; false: none concerns it (any more). */
bool guard_apply_policy(struct guard *g, struct entry *e);
void guard_add_exact(struct guard *g);
/* What its destination is called now, to be shown. */
void guard_show_name(const struct guard *g, struct entry *e);
/* Every circuit gets its policy anew, or goes. */
void guard_apply_policies(struct guard *g);
/* Edges of the model find or make their circuit. */
void guard_on_edge(void *guard, const struct model_edge *edge);
/* Before and after a change of e's state: keeps the counts of what is open. */
void guard_count_state(struct guard *g, struct entry *e, enum kilter_circuit_state from);
void guard_announce(const struct entry *e, enum kilter_circuit_state from, const char *outcome);

/* restore.c */
void guard_load(struct guard *g);
void guard_save(struct guard *g);

/* stats.c */
void guard_register_stats(struct guard *g);
void guard_unregister_stats(struct guard *g);

#endif
