/* Goal: the arithmetic of the sampler's steps is exact where the headers say so.
 * Method: products, targets and draws against 128-bit integers; keys against the order of floats;
 * thresholds against sorting; bounds and edges by hand; sums of masses in two orders.
 */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/steps/bias.h"
#include "kernels/steps/mask.h"
#include "kernels/steps/masses.h"
#include "kernels/steps/min_p.h"
#include "kernels/steps/min_tokens.h"
#include "kernels/steps/penalties.h"
#include "kernels/steps/temperature.h"
#include "kernels/steps/top_k.h"
#include "kernels/steps/top_p.h"

__extension__ typedef unsigned __int128 wide;

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void test_products_of_64_bits_are_whole(void **state)
{
    (void)state;
    uint64_t seed = 1;

    for (int i = 0; i < 100000; i++) {
        const uint64_t a = next_random(&seed) >> (i % 64), b = next_random(&seed) >> (i / 64 % 64);
        uint64_t low;
        const uint64_t high = steps_multiply(a, b, &low);
        assert_true(((wide)high << 64 | low) == (wide)a * b);
    }
}

static void test_a_draw_falls_inside_the_sum(void **state)
{
    (void)state;

    assert_true(steps_draw(0, 1) == 0);
    assert_true(steps_draw(UINT64_MAX, 1) == 0);
    assert_true(steps_draw(UINT64_MAX, UINT64_C(1) << 58) == (UINT64_C(1) << 58) - 1);
    assert_true(steps_draw(UINT64_C(1) << 63, 1000) == 500);
}

static void test_top_p_target_is_the_exact_ceiling(void **state)
{
    (void)state;
    uint64_t seed = 2;

    for (int i = 0; i < 100000; i++) {
        const uint64_t sum = (UINT64_C(1) << 40) + (next_random(&seed) >> (6 + i % 30));
        uint32_t bits = (uint32_t)(next_random(&seed) % 0x3f800000u);
        bits = i % 4 == 0 ? bits : 0x3f000000u - (bits & 0xfffffffu);
        const float p = steps_float_from_bits(bits);
        const uint64_t target = steps_top_p_target(p, sum);
        if (p == 0.0f) {
            assert_true(target == 1);
            continue;
        }
        /* p = m / 2^k; where k is large the target is the least that there is */
        int exponent;
        const uint64_t m = (uint64_t)ldexp(frexp((double)p, &exponent), 24);
        const int k = 24 - exponent;
        if (k >= 100) {
            assert_true(target == 1);
            continue;
        }
        assert_true((wide)target << k >= (wide)m * sum);
        assert_true((wide)(target - 1) << k < (wide)m * sum);
        assert_true(target <= sum);
    }
    assert_true(steps_top_p_target(1.0f, 5) == 0);
    assert_true(steps_top_p_target(2.0f, 5) == 0);
    assert_true(steps_top_p_target(NAN, 5) == 0);
    assert_true(steps_top_p_target(FLT_MIN, UINT64_C(1) << 58) == 1);
    assert_true(steps_top_p_target(steps_float_from_bits(1), UINT64_C(1) << 58) == 1);
}

/* Twin: in floats, the sum of masses from above may miss a target that integers reach. */
static void test_twin_a_target_in_floats_differs(void **state)
{
    (void)state;
    const uint64_t sum = (UINT64_C(1) << 57) + 12345;
    assert_true(steps_top_p_target(0.3f, sum) != (uint64_t)(0.3f * (float)sum));
}

static void test_keys_sort_as_their_floats_do(void **state)
{
    (void)state;
    uint64_t seed = 3;

    for (int i = 0; i < 200000; i++) {
        const float a = steps_float_from_bits((uint32_t)next_random(&seed));
        const float b =
            i % 2 == 0 ? steps_float_from_bits((uint32_t)next_random(&seed)) : nextafterf(a, 0.0f);
        if (a != a || b != b) {
            continue;
        }
        const uint32_t key_a = steps_key_from_float(a), key_b = steps_key_from_float(b);
        assert_true((a < b) == (key_a < key_b));
        assert_true((a == b) == (key_a == key_b));
        assert_true(steps_float_from_key(key_a) == a);
    }
    assert_int_equal(steps_key_from_float(-0.0f), steps_key_from_float(0.0f));
    assert_true(steps_key_from_float(-INFINITY) < steps_key_from_float(-FLT_MAX));
}

static int falling(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void test_thresholds_equal_those_of_a_sorted_row(void **state)
{
    (void)state;
    uint64_t seed = 4;
    float z[200], sorted[200];

    for (int round = 0; round < 2000; round++) {
        const uint32_t count = 1 + (uint32_t)(next_random(&seed) % 200);
        for (uint32_t i = 0; i < count; i++) {
            z[i] = (float)(int32_t)next_random(&seed) * (round % 2 == 0 ? 0x1p-28f : 0x1p-20f);
            z[i] = round % 3 == 0 ? rintf(z[i]) : z[i];
        }
        const uint64_t target = 1 + next_random(&seed) % count;
        uint32_t prefix = 0;
        uint64_t above = 0;
        for (uint32_t level = 0; level < STEPS_DIGIT_LEVELS; level++) {
            uint64_t bins[STEPS_DIGIT_COUNT] = {0};
            for (uint32_t i = 0; i < count; i++) {
                const uint32_t key = steps_key_from_float(z[i]);
                bins[steps_digit(key, level)] += (uint64_t)steps_digit_matches(key, prefix, level);
            }
            steps_digit_find(bins, target, level, &prefix, &above);
        }
        memcpy(sorted, z, sizeof z);
        qsort(sorted, count, sizeof *sorted, falling);
        assert_true(steps_float_from_key(prefix) == sorted[target - 1]);
        assert_true(above < target);
    }
}

static void test_masses_are_exact_and_their_sum_has_no_order(void **state)
{
    (void)state;
    uint64_t forward = 0, backward = 0, seed = 5;
    float z[1000];

    assert_true(steps_mass(3.5f, 3.5f) == UINT64_C(1) << 40);
    assert_true(steps_mass(-INFINITY, 3.5f) == 0);
    assert_true(steps_mass(-28.0f, 0.0f) == 0);
    assert_true(steps_mass(-27.0f, 0.0f) == 2); /* 2^40 exp(-27) = 2.07 */
    assert_true(steps_spread(0, -INFINITY, 0.0f) == 0);
    for (int i = 0; i < 1000; i++) {
        z[i] = (float)(next_random(&seed) >> 40) * 0x1p-20f;
        const uint64_t mass = steps_mass(z[i], 16.0f);
        assert_true((double)mass == floor((double)steps_exp(z[i] - 16.0f) * 0x1p40));
        assert_true((uint64_t)(float)mass == mass);
        forward += mass;
    }
    for (int i = 999; i >= 0; i--) {
        backward += steps_mass(z[i], 16.0f);
    }
    assert_true(forward == backward);
}

static void test_certainty_has_log_probability_plus_zero(void **state)
{
    (void)state;
    const float certain = steps_logprob(-0.0f, 0.0f, UINT64_C(1) << 40);

    assert_int_equal(steps_bits_from_float(certain), 0);
    assert_true(steps_entropy(UINT64_C(1) << 40, 0) == 0.0f);
    /* two equal tokens */
    assert_true(fabsf(steps_logprob(1.0f, 1.0f, UINT64_C(1) << 41) + 0.69314718f) < 1e-7f);
    assert_true(fabsf(steps_entropy(UINT64_C(1) << 41, 0) - 0.69314718f) < 1e-7f);
}

static void test_min_p_bound_is_rounded_up_and_never_above_the_maximum(void **state)
{
    (void)state;
    uint64_t seed = 6;

    for (int i = 0; i < 100000; i++) {
        const float max = (float)(int32_t)next_random(&seed) * 0x1p-25f;
        const float p = (float)(next_random(&seed) >> 40) * 0x1p-24f;
        const float bound = steps_min_p_bound(max, p);
        if (p == 0.0f) {
            assert_true(bound == -INFINITY);
            continue;
        }
        const double exact = (double)max + steps_log((double)p);
        assert_true(bound <= max);
        assert_true((double)bound >= exact);
        assert_true((double)nextafterf(bound, -INFINITY) < exact);
    }
    assert_true(steps_min_p_bound(5.0f, 1.0f) == 5.0f);
    assert_true(steps_min_p_bound(5.0f, NAN) == -INFINITY);
}

static void test_penalties_count_the_window_and_leave_removed_tokens(void **state)
{
    (void)state;

    assert_int_equal(steps_penalties_first(100, 30, 0, 0), 30);
    assert_int_equal(steps_penalties_first(100, 30, 0, 1), 0);
    assert_int_equal(steps_penalties_first(100, 30, 20, 0), 80);
    assert_int_equal(steps_penalties_first(100, 30, 70, 0), 30);
    assert_int_equal(steps_penalties_first(100, 30, 80, 0), 30);
    assert_int_equal(steps_penalties_first(100, 30, 80, 1), 20);
    assert_int_equal(steps_penalties_first(10, 30, 0, 0), 0);
    assert_true(steps_penalties(4.0f, 3, 2.0f, 0.5f, 0.25f) == 2.0f - 1.75f);
    assert_true(steps_penalties(-4.0f, 1, 2.0f, 0.0f, 0.0f) == -8.0f);
    assert_true(steps_penalties(-INFINITY, 1, 2.0f, -9.0f, 0.0f) == -INFINITY);
    assert_true(steps_penalties(FLT_MAX, 1, 0.5f, 0.0f, 0.0f) == FLT_MAX);
}

static void test_edges_of_the_small_steps(void **state)
{
    (void)state;
    const uint32_t mask[2] = {0x80000001u, 1u};

    assert_true(steps_bias(1.0f, -INFINITY) == -INFINITY);
    assert_true(steps_bias(-INFINITY, INFINITY) == -INFINITY);
    assert_true(steps_bias(1.0f, INFINITY) == FLT_MAX);
    assert_true(steps_mask_keeps(mask, 0));
    assert_false(steps_mask_keeps(mask, 1));
    assert_true(steps_mask_keeps(mask, 31));
    assert_true(steps_mask_keeps(mask, 32));
    assert_true(steps_min_tokens_apply(4, 5));
    assert_false(steps_min_tokens_apply(5, 5));
    assert_true(steps_min_tokens_apply(0xffffffffu, 0xffffffffu));
    assert_true(steps_top_k_target(5, 5) == 0);
    assert_true(steps_top_k_target(4, 5) == 4);
    assert_true(steps_temperature_greedy(3.0f, 0.0f));
    assert_true(steps_temperature_greedy(3.0f, 1e-39f));
    assert_true(steps_temperature_greedy(-3.0f, 1e-39f));
    assert_true(steps_temperature_greedy(3.0f, NAN));
    assert_false(steps_temperature_greedy(3.0f, 0.01f));
    assert_true(steps_temperature(3.0f, 2.0f) == 1.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_64_bits_are_whole),
        cmocka_unit_test(test_a_draw_falls_inside_the_sum),
        cmocka_unit_test(test_top_p_target_is_the_exact_ceiling),
        cmocka_unit_test(test_twin_a_target_in_floats_differs),
        cmocka_unit_test(test_keys_sort_as_their_floats_do),
        cmocka_unit_test(test_thresholds_equal_those_of_a_sorted_row),
        cmocka_unit_test(test_masses_are_exact_and_their_sum_has_no_order),
        cmocka_unit_test(test_certainty_has_log_probability_plus_zero),
        cmocka_unit_test(test_min_p_bound_is_rounded_up_and_never_above_the_maximum),
        cmocka_unit_test(test_penalties_count_the_window_and_leave_removed_tokens),
        cmocka_unit_test(test_edges_of_the_small_steps),
    };
    return cmocka_run_group_tests_name("kernels/steps", tests, NULL, NULL);
}
