// SPDX-License-Identifier: Apache-2.0
#include "collect/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>

struct ring {
	struct ring_buffer *rb;
	collect_event_fn fn;
	void *ctx;
	int drained;
	uint64_t malformed;
	union ring_event event;
};

static size_t record_size(uint32_t type)
{
	switch (type) {
	case KILTER_EVENT_EXEC:
		return sizeof(struct kilter_event_exec);
	case KILTER_EVENT_EXIT:
		return sizeof(struct kilter_event_exit);
	case KILTER_EVENT_CONNECT:
	case KILTER_EVENT_LISTEN:
	case KILTER_EVENT_REFUSED:
		return sizeof(struct kilter_event_net);
	case KILTER_EVENT_DNS:
		return sizeof(struct kilter_event_dns);
	case KILTER_EVENT_TRIP:
	case KILTER_EVENT_VERDICT:
		return sizeof(struct kilter_event_trip);
	}
	return 0;
}

int ring_check(const void *data, size_t size, union ring_event *ret)
{
	struct kilter_event h;
	size_t want;

	if (size < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	want = record_size(h.type);
	/* The ring buffer may hand out a record rounded up to 8 bytes, never less. */
	if (!want || h.size != want || size < want)
		return -EBADMSG;
	memcpy(ret, data, want);
	ret->h.comm[sizeof(ret->h.comm) - 1] = '\0';
	if (h.type == KILTER_EVENT_DNS && ret->dns.len > sizeof(ret->dns.msg))
		return -EBADMSG;
	if (h.type == KILTER_EVENT_EXEC) {
		if (ret->exec.args_len > sizeof(ret->exec.args))
			return -EBADMSG;
		ret->exec.file[sizeof(ret->exec.file) - 1] = '\0';
	}
	return 0;
}

static int on_record(void *ctx, void *data, size_t size)
{
	struct ring *r = ctx;

	if (ring_check(data, size, &r->event))
		r->malformed++;
	else if (r->fn)
		r->fn(r->ctx, &r->event.h);
	/* libbpf moves the consumer past this record even when told to stop. */
	return ++r->drained >= RING_DRAIN_MAX ? -E2BIG : 0;
}

int ring_new(struct ring **ret, int map_fd, collect_event_fn fn, void *ctx)
{
	struct ring *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->fn = fn;
	r->ctx = ctx;
	r->rb = ring_buffer__new(map_fd, on_record, r, NULL);
	if (!r->rb) {
		err = errno ? -errno : -ENOMEM;
		free(r);
		return err;
	}
	*ret = r;
	return 0;
}

void ring_free(struct ring **r)
{
	if (!*r)
		return;
	ring_buffer__free((*r)->rb);
	free(*r);
	*r = NULL;
}

int ring_fd(const struct ring *r)
{
	return ring_buffer__epoll_fd(r->rb);
}

int ring_drain(struct ring *r)
{
	int err;

	r->drained = 0;
	err = ring_buffer__consume(r->rb);
	return err < 0 && err != -E2BIG ? err : r->drained;
}

uint64_t ring_malformed(const struct ring *r)
{
	return r->malformed;
}
