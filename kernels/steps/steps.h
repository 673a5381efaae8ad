/* Sampler steps as plain data: what both backends run over one row of logits, in list order.
 *
 * Reads as C11 and as CUDA C++. Thread: immutable while a submitted step names it.
 *
 * The row z[V] starts as the model's logits. Before any step, from the raw row:
 *   max  = largest z;  e_i = floor(exp(z_i - max) * 2^40) as uint64;  S = sum of e_i  (order-free)
 *   log probability of t = (z_t - max) - log(S / 2^40)          (from the logit, never from a mass)
 *   entropy = log(S / 2^40) + (sum of floor(e_i * (max - z_i))) / S, in nats
 *   top alternatives by (logit descending, id ascending)
 * Then each step changes z; a removed token is -infinity. At the end masses are taken again from
 * what is left, and the draw is an inverse transform in id order: r = floor(u * S'), u from
 * Philox4x32-10 with key = node seed and counter = (index in the node's sampled ids, purpose,
 * draw); token = the first id whose running sum exceeds r. The sampler's log probability uses S'
 * the same way. STEP_DISTINCT draws the first token otherwise: with C ids of a mass above 0, draws
 * i - i % C to i of key = group seed and counter = (0, distinct, draw) one after another, each
 * taking its id's mass away from S'; the last one counts, under the S' that it found. After a
 * temperature of 0 only the largest logit with the smallest id is left.
 */
#ifndef PERSONAD_KERNELS_STEPS_STEPS_H
#define PERSONAD_KERNELS_STEPS_STEPS_H

#include <stdint.h>

enum step_type {
    STEP_MIN_TOKENS = 1, /* count: while index < count, ids[] are removed (0xffffffff: always) */
    STEP_BIAS = 2,       /* biases[]: z += value; -infinity removes */
    STEP_PENALTIES = 3, /* values: repetition, frequency, presence; count: range, 0 = all; flags bit
                           0: prompt counts */
    STEP_TOP_K = 4,     /* count: keep z >= the count-th largest value, all ties */
    STEP_TOP_P =
        5, /* values[0]: keep z >= v, v the largest value whose masses from above reach p * S */
    STEP_MIN_P = 6,       /* values[0]: keep z >= max + log(p) */
    STEP_TEMPERATURE = 7, /* values[0]: z = z / t; 0 = greedy */
    STEP_MASK = 8,        /* keep the ids whose bit is set in the plan's mask of this sample item */
    /* The last one. count: i; ids[]: a group's seed, low half first. Index 0 is draw number i of a
     * drawing without replacement; other indices are drawn as ever. */
    STEP_DISTINCT = 9,
};

enum { STEP_FLAG_PROMPT = 1 };

struct step_bias {
    uint32_t token;
    float value;
};

struct step {
    uint32_t type; /* enum step_type */
    uint32_t count;
    uint32_t flags;
    float values[3];
    uint32_t list_count;
    const uint32_t
        *ids; /* [list_count]: STEP_MIN_TOKENS; ids exempt from STEP_PENALTIES (end ids) */
    const struct step_bias *biases; /* [list_count]: STEP_BIAS, ids ascending and distinct */
};

enum { STEP_COUNT_MAX = 32 };

struct step_list {
    uint32_t count;
    struct step steps[STEP_COUNT_MAX];
};

#endif
