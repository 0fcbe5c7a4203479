/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of one circuit. Pure: time, counters and chance come in as arguments, a
 * decision with its reason comes out; nothing is read, written or published here.
 *
 *            failures in a row or a count window (kernel), or a ratio
 *   closed ------------------------------------------------> open
 *     ^                                                      | ^
 *     | enough trials succeeded            open time is over | | a trial failed, or
 *     +-------------------- half_open <----------------------+ | no verdict in time
 *                               +------------------------------+
 */
#ifndef KILTER_GUARD_CIRCUIT_H
#define KILTER_GUARD_CIRCUIT_H

#include <stdbool.h>
#include <stdint.h>

#include <kilter/guard.h>

#include "core/config.h"

#define CIRCUIT_SLOTS	  10 /* of the window, each window_ns / 10 long */
#define CIRCUIT_REASON	  192
#define CIRCUIT_OPENS_MAX 32 /* 2^31 base open times are beyond any max_open */

struct circuit_window {
	struct {
		uint64_t number; /* of the slot's time since boot */
		uint64_t successes, failures, slow;
	} slots[CIRCUIT_SLOTS];
};

enum circuit_force { /* what is done whatever the outcomes */
	CIRCUIT_AUTO,
	CIRCUIT_FORCED_OPEN,
	CIRCUIT_FORCED_CLOSED, /* decisions are counted, none is made */
	CIRCUIT_DISABLED,      /* not even counted */
	CIRCUIT_FORCES
};

struct circuit {
	enum kilter_circuit_state state;
	bool held;		      /* by hand: no automatic transition */
	enum circuit_force forced;    /* by hand; wins over the policy's */
	uint32_t opens;		      /* in a row: the back-off exponent, decays while closed */
	uint64_t since_ns;	      /* CLOCK_BOOTTIME of the last transition */
	uint64_t retry_ns;	      /* open: when half-open is tried */
	uint64_t trial_ns;	      /* half-open: when the first trial was noticed, or 0 */
	uint64_t decay_ns;	      /* closed: when opens goes down by one */
	uint64_t ramp_ns;	      /* closed after trials: since when; or 0 */
	uint64_t suppressed_until_ns; /* the panic guard has spoken: not again before */
	uint64_t suppressed;	      /* how often it has */
	uint64_t transitions[3];      /* into each state */
	struct circuit_window window;
	char reason[CIRCUIT_REASON]; /* of the last transition, kept after recovery */
};

struct circuit_input {
	uint64_t now_ns;
	uint64_t successes, failures, slow; /* since the step before; slow ones are in both */
	/* Of the generation that the kernel is in now. */
	uint32_t trials, trial_successes, trial_failures;
	uint32_t consecutive;
	bool kernel_tripped;
	enum kilter_trip tripped_by;
	uint32_t ring_fill, ring_failures, ring_slow; /* of a count window */
	/* What the model saw of the same edge in a window of its own; requests 0: nothing. */
	uint64_t edge_requests, edge_failures, edge_window_ns;
	double random; /* 0 <= random < 1 */
	/* For the panic guard, before this step: circuits that are not closed; destinations with
	 * such a circuit, but for this circuit's own; all destinations. */
	uint32_t open, other_destinations_open, destinations;
	bool destination_open; /* this circuit's own, by another circuit */
	double max_open_ratio; /* of destinations */
	uint32_t max_open;     /* circuits; 0: any number */
};

enum circuit_step {
	CIRCUIT_STAYS,
	CIRCUIT_MOVED,
	CIRCUIT_SUPPRESSED, /* would have opened: the panic guard said no; reason is set */
};

/* Starts closed at now_ns. */
void circuit_init(struct circuit *c, uint64_t now_ns);
enum circuit_step circuit_step(struct circuit *c, const struct config_policy *p,
			       const struct circuit_input *in);
/* By hand; false: it is in that state already. who ends the sentence: "by uid 0". */
bool circuit_trip(struct circuit *c, const struct config_policy *p, uint64_t now_ns, double random,
		  const char *who);
bool circuit_reset(struct circuit *c, const struct config_policy *p, uint64_t now_ns,
		   const char *who);
bool circuit_hold(struct circuit *c, bool hold);
/* From now on, until CIRCUIT_AUTO; the next step moves it there. false: it is so already. */
bool circuit_force(struct circuit *c, enum circuit_force force);
/* What is in force: by hand, else by policy. */
enum circuit_force circuit_forced(const struct circuit *c, const struct config_policy *p);

/* base doubled by each open in a row, at most max, plus jitter. */
uint64_t circuit_open_ns(const struct config_policy *p, uint32_t opens, double random);
/* How many of `all` may be open at once; one always may, unless ratio is 0. */
uint32_t circuit_open_limit(uint32_t all, double max_open_ratio);
void circuit_window_read(const struct circuit_window *w, uint64_t window_ns, uint64_t now_ns,
			 uint64_t *ret_successes, uint64_t *ret_failures, uint64_t *ret_slow);

#endif
