/* More words to the card, in the manner of prim.cuh: what a group of four warps does together, and
 * what brings it work. From sm_90a on, and on no later kind of card: PRIM_HAS_WGMMA says whether.
 *
 * Thread: threads of a kernel. A group is four warps, the first a multiple of four; all that is
 * marked "group" its four warps do in the same order, each warp whole.
 *
 * A product of a group, 64 rows by COLUMNS: warp w has rows 16 w .. 16 w + 15, its A operand and
 * its sums in registers as those of an mma of prim.cuh, c of eight columns after c of the eight
 * before. B lies in shared memory in 8 x 8 matrices: eight columns of 16 bytes, one after another.
 */
#ifndef PERSONAD_KERNELS_CUDA_PRIM_WGMMA_CUH
#define PERSONAD_KERNELS_CUDA_PRIM_WGMMA_CUH

#include "kernels/cuda/prim.cuh"

#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PRIM_HAS_WGMMA 1
#else
#define PRIM_HAS_WGMMA 0
#endif

#if PRIM_HAS_WGMMA

/* ---- barriers in shared memory: a phase ends when all arrivals and all bytes have come ---- */

struct alignas(8) prim_barrier {
    uint64_t state;
};

/* One thread, before anyone else comes; then prim_barrier_begun() by it, and a barrier of the block
 * or of the cluster. */
DEVICE_INLINE void prim_barrier_init(struct prim_barrier *barrier, uint32_t arrivals)
{
#ifdef __CUDACC__
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(prim_shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
#else
    emulator_barrier_init(&barrier->state, arrivals);
#endif
}

DEVICE_INLINE void prim_barrier_begun(void)
{
#ifdef __CUDACC__
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
#endif
}

/* So many bytes more belong to this phase. */
DEVICE_INLINE void prim_barrier_expect(struct prim_barrier *barrier, uint32_t size_bytes)
{
#ifdef __CUDACC__
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;\n" ::"r"(
                     prim_shared_address(barrier)),
                 "r"(size_bytes)
                 : "memory");
#else
    emulator_barrier_expect(&barrier->state, size_bytes);
#endif
}

/* An arrival at the barrier that block `rank` of the cluster has at this place. What the thread
 * read and wrote comes before. */
DEVICE_INLINE void prim_barrier_arrive(struct prim_barrier *barrier, uint32_t rank)
{
#ifdef __CUDACC__
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
                 "}\n" ::"r"(prim_shared_address(barrier)),
                 "r"(rank)
                 : "memory");
#else
    emulator_barrier_arrive(&barrier->state, rank);
#endif
}

/* Until the phase of this parity has ended; the first has parity 0. */
DEVICE_INLINE void prim_barrier_wait(struct prim_barrier *barrier, uint32_t parity)
{
#ifdef __CUDACC__
    asm volatile("{\n"
                 ".reg .pred ended;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%0], %1;\n"
                 "@!ended bra again;\n"
                 "}\n" ::"r"(prim_shared_address(barrier)),
                 "r"(parity)
                 : "memory");
#else
    emulator_barrier_wait(&barrier->state, parity);
#endif
}

/* ---- copies of many bytes, all multiples of 16, that a barrier counts ---- */

DEVICE_INLINE void prim_copy_bulk(void *shared, const void *global, uint32_t size_bytes,
                                  struct prim_barrier *barrier)
{
#ifdef __CUDACC__
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];\n" ::"r"(prim_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(size_bytes),
                 "r"(prim_shared_address(barrier))
                 : "memory");
#else
    emulator_copy_bulk(shared, global, size_bytes, &barrier->state, 0);
#endif
}

/* To the same place of every block of the cluster whose bit is set; each one's barrier counts. */
DEVICE_INLINE void prim_copy_bulk_ranks(void *shared, const void *global, uint32_t size_bytes,
                                        struct prim_barrier *barrier, uint32_t ranks)
{
#ifdef __CUDACC__
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1], %2, [%3], %4;\n" ::"r"(prim_shared_address(shared)),
        "l"(__cvta_generic_to_global(global)), "r"(size_bytes), "r"(prim_shared_address(barrier)),
        "h"((uint16_t)ranks)
        : "memory");
#else
    emulator_copy_bulk(shared, global, size_bytes, &barrier->state, ranks);
#endif
}

/* ---- products ---- */

/* Group. From here on each of its threads has so many registers: taken from what another group of
 * the block gave back, which it waits for. */
template <int COUNT> DEVICE_INLINE void prim_registers_more(void)
{
#ifdef __CUDACC__
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#endif
}

template <int COUNT> DEVICE_INLINE void prim_registers_fewer(void)
{
#ifdef __CUDACC__
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(COUNT));
#endif
}

/* What a compiler may not carry over to the other side of a fence or a wait. */
template <int COUNT> DEVICE_INLINE void prim_wgmma_pin(float (&d)[COUNT])
{
#ifdef __CUDACC__
    PRIM_UNROLL
    for (int i = 0; i < COUNT; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
#else
    (void)d;
#endif
}

/* Where B is: the next 8 of k are next_k_bytes further on, the next 8 columns next_columns_bytes.
 * No swizzle: the eight rows of a matrix are 128 bytes in all banks. */
DEVICE_INLINE uint64_t prim_wgmma_matrix(const void *shared, uint32_t next_k_bytes,
                                         uint32_t next_columns_bytes)
{
#ifdef __CUDACC__
    const uint32_t address = prim_shared_address(shared);
#else
    const uint32_t address = emulator_shared_address(shared);
#endif

    return (uint64_t)(address >> 4) | (uint64_t)(next_k_bytes >> 4) << 16 |
           (uint64_t)(next_columns_bytes >> 4) << 32;
}

/* Group. What was written to registers that products read or sum into comes before them. */
DEVICE_INLINE void prim_wgmma_fence(void)
{
#ifdef __CUDACC__
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#else
    emulator_wgmma_fence();
#endif
}

/* Group. The products since the last commit are a group of them. */
DEVICE_INLINE void prim_wgmma_commit(void)
{
#ifdef __CUDACC__
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#else
    emulator_wgmma_commit();
#endif
}

/* Group. Until all that was committed is done. */
DEVICE_INLINE void prim_wgmma_wait(void)
{
#ifdef __CUDACC__
    asm volatile("wgmma.wait_group.sync.aligned 0;\n" ::: "memory");
#else
    emulator_wgmma_wait();
#endif
}

#ifdef __CUDACC__

/* Operands of the instruction: the sums, "+f", then a and the descriptor. */
#define PRIM_SUMS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define PRIM_SUMS_8(i) PRIM_SUMS_4(i), PRIM_SUMS_4((i) + 4)
#define PRIM_SUMS_16(i) PRIM_SUMS_8(i), PRIM_SUMS_8((i) + 8)
#define PRIM_SUMS_32(i) PRIM_SUMS_16(i), PRIM_SUMS_16((i) + 16)
#define PRIM_SUMS_64(i) PRIM_SUMS_32(i), PRIM_SUMS_32((i) + 32)
#define PRIM_SUMS_128(i) PRIM_SUMS_64(i), PRIM_SUMS_64((i) + 64)
#define PRIM_NAMES_4 "%0, %1, %2, %3"
#define PRIM_NAMES_8 PRIM_NAMES_4 ", %4, %5, %6, %7"
#define PRIM_NAMES_16 PRIM_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PRIM_NAMES_32                                                                             \
    PRIM_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, " \
                  "%31"
#define PRIM_NAMES_64                                                                         \
    PRIM_NAMES_32                                                                             \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, " \
    "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define PRIM_NAMES_128                                                                        \
    PRIM_NAMES_64                                                                             \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, " \
    "%81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "   \
    "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "      \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "    \
    "%126, %127"

#define PRIM_WGMMA(columns, type, sums, a0, a1, a2, a3, b)                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type      \
                 " {" PRIM_NAMES_##sums "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b \
                                        ", 1, 1, 1, 0;\n"                                   \
                 : PRIM_SUMS_##sums(0)                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(matrix))
#define PRIM_WGMMA_ANY(type)                                       \
    if constexpr (COLUMNS == 8) {                                  \
        PRIM_WGMMA(8, type, 4, 4, 5, 6, 7, 8);                     \
    } else if constexpr (COLUMNS == 16) {                          \
        PRIM_WGMMA(16, type, 8, 8, 9, 10, 11, 12);                 \
    } else if constexpr (COLUMNS == 32) {                          \
        PRIM_WGMMA(32, type, 16, 16, 17, 18, 19, 20);              \
    } else if constexpr (COLUMNS == 64) {                          \
        PRIM_WGMMA(64, type, 32, 32, 33, 34, 35, 36);              \
    } else if constexpr (COLUMNS == 128) {                         \
        PRIM_WGMMA(128, type, 64, 64, 65, 66, 67, 68);             \
    } else {                                                       \
        static_assert(COLUMNS == 256, "8, 16, 32 .. 256 columns"); \
        PRIM_WGMMA(256, type, 128, 128, 129, 130, 131, 132);       \
    }
#endif

/* Group. Begins d += a * b; the rule of prim_mma_bf16, a step of 16 of k. Until the wait for it d
 * may not be touched, nor a written, nor B. */
template <int COLUMNS>
DEVICE_INLINE void prim_wgmma_bf16(float (&d)[COLUMNS / 2], const uint32_t (&a)[4], uint64_t matrix)
{
#ifdef __CUDACC__
    PRIM_WGMMA_ANY("bf16")
#else
    emulator_wgmma(d, a, matrix, COLUMNS, EMULATOR_BF16);
#endif
}

template <int COLUMNS>
DEVICE_INLINE void prim_wgmma_f16(float (&d)[COLUMNS / 2], const uint32_t (&a)[4], uint64_t matrix)
{
#ifdef __CUDACC__
    PRIM_WGMMA_ANY("f16")
#else
    emulator_wgmma(d, a, matrix, COLUMNS, EMULATOR_F16);
#endif
}

#endif

#endif
