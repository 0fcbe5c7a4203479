// SPDX-License-Identifier: Apache-2.0
/* Reading the state file; apart from writing it, because jansson and core/json.h share names. */
#include <arpa/inet.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "guard/sync.h"

static void cleanup_decref(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_decref_ __attribute__((cleanup(cleanup_decref)))

static void copy_string(char *to, size_t size, const json_t *from)
{
	const char *s = json_string_value(from);

	snprintf(to, size, "%s", s ? s : "");
}

static uint64_t get_u64(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v > 0 ? (uint64_t)v : 0;
}

static uint32_t get_u32(const json_t *o, const char *key)
{
	uint64_t v = get_u64(o, key);

	return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* The file may have been edited: what does not fit makes the record void. */
static bool read_record(const json_t *o, bool same_boot, struct sync_record *ret)
{
	const json_t *keys = json_object_get(o, "keys"), *addr = json_object_get(o, "address");
	uint64_t state = get_u64(o, "state"), family = get_u64(o, "family"),
		 port = get_u64(o, "port"), transport = get_u64(o, "transport");
	const json_t *limits = json_object_get(o, "limits");

	memset(ret, 0, sizeof(*ret));
	copy_string(ret->name, sizeof(ret->name), json_object_get(o, "name"));
	copy_string(ret->workload, sizeof(ret->workload), json_object_get(o, "workload"));
	copy_string(ret->reason, sizeof(ret->reason), json_object_get(o, "reason"));
	if (!ret->name[0] || state > KILTER_CIRCUIT_HALF_OPEN || json_array_size(addr) != 16 ||
	    (family != KILTER_FAMILY_V4 && family != KILTER_FAMILY_V6) || port > UINT16_MAX ||
	    (transport != KILTER_TRANSPORT_TCP && transport != KILTER_TRANSPORT_UDP) ||
	    json_array_size(keys) > SYNC_KEYS_MAX)
		return false;
	for (unsigned int i = 0; i < 16; i++) {
		json_int_t byte = json_integer_value(json_array_get(addr, i));

		if (byte < 0 || byte > 255)
			return false;
		ret->destination.addr[i] = (uint8_t)byte;
	}
	ret->destination.family = (uint8_t)family;
	ret->destination.transport = (uint8_t)transport;
	ret->destination.port_be = htons((uint16_t)port);
	for (unsigned int i = 0; i < json_array_size(keys); i++) {
		const json_t *k = json_array_get(keys, i);

		ret->keys[i].workload = get_u32(k, "workload");
		ret->keys[i].peer = get_u32(k, "peer");
		if (!ret->keys[i].peer)
			return false;
		ret->keys_count++;
	}
	ret->state = (enum kilter_circuit_state)state;
	ret->held = json_is_true(json_object_get(o, "held"));
	ret->forced = get_u32(o, "forced");
	copy_string(ret->executable, sizeof(ret->executable), json_object_get(o, "executable"));
	copy_string(ret->cgroup, sizeof(ret->cgroup), json_object_get(o, "cgroup"));
	if (json_is_object(limits)) {
		double rate = json_number_value(json_object_get(limits, "rate_limit"));

		ret->limits_set = true;
		ret->limits.rate_limit = rate > 0 && rate <= CONFIG_LIMIT_MAX ? rate : 0;
		ret->limits.burst = get_u32(limits, "burst");
		ret->limits.max_connections = get_u32(limits, "max_connections");
	}
	ret->opens = get_u32(o, "opens");
	ret->generation = get_u64(o, "generation");
	ret->since_real_ns = get_u64(o, "since_real_ns");
	if (same_boot) {
		ret->since_boot_ns = get_u64(o, "since_boot_ns");
		ret->retry_boot_ns = get_u64(o, "retry_boot_ns");
	}
	return true;
}

/* NULL: not known. */
static struct labels *read_labels(json_t *o)
{
	struct labels *l = json_is_object(o) ? labels_new() : NULL;
	const char *key;
	json_t *value;

	if (!l)
		return NULL;
	json_object_foreach(o, key, value)
	{
		if (json_is_string(value))
			labels_add(l, key, json_string_value(value));
	}
	return l;
}

int sync_load(struct sync *s, const char *path, void (*fn)(void *ctx, const struct sync_record *r),
	      void *ctx)
{
	_cleanup_decref_ json_t *root = NULL;
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	const json_t *circuits;
	const char *boot;
	uint64_t generation;
	char here[CLOCK_BOOT_ID_LEN + 1];
	json_error_t why;
	int err;

	if (!f)
		return errno == ENOENT ? 0 : -errno;
	err = clock_boot_id(here);
	if (err)
		return err;
	root = json_loadf(f, 0, &why);
	if (!root || get_u64(root, "version") != SYNC_STATE_VERSION)
		return -EINVAL;
	generation = get_u64(root, "generation");
	if (generation > s->generation)
		s->generation = generation;
	s->released = json_is_true(json_object_get(root, "released"));
	boot = json_string_value(json_object_get(root, "boot_id"));
	circuits = json_object_get(root, "circuits");
	for (size_t i = 0; i < json_array_size(circuits); i++) {
		const json_t *o = json_array_get(circuits, i);
		struct labels *labels;
		struct sync_record r;

		if (!read_record(o, boot && !strcmp(boot, here), &r)) {
			s->state_errors++;
			continue;
		}
		r.labels = labels = read_labels(json_object_get(o, "labels"));
		fn(ctx, &r);
		labels_free(&labels);
	}
	return 0;
}
