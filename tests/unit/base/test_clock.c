/* Goal: the clocks tick, and in tests they show what the test wants.
 * Method: the real clocks are compared with the system's, the fake one with the variable behind it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

static void test_the_monotonic_clock_never_steps_back(void **state)
{
    uint64_t before = clock_monotonic_ns();
    const uint64_t start = before;

    (void)state;
    for (int i = 0; i < 100000 || before == start; i++) {
        const uint64_t now = clock_monotonic_ns();

        assert_true(now >= before);
        before = now;
    }
    assert_true(before > start);
}

static void test_the_wall_clock_counts_microseconds_of_the_epoch(void **state)
{
    const uint64_t before = (uint64_t)time(NULL);
    const uint64_t now = clock_wall_us() / 1000000;

    (void)state;
    /* time() may lag behind by one tick of the kernel. */
    assert_true(now >= before && now <= (uint64_t)time(NULL) + 1);
}

static void test_the_fake_clock_is_what_its_variable_says(void **state)
{
    uint64_t now_ns = 5000000000123456789u;

    (void)state;
    clock_fake_set(&now_ns);
    assert_true(clock_monotonic_ns() == 5000000000123456789u);
    assert_true(clock_wall_us() == 5000000000123456u);
    now_ns = 1999;
    assert_true(clock_monotonic_ns() == 1999);
    assert_true(clock_wall_us() == 1);
    clock_fake_set(NULL);
    assert_true(clock_wall_us() > 1600000000u * UINT64_C(1000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_monotonic_clock_never_steps_back),
        cmocka_unit_test(test_the_wall_clock_counts_microseconds_of_the_epoch),
        cmocka_unit_test(test_the_fake_clock_is_what_its_variable_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
