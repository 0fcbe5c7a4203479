/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the server share, and nobody else.
 *
 *   http.c          a connection's life, requests and their answers
 *   http_command.c  commands: those under way at the agent, and the answers to those that were
 */
#ifndef KILTER_API_HTTP_INTERNAL_H
#define KILTER_API_HTTP_INTERNAL_H

#include "api/head.h"
#include "api/http.h"
#include "api/routes.h"
#include "api/tokens.h"

#define HTTP_STATUSES	24u
#define HTTP_OWN	3u  /* families about the server itself */
#define HTTP_IDEMPOTENT 64u /* answers remembered */
#define COMMAND_TEXT	(API_NAME_MAX + 96)

struct MHD_Connection;
struct MHD_Daemon;

enum refusal {
	REFUSED_TOTAL,
	REFUSED_ADDRESS,
	REFUSED_HEAD,
	REFUSED_DEADLINE,
	REFUSED_MEMORY,
	REFUSED_TOKEN,
	REFUSALS
};

struct conn {
	struct conn *next, **at;
	struct http *http;
	int fd;
	bool is_unix, served, started;
	uint32_t uid;
	bool uid_known;
	bool bad_token;		/* a token was sent, and it is none of ours */
	struct token token;	/* whose it is, without its value; role ROLE_NONE: nobody's */
	unsigned char addr[16]; /* v4 mapped; zero for Unix */
	size_t seen;
	uint64_t deadline_ns;
	struct loop_source *source;
};

struct request {
	uint64_t start_ns;
	size_t body;
	char id[64];
	char key[64]; /* Idempotency-Key or "" */
	struct api_reply reply;
	const struct snapshot *snapshot; /* with reply.text: held */
	bool waiting;			 /* suspended for a command's reply */
	bool answered;
	uint64_t command_id, command_deadline_ns;
	struct MHD_Connection *connection;
	struct request *next_waiting;
};

struct remembered { /* a command's answer */
	char key[64], path[COMMAND_TEXT];
	uint32_t uid;
	char user[TOKEN_NAME_LEN];
	uint64_t until_ns;
	int status;
	char *body;
	size_t len;
	const char *type;
};

struct http {
	struct loop *loop;
	const struct config *config;
	const struct token_store *tokens;
	struct MHD_Daemon *mhd;
	int mhd_fd, command_fd;
	struct loop_source *tcp_source, *unix_source, *mhd_source, *sweep, *mhd_timer,
	    *command_source;
	int tcp_fd, unix_fd;
	struct conn *conns;
	struct conn **by_fd;
	unsigned int by_fd_count, conns_count;
	char listen_host[64];
	bool any_address;
	struct moments *moments;
	struct prometheus_family own[HTTP_OWN];
	struct prometheus_row older;
	struct prometheus_row codes[HTTP_STATUSES];
	char code_names[HTTP_STATUSES][8];
	int code_values[HTTP_STATUSES];
	unsigned int codes_count;
	struct prometheus_row refused[REFUSALS];
	struct request *waiting;
	uint64_t next_command;
	struct remembered remembered[HTTP_IDEMPOTENT];
	unsigned int remembered_next;
	char peek[HEAD_BYTES_MAX];
};

/* http.c */
/* What the library has to do now; again at its next event or timeout. */
void http_run(struct http *h);

/* http_command.c */
/* Does r->reply.command, or knows what came of it. True when the answer is ready now; else r is
 * suspended until the agent's reply. */
bool http_command(struct http *h, struct request *r, struct conn *c);
/* The agent's replies. */
void http_on_reply(void *http, int fd, uint32_t events);
/* Those that had their time are answered without the agent. True: there were such. */
bool http_commands_late(struct http *h, uint64_t now);
/* r ends before its command does. */
void http_command_forget(struct http *h, struct request *r);
void http_commands_done(struct http *h);

#endif
