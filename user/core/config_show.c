// SPDX-License-Identifier: Apache-2.0
/*
 * What is told of a configuration: each value and where it is from, what a reload changes, and the
 * reference page.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "core/config_fields.h"

void config_walk(const struct config *c, config_walk_fn fn, void *ctx)
{
	char value[CONFIG_LABELS_LEN], origin[CONFIG_PATH_LEN + 32], path[128];

	for (unsigned int i = 0; i < config_fields_count; i++) {
		config_field_format(&config_fields[i], c, value, sizeof(value));
		if (c->origins[i] > 0)
			snprintf(origin, sizeof(origin), "%s:%d", c->file, c->origins[i]);
		else
			snprintf(origin, sizeof(origin), "%s",
				 c->origins[i] == CONFIG_ORIGIN_FLAG  ? "flag"
				 : c->origins[i] == CONFIG_ORIGIN_ENV ? "environment"
								      : "default");
		fn(ctx, config_fields[i].path, value, origin, config_fields[i].doc);
	}
	for (int64_t i = -1; i < (int64_t)c->guard.policies_count; i++) {
		const struct config_policy *p = i < 0 ? &c->guard.defaults : &c->guard.policies[i];

		for (unsigned int k = i < 0 ? CONFIG_POLICY_MATCHERS : 0;
		     k < config_policy_fields_count; k++) {
			if (i < 0)
				snprintf(path, sizeof(path), "guard.defaults.%s",
					 config_policy_fields[k].path);
			else
				snprintf(path, sizeof(path), "guard.policies[%d].%s", (int)i,
					 config_policy_fields[k].path);
			if (p->line)
				snprintf(origin, sizeof(origin), "%s:%u", c->file, p->line);
			else
				snprintf(origin, sizeof(origin), "default");
			config_field_format(&config_policy_fields[k], p, value, sizeof(value));
			fn(ctx, path, value, origin, config_policy_fields[k].doc);
		}
	}
}

static bool same(const struct config_field *f, const struct config *a, const struct config *b)
{
	char va[CONFIG_LABELS_LEN], vb[CONFIG_LABELS_LEN];

	config_field_format(f, a, va, sizeof(va));
	config_field_format(f, b, vb, sizeof(vb));
	return !strcmp(va, vb);
}

bool config_needs_restart(const struct config *a, const struct config *b, const char **ret_path)
{
	for (unsigned int i = 0; i < config_fields_count; i++) {
		if (!config_fields[i].reload && !same(&config_fields[i], a, b)) {
			*ret_path = config_fields[i].path;
			return true;
		}
	}
	return false;
}

/* Lines may move without a policy being another. */
static bool same_policy(const struct config_policy *a, const struct config_policy *b)
{
	char va[CONFIG_LABELS_LEN], vb[CONFIG_LABELS_LEN];

	for (unsigned int i = 0; i < config_policy_fields_count; i++) {
		config_field_format(&config_policy_fields[i], a, va, sizeof(va));
		config_field_format(&config_policy_fields[i], b, vb, sizeof(vb));
		if (strcmp(va, vb))
			return false;
	}
	return true;
}

char *config_diff(const struct config *a, const struct config *b, char *buf, size_t size)
{
	bool policies = a->guard.policies_count == b->guard.policies_count;
	size_t n = 0;

	buf[0] = '\0';
	for (uint32_t i = 0; policies && i < a->guard.policies_count; i++)
		policies = same_policy(&a->guard.policies[i], &b->guard.policies[i]);
	for (unsigned int i = 0; i < config_fields_count && n < size; i++)
		if (!same(&config_fields[i], a, b))
			n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? ", " : "",
					      config_fields[i].path);
	if (n < size && !same_policy(&a->guard.defaults, &b->guard.defaults))
		n += (size_t)snprintf(buf + n, size - n, "%sguard.defaults", n ? ", " : "");
	if (n < size && !policies)
		snprintf(buf + n, size - n, "%sguard.policies", n ? ", " : "");
	return buf;
}

void config_keep(struct config *fresh, const struct config *running)
{
	for (unsigned int i = 0; i < config_fields_count; i++) {
		const struct config_field *f = &config_fields[i];

		if (f->reload)
			continue;
		memcpy((char *)fresh + f->offset, (const char *)running + f->offset, f->size);
		fresh->origins[i] = running->origins[i];
	}
}

/* What the field takes: "a b c", "0.1s to 60s", "true or false". */
static void doc_range(const struct config_field *d, char *buf, size_t size)
{
	switch (d->type) {
	case FIELD_STRING:
		snprintf(buf, size, "%s", d->choices ? d->choices : "text");
		break;
	case FIELD_BOOL:
		snprintf(buf, size, "true or false");
		break;
	case FIELD_U32:
		snprintf(buf, size, "%.0f to %.0f", d->min, d->max);
		break;
	case FIELD_RATIO:
		snprintf(buf, size, "%g to %.0f", d->min, d->max);
		break;
	case FIELD_DURATION:
		snprintf(buf, size, "%gs to %.0fs", d->min, d->max);
		break;
	case FIELD_SIZE:
		snprintf(buf, size, "%.0f to %.0f bytes", d->min, d->max);
		break;
	case FIELD_MODE:
	case FIELD_FORCE:
	case FIELD_CHOICE:
		snprintf(buf, size, "%s", d->choices);
		break;
	case FIELD_FAILURES:
		snprintf(buf, size, "list of: %s", d->choices);
		break;
	case FIELD_LABELS:
		snprintf(buf, size, "%s", d->choices);
		break;
	}
}

static void doc_row(FILE *f, const struct config_field *d)
{
	char range[128];

	doc_range(d, range, sizeof(range));
	fprintf(f, "| `%s` | `%s` | %s | %s | %s |\n", d->path, *d->initial ? d->initial : "\"\"",
		range, d->reload ? "SIGHUP" : "restart", d->doc);
}

int config_write_docs(FILE *f)
{
	fprintf(
	    f,
	    "# Configuration\n\n"
	    "Made from the table in `user/core/config_fields.c` by `kilterd --config-docs`.\n\n"
	    "YAML, by default `/etc/kilter/kilter.yaml`; every key has a default and the file is\n"
	    "optional. A key is also a variable: `log.level` is `KILTER_LOG_LEVEL`. Flags win over\n"
	    "variables, variables over the file; `kilter config show` says where each value is from.\n"
	    "Durations are `250ms`, `10s`, `5m`, `1h`; sizes `64KiB`, `100MiB`. A file is at most 1 "
	    "MiB; it has\none document, no anchors, aliases or tags, and no key twice.\n\n"
	    "A fault is reported as `file:line:column: what, and what would be right`, all of them in "
	    "one\nrun; `kilterd --check-config --config FILE` only looks. In the fourth column, "
	    "\"SIGHUP\": a reload\napplies it; \"restart\": the running value stays until then, and "
	    "the log names the key. A file with\na fault changes nothing.\n\n"
	    "| key | default | values | changed by | meaning |\n|---|---|---|---|---|\n");
	for (unsigned int i = 0; i < config_fields_count; i++)
		doc_row(f, &config_fields[i]);
	fprintf(f,
		"\n## Policies\n\n"
		"Each entry of `guard.policies` (at most %d), and `guard.defaults` for what no "
		"policy matches;\n"
		"`guard.defaults` has no `name` and nothing to match, and stands before "
		"`guard.policies`,\n"
		"which inherit from it. The most specific policy counts; [guard.md](guard.md) says "
		"which that is\n"
		"and what each number does.\n\n"
		"| key | default | values | changed by | meaning |\n|---|---|---|---|---|\n",
		CONFIG_POLICIES_MAX);
	for (unsigned int i = 0; i < config_policy_fields_count; i++)
		doc_row(f, &config_policy_fields[i]);
	return ferror(f) ? -EIO : 0;
}
