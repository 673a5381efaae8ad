/* Goal: the map of statuses gives stable numbers and one text each, and TRY hands a failure on.
 * Method: the numbers are written down again here, since peers know them; every pair is compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"

static const enum status all[] = {
    STATUS_OK,          STATUS_AGAIN,  STATUS_MEMORY,    STATUS_LIMIT,    STATUS_BAD_INPUT,
    STATUS_NOT_FOUND,   STATUS_DEVICE, STATUS_STORAGE,   STATUS_DENIED,   STATUS_CONFLICT,
    STATUS_UNSUPPORTED, STATUS_IO,     STATUS_CANCELLED, STATUS_STOPPING, STATUS_NUMERIC,
};

enum { ALL_COUNT = sizeof(all) / sizeof(all[0]) };

static void test_numbers_on_the_wire_do_not_move(void **state)
{
    (void)state;
    for (int i = 0; i < ALL_COUNT; i++) {
        assert_int_equal((int)all[i], i);
    }
    assert_string_equal(status_name((enum status)ALL_COUNT), "unknown");
}

static void test_every_status_has_its_own_name_and_sentence(void **state)
{
    (void)state;
    assert_string_equal(status_name(STATUS_OK), "OK");
    assert_string_equal(status_name(STATUS_BAD_INPUT), "BAD_INPUT");
    assert_string_equal(status_text(STATUS_MEMORY), "out of memory");
    for (int i = 0; i < ALL_COUNT; i++) {
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(status_name(all[i]), status_name(all[j]));
            assert_string_not_equal(status_text(all[i]), status_text(all[j]));
        }
    }
}

static void test_a_number_outside_the_map_has_a_name_too(void **state)
{
    (void)state;
    assert_string_equal(status_name((enum status)99), "unknown");
    assert_true(strlen(status_text((enum status)99)) > 0);
}

static enum status try_one(enum status status, int *steps)
{
    *steps = 1;
    TRY(status);
    *steps = 2;
    return STATUS_OK;
}

static void test_try_leaves_on_a_failure_and_only_then(void **state)
{
    int steps = 0;

    (void)state;
    assert_int_equal(try_one(STATUS_OK, &steps), STATUS_OK);
    assert_int_equal(steps, 2);
    for (int i = 1; i < ALL_COUNT; i++) {
        assert_int_equal(try_one(all[i], &steps), all[i]);
        assert_int_equal(steps, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_on_the_wire_do_not_move),
        cmocka_unit_test(test_every_status_has_its_own_name_and_sentence),
        cmocka_unit_test(test_a_number_outside_the_map_has_a_name_too),
        cmocka_unit_test(test_try_leaves_on_a_failure_and_only_then),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
