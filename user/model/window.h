/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sliding windows as rings of slots: 10 of 1 s, 6 of 10 s, 5 of 1 min, 12 of 5 min. A slot
 * bears the number of its time; one that is out of the window is not read and is emptied
 * when it is next written. So an idle window costs nothing per tick, and skipped slots need
 * no filling. How long we watched is the same for all windows: struct window_clock.
 */
#ifndef KILTER_MODEL_WINDOW_H
#define KILTER_MODEL_WINDOW_H

#include "model/model.h"

#define WINDOW_SLOTS_MAX 12
#define WINDOW_SLOTS	 33 /* 10 + 6 + 5 + 12 */

struct window_clock {
	uint64_t now_ns;  /* of the last tick; 0: none yet */
	uint64_t data_ns; /* the middle of what the last tick covered: its data's time */
	uint64_t head_ns; /* windows end with the slot of this time */
	uint64_t tick_ns; /* nominal */
	struct {
		uint64_t number, watched_ns;
	} slots[WINDOW_SLOTS];
};

void window_clock_tick(struct window_clock *c, uint64_t now_ns);
uint64_t window_covered_ns(const struct window_clock *c, enum model_span span);

struct window_red_delta {
	uint64_t requests, errors, sum_ns;
	const __u32 *exp; /* KILTER_EXP_BUCKETS */
};

struct window_red;
struct window_tcp;
int window_red_new(struct window_red **ret);
void window_red_free(struct window_red **w);
int window_tcp_new(struct window_tcp **ret);
void window_tcp_free(struct window_tcp **w);
/* Data since the last tick: held until window_*_settle(), called after the clock's tick. */
int window_red_add(struct window_red *w, const struct window_red_delta *d);
int window_tcp_add(struct window_tcp *w, const struct kilter_conn *d, bool client);
int window_red_settle(struct window_red *w, const struct window_clock *c);
void window_tcp_settle(struct window_tcp *w, const struct window_clock *c);
/* w may be NULL: nothing ever happened. */
void window_red_read(const struct window_red *w, const struct window_clock *c, enum model_span span,
		     struct model_red *ret);
void window_tcp_read(const struct window_tcp *w, const struct window_clock *c, enum model_span span,
		     struct model_tcp *ret);

#endif
