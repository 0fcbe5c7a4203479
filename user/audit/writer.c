// SPDX-License-Identifier: Apache-2.0
/*
 * Lines are gathered and written whole, many to a write(2). A write that fails leaves the file
 * at the end of a line and the rest in memory, up to AUDIT_PENDING_MAX; what finds no room
 * there is counted, and the count becomes a record as soon as there is room for one.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/internal.h"
#include "core/cleanup.h"
#include "core/clock.h"
#include "core/json.h"

#define SEQUENCE_KEY	"\"event.sequence\":"
#define SEQUENCE_DIGITS 20 /* of UINT64_MAX */
/* <state_dir>/audit.seq: the sequence, whose counters the rest is of, what was told of each */
#define SEQUENCE_FILE \
	"%020" PRIu64 "\n%016" PRIx64 " %020" PRIu64 " %020" PRIu64 " %020" PRIu64 "\n"
#define SEQUENCE_FILE_SCAN "%20" SCNu64 " %16" SCNx64 " %20" SCNu64 " %20" SCNu64 " %20" SCNu64
#define SEQUENCE_FILE_LEN  (20 + 1 + 16 + 1 + 20 + 1 + 20 + 1 + 20 + 1)
#define TAIL_BLOCK	   (64u << 10)
#define GAP_RECORD_BYTES   2048 /* room a records-lost record may need */

/* mkdir -p of the directory part of path; 0750. */
static int make_parents(const char *path)
{
	char dir[PATH_MAX];

	if ((size_t)snprintf(dir, sizeof(dir), "%s", path) >= sizeof(dir))
		return -ENAMETOOLONG;
	for (char *s = dir + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(dir, 0750) && errno != EEXIST)
			return -errno;
		*s = '/';
	}
	return 0;
}

/*
 * Offset of the end of the last whole line, and into *ret_seq the sequence number it bears
 * (left alone when it has none).
 */
static int scan_tail(int fd, uint64_t size, uint64_t *ret_end, uint64_t *ret_seq)
{
	_cleanup_free_ char *block = malloc(TAIL_BLOCK + 1);
	uint64_t end = 0, at = size;
	const char *key;
	ssize_t n;

	if (!block)
		return -ENOMEM;
	*ret_end = 0;
	while (at && !end) {
		size_t want = at < TAIL_BLOCK ? (size_t)at : TAIL_BLOCK;

		at -= want;
		n = pread(fd, block, want, (off_t)at);
		if (n < 0)
			return -errno;
		for (size_t i = (size_t)n; i-- && !end;)
			if (block[i] == '\n')
				end = at + i + 1;
	}
	*ret_end = end;
	if (!end)
		return 0;
	/* A record is at most AUDIT_RECORD_MAX long: one block holds the last one. */
	at = end > TAIL_BLOCK ? end - TAIL_BLOCK : 0;
	n = pread(fd, block, (size_t)(end - at), (off_t)at);
	if (n < 0)
		return -errno;
	block[n] = '\0';
	for (size_t i = n ? (size_t)n - 1 : 0; i--;) {
		if (block[i] == '\n') {
			memmove(block, block + i + 1, (size_t)n - i);
			break;
		}
	}
	key = strstr(block, SEQUENCE_KEY);
	if (key) {
		uint64_t seq = strtoull(key + strlen(SEQUENCE_KEY), NULL, 10);

		if (seq > *ret_seq)
			*ret_seq = seq;
	}
	return 0;
}

int audit_file_open(struct audit *a)
{
	_cleanup_close_ int fd = -1;
	struct statx sx;
	struct stat st;
	uint64_t end;
	int err;

	fd = open(a->file, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode)) {
		if (!st.st_size && fchmod(fd, 0640)) /* whatever the umask */
			return -errno;
		err = scan_tail(fd, (uint64_t)st.st_size, &end, &a->stats.sequence);
		if (err)
			return err;
		if (end != (uint64_t)st.st_size) {
			if (ftruncate(fd, (off_t)end))
				return -errno;
			audit_gap(a, 1, "the last line of the file was torn");
		}
		a->size = end;
	} else {
		a->size = 0; /* a pipe or a device: never rotated */
	}
	a->birth_ns = clock_real_ns();
	if (a->size && !statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_MTIME, &sx)) {
		const struct statx_timestamp *t =
		    sx.stx_mask & STATX_BTIME ? &sx.stx_btime : &sx.stx_mtime;

		a->birth_ns = (uint64_t)t->tv_sec * NS_PER_SEC + t->tv_nsec;
	}
	if (a->fd >= 0)
		close(a->fd);
	a->fd = take_fd(&fd);
	return 0;
}

static void save_sequence(struct audit *a)
{
	char text[SEQUENCE_FILE_LEN + 1];

	if (a->seq_fd < 0 || a->saved == a->stats.sequence)
		return;
	snprintf(text, sizeof(text), SEQUENCE_FILE, a->stats.sequence, a->losses_origin,
		 a->told[AUDIT_LOST_RING], a->told[AUDIT_LOST_REFUSED],
		 a->told[AUDIT_LOST_DATAGRAMS]);
	/* Same length each time: over itself. The trail's own tail is the other witness. */
	if (pwrite(a->seq_fd, text, sizeof(text) - 1, 0) == (ssize_t)sizeof(text) - 1)
		a->saved = a->stats.sequence;
}

static int open_sequence(struct audit *a, const char *state_dir)
{
	char text[SEQUENCE_FILE_LEN + 1] = "";
	uint64_t sequence, origin, told[AUDIT_SOURCES];
	ssize_t n;
	int err;

	if (!state_dir || !*state_dir)
		return 0;
	if ((size_t)snprintf(a->seq_file, sizeof(a->seq_file), "%s/audit.seq", state_dir) >=
	    sizeof(a->seq_file))
		return -ENAMETOOLONG;
	err = make_parents(a->seq_file);
	if (err)
		return err;
	a->seq_fd = open(a->seq_file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (a->seq_fd < 0)
		return -errno;
	n = pread(a->seq_fd, text, SEQUENCE_FILE_LEN, 0);
	if (n >= SEQUENCE_DIGITS && strspn(text, "0123456789") == SEQUENCE_DIGITS)
		a->stats.sequence = strtoull(text, NULL, 10);
	if (n == SEQUENCE_FILE_LEN && a->losses_origin &&
	    sscanf(text, SEQUENCE_FILE_SCAN, &sequence, &origin, &told[AUDIT_LOST_RING],
		   &told[AUDIT_LOST_REFUSED], &told[AUDIT_LOST_DATAGRAMS]) == 2 + AUDIT_SOURCES &&
	    origin == a->losses_origin)
		memcpy(a->told, told, sizeof(told));
	return 0;
}

int audit_open(struct audit **ret, const struct audit_options *o)
{
	struct audit_rotated *rotated = NULL;
	struct audit *a;
	size_t count;
	int err;

	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->fd = a->seq_fd = -1;
	a->max_bytes = o->max_bytes;
	a->max_age_ns = o->max_age_ns;
	a->keep = o->keep;
	a->compress = o->compress;
	a->losses_origin = o->losses_origin;
	a->json = calloc(1, sizeof(*a->json));
	if (a->json)
		json_init(a->json, AUDIT_RECORD_MAX);
	if (gethostname(a->host, sizeof(a->host) - 1))
		a->host[0] = '\0';
	a->pending = malloc(AUDIT_PENDING_MAX);
	err = a->pending && a->json ? 0 : -ENOMEM;
	if (!err && (size_t)snprintf(a->file, sizeof(a->file), "%s", o->file) >= sizeof(a->file))
		err = -ENAMETOOLONG;
	if (!err)
		err = make_parents(a->file);
	if (!err)
		err = open_sequence(a, o->state_dir);
	if (!err)
		err = audit_rotated_list(a->file, &rotated, &count);
	if (!err) {
		if (count && rotated[count - 1].sequence > a->stats.sequence)
			a->stats.sequence = rotated[count - 1].sequence;
		free(rotated);
		a->gzip_wanted = true; /* what an earlier run left uncompressed */
		err = audit_file_open(a);
	}
	if (err) {
		audit_close(&a);
		return err;
	}
	*ret = a;
	return 0;
}

static uint64_t count_lines(const char *s, size_t n)
{
	uint64_t lines = 0;
	const char *end = s + n;

	while (s < end && (s = memchr(s, '\n', (size_t)(end - s)))) {
		lines++;
		s++;
	}
	return lines;
}

static void failed(struct audit *a, int err)
{
	a->stats.failing = true;
	a->stats.last_errno = err;
}

int audit_flush(struct audit *a)
{
	size_t done = 0, whole;
	int err = 0;

	if (!a->pending_len)
		return 0;
	while (done < a->pending_len) {
		ssize_t n = write(a->fd, a->pending + done, a->pending_len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			err = n ? -errno : -EIO;
			break;
		}
		done += (size_t)n;
	}
	for (whole = done; whole && a->pending[whole - 1] != '\n';)
		whole--;
	/* The end of the file stays the end of a line; the torn part is written again. */
	if (whole != done && ftruncate(a->fd, (off_t)(a->size + whole)))
		whole = done; /* a pipe: nothing can be taken back */
	a->stats.written += count_lines(a->pending, whole);
	a->stats.bytes += whole;
	a->size += whole;
	memmove(a->pending, a->pending + whole, a->pending_len - whole);
	a->pending_len -= whole;
	if (err) {
		failed(a, -err);
	} else {
		a->stats.failing = false;
		a->stats.last_errno = 0;
	}
	return err;
}

void audit_gap(struct audit *a, uint64_t records, const char *reason)
{
	uint64_t now = clock_real_ns();

	if (!a->gap_count)
		a->gap_since_ns = now;
	a->gap_until_ns = now;
	a->gap_reason = reason;
	a->gap_count += records;
	a->stats.lost += records;
}

/* Tells of a gap as soon as its record is sure to find room. */
static void tell_gap(struct audit *a)
{
	uint64_t count = a->gap_count;

	if (!count || a->pending_len + GAP_RECORD_BYTES > AUDIT_PENDING_MAX)
		return;
	a->gap_count = 0; /* first: the record ends in audit_record_end() */
	audit_record_gap(a, count, a->gap_since_ns, a->gap_until_ns, a->gap_reason);
}

struct json *audit_record_begin(struct audit *a, const char *action, const char *category,
				const char *type, const char *outcome, uint64_t real_ns)
{
	struct json *j = a->json;
	char time[31];

	tell_gap(a);
	json_reset(j);
	json_object_begin(j);
	json_kv_string(j, "@timestamp", clock_format_rfc3339(real_ns, time));
	json_kv_u64(j, "event.sequence", ++a->stats.sequence);
	json_kv_string(j, "event.kind", "event");
	json_kv_string(j, "event.action", action);
	json_key(j, "event.category");
	json_array_begin(j);
	json_string(j, category);
	json_array_end(j);
	json_key(j, "event.type");
	json_array_begin(j);
	json_string(j, type);
	json_array_end(j);
	json_kv_string(j, "event.outcome", outcome);
	return j;
}

static void remember(struct audit *a, const char *line, size_t len)
{
	size_t i = a->recent_count % AUDIT_RECENT_MAX;
	char *copy = malloc(len);

	if (!copy)
		return; /* the file has it */
	memcpy(copy, line, len);
	free(a->recent[i]);
	a->recent[i] = copy;
	a->recent_len[i] = len;
	a->recent_count++;
}

void audit_record_end(struct audit *a)
{
	struct json *j = a->json;

	json_kv_string(j, "host.name", a->host);
	json_kv_string(j, "ecs.version", AUDIT_ECS_VERSION);
	json_object_end(j);
	json_newline(j);
	if (json_error(j)) {
		audit_gap(a, 1, "a record was longer than a record may be");
		return;
	}
	if (a->pending_len + j->len > AUDIT_PENDING_MAX && !a->stats.failing)
		audit_flush(a);
	if (a->pending_len + j->len > AUDIT_PENDING_MAX) {
		audit_gap(a, 1, "the file could not be written");
		return;
	}
	memcpy(a->pending + a->pending_len, j->buf, j->len);
	a->pending_len += j->len;
	remember(a, j->buf, j->len - 1);
	/* While writing fails only the tick tries again: a full disk costs one call a tick. */
	if (a->pending_len >= AUDIT_FLUSH_BYTES && !a->stats.failing)
		audit_flush(a);
}

void audit_lost(struct audit *a, uint64_t records, const char *where)
{
	uint64_t now = clock_real_ns();

	if (!records)
		return;
	if (a->gap_count || a->pending_len + GAP_RECORD_BYTES > AUDIT_PENDING_MAX) {
		audit_gap(a, records, where);
		return;
	}
	a->stats.lost += records;
	audit_record_gap(a, records, now, now, where);
}

void audit_lost_total(struct audit *a, enum audit_source source, uint64_t total)
{
	static const char *const where[] = {
	    [AUDIT_LOST_RING] = "kernel ring buffer",
	    [AUDIT_LOST_REFUSED] = "more refused connects in a second than are recorded",
	    [AUDIT_LOST_DATAGRAMS] = "more ICMP errors in a second than are recorded",
	};

	/* Within one origin it never falls: less is a read that failed. */
	if (total <= a->told[source])
		return;
	audit_lost(a, total - a->told[source], where[source]);
	a->told[source] = total;
}

static bool due(const struct audit *a, uint64_t now)
{
	if (!a->size)
		return false;
	if (a->max_bytes && a->size + a->pending_len > a->max_bytes)
		return true;
	return a->max_age_ns && now > a->birth_ns && now - a->birth_ns >= a->max_age_ns;
}

void audit_tick(struct audit *a, uint64_t now_real_ns)
{
	int err = 0;

	if (due(a, now_real_ns)) {
		err = audit_rotate(a, now_real_ns);
		if (err)
			failed(a, -err); /* the file goes on growing: better than losing */
	}
	if (a->pending_len)
		audit_flush(a);
	if (a->gap_count) {
		tell_gap(a);
		audit_flush(a);
	}
	if (!err && !a->stats.failing)
		save_sequence(a);
	audit_rotate_tick(a);
}

int audit_reopen(struct audit *a)
{
	audit_flush(a);
	return audit_file_open(a);
}

void audit_reconfigure(struct audit *a, const struct audit_options *o)
{
	a->max_bytes = o->max_bytes;
	a->max_age_ns = o->max_age_ns;
	a->keep = o->keep;
	a->compress = o->compress;
}

void audit_close(struct audit **pa)
{
	struct audit *a = *pa;

	if (!a)
		return;
	if (a->fd >= 0) {
		tell_gap(a);
		audit_flush(a);
		save_sequence(a);
		fsync(a->fd);
		close(a->fd);
	}
	audit_gzip_abort(a);
	if (a->seq_fd >= 0)
		close(a->seq_fd);
	for (size_t i = 0; i < AUDIT_RECENT_MAX; i++)
		free(a->recent[i]);
	if (a->json)
		json_done(a->json);
	free(a->json);
	free(a->pending);
	free(a);
	*pa = NULL;
}

void audit_get_stats(const struct audit *a, struct audit_stats *ret)
{
	*ret = a->stats;
}

void audit_recent(const struct audit *a, size_t max,
		  void (*fn)(void *ctx, const char *line, size_t len), void *ctx)
{
	uint64_t have = a->recent_count < AUDIT_RECENT_MAX ? a->recent_count : AUDIT_RECENT_MAX;
	uint64_t n = max < have ? max : have;

	for (uint64_t i = a->recent_count - n; i < a->recent_count; i++)
		fn(ctx, a->recent[i % AUDIT_RECENT_MAX], a->recent_len[i % AUDIT_RECENT_MAX]);
}
