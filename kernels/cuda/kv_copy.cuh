/* The kernel of kv_copy.cu, apart so that the emulator's tests can launch it bare.
 *
 * Thread: none of its own. Positions of a page are rows of head_size halves, so the first n of them
 * are one run of bytes. A block has one layer and KV head (a plane) and does its copies in the
 * order of the plan, a barrier between them: a later copy may read what an earlier one wrote.
 */
#ifndef PERSONAD_KERNELS_CUDA_KV_COPY_CUH
#define PERSONAD_KERNELS_CUDA_KV_COPY_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"

enum { KV_COPY_THREADS = 128, KV_COPY_PIECE_HALVES = 8 };

struct alignas(16) kv_copy_piece {
    uint32_t words[4];
};

/* k and v: [plane][page][16][head_size], page_halves = 16 * head_size. */
static KERNEL void PRIM_BOUNDS(KV_COPY_THREADS, 1)
    kv_copy_kernel(const struct cuda_plan_view *plan_at, uint16_t *k, uint16_t *v,
                   uint32_t plane_count, uint32_t page_count, uint32_t page_halves)
{
    prim_depend_wait();
    const struct cuda_plan_view plan = *plan_at;
    prim_depend_launch();
    for (uint32_t plane = PRIM_BLOCK_X; plane < plane_count; plane += PRIM_GRID_X) {
        for (uint32_t i = 0; i < plan.kv_copy_count; i++) {
            const struct plan_kv_copy copy = plan.kv_copies[i];
            const uint64_t from = ((uint64_t)plane * page_count + copy.from) * page_halves;
            const uint64_t to = ((uint64_t)plane * page_count + copy.to) * page_halves;
            const uint32_t pieces =
                page_halves / KV_PAGE_TOKEN_COUNT * copy.slot_count / KV_COPY_PIECE_HALVES;
            for (uint32_t piece = PRIM_THREAD; piece < pieces; piece += PRIM_THREADS) {
                const uint64_t at = (uint64_t)piece * KV_COPY_PIECE_HALVES;
                *(struct kv_copy_piece *)(k + to + at) =
                    *(const struct kv_copy_piece *)(k + from + at);
                *(struct kv_copy_piece *)(v + to + at) =
                    *(const struct kv_copy_piece *)(v + from + at);
            }
            prim_sync();
        }
    }
}

#endif
