/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: which circuits exist (policy.c), what state each is in (circuit.c, a pure
 * state machine), and what the kernel is told (sync.c: policy map, leases, switch).
 */
#ifndef KILTER_GUARD_GUARD_H
#define KILTER_GUARD_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include <kilter/event.h>
#include <kilter/guard.h>

#include "core/config.h"
#include "model/model.h"

const char *guard_state_str(enum kilter_circuit_state s); /* closed open half_open */
const char *guard_mode_str(enum kilter_guard_mode m);	  /* off observe enforce */

struct guard_maps { /* descriptors of the pinned maps; borrowed */
	int policy_fd, runtime_fd, switch_fd;
};

/* A circuit as it is shown. name: "<caller or *>-><destination>", for example
 * "curl->127.0.0.1:8080"; it is what the API and the command line address. */
struct guard_circuit {
	char name[224];
	char policy[CONFIG_NAME_LEN];
	char workload[128], destination[64];
	enum kilter_circuit_state state; /* effective, as the kernel sees it now */
	enum kilter_guard_mode mode;	 /* effective */
	const char *mode_reason;	 /* why not what the policy asked for, or NULL */
	bool held;			 /* by hand: no automatic transition */
	uint64_t generation;
	uint64_t since_real_ns;
	uint64_t lease_until_boot_ns; /* open: until when the kernel refuses by itself */
	uint64_t retry_boot_ns;	      /* open: when half-open is tried */
	uint32_t consecutive, opens;  /* opens in a row: the back-off exponent */
	uint64_t successes, failures, refused, would_refuse, lease_expired, trips;
	char reason[192];	 /* of the last transition, kept after recovery */
	uint64_t transitions[3]; /* into each state, since start */
	uint64_t suppressed;	 /* trips that the panic guard held back, since start */
};

struct guard;
int guard_new(struct guard **ret, const struct config *c, const struct guard_maps *maps,
	      const char *state_file); /* state survives a restart in state_file */
void guard_free(struct guard **g);     /* kernel entries stay: leases run out by themselves */
void guard_reconfigure(struct guard *g, const struct config *c);
/* Discovers edges, reads the kernel's counters, moves the state machines, renews leases. */
void guard_tick(struct guard *g, struct model *m, uint64_t boot_ns, uint64_t real_ns);
/* The circuit that the kernel knows by this key, or NULL; borrowed until the next tick. */
const char *guard_name_of(const struct guard *g, const struct kilter_circuit_key *key);
/* The kernel tripped a circuit (KILTER_EVENT_TRIP): confirm it now. */
void guard_kernel_trip(struct guard *g, const struct kilter_event_trip *ev, uint64_t boot_ns,
		       uint64_t real_ns);
enum guard_action {
	GUARD_TRIP,
	GUARD_RESET,
	GUARD_HOLD,
	GUARD_RELEASE
};
/* By hand. -ENOENT no such circuit, -EALREADY, -EPERM protected. Audited through the bus. */
int guard_manual(struct guard *g, const char *name, enum guard_action action, uint32_t uid,
		 uint64_t boot_ns, uint64_t real_ns);
void guard_each(const struct guard *g, void (*fn)(void *ctx, const struct guard_circuit *c),
		void *ctx);
/* Removes every entry from the kernel (--unpin, panic). */
void guard_release_all(struct guard *g);

#endif
