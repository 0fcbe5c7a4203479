// SPDX-License-Identifier: Apache-2.0
#include "collect/table.h"

#include <stdlib.h>
#include <string.h>

#include <kilter/identity.h>

#define TABLE_FREE    0x80000000u
#define TABLE_NONE    0x7fffffffu
#define TABLE_CHUNK   32u /* entries allocated at once */
#define TABLE_INDEX_0 64u

static uint32_t hash_key(const struct table *t, const void *key)
{
	const unsigned char *p = key;
	uint32_t h = 0x7461626c, word;
	size_t i;

	for (i = 0; i + 4 <= t->key_size; i += 4) {
		memcpy(&word, p + i, 4);
		h = kilter_hash_word(h, word);
	}
	for (word = 0; i < t->key_size; i++)
		word = word << 8 | p[i];
	return kilter_hash_end(kilter_hash_word(h, word));
}

static struct table_node *node_at(const struct table *t, uint32_t number)
{
	return (struct table_node *)(void *)(t->chunks[number / TABLE_CHUNK] +
					     (number % TABLE_CHUNK) * t->entry_size);
}

void table_init(struct table *t, size_t key_size, size_t entry_size, uint32_t max)
{
	memset(t, 0, sizeof(*t));
	t->key_size = key_size;
	t->entry_size = (entry_size + 7) & ~(size_t)7;
	t->max = max < TABLE_NONE ? max : TABLE_NONE;
	t->free_head = TABLE_NONE;
}

void table_done(struct table *t)
{
	for (uint32_t i = 0; i < t->chunks_count; i++)
		free(t->chunks[i]);
	free(t->chunks);
	free(t->index);
	t->chunks = NULL;
	t->index = NULL;
	t->index_size = t->chunks_count = t->used = t->count = 0;
	t->free_head = TABLE_NONE;
}

void *table_find(const struct table *t, const void *key)
{
	uint32_t hash, mask = t->index_size - 1;

	if (!t->index_size)
		return NULL;
	hash = hash_key(t, key);
	for (uint32_t i = hash & mask; t->index[i]; i = (i + 1) & mask) {
		struct table_node *n = node_at(t, t->index[i] - 1);

		if (n->hash == hash && !memcmp(n + 1, key, t->key_size))
			return n;
	}
	return NULL;
}

static void index_put(uint32_t *index, uint32_t size, uint32_t hash, uint32_t number)
{
	uint32_t i = hash & (size - 1);

	while (index[i])
		i = (i + 1) & (size - 1);
	index[i] = number + 1;
}

static int index_grow(struct table *t)
{
	uint32_t size = t->index_size ? t->index_size * 2 : TABLE_INDEX_0;
	uint32_t *index = calloc(size, sizeof(*index));

	if (!index)
		return -1;
	for (uint32_t i = 0; i < t->used; i++) {
		struct table_node *n = node_at(t, i);

		if (!(n->number & TABLE_FREE))
			index_put(index, size, n->hash, i);
	}
	free(t->index);
	t->index = index;
	t->index_size = size;
	return 0;
}

static int chunk_add(struct table *t)
{
	unsigned char **chunks, *chunk = calloc(TABLE_CHUNK, t->entry_size);

	if (!chunk)
		return -1;
	chunks = reallocarray(t->chunks, t->chunks_count + 1, sizeof(*chunks));
	if (!chunks) {
		free(chunk);
		return -1;
	}
	t->chunks = chunks;
	chunks[t->chunks_count++] = chunk;
	return 0;
}

void *table_add(struct table *t, const void *key)
{
	struct table_node *n;
	uint32_t number;

	if (t->count >= t->max)
		return NULL;
	/* At most three quarters full: probes stay short. */
	if ((t->count + 1) * 4ull > t->index_size * 3ull && index_grow(t))
		return NULL;
	if (t->free_head != TABLE_NONE) {
		number = t->free_head;
		n = node_at(t, number);
		t->free_head = n->number & ~TABLE_FREE;
	} else {
		if (t->used == t->chunks_count * TABLE_CHUNK && chunk_add(t))
			return NULL;
		number = t->used++;
		n = node_at(t, number);
	}
	memset(n, 0, t->entry_size);
	n->hash = hash_key(t, key);
	n->number = number;
	memcpy(n + 1, key, t->key_size);
	index_put(t->index, t->index_size, n->hash, number);
	t->count++;
	return n;
}

void table_remove(struct table *t, void *entry)
{
	struct table_node *n = entry;
	uint32_t mask = t->index_size - 1, i = n->hash & mask, number = n->number;

	while (t->index[i] != number + 1)
		i = (i + 1) & mask;
	/* Close the gap: move back whatever would no longer be found across it. */
	for (uint32_t j = (i + 1) & mask; t->index[j]; j = (j + 1) & mask) {
		uint32_t home = node_at(t, t->index[j] - 1)->hash & mask;

		if (((j - home) & mask) >= ((j - i) & mask)) {
			t->index[i] = t->index[j];
			i = j;
		}
	}
	t->index[i] = 0;
	n->number = t->free_head | TABLE_FREE;
	t->free_head = number;
	t->count--;
}

void *table_next(const struct table *t, uint32_t *pos)
{
	while (*pos < t->used) {
		struct table_node *n = node_at(t, (*pos)++);

		if (!(n->number & TABLE_FREE))
			return n;
	}
	return NULL;
}

void *table_at(const struct table *t, uint32_t number)
{
	struct table_node *n;

	if (number >= t->used)
		return NULL;
	n = node_at(t, number);
	return n->number & TABLE_FREE ? NULL : n;
}
