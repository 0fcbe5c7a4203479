// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

void cli_safe(const char *s, char *buf, size_t size)
{
	size_t n = 0;

	for (; *s && n + 1 < size; s++) {
		unsigned char c = (unsigned char)*s;

		/* C0, DEL and the C1 range (a lone byte or its UTF-8 lead) start sequences. */
		if (c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xa0) || c == 0xc2)
			c = '?';
		buf[n++] = (char)c;
	}
	buf[n] = '\0';
}

char *cli_seconds(double s, char buf[static 16])
{
	if (!isfinite(s))
		snprintf(buf, 16, "-");
	else if (s < 1e-3)
		snprintf(buf, 16, "%.0fus", s * 1e6);
	else if (s < 9.995e-3)
		snprintf(buf, 16, "%.2fms", s * 1e3);
	else if (s < 99.95e-3)
		snprintf(buf, 16, "%.1fms", s * 1e3);
	else if (s < 0.9995)
		snprintf(buf, 16, "%.0fms", s * 1e3);
	else if (s < 99.95)
		snprintf(buf, 16, "%.2fs", s);
	else
		snprintf(buf, 16, "%.0fs", s > 1e9 ? 1e9 : s);
	return buf;
}

char *cli_number(double v, char buf[static 16])
{
	static const char *const units[] = {"", "k", "M", "G", "T"};
	unsigned int u = 0;

	if (!isfinite(v)) {
		snprintf(buf, 16, "-");
		return buf;
	}
	while (fabs(v) >= 9999.5 && u < 4) {
		v /= 1000;
		u++;
	}
	if (u || (v < 100 && v != floor(v)))
		snprintf(buf, 16, "%.1f%s", v, units[u]);
	else
		snprintf(buf, 16, "%.0f", v);
	return buf;
}

char *cli_percent(double ratio, char buf[static 16])
{
	double pct = ratio * 100;

	if (!isfinite(pct))
		snprintf(buf, 16, "-");
	else if (pct > 0 && pct < 0.01)
		snprintf(buf, 16, "<0.01");
	else
		snprintf(buf, 16, pct < 10 ? "%.2f" : "%.1f", pct > 1e6 ? 1e6 : pct);
	return buf;
}

char *cli_age(const char *rfc3339, char buf[static 24])
{
	struct tm tm = {0};
	long long s;

	if (!strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm)) {
		snprintf(buf, 24, "-");
		return buf;
	}
	s = (long long)(time(NULL) - timegm(&tm));
	if (s < 0)
		s = 0;
	if (s < 60)
		snprintf(buf, 24, "%llds", s);
	else if (s < 3600)
		snprintf(buf, 24, "%lldm%llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, 24, "%lldh%lldm", s / 3600, s / 60 % 60);
	else
		snprintf(buf, 24, "%lldd%lldh", s / 86400, s / 3600 % 24);
	return buf;
}

double cli_real(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *cli_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

uint64_t cli_whole(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v)
							       : 0;
}

/* The word that shares most letters in order with the given one, if it is close. */
const char *cli_suggest(const char *word, const char *const *words, unsigned int count)
{
	const char *best = NULL;
	size_t n = strlen(word), least = 3;

	if (n > 32)
		return NULL;
	for (unsigned int w = 0; w < count; w++) {
		size_t m = strlen(words[w]), row[33];

		if (m > 32)
			continue;
		for (size_t k = 0; k <= m; k++)
			row[k] = k;
		for (size_t i = 1; i <= n; i++) { /* Wagner-Fischer, one row */
			size_t diagonal = row[0];

			row[0] = i;
			for (size_t k = 1; k <= m; k++) {
				size_t up = row[k], d = diagonal + (word[i - 1] != words[w][k - 1]);

				if (up + 1 < d)
					d = up + 1;
				if (row[k - 1] + 1 < d)
					d = row[k - 1] + 1;
				diagonal = up;
				row[k] = d;
			}
		}
		if (row[m] < least) {
			least = row[m];
			best = words[w];
		}
	}
	return best;
}
