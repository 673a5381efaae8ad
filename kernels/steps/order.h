/* Logits as unsigned keys that sort the same way, and thresholds found by counting digits of them.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure functions. -0 and 0 share a key. No NaN comes
 * here. A threshold is the largest key v such that the weights of all keys >= v reach a target:
 * one pass over the row a digit adds weights to STEPS_DIGIT_COUNT bins, then steps_digit_find()
 * walks the bins. Integer sums: their order is free.
 *
 *   prefix = 0; above = 0;
 *   for level in 0..STEPS_DIGIT_LEVELS - 1:
 *       bins = 0; for each key with steps_digit_matches(key, prefix, level):
 *           bins[steps_digit(key, level)] += weight
 *       steps_digit_find(bins, target, level, &prefix, &above)
 *   v = prefix
 */
#ifndef PERSONAD_KERNELS_STEPS_ORDER_H
#define PERSONAD_KERNELS_STEPS_ORDER_H

#include "kernels/steps/math.h"

enum {
    STEPS_DIGIT_BITS = 8,
    STEPS_DIGIT_COUNT = 1 << STEPS_DIGIT_BITS,
    STEPS_DIGIT_LEVELS = 32 / STEPS_DIGIT_BITS,
};

STEPS_FUNCTION uint32_t steps_key_from_float(float value)
{
    const uint32_t bits = steps_bits_from_float(value + 0.0f); /* -0 + 0 = 0 */
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

STEPS_FUNCTION float steps_float_from_key(uint32_t key)
{
    return steps_float_from_bits((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

STEPS_FUNCTION uint32_t steps_digit_shift(uint32_t level)
{
    return 32 - STEPS_DIGIT_BITS * (level + 1);
}

STEPS_FUNCTION uint32_t steps_digit(uint32_t key, uint32_t level)
{
    return key >> steps_digit_shift(level) & (STEPS_DIGIT_COUNT - 1);
}

/* Whether the digits before `level` are those of the prefix. */
STEPS_FUNCTION int steps_digit_matches(uint32_t key, uint32_t prefix, uint32_t level)
{
    return level == 0 || (key ^ prefix) >> steps_digit_shift(level - 1) == 0;
}

/* Adds the threshold's digit to the prefix. The weights of this prefix and all above it must reach
 * the target. */
STEPS_FUNCTION void steps_digit_find(const uint64_t *bins, uint64_t target, uint32_t level,
                                     uint32_t *prefix, uint64_t *above)
{
    uint32_t digit = STEPS_DIGIT_COUNT - 1;

    while (digit > 0 && *above + bins[digit] < target) {
        *above += bins[digit];
        digit--;
    }
    *prefix |= digit << steps_digit_shift(level);
}

#endif
