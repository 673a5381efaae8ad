/* Goal: a table answers like the simplest thing that maps ids to pointers, growing or fixed.
 * Method: random operations run on the table and on a plain array indexed by id; after each burst
 * both are compared whole. The comparison itself is shown a table with one wrong entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/table.h"

enum { ID_COUNT = 3000, FIXED_COUNT = 200 };

/* The model: model[i] is the value of id_of(i). */
static void *model[ID_COUNT];
static uint32_t model_count;
static char values[ID_COUNT];
static uint32_t random_state;

static uint32_t random_next(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Ids of three shapes: small counters, multiples of a power of two, and the far end. */
static uint64_t id_of(uint32_t index)
{
    switch (index % 3) {
    case 0:
        return index;
    case 1:
        return (uint64_t)index << 32;
    default:
        return UINT64_MAX - index;
    }
}

static bool agrees_with_model(const struct table *table)
{
    uint32_t cursor = 0;
    uint32_t count = 0;
    uint64_t id;
    void *value;

    for (uint32_t i = 0; i < ID_COUNT; i++) {
        if (table_find(table, id_of(i)) != model[i]) {
            return false;
        }
    }
    while (table_next(table, &cursor, &id, &value)) {
        if (table_find(table, id) != value) {
            return false;
        }
        count++;
    }
    return count == model_count && table->count == model_count;
}

static void model_reset(uint32_t seed)
{
    memset(model, 0, sizeof(model));
    model_count = 0;
    random_state = seed;
}

/* One random operation on the ids below id_count, with the answers compared. */
static void operate(struct table *table, uint32_t id_count, uint32_t insert_percent)
{
    const uint32_t index = random_next() % id_count;

    if (random_next() % 100 < insert_percent) {
        const enum status status = table_insert(table, id_of(index), &values[index]);
        const bool is_full = table->fixed && model_count == table->count_max;

        if (model[index] != NULL) {
            assert_int_equal(status, STATUS_CONFLICT);
        } else if (is_full) {
            assert_int_equal(status, STATUS_LIMIT);
        } else {
            assert_int_equal(status, STATUS_OK);
            model[index] = &values[index];
            model_count++;
        }
    } else {
        assert_ptr_equal(table_remove(table, id_of(index)), model[index]);
        model_count -= model[index] != NULL;
        model[index] = NULL;
    }
}

static void test_a_growing_table_answers_like_the_model(void **state)
{
    struct table table;

    (void)state;
    for (uint32_t seed = 1; seed <= 5; seed++) {
        model_reset(seed);
        table_init(&table);
        assert_true(agrees_with_model(&table));
        for (uint32_t burst = 0; burst < 60; burst++) {
            const uint32_t insert_percent = 20 + random_next() % 70;

            for (uint32_t i = 0; i < 500; i++) {
                operate(&table, ID_COUNT, insert_percent);
            }
            assert_true(agrees_with_model(&table));
        }
        table_finish(&table);
    }
}

static void test_a_fixed_table_answers_like_the_model_and_never_allocates(void **state)
{
    struct table table;
    uint64_t made;

    (void)state;
    for (uint32_t seed = 1; seed <= 5; seed++) {
        model_reset(seed);
        assert_int_equal(table_init_fixed(&table, FIXED_COUNT), STATUS_OK);
        made = memory_thread_allocation_count();
        for (uint32_t burst = 0; burst < 100; burst++) {
            for (uint32_t i = 0; i < 500; i++) {
                operate(&table, burst % 2 == 0 ? 2 * FIXED_COUNT : ID_COUNT, 60);
            }
            assert_true(agrees_with_model(&table));
        }
        assert_true(memory_thread_allocation_count() == made);
        table_finish(&table);
    }
}

/* The twin: one entry with another value, one that is missing and one too many must be seen. */
static void test_the_comparison_sees_one_wrong_entry(void **state)
{
    struct table table;

    (void)state;
    model_reset(3);
    table_init(&table);
    for (uint32_t i = 0; i < 1000; i++) {
        operate(&table, ID_COUNT, 100);
    }
    assert_true(agrees_with_model(&table));
    for (uint32_t i = 0; i < ID_COUNT; i += 97) {
        void *right = table_remove(&table, id_of(i));

        assert_int_equal(agrees_with_model(&table), right == NULL);
        assert_int_equal(table_insert(&table, id_of(i), &random_state), STATUS_OK);
        assert_false(agrees_with_model(&table));
        assert_ptr_equal(table_remove(&table, id_of(i)), &random_state);
        if (right != NULL) {
            assert_int_equal(table_insert(&table, id_of(i), right), STATUS_OK);
        }
        assert_true(agrees_with_model(&table));
    }
    table_finish(&table);
}

static void test_a_long_life_of_short_entries_does_not_grow_the_table(void **state)
{
    struct table table;

    (void)state;
    table_init(&table);
    for (uint64_t id = 0; id < 100000; id++) {
        assert_int_equal(table_insert(&table, id, &values[0]), STATUS_OK);
        if (id >= 50) {
            assert_ptr_equal(table_remove(&table, id - 50), &values[0]);
        }
    }
    assert_int_equal(table.count, 50);
    assert_true(table.capacity <= 256);
    table_finish(&table);
}

static void test_a_tombstone_that_is_used_again_is_no_longer_counted(void **state)
{
    struct table table;
    uint32_t reused = 0;

    (void)state;
    table_init(&table);
    for (uint64_t id = 0; id < 700; id++) {
        assert_int_equal(table_insert(&table, id, &values[0]), STATUS_OK);
    }
    for (uint64_t id = 0; id < 700; id++) {
        assert_ptr_equal(table_remove(&table, id), &values[0]);
        reused += table.tombstone_count;
        assert_int_equal(table_insert(&table, id, &values[0]), STATUS_OK);
        assert_int_equal(table.tombstone_count, 0);
    }
    assert_true(reused > 100);
    table_finish(&table);
}

static void test_entries_may_be_removed_while_they_are_listed(void **state)
{
    struct table table;
    uint32_t cursor = 0;
    uint32_t seen = 0;
    uint64_t id;
    void *value;

    (void)state;
    table_init(&table);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_int_equal(table_insert(&table, id_of(i), &values[i]), STATUS_OK);
    }
    while (table_next(&table, &cursor, &id, &value)) {
        assert_ptr_equal(table_remove(&table, id), value);
        seen++;
    }
    assert_int_equal(seen, 1000);
    assert_int_equal(table.count, 0);
    table_finish(&table);
}

static void test_numbers_come_back_as_they_were(void **state)
{
    static const uint32_t numbers[] = {1, 0x80000000u, UINT32_MAX};
    struct table table;

    (void)state;
    table_init(&table);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(table_insert_number(&table, UINT64_MAX - i, numbers[i]), STATUS_OK);
        assert_int_equal(table_insert_number(&table, UINT64_MAX - i, 7), STATUS_CONFLICT);
    }
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(table_find_number(&table, UINT64_MAX - i) == numbers[i]);
    }
    assert_int_equal(table_find_number(&table, 5), 0);
    table_finish(&table);
}

static void test_an_empty_and_a_zeroed_table_are_fine(void **state)
{
    struct table table = {0};
    uint32_t cursor = 0;
    uint64_t id;
    void *value;

    (void)state;
    table_finish(&table);
    table_init(&table);
    assert_null(table_find(&table, 0));
    assert_null(table_remove(&table, 0));
    assert_false(table_next(&table, &cursor, &id, &value));
    table_finish(&table);
    assert_int_equal(table_init_fixed(&table, 0), STATUS_OK);
    assert_int_equal(table_insert(&table, 1, &values[0]), STATUS_LIMIT);
    table_finish(&table);
    assert_int_equal(table_init_fixed(&table, UINT32_MAX), STATUS_LIMIT);
}

static void test_every_failed_allocation_leaves_the_table_as_it_was(void **state)
{
    const int64_t live = memory_live_count();
    struct table table;
    int failures = 0;

    (void)state;
    memory_fault_set(0);
    assert_int_equal(table_init_fixed(&table, 10), STATUS_MEMORY);
    model_reset(9);
    table_init(&table);
    for (uint32_t i = 0; i < ID_COUNT; i++) {
        memory_fault_set(0);
        if (table_insert(&table, id_of(i), &values[i]) != STATUS_OK) {
            assert_true(agrees_with_model(&table));
            memory_fault_set(-1);
            assert_int_equal(table_insert(&table, id_of(i), &values[i]), STATUS_OK);
            failures++;
        }
        model[i] = &values[i];
        model_count++;
    }
    memory_fault_set(-1);
    assert_true(failures >= 5);
    assert_true(agrees_with_model(&table));
    table_finish(&table);
    assert_true(memory_live_count() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_growing_table_answers_like_the_model),
        cmocka_unit_test(test_a_fixed_table_answers_like_the_model_and_never_allocates),
        cmocka_unit_test(test_the_comparison_sees_one_wrong_entry),
        cmocka_unit_test(test_a_long_life_of_short_entries_does_not_grow_the_table),
        cmocka_unit_test(test_a_tombstone_that_is_used_again_is_no_longer_counted),
        cmocka_unit_test(test_entries_may_be_removed_while_they_are_listed),
        cmocka_unit_test(test_numbers_come_back_as_they_were),
        cmocka_unit_test(test_an_empty_and_a_zeroed_table_are_fine),
        cmocka_unit_test(test_every_failed_allocation_leaves_the_table_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
