/* Goal: turns go to priorities, then to users, then to sessions, then by age; the row budget
 * follows the device; the table of branches keeps its lists. Method: branches are opened by hand in
 * a table and the order is asked for; the pace is fed with a device of a known base and rate.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "schedule/fairness.h"
#include "schedule/pace.h"

struct fixture {
    struct branch_table table;
    struct fairness fairness;
    struct branch_spec specs[8];
};

static void open(struct fixture *fixture)
{
    assert_int_equal(branch_table_init(&fixture->table, 4, 8), STATUS_OK);
    assert_int_equal(fairness_init(&fixture->fairness), STATUS_OK);
}

static void close(struct fixture *fixture)
{
    branch_table_finish(&fixture->table);
    fairness_finish(&fixture->fairness);
}

static struct branch *enter(struct fixture *fixture, uint32_t slot, uint32_t user, uint64_t session,
                            enum branch_priority priority)
{
    const struct branch_spec spec = {
        .slot = slot, .user = user, .session = session, .priority = priority};

    fixture->specs[slot] = spec;
    struct branch *branch = branch_table_open(&fixture->table, &fixture->specs[slot], 0);
    fairness_enter(&fixture->fairness, &fixture->table, branch);
    return branch;
}

static void test_served_users_and_sessions_wait_for_others(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture);
    struct branch *first = enter(&fixture, 0, 1, 10, BRANCH_INTERACTIVE);
    struct branch *same_session = enter(&fixture, 1, 1, 10, BRANCH_INTERACTIVE);
    struct branch *same_user = enter(&fixture, 2, 1, 11, BRANCH_INTERACTIVE);
    struct branch *other_user = enter(&fixture, 3, 2, 12, BRANCH_INTERACTIVE);
    struct branch *batch = enter(&fixture, 4, 3, 13, BRANCH_BATCH);
    assert_true(fairness_serves_before(&fixture.fairness, first, same_session));
    assert_true(fairness_serves_before(&fixture.fairness, first, other_user));
    fairness_charge(&fixture.fairness, first, 100);
    assert_true(fairness_serves_before(&fixture.fairness, other_user, same_user));
    assert_true(fairness_serves_before(&fixture.fairness, same_user, same_session));
    assert_true(fairness_serves_before(&fixture.fairness, first, same_session));
    assert_true(fairness_serves_before(&fixture.fairness, first, batch));
    close(&fixture);
}

static void test_a_user_without_a_running_slot_is_admitted_first(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture);
    struct branch *first = enter(&fixture, 0, 1, 10, BRANCH_INTERACTIVE);
    struct branch *second = enter(&fixture, 1, 1, 11, BRANCH_INTERACTIVE);
    struct branch *other = enter(&fixture, 2, 2, 12, BRANCH_INTERACTIVE);
    branch_table_move(&fixture.table, first, BRANCH_PREFILL);
    fairness_start(&fixture.fairness, first);
    assert_true(fairness_admits_before(&fixture.fairness, other, second));
    branch_table_move(&fixture.table, first, BRANCH_DRAINING);
    fairness_stop(&fixture.fairness, first);
    branch_table_move(&fixture.table, first, BRANCH_WAITING);
    assert_true(fairness_admits_before(&fixture.fairness, first, second));
    assert_true(fairness_admits_before(&fixture.fairness, second, other));
    close(&fixture);
}

static void test_a_user_who_comes_back_has_saved_up_nothing(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture);
    struct branch *busy = enter(&fixture, 0, 1, 10, BRANCH_INTERACTIVE);
    struct branch *away = enter(&fixture, 1, 2, 11, BRANCH_INTERACTIVE);
    branch_table_move(&fixture.table, busy, BRANCH_PREFILL);
    fairness_start(&fixture.fairness, busy);
    fairness_leave(&fixture.fairness, away);
    branch_table_move(&fixture.table, away, BRANCH_FREE);
    fairness_charge(&fixture.fairness, busy, 1000000);
    away = enter(&fixture, 1, 2, 11, BRANCH_INTERACTIVE);
    fairness_charge(&fixture.fairness, away, 1);
    assert_true(fairness_serves_before(&fixture.fairness, busy, away));
    close(&fixture);
}

static void test_waiting_branches_stay_in_the_order_of_their_age(void **state)
{
    struct fixture fixture;
    uint32_t slot;
    uint32_t count = 0;

    (void)state;
    open(&fixture);
    for (uint32_t i = 0; i < 6; i++) {
        enter(&fixture, i, 1, 10, BRANCH_INTERACTIVE);
    }
    for (uint32_t i = 0; i < 4; i++) {
        branch_table_move(&fixture.table, branch_table_at(&fixture.table, i), BRANCH_PREFILL);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct branch *branch = branch_table_at(&fixture.table, i ^ 2);
        branch_table_move(&fixture.table, branch, BRANCH_DRAINING);
        branch_table_move(&fixture.table, branch, BRANCH_WAITING);
    }
    slot = fixture.table.waiting_first;
    while (slot != BRANCH_NONE) {
        assert_int_equal(slot, count);
        count++;
        slot = branch_table_at(&fixture.table, slot)->next;
    }
    assert_int_equal(count, 6);
    assert_int_equal(fixture.table.waiting_count, 6);
    close(&fixture);
}

static void test_the_pace_finds_the_rows_of_its_budget(void **state)
{
    struct pace pace;
    uint32_t rows = 0;

    (void)state;
    pace_init(&pace, 50, 512);
    assert_int_equal(pace_row_count(&pace, 1), 64);
    for (int i = 0; i < 20; i++) {
        rows = pace_row_count(&pace, 1);
        pace_observe(&pace, rows, 10000000 + 150000 * (uint64_t)rows);
    }
    assert_in_range(rows, 250, 280); /* (50 - 10) ms / 0.15 ms */
    /* Half as fast from now on. */
    for (int i = 0; i < 60; i++) {
        rows = pace_row_count(&pace, 1);
        pace_observe(&pace, rows, 20000000 + 300000 * (uint64_t)rows);
    }
    assert_in_range(rows, 80, 120);
    assert_in_range(pace_row_count(&pace, 3), 280, 480);
}

static void test_the_pace_always_allows_a_row(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 1, 512);
    pace_observe(&pace, 1, 900000000);
    assert_int_equal(pace_row_count(&pace, 1), 1);
    pace_init(&pace, 50, 7);
    assert_int_equal(pace_row_count(&pace, 1), 7);
    pace_observe(&pace, 7, 1);
    assert_int_equal(pace_row_count(&pace, 1), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_served_users_and_sessions_wait_for_others),
        cmocka_unit_test(test_a_user_without_a_running_slot_is_admitted_first),
        cmocka_unit_test(test_a_user_who_comes_back_has_saved_up_nothing),
        cmocka_unit_test(test_waiting_branches_stay_in_the_order_of_their_age),
        cmocka_unit_test(test_the_pace_finds_the_rows_of_its_budget),
        cmocka_unit_test(test_the_pace_always_allows_a_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
