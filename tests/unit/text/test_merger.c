/* Goal: the heap joins the same pairs in the same order as the definition of BPE: the lowest rank
 * first, of equal ranks the leftmost, until none is left.
 * Method: random rules over few letters, random texts, and a quadratic merger that follows the
 * definition word for word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "text/merger.h"

enum { ID_COUNT = 12, LETTER_COUNT = 3, TEXT_BYTES_TOP = 60 };

/* ranks[left][right], and what the two become; UINT32_MAX: they do not join. */
struct rule_table {
    uint32_t ranks[ID_COUNT][ID_COUNT];
    uint32_t ids[ID_COUNT][ID_COUNT];
};

static uint64_t random_state = 5;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static bool find(const void *context, struct bytes text, const struct merge_symbol *left,
                 const struct merge_symbol *right, uint32_t *rank, uint32_t *id)
{
    const struct rule_table *rules = context;

    (void)text;
    *rank = rules->ranks[left->id][right->id];
    *id = rules->ids[left->id][right->id];
    return *rank != UINT32_MAX;
}

static uint32_t merge_by_definition(const struct rule_table *rules, uint32_t *ids, uint32_t count)
{
    for (;;) {
        uint32_t best = UINT32_MAX, place = 0;
        for (uint32_t i = 0; i + 1 < count; i++) {
            if (rules->ranks[ids[i]][ids[i + 1]] < best) {
                best = rules->ranks[ids[i]][ids[i + 1]];
                place = i;
            }
        }
        if (best == UINT32_MAX) {
            return count;
        }
        ids[place] = rules->ids[ids[place]][ids[place + 1]];
        memmove(ids + place + 1, ids + place + 2, (count - place - 2) * sizeof *ids);
        count--;
    }
}

static void make_rules(struct rule_table *rules, bool equal_ranks)
{
    for (uint32_t i = 0; i < ID_COUNT * ID_COUNT; i++) {
        const bool joins = draw(3) == 0;
        rules->ranks[i / ID_COUNT][i % ID_COUNT] = !joins        ? UINT32_MAX
                                                   : equal_ranks ? draw(3)
                                                                 : i * 7919 % 1009;
        rules->ids[i / ID_COUNT][i % ID_COUNT] = draw(ID_COUNT);
    }
}

static void test_joins_as_the_definition_does(void **state)
{
    struct merger merger;
    struct rule_table table;
    const struct merge_rules rules = {&table, find};

    (void)state;
    merger_init(&merger);
    for (int round = 0; round < 20000; round++) {
        uint32_t ids[TEXT_BYTES_TOP];
        uint32_t count = 1 + draw(TEXT_BYTES_TOP), at = 0;

        make_rules(&table, round % 2 == 0);
        assert_int_equal(merger_clear(&merger, count), STATUS_OK);
        for (uint32_t i = 0; i < count; i++) {
            ids[i] = draw(LETTER_COUNT);
            merger_push(&merger, i, 1, ids[i]);
        }
        merger_run(&merger, &rules, bytes_of(NULL, 0));
        count = merge_by_definition(&table, ids, count);
        for (uint32_t i = 0; i != MERGER_NONE; i = merger.symbols[i].next) {
            assert_true(at < count);
            assert_int_equal(merger.symbols[i].id, ids[at++]);
        }
        assert_int_equal(at, count);
    }
    merger_finish(&merger);
}

static void test_a_failed_growth_leaves_the_merger_as_it_was(void **state)
{
    struct merger merger;

    (void)state;
    merger_init(&merger);
    assert_int_equal(merger_clear(&merger, 10), STATUS_OK);
    for (int64_t survivors = 0; survivors < 2; survivors++) {
        memory_fault_set(survivors);
        assert_int_equal(merger_clear(&merger, 1 << 20), STATUS_MEMORY);
        memory_fault_set(-1);
        assert_int_equal(memory_live_count(), 2);
    }
    merger_push(&merger, 0, 1, 0);
    merger_finish(&merger);
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joins_as_the_definition_does),
        cmocka_unit_test(test_a_failed_growth_leaves_the_merger_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
