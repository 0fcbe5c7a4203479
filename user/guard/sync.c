// SPDX-License-Identifier: Apache-2.0
#include "guard/sync.h"

#include <arpa/inet.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include <kilter/limits.h>

#include "core/cleanup.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/json.h"

/* KILTER_CIRCUITS_MAX records of at most 1 KiB and LABELS_BYTES_MAX, twice. */
#define STATE_BYTES_MAX (192u << 20)

static void cleanup_json(struct json *j)
{
	json_done(j);
}
#define _cleanup_json_ __attribute__((cleanup(cleanup_json)))

static void raise_generation(struct sync *s, uint64_t generation)
{
	if (generation > s->generation)
		s->generation = generation;
}

/* Every key of a map, into a new array: entries come and go while it is walked, and a key that
 * is gone makes get_next_key begin anew. */
static int read_keys(int fd, struct kilter_circuit_key **ret, unsigned int *ret_count)
{
	_cleanup_free_ struct kilter_circuit_key *keys = NULL;
	const struct kilter_circuit_key *at = NULL;
	unsigned int n = 0;

	keys = calloc(KILTER_CIRCUITS_MAX, sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	while (n < KILTER_CIRCUITS_MAX) {
		if (bpf_map_get_next_key(fd, at, &keys[n])) {
			if (errno != ENOENT)
				return -errno;
			break;
		}
		at = &keys[n++];
	}
	*ret = take_ptr(keys);
	*ret_count = n;
	return 0;
}

int sync_init(struct sync *s, const struct guard_maps *maps)
{
	_cleanup_free_ struct kilter_circuit_key *policies = NULL, *runtimes = NULL;
	unsigned int n = 0;
	int err;

	memset(s, 0, sizeof(*s));
	s->maps = *maps;
	err = read_keys(maps->policy_fd, &policies, &n);
	if (err)
		return err;
	for (unsigned int i = 0; i < n; i++) {
		struct kilter_guard_policy p;

		if (!sync_policy(s, &policies[i], &p))
			raise_generation(s, p.rules.generation);
	}
	err = read_keys(maps->runtime_fd, &runtimes, &n);
	if (err)
		return err;
	for (unsigned int i = 0; i < n; i++) {
		struct kilter_guard_runtime rt;

		if (!sync_runtime(s, &runtimes[i], &rt))
			raise_generation(s, rt.generation);
	}
	return 0;
}

uint64_t sync_next_generation(struct sync *s)
{
	return ++s->generation;
}

static int count_error(struct sync *s, int err)
{
	if (err == -E2BIG)
		s->full++;
	else
		s->write_errors++;
	return err;
}

int sync_write(struct sync *s, const struct kilter_circuit_key *key,
	       const struct kilter_guard_policy *p)
{
	if (!bpf_map_update_elem(s->maps.policy_fd, key, p, BPF_ANY))
		return 0;
	return count_error(s, -errno);
}

int sync_make_runtime(struct sync *s, const struct kilter_circuit_key *key)
{
	static const struct kilter_guard_runtime zero;

	if (!bpf_map_update_elem(s->maps.runtime_fd, key, &zero, BPF_NOEXIST) || errno == EEXIST)
		return 0;
	return count_error(s, -errno);
}

static int remove_key(struct sync *s, int fd, const struct kilter_circuit_key *key)
{
	if (!bpf_map_delete_elem(fd, key) || errno == ENOENT)
		return 0;
	s->write_errors++;
	return -errno;
}

int sync_remove(struct sync *s, const struct kilter_circuit_key *key)
{
	int err = remove_key(s, s->maps.policy_fd, key);

	if (err)
		return err;
	if (s->gone_count == s->gone_room) {
		unsigned int room = s->gone_room ? 2 * s->gone_room : 16;
		struct kilter_circuit_key *more = reallocarray(s->gone, room, sizeof(*more));

		if (!more)
			return 0; /* sync_sweep() finds it */
		s->gone = more;
		s->gone_room = room;
	}
	s->gone[s->gone_count++] = *key;
	s->gone_ns = clock_boot_ns();
	return 0;
}

void sync_bury(struct sync *s, uint64_t now_ns)
{
	struct kilter_guard_policy p;

	if (!s->gone_count || now_ns < s->gone_ns + SYNC_GRACE_NS)
		return;
	for (unsigned int i = 0; i < s->gone_count; i++)
		if (sync_policy(s, &s->gone[i], &p) == -ENOENT) /* not told again meanwhile */
			remove_key(s, s->maps.runtime_fd, &s->gone[i]);
	s->gone_count = 0;
}

void sync_done(struct sync *s)
{
	free(s->gone);
	s->gone = NULL;
	s->gone_count = 0;
	s->gone_room = 0;
}

int sync_policy(struct sync *s, const struct kilter_circuit_key *key,
		struct kilter_guard_policy *ret)
{
	return bpf_map_lookup_elem(s->maps.policy_fd, key, ret) ? -errno : 0;
}

int sync_runtime(struct sync *s, const struct kilter_circuit_key *key,
		 struct kilter_guard_runtime *ret)
{
	return bpf_map_lookup_elem(s->maps.runtime_fd, key, ret) ? -errno : 0;
}

int sync_switch(struct sync *s, uint32_t which, uint32_t value)
{
	if (!bpf_map_update_elem(s->maps.switch_fd, &which, &value, BPF_ANY))
		return 0;
	s->write_errors++;
	return -errno;
}

int sync_switch_read(struct sync *s, uint32_t which, uint32_t *ret)
{
	return bpf_map_lookup_elem(s->maps.switch_fd, &which, ret) ? -errno : 0;
}

unsigned int sync_sweep(struct sync *s,
			bool (*keep)(void *ctx, const struct kilter_circuit_key *key), void *ctx)
{
	const int fds[] = {s->maps.policy_fd, s->maps.runtime_fd};
	unsigned int removed = 0;

	for (unsigned int m = 0; m < 2 && !removed; m++) {
		_cleanup_free_ struct kilter_circuit_key *keys = NULL;
		unsigned int n = 0;

		if (read_keys(fds[m], &keys, &n)) {
			s->write_errors++;
			continue;
		}
		for (unsigned int i = 0; i < n; i++)
			if (!keep(ctx, &keys[i]) && !remove_key(s, fds[m], &keys[i]))
				removed++;
	}
	return removed;
}

void sync_disarm(struct sync *s, bool (*keep)(void *ctx, const struct kilter_circuit_key *key),
		 void *ctx)
{
	_cleanup_free_ struct kilter_circuit_key *keys = NULL;
	struct kilter_guard_policy p;
	unsigned int n = 0;

	if (read_keys(s->maps.policy_fd, &keys, &n)) {
		s->write_errors++;
		return;
	}
	for (unsigned int i = 0; i < n; i++) {
		if (keep(ctx, &keys[i]) || sync_policy(s, &keys[i], &p) ||
		    p.rules.state != KILTER_CIRCUIT_CLOSED)
			continue;
		p.rules.mode = KILTER_GUARD_OBSERVE;
		sync_write(s, &keys[i], &p);
	}
}

/* --- the state file --- */

static void write_record(struct json *j, const struct sync_record *r)
{
	json_object_begin(j);
	json_kv_string(j, "name", r->name);
	json_kv_string(j, "workload", r->workload);
	json_key(j, "address");
	json_array_begin(j);
	for (unsigned int i = 0; i < 16; i++)
		json_u64(j, r->destination.addr[i]);
	json_array_end(j);
	json_kv_u64(j, "family", r->destination.family);
	json_kv_u64(j, "transport", r->destination.transport);
	json_kv_u64(j, "port", ntohs(r->destination.port_be));
	json_key(j, "keys");
	json_array_begin(j);
	for (unsigned int i = 0; i < r->keys_count; i++) {
		json_object_begin(j);
		json_kv_u64(j, "workload", r->keys[i].workload);
		json_kv_u64(j, "peer", r->keys[i].peer);
		json_object_end(j);
	}
	json_array_end(j);
	json_kv_u64(j, "state", r->state);
	json_kv_bool(j, "held", r->held);
	json_kv_u64(j, "forced", r->forced);
	json_kv_string(j, "executable", r->executable);
	json_kv_string(j, "cgroup", r->cgroup);
	if (r->labels) {
		json_key(j, "labels");
		json_object_begin(j);
		for (const char *k = NULL; (k = labels_next(r->labels, k));)
			json_kv_string(j, k, labels_value(k));
		json_object_end(j);
	}
	if (r->limits_set) {
		json_key(j, "limits");
		json_object_begin(j);
		json_kv_double(j, "rate_limit", r->limits.rate_limit);
		json_kv_u64(j, "burst", r->limits.burst);
		json_kv_u64(j, "max_connections", r->limits.max_connections);
		json_object_end(j);
	}
	json_kv_u64(j, "opens", r->opens);
	json_kv_u64(j, "generation", r->generation);
	json_kv_u64(j, "since_real_ns", r->since_real_ns);
	json_kv_u64(j, "since_boot_ns", r->since_boot_ns);
	json_kv_u64(j, "retry_boot_ns", r->retry_boot_ns);
	json_kv_string(j, "reason", r->reason);
	json_object_end(j);
}

int sync_save(struct sync *s, const char *path, bool (*next)(void *ctx, struct sync_record *ret),
	      void *ctx)
{
	_cleanup_json_ struct json j;
	struct sync_record r;
	char here[CLOCK_BOOT_ID_LEN + 1];
	int err;

	json_init(&j, STATE_BYTES_MAX);
	err = clock_boot_id(here);
	if (!err) {
		json_object_begin(&j);
		json_kv_u64(&j, "version", SYNC_STATE_VERSION);
		json_kv_string(&j, "boot_id", here);
		json_kv_u64(&j, "generation", s->generation);
		json_kv_bool(&j, "released", s->released);
		json_key(&j, "circuits");
		json_array_begin(&j);
		while (next(ctx, &r))
			write_record(&j, &r);
		json_array_end(&j);
		json_object_end(&j);
		err = json_error(&j);
	}
	if (!err)
		err = file_replace(path, j.buf, j.len);
	if (err)
		s->state_errors++;
	return err;
}
