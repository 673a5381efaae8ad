/* The sampler inside the CPU backend: a row of candidates, and the passes over it.
 *
 * Thread: a worker owns its struct sample_worker; the tables are static. kernels/steps/ has the
 * arithmetic and defines the bits; here is only in which order it is asked, which changes nothing:
 * every sum is an integer's, every choice a comparison's.
 *
 * A row is dense (candidate i is id i) until a step cuts it; then it is a list, ids ascending.
 */
#ifndef PERSONAD_KERNELS_CPU_SAMPLE_H
#define PERSONAD_KERNELS_CPU_SAMPLE_H

#include "kernels/backend.h"
#include "kernels/steps/order.h"

enum {
    SAMPLE_BLOCK = 128, /* candidates that share a partial maximum and a partial sum */
    SAMPLE_SLACK = 64,  /* floats behind each array that a vector store may write */
};

struct cpu_history;

/* Scratch of one worker, [vocabulary + SAMPLE_SLACK] each. */
struct sample_worker {
    float *z[2]; /* the row at hand and the next */
    uint32_t *ids[2];
    float *weights;      /* exp(z - max) of the row */
    uint32_t *counts;    /* occurrences of an id in the history; all zero between uses */
    float *block_max;    /* [blocks] */
    uint64_t *block_sum; /* [blocks] */
};

struct sample_row {
    const float *z;      /* [count]: the model's logits, or worker->z[side] */
    const uint32_t *ids; /* [count], ascending; NULL: dense */
    uint32_t count;
    uint32_t side;
};

struct sample_kernels {
    /* The largest value and each block's, -infinity for none; of a NaN or a +infinity only *bad
     * tells.
     */
    void (*scan)(const float *z, uint32_t count, float *block_max, float *max, bool *bad);
    /* Masses of each block and of all; *spread, if wanted, the sum of steps_spread; weights, if
     * wanted, each candidate's steps_exp(z - max). */
    void (*masses)(const float *z, uint32_t count, float max, uint64_t *block_sum, uint64_t *sum,
                   uint64_t *spread, float *weights);
    /* Writes those with z >= bound, in order; ids NULL: id = index. Answers how many. */
    uint32_t (*filter)(const float *z, const uint32_t *ids, uint32_t count, float bound,
                       float *z_out, uint32_t *ids_out);
    /* How many have z >= bound, and the masses of their weights. */
    uint32_t (*above)(const float *z, const float *weights, uint32_t count, float bound,
                      uint64_t *sum);
    /* z_out = z / t */
    void (*divide)(const float *z, uint32_t count, float t, float *z_out);
};

extern const struct sample_kernels sample_kernels_scalar;
extern const struct sample_kernels sample_kernels_avx2;
extern const struct sample_kernels sample_kernels_avx512;
extern const struct sample_kernels sample_kernels_neon;

/* One draw. */
struct sample_item {
    const struct sample_kernels *kernels;
    struct sample_worker *worker;
    const struct cpu_history *history;
    uint32_t history_count; /* of its ids that the steps see */
    const struct plan_sample *sample;
    uint32_t vocabulary_count;
    struct sample_row row;
};

/* Applies all steps to item->row. */
void sample_steps_apply(struct sample_item *item);

/* Where an id is among the candidates; row.count if it is not. */
uint32_t sample_steps_find(const struct sample_row *row, uint32_t id);

/* The largest value v such that at least `count` candidates are >= v; fewer than row.count. */
float sample_steps_kth(struct sample_item *item, uint32_t count);

static inline uint32_t sample_block_count(uint32_t count)
{
    return (count + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
}

#endif
