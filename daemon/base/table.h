/* A hash table from 64-bit ids to pointers: sessions, nodes, connections, scopes.
 *
 * Thread: one at a time. Values are borrowed. Bounded by the caller's own limits; grows by doubling
 * unless created with a fixed capacity (then insert answers LIMIT and never allocates).
 */
#ifndef PERSONAD_BASE_TABLE_H
#define PERSONAD_BASE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct table {
    struct table_entry *entries; /* owned; open addressing, power of two */
    uint32_t capacity;
    uint32_t count;
    uint32_t tombstone_count;
    uint32_t count_max; /* of a fixed table */
    bool fixed;
};

void table_init(struct table *table);
MUST_USE enum status table_init_fixed(struct table *table, uint32_t count_max);
void table_finish(struct table *table);

/* CONFLICT when the id is there already; value must not be NULL. */
MUST_USE enum status table_insert(struct table *table, uint64_t id, void *value);

/* NULL when absent. */
void *table_find(const struct table *table, uint64_t id);

/* Numbers other than 0 instead of pointers; 0 when absent. */
MUST_USE enum status table_insert_number(struct table *table, uint64_t id, uint32_t number);
uint32_t table_find_number(const struct table *table, uint64_t id);

/* Returns the value that was removed, or NULL. */
void *table_remove(struct table *table, uint64_t id);

/* Iterates in storage order: start with *cursor = 0; false at the end. Do not insert meanwhile;
 * removing, the entry at hand or any other, is fine.
 */
bool table_next(const struct table *table, uint32_t *cursor, uint64_t *id, void **value);

#endif
