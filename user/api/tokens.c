// SPDX-License-Identifier: Apache-2.0
#include "api/tokens.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/head.h"
#include "api/negotiate.h"
#include "core/cleanup.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define WORDS_OF_LINE 3u
#define FIND_TRIES    8 /* reloads in the middle of one comparison */

_Static_assert(sizeof(((struct command_request *)0)->user) == TOKEN_NAME_LEN, "names fit");

struct word {
	const char *at;
	size_t len;
};

/* Up to one word more than there may be; returns how many. */
static unsigned int split(const char *at, size_t len, struct word words[static WORDS_OF_LINE + 1])
{
	unsigned int n = 0;
	size_t i = 0;

	while (n <= WORDS_OF_LINE) {
		while (i < len && (at[i] == ' ' || at[i] == '\t'))
			i++;
		if (i == len || at[i] == '#')
			break;
		words[n].at = at + i;
		while (i < len && at[i] != ' ' && at[i] != '\t')
			i++;
		words[n].len = (size_t)(at + i - words[n].at);
		n++;
	}
	return n;
}

static enum command_role role_of(struct word w)
{
	static const enum command_role roles[] = {ROLE_VIEWER, ROLE_OPERATOR, ROLE_ADMIN};

	for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++) {
		const char *name = command_role_str(roles[i]);

		if (w.len == strlen(name) && !memcmp(w.at, name, w.len))
			return roles[i];
	}
	return ROLE_NONE;
}

/* What is wrong with a line, or NULL. */
static const char *parse_line(const struct word *words, unsigned int n, unsigned int line,
			      struct token *ret)
{
	if (n < 2 || n > WORDS_OF_LINE)
		return "a line is ROLE TOKEN [NAME]";
	ret->role = role_of(words[0]);
	if (ret->role == ROLE_NONE)
		return "the role must be viewer, operator or admin";
	if (words[1].len < TOKEN_MIN || words[1].len > TOKEN_MAX)
		return "the token must have 32 to 128 characters";
	if (!head_is_b64token(words[1].at, words[1].len))
		return "the token may have letters, digits and -._~+/ alone, and = at its end";
	memcpy(ret->value, words[1].at, words[1].len);
	if (n < WORDS_OF_LINE) {
		snprintf(ret->name, sizeof(ret->name), "line-%u", line);
		return NULL;
	}
	if (words[2].len < sizeof(ret->name))
		memcpy(ret->name, words[2].at, words[2].len);
	/* NUL cannot shorten it: a line with one was refused. */
	return negotiate_id_valid(ret->name) ? NULL : "the name must be 1 to 63 of A-Za-z0-9._-";
}

int tokens_parse(const char *buf, size_t len, struct tokens *ret,
		 char reterr_why[static TOKENS_WHY_LEN])
{
	unsigned int line = 0;

	memset(ret, 0, sizeof(*ret));
	for (size_t at = 0; at < len;) {
		const char *nl = memchr(buf + at, '\n', len - at);
		size_t n = nl ? (size_t)(nl - buf) - at : len - at;
		struct word words[WORDS_OF_LINE + 1] = {{NULL, 0}};
		unsigned int count = split(buf + at, n, words);
		struct token row = {0};
		const char *why = NULL;

		line++;
		if (memchr(buf + at, 0, n))
			why = "a NUL byte";
		else if (count && ret->count == TOKENS_MAX)
			why = "more than 64 tokens";
		else if (count)
			why = parse_line(words, count, line, &row);
		if (count && !why && tokens_find(ret, words[1].at, words[1].len))
			why = "this token is there twice";
		if (why) {
			snprintf(reterr_why, TOKENS_WHY_LEN, "%u: %s", line, why);
			explicit_bzero(&row, sizeof(row));
			explicit_bzero(ret, sizeof(*ret));
			return -EINVAL;
		}
		if (count)
			ret->rows[ret->count++] = row;
		explicit_bzero(&row, sizeof(row));
		at += n + 1;
	}
	return 0;
}

/* The descriptor of the file, when it may be believed. */
static int open_file(const char *path, char reterr_why[static TOKENS_WHY_LEN])
{
	/* Non-blocking: a FIFO must not hold the start up. Links are followed, as those of a secret
	 * in Kubernetes; what counts is the file at their end. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int err = 0;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		snprintf(reterr_why, TOKENS_WHY_LEN, " cannot be read: %s", strerror(-err));
	} else if (!S_ISREG(st.st_mode)) {
		err = -EINVAL;
		snprintf(reterr_why, TOKENS_WHY_LEN, " is not a regular file");
	} else if (st.st_uid) {
		err = -EPERM;
		snprintf(reterr_why, TOKENS_WHY_LEN, " belongs to uid %u: it must be root's",
			 st.st_uid);
	} else if (st.st_mode & 077) {
		err = -EPERM;
		snprintf(reterr_why, TOKENS_WHY_LEN,
			 " has mode %04o: group and others must have no right to it, as with 0600",
			 st.st_mode & 07777);
	} else if (st.st_size > TOKENS_FILE_MAX) {
		err = -EFBIG;
		snprintf(reterr_why, TOKENS_WHY_LEN, " is larger than %u bytes", TOKENS_FILE_MAX);
	}
	return err ? err : take_fd(&fd);
}

int tokens_read(const char *path, struct tokens *ret, char reterr_why[static TOKENS_WHY_LEN])
{
	char buf[TOKENS_FILE_MAX + 1];
	_cleanup_close_ int fd = open_file(path, reterr_why);
	size_t len = 0;
	ssize_t n = 1;
	int err = 0;

	if (fd < 0)
		return fd;
	while (len < sizeof(buf) && n) {
		n = read(fd, buf + len, sizeof(buf) - len);
		if (n < 0 && errno != EINTR) {
			err = -errno;
			snprintf(reterr_why, TOKENS_WHY_LEN, " cannot be read: %s", strerror(-err));
			break;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	if (!err && len > TOKENS_FILE_MAX) { /* it grew */
		err = -EFBIG;
		snprintf(reterr_why, TOKENS_WHY_LEN, " is larger than %u bytes", TOKENS_FILE_MAX);
	}
	if (!err)
		err = tokens_parse(buf, len, ret, reterr_why);
	explicit_bzero(buf, sizeof(buf));
	return err;
}

/* 1 when equal, else 0, without a branch that the bytes decide. */
static uint32_t is_equal(const char a[static TOKEN_MAX], const char b[static TOKEN_MAX])
{
	uint32_t diff = 0;

	for (size_t i = 0; i < TOKEN_MAX; i++) {
		diff |= (uint32_t)(unsigned char)(a[i] ^ b[i]);
		__asm__("" : "+r"(diff)); /* the compiler must not see where it could stop */
	}
	return (diff - 1) >> 31;
}

const struct token *tokens_find(const struct tokens *t, const char *value, size_t len)
{
	char padded[TOKEN_MAX] = {0};
	uint32_t found = 0;

	if (len < TOKEN_MIN || len > TOKEN_MAX)
		return NULL;
	memcpy(padded, value, len);
	for (uint32_t i = 0; i < t->count && i < TOKENS_MAX; i++)
		found |= (i + 1) & (0 - is_equal(t->rows[i].value, padded));
	explicit_bzero(padded, sizeof(padded));
	return found ? &t->rows[found - 1] : NULL;
}

/*
 * Two tables; the one that counts is that of the generation's lowest bit. The agent fills the
 * other and then counts on, so that a reader meets a table that changes only when the generation
 * has moved meanwhile: then it looks again.
 */
struct shared {
	_Atomic uint32_t generation;
	struct tokens tables[2];
};

struct token_store {
	struct shared *mine; /* only in the process that made it */
	const struct shared *view;
};

int token_store_new(struct token_store **ret)
{
	_cleanup_close_ int fd = memfd_create("kilter-tokens", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	_cleanup_free_ struct token_store *s = calloc(1, sizeof(*s));
	void *mine, *view;
	int err;

	if (!s)
		return -ENOMEM;
	if (fd < 0 || ftruncate(fd, sizeof(struct shared)))
		return -errno;
	mine = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mine == MAP_FAILED)
		return -errno;
	/* What is mapped from here on can never be written, whatever mprotect() is told. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) ||
	    madvise(mine, sizeof(struct shared), MADV_DONTFORK) ||
	    madvise(mine, sizeof(struct shared), MADV_DONTDUMP))
		goto fail;
	view = mmap(NULL, sizeof(struct shared), PROT_READ, MAP_SHARED, fd, 0);
	if (view == MAP_FAILED)
		goto fail;
	madvise(view, sizeof(struct shared), MADV_DONTDUMP); /* the front makes no dump at all */
	s->mine = mine;
	s->view = view;
	*ret = take_ptr(s);
	return 0;
fail:
	err = -errno;
	munmap(mine, sizeof(struct shared));
	return err;
}

void token_store_free(struct token_store **ps)
{
	struct token_store *s = *ps;

	if (!s)
		return;
	explicit_bzero(s->mine, sizeof(*s->mine));
	munmap(s->mine, sizeof(*s->mine));
	munmap((void *)(uintptr_t)s->view, sizeof(*s->view));
	free(s);
	*ps = NULL;
}

void token_store_set(struct token_store *s, const struct tokens *t)
{
	uint32_t now = atomic_load_explicit(&s->mine->generation, memory_order_relaxed);

	s->mine->tables[(now + 1) & 1] = *t;
	atomic_store_explicit(&s->mine->generation, now + 1, memory_order_release);
	/* Nobody may see the zeros below before the generation has moved. */
	atomic_thread_fence(memory_order_release);
	/* Revoked tokens need not stay. The next reader looks at the other table; one that is under
	 * way sees zeros and, in the end, that the generation moved. */
	explicit_bzero(&s->mine->tables[now & 1], sizeof(s->mine->tables[0]));
}

bool token_store_find(const struct token_store *s, const char *value, size_t len, struct token *ret)
{
	const struct shared *h = s->view;

	for (int i = 0; i < FIND_TRIES; i++) {
		uint32_t now = atomic_load_explicit(&h->generation, memory_order_acquire);
		const struct token *row = tokens_find(&h->tables[now & 1], value, len);
		struct token copy = {0};

		if (row)
			copy = *row;
		explicit_bzero(copy.value, sizeof(copy.value));
		atomic_thread_fence(memory_order_acquire);
		if (atomic_load_explicit(&h->generation, memory_order_relaxed) != now)
			continue;
		*ret = copy;
		return row != NULL;
	}
	return false;
}
