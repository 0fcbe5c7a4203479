// SPDX-License-Identifier: Apache-2.0
/*
 * A connection's life: accepted here; PEEKING while its head is incomplete (nothing is taken
 * from the socket, so the library later reads all of it); SERVED by libmicrohttpd on a nested
 * epoll descriptor; closed. A deadline over the whole of it is kept by one timer.
 */
#include "api/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "api/head.h"
#include "api/http_internal.h"
#include "api/negotiate.h"
#include "api/stream.h"
#include "core/clock.h"

#define HTTP_SWEEP_NS	  (250 * NS_PER_MS)
#define HTTP_ACCEPT_BATCH 32u
#define HTTP_MHD_MEMORY	  (64u << 10) /* of one connection: a head of 16 KiB fits twice */
#define HTTP_GZIP_MIN	  1024u
#define HTTP_STREAM_BYTES (32u << 10) /* asked of a stream at a time */

static const char *const refusal_names[REFUSALS] = {
    [REFUSED_TOTAL] = "connections",   [REFUSED_ADDRESS] = "connections_of_address",
    [REFUSED_HEAD] = "malformed_head", [REFUSED_DEADLINE] = "deadline",
    [REFUSED_MEMORY] = "memory",       [REFUSED_TOKEN] = "bad_token",
};

int http_split_listen(const char *listen, char host[static 64], uint16_t *ret_port,
		      bool *ret_wildcard)
{
	const char *colon = strrchr(listen, ':'), *at = listen;
	uint32_t port;
	size_t n;

	if (!colon || negotiate_u32(colon + 1, 0, 65535, &port))
		return -EINVAL;
	n = (size_t)(colon - listen);
	if (n >= 2 && *at == '[' && at[n - 1] == ']') {
		at++;
		n -= 2;
	}
	if (n >= 64)
		return -EINVAL;
	memcpy(host, at, n);
	host[n] = '\0';
	*ret_port = (uint16_t)port;
	*ret_wildcard = !n || !strcmp(host, "0.0.0.0") || !strcmp(host, "::") || !strcmp(host, "*");
	return 0;
}

static void count_status(struct http *h, int status)
{
	for (unsigned int i = 0; i < h->codes_count; i++) {
		if (h->code_values[i] == status) {
			h->codes[i].n++;
			return;
		}
	}
	if (h->codes_count == HTTP_STATUSES)
		return; /* we answer fewer different ones */
	snprintf(h->code_names[h->codes_count], sizeof(h->code_names[0]), "%d", status);
	h->code_values[h->codes_count] = status;
	h->codes[h->codes_count].value = h->code_names[h->codes_count];
	h->codes[h->codes_count++].n = 1;
	h->own[0].count = h->codes_count;
}

static void make_id(char id[static 64])
{
	unsigned char bytes[16] = {0};

	if (getrandom(bytes, sizeof(bytes), GRND_NONBLOCK) != sizeof(bytes)) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC);

		memcpy(bytes, &now, sizeof(now));
	}
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

/* Forgets a connection; its descriptor is closed by whoever owns it. */
static void conn_free(struct conn *c)
{
	struct http *h = c->http;

	loop_remove(h->loop, &c->source);
	*c->at = c->next;
	if (c->next)
		c->next->at = c->at;
	h->by_fd[c->fd] = NULL;
	h->conns_count--;
	free(c);
}

static void conn_close(struct conn *c)
{
	int fd = c->fd;

	conn_free(c);
	close(fd);
}

/* Answers a head that no library may see, and closes. */
static void refuse(struct conn *c, int status, const char *why, enum refusal reason)
{
	struct http *h = c->http;
	struct api_reply reply = {0};
	char id[64], head[512];
	int n;

	h->refused[reason].n++;
	api_problem(&reply, status, why);
	count_status(h, status);
	make_id(id);
	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nX-API-Version: "
		     "v1\r\nX-Request-ID: %s\r\nConnection: close\r\n\r\n",
		     status, api_status_text(status), reply.type, reply.len, id);
	if (n > 0 && (size_t)n < sizeof(head)) {
		struct iovec iov[2] = {{head, (size_t)n}, {reply.body, reply.len}};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = reply.body ? 2 : 1};

		/* Into a socket's empty send buffer: all or nothing that matters. */
		sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	free(reply.body);
	shutdown(c->fd, SHUT_WR);
	/* Unread bytes at close() would reset the connection and eat the answer. */
	for (int i = 0; i < 8 && recv(c->fd, h->peek, sizeof(h->peek), MSG_DONTWAIT) > 0; i++)
		;
	conn_close(c);
}

static int refusal_status(int err)
{
	switch (err) {
	case -EMSGSIZE:
		return 431;
	case -ENAMETOOLONG:
		return 414;
	case -EFBIG:
		return 413;
	case -EPROTO:
		return 505;
	default:
		return 400;
	}
}

void http_run(struct http *h)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(h->mhd);
	if (MHD_get_timeout(h->mhd, &ms) == MHD_YES)
		loop_set_timer(h->mhd_timer, ms ? ms * NS_PER_MS : 1);
	else
		loop_set_timer(h->mhd_timer, 0);
}

static void serve(struct conn *c)
{
	struct http *h = c->http;
	struct sockaddr_in addr = {.sin_family = AF_INET}; /* not used by us: see struct conn */
	int fd = c->fd;

	loop_remove(h->loop, &c->source);
	c->served = true;
	if (MHD_add_connection(h->mhd, fd, (struct sockaddr *)&addr, sizeof(addr)) != MHD_YES) {
		h->refused[REFUSED_MEMORY].n++;
		if (h->by_fd[fd] == c) /* the library has closed fd already */
			conn_free(c);
	}
	http_run(h);
}

/* Who speaks over TCP. A bad token is none, so that what is open stays open. */
static void authenticate(struct conn *c, const struct head *head)
{
	const char *token;
	size_t len;

	if (c->is_unix || !c->http->tokens || !head->authorization)
		return;
	c->bad_token = head_bearer(head->authorization, head->authorization_len, &token, &len) ||
		       !token_store_find(c->http->tokens, token, len, &c->token);
	/* Each attempt costs whoever guesses a connection, and is counted. */
	c->http->refused[REFUSED_TOKEN].n += c->bad_token;
}

static void on_peek(void *ctx, int fd, uint32_t events)
{
	struct conn *c = ctx;
	struct http *h = c->http;
	const char *why = "a control byte, a bare CR or a bare LF in the head";
	ssize_t n = recv(fd, h->peek, sizeof(h->peek), MSG_PEEK | MSG_DONTWAIT);
	struct head head;
	size_t len;
	int err;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		conn_close(c);
		return;
	}
	err = head_scan(h->peek, (size_t)n, c->seen, &len);
	if (err == HEAD_MORE) {
		if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
			conn_close(c); /* no more will come */
		else
			c->seen = (size_t)n;
		return;
	}
	if (err == -EMSGSIZE)
		why = "the head is longer than 16 KiB";
	if (err > 0)
		err = head_parse(h->peek, len, &head, &why);
	if (err < 0) {
		refuse(c, refusal_status(err), why, REFUSED_HEAD);
		return;
	}
	if (!c->is_unix && head.host &&
	    !head_host_allowed(head.host, head.host_len, h->listen_host, h->any_address)) {
		refuse(c, 400, "Host is none of this server's names", REFUSED_HEAD);
		return;
	}
	authenticate(c, &head);
	serve(c);
}

static unsigned int conns_from(const struct http *h, const unsigned char addr[static 16])
{
	unsigned int n = 0;

	for (const struct conn *c = h->conns; c; c = c->next)
		n += !c->is_unix && !memcmp(c->addr, addr, 16);
	return n;
}

static void map_address(const struct sockaddr_storage *ss, unsigned char addr[static 16])
{
	memset(addr, 0, 16);
	if (ss->ss_family == AF_INET6) {
		memcpy(addr, &((const struct sockaddr_in6 *)ss)->sin6_addr, 16);
	} else if (ss->ss_family == AF_INET) {
		addr[10] = addr[11] = 0xff;
		memcpy(addr + 12, &((const struct sockaddr_in *)ss)->sin_addr, 4);
	}
}

static void take(struct http *h, int fd, bool is_unix, const struct sockaddr_storage *ss)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	unsigned char addr[16];
	enum refusal why;
	struct conn *c;

	map_address(ss, addr);
	why = REFUSED_TOTAL;
	if (h->conns_count >= h->config->api.max_connections + (is_unix ? HTTP_UNIX_RESERVE : 0) ||
	    (unsigned int)fd >= h->by_fd_count)
		goto refused;
	why = REFUSED_ADDRESS;
	if (!is_unix && conns_from(h, addr) >= h->config->api.max_connections_per_ip)
		goto refused;
	why = REFUSED_MEMORY;
	c = calloc(1, sizeof(*c));
	if (!c)
		goto refused;
	c->http = h;
	c->fd = fd;
	c->is_unix = is_unix;
	memcpy(c->addr, addr, sizeof(addr));
	if (is_unix && !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
		c->uid = cred.uid;
		c->uid_known = true;
	}
	c->deadline_ns = clock_ns(CLOCK_MONOTONIC) + h->config->api.request_timeout_ns;
	c->next = h->conns;
	c->at = &h->conns;
	if (c->next)
		c->next->at = &c->next;
	h->conns = c;
	h->conns_count++;
	h->by_fd[fd] = c;
	/* Edge-triggered: a head that stays incomplete must not wake us again and again. */
	if (loop_add_fd(h->loop, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, on_peek, c, &c->source)) {
		h->refused[REFUSED_MEMORY].n++;
		conn_close(c);
	}
	return;
refused:
	h->refused[why].n++;
	close(fd);
}

static void on_accept(void *ctx, int fd, uint32_t events)
{
	struct http *h = ctx;

	(void)events;
	for (unsigned int i = 0; i < HTTP_ACCEPT_BATCH; i++) {
		struct sockaddr_storage ss = {0};
		socklen_t len = sizeof(ss);
		int new = accept4(fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (new < 0)
			return;
		take(h, new, fd == h->unix_fd, &ss);
	}
}

static void on_mhd(void *ctx, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	http_run(ctx);
}

static void on_mhd_timer(void *ctx, uint64_t missed)
{
	(void)missed;
	http_run(ctx);
}

static void on_sweep(void *ctx, uint64_t missed)
{
	struct http *h = ctx;
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool ran = false;

	(void)missed;
	for (struct conn *c = h->conns, *next; c; c = next) {
		next = c->next;
		if (now < c->deadline_ns)
			continue;
		if (c->served) {
			h->refused[REFUSED_DEADLINE].n++;
			c->deadline_ns = UINT64_MAX;
			shutdown(c->fd, SHUT_RDWR); /* the library sees it and closes */
			ran = true;
		} else {
			refuse(c, 408, "the request took too long", REFUSED_DEADLINE);
		}
	}
	if (http_commands_late(h, now))
		ran = true;
	if (ran)
		http_run(h);
}

/* What the library calls. */

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *h = cls;
	struct conn *c = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
		    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

		c = info && (unsigned int)info->connect_fd < h->by_fd_count
			? h->by_fd[info->connect_fd]
			: NULL;
		*socket_context = c;
		if (c)
			c->started = true;
	} else if (c) {
		*socket_context = NULL;
		conn_free(c);
	}
}

/* Of an answer that is not sent in the end. */
static void drop_text(struct http *h, struct request *r)
{
	if (!r->reply.text)
		return;
	prometheus_free(&r->reply.text);
	moments_release(h->moments, r->snapshot);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **req_cls,
			 enum MHD_RequestTerminationCode code)
{
	struct request *r = *req_cls;

	(void)connection;
	(void)code;
	if (!r)
		return;
	if (r->waiting)
		http_command_forget(cls, r);
	drop_text(cls, r);
	free(r->reply.body);
	free(r);
	*req_cls = NULL;
}

static char *gzip(const char *in, size_t len, size_t *ret_len)
{
	z_stream z = {0};
	char *out;
	size_t cap;

	/* 15 + 16: a gzip header. Level 1: the scraper is near, the agent's CPU is dear. */
	if (len > UINT32_MAX || deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY))
		return NULL;
	cap = deflateBound(&z, len);
	out = malloc(cap);
	if (out) {
		z.next_in = (Bytef *)(uintptr_t)in;
		z.avail_in = (uInt)len;
		z.next_out = (Bytef *)out;
		z.avail_out = (uInt)cap;
		if (deflate(&z, Z_FINISH) != Z_STREAM_END) {
			free(out);
			out = NULL;
		}
		*ret_len = z.total_out;
	}
	deflateEnd(&z);
	return out;
}

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static const char *argument(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, name);
}

static ssize_t on_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
	int64_t n = stream_read(cls, buf, max);

	(void)pos;
	if (n < 0) /* the client sees an answer that was cut off */
		return MHD_CONTENT_READER_END_WITH_ERROR;
	return n ? (ssize_t)n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void on_stream_end(void *cls)
{
	struct stream *s = cls;

	stream_free(&s);
}

static struct MHD_Response *respond_in_pieces(struct http *h, struct request *r, bool zipped)
{
	struct MHD_Response *response;
	struct stream *s = NULL;

	if (stream_new(&s, h->moments, r->snapshot, &r->reply.text, &r->reply.body, r->reply.len,
		       zipped, h->own, HTTP_OWN, &h->refused[REFUSED_MEMORY].n))
		return NULL;
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_STREAM_BYTES, on_stream,
						     s, on_stream_end);
	if (!response)
		stream_free(&s);
	return response;
}

/* *zipped: it may be. */
static struct MHD_Response *respond_at_once(struct api_reply *reply, bool *zipped)
{
	struct MHD_Response *response;
	size_t len;
	char *z = *zipped && reply->body && reply->len >= HTTP_GZIP_MIN
		      ? gzip(reply->body, reply->len, &len)
		      : NULL;

	*zipped = z != NULL;
	if (z) {
		free(reply->body);
		reply->body = z;
		reply->len = len;
	}
	response = MHD_create_response_from_buffer(reply->len, reply->body, MHD_RESPMEM_MUST_FREE);
	if (response)
		reply->body = NULL;
	return response;
}

static enum MHD_Result answer(struct http *h, struct request *r)
{
	struct api_reply *reply = &r->reply;
	bool zipped = negotiate_gzip(header(r->connection, "Accept-Encoding"));
	struct MHD_Response *response =
	    reply->text ? respond_in_pieces(h, r, zipped) : respond_at_once(reply, &zipped);
	char took[32];
	enum MHD_Result ok;

	if (!response)
		return MHD_NO;
	snprintf(took, sizeof(took), "%.6f",
		 (double)(clock_ns(CLOCK_MONOTONIC) - r->start_ns) / 1e9);
	if (reply->type)
		MHD_add_response_header(response, "Content-Type", reply->type);
	if (zipped)
		MHD_add_response_header(response, "Content-Encoding", "gzip");
	MHD_add_response_header(response, "Vary", "Accept, Accept-Encoding");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "X-API-Version", "v1");
	MHD_add_response_header(response, "X-Request-ID", r->id);
	MHD_add_response_header(response, "X-Response-Time", took);
	if (reply->challenge)
		MHD_add_response_header(response, "WWW-Authenticate", reply->challenge);
	if (*reply->allow)
		MHD_add_response_header(response, "Allow", reply->allow);
	MHD_add_response_header(response, "Connection", "close");
	count_status(h, reply->status);
	ok = MHD_queue_response(r->connection, (unsigned int)reply->status, response);
	MHD_destroy_response(response);
	r->answered = true;
	return ok;
}

static enum command_role role_of(const struct http *h, const struct conn *c)
{
	if (c->is_unix)
		return c->uid_known && !c->uid ? ROLE_ADMIN : ROLE_VIEWER;
	return h->tokens ? c->token.role : ROLE_VIEWER;
}

/* True when the answer is ready now. */
static bool dispatch(struct http *h, struct request *r, struct conn *c, const char *method,
		     const char *url)
{
	struct api_request q = {
	    .method = method,
	    .path = url,
	    .accept = header(r->connection, "Accept"),
	    .limit = argument(r->connection, "limit"),
	    .cursor = argument(r->connection, "cursor"),
	    .rate_limit = argument(r->connection, "rate_limit"),
	    .burst = argument(r->connection, "burst"),
	    .max_connections = argument(r->connection, "max_connections"),
	    .unix_socket = c->is_unix,
	    .tokens = !c->is_unix && h->tokens,
	    .bad_token = c->bad_token,
	    .uid = c->is_unix ? c->uid : UINT32_MAX,
	    .user = c->token.name,
	    .role = role_of(h, c),
	    .own = h->own,
	    .own_count = HTTP_OWN,
	};
	const char *key = header(r->connection, "Idempotency-Key");

	if (key && !negotiate_id_valid(key)) {
		api_problem(&r->reply, 400, "Idempotency-Key must be 1 to 63 of A-Za-z0-9._-");
		return true;
	}
	snprintf(r->key, sizeof(r->key), "%s", key ? key : "");
	q.snapshot = moments_latest(h->moments);
	api_dispatch(&q, &r->reply);
	if (r->reply.text && !moments_hold(h->moments, q.snapshot)) {
		/* Slow readers hold all that may be held: none of them shuts the others out, and
		 * theirs is no older than api.request_timeout. */
		h->older.n++;
		prometheus_free(&r->reply.text);
		free(r->reply.body);
		r->reply = (struct api_reply){0};
		q.snapshot = moments_held(h->moments);
		api_dispatch(&q, &r->reply);
		if (r->reply.text)
			moments_hold(h->moments, q.snapshot);
	}
	r->snapshot = r->reply.text ? q.snapshot : NULL;
	if (r->reply.status != API_ASYNC)
		return true;
	return http_command(h, r, c);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **req_cls)
{
	struct http *h = cls;
	struct request *r = *req_cls;
	const union MHD_ConnectionInfo *info;
	struct conn *c;
	const char *id;

	(void)version;
	(void)upload;
	if (!r) {
		r = calloc(1, sizeof(*r));
		if (!r)
			return MHD_NO;
		r->start_ns = clock_ns(CLOCK_MONOTONIC);
		r->connection = connection;
		id = header(connection, "X-Request-ID");
		if (negotiate_id_valid(id))
			snprintf(r->id, sizeof(r->id), "%s", id);
		else
			make_id(r->id);
		*req_cls = r;
		return MHD_YES;
	}
	if (*upload_size) { /* no body means anything here; chunked ones are bounded as well */
		r->body += *upload_size;
		*upload_size = 0;
		return r->body > HEAD_BODY_MAX ? MHD_NO : MHD_YES;
	}
	if (r->answered || r->waiting)
		return MHD_YES;
	if (r->reply.status) /* a command came back */
		return answer(h, r);
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	c = info ? info->socket_context : NULL;
	if (!c)
		return MHD_NO;
	return dispatch(h, r, c, method, url) ? answer(h, r) : MHD_YES;
}

/* The library splits and decodes nothing but the query: paths are decoded once, by us. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *s)
{
	(void)cls;
	(void)connection;
	return strlen(s);
}

static int start_mhd(struct http *h)
{
	const union MHD_DaemonInfo *info;

	h->mhd = MHD_start_daemon(
	    MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
	    on_request, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
	    MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_UNESCAPE_CALLBACK,
	    keep_escapes, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_MHD_MEMORY,
	    MHD_OPTION_CONNECTION_LIMIT, h->config->api.max_connections + HTTP_UNIX_RESERVE,
	    MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
	if (!h->mhd)
		return -ENOMEM;
	info = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -ENOTSUP;
	h->mhd_fd = info->epoll_fd;
	return 0;
}

static void about_itself(struct http *h)
{
	h->own[0] = (struct prometheus_family){.name = "kilter_http_requests_total",
					       .help = "Requests this endpoint answered.",
					       .label = "code",
					       .counter = true,
					       .rows = h->codes};
	h->own[1] = (struct prometheus_family){
	    .name = "kilter_http_connections_refused_total",
	    .help = "Connections this endpoint closed without serving them.",
	    .label = "reason",
	    .counter = true,
	    .rows = h->refused,
	    .count = REFUSALS};
	h->own[2] = (struct prometheus_family){
	    .name = "kilter_http_older_snapshots_total",
	    .help = "Answers made from the snapshot of one under way: slow readers held the rest.",
	    .label = "path",
	    .counter = true,
	    .rows = &h->older,
	    .count = 1};
	h->older.value = "/metrics";
	for (int i = 0; i < REFUSALS; i++)
		h->refused[i].value = refusal_names[i];
}

int http_new(struct http **ret, struct loop *l, const struct http_options *o)
{
	struct http *h = calloc(1, sizeof(*h));
	uint16_t port;
	int err;

	if (!h)
		return -ENOMEM;
	h->loop = l;
	h->config = o->config;
	h->tcp_fd = o->tcp_fd;
	h->unix_fd = o->unix_fd;
	h->command_fd = o->command_fd;
	h->tokens = o->tokens;
	/* A command of a worker that died must not be taken for one of ours. */
	h->next_command = clock_boot_ns();
	about_itself(h);
	h->by_fd_count = o->config->api.max_connections + HTTP_FDS_EXTRA;
	h->by_fd = calloc(h->by_fd_count, sizeof(struct conn *));
	err = h->by_fd ? 0 : -ENOMEM;
	if (!err && *o->config->listen)
		err = http_split_listen(o->config->listen, h->listen_host, &port, &h->any_address);
	if (!err)
		err = moments_new(&h->moments, o->snapshot_fd);
	if (!err)
		err = start_mhd(h);
	if (!err)
		err = loop_add_fd(l, h->mhd_fd, EPOLLIN, on_mhd, h, &h->mhd_source);
	if (!err)
		err = loop_add_timer(l, 0, on_mhd_timer, h, &h->mhd_timer);
	if (!err)
		err = loop_add_timer(l, HTTP_SWEEP_NS, on_sweep, h, &h->sweep);
	if (!err && h->command_fd >= 0)
		err = loop_add_fd(l, h->command_fd, EPOLLIN, http_on_reply, h, &h->command_source);
	if (!err && h->tcp_fd >= 0)
		err = loop_add_fd(l, h->tcp_fd, EPOLLIN, on_accept, h, &h->tcp_source);
	if (!err && h->unix_fd >= 0)
		err = loop_add_fd(l, h->unix_fd, EPOLLIN, on_accept, h, &h->unix_source);
	if (err)
		http_free(&h);
	*ret = h;
	return err;
}

void http_free(struct http **ph)
{
	struct http *h = *ph;

	if (!h)
		return;
	loop_remove(h->loop, &h->tcp_source);
	loop_remove(h->loop, &h->unix_source);
	loop_remove(h->loop, &h->command_source);
	loop_remove(h->loop, &h->sweep);
	loop_remove(h->loop, &h->mhd_timer);
	loop_remove(h->loop, &h->mhd_source);
	http_commands_done(h);
	if (h->mhd)
		MHD_stop_daemon(h->mhd); /* calls on_completed and on_connection for each */
	while (h->conns)
		conn_close(h->conns);
	moments_free(&h->moments);
	free(h->by_fd);
	free(h);
	*ph = NULL;
}
