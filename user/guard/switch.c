// SPDX-License-Identifier: Apache-2.0
/* The switch: while it is on nothing is refused on this node. Turned by hand, by a file, or by
 * whoever writes the kernel's map. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/bus.h"
#include "guard/internal.h"

static const struct guard_hand nobody = {.uid = UINT32_MAX};

static void announce_switch(const struct guard *g, const char *reason,
			    const struct guard_hand *hand)
{
	bus_publish(&(struct bus_event){
	    .kind = BUS_MANUAL_ACTION,
	    .subject = "guard",
	    .action = guard_released(g) ? "guard-release" : "guard-arm",
	    .reason = reason,
	    .outcome = "success",
	    .uid = hand->uid,
	    .user = hand->user,
	    .role = hand->role,
	});
}

/* The kernel asks only whether it is 0; a later start asks who turned it. */
enum {
	SWITCH_ARMED,
	SWITCH_BY_HAND,
	SWITCH_BY_FILE
};

static uint32_t wanted_switch(const struct guard *g)
{
	if (g->released_by_hand)
		return SWITCH_BY_HAND;
	return g->released_by_file ? SWITCH_BY_FILE : SWITCH_ARMED;
}

static void write_switch(struct guard *g)
{
	uint32_t value = wanted_switch(g);

	if (!sync_switch(&g->sync, KILTER_SWITCH_OFF, value))
		g->switched = value;
}

/* What was released stays so, whoever said it: the file of our state, or the kernel. */
void guard_switch_start(struct guard *g)
{
	uint32_t on = 0;

	if (!sync_switch_read(&g->sync, KILTER_SWITCH_OFF, &on))
		g->switched = on;
	g->released_by_hand = g->sync.released || (on && on != SWITCH_BY_FILE);
	g->released_by_file =
	    g->config.guard.release_file[0] && !access(g->config.guard.release_file, F_OK);
	g->tell_released = g->released_by_hand || g->released_by_file;
	write_switch(g);
}

/* The file that comes or goes, and others who write the kernel's switch. */
void guard_switch_look(struct guard *g)
{
	const char *file = g->config.guard.release_file;
	bool there = file[0] && !access(file, F_OK);
	uint32_t value = g->switched;

	if (g->tell_released)
		announce_switch(g, "found released at start", &nobody);
	g->tell_released = false;
	if (!sync_switch_read(&g->sync, KILTER_SWITCH_OFF, &value) && value != g->switched) {
		g->switched = value;
		g->released_by_hand = value;
		g->changed = true;
		announce_switch(g,
				value ? "the kernel's switch was turned on"
				      : "the kernel's switch was turned off",
				&nobody);
	}
	if (there != g->released_by_file) {
		char reason[CONFIG_PATH_LEN + 32];

		g->released_by_file = there;
		snprintf(reason, sizeof(reason), "%s %s", file, there ? "is there" : "is gone");
		announce_switch(g, reason, &nobody);
	}
	if (g->switched != wanted_switch(g))
		write_switch(g);
}

int guard_release(struct guard *g, bool release, const struct guard_hand *hand)
{
	if (g->released_by_hand == release)
		return -EALREADY;
	g->released_by_hand = release;
	g->changed = true;
	write_switch(g);
	announce_switch(g, g->released_by_file && !release ? "the file still releases" : "by hand",
			hand);
	guard_save(g);
	return 0;
}

const char *guard_released(const struct guard *g)
{
	if (g->released_by_hand)
		return "released by hand: nothing is refused";
	return g->released_by_file ? "released by guard.release_file: nothing is refused" : NULL;
}
