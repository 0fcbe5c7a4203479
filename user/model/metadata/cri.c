// SPDX-License-Identifier: Apache-2.0
/*
 * gRPC over HTTP/2 (the protocol's own document of that name, RFC 9113), as far as two unary calls
 * need it: nghttp2 has the frames and headers, cri_wire.c the messages. A connection serves one
 * batch and is closed, so a runtime that was restarted is no case of its own.
 */
#include "model/metadata/cri.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect/table.h"
#include "core/cleanup.h"
#include "core/config.h"
#include "core/loop.h"
#include "core/selfstat.h"
#include "model/metadata/cri_wire.h"

#define READ_BYTES \
	32768u /* of one turn of the loop: what is in it takes well under a millisecond */
/* Two lists and what is around them. */
#define BATCH_BYTES_MAX	   (2 * CRI_ANSWER_MAX + (4u << 20))
#define GRPC_UNIMPLEMENTED 12
#define ID_LEN		   LABELS_CONTAINER_ID_LEN

struct wanted {
	struct table_node node;
	char id[ID_LEN];
	char sandbox[ID_LEN]; /* of this batch; "": not known */
	bool asked;	      /* in this batch */
	uint8_t attempts;
	uint64_t due_ns;
	struct labels *labels; /* of this batch, the container's own */
};

struct pod {
	struct table_node node;
	char id[ID_LEN];
	struct labels *labels;
};

struct cri {
	struct loop *loop;
	struct sockaddr_un to;
	cri_found_fn found;
	void *ctx;
	struct table wanted, pods; /* pods: of this batch */
	struct loop_source *timer, *source;
	uint64_t armed_ns, not_before_ns, retry_ns;
	/* The batch under way. */
	int fd; /* -1: none */
	nghttp2_session *http;
	uint64_t received;
	uint8_t request[CRI_REQUEST_MAX];
	size_t request_len, request_sent;
	enum cri_list list;
	struct cri_reader reader;
	int32_t stream;
	int http_status, grpc_status; /* -1: not told */
	char grpc_message[96];
	int read_err; /* what the reader said */
	bool is_grpc, closed, changed_version;
	/* What is known of the runtime. */
	bool v1alpha2, works, tried;
	uint64_t changes;
	char state[CRI_STATE_LEN];
	/* Counted. */
	uint64_t answered, failed, known, unknown, no_room, unusable;
	struct selfstat stats[3];
};

static const char *service(const struct cri *c)
{
	return c->v1alpha2 ? "runtime.v1alpha2" : "runtime.v1";
}

/* --- when --- */

static void arm(struct cri *c, uint64_t at_ns, uint64_t now_ns)
{
	if (at_ns < c->not_before_ns)
		at_ns = c->not_before_ns;
	if (c->armed_ns && c->armed_ns <= at_ns)
		return;
	c->armed_ns = at_ns;
	loop_set_timer(c->timer, at_ns > now_ns ? at_ns - now_ns : 1);
}

/* The earliest of those that wait. */
static void arm_next(struct cri *c)
{
	uint64_t now = clock_boot_ns(), due = UINT64_MAX;
	const struct wanted *w;
	uint32_t pos = 0;

	c->armed_ns = 0;
	while ((w = table_next(&c->wanted, &pos)))
		if (w->due_ns < due)
			due = w->due_ns;
	if (due == UINT64_MAX)
		loop_set_timer(c->timer, 0);
	else
		arm(c, due, now);
}

int cri_want(struct cri *c, const char *id)
{
	uint64_t now = clock_boot_ns();
	struct wanted *w;

	if (!labels_is_container_id(id))
		return -EINVAL;
	if (table_find(&c->wanted, id))
		return -EEXIST;
	w = table_add(&c->wanted, id);
	if (!w) {
		c->no_room++;
		return c->wanted.count >= CRI_WANTED_MAX ? -ENOSPC : -ENOMEM;
	}
	w->due_ns = now + CRI_GATHER_NS;
	if (c->fd < 0)
		arm(c, w->due_ns, now);
	return 0;
}

/* --- the end of a batch --- */

static void set_state(struct cri *c, bool works, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void set_state(struct cri *c, bool works, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->state, sizeof(c->state), fmt, ap);
	va_end(ap);
	if (!c->tried || works != c->works)
		c->changes++;
	c->tried = true;
	c->works = works;
}

static void hang_up(struct cri *c)
{
	struct wanted *w;
	struct pod *p;
	uint32_t pos = 0;

	loop_remove(c->loop, &c->source);
	cleanup_close(&c->fd);
	c->fd = -1;
	nghttp2_session_del(c->http);
	c->http = NULL;
	c->unusable += c->reader.unusable;
	cri_reader_done(&c->reader);
	memset(&c->reader, 0, sizeof(c->reader));
	while ((w = table_next(&c->wanted, &pos))) {
		w->asked = false;
		labels_free(&w->labels);
	}
	for (pos = 0; (p = table_next(&c->pods, &pos));)
		labels_free(&p->labels);
	table_done(&c->pods);
	table_init(&c->pods, ID_LEN, sizeof(struct pod), CRI_WANTED_MAX);
}

/* What was wanted is still wanted. */
static void fail(struct cri *c, const char *what)
{
	c->failed++;
	set_state(c, false, "%.180s", what);
	hang_up(c);
	c->retry_ns = c->retry_ns ? 2 * c->retry_ns : CRI_RETRY_MIN_NS;
	if (c->retry_ns > CRI_RETRY_MAX_NS)
		c->retry_ns = CRI_RETRY_MAX_NS;
	c->not_before_ns = clock_boot_ns() + c->retry_ns;
	arm_next(c);
}

static void add_all(struct labels *to, const struct labels *from)
{
	for (const char *k = NULL; (k = labels_next(from, k));)
		labels_add(to, k, labels_value(k));
	to->dropped += from ? from->dropped : 0;
}

/* The container's own first, as from the files. NULL: the runtime knows neither. */
static struct labels *labels_of(const struct cri *c, const struct wanted *w)
{
	const struct pod *p = table_find(&c->pods, w->sandbox[0] ? w->sandbox : w->id);
	struct labels *all, *ret;

	if (!w->labels && (!p || !p->labels))
		return NULL;
	all = labels_new();
	if (!all)
		return NULL;
	add_all(all, w->labels);
	add_all(all, p ? p->labels : NULL);
	ret = labels_copy(all);
	labels_free(&all);
	return ret;
}

static void finish(struct cri *c)
{
	uint64_t now = clock_boot_ns();
	struct wanted *w;
	uint32_t pos = 0;

	c->answered++;
	set_state(c, true, "answers (%s)", service(c));
	c->retry_ns = c->not_before_ns = 0;
	while ((w = table_next(&c->wanted, &pos))) {
		char id[ID_LEN + 1] = "";
		struct labels *l;

		if (!w->asked)
			continue;
		l = labels_of(c, w);
		if (!l && ++w->attempts < CRI_ATTEMPTS_MAX) {
			w->due_ns = now + (NS_PER_SEC << (w->attempts - 1));
			continue;
		}
		if (l)
			c->known++;
		else
			c->unknown++;
		memcpy(id, w->id, ID_LEN);
		labels_free(&w->labels);
		table_remove(&c->wanted, w);
		c->found(c->ctx, id, l);
	}
	hang_up(c);
	arm_next(c);
}

/* --- what the lists say --- */

static struct labels *read_labels(const struct cri_item *item)
{
	struct labels *all = labels_new(), *ret = NULL;

	if (!all)
		return NULL;
	cri_item_labels(item, all);
	ret = labels_copy(all);
	labels_free(&all);
	return ret;
}

static void on_item(void *ctx, const struct cri_item *item)
{
	struct cri *c = ctx;

	if (!labels_is_container_id(item->id))
		return;
	if (item->list == CRI_CONTAINERS) {
		struct wanted *w = table_find(&c->wanted, item->id);

		if (!w || !w->asked || w->labels)
			return;
		w->labels = read_labels(item);
		if (labels_is_container_id(item->sandbox_id))
			memcpy(w->sandbox, item->sandbox_id, ID_LEN);
	} else {
		struct pod *p = table_find(&c->pods, item->id);

		if (p && !p->labels)
			p->labels = read_labels(item);
	}
}

/* --- one call --- */

static ssize_t send_request(nghttp2_session *http, int32_t stream, uint8_t *buf, size_t size,
			    uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct cri *c = ctx;
	size_t n = c->request_len - c->request_sent;

	(void)http;
	(void)stream;
	(void)source;
	if (n > size)
		n = size;
	memcpy(buf, c->request + c->request_sent, n);
	c->request_sent += n;
	if (c->request_sent == c->request_len)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

static nghttp2_nv header(const char *name, const char *value)
{
	return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value),
			    NGHTTP2_NV_FLAG_NONE};
}

/* No grpc-timeout: when ours is over the connection ends, and with it the call. */
static int begin_call(struct cri *c, enum cri_list list, const char *id)
{
	nghttp2_data_provider body = {.read_callback = send_request};
	char path[64];

	snprintf(path, sizeof(path), "/%s.RuntimeService/%s", service(c),
		 list == CRI_CONTAINERS ? "ListContainers" : "ListPodSandbox");
	nghttp2_nv headers[] = {
	    header(":method", "POST"),
	    header(":scheme", "http"),
	    header(":path", path),
	    header(":authority", "localhost"),
	    header("te", "trailers"),
	    header("content-type", "application/grpc"),
	    header("user-agent", "kilter/" KILTER_VERSION),
	};

	c->unusable += c->reader.unusable;
	cri_reader_done(&c->reader);
	cri_reader_init(&c->reader, list, on_item, c);
	c->list = list;
	c->request_len = cri_request(list, id, c->request);
	c->request_sent = 0;
	c->http_status = c->grpc_status = -1;
	c->grpc_message[0] = '\0';
	c->is_grpc = c->closed = false;
	c->stream = nghttp2_submit_request(c->http, NULL, headers,
					   sizeof(headers) / sizeof(headers[0]), &body, c);
	return c->stream < 0 ? -ENOMEM : 0;
}

/* One id is asked for by name: the answer is small, however many containers there are. */
static const char *the_only(const struct table *t, char buf[static ID_LEN + 1])
{
	const struct wanted *w;
	const char *only = NULL;
	uint32_t pos = 0;

	while ((w = table_next(t, &pos))) {
		if (!w->asked)
			continue;
		if (only)
			return NULL;
		memcpy(buf, w->id, ID_LEN);
		buf[ID_LEN] = '\0';
		only = buf;
	}
	return only;
}

static int ask_for_containers(struct cri *c)
{
	char id[ID_LEN + 1];

	return begin_call(c, CRI_CONTAINERS, the_only(&c->wanted, id));
}

static int ask_for_pods(struct cri *c)
{
	const struct wanted *w;
	const struct pod *p;
	char id[ID_LEN + 1] = "";
	uint32_t pos = 0;

	while ((w = table_next(&c->wanted, &pos))) {
		/* What is no container may be a pod's sandbox itself. */
		const char *key = w->sandbox[0] ? w->sandbox : w->id;

		if (w->asked && !table_find(&c->pods, key) && !table_add(&c->pods, key))
			return -ENOMEM;
	}
	pos = 0;
	p = table_next(&c->pods, &pos);
	if (p && c->pods.count == 1)
		memcpy(id, p->id, ID_LEN);
	return begin_call(c, CRI_SANDBOXES, id[0] ? id : NULL);
}

/* gRPC's status is text in a trailer, percent-encoded; of no more use here than to be shown. */
static void copy_text(char *to, size_t size, const uint8_t *s, size_t n)
{
	size_t i;

	for (i = 0; i < n && i + 1 < size; i++)
		to[i] = s[i] >= ' ' && s[i] < 0x7f ? (char)s[i] : '?';
	to[i] = '\0';
}

static int to_number(const uint8_t *s, size_t n)
{
	int ret = 0;

	if (!n || n > 3)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		ret = 10 * ret + (s[i] - '0');
	}
	return ret;
}

static bool is(const char *name, const uint8_t *s, size_t n)
{
	return strlen(name) == n && !memcmp(name, s, n);
}

static int on_header(nghttp2_session *http, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
		     void *ctx)
{
	static const char type[] = "application/grpc";
	struct cri *c = ctx;

	(void)http;
	(void)flags;
	if (frame->hd.stream_id != c->stream)
		return 0;
	if (is(":status", name, name_len))
		c->http_status = to_number(value, value_len);
	else if (is("content-type", name, name_len))
		c->is_grpc =
		    value_len >= sizeof(type) - 1 && !memcmp(value, type, sizeof(type) - 1);
	else if (is("grpc-status", name, name_len))
		c->grpc_status = to_number(value, value_len);
	else if (is("grpc-message", name, name_len))
		copy_text(c->grpc_message, sizeof(c->grpc_message), value, value_len);
	return 0;
}

static int on_data(nghttp2_session *http, uint8_t flags, int32_t stream, const uint8_t *data,
		   size_t len, void *ctx)
{
	struct cri *c = ctx;

	(void)http;
	(void)flags;
	if (stream != c->stream || c->http_status != 200 || !c->is_grpc)
		return 0; /* what it is then, the end of the call says */
	c->read_err = cri_reader_feed(&c->reader, data, len);
	return c->read_err ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *http, int32_t stream, uint32_t error, void *ctx)
{
	struct cri *c = ctx;

	(void)http;
	(void)error; /* without a status it is a failure anyhow */
	if (stream == c->stream)
		c->closed = true;
	return 0;
}

/* Of all that nghttp2 has to say this alone: what came first was no HTTP/2. */
static int on_complaint(nghttp2_session *http, int code, const char *text, size_t len, void *ctx)
{
	struct cri *c = ctx;

	(void)http;
	(void)text;
	(void)len;
	if (code == NGHTTP2_ERR_SETTINGS_EXPECTED)
		c->read_err = -EPROTO;
	return 0;
}

/* --- the batch --- */

/* Writes what went wrong with the call, or returns NULL: it was answered. */
static const char *call_fault(const struct cri *c, char *buf, size_t size)
{
	const char *call = c->list == CRI_CONTAINERS ? "ListContainers" : "ListPodSandbox";

	if (c->http_status == 200 && c->is_grpc && !c->grpc_status)
		return cri_reader_end(&c->reader) ? "its answer ends too early" : NULL;
	if (c->http_status != 200 && c->http_status >= 0)
		snprintf(buf, size, "%s: HTTP status %d: no container runtime listens there", call,
			 c->http_status);
	else if (c->grpc_status == GRPC_UNIMPLEMENTED)
		snprintf(
		    buf, size,
		    "%s: neither runtime.v1 nor runtime.v1alpha2 is served there (containerd's "
		    "plugin 'cri' may be disabled)",
		    call);
	else if (c->grpc_status >= 0)
		snprintf(buf, size, "%s: gRPC status %d: %s", call, c->grpc_status,
			 c->grpc_message);
	else
		snprintf(buf, size, "%s: the call was ended without a status", call);
	return buf;
}

/* Called when a call is over: the next one, or the end. */
static void go_on(struct cri *c)
{
	const char *fault;
	char buf[CRI_STATE_LEN];
	int err;

	c->closed = false;
	if (c->grpc_status == GRPC_UNIMPLEMENTED && c->list == CRI_CONTAINERS &&
	    !c->changed_version) {
		/* containerd before 1.6, CRI-O before 1.20: the same messages by another name. */
		c->changed_version = true;
		c->v1alpha2 = !c->v1alpha2;
		err = ask_for_containers(c);
	} else {
		fault = call_fault(c, buf, sizeof(buf));
		if (fault) {
			fail(c, fault);
			return;
		}
		if (c->list == CRI_SANDBOXES) {
			finish(c);
			return;
		}
		err = ask_for_pods(c);
	}
	if (err)
		fail(c, strerror(-err));
}

/* What we send is small: one who has no room for it does not read. */
static int flush(struct cri *c)
{
	const uint8_t *data;
	ssize_t n, sent;

	while ((n = nghttp2_session_mem_send(c->http, &data)) > 0) {
		sent = send(c->fd, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent != n)
			return sent < 0 ? -errno : -EAGAIN;
	}
	return n < 0 ? -ENOMEM : 0;
}

static void flush_or_fail(struct cri *c)
{
	int err = c->fd >= 0 ? flush(c) : 0;

	if (err == -EAGAIN)
		fail(c, "it does not read");
	else if (err)
		fail(c, strerror(-err));
}

static void on_readable(void *ctx, int fd, uint32_t events)
{
	static uint8_t buf[READ_BYTES]; /* single-threaded */
	struct cri *c = ctx;
	ssize_t n;

	(void)events;
	n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		fail(c, n ? strerror(errno) : "it closed the connection");
		return;
	}
	c->received += (uint64_t)n;
	c->read_err = 0;
	if (c->received > BATCH_BYTES_MAX)
		c->read_err = -EFBIG;
	else if (nghttp2_session_mem_recv(c->http, buf, (size_t)n) < 0 && !c->read_err)
		c->read_err = -EPROTO;
	if (c->read_err == -EFBIG)
		fail(c, "its answer is too large");
	else if (c->read_err == -EBADMSG || c->read_err == -EPROTO)
		fail(c, c->read_err == -EPROTO ? "it does not speak HTTP/2"
					       : "its answer cannot be read");
	else if (c->read_err)
		fail(c, strerror(-c->read_err));
	else if (c->closed)
		go_on(c);
	flush_or_fail(c);
	if (c->http && !nghttp2_session_want_read(c->http)) /* after our GOAWAY, or its own */
		fail(c, "it ended the connection");
}

static int new_session(struct cri *c)
{
	static const nghttp2_settings_entry settings[] = {
	    {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	    {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384},
	};
	nghttp2_session_callbacks *callbacks;
	int err;

	if (nghttp2_session_callbacks_new(&callbacks))
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_callbacks_set_error_callback2(callbacks, on_complaint);
	err = nghttp2_session_client_new(&c->http, callbacks, c);
	nghttp2_session_callbacks_del(callbacks);
	if (err)
		return -ENOMEM;
	return nghttp2_submit_settings(c->http, NGHTTP2_FLAG_NONE, settings,
				       sizeof(settings) / sizeof(settings[0]))
		   ? -ENOMEM
		   : 0;
}

static int dial(struct cri *c)
{
	int err;

	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	/* Done at once or not at all: of Unix sockets a full backlog is EAGAIN. */
	if (connect(c->fd, (const struct sockaddr *)&c->to, sizeof(c->to)))
		return -errno;
	err = new_session(c);
	if (!err)
		err = ask_for_containers(c);
	if (!err)
		err = loop_add_fd(c->loop, c->fd, EPOLLIN, on_readable, c, &c->source);
	return err ? err : flush(c);
}

static void on_timer(void *ctx, uint64_t missed)
{
	uint64_t now = clock_boot_ns();
	struct cri *c = ctx;
	unsigned int asked = 0;
	struct wanted *w;
	uint32_t pos = 0;
	int err;

	(void)missed;
	loop_set_timer(c->timer, 0);
	c->armed_ns = 0;
	if (c->fd >= 0) {
		fail(c, "no answer in time");
		return;
	}
	while ((w = table_next(&c->wanted, &pos))) {
		w->asked = w->due_ns <= now;
		w->sandbox[0] = '\0';
		asked += w->asked;
	}
	if (!asked) {
		arm_next(c);
		return;
	}
	c->changed_version = false;
	c->received = 0;
	err = dial(c);
	if (err) {
		fail(c, strerror(-err));
		return;
	}
	loop_set_timer(c->timer, CRI_DEADLINE_NS);
}

/* --- figures --- */

static void stat_batches(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct cri *c = ctx;

	emit(emit_ctx, "outcome=\"answered\"", (double)c->answered);
	emit(emit_ctx, "outcome=\"failed\"", (double)c->failed);
}

static void stat_containers(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	const struct cri *c = ctx;

	emit(emit_ctx, "outcome=\"known\"", (double)c->known);
	emit(emit_ctx, "outcome=\"unknown\"", (double)c->unknown);
	emit(emit_ctx, "outcome=\"no_room\"", (double)c->no_room);
	emit(emit_ctx, "outcome=\"unusable\"", (double)(c->unusable + c->reader.unusable));
}

static void stat_wanted(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)((const struct cri *)ctx)->wanted.count);
}

static void register_stats(struct cri *c)
{
	c->stats[0] = (struct selfstat){
	    .name = "kilter_runtime_batches_total",
	    .help = "Questions for labels to the container runtime, two calls each.",
	    .type = SELFSTAT_COUNTER,
	    .collect = stat_batches,
	    .ctx = c};
	c->stats[1] = (struct selfstat){
	    .name = "kilter_runtime_containers_total",
	    .help = "Containers that the runtime was asked for, and items of its answers that "
		    "could not be used.",
	    .type = SELFSTAT_COUNTER,
	    .collect = stat_containers,
	    .ctx = c};
	c->stats[2] =
	    (struct selfstat){.name = "kilter_runtime_wanted",
			      .help = "Containers that wait for an answer of the runtime.",
			      .type = SELFSTAT_GAUGE,
			      .collect = stat_wanted,
			      .ctx = c};
	for (int i = 0; i < 3; i++)
		selfstat_register(&c->stats[i]);
}

int cri_new(struct cri **ret, struct loop *l, const char *endpoint, cri_found_fn found, void *ctx)
{
	const char *path = config_runtime_path(endpoint);
	struct cri *c;
	int err;

	if (!path || strlen(path) >= sizeof(c->to.sun_path))
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->loop = l;
	c->fd = -1;
	c->found = found;
	c->ctx = ctx;
	c->to.sun_family = AF_UNIX;
	memcpy(c->to.sun_path, path, strlen(path) + 1);
	snprintf(c->state, sizeof(c->state), "not asked yet");
	table_init(&c->wanted, ID_LEN, sizeof(struct wanted), CRI_WANTED_MAX);
	table_init(&c->pods, ID_LEN, sizeof(struct pod), CRI_WANTED_MAX);
	err = loop_add_timer(l, 0, on_timer, c, &c->timer);
	if (err) {
		free(c);
		return err;
	}
	register_stats(c);
	*ret = c;
	return 0;
}

void cri_free(struct cri **pc)
{
	struct cri *c = *pc;

	if (!c)
		return;
	hang_up(c);
	for (int i = 0; i < 3; i++)
		selfstat_unregister(&c->stats[i]);
	loop_remove(c->loop, &c->timer);
	table_done(&c->wanted);
	table_done(&c->pods);
	free(c);
	*pc = NULL;
}

const char *cri_state(const struct cri *c)
{
	return c->state;
}

uint64_t cri_changes(const struct cri *c)
{
	return c->changes;
}

bool cri_works(const struct cri *c)
{
	return !c->tried || c->works;
}
