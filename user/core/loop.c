// SPDX-License-Identifier: Apache-2.0
#include "core/loop.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"

#define LOOP_BATCH	16
#define LOOP_OVERRUN_NS (250 * NS_PER_MS)

enum source_kind {
	SOURCE_FD,
	SOURCE_TIMER,
	SOURCE_SIGNAL
};

struct loop_source {
	struct loop_source *next;
	enum source_kind kind;
	int fd;
	bool dead; /* removed while its event may still be in the batch */
	union {
		loop_fd_fn fd_fn;
		loop_timer_fn timer_fn;
		loop_signal_fn signal_fn;
	};
	void *ctx;
};

struct loop {
	int epoll_fd, result;
	bool stop;
	uint64_t overruns;
	struct loop_source *sources;
};

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0) {
		free(l);
		return -errno;
	}
	*ret = l;
	return 0;
}

static void source_free(struct loop_source *s)
{
	if (s->kind != SOURCE_FD)
		close(s->fd);
	free(s);
}

void loop_free(struct loop **pl)
{
	struct loop *l = *pl;

	if (!l)
		return;
	while (l->sources) {
		struct loop_source *s = l->sources;

		l->sources = s->next;
		source_free(s);
	}
	close(l->epoll_fd);
	free(l);
	*pl = NULL;
}

/* NULL with a negative errno in *ret_err. */
static struct loop_source *add(struct loop *l, enum source_kind kind, int fd, uint32_t events,
			       void *ctx, int *ret_err)
{
	struct loop_source *s = calloc(1, sizeof(*s));
	struct epoll_event ev = {.events = events, .data.ptr = s};

	if (!s) {
		*ret_err = -ENOMEM;
		return NULL;
	}
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		*ret_err = -errno;
		free(s);
		return NULL;
	}
	s->kind = kind;
	s->fd = fd;
	s->ctx = ctx;
	s->next = l->sources;
	l->sources = s;
	return s;
}

int loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *ctx,
		struct loop_source **ret_source)
{
	int err = 0;
	struct loop_source *s = add(l, SOURCE_FD, fd, events, ctx, &err);

	if (!s)
		return err;
	s->fd_fn = fn;
	if (ret_source)
		*ret_source = s;
	return 0;
}

int loop_set_timer(struct loop_source *s, uint64_t period_ns)
{
	struct itimerspec its = {
	    .it_interval = {(time_t)(period_ns / NS_PER_SEC), (long)(period_ns % NS_PER_SEC)},
	    .it_value = {(time_t)(period_ns / NS_PER_SEC), (long)(period_ns % NS_PER_SEC)},
	};

	return timerfd_settime(s->fd, 0, &its, NULL) ? -errno : 0;
}

int loop_add_timer(struct loop *l, uint64_t period_ns, loop_timer_fn fn, void *ctx,
		   struct loop_source **ret_source)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), err = 0;
	struct loop_source *s;

	if (fd < 0)
		return -errno;
	s = add(l, SOURCE_TIMER, fd, EPOLLIN, ctx, &err);
	if (!s) {
		close(fd);
		return err;
	}
	s->timer_fn = fn;
	if (ret_source)
		*ret_source = s;
	return loop_set_timer(s, period_ns);
}

int loop_add_signal(struct loop *l, int signo, loop_signal_fn fn, void *ctx)
{
	struct loop_source *s;
	sigset_t set;
	int fd, err = 0;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	s = add(l, SOURCE_SIGNAL, fd, EPOLLIN, ctx, &err);
	if (!s) {
		close(fd);
		return err;
	}
	s->signal_fn = fn;
	return 0;
}

void loop_remove(struct loop *l, struct loop_source **ps)
{
	struct loop_source *s = *ps;

	if (!s)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->dead = true; /* freed when no batch can hold it any more */
	*ps = NULL;
}

static void reap(struct loop *l)
{
	struct loop_source **at = &l->sources;

	while (*at) {
		struct loop_source *s = *at;

		if (s->dead) {
			*at = s->next;
			source_free(s);
		} else {
			at = &s->next;
		}
	}
}

static void dispatch(struct loop_source *s, uint32_t events)
{
	struct signalfd_siginfo si;
	uint64_t expired;

	switch (s->kind) {
	case SOURCE_FD:
		s->fd_fn(s->ctx, s->fd, events);
		break;
	case SOURCE_TIMER:
		if (read(s->fd, &expired, sizeof(expired)) == sizeof(expired) && expired)
			s->timer_fn(s->ctx, expired - 1);
		break;
	case SOURCE_SIGNAL:
		while (!s->dead && read(s->fd, &si, sizeof(si)) == sizeof(si))
			s->signal_fn(s->ctx, (int)si.ssi_signo);
		break;
	}
}

int loop_run(struct loop *l)
{
	l->stop = false;
	while (!l->stop) {
		struct epoll_event ev[LOOP_BATCH];
		int n = epoll_wait(l->epoll_fd, ev, LOOP_BATCH, -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n && !l->stop; i++) {
			struct loop_source *s = ev[i].data.ptr;
			uint64_t start;

			if (s->dead)
				continue;
			start = clock_ns(CLOCK_MONOTONIC);
			dispatch(s, ev[i].events);
			if (clock_ns(CLOCK_MONOTONIC) - start > LOOP_OVERRUN_NS)
				l->overruns++;
		}
		reap(l);
	}
	return l->result;
}

void loop_stop(struct loop *l, int result)
{
	l->stop = true;
	l->result = result;
}

uint64_t loop_overruns(const struct loop *l)
{
	return l->overruns;
}
