/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind the configuration; private to core/config*.c. */
#ifndef KILTER_CORE_CONFIG_FIELDS_H
#define KILTER_CORE_CONFIG_FIELDS_H

#include "core/config.h"

#define CONFIG_WHY_LEN 400 /* of what would be right; all codes of gRPC are the longest */

enum field_type {
	FIELD_STRING, /* size: of the array */
	FIELD_BOOL,
	FIELD_U32,
	FIELD_RATIO,	/* double */
	FIELD_DURATION, /* uint64_t ns */
	FIELD_SIZE,	/* uint64_t bytes */
	FIELD_MODE,	/* enum kilter_guard_mode */
	FIELD_FORCE,	/* enum config_force */
	FIELD_FAILURES, /* list of names -> struct config_failures */
	FIELD_CHOICE,	/* of two words, the second is true */
	FIELD_LABELS,	/* a mapping; see config_labels_add() */
};

struct config_field {
	const char *path; /* dotted; for a policy relative to the policy */
	enum field_type type;
	size_t offset, size;
	double min, max;     /* of numbers, in their unit; durations in seconds */
	const char *choices; /* of a string: "a b c" */
	const char *initial; /* the default, as it would be written */
	bool reload;	     /* SIGHUP applies it; else it needs a restart */
	const char *doc;
};

extern const struct config_field config_fields[];
extern const unsigned int config_fields_count;
/* The first of them say whom a policy concerns: guard.defaults has none of those. */
#define CONFIG_POLICY_MATCHERS 6
extern const struct config_field config_policy_fields[];
extern const unsigned int config_policy_fields_count;

/* The row of the field of this path, or -1. */
int config_field_find(const struct config_field *fields, unsigned int count, const char *path);
/* Decodes value into base + offset. 0, or -EINVAL with what would be right in why (CONFIG_WHY_LEN).
 */
int config_field_decode(const struct config_field *f, void *base, const char *value, char *why,
			size_t why_size);
/* The value as it would be written. */
void config_field_format(const struct config_field *f, const void *base, char *buf, size_t size);

#endif
