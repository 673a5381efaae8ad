/* The kernel of kv_copy.cu, apart so that the emulator's tests can launch it bare.
 *
 * Thread: none of its own. Positions of a page are rows of bytes, so the first n of them
 * are one run of bytes. A block has one layer and KV head (a plane) and does its copies in the
 * order of the plan, a barrier between them: a later copy may read what an earlier one wrote.
 */
#ifndef PERSONAD_KERNELS_CUDA_KV_COPY_CUH
#define PERSONAD_KERNELS_CUDA_KV_COPY_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"

enum { KV_COPY_THREADS = 128, KV_COPY_PIECE_BYTES = 16 };

struct alignas(16) kv_copy_piece {
    uint32_t words[4];
};

/* A pool, all layers. */
struct kv_copy_view {
    uint8_t *k, *v;             /* [plane][page][16][row_bytes] */
    float *k_scales, *v_scales; /* [plane][page][16], or NULL */
    uint32_t plane_count, page_count, row_bytes;
};

static KERNEL void PRIM_BOUNDS(KV_COPY_THREADS, 1)
    kv_copy_kernel(const struct cuda_plan_view *plan_at, struct kv_copy_view view)
{
    prim_depend_wait();
    const struct cuda_plan_view plan = *plan_at;
    prim_depend_launch();
    for (uint32_t plane = PRIM_BLOCK_X; plane < view.plane_count; plane += PRIM_GRID_X) {
        for (uint32_t i = 0; i < plan.kv_copy_count; i++) {
            const struct plan_kv_copy copy = plan.kv_copies[i];
            const uint64_t plane_page = (uint64_t)plane * view.page_count;
            const uint64_t from = (plane_page + copy.from) * KV_PAGE_TOKEN_COUNT;
            const uint64_t to = (plane_page + copy.to) * KV_PAGE_TOKEN_COUNT;
            const uint32_t pieces = view.row_bytes * copy.slot_count / KV_COPY_PIECE_BYTES;
            for (uint32_t piece = PRIM_THREAD; piece < pieces; piece += PRIM_THREADS) {
                const uint32_t at = piece * KV_COPY_PIECE_BYTES;
                *(struct kv_copy_piece *)(view.k + to * view.row_bytes + at) =
                    *(const struct kv_copy_piece *)(view.k + from * view.row_bytes + at);
                *(struct kv_copy_piece *)(view.v + to * view.row_bytes + at) =
                    *(const struct kv_copy_piece *)(view.v + from * view.row_bytes + at);
            }
            if (view.k_scales != NULL && PRIM_THREAD < copy.slot_count) {
                view.k_scales[to + PRIM_THREAD] = view.k_scales[from + PRIM_THREAD];
                view.v_scales[to + PRIM_THREAD] = view.v_scales[from + PRIM_THREAD];
            }
            prim_sync();
        }
    }
}

#endif
