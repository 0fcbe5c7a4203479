/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit trail: JSON Lines with Elastic Common Schema names, sequence numbers, rotation,
 * gzip, and exact accounting of what could not be written (`records-lost`).
 */
#ifndef KILTER_AUDIT_AUDIT_H
#define KILTER_AUDIT_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <kilter/event.h>

#include "core/bus.h"
#include "core/config.h"

struct audit;

struct audit_options {
	const char *file;
	const char *state_dir; /* the sequence number survives in <state_dir>/audit.seq */
	uint64_t max_bytes, max_age_ns;
	uint32_t keep;
	bool compress; /* gzip of rotated files, in a child or in slices: never blocks a tick */
	/* Names the kernel's counters of losses (boot and map), so that what an earlier life told
	 * of them is not told again; 0: they are not kept apart. */
	uint64_t losses_origin;
};

/* Where the kernel loses records for the trail, each with a counter of its own. */
enum audit_source {
	AUDIT_LOST_RING,      /* the ring buffer was full */
	AUDIT_LOST_REFUSED,   /* refused connects beyond what is recorded one by one */
	AUDIT_LOST_DATAGRAMS, /* ICMP errors of UDP, likewise */
	AUDIT_SOURCES,
};

/* Names for the ids in a record; borrowed strings, NULL where unknown. */
struct audit_names {
	const char *service_name;
	const char *container_id;
	const char *executable;
	const char *destination_name; /* service at the other end */
	const char *circuit;	      /* of a trip */
};

/* Opens or creates the file (0640, its directory 0750); repairs a torn last line; continues the
 * sequence. Negative errno: the caller reports it. */
int audit_open(struct audit **ret, const struct audit_options *o);
/* One record of the kernel's. boot_offset_ns = CLOCK_REALTIME - CLOCK_BOOTTIME. */
void audit_kernel_event(struct audit *a, const struct kilter_event *ev,
			const struct audit_names *names, int64_t boot_offset_ns);
/* One record of the agent's own doing (subscribe it to the bus). */
void audit_bus_event(void *audit, const struct bus_event *ev);
/* Records lost before they reached us (ring buffer full): becomes a records-lost record. */
void audit_lost(struct audit *a, uint64_t records, const char *where);
/* The kernel's counter stands at total: what is new since the last call, in this life or an earlier
 * one, becomes a records-lost record. */
void audit_lost_total(struct audit *a, enum audit_source source, uint64_t total);
/* Once a tick: flushes, rotates, retries a full disk, compresses, expires. */
void audit_tick(struct audit *a, uint64_t now_real_ns);
int audit_reopen(struct audit *a); /* SIGHUP: the file was moved away */
/* Takes over what rotation goes by: max_bytes, max_age_ns, keep, compress. */
void audit_reconfigure(struct audit *a, const struct audit_options *o);
void audit_close(struct audit **a);

struct audit_stats {
	uint64_t written, lost, bytes, rotations, sequence;
	bool failing; /* the last write failed: lost counts on */
	int last_errno;
};
void audit_get_stats(const struct audit *a, struct audit_stats *ret);
/* The last records as JSON lines, newest last, at most `max`; fn borrows the text. */
void audit_recent(const struct audit *a, size_t max,
		  void (*fn)(void *ctx, const char *line, size_t len), void *ctx);

/* query.c: reads the file and its rotated, gzipped predecessors, oldest first. */
struct audit_query {
	const char *file;
	const char *action, *service, *outcome; /* NULL: any */
	uint64_t since_real_ns, until_real_ns;	/* 0: open */
	uint64_t limit;				/* the newest `limit`; 0: all */
};
/* Calls fn for each matching line; a non-zero return of fn ends the walk. Lines that are
 * not JSON are counted in *ret_bad. */
int audit_query_run(const struct audit_query *q, int (*fn)(void *ctx, const char *line, size_t len),
		    void *ctx, uint64_t *ret_bad);

#endif
