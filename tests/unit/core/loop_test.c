// SPDX-License-Identifier: Apache-2.0
#include <sys/epoll.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/loop.h"

#include <cmocka.h>

static struct loop *loop;
static struct loop_source *source, *other;
static unsigned int calls;
static int fds[2];

static int setup(void **state)
{
	(void)state;
	calls = 0;
	source = other = NULL;
	return pipe2(fds, O_CLOEXEC | O_NONBLOCK) || loop_new(&loop) ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(&loop);
	loop_free(&loop); /* twice does no harm */
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static void stop_with_byte(void *ctx, int fd, uint32_t events)
{
	char c;

	(void)ctx;
	assert_true(events & EPOLLIN);
	assert_int_equal(read(fd, &c, 1), 1);
	calls++;
	loop_stop(loop, c);
}

static void a_ready_descriptor_is_served_and_the_result_returned(void **state)
{
	(void)state;
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, stop_with_byte, NULL, NULL), 0);
	for (char c = 1; c < 4; c++) {
		assert_int_equal(write(fds[1], &c, 1), 1);
		assert_int_equal(loop_run(loop), c);
	}
	assert_int_equal(calls, 3);
}

static void the_loop_does_not_own_descriptors(void **state)
{
	(void)state;
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, stop_with_byte, NULL, NULL), 0);
	loop_free(&loop);
	assert_null(loop);
	assert_int_not_equal(fcntl(fds[0], F_GETFD), -1);
}

static void what_epoll_refuses_is_an_error_and_no_source(void **state)
{
	struct loop_source *s = NULL;

	(void)state;
	assert_int_equal(loop_add_fd(loop, -1, EPOLLIN, stop_with_byte, NULL, &s), -EBADF);
	assert_null(s);
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, stop_with_byte, NULL, &s), 0);
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, stop_with_byte, NULL, NULL), -EEXIST);
}

/* Removes both, so that whichever is first in a batch takes the other out of it. */
static void remove_both(void *ctx, int fd, uint32_t events)
{
	(void)ctx;
	(void)fd;
	(void)events;
	calls++;
	loop_remove(loop, &source);
	loop_remove(loop, &other);
	assert_null(source);
	loop_stop(loop, 0);
}

static void a_source_removed_in_a_batch_is_not_called_any_more(void **state)
{
	(void)state;
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, remove_both, NULL, &source), 0);
	assert_int_equal(loop_add_fd(loop, fds[1], EPOLLOUT, remove_both, NULL, &other), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(calls, 1);
	/* It can be added anew. */
	assert_int_equal(loop_add_fd(loop, fds[0], EPOLLIN, stop_with_byte, NULL, NULL), 0);
	assert_int_equal(loop_run(loop), 'x');
	loop_remove(loop, &source); /* of nothing does nothing */
}

static void stop_after_three(void *ctx, uint64_t missed)
{
	(void)ctx;
	(void)missed;
	if (++calls == 3)
		loop_stop(loop, 3);
}

static void a_timer_comes_again_and_again(void **state)
{
	(void)state;
	assert_int_equal(loop_add_timer(loop, NS_PER_MS, stop_after_three, NULL, NULL), 0);
	assert_int_equal(loop_run(loop), 3);
	assert_int_equal(calls, 3);
}

static uint64_t total_missed;

static void count_missed(void *ctx, uint64_t missed)
{
	(void)ctx;
	calls++;
	total_missed += missed;
	if (calls == 1) { /* sleeps over some of its own periods */
		const struct timespec ts = {.tv_nsec = 20 * (long)NS_PER_MS};

		nanosleep(&ts, NULL);
	} else {
		loop_stop(loop, 0);
	}
}

static void periods_that_went_by_unserved_are_told(void **state)
{
	(void)state;
	total_missed = 0;
	assert_int_equal(loop_add_timer(loop, NS_PER_MS, count_missed, NULL, NULL), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(calls, 2);
	assert_true(total_missed >= 18);
}

static void fail_if_called(void *ctx, uint64_t missed)
{
	(void)ctx;
	(void)missed;
	fail_msg("a stopped timer ran");
}

static void a_timer_can_be_stopped_and_set_again(void **state)
{
	struct loop_source *s = NULL, *again = NULL;

	(void)state;
	assert_int_equal(loop_add_timer(loop, NS_PER_MS, fail_if_called, NULL, &s), 0);
	assert_int_equal(loop_set_timer(s, 0), 0);
	assert_int_equal(loop_add_timer(loop, 0, stop_after_three, NULL, &again), 0);
	assert_int_equal(loop_set_timer(again, 2 * NS_PER_MS), 0);
	assert_int_equal(loop_run(loop), 3);
}

static int got_signal;

static void on_signal(void *ctx, int signo)
{
	(void)ctx;
	got_signal = signo;
	loop_stop(loop, 0);
}

static void a_signal_is_delivered_from_the_loop(void **state)
{
	sigset_t before;

	(void)state;
	assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &before), 0);
	assert_int_equal(loop_add_signal(loop, SIGUSR1, on_signal, NULL), 0);
	assert_int_equal(loop_add_signal(loop, SIGHUP, on_signal, NULL), 0);
	got_signal = 0;
	assert_int_equal(raise(SIGUSR1), 0); /* blocked: or it would end the test */
	assert_int_equal(got_signal, 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(got_signal, SIGUSR1);
	assert_int_equal(raise(SIGHUP), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(got_signal, SIGHUP);
	assert_int_equal(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

static void sleep_long(void *ctx, int fd, uint32_t events)
{
	const struct timespec ts = {.tv_nsec = 260 * (long)NS_PER_MS};

	(void)events;
	if (!calls++ && ctx)
		nanosleep(&ts, NULL);
	assert_true(fd >= 0);
	loop_stop(loop, 0);
}

static void a_callback_that_takes_too_long_is_counted(void **state)
{
	(void)state;
	assert_int_equal(loop_add_fd(loop, fds[1], EPOLLOUT, sleep_long, loop, NULL), 0);
	assert_int_equal(loop_overruns(loop), 0);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(loop_overruns(loop), 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_ready_descriptor_is_served_and_the_result_returned),
	    T(the_loop_does_not_own_descriptors),
	    T(what_epoll_refuses_is_an_error_and_no_source),
	    T(a_source_removed_in_a_batch_is_not_called_any_more),
	    T(a_timer_comes_again_and_again),
	    T(periods_that_went_by_unserved_are_told),
	    T(a_timer_can_be_stopped_and_set_again),
	    T(a_signal_is_delivered_from_the_loop),
	    T(a_callback_that_takes_too_long_is_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
