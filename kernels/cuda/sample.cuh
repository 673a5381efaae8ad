/* The sampler's row inside a block: passes over it, and what they find.
 *
 * Thread: all threads of a block of SAMPLE_THREADS, together; every function begins and ends with
 * all of them at one place and the row whole. kernels/steps/ has the arithmetic; here every sum is
 * an integer's and every choice a comparison's, so that no order of threads shows.
 *
 * A row always has all ids: a removed one is -infinity. Warp w has the ids [w, w + 1) * span, so
 * that sums of warps in order are sums of ids in order.
 */
#ifndef PERSONAD_KERNELS_CUDA_SAMPLE_CUH
#define PERSONAD_KERNELS_CUDA_SAMPLE_CUH

#include "kernels/backend.h"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/masses.h"
#include "kernels/steps/order.h"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / 32,
};

static_assert((int)SAMPLE_THREADS >= (int)STEPS_DIGIT_COUNT, "a thread a bin");
static_assert(BACKEND_TOP_COUNT_MAX <= 32, "alternatives are ranked by one warp");

struct sample_shared {
    uint64_t warp_sums[SAMPLE_WARPS];
    uint64_t warp_spreads[SAMPLE_WARPS];
    uint64_t range_sums[SAMPLE_WARPS]; /* masses of each warp's ids, by sample_masses */
    uint64_t bins[STEPS_DIGIT_COUNT];
    uint64_t above;
    uint32_t lows[STEPS_DIGIT_COUNT]; /* bins as they are counted: 32 bits and the rest */
    uint32_t highs[STEPS_DIGIT_COUNT];
    uint32_t warp_words[SAMPLE_WARPS];
    float warp_maxima[SAMPLE_WARPS];
    uint32_t prefix;
    uint32_t found_count; /* of found */
    uint32_t picked;
    struct sample_top found[BACKEND_TOP_COUNT_MAX]; /* the logit in the place of its logprob */
    struct sample_top top[BACKEND_TOP_COUNT_MAX];   /* sorted */
};

struct sample_row {
    float *z; /* global, [count] */
    uint32_t count;
    uint32_t begin, end; /* ids of this warp */
    struct sample_shared *shared;
};

struct sample_scan {
    float max; /* -infinity: nothing is left */
    bool bad;  /* a NaN or +infinity is among them */
};

struct sample_sums {
    uint64_t sum;
    uint64_t spread;
};

DEVICE_INLINE struct sample_row sample_row_of(float *z, uint32_t count,
                                              struct sample_shared *shared)
{
    const uint32_t span = (count + SAMPLE_THREADS - 1) / SAMPLE_THREADS * 32;
    const uint32_t begin = PRIM_THREAD / 32 * span;
    struct sample_row row;

    row.z = z;
    row.count = count;
    row.begin = begin < count ? begin : count;
    row.end = count - row.begin < span ? count : row.begin + span;
    row.shared = shared;
    return row;
}

DEVICE_INLINE uint32_t sample_count_bits(uint32_t bits)
{
    bits = bits - (bits >> 1 & 0x55555555u);
    bits = (bits & 0x33333333u) + (bits >> 2 & 0x33333333u);
    return (((bits + (bits >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24;
}

/* Every thread's number summed over the block; warp sums stay in `warps` until the next one. */
DEVICE_INLINE uint64_t sample_block_sum(uint64_t value, uint64_t *warps)
{
    uint64_t sum = 0;

    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        value += prim_shuffle_xor(value, lanes);
    }
    prim_sync(); /* the last ones were read */
    if (PRIM_THREAD % 32 == 0) {
        warps[PRIM_THREAD / 32] = value;
    }
    prim_sync();
    for (uint32_t warp = 0; warp < SAMPLE_WARPS; warp++) {
        sum += warps[warp];
    }
    return sum;
}

DEVICE_INLINE float sample_block_max(const struct sample_row *row, float value)
{
    float *warps = row->shared->warp_maxima;
    float max = -INFINITY;

    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        const float other = prim_shuffle_xor(value, lanes);
        value = other > value ? other : value;
    }
    prim_sync();
    if (PRIM_THREAD % 32 == 0) {
        warps[PRIM_THREAD / 32] = value;
    }
    prim_sync();
    for (uint32_t warp = 0; warp < SAMPLE_WARPS; warp++) {
        max = warps[warp] > max ? warps[warp] : max;
    }
    return max;
}

DEVICE_INLINE uint32_t sample_block_min(const struct sample_row *row, uint32_t value)
{
    uint32_t *warps = row->shared->warp_words;
    uint32_t min = UINT32_MAX;

    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        const uint32_t other = prim_shuffle_xor(value, lanes);
        value = other < value ? other : value;
    }
    prim_sync();
    if (PRIM_THREAD % 32 == 0) {
        warps[PRIM_THREAD / 32] = value;
    }
    prim_sync();
    for (uint32_t warp = 0; warp < SAMPLE_WARPS; warp++) {
        min = warps[warp] < min ? warps[warp] : min;
    }
    return min;
}

DEVICE_INLINE struct sample_scan sample_scan_row(const struct sample_row *row)
{
    struct sample_scan scan;
    float max = -INFINITY;
    uint32_t bad = 0;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        const float z = row->z[i];
        bad |= !(z < INFINITY);
        max = z > max ? z : max;
    }
    scan.max = sample_block_max(row, max) + 0.0f; /* -0 is answered as 0 */
    scan.bad = sample_block_min(row, bad != 0 ? 0 : 1) == 0;
    return scan;
}

/* The row becomes the logits, and is scanned on the way. */
DEVICE_INLINE struct sample_scan sample_take_row(const struct sample_row *row, const float *logits)
{
    struct sample_scan scan;
    float max = -INFINITY;
    uint32_t bad = 0;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        const float z = logits[i];
        row->z[i] = z;
        bad |= !(z < INFINITY);
        max = z > max ? z : max;
    }
    scan.max = sample_block_max(row, max) + 0.0f; /* -0 is answered as 0 */
    scan.bad = sample_block_min(row, bad != 0 ? 0 : 1) == 0;
    return scan;
}

/* Leaves the masses of each warp's ids in range_sums. */
DEVICE_INLINE struct sample_sums sample_masses(const struct sample_row *row, float max)
{
    struct sample_shared *shared = row->shared;
    struct sample_sums sums;
    uint64_t sum = 0, spread = 0;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        const uint64_t mass = steps_mass(row->z[i], max);
        sum += mass;
        spread += steps_spread(mass, row->z[i], max);
    }
    sums.sum = sample_block_sum(sum, shared->range_sums);
    sums.spread = sample_block_sum(spread, shared->warp_spreads);
    return sums;
}

/* Adds 64 bits as two words: what the low one loses is carried. */
DEVICE_INLINE void sample_bin_add(struct sample_shared *shared, uint32_t bin, uint64_t weight)
{
    const uint32_t low = (uint32_t)weight;
    const uint32_t before = prim_atomic_add_shared(&shared->lows[bin], low);
    const uint32_t high = (uint32_t)(weight >> 32) + (before + low < before ? 1 : 0);

    if (high != 0) {
        (void)prim_atomic_add_shared(&shared->highs[bin], high);
    }
}

/* steps/order.h over the row. Weights are masses under `max`, or 1 each if by_count. */
DEVICE_INLINE float sample_threshold(const struct sample_row *row, bool by_count, float max,
                                     uint64_t target)
{
    struct sample_shared *shared = row->shared;
    const uint32_t thread = PRIM_THREAD;

    prim_sync(); /* the last threshold was read */
    if (thread == 0) {
        shared->prefix = 0;
        shared->above = 0;
    }
    for (uint32_t level = 0; level < STEPS_DIGIT_LEVELS; level++) {
        if (thread < STEPS_DIGIT_COUNT) {
            shared->lows[thread] = 0;
            shared->highs[thread] = 0;
        }
        prim_sync();
        const uint32_t prefix = shared->prefix;
        for (uint32_t i = row->begin + thread % 32; i < row->end; i += 32) {
            const float z = row->z[i];
            const uint32_t key = steps_key_from_float(z);
            if (steps_digit_matches(key, prefix, level)) {
                const uint64_t weight = by_count ? 1 : steps_mass(z, max);
                sample_bin_add(shared, steps_digit(key, level), weight);
            }
        }
        prim_sync();
        if (thread < STEPS_DIGIT_COUNT) {
            shared->bins[thread] = (uint64_t)shared->highs[thread] << 32 | shared->lows[thread];
        }
        prim_sync();
        if (thread == 0) {
            steps_digit_find(shared->bins, target, level, &shared->prefix, &shared->above);
        }
        prim_sync();
    }
    return steps_float_from_key(shared->prefix);
}

/* Removes what is below the bound; a NaN too. */
DEVICE_INLINE void sample_filter(const struct sample_row *row, float bound)
{
    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        if (!(row->z[i] >= bound)) {
            row->z[i] = -INFINITY;
        }
    }
    prim_sync();
}

/* Ids of this warp whose logit is the bound itself, in order: the first of them, as many as are
 * wanted, go to found behind those above. `rank` is how many warps before this one have. */
DEVICE_INLINE void sample_collect_ties(const struct sample_row *row, float bound, uint32_t rank,
                                       uint32_t above_count, uint32_t wanted)
{
    const uint32_t lane = PRIM_THREAD % 32;

    for (uint32_t first = row->begin; first < row->end; first += 32) {
        const uint32_t i = first + lane;
        const bool ties = i < row->end && row->z[i] == bound;
        const uint32_t votes = prim_ballot(ties);
        const uint32_t at = above_count + rank + sample_count_bits(votes & ((1u << lane) - 1));

        if (ties && at < wanted) {
            row->shared->found[at].token = i;
            row->shared->found[at].logprob = bound;
        }
        rank += sample_count_bits(votes);
    }
}

/* The `wanted` largest logits, ties by the smallest id, sorted into shared->top; the logit stands
 * in the place of the log probability. At most the row's count and BACKEND_TOP_COUNT_MAX. */
DEVICE_INLINE void sample_find_top(const struct sample_row *row, uint32_t wanted)
{
    struct sample_shared *shared = row->shared;
    const uint32_t lane = PRIM_THREAD % 32, warp = PRIM_THREAD / 32;
    const float bound = wanted < row->count ? sample_threshold(row, true, 0.0f, wanted) : -INFINITY;
    uint32_t tie_count = 0, rank = 0;

    prim_sync();
    if (PRIM_THREAD == 0) {
        shared->found_count = 0;
    }
    prim_sync();
    for (uint32_t first = row->begin; first < row->end; first += 32) {
        const uint32_t i = first + lane;
        const float z = i < row->end ? row->z[i] : -INFINITY;

        tie_count += sample_count_bits(prim_ballot(i < row->end && z == bound));
        if (z > bound) {
            const uint32_t at = prim_atomic_add_shared(&shared->found_count, 1);
            shared->found[at].token = i;
            shared->found[at].logprob = z;
        }
    }
    if (lane == 0) {
        shared->warp_words[warp] = tie_count;
    }
    prim_sync();
    for (uint32_t before = 0; before < warp; before++) {
        rank += shared->warp_words[before];
    }
    sample_collect_ties(row, bound, rank, shared->found_count, wanted);
    prim_sync();
    if (PRIM_THREAD < wanted) {
        const struct sample_top own = shared->found[PRIM_THREAD];
        uint32_t place = 0;

        for (uint32_t j = 0; j < wanted; j++) {
            const struct sample_top other = shared->found[j];
            place += other.logprob > own.logprob ||
                     (other.logprob == own.logprob && other.token < own.token);
        }
        shared->top[place] = own;
    }
    prim_sync();
}

/* Warp, the one whose ids hold it: the id in which `rest` falls among the masses. */
DEVICE_INLINE void sample_pick_in_range(const struct sample_row *row, float max, uint64_t rest)
{
    const uint32_t lane = PRIM_THREAD % 32;

    for (uint32_t first = row->begin; first < row->end; first += 32) {
        const uint32_t i = first + lane;
        const uint64_t mass = i < row->end ? steps_mass(row->z[i], max) : 0;
        uint64_t until = mass;

        for (uint32_t delta = 1; delta < 32; delta *= 2) {
            const uint64_t below = prim_shuffle_up(until, delta);
            until += lane >= delta ? below : 0;
        }
        const uint64_t all = prim_shuffle(until, 31);
        if (rest < all) {
            if (rest < until && rest >= until - mass) {
                row->shared->picked = i;
            }
            return;
        }
        rest -= all;
    }
}

/* The first id whose running sum of masses exceeds `rest`, which is less than their sum; after
 * sample_masses of the same row. */
DEVICE_INLINE uint32_t sample_pick(const struct sample_row *row, float max, uint64_t rest)
{
    const struct sample_shared *shared = row->shared;
    uint32_t warp = 0;

    prim_sync();
    while (warp < SAMPLE_WARPS - 1 && rest >= shared->range_sums[warp]) {
        rest -= shared->range_sums[warp];
        warp++;
    }
    if (warp == PRIM_THREAD / 32) {
        sample_pick_in_range(row, max, rest);
    }
    prim_sync();
    return shared->picked;
}

/* Removes an id of this mass, also from what sample_pick goes by. All have read it before. */
DEVICE_INLINE void sample_remove(const struct sample_row *row, uint32_t id, uint64_t mass)
{
    prim_sync();
    if (PRIM_THREAD % 32 == 0 && id >= row->begin && id < row->end) {
        row->z[id] = -INFINITY;
        row->shared->range_sums[PRIM_THREAD / 32] -= mass;
    }
    prim_sync();
}

/* How many ids have a mass; leaves range_sums alone. */
DEVICE_INLINE uint32_t sample_count_alive(const struct sample_row *row, float max)
{
    uint64_t count = 0;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        count += steps_mass(row->z[i], max) > 0;
    }
    return (uint32_t)sample_block_sum(count, row->shared->warp_sums);
}

#endif
