// SPDX-License-Identifier: Apache-2.0
#include "model/metadata/labels.h"

#include <sys/stat.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cleanup.h"

static void cleanup_decref(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_decref_ __attribute__((cleanup(cleanup_decref)))

static void cleanup_labels(struct labels **l)
{
	free(*l);
}
#define _cleanup_labels_ __attribute__((cleanup(cleanup_labels)))

struct labels *labels_new(void)
{
	struct labels *l = calloc(1, sizeof(*l) + LABELS_BYTES_MAX);

	if (l)
		l->room = LABELS_BYTES_MAX;
	return l;
}

void labels_free(struct labels **l)
{
	free(*l);
	*l = NULL;
}

struct labels *labels_copy(const struct labels *l)
{
	struct labels *copy = l ? malloc(sizeof(*l) + l->bytes) : NULL;

	if (!copy)
		return NULL;
	memcpy(copy, l, sizeof(*l) + l->bytes);
	copy->room = l->bytes;
	return copy;
}

static void put(struct labels *l, const char *s)
{
	for (;; s++) {
		bool shown = !*s || ((unsigned char)*s >= ' ' && (unsigned char)*s < 0x7f);

		l->text[l->bytes++] = *s;
		if (!shown)
			l->text[l->bytes - 1] = '?';
		if (!*s)
			return;
	}
}

int labels_add(struct labels *l, const char *key, const char *value)
{
	size_t k = strlen(key), v = strlen(value);

	if (!k)
		return -EINVAL;
	if (labels_get(l, key))
		return -EEXIST;
	if (l->count >= LABELS_MAX || k > LABELS_KEY_MAX || v > LABELS_VALUE_MAX ||
	    k + v + 2 > l->room - l->bytes) {
		l->dropped++;
		return -E2BIG;
	}
	put(l, key);
	put(l, value);
	l->count++;
	return 0;
}

const char *labels_value(const char *key)
{
	return key + strlen(key) + 1;
}

const char *labels_next(const struct labels *l, const char *after)
{
	const char *next;

	if (!l)
		return NULL;
	next = l->text;
	if (after) {
		after = labels_value(after);
		next = after + strlen(after) + 1;
	}
	return next < l->text + l->bytes ? next : NULL;
}

const char *labels_get(const struct labels *l, const char *key)
{
	for (const char *k = NULL; (k = labels_next(l, k));)
		if (!strcmp(k, key))
			return labels_value(k);
	return NULL;
}

bool labels_equal(const struct labels *a, const struct labels *b)
{
	uint32_t n = a ? a->bytes : 0;

	return n == (b ? b->bytes : 0) && (!n || !memcmp(a->text, b->text, n));
}

/* The files of the runtimes. */

bool labels_is_container_id(const char *s)
{
	for (size_t i = 0; i < LABELS_CONTAINER_ID_LEN; i++)
		if (!isxdigit((unsigned char)s[i]))
			return false;
	return !s[LABELS_CONTAINER_ID_LEN];
}

/* Opening waits for nobody, and what is not a file is none. */
static int read_json(const char *path, json_t **ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	_cleanup_free_ char *buf = NULL;
	size_t len = 0;
	json_error_t why;
	struct stat st;
	ssize_t n = 0;

	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	if (st.st_size > LABELS_FILE_MAX)
		return -EFBIG;
	buf = malloc(LABELS_FILE_MAX + 1);
	if (!buf)
		return -ENOMEM;
	while (len <= LABELS_FILE_MAX && (n = read(fd, buf + len, LABELS_FILE_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -errno;
	if (len > LABELS_FILE_MAX)
		return -EFBIG;
	*ret = json_loadb(buf, len, 0, &why);
	return *ret ? 0 : -EBADMSG;
}

/* What is no text is no label. */
static void add_object(struct labels *l, json_t *o, const char *but)
{
	const char *key;
	json_t *value;

	json_object_foreach(o, key, value)
	{
		if (json_is_string(value) && (!but || strncmp(key, but, strlen(but))))
			labels_add(l, key, json_string_value(value));
	}
}

/*
 * Each: adds what the file has. *ret_sandbox is the id of the pod's container in it, borrowed, or
 * NULL. -ENOENT: the file has no labels; -EBADMSG.
 */
typedef int (*take_fn)(const json_t *file, struct labels *l, const char **ret_sandbox);

/* Podman's files are in the same place, and have no labels in them. */
static int take_crio(const json_t *file, struct labels *l, const char **ret_sandbox)
{
	const json_t *annotations = json_object_get(file, "annotations");
	const char *text =
	    json_string_value(json_object_get(annotations, "io.kubernetes.cri-o.Labels"));
	_cleanup_decref_ json_t *labels = NULL;
	json_error_t why;

	if (!text)
		return -ENOENT;
	labels = json_loads(text, 0, &why);
	if (!json_is_object(labels) && strcmp(text, "null")) /* a nil map of Go */
		return -EBADMSG;
	add_object(l, labels, NULL);
	*ret_sandbox =
	    json_string_value(json_object_get(annotations, "io.kubernetes.cri-o.SandboxID"));
	return 0;
}

static int take_docker(const json_t *file, struct labels *l, const char **ret_sandbox)
{
	const json_t *config = json_object_get(file, "Config");
	json_t *labels = json_object_get(config, "Labels");

	if (!json_is_object(config) || (!json_is_object(labels) && !json_is_null(labels)))
		return -EBADMSG;
	/* cri-dockerd has no other place for annotations: they are not labels. */
	add_object(l, labels,
		   json_object_get(labels, "io.kubernetes.docker.type") ? "annotation." : NULL);
	*ret_sandbox = json_string_value(json_object_get(labels, "io.kubernetes.sandbox.id"));
	return 0;
}

static int take_containerd(const json_t *file, struct labels *l, const char **ret_sandbox)
{
	static const char *const rows[][2] = {
	    {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"},
	    {"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"},
	    {"io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"},
	    {"io.kubernetes.cri.container-name", "io.kubernetes.container.name"},
	};
	const json_t *annotations = json_object_get(file, "annotations");

	*ret_sandbox = NULL;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *s = json_string_value(json_object_get(annotations, rows[i][0]));

		if (s)
			labels_add(l, rows[i][1], s);
	}
	l->partial = true;
	return l->count ? 0 : -ENOENT;
}

static const struct {
	const char *dir, *file;
	take_fn take;
} sources[] = {
    {"/run/containers/storage/overlay-containers", "userdata/config.json", take_crio},
    {"/var/lib/containers/storage/overlay-containers", "userdata/config.json", take_crio},
    {"/var/lib/docker/containers", "config.v2.json", take_docker},
    {"/run/containerd/io.containerd.runtime.v2.task/k8s.io", "config.json", take_containerd},
    {"/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io", "config.json", take_containerd},
};

/* The first source that has labels of it; the sandbox's id to ret_sandbox, or "". */
static int read_one(const char *root, const char *id, struct labels *l,
		    char ret_sandbox[LABELS_CONTAINER_ID_LEN + 1])
{
	int first = -ENOENT;

	ret_sandbox[0] = '\0';
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
		_cleanup_decref_ json_t *file = NULL;
		const char *sandbox = NULL;
		char path[PATH_MAX];
		int err;

		snprintf(path, sizeof(path), "%s%s/%s/%s", root, sources[i].dir, id,
			 sources[i].file);
		err = read_json(path, &file);
		if (!err)
			err = sources[i].take(file, l, &sandbox);
		if (!err) {
			if (sandbox && labels_is_container_id(sandbox) && strcmp(sandbox, id))
				memcpy(ret_sandbox, sandbox, LABELS_CONTAINER_ID_LEN + 1);
			return 0;
		}
		if (first == -ENOENT)
			first = err;
	}
	return first;
}

int labels_read(const char *root, const char *container_id, struct labels **ret)
{
	char sandbox[LABELS_CONTAINER_ID_LEN + 1], none[LABELS_CONTAINER_ID_LEN + 1];
	_cleanup_labels_ struct labels *l = NULL;
	int err;

	if (!labels_is_container_id(container_id))
		return -ENOENT;
	l = labels_new();
	if (!l)
		return -ENOMEM;
	err = read_one(root, container_id, l, sandbox);
	if (err)
		return err;
	/* The pod's may be gone, or be unreadable: the container's own hold. */
	if (sandbox[0])
		read_one(root, sandbox, l, none);
	*ret = labels_copy(l);
	return *ret ? 0 : -ENOMEM;
}
