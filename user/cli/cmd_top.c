// SPDX-License-Identifier: Apache-2.0
/*
 * `kilter top`: plain ANSI on the alternate screen, one write a frame. Without a terminal, or
 * with a dumb one, plain tables one after the other. The terminal is put back on every way out,
 * a crash included.
 */
#include <sys/ioctl.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/views.h"
#include "core/clock.h"

#define FRAME_BYTES (1u << 20)
#define ENTER	    "\x1b[?1049h\x1b[?25l"
#define LEAVE	    "\x1b[?25h\x1b[?1049l"

static const char *const windows[] = {"10s", "1m", "5m", "1h"};

static struct {
	struct termios saved;
	bool raw;
	volatile sig_atomic_t resized, stop;
} term;

static void restore(void)
{
	ssize_t n;

	if (!term.raw)
		return;
	term.raw = false;
	tcsetattr(STDIN_FILENO, TCSANOW, &term.saved);
	n = write(STDOUT_FILENO, LEAVE, sizeof(LEAVE) - 1);
	(void)n;
}

static void on_signal(int signo)
{
	if (signo == SIGWINCH)
		term.resized = 1;
	else
		term.stop = 1;
}

/* tcsetattr and write are async-signal-safe: the shell gets its terminal back. */
static void on_crash(int signo)
{
	restore();
	signal(signo, SIG_DFL);
	raise(signo);
}

static int setup(void)
{
	static const int stops[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
	struct sigaction sa = {.sa_handler = on_signal};
	struct termios t;

	if (tcgetattr(STDIN_FILENO, &term.saved))
		return -errno;
	for (unsigned int i = 0; i < 4; i++)
		sigaction(stops[i], &sa, NULL);
	sigaction(SIGWINCH, &sa, NULL);
	for (unsigned int i = 0; i < 5; i++)
		signal(crashes[i], on_crash);
	t = term.saved;
	t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 0;
	term.raw = true;
	atexit(restore);
	if (tcsetattr(STDIN_FILENO, TCSANOW, &t))
		return -errno;
	return write(STDOUT_FILENO, ENTER, sizeof(ENTER) - 1) < 0 ? -errno : 0;
}

struct view {
	enum view_sort sort;
	bool reverse, deps;
	unsigned int window, skip, rows;
};

/* Returns false to quit. */
static bool on_key(struct view *v, const char *keys, ssize_t n)
{
	static const struct {
		char key;
		enum view_sort sort;
	} sorts[] = {{'r', SORT_RATE},	      {'e', SORT_ERRORS}, {'p', SORT_P99},
		     {'c', SORT_CONNECTIONS}, {'h', SORT_HEALTH}, {'n', SORT_NAME}};

	for (ssize_t i = 0; i < n; i++) {
		char k = keys[i];

		if (k == '\x1b' && i + 2 < n && keys[i + 1] == '[') {
			k = keys[i + 2] == 'A' ? 'k' : keys[i + 2] == 'B' ? 'j' : 0;
			i += 2;
		}
		if (k == 'q')
			return false;
		if (k >= '1' && k <= '4')
			v->window = (unsigned int)(k - '1');
		else if (k == 's' || k == 'd')
			v->deps = k == 'd', v->skip = 0;
		else if (k == 'R')
			v->reverse = !v->reverse;
		else if (k == 'j' && v->skip + 1 < v->rows)
			v->skip++;
		else if (k == 'k' && v->skip)
			v->skip--;
		for (unsigned int s = 0; s < 6; s++)
			if (k == sorts[s].key)
				v->sort = sorts[s].sort;
	}
	return true;
}

static int build(struct cli *c, struct view *v, struct cli_table **ret, char *summary, size_t size)
{
	json_t *j = NULL, *items, *item;
	double rate = 0;
	unsigned int bad = 0;
	size_t i;
	int status;

	status = cli_get(c, v->deps ? "/api/v1/dependencies" : "/api/v1/services", &j);
	if (status)
		return status;
	items = json_object_get(j, "items");
	v->rows = (unsigned int)json_array_size(items);
	if (v->skip >= v->rows)
		v->skip = v->rows ? v->rows - 1 : 0;
	json_array_foreach(items, i, item)
	{
		bool client;
		double r = cli_real(view_red(item, windows[v->window], &client), "rate");
		const char *state = cli_text(json_object_get(item, "health"), "state");

		if (r > 0 && !client)
			rate += r;
		bad += !strcmp(state, "unhealthy") || !strcmp(state, "degraded");
	}
	view_sort(items, v->sort, v->reverse, windows[v->window], v->deps);
	status = v->deps ? view_deps(ret, c, items, windows[v->window])
			 : view_services(ret, c, items, windows[v->window]);
	snprintf(summary, size, "%u %s, %u not well, %.0f requests/s", v->rows,
		 v->deps ? "dependencies" : "services", bad, rate);
	json_decref(j);
	return status ? CLI_FAILED : CLI_DONE;
}

static int frame(struct cli *c, struct view *v, char *buf)
{
	struct winsize ws = {.ws_col = 80, .ws_row = 24};
	struct cli_table *t = NULL;
	char summary[128], clock[16], line[256];
	time_t now = time(NULL);
	struct tm tm;
	size_t n;
	int status;

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws);
	if (ws.ws_col < 20)
		ws.ws_col = 20;
	if (ws.ws_row < 4)
		ws.ws_row = 4;
	status = build(c, v, &t, summary, sizeof(summary));
	if (status)
		return status;
	strftime(clock, sizeof(clock), "%H:%M:%S", localtime_r(&now, &tm));
	snprintf(line, sizeof(line), "kilter top - %s  %s  window %s", clock, summary,
		 windows[v->window]);
	n = (size_t)snprintf(buf, FRAME_BYTES, "\x1b[H%.*s\x1b[K\r\n\x1b[K\r\n", (int)ws.ws_col,
			     line);
	n += cli_table_render(&t, ws.ws_col, v->skip, ws.ws_row - 4u, true, buf + n,
			      FRAME_BYTES - n);
	n += (size_t)snprintf(
	    buf + n, FRAME_BYTES - n, "\x1b[J\x1b[%u;1H%.*s\x1b[K", ws.ws_row, (int)ws.ws_col,
	    "q quit  s services  d deps  1-4 window  sort: r e p c h n, R reverse");
	return write(STDOUT_FILENO, buf, n) == (ssize_t)n ? CLI_DONE : CLI_FAILED;
}

static int plain(struct cli *c, struct view *v)
{
	for (unsigned int i = 0; !c->count || i < c->count; i++) {
		struct cli_table *t = NULL;
		char summary[128];
		int status;

		if (i)
			usleep((useconds_t)(cli_interval(c, NS_PER_SEC) / 1000));
		status = build(c, v, &t, summary, sizeof(summary));
		if (status)
			return status;
		printf("%s%s\n", i ? "\n" : "", summary);
		cli_table_print(&t, 0);
		if (cli_flush())
			return CLI_FAILED;
	}
	return CLI_DONE;
}

static int live(struct cli *c, struct view *v)
{
	char *buf = malloc(FRAME_BYTES);
	uint64_t next = 0;
	int status = CLI_DONE;

	if (!buf || setup()) {
		fprintf(stderr, "kilter: cannot set up the terminal: %s\n", strerror(errno));
		free(buf);
		return CLI_FAILED;
	}
	for (unsigned int i = 0; !term.stop;) {
		struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
		uint64_t now = clock_ns(CLOCK_MONOTONIC);
		char keys[32];
		ssize_t n;

		if (now >= next || term.resized) {
			term.resized = 0;
			status = frame(c, v, buf);
			if (status || (c->count && ++i >= c->count))
				break;
			next = clock_ns(CLOCK_MONOTONIC) + cli_interval(c, NS_PER_SEC);
			continue;
		}
		if (poll(&p, 1, (int)((next - now) / NS_PER_MS) + 1) <= 0)
			continue;
		n = read(STDIN_FILENO, keys, sizeof(keys));
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			break; /* the terminal is gone */
		if (n > 0 && !on_key(v, keys, n))
			break;
		next = 0;
	}
	restore();
	free(buf);
	return status;
}

int cli_top(struct cli *c)
{
	const char *name = getenv("TERM");
	struct view v = {.sort = SORT_RATE};

	if (isatty(STDOUT_FILENO) && isatty(STDIN_FILENO) && name && *name && strcmp(name, "dumb"))
		return live(c, &v);
	return plain(c, &v);
}
