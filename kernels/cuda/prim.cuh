/* The words in which kernels speak to the card. Nothing but this and prim_wgmma.cuh writes PTX or
 * names a CUDA builtin in kernels/cuda; everything here has a second body for the emulator
 * (tests/emulator).
 *
 * Thread: threads of a kernel. Ownership: none. Grids have two dimensions, blocks one, of whole
 * warps. All that is marked "warp" must be reached by all 32 lanes of a warp together, all that is
 * marked "block" by all threads of the block; a thread that has returned counts as missing.
 *
 *   KERNEL            of a function that is launched:  static KERNEL void add(...)
 *   PRIM_BOUNDS(t,b)  at most t threads a block, room for b blocks:  KERNEL void PRIM_BOUNDS(..)
 * f() DEVICE_INLINE     of a function that kernels call PRIM_UNROLL       before a loop with a
 * constant count whose index picks registers SHARED(T, name)   T *name: the dynamic shared memory,
 * aligned to 128 bytes, contents undefined; once a kernel
 */
#ifndef PERSONAD_KERNELS_CUDA_PRIM_CUH
#define PERSONAD_KERNELS_CUDA_PRIM_CUH

#include <stdint.h>

#include "kernels/steps/fp8.h"
#include "kernels/steps/math.h"

#ifdef __CUDACC__

#define KERNEL __global__
#define PRIM_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define PRIM_GRID_CONSTANT __grid_constant__
#define DEVICE_INLINE static __device__ __forceinline__
#define PRIM_UNROLL _Pragma("unroll")
#define PRIM_UNROLL_4 _Pragma("unroll 4") /* where all at once would spill */
#define PRIM_UNROLL_1 _Pragma("unroll 1")
#define SHARED(T, name)                                                 \
    extern __shared__ __align__(128) unsigned char prim_shared_bytes[]; \
    T *name = reinterpret_cast<T *>(prim_shared_bytes)

#define PRIM_THREAD ((uint32_t)threadIdx.x)
#define PRIM_THREADS ((uint32_t)blockDim.x)
#define PRIM_BLOCK_X ((uint32_t)blockIdx.x)
#define PRIM_BLOCK_Y ((uint32_t)blockIdx.y)
#define PRIM_GRID_X ((uint32_t)gridDim.x)
#define PRIM_GRID_Y ((uint32_t)gridDim.y)

/* The address PTX knows a place in shared memory by. */
DEVICE_INLINE uint32_t prim_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

#else

#include "tests/emulator/emulator.h"

#define KERNEL
#define PRIM_BOUNDS(threads, blocks)
#define PRIM_GRID_CONSTANT
#define DEVICE_INLINE static inline __attribute__((unused))
#define PRIM_UNROLL
#define PRIM_UNROLL_4
#define PRIM_UNROLL_1
#define SHARED(T, name) T *name = static_cast<T *>(emulator_shared())

#define PRIM_THREAD (emulator_here.thread)
#define PRIM_THREADS (emulator_here.threads)
#define PRIM_BLOCK_X (emulator_here.block_x)
#define PRIM_BLOCK_Y (emulator_here.block_y)
#define PRIM_GRID_X (emulator_here.grid_x)
#define PRIM_GRID_Y (emulator_here.grid_y)

#endif

/* Thread. The value, of which the compiler forgets where it comes from: what follows from it is
 * computed where it is needed, and not kept in registers from an earlier time. */
DEVICE_INLINE uint32_t prim_anew(uint32_t value)
{
#ifdef __CUDACC__
    asm volatile("" : "+r"(value));
#endif
    return value;
}

/* Block. What any thread wrote to shared or global memory before it, all see after it. */
DEVICE_INLINE void prim_sync(void)
{
#ifdef __CUDACC__
    __syncthreads();
#else
    emulator_sync_block();
#endif
}

/* Warp. The same among the lanes of a warp. */
DEVICE_INLINE void prim_sync_warp(void)
{
#ifdef __CUDACC__
    __syncwarp();
#else
    emulator_sync_warp();
#endif
}

/* ---- clusters: blocks next to each other in x that run together, from sm_90 on ---- */

/* 0 where there are no clusters. */
DEVICE_INLINE uint32_t prim_cluster_rank(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
    return rank;
#elif defined(__CUDACC__)
    return 0;
#else
    return emulator_here.rank;
#endif
}

/* All threads of all blocks of the cluster: as prim_sync. A block's shared memory is gone once it
 * has ended, so those who read another's meet before they end. */
DEVICE_INLINE void prim_cluster_sync(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;\n" ::
                     : "memory");
#elif !defined(__CUDACC__)
    emulator_sync_cluster();
#endif
}

/* The place in the shared memory of block `rank` that `shared` is in the own one: to be read. */
template <typename T> DEVICE_INLINE const T *prim_cluster_map(const T *shared, uint32_t rank)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const T *there;
    asm("mapa.u64 %0, %1, %2;\n" : "=l"(there) : "l"(shared), "r"(rank));
    return there;
#elif defined(__CUDACC__)
    (void)rank;
    return shared;
#else
    return static_cast<const T *>(emulator_cluster_map(shared, rank));
#endif
}

/* ---- copies from global to shared memory, in the background ----
 * A thread's copies since its last commit are a group. A copy has landed for the thread that
 * started it when that thread has waited for its group, and for others after a barrier behind that.
 */

/* 16 bytes, both addresses aligned to 16. Not valid: zeros arrive and `global` is not read. */
DEVICE_INLINE void prim_copy16(void *shared, const void *global, bool valid)
{
#ifdef __CUDACC__
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(prim_shared_address(shared)),
        "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
        : "memory");
#else
    emulator_copy16(shared, global, valid);
#endif
}

DEVICE_INLINE void prim_copy_commit(void)
{
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
    emulator_copy_commit();
#endif
}

/* Until at most the last `pending` groups of this thread are still on their way. */
template <int pending> DEVICE_INLINE void prim_copy_wait(void)
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#else
    emulator_copy_wait(pending);
#endif
}

/* 16 bytes of shared memory in one load, where the compiler would make four of it; aligned to 16.
 */
DEVICE_INLINE void prim_load16_shared(uint32_t words[4], const void *shared)
{
#ifdef __CUDACC__
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(prim_shared_address(shared))
                 : "memory");
#else
    emulator_load16_shared(words, shared);
#endif
}

/* ---- tensor cores ----
 * A tile is 8 rows of 8 numbers of 16 bits, a row being 16 bytes in shared memory, aligned to 16.
 * Fragments, with g = lane / 4 and t = lane % 4, a register holding two neighbours, low half first:
 *   a[0] (row g, k 2t)   a[1] (g + 8, 2t)   a[2] (g, 2t + 8)   a[3] (g + 8, 2t + 8)   of 16 x 16
 *   b[0] (k 2t, column g)   b[1] (2t + 8, g)                                          of 16 x 8
 *   c[0] (row g, column 2t)   c[1] (g, 2t + 1)   c[2] (g + 8, 2t)   c[3] (g + 8, 2t + 1)
 */

/* Warp. Lane l gives row l % 8 of tile l / 8; r[i] of lane l gets the numbers 2t, 2t + 1 of row g
 * of tile i. */
DEVICE_INLINE void prim_ldmatrix_x4(uint32_t r[4], const void *row)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(prim_shared_address(row))
                 : "memory");
#else
    emulator_ldmatrix_x4(r, row, false);
#endif
}

/* Warp. As above of the tiles transposed: r[i] gets number g of the rows 2t and 2t + 1. */
DEVICE_INLINE void prim_ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(prim_shared_address(row))
                 : "memory");
#else
    emulator_ldmatrix_x4(r, row, true);
#endif
}

/* Warp. c += a * b, 16 x 8 from 16 x 16 and 16 x 8, in fp32 as the tensor core sums. */
DEVICE_INLINE void prim_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emulator_mma(c, a, b, EMULATOR_BF16);
#endif
}

DEVICE_INLINE void prim_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emulator_mma(c, a, b, EMULATOR_F16);
#endif
}

/* ---- among the lanes of a warp; T is a number of 4 or 8 bytes ---- */

/* Warp. The value of lane (own ^ lanes). */
template <typename T> DEVICE_INLINE T prim_shuffle_xor(T value, uint32_t lanes)
{
#ifdef __CUDACC__
    return __shfl_xor_sync(0xffffffffu, value, (int)lanes);
#else
    emulator_shuffle(&value, sizeof value, PRIM_THREAD % 32 ^ lanes);
    return value;
#endif
}

/* Warp. The value of a lane. */
template <typename T> DEVICE_INLINE T prim_shuffle(T value, uint32_t lane)
{
#ifdef __CUDACC__
    return __shfl_sync(0xffffffffu, value, (int)lane);
#else
    emulator_shuffle(&value, sizeof value, lane);
    return value;
#endif
}

/* Warp. The value of the lane `delta` below; its own where there is none. */
template <typename T> DEVICE_INLINE T prim_shuffle_up(T value, uint32_t delta)
{
#ifdef __CUDACC__
    return __shfl_up_sync(0xffffffffu, value, delta);
#else
    const uint32_t lane = PRIM_THREAD % 32;
    emulator_shuffle(&value, sizeof value, lane < delta ? lane : lane - delta);
    return value;
#endif
}

/* Warp. Bit i is what lane i gave. */
DEVICE_INLINE uint32_t prim_ballot(bool vote)
{
#ifdef __CUDACC__
    return __ballot_sync(0xffffffffu, vote);
#else
    return emulator_ballot(vote);
#endif
}

/* ---- the rest ---- */

/* What was there before. Threads come in any order: only integers, whose sums have none. */
DEVICE_INLINE uint32_t prim_atomic_add_shared(uint32_t *at, uint32_t value)
{
#ifdef __CUDACC__
    return atomicAdd(at, value);
#else
    const uint32_t before = *at;
    *at = before + value;
    return before;
#endif
}

/* The same in global memory, among all blocks. */
DEVICE_INLINE uint32_t prim_atomic_add_global(uint32_t *at, uint32_t value)
{
    return prim_atomic_add_shared(at, value);
}

/* What this thread wrote to global memory before it, every block sees before what it writes after
 * it, a count for instance; and what is read after it is no older than what was read before. */
DEVICE_INLINE void prim_fence(void)
{
#ifdef __CUDACC__
    __threadfence();
#endif
}

/* A number in global memory that another block of the launch has written: not from the cache of
 * this multiprocessor, which does not hear of it. */
DEVICE_INLINE float prim_load_fresh(const float *at)
{
#ifdef __CUDACC__
    return __ldcg(at);
#else
    return *at;
#endif
}

/* 2^x within 2 ulp, exact for 0 and -infinity; a result below 2^-126 is 0. One kind of card gives
 * the same bits always; cards and the emulator differ from each other. */
DEVICE_INLINE float prim_exp2(float x)
{
#ifdef __CUDACC__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(power) : "f"(x));
    return power;
#else
    return emulator_exp2(x);
#endif
}

/* Two halves, rounded to nearest even; `low` in the low 16 bits. Beyond the largest half the card
 * gives infinity, the emulator the largest: for magnitudes that are smaller. */
DEVICE_INLINE uint32_t prim_pack_half(float low, float high)
{
#ifdef __CUDACC__
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)steps_half_from_float(low) | (uint32_t)steps_half_from_float(high) << 16;
#endif
}

DEVICE_INLINE float prim_float_from_half(uint16_t half)
{
#ifdef __CUDACC__
    float value;
    asm("cvt.f32.f16 %0, %1;\n" : "=f"(value) : "h"(half));
    return value;
#else
    return steps_float_from_half(half);
#endif
}

/* Byte i of the result, i = 0 being the lowest, is the one that digit i of the selector names: 0 to
 * 3 of `low`, 4 to 7 of `high`. */
DEVICE_INLINE uint32_t prim_permute(uint32_t low, uint32_t high, uint32_t selector)
{
#ifdef __CUDACC__
    return __byte_perm(low, high, selector);
#else
    const uint64_t bytes = low | (uint64_t)high << 32;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; i++) {
        result |= (uint32_t)(bytes >> (selector >> (4 * i) & 7u) * 8 & 255u) << (8 * i);
    }
    return result;
#endif
}

/* Two bf16, rounded to nearest even; `low` in the low 16 bits. */
DEVICE_INLINE uint32_t prim_pack_bf16(float low, float high)
{
#ifdef __CUDACC__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)steps_bf16_from_float(low) | (uint32_t)steps_bf16_from_float(high) << 16;
#endif
}

/* Four codes of kernels/steps/fp8.h, none of them a NaN, the lowest first, exactly as two pairs of
 * halves: the code's bits a place further down are the number by 2^-8, also below the normal ones.
 */
DEVICE_INLINE void prim_widen_fp8_half(uint32_t pairs[2], uint32_t codes)
{
#ifdef __CUDACC__
    const uint32_t low = __byte_perm(codes, 0, 0x1404), high = __byte_perm(codes, 0, 0x3424);
    asm("mul.rn.f16x2 %0, %1, %2;\n"
        : "=r"(pairs[0])
        : "r"((low & 0x80008000u) | (low & 0x7f007f00u) >> 1), "r"(0x5c005c00u));
    asm("mul.rn.f16x2 %0, %1, %2;\n"
        : "=r"(pairs[1])
        : "r"((high & 0x80008000u) | (high & 0x7f007f00u) >> 1), "r"(0x5c005c00u));
#else
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t half =
            steps_half_from_float(steps_float_from_fp8((uint8_t)(codes >> (8 * i))));
        pairs[i / 2] = i % 2 == 0 ? half : pairs[i / 2] | half << 16;
    }
#endif
}

/* The same as pairs of bf16, by 2^-120; the sum with -0 keeps a zero's sign. */
DEVICE_INLINE void prim_widen_fp8_bf16(uint32_t pairs[2], uint32_t codes)
{
#ifdef __CUDACC__
    const uint32_t low = __byte_perm(codes, 0, 0x1404), high = __byte_perm(codes, 0, 0x3424);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n"
        : "=r"(pairs[0])
        : "r"((low & 0x80008000u) | (low & 0x7f007f00u) >> 4), "r"(0x7b807b80u), "r"(0x80008000u));
    asm("fma.rn.bf16x2 %0, %1, %2, %3;\n"
        : "=r"(pairs[1])
        : "r"((high & 0x80008000u) | (high & 0x7f007f00u) >> 4), "r"(0x7b807b80u),
          "r"(0x80008000u));
#else
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t number =
            steps_bf16_from_float(steps_float_from_fp8((uint8_t)(codes >> (8 * i))));
        pairs[i / 2] = i % 2 == 0 ? number : pairs[i / 2] | number << 16;
    }
#endif
}

/* What the kernel before this one in the stream wrote may be read after the wait, and nothing that
 * it reads be written before. Every thread of every kernel comes here: a kernel after this one
 * waits for this one only. A launch lets the next kernel start up to its own wait. Nothing below
 * sm_90, where kernels follow each other whole. */
DEVICE_INLINE void prim_depend_wait(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n" ::: "memory");
#elif !defined(__CUDACC__)
    emulator_depend_wait();
#endif
}

DEVICE_INLINE void prim_depend_launch(void)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

#endif
