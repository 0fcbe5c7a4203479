// SPDX-License-Identifier: Apache-2.0
#include "core/selfstat.h"

static struct selfstat *first;

void selfstat_register(struct selfstat *s)
{
	struct selfstat **at = &first;

	while (*at) /* in order of registration: the export is stable */
		at = &(*at)->next;
	s->next = NULL;
	*at = s;
}

void selfstat_unregister(struct selfstat *s)
{
	for (struct selfstat **at = &first; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			return;
		}
	}
}

void selfstat_walk(selfstat_walk_fn fn, void *ctx)
{
	for (const struct selfstat *s = first; s; s = s->next)
		fn(ctx, s);
}
