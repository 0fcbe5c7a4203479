/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of one type. */
#ifndef KILTER_EXPORT_LIST_H
#define KILTER_EXPORT_LIST_H

#include <stddef.h>

struct list {
	void *items;
	size_t count, cap, size;
	int err; /* -ENOMEM: an item is missing */
};

/* A new item, zeroed, where it is until the next one comes. NULL: l->err says why. */
void *list_add(struct list *l);
void list_sort(struct list *l, int (*cmp)(const void *, const void *));

#define list_at(l, type, i) (&((type *)(l)->items)[i])

/* For cmp: what is not alike decides. */
#define COMPARE(x, y)                              \
	do {                                       \
		if ((x) != (y))                    \
			return (x) < (y) ? -1 : 1; \
	} while (0)

#endif
