// SPDX-License-Identifier: Apache-2.0
/*
 * Commands: a request that asks for one is suspended, the agent is told, and what it says is the
 * answer. That is remembered under the caller's Idempotency-Key, so that a command sent once more,
 * by somebody who has not seen the answer, is not done once more.
 */
#include <sys/socket.h>

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http_internal.h"
#include "core/clock.h"

#define HTTP_IDEMPOTENT_NS (10 * 60 * NS_PER_SEC)

/* What is asked for, so that two commands are the same when it is. */
static void command_text(const struct command_request *q, char ret[static COMMAND_TEXT])
{
	snprintf(ret, COMMAND_TEXT, "%u %s %.17g %u %u", q->op, q->target, q->rate_limit, q->burst,
		 q->max_connections);
}

static struct remembered *recall(struct http *h, const struct request *r)
{
	const struct command_request *q = &r->reply.command;

	for (unsigned int i = 0; i < HTTP_IDEMPOTENT; i++) {
		struct remembered *m = &h->remembered[i];

		if (*m->key && m->uid == q->uid && !strcmp(m->user, q->user) &&
		    !strcmp(m->key, r->key) && clock_ns(CLOCK_MONOTONIC) < m->until_ns)
			return m;
	}
	return NULL;
}

/* One with the same key is at the agent: whether it will be done is not known yet. */
static bool under_way(const struct http *h, const struct request *r)
{
	const struct command_request *q = &r->reply.command;

	for (const struct request *w = h->waiting; w; w = w->next_waiting)
		if (!strcmp(w->key, r->key) && w->reply.command.uid == q->uid &&
		    !strcmp(w->reply.command.user, q->user))
			return true;
	return false;
}

static void remember(struct http *h, const struct request *r)
{
	const struct command_request *q = &r->reply.command;
	struct remembered *m;

	if (!*r->key || !r->reply.body)
		return;
	m = &h->remembered[h->remembered_next++ % HTTP_IDEMPOTENT];
	free(m->body);
	memset(m, 0, sizeof(*m));
	m->body = malloc(r->reply.len);
	if (!m->body)
		return;
	memcpy(m->body, r->reply.body, r->reply.len);
	m->len = r->reply.len;
	m->status = r->reply.status;
	m->type = r->reply.type;
	m->uid = q->uid;
	snprintf(m->user, sizeof(m->user), "%s", q->user);
	m->until_ns = clock_ns(CLOCK_MONOTONIC) + HTTP_IDEMPOTENT_NS;
	snprintf(m->key, sizeof(m->key), "%s", r->key);
	command_text(q, m->path);
}

void http_command_forget(struct http *h, struct request *r)
{
	for (struct request **at = &h->waiting; *at; at = &(*at)->next_waiting) {
		if (*at == r) {
			*at = r->next_waiting;
			break;
		}
	}
	r->waiting = false;
}

static void finish_command(struct http *h, struct request *r, int status, const char *message)
{
	http_command_forget(h, r);
	if (status == 200) {
		struct json j;

		json_init(&j, API_JSON_MAX);
		json_object_begin(&j);
		if (*r->reply.command.target)
			json_kv_string(&j, "circuit", r->reply.command.target);
		json_kv_string(&j, "message", message);
		json_object_end(&j);
		api_json(&r->reply, 200, &j);
	} else {
		api_problem(&r->reply, status, message);
	}
	if (status != 504)
		remember(h, r);
	MHD_resume_connection(r->connection);
}

static int command_status(int err)
{
	switch (err) {
	case 0:
		return 200;
	case -ENOENT:
		return 404;
	case -EALREADY:
	case -EBUSY:
		return 409;
	case -EPERM:
	case -EACCES:
		return 403;
	case -EINVAL:
		return 400;
	default:
		return 500;
	}
}

void http_on_reply(void *ctx, int fd, uint32_t events)
{
	struct http *h = ctx;
	struct command_reply reply;
	bool ran = false;
	ssize_t n;

	(void)events;
	while ((n = recv(fd, &reply, sizeof(reply), MSG_DONTWAIT)) == sizeof(reply)) {
		reply.message[sizeof(reply.message) - 1] = '\0';
		for (struct request *r = h->waiting; r; r = r->next_waiting) {
			if (r->command_id != reply.id)
				continue;
			finish_command(h, r, command_status(reply.err),
				       *reply.message ? reply.message : "done");
			ran = true;
			break;
		}
	}
	if (!n) /* the agent is gone; so shall we be */
		loop_stop(h->loop, -EPIPE);
	if (ran)
		http_run(h);
}

bool http_commands_late(struct http *h, uint64_t now)
{
	bool late = false;

	for (struct request *r = h->waiting, *next; r; r = next) {
		next = r->next_waiting;
		if (now < r->command_deadline_ns)
			continue;
		finish_command(h, r, 504, "the agent did not answer in time");
		late = true;
	}
	return late;
}

/* Suspends the request until http_on_reply() or http_commands_late(). */
static bool send_command(struct http *h, struct request *r, struct conn *c)
{
	struct command_request *q = &r->reply.command;

	q->id = ++h->next_command;
	snprintf(q->request_id, sizeof(q->request_id), "%s", r->id);
	if (h->command_fd < 0 ||
	    send(h->command_fd, q, sizeof(*q), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(*q)) {
		api_problem(&r->reply, 503, "the agent takes no commands now");
		return false;
	}
	r->command_id = q->id;
	r->command_deadline_ns = clock_ns(CLOCK_MONOTONIC) + HTTP_COMMAND_NS;
	/* The agent has its time, and the caller then has an answer. */
	c->deadline_ns = r->command_deadline_ns + h->config->api.request_timeout_ns;
	r->waiting = true;
	r->next_waiting = h->waiting;
	h->waiting = r;
	MHD_suspend_connection(r->connection);
	return true;
}

bool http_command(struct http *h, struct request *r, struct conn *c)
{
	struct remembered *m;
	char path[COMMAND_TEXT];

	command_text(&r->reply.command, path);
	if (*r->key && under_way(h, r)) {
		api_problem(&r->reply, 409, "a request with this Idempotency-Key is under way");
		return true;
	}
	m = *r->key ? recall(h, r) : NULL;
	if (!m)
		return !send_command(h, r, c);
	if (strcmp(m->path, path)) {
		api_problem(&r->reply, 422, "this Idempotency-Key belongs to another request");
		return true;
	}
	r->reply.body = malloc(m->len);
	if (!r->reply.body) {
		api_problem(&r->reply, 500, "out of memory");
		return true;
	}
	memcpy(r->reply.body, m->body, m->len);
	r->reply.len = m->len;
	r->reply.status = m->status;
	r->reply.type = m->type;
	return true;
}

void http_commands_done(struct http *h)
{
	while (h->waiting) {
		struct request *r = h->waiting;

		http_command_forget(h, r);
		MHD_resume_connection(r->connection);
	}
	for (unsigned int i = 0; i < HTTP_IDEMPOTENT; i++)
		free(h->remembered[i].body);
}
