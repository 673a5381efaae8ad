/* The kernel behind attn_in's matrix product, apart so that the emulator's tests can launch it
 * bare.
 *
 * Thread: none of its own. A block has one row: it makes the row's sines and cosines once, in
 * shared memory (cosines [pair_count], then sines [pair_count]), then a warp has one head of Q, K
 * or V. Order: a head's squares are added by fmaf, lane i of 32 taking i, i + 32, ...; then lanes i
 * ^ 16, 8, 4, 2, 1. Angles are position * frequency in double, rotation as
 * kernels/cpu/rows_scalar.h.
 */
#ifndef PERSONAD_KERNELS_CUDA_ATTN_IN_CUH
#define PERSONAD_KERNELS_CUDA_ATTN_IN_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/math.h"

enum { ATTN_IN_THREADS = 128 };

struct attn_in_view {
    const float *qkv; /* [row][(head_count + 2 * kv_head_count) * head_size]: q, k, v */
    float *q;         /* [row][head_count * head_size] */
    struct cuda_kv_view kv;
    const float *bq, *bk, *bv;       /* NULL: none */
    const float *q_norm, *k_norm;    /* [head_size] or NULL */
    const double *inverse_frequency; /* [pair_count] */
    float epsilon;
    uint32_t head_count, kv_head_count, head_size;
    uint32_t pair_count;
    uint32_t rope_style; /* enum rope_style */
};

static inline uint32_t attn_in_shared_bytes(uint32_t pair_count)
{
    return 2 * pair_count * (uint32_t)sizeof(float);
}

/* One head of one row, as a warp sees it. */
struct attn_in_head {
    const float *values; /* [head_size], before the bias */
    const float *bias;   /* of this head, or NULL */
    const float *norm;   /* NULL: none */
    float inverse;       /* of the root mean square */
    float *q;            /* where a query goes, or NULL */
    uint8_t *kv;         /* where a key or value goes, or NULL */
    float *kv_scale;     /* fp8: where its scale goes */
    enum kv_type type;
    bool measures;  /* fp8: nothing is stored yet */
    float largest;  /* fp8: magnitude, of this lane's; then of all */
    float scale;    /* fp8: largest / STEPS_FP8_MAX; 0: all is stored as 0 */
    uint32_t fault; /* a key or value was a NaN */
};

DEVICE_INLINE float attn_in_biased(const struct attn_in_head *head, uint32_t d)
{
    return head->bias == NULL ? head->values[d] : head->values[d] + head->bias[d];
}

DEVICE_INLINE float attn_in_value(const struct attn_in_head *head, uint32_t d)
{
    const float value = attn_in_biased(head, d);
    return head->norm == NULL ? value : value * head->inverse * head->norm[d];
}

/* A key or value as it is kept. What no type can hold saturates. */
DEVICE_INLINE void attn_in_store(struct attn_in_head *head, uint32_t d, float value)
{
    const float most = 3.3895314e38f; /* the largest bf16 */
    const float held = value > most ? most : value < -most ? -most : value;

    if (head->measures) {
        head->largest = fabsf(held) > head->largest ? fabsf(held) : head->largest;
    } else if (head->type == KV_TYPE_F16) {
        ((uint16_t *)head->kv)[d] = steps_half_from_float(held);
    } else if (head->type == KV_TYPE_BF16) {
        ((uint16_t *)head->kv)[d] = steps_bf16_from_float(held);
    } else {
        head->kv[d] = head->scale > 0.0f ? steps_fp8_from_float(held / head->scale) : 0;
    }
}

/* A NaN is stored as 0: it faults its own row, and must not reach others that see the page. */
DEVICE_INLINE void attn_in_put(struct attn_in_head *head, uint32_t d, float value)
{
    if (head->q != NULL) {
        head->q[d] = value;
    } else if (head->kv != NULL) {
        head->fault |= value != value;
        attn_in_store(head, d, value != value ? 0.0f : value);
    }
}

/* Which head, where from, where to. Heads count through q, k, v. */
DEVICE_INLINE void attn_in_find(const struct cuda_plan_view *plan, const struct attn_in_view *view,
                                uint32_t row, uint32_t index, struct attn_in_head *head)
{
    const uint32_t head_count = view->head_count + 2 * view->kv_head_count;
    const bool is_q = index < view->head_count;
    const bool is_k = !is_q && index < view->head_count + view->kv_head_count;
    const float *bias = is_q ? view->bq : is_k ? view->bk : view->bv;
    const uint32_t within = is_q ? index : (index - view->head_count) % view->kv_head_count;

    head->values = view->qkv + ((uint64_t)row * head_count + index) * view->head_size;
    head->bias = bias == NULL ? NULL : bias + (uint64_t)within * view->head_size;
    head->norm = is_q ? view->q_norm : is_k ? view->k_norm : NULL;
    head->inverse = 1.0f;
    head->q = NULL;
    head->kv = NULL;
    head->kv_scale = NULL;
    head->type = view->kv.type;
    head->measures = false;
    head->largest = 0.0f;
    head->scale = 0.0f;
    head->fault = 0;
    if (is_q) {
        head->q = view->q + ((uint64_t)row * view->head_count + within) * view->head_size;
    } else if (plan->rows[row].writes_kv != 0) {
        const uint32_t position = plan->rows[row].position;
        const uint32_t page =
            plan->pages[plan->rows[row].page_first + position / KV_PAGE_TOKEN_COUNT];
        const uint64_t at = cuda_kv_row(&view->kv, within, page, position);
        head->kv = (is_k ? view->kv.k : view->kv.v) +
                   at * cuda_kv_row_bytes(view->kv.type, view->head_size);
        if (view->kv.type == KV_TYPE_FP8) {
            head->kv_scale = (is_k ? view->kv.k_scales : view->kv.v_scales) + at;
        }
    }
}

DEVICE_INLINE void attn_in_measure(const struct attn_in_view *view, struct attn_in_head *head)
{
    float squares = 0.0f;

    for (uint32_t d = PRIM_THREAD % 32; d < view->head_size; d += 32) {
        const float value = attn_in_biased(head, d);
        squares = fmaf(value, value, squares);
    }
    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        squares = squares + prim_shuffle_xor(squares, lanes);
    }
    head->inverse = 1.0f / sqrtf(squares / (float)view->head_size + view->epsilon);
}

DEVICE_INLINE void attn_in_rotate(const struct attn_in_view *view, const float *cosines,
                                  const float *sines, struct attn_in_head *head)
{
    const bool adjacent = view->rope_style == ROPE_ADJACENT;

    for (uint32_t i = PRIM_THREAD % 32; i < view->pair_count; i += 32) {
        const uint32_t first = adjacent ? 2 * i : i;
        const uint32_t second = adjacent ? 2 * i + 1 : i + view->pair_count;
        const float a = attn_in_value(head, first);
        const float b = attn_in_value(head, second);
        attn_in_put(head, first, fmaf(a, cosines[i], -(b * sines[i])));
        attn_in_put(head, second, fmaf(a, sines[i], b * cosines[i]));
    }
}

/* The head's values, to attn_in_put. */
DEVICE_INLINE void attn_in_put_all(const struct attn_in_view *view, const float *cosines,
                                   const float *sines, bool rotates, struct attn_in_head *head)
{
    if (rotates) {
        attn_in_rotate(view, cosines, sines, head);
    }
    for (uint32_t d = (rotates ? 2 * view->pair_count : 0) + PRIM_THREAD % 32; d < view->head_size;
         d += 32) {
        attn_in_put(head, d, attn_in_value(head, d));
    }
}

/* Warp. The scale of a key or value that is kept as codes: its largest magnitude becomes the
 * largest code. */
DEVICE_INLINE void attn_in_scale(const struct attn_in_view *view, const float *cosines,
                                 const float *sines, bool rotates, struct attn_in_head *head)
{
    head->measures = true;
    attn_in_put_all(view, cosines, sines, rotates, head);
    head->measures = false;
    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        const float other = prim_shuffle_xor(head->largest, lanes);
        head->largest = other > head->largest ? other : head->largest;
    }
    const float scale = head->largest / STEPS_FP8_MAX;
    head->scale = scale >= 0x1p-126f ? scale : 0.0f;
    if (PRIM_THREAD % 32 == 0) {
        *head->kv_scale = head->scale;
    }
}

/* Bias, norm, rotation; q stored in float, k and v in the pool's type on the row's page. */
static KERNEL void PRIM_BOUNDS(ATTN_IN_THREADS, 1)
    attn_in_finish_kernel(const struct cuda_plan_view *plan_at, struct attn_in_view view)
{
    SHARED(float, cosines);
    float *sines = cosines + view.pair_count;
    const uint32_t head_count = view.head_count + 2 * view.kv_head_count;

    prim_depend_wait();
    const struct cuda_plan_view plan = *plan_at;
    prim_depend_launch();
    for (uint32_t row = PRIM_BLOCK_X; row < plan.row_count; row += PRIM_GRID_X) {
        const double position = (double)plan.rows[row].position;
        for (uint32_t i = PRIM_THREAD; i < view.pair_count; i += PRIM_THREADS) {
            steps_sincos(position * view.inverse_frequency[i], &sines[i], &cosines[i]);
        }
        prim_sync();
        for (uint32_t h = PRIM_THREAD / 32; h < head_count; h += PRIM_THREADS / 32) {
            const bool rotates = h < view.head_count + view.kv_head_count;
            struct attn_in_head head;

            attn_in_find(&plan, &view, row, h, &head);
            if (head.norm != NULL) {
                attn_in_measure(&view, &head);
            }
            if (head.kv_scale != NULL) {
                attn_in_scale(&view, cosines, sines, rotates, &head);
            }
            attn_in_put_all(&view, cosines, sines, rotates, &head);
            if (head.fault != 0) {
                plan.row_faults[row] = 1;
            }
        }
        prim_sync();
    }
}

#endif
