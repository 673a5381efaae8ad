/* Goal: every step finds a graph that holds it, and no bucket is larger than it must be.
 * Method: all numbers of rows for bounds around the powers of two, against the definition.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cuda/bucket.h"

static const uint32_t bounds[] = {1, 7, 8, 9, 15, 16, 17, 100, 512, 513, 2048};

enum { BOUND_COUNT = sizeof(bounds) / sizeof(bounds[0]) };

static void test_each_number_of_rows_gets_the_smallest_bucket_that_holds_it(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BOUND_COUNT; i++) {
        for (uint32_t rows = 0; rows <= bounds[i]; rows++) {
            const uint32_t bucket = bucket_of(bounds[i], rows);
            assert_true(bucket < bucket_count(bounds[i]));
            assert_true(bucket_rows(bounds[i], bucket) >= rows);
            assert_true(bucket == 0 || bucket_rows(bounds[i], bucket - 1) < rows);
        }
    }
}

static void test_buckets_double_and_the_last_is_the_bound(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BOUND_COUNT; i++) {
        const uint32_t count = bucket_count(bounds[i]);
        assert_true(count >= 1 && count <= BUCKET_COUNT_MAX);
        assert_int_equal(bucket_rows(bounds[i], count - 1), bounds[i]);
        for (uint32_t bucket = 0; bucket + 1 < count; bucket++) {
            assert_int_equal(bucket_rows(bounds[i], bucket), 8u << bucket);
        }
    }
    assert_int_equal(bucket_count(512), 7);
    assert_int_equal(bucket_count(UINT32_MAX), BUCKET_COUNT_MAX);
    assert_true(bucket_rows(UINT32_MAX, BUCKET_COUNT_MAX - 1) == UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_number_of_rows_gets_the_smallest_bucket_that_holds_it),
        cmocka_unit_test(test_buckets_double_and_the_last_is_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
