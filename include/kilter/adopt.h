/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * What user space tells the kernel of a socket that is older than the agent, where no iterator can
 * find out (before Linux 5.11): the value of setsockopt(2) with the level and the name below,
 * on a descriptor borrowed from its owner. Answered by adopt_by_hand, which is attached while
 * adoption runs; a value without the secret of this start is left to the kernel, which knows no
 * such option.
 */
#ifndef KILTER_ADOPT_H
#define KILTER_ADOPT_H

#include <kilter/identity.h>

#define KILTER_ADOPT_LEVEL 0x6b69 /* no protocol has this number */
#define KILTER_ADOPT_NAME  1

enum kilter_adopt_as {
	KILTER_ADOPT_LISTENER = 1,
	KILTER_ADOPT_SERVER,
	KILTER_ADOPT_CLIENT,
	KILTER_ADOPT_OWNER, /* not connected: its owner alone */
};

struct kilter_adoptee {
	__u64 secret;
	struct kilter_workload_key key;
	__u32 pid, uid;
	char comm[KILTER_COMM_LEN];
	__u32 as;			 /* enum kilter_adopt_as */
	__u32 queue_length, queue_limit; /* of a listener */
	struct kilter_peer remote;	 /* of a client */
	__be16 local_port_be;
	__u8 pad[6];
};

_Static_assert(sizeof(struct kilter_adoptee) == 104, "no holes");

#endif
