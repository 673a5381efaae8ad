/* Rounds one row's K and V to the pool's type and stores them in a page. A NaN is stored as 0: it
 * faults its own branch, and must not reach others that see the page. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

/* V as it is, K one slot of each of its dimensions. */
static void append_halves(const struct cpu_kernels *kernels, uint32_t head_size, uint16_t *k_page,
                          uint16_t *v_page, uint32_t slot, const float *k, const float *v,
                          uint8_t *fault)
{
    uint16_t halves[BACKEND_HEAD_SIZE_MAX];

    if (kernels->round_to_half(k, head_size, halves)) {
        *fault = 1;
    }
    for (uint32_t d = 0; d < head_size; d++) {
        k_page[(size_t)d * KV_PAGE_TOKEN_COUNT + slot] = halves[d];
    }
    if (kernels->round_to_half(v, head_size, v_page + (size_t)slot * head_size)) {
        *fault = 1;
    }
}

/* The other half of a value's pairs is another position's, which another worker may be writing. */
static void append_pairs(const struct cpu_kernels *kernels, uint32_t head_size, uint16_t *k_page,
                         uint16_t *v_page, uint32_t slot, const float *k, const float *v,
                         uint8_t *fault)
{
    uint16_t halves[BACKEND_HEAD_SIZE_MAX];

    if (kernels->round_to_bf16(k, head_size, halves)) {
        *fault = 1;
    }
    for (uint32_t d = 0; d < head_size; d += 2) {
        uint16_t *pair = k_page + cpu_kv_pairs_k(d, slot);

        pair[0] = halves[d];
        pair[1] = halves[d + 1];
    }
    if (kernels->round_to_bf16(v, head_size, halves)) {
        *fault = 1;
    }
    for (uint32_t d = 0; d < head_size; d++) {
        v_page[cpu_kv_pairs_v(head_size, d, slot)] = halves[d];
    }
}

void cpu_kv_append(const struct cpu_kernels *kernels, struct backend_kv *kv, uint32_t layer,
                   uint32_t kv_head, uint32_t page, uint32_t slot, const float *k, const float *v,
                   uint8_t *fault)
{
    uint16_t *k_page = cpu_kv_k(kv, layer, kv_head, page);
    uint16_t *v_page = cpu_kv_v(kv, layer, kv_head, page);

    if (kv->is_paired) {
        append_pairs(kernels, kv->shape.head_size, k_page, v_page, slot, k, v, fault);
    } else {
        append_halves(kernels, kv->shape.head_size, k_page, v_page, slot, k, v, fault);
    }
}
