#include "base/table.h"

#include <stddef.h>

#include "base/check.h"
#include "base/memory.h"

/* Linear probing. A removed entry leaves a tombstone and nothing moves, so that a caller may remove
 * while it iterates; tombstones are swept in place when an insert finds the table crowded.
 */
struct table_entry {
    uint64_t id;
    void *value; /* NULL: never used; &tombstone: removed */
};

enum { TABLE_CAPACITY_MIN = 16 };

static const uint32_t capacity_max = 1u << 31;
static char tombstone;

static bool is_alive(const struct table_entry *entry)
{
    return entry->value != NULL && entry->value != &tombstone;
}

/* Ids are counters in practice: without mixing, their low bits would pile up in runs. */
static uint32_t home_index(uint64_t id, uint32_t capacity)
{
    id = (id ^ id >> 30) * 0xBF58476D1CE4E5B9u;
    id = (id ^ id >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)(id ^ id >> 31) & (capacity - 1);
}

static struct table_entry *find_entry(const struct table *table, uint64_t id)
{
    uint32_t index;

    if (table->capacity == 0) {
        return NULL;
    }
    index = home_index(id, table->capacity);
    for (;;) {
        struct table_entry *entry = &table->entries[index];

        if (entry->value == NULL) {
            return NULL;
        }
        if (entry->value != &tombstone && entry->id == id) {
            return entry;
        }
        index = (index + 1) & (table->capacity - 1);
    }
}

static void place(struct table_entry *entries, uint32_t capacity, struct table_entry entry)
{
    uint32_t index = home_index(entry.id, capacity);

    while (is_alive(&entries[index])) {
        index = (index + 1) & (capacity - 1);
    }
    entries[index] = entry;
}

/* Rewrites every run without its tombstones. Starting behind a slot that was never used, each entry
 * can only move back towards its home, over slots that are settled already.
 */
static void table_sweep(struct table *table)
{
    const uint32_t mask = table->capacity - 1;
    uint32_t start = 0;

    while (table->entries[start].value != NULL) {
        start++;
        CHECK(start < table->capacity);
    }
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (table->entries[i].value == &tombstone) {
            table->entries[i].value = NULL;
        }
    }
    for (uint32_t i = 1; i < table->capacity; i++) {
        const uint32_t index = (start + i) & mask;
        const struct table_entry entry = table->entries[index];

        if (entry.value != NULL) {
            table->entries[index].value = NULL;
            place(table->entries, table->capacity, entry);
        }
    }
    table->tombstone_count = 0;
}

static enum status table_grow(struct table *table)
{
    const uint32_t capacity = table->capacity == 0 ? TABLE_CAPACITY_MIN : table->capacity * 2;
    struct table_entry *entries;

    if (table->capacity >= capacity_max) {
        return STATUS_LIMIT;
    }
    entries = memory_alloc(capacity, sizeof(*entries));
    if (entries == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < table->capacity; i++) {
        if (is_alive(&table->entries[i])) {
            place(entries, capacity, table->entries[i]);
        }
    }
    memory_free(table->entries);
    table->entries = entries;
    table->capacity = capacity;
    table->tombstone_count = 0;
    return STATUS_OK;
}

void table_init(struct table *table)
{
    *table = (struct table){0};
}

enum status table_init_fixed(struct table *table, uint32_t count_max)
{
    uint64_t capacity = TABLE_CAPACITY_MIN;
    struct table_entry *entries;

    /* Half full at most: probes stay short, and a sweep always finds a slot that was never used. */
    while (capacity < 2 * (uint64_t)count_max) {
        capacity *= 2;
    }
    if (capacity > capacity_max) {
        return STATUS_LIMIT;
    }
    entries = memory_alloc(capacity, sizeof(*entries));
    if (entries == NULL) {
        return STATUS_MEMORY;
    }
    *table = (struct table){
        .entries = entries, .capacity = (uint32_t)capacity, .count_max = count_max, .fixed = true};
    return STATUS_OK;
}

void table_finish(struct table *table)
{
    memory_free(table->entries);
    *table = (struct table){0};
}

/* Keeps at least a quarter of the slots never used. */
static enum status make_room(struct table *table)
{
    const uint32_t used_max = table->capacity / 4 * 3;

    if (table->fixed && table->count >= table->count_max) {
        return STATUS_LIMIT;
    }
    if (table->count + table->tombstone_count < used_max) {
        return STATUS_OK;
    }
    if (table->fixed || table->count < table->capacity / 2) {
        table_sweep(table);
        return STATUS_OK;
    }
    return table_grow(table);
}

enum status table_insert(struct table *table, uint64_t id, void *value)
{
    struct table_entry entry = {id, value};
    uint32_t index;

    CHECK(value != NULL);
    if (find_entry(table, id) != NULL) {
        return STATUS_CONFLICT;
    }
    TRY(make_room(table));
    index = home_index(id, table->capacity);
    while (is_alive(&table->entries[index])) {
        index = (index + 1) & (table->capacity - 1);
    }
    if (table->entries[index].value == &tombstone) {
        table->tombstone_count--;
    }
    table->entries[index] = entry;
    table->count++;
    return STATUS_OK;
}

void *table_find(const struct table *table, uint64_t id)
{
    const struct table_entry *entry = find_entry(table, id);

    return entry != NULL ? entry->value : NULL;
}

enum status table_insert_number(struct table *table, uint64_t id, uint32_t number)
{
    return table_insert(table, id, (void *)(uintptr_t)number);
}

uint32_t table_find_number(const struct table *table, uint64_t id)
{
    return (uint32_t)(uintptr_t)table_find(table, id);
}

void *table_remove(struct table *table, uint64_t id)
{
    struct table_entry *entry = find_entry(table, id);
    uint32_t next;
    void *value;

    if (entry == NULL) {
        return NULL;
    }
    value = entry->value;
    next = ((uint32_t)(entry - table->entries) + 1) & (table->capacity - 1);
    if (table->entries[next].value == NULL) {
        entry->value = NULL; /* the end of its run: no probe passes through it */
    } else {
        entry->value = &tombstone;
        table->tombstone_count++;
    }
    table->count--;
    return value;
}

bool table_next(const struct table *table, uint32_t *cursor, uint64_t *id, void **value)
{
    while (*cursor < table->capacity) {
        const struct table_entry *entry = &table->entries[(*cursor)++];

        if (is_alive(entry)) {
            *id = entry->id;
            *value = entry->value;
            return true;
        }
    }
    return false;
}
