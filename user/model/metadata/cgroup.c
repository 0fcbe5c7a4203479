// SPDX-License-Identifier: Apache-2.0
#include "model/metadata/cgroup.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CONTAINER_ID_HEX 64u /* a SHA-256: Docker, containerd, CRI-O, Podman */

static bool starts(const char *s, size_t n, const char *prefix)
{
	return n >= strlen(prefix) && !strncmp(s, prefix, strlen(prefix));
}

static bool strip(const char *s, size_t *n, const char *suffix)
{
	size_t len = strlen(suffix);

	if (*n <= len || strncmp(s + *n - len, suffix, len))
		return false;
	*n -= len;
	return true;
}

static void copy(char *to, size_t size, const char *s, size_t n)
{
	if (n >= size)
		n = size - 1;
	memcpy(to, s, n);
	to[n] = '\0';
}

static bool is_hex(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isxdigit((unsigned char)s[i]))
			return false;
	return true;
}

/* "<id>", "<runtime>-<id>[.scope]", "<slice>:<runtime>:<id>". conmon watches, and is none. */
static bool container_component(const char *s, size_t n, struct cgroup_identity *id)
{
	size_t before;

	strip(s, &n, ".scope");
	if (n < CONTAINER_ID_HEX)
		return false;
	before = n - CONTAINER_ID_HEX;
	if (!is_hex(s + before, CONTAINER_ID_HEX))
		return false;
	if (before && s[before - 1] != '-' && s[before - 1] != ':')
		return false;
	if (before > 7 && !strncmp(s + before - 7, "conmon-", 7))
		return false;
	copy(id->container_id, sizeof(id->container_id), s + before, CONTAINER_ID_HEX);
	return true;
}

/* "pod<uid>" or "kubepods[-qos]-pod<uid with _>.slice": the uid as the API server writes it. */
static bool pod_component(const char *s, size_t n, struct cgroup_identity *id)
{
	size_t at = 0;

	if (starts(s, n, "kubepods")) {
		const char *colon = memchr(s, ':', n);

		if (colon)
			n = (size_t)(colon - s);
		strip(s, &n, ".slice");
		for (at = 8; at + 4 < n && strncmp(s + at, "-pod", 4); at++)
			;
		if (at + 4 >= n)
			return false;
		at++;
	}
	if (!starts(s + at, n - at, "pod") || n - at - 3 < 32)
		return false;
	copy(id->pod_uid, sizeof(id->pod_uid), s + at + 3, n - at - 3);
	for (char *p = id->pod_uid; *p; p++)
		if (*p == '_')
			*p = '-';
	return true;
}

static bool lxc_component(const char *s, size_t n, bool parent_lxc, struct cgroup_identity *id)
{
	const char *prefix = "lxc.payload.";

	if (starts(s, n, prefix) && n > strlen(prefix)) {
		s += strlen(prefix);
		n -= strlen(prefix);
	} else if (!parent_lxc) {
		return false;
	}
	copy(id->container_id, sizeof(id->container_id), s, n);
	return true;
}

void cgroup_parse(const char *path, struct cgroup_identity *ret)
{
	bool parent_lxc = false, in_pod = false;

	memset(ret, 0, sizeof(*ret));
	while (*path) {
		size_t n = strcspn(path, "/"), len = n;

		if (!n) {
			path++;
			continue;
		}
		if (pod_component(path, n, ret))
			in_pod = true;
		if (container_component(path, n, ret) || lxc_component(path, n, parent_lxc, ret)) {
			ret->kind = CGROUP_CONTAINER;
		} else if (ret->kind != CGROUP_CONTAINER && strip(path, &len, ".service")) {
			ret->kind = CGROUP_UNIT;
			copy(ret->unit, sizeof(ret->unit), path, len);
		} else if (ret->kind == CGROUP_UNIT && strip(path, &len, ".scope")) {
			ret->kind = CGROUP_OTHER;
			ret->unit[0] = '\0';
		}
		parent_lxc = n == 3 && !strncmp(path, "lxc", 3);
		path += n;
	}
	if (ret->kind == CGROUP_CONTAINER)
		ret->unit[0] = '\0';
	if (!in_pod)
		ret->pod_uid[0] = '\0';
}

/* mountinfo escapes space, tab, newline and backslash as three octal digits. */
static int unescape(const char *s, size_t n, char *ret, size_t size)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if (c == '\\' && i + 3 < n && s[i + 1] >= '0' && s[i + 1] <= '3') {
			c = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 |
				   (s[i + 3] - '0'));
			i += 3;
		}
		if (out + 1 >= size)
			return -ENAMETOOLONG;
		ret[out++] = c;
	}
	ret[out] = '\0';
	return 0;
}

int cgroup_find_mount(const char *mountinfo, char *ret, size_t size)
{
	int err = -ENOENT;

	/* "36 35 98:0 /root /mount/point opts [tags] - type source superopts" */
	for (const char *line = mountinfo; line && *line;) {
		const char *end = strchr(line, '\n'), *sep = strstr(line, " - ");
		int root = 0, root_end = 0, point = 0, point_end = 0;

		if (sep && (!end || sep < end) && starts(sep + 3, strlen(sep + 3), "cgroup2 ") &&
		    sscanf(line, "%*u %*u %*s %n%*s%n %n%*s%n", &root, &root_end, &point,
			   &point_end) == 0 &&
		    point_end) {
			bool whole = root_end - root == 1;

			/* A bind mount of a subtree only when there is nothing better. */
			if (whole || err)
				err =
				    unescape(line + point, (size_t)(point_end - point), ret, size);
			if (whole && !err)
				return 0;
		}
		line = end ? end + 1 : NULL;
	}
	return err;
}
