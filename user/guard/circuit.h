/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state machine of one circuit. Pure: time, counters and chance come in as arguments, a
 * decision with its reason comes out; nothing is read, written or published here.
 *
 *            failures in a row (kernel), or failure ratio
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
		uint64_t successes, failures;
	} slots[CIRCUIT_SLOTS];
};

struct circuit {
	enum kilter_circuit_state state;
	bool held;		      /* by hand: no automatic transition */
	uint32_t opens;		      /* in a row: the back-off exponent, decays while closed */
	uint64_t since_ns;	      /* CLOCK_BOOTTIME of the last transition */
	uint64_t retry_ns;	      /* open: when half-open is tried */
	uint64_t trial_ns;	      /* half-open: when the first trial was noticed, or 0 */
	uint64_t decay_ns;	      /* closed: when opens goes down by one */
	uint64_t suppressed_until_ns; /* the panic guard has spoken: not again before */
	uint64_t suppressed;	      /* how often it has */
	uint64_t transitions[3];      /* into each state */
	struct circuit_window window;
	char reason[CIRCUIT_REASON]; /* of the last transition, kept after recovery */
};

struct circuit_input {
	uint64_t now_ns;
	uint64_t successes, failures; /* since the step before */
	/* Of the generation that the kernel is in now. */
	uint32_t trials, trial_successes, trial_failures;
	uint32_t consecutive;
	bool kernel_tripped;
	/* What the model saw of the same edge in a window of its own; requests 0: nothing. */
	uint64_t edge_requests, edge_failures, edge_window_ns;
	double random;	    /* 0 <= random < 1 */
	uint32_t open, all; /* circuits of this node that are not closed; all; before this step */
	double max_open_ratio;
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

/* base doubled by each open in a row, at most max, plus jitter. */
uint64_t circuit_open_ns(const struct config_policy *p, uint32_t opens, double random);
/* How many circuits may be open at once; one always may, unless ratio is 0. */
uint32_t circuit_open_limit(uint32_t all, double max_open_ratio);
void circuit_window_read(const struct circuit_window *w, uint64_t window_ns, uint64_t now_ns,
			 uint64_t *ret_successes, uint64_t *ret_failures);

#endif
