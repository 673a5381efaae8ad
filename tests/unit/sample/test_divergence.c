/* Goal: the divergence of two rows is the sum that the header gives, never below 0, and 0 of a row
 * from itself.
 * Method: small rows by hand and against long double; rows moved by a constant; removed tokens.
 * Twin: the divergence the other way round is another number.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sample/divergence.h"

enum { COUNT = 300 };

static void fill(float *z, uint32_t salt)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        z[i] = (float)((i * 2654435761u + salt * 40503u * (i + 1)) % 4001) / 400.0f - 5.0f;
    }
}

static double plain(const float *p, const float *q)
{
    long double p_sum = 0, q_sum = 0, divergence = 0;

    for (uint32_t i = 0; i < COUNT; i++) {
        p_sum += expl((long double)p[i]);
        q_sum += expl((long double)q[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        const long double p_logprob = (long double)p[i] - logl(p_sum);
        divergence += expl(p_logprob) * (p_logprob - ((long double)q[i] - logl(q_sum)));
    }
    return (double)divergence;
}

static void test_it_is_the_sum_over_all_tokens(void **state)
{
    float p[COUNT], q[COUNT];

    (void)state;
    for (uint32_t salt = 0; salt < 20; salt++) {
        fill(p, salt);
        fill(q, salt + 1);
        const double divergence = divergence_of(p, q, COUNT);

        assert_true(fabs(divergence - plain(p, q)) < 1e-6);
        assert_true(divergence > 0);
        assert_true(fabs(divergence - divergence_of(q, p, COUNT)) > 1e-6);
        assert_true(fabs(divergence_of(p, p, COUNT)) < 1e-12);
    }
}

static void test_removed_tokens_and_empty_rows(void **state)
{
    const float p[] = {0.0f, 0.0f, -INFINITY}, q[] = {0.0f, -INFINITY, 0.0f};
    const float narrow[] = {0.0f, -INFINITY, -INFINITY};
    const float empty[] = {-INFINITY, -INFINITY, -INFINITY};

    (void)state;
    assert_true(isinf(divergence_of(p, q, 3)));
    assert_true(fabs(divergence_of(narrow, p, 3) - log(2.0)) < 1e-9);
    assert_true(isnan(divergence_of(empty, p, 3)) && isnan(divergence_of(p, empty, 3)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_the_sum_over_all_tokens),
        cmocka_unit_test(test_removed_tokens_and_empty_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
