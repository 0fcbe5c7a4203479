/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server of the worker. Connections are accepted here, their head is judged by
 * api/head.h while it still lies in the socket, and only then does libmicrohttpd get the
 * connection: for one request, after which it is closed.
 */
#ifndef KILTER_API_HTTP_H
#define KILTER_API_HTTP_H

#include "core/config.h"
#include "core/loop.h"

/* Connections of the Unix socket beyond api.max_connections: whoever fills those up over TCP
 * must not lock out the administrator. */
#define HTTP_UNIX_RESERVE 16u
/* Descriptors of the worker beside api.max_connections. */
#define HTTP_FDS_EXTRA (HTTP_UNIX_RESERVE + 64u)

/* How long the agent has for a command, before 504. */
#define HTTP_COMMAND_NS (5 * NS_PER_SEC)

struct http;
struct token_store;
struct http_options {
	const struct config *config;
	int tcp_fd, unix_fd;		  /* listening, non-blocking; -1: none. Not owned */
	int snapshot_fd, command_fd;	  /* not owned; command_fd -1: no commands */
	const struct token_store *tokens; /* of TCP, not owned; NULL: TCP asks nobody and reads */
};
int http_new(struct http **ret, struct loop *l, const struct http_options *o);
void http_free(struct http **h);
/* The host of "ADDR:PORT", "[V6]:PORT" or ":PORT" and whether it is a wildcard. */
int http_split_listen(const char *listen, char host[static 64], uint16_t *ret_port,
		      bool *ret_wildcard);

#endif
