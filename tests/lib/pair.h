/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a TCP connection over loopback in one thread, so that a test says in which
 * order the bytes go and where segments are cut.
 */
#ifndef KILTER_TESTS_PAIR_H
#define KILTER_TESTS_PAIR_H

#include <netinet/in.h>

#include <stdbool.h>
#include <stddef.h>

enum pair_family {
	PAIR_V4,
	PAIR_V6,
	PAIR_MAPPED
};

struct pair {
	int listener, client, server;
	struct sockaddr_storage addr; /* what the client connects to */
	socklen_t addr_len;
};

/* Nothing is open of it yet. */
void pair_init(struct pair *p);
/* A listener on a free port. Functions return 0 or a negative errno. */
int pair_listen(struct pair *p, enum pair_family family, int backlog);
int pair_connect(struct pair *p); /* and accept */
int pair_open(struct pair *p);	  /* IPv4: pair_listen and pair_connect */
/* Closes what is open of it; the client first, or the server. */
void pair_close(struct pair *p, bool server_first);

/* Sends in pieces of `piece` bytes (0: at once), each its own segment, and reads them at the other
 * end, where they must be the same. */
int pair_to_server(struct pair *p, const void *data, size_t len, size_t piece);
int pair_to_client(struct pair *p, const void *data, size_t len, size_t piece);

#endif
