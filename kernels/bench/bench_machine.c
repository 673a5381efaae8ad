/* What this machine can do at most, for floors: one JSON line.
 *
 *   bench_machine [threads]
 *
 * memory_gb_s: all threads read a buffer that no cache holds, 64 bytes at a time. int8_gop_s: sums
 * of products of bytes in registers, four a lane (0 without AVX-512 VNNI). fp32_gflop_s: fused
 * multiply-adds in registers. Each is the best of several rounds, all threads together.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pool.h"

enum {
    THREADS_MAX = 64,
    ROUNDS = 6,
    TASKS_A_THREAD = 8,
    BYTES_A_TASK = 32 * 1024 * 1024,
    CHAINS = 16,
};

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2"))) static uint64_t read_all(const uint8_t *bytes)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    uint64_t out[4];

    for (size_t i = 0; i < BYTES_A_TASK; i += 64) {
        a = _mm256_xor_si256(a, _mm256_load_si256((const __m256i *)(bytes + i)));
        b = _mm256_xor_si256(b, _mm256_load_si256((const __m256i *)(bytes + i + 32)));
    }
    _mm256_storeu_si256((__m256i *)out, _mm256_xor_si256(a, b));
    return out[0] ^ out[1] ^ out[2] ^ out[3];
}

__attribute__((target("avx512f,avx512vnni"))) static uint64_t int8_round(uint32_t count)
{
    __m512i sums[CHAINS];
    const __m512i x = _mm512_set1_epi32(0x01020304);
    __m512i total = _mm512_setzero_si512();

    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm512_set1_epi32(c);
    }
    for (uint32_t i = 0; i < count; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm512_dpbusd_epi32(sums[c], x, x);
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        total = _mm512_add_epi32(total, sums[c]);
    }
    return (uint64_t)_mm512_reduce_add_epi32(total);
}

__attribute__((target("avx512f"))) static uint64_t fp32_round(uint32_t count)
{
    __m512 sums[CHAINS];
    const __m512 x = _mm512_set1_ps(0.5f);
    float total = 0;

    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm512_set1_ps((float)c);
    }
    for (uint32_t i = 0; i < count; i++) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm512_fmadd_ps(sums[c], x, x);
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        total += _mm512_reduce_add_ps(sums[c]);
    }
    return (uint64_t)total;
}
#else
static uint64_t read_all(const uint8_t *bytes)
{
    uint64_t sum = 0, word;

    for (size_t i = 0; i < BYTES_A_TASK; i += sizeof(word)) {
        memcpy(&word, bytes + i, sizeof(word));
        sum ^= word;
    }
    return sum;
}
#endif

enum { COMPUTE_COUNT = 500 * 1000 };

struct lanes {
    uint8_t *bytes; /* owned: [tasks][BYTES_A_TASK] */
    uint64_t results[THREADS_MAX * TASKS_A_THREAD];
};

static void read_task(void *context, uint32_t task, uint32_t worker)
{
    struct lanes *lanes = context;

    (void)worker;
    lanes->results[task] += read_all(lanes->bytes + (size_t)task * BYTES_A_TASK);
}

#if defined(__x86_64__)
static void int8_task(void *context, uint32_t task, uint32_t worker)
{
    struct lanes *lanes = context;

    (void)worker;
    lanes->results[task] += int8_round(COMPUTE_COUNT);
}

static void fp32_task(void *context, uint32_t task, uint32_t worker)
{
    struct lanes *lanes = context;

    (void)worker;
    lanes->results[task] += fp32_round(COMPUTE_COUNT);
}
#endif

/* Tasks a second, the best of the rounds. */
static double rate(struct pool *pool, void (*run_task)(void *, uint32_t, uint32_t),
                   struct lanes *lanes, uint32_t task_count)
{
    double best = 0;

    for (int round = 0; round < ROUNDS; round++) {
        const double begin = now_s();
        double found;

        pool_run(pool, run_task, lanes, task_count);
        found = task_count / (now_s() - begin);
        best = found > best ? found : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    static struct lanes lanes;
    const unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;
    const uint32_t count = wanted > 0 && wanted <= THREADS_MAX ? (uint32_t)wanted : 1;
    const uint32_t task_count = count * TASKS_A_THREAD;
    struct pool *pool;
    double memory, int8 = 0, fp32 = 0;
    uint64_t result = 0;
    enum cpu_isa isa;

    /* In huge pages, as weights are: plain ones would make the floor a slower machine's. */
    lanes.bytes = memory_alloc_huge(task_count, BYTES_A_TASK);
    if (lanes.bytes == NULL || pool_create(count, &pool) != STATUS_OK) {
        fprintf(stderr, "bench_machine: out of memory\n");
        return 1;
    }
    memset(lanes.bytes, 1, (size_t)task_count * BYTES_A_TASK);
    memory = rate(pool, read_task, &lanes, task_count);
    if (cpu_isa_choose("avx512", NULL, &isa) == STATUS_OK) {
#if defined(__x86_64__)
        int8 = rate(pool, int8_task, &lanes, task_count);
        fp32 = rate(pool, fp32_task, &lanes, task_count);
#endif
    }
    for (uint32_t i = 0; i < task_count; i++) {
        result ^= lanes.results[i];
    }
    printf("{\"threads\": %" PRIu32 ", \"memory_gb_s\": %.2f, \"int8_gop_s\": %.1f, "
           "\"fp32_gflop_s\": %.1f, \"check\": %" PRIu64 "}\n",
           count, memory * BYTES_A_TASK * 1e-9, int8 * COMPUTE_COUNT * CHAINS * 128e-9,
           fp32 * COMPUTE_COUNT * CHAINS * 32e-9, result);
    pool_destroy(pool);
    memory_free(lanes.bytes);
    return 0;
}
