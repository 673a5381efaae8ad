/* Inside the CPU backend: what its files share. Thread: the engine thread and the pool's workers.
 *
 * Scalar C in kernels/cpu/ defines the bits; avx2/ and avx512/ equal it by memcmp. Which one runs
 * is chosen once, at create, through `struct cpu_kernels`.
 */
#ifndef PERSONAD_KERNELS_CPU_CPU_H
#define PERSONAD_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/pool.h"

enum cpu_isa { CPU_SCALAR, CPU_AVX2, CPU_AVX512 };

struct backend_buffer {
    float *data; /* owned, 64-byte aligned */
    uint64_t float_count;
};

/* Pages of one layer and KV head lie together:
 * K: [page][head_size][16] half (head dimension outermost, a lane a key); V: [page][16][head_size]
 * half. */
struct backend_kv {
    struct kv_shape shape;
    uint16_t *k; /* owned: [layer][kv_head][page][head_size][16] */
    uint16_t *v; /* owned: [layer][kv_head][page][16][head_size] */
};

static inline uint16_t *cpu_kv_k(const struct backend_kv *kv, uint32_t layer, uint32_t head,
                                 uint32_t page)
{
    const struct kv_shape *shape = &kv->shape;
    return kv->k + (((uint64_t)layer * shape->kv_head_count + head) * shape->page_count + page) *
                       shape->head_size * KV_PAGE_TOKEN_COUNT;
}

static inline uint16_t *cpu_kv_v(const struct backend_kv *kv, uint32_t layer, uint32_t head,
                                 uint32_t page)
{
    const struct kv_shape *shape = &kv->shape;
    return kv->v + (((uint64_t)layer * shape->kv_head_count + head) * shape->page_count + page) *
                       shape->head_size * KV_PAGE_TOKEN_COUNT;
}

/* One branch's token history, for penalties. */
struct cpu_history {
    uint32_t *ids; /* owned: [history_tokens_max] */
    uint32_t count;
    uint32_t prompt_count;
    uint32_t last; /* what it sampled last */
};

/* What one step works on. */
struct cpu_step {
    struct backend *backend;
    const struct plan *plan;
};

#endif
