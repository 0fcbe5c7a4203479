/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: which circuits exist (policy.c), what state each is in (circuit.c, a pure
 * state machine), and what the kernel is told (sync.c: policy map, leases, switch). A circuit
 * carries the limits of its pair as well: rate and open connections.
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

/* What the guard asks of the kernel's iterators; each may be NULL: it cannot be done here. Both
 * return how many sockets they touched, or a negative errno. */
struct guard_hooks {
	/* Connections that are older than their circuit become its own. */
	int (*join)(void *ctx);
	/* Ends the connections of open circuits that ask for it. */
	int (*close)(void *ctx);
	void *ctx;
};

#define GUARD_LIMIT_KEEP UINT32_MAX

struct guard_limits {
	double rate_limit;	  /* connects a second; 0: none. Of a command, under 0: as it is */
	uint32_t burst;		  /* of a command, 0: as it is */
	uint32_t max_connections; /* 0: none. Of a command, GUARD_LIMIT_KEEP: as it is */
};

/* A circuit as it is shown. name: "<caller or *>-><destination>", for example
 * "curl->127.0.0.1:8080"; it is what the API and the command line address. */
struct guard_circuit {
	char name[224];
	char policy[CONFIG_NAME_LEN];
	char match[256];    /* why this policy, and which others would have */
	char dns_name[128]; /* what the destination was last called, or "" */
	char workload[128], destination[64];
	enum kilter_circuit_state state; /* effective, as the kernel sees it now */
	enum kilter_guard_mode mode;	 /* effective */
	const char *mode_reason;	 /* why not what the policy asked for, or NULL */
	bool held;			 /* by hand: no automatic transition */
	const char *forced;		 /* "open", "closed", "disabled", or NULL */
	uint64_t generation;
	uint64_t since_real_ns;
	uint64_t lease_until_boot_ns; /* open: until when the kernel refuses by itself */
	uint64_t retry_boot_ns;	      /* open: when half-open is tried */
	uint32_t consecutive, opens;  /* opens in a row: the back-off exponent */
	uint64_t successes, failures, slow, redirected, closed, lease_expired, trips;
	uint64_t failed[KILTER_FAILURES]; /* failures, by what they were */
	uint64_t refused[KILTER_REFUSALS], would_refuse[KILTER_REFUSALS];
	uint32_t open, open_peak; /* connections */
	struct guard_limits limits;
	bool limits_by_hand;
	double rate_fill;	 /* of the burst that is used up now, 0..1 */
	char reason[192];	 /* of the last transition, kept after recovery */
	uint64_t transitions[3]; /* into each state, since start */
	uint64_t suppressed;	 /* trips that the panic guard held back, since start */
};

struct guard;
/* State survives a restart in state_file. dns: what destinations are called, borrowed; may be NULL.
 */
int guard_new(struct guard **ret, const struct config *c, const struct guard_maps *maps,
	      const char *state_file, const struct dns *dns);
void guard_set_hooks(struct guard *g, const struct guard_hooks *hooks);
const char *guard_refusal_str(uint32_t reason); /* of enum kilter_refusal */
const char *guard_failure_str(uint32_t what);	/* of enum kilter_failure */
void guard_free(struct guard **g); /* kernel entries stay: leases run out by themselves */
void guard_reconfigure(struct guard *g, const struct config *c);
/* Discovers edges, reads the kernel's counters, moves the state machines, renews leases. */
void guard_tick(struct guard *g, struct model *m, uint64_t boot_ns, uint64_t real_ns);
/* When the next open circuit will be tried again, CLOCK_BOOTTIME; 0: none is open. */
uint64_t guard_next_ns(const struct guard *g);
/* Moves those whose time has come; between two ticks. */
void guard_due(struct guard *g, uint64_t boot_ns, uint64_t real_ns);
/* The circuit that the kernel knows by this key, or NULL; borrowed until the next tick. */
const char *guard_name_of(const struct guard *g, const struct kilter_circuit_key *key);
/* The kernel tripped a circuit, or its trials have decided (KILTER_EVENT_TRIP, _VERDICT): confirm
 * it now. */
void guard_kernel_trip(struct guard *g, const struct kilter_event_trip *ev, uint64_t boot_ns,
		       uint64_t real_ns);
enum guard_action {
	GUARD_TRIP,
	GUARD_RESET,
	GUARD_HOLD,
	GUARD_RELEASE, /* of a hold and of what was forced: the circuit decides again */
	GUARD_FORCE_OPEN,
	GUARD_FORCE_CLOSED,
	GUARD_DISABLE,
	GUARD_LIMIT_SET,
	GUARD_LIMIT_RESET, /* back to the policy's, and its bucket is full again */
};
/* Who does something by hand: a user of this node, or the bearer of a token. */
struct guard_hand {
	uint32_t uid;		 /* UINT32_MAX where user says it */
	const char *user, *role; /* of the token; NULL: uid says it */
};
/* By hand. -ENOENT no such circuit, -EALREADY, -EPERM protected, -EBUSY forced, -EINVAL a limit.
 * Audited through the bus. limits: of GUARD_LIMIT_SET. */
int guard_manual(struct guard *g, const char *name, enum guard_action action,
		 const struct guard_limits *limits, const struct guard_hand *hand, uint64_t boot_ns,
		 uint64_t real_ns);
/* Such an errno as a sentence for whoever did it. */
const char *guard_manual_str(int err);
/* The switch: while released nothing is refused. -EALREADY. */
int guard_release(struct guard *g, bool release, const struct guard_hand *hand);
/* NULL, or why nothing is refused. */
const char *guard_released(const struct guard *g);
/* Circuits that are not closed, destinations that have one, all destinations. */
void guard_counts(const struct guard *g, uint32_t *ret_open, uint32_t *ret_destinations_open,
		  uint32_t *ret_destinations);
void guard_each(const struct guard *g, void (*fn)(void *ctx, const struct guard_circuit *c),
		void *ctx);
/* Connections of open circuits were ended, by hooks.close or on its behalf: says so. */
void guard_connections_ended(int n);
/* Removes every entry from the kernel (--unpin, panic). */
void guard_release_all(struct guard *g);

#endif
