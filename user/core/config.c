// SPDX-License-Identifier: Apache-2.0
/*
 * Reading the configuration: libyaml's events against the table. No value has a type of its
 * own: what a scalar means is the field's business, so that `no` and `0755` are what they say.
 */
#include "core/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "core/cleanup.h"
#include "core/config_fields.h"

#define CONFIG_DEPTH_MAX 8
#define CONFIG_FILE_MAX	 (1u << 20)

struct parse {
	struct config *c;
	const char *name;
	config_fault_fn fault;
	void *ctx;
	unsigned int faults;
	yaml_parser_t yaml;
	uint8_t seen[CONFIG_FIELDS_MAX];     /* by the row of the field */
	uint8_t sections[CONFIG_FIELDS_MAX]; /* by the row of a section's first field */
	bool policies, defaults;
};

static void report(struct parse *p, const yaml_mark_t *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void report(struct parse *p, const yaml_mark_t *at, const char *fmt, ...)
{
	char text[400 + CONFIG_WHY_LEN]; /* where, the value, and what would be right */
	va_list ap;
	int n;

	n = snprintf(text, sizeof(text), "%.200s:%zu:%zu: ", p->name, at->line + 1, at->column + 1);
	va_start(ap, fmt);
	vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	va_end(ap);
	for (char *s = text; *s; s++)
		if ((unsigned char)*s < 0x20)
			*s = '?';
	p->faults++;
	if (p->fault)
		p->fault(p->ctx, text);
}

/* Edit distance (Wagner-Fischer) of short names, for "did you mean". */
static unsigned int distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned int row[CONFIG_NAME_LEN + 1];

	if (n > CONFIG_NAME_LEN || m > CONFIG_NAME_LEN)
		return 99;
	for (size_t k = 0; k <= m; k++)
		row[k] = (unsigned int)k;
	for (size_t i = 1; i <= n; i++) {
		unsigned int diagonal = row[0];

		row[0] = (unsigned int)i;
		for (size_t k = 1; k <= m; k++) {
			unsigned int up = row[k], best = diagonal + (a[i - 1] != b[k - 1]);

			if (up + 1 < best)
				best = up + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			diagonal = up;
			row[k] = best;
		}
	}
	return row[m];
}

static void unknown_key(struct parse *p, const yaml_mark_t *at, const char *prefix, const char *key,
			const struct config_field *fields, unsigned int count)
{
	char full[2 * CONFIG_NAME_LEN];
	const char *best = NULL;
	unsigned int least = 4;

	snprintf(full, sizeof(full), "%s%s%.60s", prefix, *prefix ? "." : "", key);
	for (unsigned int i = 0; i < count; i++) {
		unsigned int d = distance(full, fields[i].path);

		if (d < least) {
			least = d;
			best = fields[i].path;
		}
	}
	if (best)
		report(p, at, "unknown key '%s', did you mean '%s'?", full, best);
	else
		report(p, at, "unknown key '%s'; `kilter config show` lists the known ones", full);
}

/* 1: an event, 0: a fault was reported. The caller deletes the event. */
static int next(struct parse *p, yaml_event_t *ev)
{
	if (!yaml_parser_parse(&p->yaml, ev)) {
		yaml_mark_t at = p->yaml.problem_mark;

		report(p, &at, "%s%s%s", p->yaml.problem ? p->yaml.problem : "not YAML",
		       p->yaml.context ? " " : "", p->yaml.context ? p->yaml.context : "");
		return 0;
	}
	if (ev->type == YAML_ALIAS_EVENT ||
	    (ev->type == YAML_SCALAR_EVENT && (ev->data.scalar.anchor || ev->data.scalar.tag)) ||
	    (ev->type == YAML_MAPPING_START_EVENT &&
	     (ev->data.mapping_start.anchor || ev->data.mapping_start.tag)) ||
	    (ev->type == YAML_SEQUENCE_START_EVENT &&
	     (ev->data.sequence_start.anchor || ev->data.sequence_start.tag))) {
		report(p, &ev->start_mark,
		       "anchors, aliases and tags are not used here: write the "
		       "value itself");
		yaml_event_delete(ev);
		return 0;
	}
	return 1;
}

/* The text of a key; "" for what cannot be one: a list, a mapping, a NUL inside. */
static const char *key_text(const yaml_event_t *ev)
{
	const char *s = ev->type == YAML_SCALAR_EVENT ? (const char *)ev->data.scalar.value : "";

	return ev->type == YAML_SCALAR_EVENT && strlen(s) != ev->data.scalar.length ? "" : s;
}

/* A scalar, or a sequence of scalars joined by spaces, into buf. */
static int read_value(struct parse *p, yaml_event_t *ev, bool list, const char *path, char *buf,
		      size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	if (ev->type == YAML_SCALAR_EVENT) {
		if (ev->data.scalar.length >= size) {
			report(p, &ev->start_mark, "%s: longer than %zu characters", path,
			       size - 1);
			return -EINVAL;
		}
		if (memchr(ev->data.scalar.value, 0, ev->data.scalar.length)) {
			report(p, &ev->start_mark, "%s: a NUL character has no place in a value",
			       path);
			return -EINVAL;
		}
		memcpy(buf, ev->data.scalar.value, ev->data.scalar.length);
		buf[ev->data.scalar.length] = '\0';
		return 0;
	}
	if (ev->type != YAML_SEQUENCE_START_EVENT || !list) {
		report(p, &ev->start_mark, "%s: a single value is expected here, not a %s", path,
		       ev->type == YAML_MAPPING_START_EVENT ? "mapping" : "list");
		return -E2BIG; /* structure is lost */
	}
	for (;;) {
		yaml_event_t item;

		if (!next(p, &item))
			return -E2BIG;
		if (item.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&item);
			return 0;
		}
		if (item.type != YAML_SCALAR_EVENT || item.data.scalar.length + n + 2 > size ||
		    strlen((const char *)item.data.scalar.value) != item.data.scalar.length) {
			report(p, &item.start_mark, "%s: a list of names is expected here", path);
			yaml_event_delete(&item);
			return -E2BIG;
		}
		n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? " " : "",
				      (const char *)item.data.scalar.value);
		yaml_event_delete(&item);
	}
}

/* Skips a value whose first event was ev. */
static int skip(struct parse *p, const yaml_event_t *ev)
{
	int depth = ev->type == YAML_MAPPING_START_EVENT || ev->type == YAML_SEQUENCE_START_EVENT;

	while (depth) {
		yaml_event_t e;

		if (!next(p, &e))
			return -E2BIG;
		if (e.type == YAML_MAPPING_START_EVENT || e.type == YAML_SEQUENCE_START_EVENT)
			depth++;
		if (e.type == YAML_MAPPING_END_EVENT || e.type == YAML_SEQUENCE_END_EVENT)
			depth--;
		yaml_event_delete(&e);
	}
	return 0;
}

/* The row of the first field of the section, -1 when there is no such section. */
static int find_section(const char *path)
{
	size_t n = strlen(path);

	for (unsigned int i = 0; i < config_fields_count; i++)
		if (!strncmp(config_fields[i].path, path, n) && config_fields[i].path[n] == '.')
			return (int)i;
	return -1;
}

static void add_label(struct parse *p, const yaml_event_t *key, const yaml_event_t *value,
		      struct config_policy *policy)
{
	const char *k = key_text(key), *v = (const char *)value->data.scalar.value;

	if (value->type != YAML_SCALAR_EVENT || strlen(v) != value->data.scalar.length) {
		report(p, &value->start_mark, "labels: of '%.60s' a glob on its value is expected",
		       k);
		return;
	}
	switch (config_labels_add(policy->labels, k, v)) {
	case 0:
		return;
	case -EEXIST:
		report(p, &key->start_mark, "labels: '%.60s' is there twice", k);
		return;
	case -E2BIG:
		report(p, &key->start_mark,
		       "labels: '%.60s' has no room: at most %d labels, of %d bytes together", k,
		       CONFIG_LABELS_MAX, CONFIG_LABELS_LEN);
		return;
	}
	report(p, &key->start_mark,
	       "labels: '%.60s: %.60s' is not a key and a glob of printable ASCII without spaces, "
	       "the key without '='",
	       k, v);
}

/* "labels: {app: shop, tier: \"front*\"}". They are those of this policy alone. */
static int read_labels(struct parse *p, const yaml_event_t *start, struct config_policy *policy)
{
	memset(policy->labels, 0, sizeof(policy->labels));
	if (start->type != YAML_MAPPING_START_EVENT) {
		report(p, &start->start_mark,
		       "labels: a mapping of keys to globs is expected here, such as {app: shop}");
		return skip(p, start);
	}
	for (;;) {
		yaml_event_t key, value;
		int err;

		if (!next(p, &key))
			return -E2BIG;
		if (key.type != YAML_SCALAR_EVENT) {
			err = key.type == YAML_MAPPING_END_EVENT ? 0 : -E2BIG;
			if (err)
				report(p, &key.start_mark, "labels: a key must be a plain name");
			yaml_event_delete(&key);
			return err;
		}
		if (!next(p, &value)) {
			yaml_event_delete(&key);
			return -E2BIG;
		}
		add_label(p, &key, &value, policy);
		err = skip(p, &value);
		yaml_event_delete(&key);
		yaml_event_delete(&value);
		if (err)
			return err;
	}
}

static int read_policy_value(struct parse *p, const struct config_field *f, yaml_event_t *value,
			     struct config_policy *policy)
{
	char buf[CONFIG_FAILURES_LEN], why[CONFIG_WHY_LEN];
	int err;

	if (f->type == FIELD_LABELS)
		return read_labels(p, value, policy);
	err = read_value(p, value, f->type == FIELD_FAILURES, f->path, buf, sizeof(buf));
	if (!err && config_field_decode(f, policy, buf, why, sizeof(why)))
		report(p, &value->start_mark, "%s: '%.60s' is not %s", f->path, buf, why);
	return err == -E2BIG ? err : 0;
}

/* The keys of one policy, after its mapping began. */
static int parse_policy(struct parse *p, struct config_policy *policy, const yaml_mark_t *at,
			bool defaults)
{
	uint64_t seen = 0;

	policy->line = (unsigned int)at->line + 1;
	for (;;) {
		yaml_event_t key, value;
		const char *name;
		int i, err;

		if (!next(p, &key))
			return -E2BIG;
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			return 0;
		}
		name = key_text(&key);
		i = config_field_find(config_policy_fields, config_policy_fields_count, name);
		if (!next(p, &value)) {
			yaml_event_delete(&key);
			return -E2BIG;
		}
		if (i < 0 || (defaults && i < CONFIG_POLICY_MATCHERS)) {
			unknown_key(p, &key.start_mark, "", name, config_policy_fields,
				    config_policy_fields_count);
			err = skip(p, &value);
		} else if (seen & (1ull << i)) {
			report(p, &key.start_mark, "key '%s' is there twice", name);
			err = skip(p, &value);
		} else {
			seen |= 1ull << i;
			err = read_policy_value(p, &config_policy_fields[i], &value, policy);
		}
		yaml_event_delete(&key);
		yaml_event_delete(&value);
		if (err)
			return err;
	}
}

static int parse_policies(struct parse *p, const yaml_event_t *start)
{
	struct config *c = p->c;

	if (start->type == YAML_SCALAR_EVENT && !start->data.scalar.length)
		return 0;
	if (start->type != YAML_SEQUENCE_START_EVENT) {
		report(p, &start->start_mark,
		       "guard.policies: a list of policies is expected here");
		return skip(p, start);
	}
	for (;;) {
		struct config_policy policy = c->guard.defaults;
		yaml_event_t ev;
		int err;

		if (!next(p, &ev))
			return -E2BIG;
		if (ev.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&ev);
			return 0;
		}
		if (ev.type != YAML_MAPPING_START_EVENT) {
			report(p, &ev.start_mark,
			       "guard.policies: each entry is a mapping with name, "
			       "workload, destination and so on");
			err = skip(p, &ev);
		} else {
			snprintf(policy.name, sizeof(policy.name), "policy-%u",
				 c->guard.policies_count + 1);
			err = parse_policy(p, &policy, &ev.start_mark, false);
			if (c->guard.policies_count == CONFIG_POLICIES_MAX)
				report(p, &ev.start_mark, "more than %d policies",
				       CONFIG_POLICIES_MAX);
			else
				c->guard.policies[c->guard.policies_count++] = policy;
		}
		yaml_event_delete(&ev);
		if (err)
			return err;
	}
}

static int parse_mapping(struct parse *p, const char *prefix, unsigned int depth);

static int parse_field(struct parse *p, int i, const yaml_event_t *key, yaml_event_t *value)
{
	const struct config_field *f = &config_fields[i];
	char buf[CONFIG_PATH_LEN], why[CONFIG_WHY_LEN];
	int err = read_value(p, value, false, f->path, buf, sizeof(buf));

	if (!err && config_field_decode(f, p->c, buf, why, sizeof(why)))
		report(p, &value->start_mark, "%s: '%.60s' is not %s", f->path, buf, why);
	p->seen[i] = 1;
	p->c->origins[i] = (int32_t)key->start_mark.line + 1;
	return err == -E2BIG ? skip(p, value) : 0;
}

static int parse_defaults(struct parse *p, const yaml_event_t *key, const yaml_event_t *value)
{
	if (value->type == YAML_SCALAR_EVENT && !value->data.scalar.length)
		return 0;
	if (value->type != YAML_MAPPING_START_EVENT) {
		report(p, &value->start_mark, "guard.defaults: a mapping is expected here");
		return skip(p, value);
	}
	if (p->policies)
		report(p, &key->start_mark,
		       "guard.defaults must stand before guard.policies, which inherit from it");
	return parse_policy(p, &p->c->guard.defaults, &value->start_mark, true);
}

static int parse_section(struct parse *p, const char *path, unsigned int depth,
			 const yaml_event_t *value)
{
	if (value->type == YAML_MAPPING_START_EVENT && depth < CONFIG_DEPTH_MAX)
		return parse_mapping(p, path, depth + 1);
	if (value->type == YAML_SCALAR_EVENT && !value->data.scalar.length)
		return 0;
	report(p, &value->start_mark, "%s: a mapping is expected here", path);
	return skip(p, value);
}

/* Was this key read before? Remembers it. */
static bool seen_before(struct parse *p, const char *path, int field, int section)
{
	bool before;

	if (field >= 0)
		return p->seen[field];
	if (!strcmp(path, "guard.policies")) {
		before = p->policies;
		p->policies = true;
	} else if (!strcmp(path, "guard.defaults")) {
		before = p->defaults;
		p->defaults = true;
	} else if (section >= 0) {
		before = p->sections[section];
		p->sections[section] = 1;
	} else {
		return false;
	}
	return before;
}

static int parse_mapping(struct parse *p, const char *prefix, unsigned int depth)
{
	for (;;) {
		yaml_event_t key, value;
		char path[2 * CONFIG_NAME_LEN];
		int field, section, err;

		if (!next(p, &key))
			return -E2BIG;
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			return 0;
		}
		if (key.type != YAML_SCALAR_EVENT) {
			report(p, &key.start_mark, "a key must be a plain name");
			yaml_event_delete(&key);
			return -E2BIG;
		}
		snprintf(path, sizeof(path), "%.60s%s%.60s", prefix, *prefix ? "." : "",
			 key_text(&key));
		if (!next(p, &value)) {
			yaml_event_delete(&key);
			return -E2BIG;
		}
		field = config_field_find(config_fields, config_fields_count, path);
		section = find_section(path);
		if (seen_before(p, path, field, section)) {
			report(p, &key.start_mark, "key '%s' is there twice", path);
			err = skip(p, &value);
		} else if (field >= 0) {
			err = parse_field(p, field, &key, &value);
		} else if (!strcmp(path, "guard.policies")) {
			err = parse_policies(p, &value);
		} else if (!strcmp(path, "guard.defaults")) {
			err = parse_defaults(p, &key, &value);
		} else if (section >= 0) {
			err = parse_section(p, path, depth, &value);
		} else {
			unknown_key(p, &key.start_mark, prefix, key_text(&key), config_fields,
				    config_fields_count);
			err = skip(p, &value);
		}
		yaml_event_delete(&key);
		yaml_event_delete(&value);
		if (err)
			return err;
	}
}

static void parse_document(struct parse *p)
{
	unsigned int documents = 0;

	for (;;) {
		yaml_event_t ev;
		yaml_event_type_t type;
		int err = 0;

		if (!next(p, &ev))
			return;
		type = ev.type;
		if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1) {
			report(p, &ev.start_mark, "a second document: the configuration is one");
			err = -E2BIG;
		} else if (type == YAML_MAPPING_START_EVENT) {
			err = parse_mapping(p, "", 0);
		} else if (type == YAML_SEQUENCE_START_EVENT ||
			   (type == YAML_SCALAR_EVENT && ev.data.scalar.length)) {
			report(p, &ev.start_mark, "a mapping of keys to values is expected here");
			err = -E2BIG;
		}
		yaml_event_delete(&ev);
		if (err || type == YAML_STREAM_END_EVENT)
			return;
	}
}

void config_defaults(struct config *c)
{
	char why[CONFIG_WHY_LEN];

	memset(c, 0, sizeof(*c));
	for (unsigned int i = 0; i < config_fields_count; i++)
		config_field_decode(&config_fields[i], c, config_fields[i].initial, why,
				    sizeof(why));
	for (unsigned int i = 0; i < config_policy_fields_count; i++)
		config_field_decode(&config_policy_fields[i], &c->guard.defaults,
				    config_policy_fields[i].initial, why, sizeof(why));
	snprintf(c->guard.defaults.name, sizeof(c->guard.defaults.name), "default");
}

int config_parse(struct config *c, const char *buf, size_t len, const char *name,
		 config_fault_fn fault, void *ctx)
{
	struct config *fresh = malloc(sizeof(*fresh));
	struct parse p = {.name = name, .fault = fault, .ctx = ctx};
	int err = 0;

	if (!fresh)
		return -ENOMEM;
	*fresh = *c;
	fresh->guard.policies_count = 0;
	p.c = fresh;
	if (!yaml_parser_initialize(&p.yaml)) {
		free(fresh);
		return -ENOMEM;
	}
	yaml_parser_set_input_string(&p.yaml, (const unsigned char *)buf, len);
	parse_document(&p);
	yaml_parser_delete(&p.yaml);
	snprintf(fresh->file, sizeof(fresh->file), "%s", name);
	if (!p.faults && config_check(fresh, fault, ctx))
		p.faults++;
	if (p.faults)
		err = -EINVAL;
	else
		*c = *fresh;
	free(fresh);
	return err;
}

static int load_fault(const char *path, const char *what, config_fault_fn fault, void *ctx)
{
	char text[CONFIG_PATH_LEN + 128];

	snprintf(text, sizeof(text), "%.250s: %s", path, what);
	if (fault)
		fault(ctx, text);
	return -EINVAL;
}

int config_load(struct config *c, const char *path, config_fault_fn fault, void *ctx)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *buf = NULL;
	size_t n;

	if (!f) {
		int err = -errno;

		load_fault(path, strerror(-err), fault, ctx);
		return err;
	}
	buf = malloc(CONFIG_FILE_MAX + 1);
	if (!buf)
		return -ENOMEM;
	errno = 0;
	n = fread(buf, 1, CONFIG_FILE_MAX + 1, f);
	if (ferror(f)) {
		int err = errno ? -errno : -EIO;

		load_fault(path, strerror(-err), fault, ctx);
		return err;
	}
	if (n > CONFIG_FILE_MAX)
		return load_fault(path, "larger than 1 MiB: that is no configuration", fault, ctx);
	return config_parse(c, buf, n, path, fault, ctx);
}

int config_set(struct config *c, const char *path, const char *value, int origin, const char *where,
	       config_fault_fn fault, void *ctx)
{
	int i = config_field_find(config_fields, config_fields_count, path);
	char why[CONFIG_WHY_LEN] = "a known field", text[512];

	if (i >= 0 && !config_field_decode(&config_fields[i], c, value, why, sizeof(why))) {
		c->origins[i] = origin;
		return 0;
	}
	snprintf(text, sizeof(text), "%s: '%.100s' is not %s", where, value, why);
	if (fault)
		fault(ctx, text);
	return -EINVAL;
}

static void env_name(const char *path, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "KILTER_%s", path);

	for (size_t i = 0; i < n && i < size; i++) {
		if (buf[i] == '.')
			buf[i] = '_';
		else if (buf[i] >= 'a' && buf[i] <= 'z')
			buf[i] = (char)(buf[i] - 'a' + 'A');
	}
}

int config_env(struct config *c, config_fault_fn fault, void *ctx)
{
	int err = 0;

	for (unsigned int i = 0; i < config_fields_count; i++) {
		char name[96];
		const char *value;

		env_name(config_fields[i].path, name, sizeof(name));
		value = getenv(name);
		if (value && config_set(c, config_fields[i].path, value, CONFIG_ORIGIN_ENV, name,
					fault, ctx))
			err = -EINVAL;
	}
	return err;
}
