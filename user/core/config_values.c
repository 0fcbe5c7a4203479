// SPDX-License-Identifier: Apache-2.0
/* Values that are more than a number or a text: durations, sizes, destinations, labels. */
#include <arpa/inet.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <kilter/identity.h>

#include "core/config.h"

#define VALUE_MAX 1e18 /* below 2^63, so that llround() is defined */

/* A number and its unit, to the nearest whole of the smallest. */
static int parse_unit(const char *s, const char *const *units, const double *scale, uint64_t *ret)
{
	char *end;
	double v;

	errno = 0;
	if (!((*s >= '0' && *s <= '9') || *s == '.'))
		return -EINVAL;
	v = strtod(s, &end);
	if (errno || !isfinite(v) || end == s)
		return -EINVAL;
	for (int i = 0; units[i]; i++) {
		if (!strcmp(end, units[i])) {
			v *= scale[i];
			if (v > VALUE_MAX)
				return -ERANGE;
			*ret = (uint64_t)llround(v);
			return 0;
		}
	}
	return -EINVAL;
}

int config_parse_duration(const char *s, uint64_t *ret_ns)
{
	static const char *const units[] = {"ns", "us", "ms", "s", "m", "h", "d", NULL};
	static const double scale[] = {1, 1e3, 1e6, 1e9, 60e9, 3600e9, 86400e9};

	return parse_unit(s, units, scale, ret_ns);
}

int config_parse_size(const char *s, uint64_t *ret_bytes)
{
	static const char *const units[] = {"", "B", "KiB", "MiB", "GiB", "kB", "MB", "GB", NULL};
	static const double scale[] = {1, 1, 1024, 1048576, 1073741824, 1e3, 1e6, 1e9};

	return parse_unit(s, units, scale, ret_bytes);
}

static int parse_port(const char *s, uint16_t *ret)
{
	char *end;
	unsigned long v;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	v = strtoul(s, &end, 10);
	if (*end || v < 1 || v > 65535)
		return -EINVAL;
	*ret = (uint16_t)v;
	return 0;
}

/* "10.0.0.x": no name begins with two numbers, but an address with a slip in it does. */
static bool like_address(const char *s)
{
	size_t n = strspn(s, "0123456789");

	if (!n || s[n] != '.')
		return false;
	s += n + 1;
	n = strspn(s, "0123456789");
	return n && (s[n] == '.' || !s[n]);
}

/* A DNS name or a glob on names, into lower case: what could be an address is none. */
static int parse_name(const char *s, char ret[CONFIG_NAME_LEN])
{
	bool letter = false;
	size_t n = strlen(s);

	if (!n || n >= CONFIG_NAME_LEN || like_address(s))
		return -EINVAL;
	for (size_t i = 0; i <= n; i++) {
		char c = s[i];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		letter = letter || (c >= 'a' && c <= 'z');
		if (c && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && !strchr("-._*?", c))
			return -EINVAL;
		ret[i] = c;
	}
	if (ret[n - 1] == '.') /* fully qualified: so are all names here */
		ret[n - 1] = '\0';
	return letter ? 0 : -EINVAL;
}

static int parse_address(char *addr, struct config_destination *d)
{
	char *slash = strchr(addr, '/'), *end;
	unsigned long v;

	if (slash)
		*slash++ = '\0';
	if (inet_pton(AF_INET, addr, d->addr) == 1)
		d->family = KILTER_FAMILY_V4;
	else if (inet_pton(AF_INET6, addr, d->addr) == 1)
		d->family = KILTER_FAMILY_V6;
	else
		return slash ? -EINVAL : parse_name(addr, d->name);
	d->prefix_len = d->family == KILTER_FAMILY_V4 ? 32 : 128;
	if (slash) {
		v = strtoul(slash, &end, 10);
		if (*slash < '0' || *slash > '9' || *end || v > d->prefix_len)
			return -EINVAL;
		d->prefix_len = (uint8_t)v;
	}
	return 0;
}

int config_parse_destination(const char *s, struct config_destination *ret)
{
	struct config_destination d = {.family = 0};
	char addr[64];
	const char *rest;
	size_t n;

	if (!strncmp(s, "udp://", 6)) {
		d.transport = KILTER_TRANSPORT_UDP;
		s += 6;
	}
	if (!strcmp(s, "*")) {
		*ret = d;
		return 0;
	}
	if (*s == '[') {
		rest = strchr(s, ']');
		if (!rest)
			return -EINVAL;
		n = (size_t)(rest - s - 1);
		s++;
		rest++;
	} else if (strchr(s, ':') != strrchr(s, ':')) { /* bare IPv6 */
		n = strlen(s);
		rest = s + n;
	} else {
		n = strcspn(s, ":");
		rest = s + n;
	}
	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, s, n);
	addr[n] = '\0';
	if (*rest == ':') {
		if (parse_port(rest + 1, &d.port))
			return -EINVAL;
	} else if (*rest) {
		return -EINVAL;
	}
	if (!n && !d.port)
		return -EINVAL;
	if (n && parse_address(addr, &d))
		return -EINVAL;
	*ret = d;
	return 0;
}

void config_unmap_destination(struct config_destination *d)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (d->family != KILTER_FAMILY_V6 || d->prefix_len < 96 ||
	    memcmp(d->addr, mapped, sizeof(mapped)))
		return;
	memmove(d->addr, d->addr + 12, 4);
	memset(d->addr + 4, 0, 12);
	d->family = KILTER_FAMILY_V4;
	d->prefix_len -= 96;
}

const char *config_runtime_path(const char *s)
{
	static const char scheme[] = "unix://";

	if (!strncmp(s, scheme, sizeof(scheme) - 1))
		s += sizeof(scheme) - 1;
	return *s == '/' && strlen(s) <= CONFIG_RUNTIME_PATH_MAX ? s : NULL;
}

int config_check_listen(const char *s)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	struct config_destination d;
	uint16_t port;

	if (!*s)
		return 0;
	if (!strncmp(s, "localhost:", 10))
		return parse_port(s + 10, &port);
	if (config_parse_destination(s, &d) || !d.port || d.name[0] || strchr(s, '/'))
		return -EINVAL;
	if (d.family == KILTER_FAMILY_V4)
		return d.addr[0] == 127 ? 0 : -EINVAL;
	return d.family == KILTER_FAMILY_V6 && !memcmp(d.addr, loopback6, 16) ? 0 : -EINVAL;
}

const char *config_labels_glob(const char *key)
{
	return key + strlen(key) + 1;
}

const char *config_labels_next(const char *labels, const char *after)
{
	if (after) {
		after = config_labels_glob(after);
		labels = after + strlen(after) + 1;
	}
	return *labels ? labels : NULL;
}

static bool is_word(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			return false;
	return true;
}

int config_labels_add(char labels[static CONFIG_LABELS_LEN], const char *key, const char *glob)
{
	size_t n = 0, k = strlen(key) + 1, g = strlen(glob) + 1;
	unsigned int count = 0;

	if (k == 1 || strchr(key, '=') || !is_word(key) || !is_word(glob))
		return -EINVAL;
	for (const char *i = NULL; (i = config_labels_next(labels, i)); count++) {
		if (!strcmp(i, key))
			return -EEXIST;
		n = (size_t)(config_labels_glob(i) - labels);
		n += strlen(labels + n) + 1;
	}
	/* One more NUL ends them all. */
	if (count >= CONFIG_LABELS_MAX || k + g + 1 > CONFIG_LABELS_LEN - n)
		return -E2BIG;
	memcpy(labels + n, key, k);
	memcpy(labels + n + k, glob, g);
	labels[n + k + g] = '\0';
	return 0;
}
