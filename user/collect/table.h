/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded open-addressing hash table whose entries never move: the index holds numbers of
 * entries, the entries live in chunks. An entry begins with struct table_node, its key
 * follows at once. Keys are compared as bytes: pad and zero them.
 */
#ifndef KILTER_COLLECT_TABLE_H
#define KILTER_COLLECT_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_node {
	uint32_t hash;
	uint32_t number; /* TABLE_FREE bit: not in use, the rest is the next free one */
};

struct table {
	size_t key_size, entry_size;
	uint32_t max, count;
	uint32_t *index; /* entry number + 1; 0: empty */
	uint32_t index_size;
	unsigned char **chunks;
	uint32_t chunks_count, used, free_head;
};

void table_init(struct table *t, size_t key_size, size_t entry_size, uint32_t max);
void table_done(struct table *t);
void *table_find(const struct table *t, const void *key);
/* A zeroed entry with its key copied; NULL when full or out of memory. */
void *table_add(struct table *t, const void *key);
void table_remove(struct table *t, void *entry);
/* Walks: start with *pos = 0; NULL at the end. The current entry may be removed. */
void *table_next(const struct table *t, uint32_t *pos);
/* The entry with this number, NULL when there is none. */
void *table_at(const struct table *t, uint32_t number);

#endif
