// SPDX-License-Identifier: Apache-2.0
#include "probe/sampler.h"

#include <sys/random.h>

#include <errno.h>
#include <stdlib.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/limits.h>

#include "core/clock.h"

struct sampler {
	struct loop *loop;
	struct loop_source *timer;
	struct bpf_program *enter, *leave;
	struct bpf_link *enter_link, *leave_link;
	int threads_fd;
	uint64_t window_ns, period_ns;
	uint64_t start_ns, armed_since_ns, armed_ns;
	uint64_t failures;
};

/* Threads that were inside a call when the window closed: some will never come again. */
static void forget_threads(const struct sampler *s)
{
	__u32 thread;

	if (s->threads_fd < 0)
		return;
	for (unsigned int i = 0; i < KILTER_SYSCALL_THREADS_MAX; i++)
		if (bpf_map_get_next_key(s->threads_fd, NULL, &thread) ||
		    bpf_map_delete_elem(s->threads_fd, &thread))
			return;
}

static void disarm(struct sampler *s)
{
	/* Entries first: what has entered may still leave, nothing enters unseen. */
	bpf_link__destroy(s->enter_link);
	bpf_link__destroy(s->leave_link);
	s->enter_link = s->leave_link = NULL;
	if (s->armed_since_ns)
		s->armed_ns += clock_boot_ns() - s->armed_since_ns;
	s->armed_since_ns = 0;
	forget_threads(s);
}

static void arm(struct sampler *s)
{
	s->leave_link = bpf_program__attach(s->leave);
	if (libbpf_get_error(s->leave_link))
		s->leave_link = NULL;
	s->enter_link = s->leave_link ? bpf_program__attach(s->enter) : NULL;
	if (libbpf_get_error(s->enter_link))
		s->enter_link = NULL;
	if (!s->enter_link) {
		s->failures++;
		disarm(s);
		return;
	}
	s->armed_since_ns = clock_boot_ns();
}

static uint64_t pause_ns(const struct sampler *s)
{
	uint64_t rest = s->period_ns - s->window_ns, r = 0;

	/* 0.5 .. 1.5 of the rest: the mean is the rest. Without entropy: no jitter. */
	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		return rest;
	return rest / 2 + r % (rest + 1);
}

static void on_timer(void *ctx, uint64_t missed)
{
	struct sampler *s = ctx;

	(void)missed;
	if (s->armed_since_ns) {
		disarm(s);
		loop_set_timer(s->timer, pause_ns(s));
	} else {
		arm(s);
		loop_set_timer(s->timer, s->window_ns);
	}
}

int sampler_new(struct sampler **ret, struct loop *loop, struct bpf_program *enter,
		struct bpf_program *leave, int threads_fd, uint64_t window_ns, uint64_t period_ns)
{
	struct sampler *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->enter = enter;
	s->leave = leave;
	s->threads_fd = threads_fd;
	s->window_ns = window_ns;
	s->period_ns = period_ns;
	s->start_ns = clock_boot_ns();
	arm(s);
	/* The whole period: armed for good, no timer. */
	err = window_ns < period_ns ? loop_add_timer(loop, window_ns, on_timer, s, &s->timer)
	      : s->armed_since_ns   ? 0
				    : -EIO;
	if (err) {
		sampler_free(&s);
		return err;
	}
	*ret = s;
	return 0;
}

void sampler_free(struct sampler **ps)
{
	struct sampler *s = *ps;

	if (!s)
		return;
	disarm(s);
	loop_remove(s->loop, &s->timer);
	free(s);
	*ps = NULL;
}

double sampler_ratio(const struct sampler *s)
{
	uint64_t now = clock_boot_ns(), armed = s->armed_ns;

	if (s->armed_since_ns)
		armed += now - s->armed_since_ns;
	return now > s->start_ns ? (double)armed / (double)(now - s->start_ns) : 0;
}

uint64_t sampler_failures(const struct sampler *s)
{
	return s->failures;
}
