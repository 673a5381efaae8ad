/* From the sums of segments to one sum, where each segment is a block of its own.
 *
 * Thread: kernels of matmul.cu; all threads of a block together. The blocks of one output and its
 * segments, the ranks, meet in one of two ways; both add from left to right, whoever comes first:
 *
 *   a cluster     each reads the others' shared memory (sm_90 on)
 *   global memory each leaves its sums there and counts itself; the one that comes last adds all.
 *                 No rank waits for another, so that it does not matter which of them run together.
 *                 A count is zero between launches
 */
#ifndef PERSONAD_KERNELS_CUDA_MATMUL_FOLD_CUH
#define PERSONAD_KERNELS_CUDA_MATMUL_FOLD_CUH

#include "kernels/cuda/prim.cuh"

/* One block's place among its ranks. */
struct cuda_ranks {
    uint32_t rank, count;
    float *sums; /* global, [count][size]; NULL: a cluster, or one rank */
    uint32_t *arrived;
    uint32_t size;
};

/* Leaves the block's sums, `shared`, with the others'. True in the block that came last, in every
 * thread: all sums are there. `flag` is shared memory that is free; it may be part of `shared`. */
DEVICE_INLINE bool cuda_ranks_leave(const struct cuda_ranks &ranks, const float *shared,
                                    uint32_t *flag)
{
    float *to = ranks.sums + (uint64_t)ranks.rank * ranks.size;

    for (uint32_t i = PRIM_THREAD; i < ranks.size; i += PRIM_THREADS) {
        to[i] = shared[i];
    }
    prim_fence();
    prim_sync(); /* all of them are there */
    if (PRIM_THREAD == 0) {
        const uint32_t before = prim_atomic_add_global(ranks.arrived, 1);

        *flag = before + 1 == ranks.count ? 1 : 0;
        if (before + 1 == ranks.count) {
            *ranks.arrived = 0;
        }
    }
    prim_sync();
    prim_fence();
    return *flag != 0;
}

/* Sum `at` of the ranks, from left to right. `shared`: the block's own sums, for a cluster. */
DEVICE_INLINE float cuda_ranks_fold(const struct cuda_ranks &ranks, const float *shared,
                                    uint32_t at)
{
    float sum;

    if (ranks.count == 1) {
        return shared[at];
    }
    if (ranks.sums != NULL) {
        sum = prim_load_fresh(ranks.sums + at);
        for (uint32_t rank = 1; rank < ranks.count; rank++) {
            sum += prim_load_fresh(ranks.sums + (uint64_t)rank * ranks.size + at);
        }
        return sum;
    }
    sum = prim_cluster_map(shared, 0)[at];
    for (uint32_t rank = 1; rank < ranks.count; rank++) {
        sum += prim_cluster_map(shared, rank)[at];
    }
    return sum;
}

#endif
