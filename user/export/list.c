// SPDX-License-Identifier: Apache-2.0
#include "export/list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *list_add(struct list *l)
{
	if (l->count == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 64;
		void *items = reallocarray(l->items, cap, l->size);

		if (!items) {
			l->err = -ENOMEM;
			return NULL;
		}
		l->items = items;
		l->cap = cap;
	}
	return memset((char *)l->items + l->size * l->count++, 0, l->size);
}

void list_sort(struct list *l, int (*cmp)(const void *, const void *))
{
	if (l->count)
		qsort(l->items, l->count, l->size, cmp);
}
