/* Rounds one row's K and V to half and stores them in a page. One definition for all instruction
 * sets: rounding to half is exact, so a vector version could differ in nothing but time, and a
 * step appends only a few hundred values a row and layer. */
#include "kernels/cpu/cpu.h"
#include "kernels/steps/math.h"

/* A NaN is stored as 0: it faults its own branch, and must not reach others that see the page. */
static uint16_t half_or_fault(float value, uint8_t *fault)
{
    if (value != value) {
        *fault = 1;
        return 0;
    }
    return steps_half_from_float(value);
}

void cpu_kv_append(struct backend_kv *kv, uint32_t layer, uint32_t kv_head, uint32_t page,
                   uint32_t slot, const float *k, const float *v, uint8_t *fault)
{
    const uint32_t head_size = kv->shape.head_size;
    uint16_t *k_page = cpu_kv_k(kv, layer, kv_head, page);
    uint16_t *v_slot = cpu_kv_v(kv, layer, kv_head, page) + (size_t)slot * head_size;

    for (uint32_t d = 0; d < head_size; d++) {
        k_page[(size_t)d * KV_PAGE_TOKEN_COUNT + slot] = half_or_fault(k[d], fault);
    }
    for (uint32_t d = 0; d < head_size; d++) {
        v_slot[d] = half_or_fault(v[d], fault);
    }
}
