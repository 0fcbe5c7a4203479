// SPDX-License-Identifier: Apache-2.0
/*
 * One memfd: a header page, then two areas. The agent builds each table in private buffers
 * and copies them into the idle area at commit:
 *
 *   area.guard = 0; fence; copy; area.guard = n; header.sequence = n     (area = n & 1)
 *
 * A reader takes n, checks that area.guard is n before and after its copy, and then judges
 * the copy alone: what is in shared memory may change under it at any time.
 */
#include "model/snapshot.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kilter/identity.h>

#include "core/cleanup.h"
#include "core/selfstat.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define SNAPSHOT_PAGE	     4096u
#define SNAPSHOT_READ_TRIES  16
#define SNAPSHOT_AREA_MAX    (1ull << 32) /* offsets of strings are 32 bits */
#define SNAPSHOT_STRINGS_MIN 1024u	  /* slots of the index of strings; a power of two */

struct shared_header {
	uint64_t magic;
	uint32_t version, pad;
	uint64_t area_bytes;
	_Atomic uint64_t sequence;
};

struct table_desc {
	uint64_t off; /* from the start of the area */
	uint32_t count, stride;
};

struct area_header {
	_Atomic uint64_t guard;
	uint64_t bytes; /* used, this header included */
	struct table_desc tables[SNAP_TABLES];
};

static const size_t row_sizes[SNAP_TABLES] = {
    [SNAP_NODE] = sizeof(struct snap_node),
    [SNAP_WORKLOADS] = sizeof(struct snap_workload),
    [SNAP_LABELS] = sizeof(struct snap_label),
    [SNAP_EDGES] = sizeof(struct snap_edge),
    [SNAP_LISTENERS] = sizeof(struct snap_listener),
    [SNAP_SERIES] = sizeof(struct snap_series),
    [SNAP_CONNS] = sizeof(struct snap_conn),
    [SNAP_SYSCALLS] = sizeof(struct snap_syscall),
    [SNAP_SYSCALL_ERRORS] = sizeof(struct snap_syscall_error),
    [SNAP_HEALTH] = sizeof(struct snap_health),
    [SNAP_CIRCUITS] = sizeof(struct snap_circuit),
    [SNAP_PROBES] = sizeof(struct snap_probe),
    [SNAP_PHASES] = sizeof(struct snap_phase),
    [SNAP_METRICS] = sizeof(struct snap_metric),
    [SNAP_SAMPLES] = sizeof(struct snap_sample),
    [SNAP_DROPS] = sizeof(struct snap_drop),
    [SNAP_MAPS] = sizeof(struct snap_map),
    [SNAP_CONFIG] = sizeof(struct snap_config),
    [SNAP_AUDIT] = sizeof(struct snap_audit),
    [SNAP_STRINGS] = 1,
};

struct buffer {
	unsigned char *data;
	size_t len, cap;
	uint32_t count;
};

struct snapshot_writer {
	int fd;
	size_t area_bytes;
	unsigned char *map;
	struct buffer tables[SNAP_TABLES];
	size_t used; /* by all tables, padding included */
	snap_str *strings;
	uint32_t strings_size, strings_count;
	uint64_t dropped;
	bool truncated;
	struct selfstat stat;
};

static void stat_dropped(void *ctx, selfstat_emit_fn emit, void *emit_ctx)
{
	emit(emit_ctx, "", (double)snapshot_dropped(ctx));
}

static size_t map_bytes(size_t area_bytes)
{
	return SNAPSHOT_PAGE + 2 * area_bytes;
}

int snapshot_writer_new(struct snapshot_writer **ret, size_t area_bytes_max)
{
	struct snapshot_writer *w;
	struct shared_header *h;
	int err;

	area_bytes_max = (area_bytes_max + SNAPSHOT_PAGE - 1) & ~(size_t)(SNAPSHOT_PAGE - 1);
	if (area_bytes_max < 2 * SNAPSHOT_PAGE || area_bytes_max > SNAPSHOT_AREA_MAX)
		return -EINVAL;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->map = MAP_FAILED;
	w->area_bytes = area_bytes_max;
	w->fd = memfd_create("kilter-snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (w->fd < 0 || ftruncate(w->fd, (off_t)map_bytes(area_bytes_max)))
		goto fail;
	w->map =
	    mmap(NULL, map_bytes(area_bytes_max), PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	if (w->map == MAP_FAILED)
		goto fail;
	/* Before Linux 5.1 there is no FUTURE_WRITE: the front then maps read-only by itself. */
	if (fcntl(w->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) &&
	    fcntl(w->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
		goto fail;
	h = (struct shared_header *)(void *)w->map;
	h->magic = SNAPSHOT_MAGIC;
	h->version = SNAPSHOT_VERSION;
	h->area_bytes = area_bytes_max;
	snapshot_begin(w);
	w->stat =
	    (struct selfstat){.name = "kilter_snapshot_dropped_total",
			      .help = "Rows that found no room in what /metrics is made from.",
			      .type = SELFSTAT_COUNTER,
			      .collect = stat_dropped,
			      .ctx = w};
	selfstat_register(&w->stat);
	*ret = w;
	return 0;
fail:
	err = -errno;
	snapshot_writer_free(&w);
	return err;
}

void snapshot_writer_free(struct snapshot_writer **wp)
{
	struct snapshot_writer *w = *wp;

	if (!w)
		return;
	if (w->stat.collect)
		selfstat_unregister(&w->stat);
	if (w->map != MAP_FAILED)
		munmap(w->map, map_bytes(w->area_bytes));
	cleanup_close(&w->fd);
	for (int t = 0; t < SNAP_TABLES; t++)
		free(w->tables[t].data);
	free(w->strings);
	free(w);
	*wp = NULL;
}

int snapshot_writer_fd(const struct snapshot_writer *w)
{
	return w->fd;
}

/* Room for n more bytes in table t; NULL (counted) when there is none. */
static void *append(struct snapshot_writer *w, enum snap_table t, size_t n)
{
	struct buffer *b = &w->tables[t];
	void *at;

	if (n > w->area_bytes - w->used) {
		w->truncated = true;
		w->dropped++;
		return NULL;
	}
	if (b->len + n > b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 4096;
		unsigned char *data;

		while (cap < b->len + n)
			cap *= 2;
		data = realloc(b->data, cap);
		if (!data) {
			w->truncated = true;
			w->dropped++;
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	at = b->data + b->len;
	memset(at, 0, n);
	b->len += n;
	w->used += n;
	return at;
}

void snapshot_begin(struct snapshot_writer *w)
{
	for (int t = 0; t < SNAP_TABLES; t++)
		w->tables[t].len = w->tables[t].count = 0;
	/* Each table may need up to 7 bytes to be aligned. */
	w->used = sizeof(struct area_header) + 8 * SNAP_TABLES;
	w->truncated = false;
	w->strings_count = 0;
	if (w->strings)
		memset(w->strings, 0, w->strings_size * sizeof(*w->strings));
	append(w, SNAP_STRINGS, 1); /* "" is at 0 */
}

void *snapshot_add(struct snapshot_writer *w, enum snap_table t, size_t row_size)
{
	void *row;

	if ((unsigned int)t >= SNAP_STRINGS || row_size != row_sizes[t]) {
		w->dropped++;
		return NULL;
	}
	row = append(w, t, row_size);
	if (row)
		w->tables[t].count++;
	return row;
}

static uint32_t string_hash(const char *s, size_t n)
{
	uint32_t h = 0;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 0x01000193u;
	return kilter_hash_end(h);
}

static int strings_grow(struct snapshot_writer *w)
{
	uint32_t size = w->strings_size ? w->strings_size * 2 : SNAPSHOT_STRINGS_MIN;
	snap_str *slots = calloc(size, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < w->strings_size; i++) {
		snap_str s = w->strings[i];
		uint32_t at;

		if (!s.len)
			continue;
		at = string_hash((const char *)w->tables[SNAP_STRINGS].data + s.off, s.len);
		while (slots[at &= size - 1].len)
			at++;
		slots[at] = s;
	}
	free(w->strings);
	w->strings = slots;
	w->strings_size = size;
	return 0;
}

snap_str snapshot_strn(struct snapshot_writer *w, const char *s, size_t n)
{
	snap_str str = {0, 0};
	uint32_t at;
	char *to;

	if (!s || !(n = strnlen(s, n)))
		return str;
	if (w->strings_count * 2 >= w->strings_size && strings_grow(w)) {
		w->dropped++;
		return str;
	}
	for (at = string_hash(s, n);; at++) {
		at &= w->strings_size - 1;
		if (!w->strings[at].len)
			break;
		if (w->strings[at].len == n &&
		    !memcmp(w->tables[SNAP_STRINGS].data + w->strings[at].off, s, n))
			return w->strings[at];
	}
	str.off = (uint32_t)w->tables[SNAP_STRINGS].len;
	to = append(w, SNAP_STRINGS, n + 1);
	if (!to)
		return (snap_str){0, 0};
	memcpy(to, s, n);
	str.len = (uint32_t)n;
	w->strings[at] = str;
	w->strings_count++;
	return str;
}

snap_str snapshot_str(struct snapshot_writer *w, const char *s)
{
	return snapshot_strn(w, s, s ? strlen(s) : 0);
}

int snapshot_commit(struct snapshot_writer *w)
{
	struct shared_header *h = (struct shared_header *)(void *)w->map;
	uint64_t next = atomic_load_explicit(&h->sequence, memory_order_relaxed) + 1;
	unsigned char *base = w->map + SNAPSHOT_PAGE + (next & 1) * w->area_bytes;
	struct area_header *a = (struct area_header *)(void *)base;
	size_t off = sizeof(*a);

	atomic_store_explicit(&a->guard, 0, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	w->tables[SNAP_STRINGS].count = (uint32_t)w->tables[SNAP_STRINGS].len;
	for (int t = 0; t < SNAP_TABLES; t++) {
		struct buffer *b = &w->tables[t];

		off = (off + 7) & ~(size_t)7;
		a->tables[t] = (struct table_desc){
		    .off = off, .count = b->count, .stride = (uint32_t)row_sizes[t]};
		if (b->len)
			memcpy(base + off, b->data, b->len);
		off += b->len;
	}
	a->bytes = off;
	atomic_store_explicit(&a->guard, next, memory_order_release);
	atomic_store_explicit(&h->sequence, next, memory_order_release);
	return w->truncated ? -E2BIG : 0;
}

uint64_t snapshot_dropped(const struct snapshot_writer *w)
{
	return w->dropped;
}

struct snapshot_reader {
	const unsigned char *map;
	size_t size, area_bytes;
};

int snapshot_reader_open(struct snapshot_reader **ret, int fd)
{
	const struct shared_header *h;
	struct snapshot_reader *r;
	struct stat st;
	void *map;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_size < (off_t)(SNAPSHOT_PAGE + 2 * sizeof(struct area_header)))
		return -EBADMSG;
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	h = map;
	r = calloc(1, sizeof(*r));
	if (!r) {
		munmap(map, (size_t)st.st_size);
		return -ENOMEM;
	}
	r->map = map;
	r->size = (size_t)st.st_size;
	r->area_bytes = (r->size - SNAPSHOT_PAGE) / 2;
	if (h->magic != SNAPSHOT_MAGIC || h->version != SNAPSHOT_VERSION ||
	    h->area_bytes != r->area_bytes || r->area_bytes % 8 ||
	    r->area_bytes > SNAPSHOT_AREA_MAX) {
		snapshot_reader_free(&r);
		return -EBADMSG;
	}
	*ret = r;
	return 0;
}

void snapshot_reader_free(struct snapshot_reader **r)
{
	if (!*r)
		return;
	munmap((void *)(uintptr_t)(*r)->map, (*r)->size);
	free(*r);
	*r = NULL;
}

/* Judges the private copy; size is what was copied. */
static int check(struct snapshot *s, size_t size)
{
	const struct area_header *a = s->mem;

	for (int t = 0; t < SNAP_TABLES; t++) {
		struct table_desc d = a->tables[t];

		if (d.stride != row_sizes[t] || d.off % 8 || d.off < sizeof(*a) || d.off > size ||
		    (uint64_t)d.count * d.stride > size - d.off)
			return -EBADMSG;
		s->tables[t] = (const unsigned char *)s->mem + d.off;
		s->counts[t] = d.count;
	}
	return 0;
}

int snapshot_read(struct snapshot_reader *r, struct snapshot *s)
{
	const struct shared_header *h = (const void *)r->map;

	memset(s->tables, 0, sizeof(s->tables));
	memset(s->counts, 0, sizeof(s->counts));
	for (int i = 0; i < SNAPSHOT_READ_TRIES; i++) {
		uint64_t n = atomic_load_explicit(&h->sequence, memory_order_acquire), bytes;
		const struct area_header *a =
		    (const void *)(r->map + SNAPSHOT_PAGE + (n & 1) * r->area_bytes);

		if (!n)
			return -EAGAIN;
		if (atomic_load_explicit(&a->guard, memory_order_acquire) != n)
			continue;
		bytes = *(const volatile uint64_t *)&a->bytes;
		if (bytes < sizeof(*a) || bytes > r->area_bytes) {
			if (atomic_load_explicit(&h->sequence, memory_order_acquire) != n)
				continue;
			return -EBADMSG;
		}
		if (s->mem_size < bytes) {
			void *mem = realloc(s->mem, bytes);

			if (!mem)
				return -ENOMEM;
			s->mem = mem;
			s->mem_size = bytes;
		}
		memcpy(s->mem, a, bytes);
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&a->guard, memory_order_relaxed) != n)
			continue;
		s->sequence = n;
		if (!check(s, bytes))
			return 0;
		memset(s->tables, 0, sizeof(s->tables));
		memset(s->counts, 0, sizeof(s->counts));
		return -EBADMSG;
	}
	return -EAGAIN;
}

bool snapshot_is_latest(const struct snapshot_reader *r, const struct snapshot *s)
{
	const struct shared_header *h = (const void *)r->map;

	return s->tables[SNAP_NODE] &&
	       s->sequence == atomic_load_explicit(&h->sequence, memory_order_acquire);
}

void snapshot_done(struct snapshot *s)
{
	free(s->mem);
	memset(s, 0, sizeof(*s));
}

const char *snapshot_text(const struct snapshot *s, snap_str str)
{
	const char *strings = s->tables[SNAP_STRINGS];
	uint32_t size = s->counts[SNAP_STRINGS];

	if (!strings || str.off >= size || str.len >= size - str.off || strings[str.off + str.len])
		return "";
	return strings + str.off;
}
