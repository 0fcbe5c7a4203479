/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: epoll, timerfd, signalfd; single-threaded. Modules hand it a descriptor
 * or a period; they never poll. Callbacks that overrun are counted.
 */
#ifndef KILTER_CORE_LOOP_H
#define KILTER_CORE_LOOP_H

#include <stdint.h>

struct loop;
struct loop_source;

typedef void (*loop_fd_fn)(void *ctx, int fd, uint32_t epoll_events);
typedef void (*loop_timer_fn)(void *ctx, uint64_t missed); /* periods that went by unserved */
typedef void (*loop_signal_fn)(void *ctx, int signo);

int loop_new(struct loop **ret);
void loop_free(struct loop **loop);
/* ret_source may be NULL. The loop does not own fd. Errors: negative errno of epoll_ctl. */
int loop_add_fd(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn fn, void *ctx,
		struct loop_source **ret_source);
int loop_add_timer(struct loop *l, uint64_t period_ns, loop_timer_fn fn, void *ctx,
		   struct loop_source **ret_source);
int loop_set_timer(struct loop_source *s, uint64_t period_ns); /* 0 stops it */
/* Blocks signo for the process and delivers it from the loop. */
int loop_add_signal(struct loop *l, int signo, loop_signal_fn fn, void *ctx);
void loop_remove(struct loop *l, struct loop_source **s);
int loop_run(struct loop *l); /* until loop_stop(); its argument is returned */
void loop_stop(struct loop *l, int result);
uint64_t loop_overruns(const struct loop *l); /* callbacks that took more than 250 ms */

#endif
