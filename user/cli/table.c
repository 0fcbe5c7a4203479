// SPDX-License-Identifier: Apache-2.0
/* Columns as wide as their widest cell; a narrow terminal loses the least important first. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define CELL_MAX 160
#define GAP	 2
#define REST_MIN 8 /* what is left of a column that is cut */

struct cli_table {
	const struct cli *cli;
	const char *const *headers;
	unsigned int columns, cells, capacity, right, wide;
	char (*text)[CELL_MAX];
};

int cli_table_new(struct cli_table **ret, const struct cli *c, const char *const *headers,
		  unsigned int columns)
{
	struct cli_table *t = calloc(1, sizeof(*t));

	if (!t) {
		fprintf(stderr, "kilter: out of memory\n");
		return -ENOMEM;
	}
	t->cli = c;
	t->headers = headers;
	t->columns = columns;
	*ret = t;
	return 0;
}

void cli_table_layout(struct cli_table *t, unsigned int right, unsigned int wide)
{
	t->right = right;
	t->wide = wide;
}

void cli_table_cell(struct cli_table *t, const char *text)
{
	if (t->cells == t->capacity) {
		unsigned int capacity = t->capacity ? t->capacity * 2 : 64;
		void *p = realloc(t->text, capacity * sizeof(*t->text));

		if (!p)
			return;
		t->text = p;
		t->capacity = capacity;
	}
	cli_safe(*text ? text : "-", t->text[t->cells++], CELL_MAX);
}

const char *cli_state_color(const char *state)
{
	if (!strcmp(state, "healthy") || !strcmp(state, "closed"))
		return "\x1b[32m";
	if (!strcmp(state, "degraded") || !strcmp(state, "half_open"))
		return "\x1b[33m";
	if (!strcmp(state, "unhealthy") || !strcmp(state, "open"))
		return "\x1b[31m";
	return "";
}

struct out {
	char *buf;
	size_t n, size;
};

static void put(struct out *o, const char *s, size_t n)
{
	if (o->n + n >= o->size)
		n = o->size > o->n + 1 ? o->size - o->n - 1 : 0;
	memcpy(o->buf + o->n, s, n);
	o->n += n;
	o->buf[o->n] = '\0';
}

static void put_row(const struct cli_table *t, struct out *o, const char (*cells)[CELL_MAX],
		    const unsigned int *width, bool header, const char *eol)
{
	bool first = true, color = t->cli->color;

	for (unsigned int k = 0; k < t->columns; k++) {
		const char *text = header || !cells ? t->headers[k] : cells[k];
		const char *paint = color && !header ? cli_state_color(text) : "";
		size_t len = strlen(text), pad;

		if (!width[k])
			continue;
		if (len > width[k])
			len = width[k];
		pad = width[k] - len;
		if (!first)
			put(o, "  ", GAP);
		first = false;
		if (t->right & (1u << k))
			for (size_t i = 0; i < pad; i++)
				put(o, " ", 1);
		put(o, paint, strlen(paint));
		put(o, text, len);
		if (*paint)
			put(o, "\x1b[0m", 4);
		if (!(t->right & (1u << k)) && k + 1 < t->columns)
			for (size_t i = 0; i < pad; i++)
				put(o, " ", 1);
	}
	put(o, eol, strlen(eol));
}

static unsigned int total(const struct cli_table *t, const unsigned int *w)
{
	unsigned int sum = 0;

	for (unsigned int k = 0; k < t->columns; k++)
		sum += w[k] ? w[k] + GAP : 0;
	return sum ? sum - GAP : 0;
}

/* Who, and how it is: the last to go. */
static bool is_kept(const struct cli_table *t, unsigned int k)
{
	return !k || !strcmp(t->headers[k], "HEALTH") || !strcmp(t->headers[k], "STATE");
}

/* First the last column is cut (the reason), then numbers go from the right, then text, and in the
 * end the name is cut. */
static void squeeze(const struct cli_table *t, unsigned int width, unsigned int *w)
{
	unsigned int over;

	for (int pass = 0; pass < 3; pass++)
		for (unsigned int k = t->columns; k-- > 0;) {
			bool number = t->right & (1u << k), last = k + 1 == t->columns;

			over = total(t, w) > width ? total(t, w) - width : 0;
			if (!over)
				return;
			if (is_kept(t, k) || (pass == 0 && !last) || (pass == 1 && !number))
				continue;
			w[k] = !pass && !number && w[k] >= over + REST_MIN ? w[k] - over : 0;
		}
	over = total(t, w) > width ? total(t, w) - width : 0;
	w[0] = w[0] > over ? w[0] - over : 1;
}

static void layout(const struct cli_table *t, unsigned int width, unsigned int *ret)
{
	for (unsigned int k = 0; k < t->columns; k++) {
		ret[k] = 0;
		if ((t->wide & (1u << k)) && t->cli->output != CLI_WIDE)
			continue;
		ret[k] = (unsigned int)strlen(t->headers[k]);
		for (unsigned int i = k; i < t->cells; i += t->columns)
			if (strlen(t->text[i]) > ret[k])
				ret[k] = (unsigned int)strlen(t->text[i]);
	}
	if (width)
		squeeze(t, width, ret);
}

static void table_free(struct cli_table **t)
{
	free((*t)->text);
	free(*t);
	*t = NULL;
}

size_t cli_table_render(struct cli_table **pt, unsigned int width, unsigned int skip,
			unsigned int rows, bool ansi, char *buf, size_t size)
{
	struct cli_table *t = *pt;
	unsigned int w[CLI_COLUMNS_MAX] = {0};
	struct out o = {.buf = buf, .size = size};
	const char *eol = ansi ? "\x1b[K\r\n" : "\n";

	layout(t, width, w);
	if (t->cli->headers) {
		if (ansi && t->cli->color)
			put(&o, "\x1b[1m", 4);
		put_row(t, &o, NULL, w, true, "");
		if (ansi && t->cli->color)
			put(&o, "\x1b[0m", 4);
		put(&o, eol, strlen(eol));
	}
	for (unsigned int r = skip; r * t->columns < t->cells && r - skip < rows; r++)
		put_row(t, &o, (const char(*)[CELL_MAX]) & t->text[r * t->columns], w, false, eol);
	table_free(pt);
	return o.n;
}

void cli_table_print(struct cli_table **pt, unsigned int width)
{
	struct cli_table *t = *pt;
	size_t rows = t->cells / t->columns + 2;
	size_t size = rows * (t->columns * (CELL_MAX + 16) + 16);
	char *buf = malloc(size);

	if (!buf) {
		fprintf(stderr, "kilter: out of memory\n");
		table_free(pt);
		return;
	}
	fwrite(buf, 1, cli_table_render(pt, width, 0, (unsigned int)rows, false, buf, size),
	       stdout);
	free(buf);
}

int cli_flush(void)
{
	if (!fflush(stdout))
		return CLI_DONE;
	fprintf(stderr, "kilter: cannot write the output: %s\n", strerror(errno));
	return CLI_FAILED;
}

int cli_print_json(const json_t *j)
{
	if (json_dumpf(j, stdout, JSON_INDENT(2)) || putchar('\n') == EOF) {
		fprintf(stderr, "kilter: cannot write the output: %s\n", strerror(errno));
		return CLI_FAILED;
	}
	return CLI_DONE;
}
