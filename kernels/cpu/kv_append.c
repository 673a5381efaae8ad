/* Rounds one row's K and V to half and stores them in a page: V as it is, K one slot of each of its
 * dimensions. A NaN is stored as 0: it faults its own branch, and must not reach others that see
 * the page. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

void cpu_kv_append(const struct cpu_kernels *kernels, struct backend_kv *kv, uint32_t layer,
                   uint32_t kv_head, uint32_t page, uint32_t slot, const float *k, const float *v,
                   uint8_t *fault)
{
    const uint32_t head_size = kv->shape.head_size;
    uint16_t *k_slot = cpu_kv_k(kv, layer, kv_head, page) + slot;
    uint16_t *v_slot = cpu_kv_v(kv, layer, kv_head, page) + (size_t)slot * head_size;
    uint16_t halves[BACKEND_HEAD_SIZE_MAX];

    if (kernels->round_to_half(k, head_size, halves)) {
        *fault = 1;
    }
    for (uint32_t d = 0; d < head_size; d++) {
        k_slot[(size_t)d * KV_PAGE_TOKEN_COUNT] = halves[d];
    }
    if (kernels->round_to_half(v, head_size, v_slot)) {
        *fault = 1;
    }
}
