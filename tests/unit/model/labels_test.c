// SPDX-License-Identifier: Apache-2.0
/* Labels from the files of container runtimes: as each writes them, and as somebody else might. */
#include <sys/stat.h>

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/selfstat.h"
#include "model/model.h"

#include <cmocka.h>

#define CONTAINER "3f9ad9c21f000000000000000000000000000000000000000000000000000001"
#define SANDBOX	  "77d0a1b2c3000000000000000000000000000000000000000000000000000002"
#define CRIO_RUN  "run/containers/storage/overlay-containers/"
#define CRIO_LIB  "var/lib/containers/storage/overlay-containers/"
#define DOCKER	  "var/lib/docker/containers/"
#define TASKS	  "run/containerd/io.containerd.runtime.v2.task/k8s.io/"
#define OCI	  "/userdata/config.json"

static char root[64];
static struct labels *labels;

static int setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/kilter-labels.XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	labels_free(&labels);
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path below root, with the directories before it. */
static const char *place(const char *path)
{
	static char full[512];

	snprintf(full, sizeof(full), "%s/%s", root, path);
	for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); *s++ = '/') {
		*s = '\0';
		mkdir(full, 0700);
	}
	return full;
}

static void file_is(const char *path, const char *text, size_t n)
{
	FILE *f = fopen(place(path), "we");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static void write_file(const char *path, const char *text)
{
	file_is(path, text, strlen(text));
}

static int look(const char *id)
{
	labels_free(&labels);
	return labels_read(root, id, &labels);
}

/* All that is known, in its order. */
static void expect_labels(const char *want)
{
	static char have[65536];
	size_t n = 0;

	have[0] = '\0';
	assert_int_equal(look(CONTAINER), 0);
	for (const char *k = NULL; (k = labels_next(labels, k));)
		n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%s=%s", n ? " " : "", k,
				      labels_value(k));
	assert_string_equal(have, want);
}

static void nothing_is_known_of_a_container_without_files(void **state)
{
	(void)state;
	assert_int_equal(look(CONTAINER), -ENOENT);
	assert_null(labels);
}

/* CRI-O, shortened. A container has what the kubelet gives each; the pod's own are the sandbox's.
 */
#define CRIO_CONTAINER                                                                            \
	"{\"ociVersion\":\"1.0.2-dev\",\"process\":{\"env\":[\"PATH=/bin\"]},\"annotations\":{"   \
	"\"io.container.manager\":\"cri-o\",\"io.kubernetes.cri-o.ContainerType\":\"container\"," \
	"\"io.kubernetes.cri-o.SandboxID\":\"" SANDBOX "\",\"io.kubernetes.cri-o.Labels\":"       \
	"\"{\\\"io.kubernetes.container.name\\\":\\\"cart\\\",\\\"io.kubernetes.pod.name\\\":"    \
	"\\\"cart-7d4f\\\",\\\"io.kubernetes.pod.namespace\\\":\\\"shop\\\"}\"}}"
#define CRIO_SANDBOX                                                                                     \
	"{\"ociVersion\":\"1.0.2-dev\",\"annotations\":{"                                                \
	"\"io.kubernetes.cri-o.ContainerType\":\"sandbox\",\"io.kubernetes.cri-o.SandboxID\":\"" SANDBOX \
	"\",\"io.kubernetes.cri-o.Labels\":\"{\\\"app\\\":\\\"cart\\\","                                 \
	"\\\"app.kubernetes.io/part-of\\\":\\\"shop\\\",\\\"io.kubernetes.container.name\\\":"           \
	"\\\"POD\\\"}\"}}"

static void crio_has_those_of_the_container_and_of_its_pod(void **state)
{
	(void)state;
	write_file(CRIO_RUN CONTAINER OCI, CRIO_CONTAINER);
	expect_labels("io.kubernetes.container.name=cart io.kubernetes.pod.name=cart-7d4f "
		      "io.kubernetes.pod.namespace=shop");
	/* The infra container was dropped: its file is in the other place alone. */
	write_file(CRIO_LIB SANDBOX OCI, CRIO_SANDBOX);
	expect_labels("io.kubernetes.container.name=cart io.kubernetes.pod.name=cart-7d4f "
		      "io.kubernetes.pod.namespace=shop app=cart app.kubernetes.io/part-of=shop");
	assert_string_equal(labels_get(labels, "app"), "cart");
	assert_null(labels_get(labels, "ap"));
	assert_null(labels_get(labels, "cart"));
	assert_null(labels_get(labels, "io.container.manager"));
}

static void podman_keeps_none_there(void **state)
{
	(void)state;
	write_file(CRIO_LIB CONTAINER OCI,
		   "{\"annotations\":{\"io.container.manager\":\"libpod\"}}");
	assert_int_equal(look(CONTAINER), -ENOENT);
}

static void docker_has_labels_of_its_own(void **state)
{
	(void)state;
	write_file(
	    DOCKER CONTAINER "/config.v2.json",
	    "{\"ID\":\"" CONTAINER "\",\"Config\":{\"Hostname\":\"3f9a\",\"Env\":[\"SECRET=x\"],"
	    "\"Labels\":{\"com.docker.compose.project\":\"shop\",\"annotation.of\":\"mine\"}}}");
	expect_labels("com.docker.compose.project=shop annotation.of=mine");
	write_file(DOCKER CONTAINER "/config.v2.json", "{\"Config\":{\"Labels\":{}}}");
	expect_labels(""); /* known to have none */
	write_file(DOCKER CONTAINER "/config.v2.json", "{\"Config\":{\"Labels\":null}}");
	expect_labels("");
}

static void cri_dockerd_has_those_of_the_pod_and_no_annotations(void **state)
{
	(void)state;
	write_file(
	    DOCKER CONTAINER "/config.v2.json",
	    "{\"Config\":{\"Labels\":{\"annotation.io.kubernetes.container.hash\":\"5f\","
	    "\"io.kubernetes.container.name\":\"cart\",\"io.kubernetes.docker.type\":\"container\","
	    "\"io.kubernetes.sandbox.id\":\"" SANDBOX "\"}}}");
	write_file(DOCKER SANDBOX "/config.v2.json",
		   "{\"Config\":{\"Labels\":{\"annotation.kubernetes.io/config.seen\":\"2026\","
		   "\"app\":\"cart\",\"io.kubernetes.docker.type\":\"podsandbox\"}}}");
	expect_labels("io.kubernetes.container.name=cart io.kubernetes.docker.type=container "
		      "io.kubernetes.sandbox.id=" SANDBOX " app=cart");
}

static void containerd_has_what_the_kubelet_gives_each(void **state)
{
	(void)state;
	write_file(
	    TASKS CONTAINER "/config.json",
	    "{\"annotations\":{\"io.kubernetes.cri.container-name\":\"cart\","
	    "\"io.kubernetes.cri.container-type\":\"container\",\"io.kubernetes.cri.sandbox-id\":"
	    "\"" SANDBOX "\",\"io.kubernetes.cri.sandbox-name\":\"cart-7d4f\","
	    "\"io.kubernetes.cri.sandbox-namespace\":\"shop\","
	    "\"io.kubernetes.cri.sandbox-uid\":\"0f5b\"}}");
	expect_labels("io.kubernetes.pod.name=cart-7d4f io.kubernetes.pod.namespace=shop "
		      "io.kubernetes.pod.uid=0f5b io.kubernetes.container.name=cart");
	/* Somebody else's container of containerd's. */
	write_file(TASKS CONTAINER "/config.json", "{\"annotations\":{\"a\":\"b\"}}");
	assert_int_equal(look(CONTAINER), -ENOENT);
	write_file(TASKS CONTAINER "/config.json", "{\"ociVersion\":\"1.0\"}");
	assert_int_equal(look(CONTAINER), -ENOENT);
}

static void what_a_runtime_would_not_write_is_refused(void **state)
{
	static const char *const oci[] = {
	    "",
	    "{",
	    "{\"annotations\":{\"io.kubernetes.cri-o.Labels\":\"\"}}",
	    "{\"annotations\":{\"io.kubernetes.cri-o.Labels\":\"{\"}}",
	    "{\"annotations\":{\"io.kubernetes.cri-o.Labels\":\"[\\\"a\\\"]\"}}",
	    "{\"annotations\":{\"io.kubernetes.cri-o.Labels\":\"{\\\"a\\\":\\\"\\\\u0000\\\"}\"}}",
	};
	static const char *const docker[] = {
	    "[]",
	    "{\"Config\":[]}",
	    "{\"Config\":{}}",
	    "{\"Config\":{\"Labels\":[\"a\"]}}",
	    "{\"Config\":{\"Labels\":\"a=b\"}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(oci) / sizeof(oci[0]); i++) {
		write_file(CRIO_RUN CONTAINER OCI, oci[i]);
		if (look(CONTAINER) != -EBADMSG || labels)
			fail_msg("%s", oci[i]);
	}
	/* The other place may know better. */
	write_file(CRIO_LIB CONTAINER OCI, CRIO_CONTAINER);
	assert_int_equal(look(CONTAINER), 0);
	unlink(place(CRIO_LIB CONTAINER OCI));
	unlink(place(CRIO_RUN CONTAINER OCI));
	for (size_t i = 0; i < sizeof(docker) / sizeof(docker[0]); i++) {
		write_file(DOCKER CONTAINER "/config.v2.json", docker[i]);
		if (look(CONTAINER) != -EBADMSG || labels)
			fail_msg("%s", docker[i]);
	}
	/* A label that is no text is none, the others are. */
	write_file(
	    DOCKER CONTAINER "/config.v2.json",
	    "{\"Config\":{\"Labels\":{\"a\":1,\"b\":null,\"c\":{},\"\":\"x\",\"d\":\"y\"}}}");
	expect_labels("d=y");
}

static void what_is_no_file_or_too_long_is_refused(void **state)
{
	static char text[LABELS_FILE_MAX + 2];
	char target[128];
	const char *end = "{\"Config\":{\"Labels\":{\"a\":\"b\"}}}";

	(void)state;
	memset(text, ' ', LABELS_FILE_MAX + 1);
	memcpy(text + LABELS_FILE_MAX - strlen(end), end, strlen(end));
	file_is(DOCKER CONTAINER "/config.v2.json", text, LABELS_FILE_MAX);
	expect_labels("a=b");
	file_is(DOCKER CONTAINER "/config.v2.json", text, LABELS_FILE_MAX + 1);
	assert_int_equal(look(CONTAINER), -EFBIG);
	/* It is not waited for a writer. */
	unlink(place(DOCKER CONTAINER "/config.v2.json"));
	assert_int_equal(mkfifo(place(DOCKER CONTAINER "/config.v2.json"), 0600), 0);
	assert_int_equal(look(CONTAINER), -EBADMSG);
	unlink(place(DOCKER CONTAINER "/config.v2.json"));
	write_file("elsewhere", end);
	snprintf(target, sizeof(target), "%s", place("elsewhere"));
	assert_int_equal(symlink(target, place(DOCKER CONTAINER "/config.v2.json")), 0);
	assert_int_equal(look(CONTAINER), -ELOOP);
	unlink(place(DOCKER CONTAINER "/config.v2.json"));
	assert_int_equal(mkdir(place(DOCKER CONTAINER "/config.v2.json"), 0700), 0);
	assert_int_equal(look(CONTAINER), -EBADMSG);
}

/* The id is the name of a cgroup, and of a directory here. */
static void only_an_id_of_64_digits_is_looked_for(void **state)
{
	static const char *const rows[] = {
	    "",
	    "..",
	    "a",
	    "../../../../../../../../../../../../../../../../../../../../etc/x/y",
	    CONTAINER "0",
	    CONTAINER "/..",
	};

	(void)state;
	write_file(DOCKER "a/config.v2.json", "{\"Config\":{\"Labels\":{\"a\":\"b\"}}}");
	write_file(DOCKER "config.v2.json", "{\"Config\":{\"Labels\":{\"a\":\"b\"}}}");
	write_file(DOCKER CONTAINER "0/config.v2.json", "{\"Config\":{\"Labels\":{\"a\":\"b\"}}}");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(look(rows[i]), -ENOENT);
	/* Nor does a file lead elsewhere. */
	write_file(DOCKER CONTAINER "/config.v2.json",
		   "{\"Config\":{\"Labels\":{\"io.kubernetes.sandbox.id\":\"..\"}}}");
	expect_labels("io.kubernetes.sandbox.id=..");
}

static void what_is_not_printable_is_not_shown(void **state)
{
	(void)state;
	write_file(DOCKER CONTAINER "/config.v2.json",
		   "{\"Config\":{\"Labels\":{\"a\\u001b\":\"\\nx \\u00e4\\u007f\"}}}");
	expect_labels("a?=?x ???");
}

static void what_has_no_room_is_dropped_and_counted(void **state)
{
	static char key[LABELS_KEY_MAX + 2], value[LABELS_VALUE_MAX + 2];
	struct labels *l = labels_new(), *copy;
	char name[16];

	(void)state;
	assert_non_null(l);
	memset(key, 'k', LABELS_KEY_MAX + 1);
	memset(value, 'v', LABELS_VALUE_MAX + 1);
	assert_int_equal(labels_add(l, key, "v"), -E2BIG);
	assert_int_equal(labels_add(l, "k", value), -E2BIG);
	assert_int_equal(l->dropped, 2);
	key[LABELS_KEY_MAX] = value[LABELS_VALUE_MAX] = '\0';
	assert_int_equal(labels_add(l, key, value), 0);
	assert_int_equal(labels_add(l, key, "another"), -EEXIST);
	assert_int_equal(labels_add(l, "", "v"), -EINVAL);
	assert_string_equal(labels_get(l, key), value);
	for (unsigned int i = 1; i < LABELS_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(labels_add(l, name, ""), 0);
	}
	assert_int_equal(labels_add(l, "more", ""), -E2BIG);
	assert_int_equal(l->count, LABELS_MAX);
	assert_int_equal(l->dropped, 3);
	copy = labels_copy(l);
	assert_non_null(copy);
	assert_string_equal(labels_get(copy, "n63"), "");
	assert_int_equal(labels_add(copy, "x", ""), -E2BIG);
	labels_free(&copy);
	labels_free(&l);
	/* Few, but long: to the last byte of the room. */
	l = labels_new();
	for (unsigned int i = 0; i < LABELS_BYTES_MAX / 256; i++) {
		snprintf(name, sizeof(name), "%03u", i);
		value[251] = '\0';
		assert_int_equal(labels_add(l, name, value), 0);
	}
	assert_int_equal(l->bytes, LABELS_BYTES_MAX);
	assert_int_equal(labels_add(l, "x", ""), -E2BIG);
	assert_int_equal(l->dropped, 1);
	labels_free(&l);
	assert_null(labels_copy(NULL));
	assert_null(labels_next(NULL, NULL));
}

static void a_file_with_too_many_says_how_many_are_missing(void **state)
{
	char text[8192];
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"Config\":{\"Labels\":{");

	(void)state;
	for (unsigned int i = 0; i < LABELS_MAX + 5; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\"k%u\":\"v\"", i ? "," : "",
				      i);
	snprintf(text + n, sizeof(text) - n, "}}}");
	write_file(DOCKER CONTAINER "/config.v2.json", text);
	assert_int_equal(look(CONTAINER), 0);
	assert_int_equal(labels->count, LABELS_MAX);
	assert_int_equal(labels->dropped, 5);
}

/* The model: what cgroups were called is in a file, as after a restart. */

#define GONE 9000000000000000000ull /* no cgroup has such an id */

static struct model *model;

static void open_model(const char *runtime_root)
{
	static struct config config;
	char text[512], boot[CLOCK_BOOT_ID_LEN + 1], file[96];

	assert_int_equal(clock_boot_id(boot), 0);
	snprintf(text, sizeof(text), "%s\n%llu /docker/" CONTAINER "\n%llu /docker/" SANDBOX "\n",
		 boot, GONE + 1, GONE + 2);
	write_file("names", text);
	snprintf(file, sizeof(file), "%s/names", root);
	config_defaults(&config);
	snprintf(config.runtime_root, sizeof(config.runtime_root), "%s", runtime_root);
	assert_int_equal(model_new(&model, &config), 0);
	assert_int_equal(model_keep_names(model, file), 0);
}

static const struct labels *labels_of(__u32 id, const char *exe, uint64_t cgroup)
{
	struct kilter_workload w = {.key = {.cgroup_id = cgroup}, .pid = id};
	struct kilter_conn_key k = {.workload = id, .role = KILTER_ROLE_SERVER};
	struct kilter_conn d = {.created_ns = 1, .opened = 1};

	snprintf(w.key.exe, sizeof(w.key.exe), "%s", exe);
	model_add_workload_id(model, id, &w);
	model_add_conns(model, &k, &d, false);
	assert_non_null(model_workload_by_id(model, id));
	return model_workload_by_id(model, id)->labels;
}

struct wanted {
	const char *name, *labels;
	double value;
};

static void sample(void *ctx, const char *of, double value)
{
	struct wanted *w = ctx;

	if (!strcmp(of, w->labels))
		w->value = value;
}

static void metric(void *ctx, const struct selfstat *s)
{
	if (!strcmp(s->name, ((struct wanted *)ctx)->name))
		s->collect(s->ctx, sample, ctx);
}

static double counted(const char *name, const char *of)
{
	struct wanted w = {.name = name, .labels = of, .value = -1};

	selfstat_walk(metric, &w);
	return w.value;
}

static void executables_of_a_container_have_its_labels(void **state)
{
	char text[1024], is_long[LABELS_VALUE_MAX + 2];

	(void)state;
	memset(is_long, 'x', sizeof(is_long) - 1);
	is_long[sizeof(is_long) - 1] = '\0';
	snprintf(text, sizeof(text), "{\"Config\":{\"Labels\":{\"long\":\"%s\",\"app\":\"cart\"}}}",
		 is_long);
	write_file(DOCKER CONTAINER "/config.v2.json", text);
	write_file(DOCKER SANDBOX "/config.v2.json", "{");
	open_model(root);
	assert_string_equal(labels_get(labels_of(1, "curl", GONE + 1), "app"), "cart");
	assert_true(counted("kilter_model_overflow_total", "table=\"labels\"") == 1);
	/* It was read once, and is not asked for again. */
	unlink(place(DOCKER CONTAINER "/config.v2.json"));
	assert_string_equal(labels_get(labels_of(2, "wget", GONE + 1), "app"), "cart");
	assert_true(counted("kilter_labels_unread_total", "") == 0);
	assert_null(labels_of(3, "curl", GONE + 2));
	assert_true(counted("kilter_labels_unread_total", "") == 1);
	assert_null(labels_of(4, "curl", GONE + 3)); /* no container */
	model_free(&model);
	/* Nobody looks. */
	write_file(DOCKER CONTAINER "/config.v2.json", text);
	open_model("");
	assert_null(labels_of(1, "curl", GONE + 1));
	model_free(&model);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(nothing_is_known_of_a_container_without_files),
	    T(crio_has_those_of_the_container_and_of_its_pod),
	    T(podman_keeps_none_there),
	    T(docker_has_labels_of_its_own),
	    T(cri_dockerd_has_those_of_the_pod_and_no_annotations),
	    T(containerd_has_what_the_kubelet_gives_each),
	    T(what_a_runtime_would_not_write_is_refused),
	    T(what_is_no_file_or_too_long_is_refused),
	    T(only_an_id_of_64_digits_is_looked_for),
	    T(what_is_not_printable_is_not_shown),
	    T(what_has_no_room_is_dropped_and_counted),
	    T(a_file_with_too_many_says_how_many_are_missing),
	    T(executables_of_a_container_have_its_labels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
