/* Kernels on the CPU: the same source that nvcc compiles, run thread by thread, under sanitizers.
 *
 * Thread: one at a time; launches do not nest. Ownership: nothing is handed out; memory that
 * kernels see is the caller's, dynamic shared memory the emulator's.
 *
 * A thread of a block is a fiber that runs until it ends or has to wait. Blocks run one after the
 * other, or take turns (shuffled). Which goes first is the schedule's choice, and a kernel that is
 * right gives the same bits under all of them, with copies that land early or late. What the card
 * leaves undefined is made bad here: shared memory begins as NaNs, and so is a place that a copy is
 * on its way to.
 *
 * A kernel that breaks a rule (lanes that do not meet, a barrier that not all reach, addresses out
 * of line or outside of shared memory) ends the launch with DEVICE and a sentence in
 * emulator_fault_text(). Plain accesses out of bounds are AddressSanitizer's to find.
 *
 * What this cannot show stands in docs/gpu/README.md.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    EMULATOR_WARP_THREADS = 32,
    EMULATOR_BLOCK_THREADS_MAX = 1024,
    EMULATOR_SHARED_BYTES_MAX = 227 * 1024, /* of sm_90; sm_80 has 163 KiB */
    EMULATOR_CLUSTER_BLOCKS_MAX = 4,
    EMULATOR_WGMMA_COLUMNS_MAX = 256,
};

/* Of the threads that can run, the one that does, until it waits or ends. */
enum emulator_schedule {
    EMULATOR_ASCENDING,  /* the lowest; blocks too */
    EMULATOR_DESCENDING, /* the highest */
    EMULATOR_SHUFFLED,   /* any, as the seed has it; three blocks are under way at once */
};

enum emulator_number {
    EMULATOR_BF16,
    EMULATOR_F16,
};

struct emulator_settings {
    enum emulator_schedule schedule;
    uint32_t seed;
    bool copies_land_early; /* when they are started; else when they are waited for. The operands
                               of products of warpgroups are read so too */
    uint32_t architecture;  /* 80, 90: how tensor cores sum, how much shared memory there is */
    bool work_comes_late = false; /* the device's double: not before something waits for it */
    uint32_t wgmma_sums_as = 0;   /* planted: 80: warpgroups sum as that card's mma; 0: as ours */
};

/* Where the running thread is. For prim.cuh. */
struct emulator_place {
    uint32_t thread, threads;
    uint32_t block_x, block_y;
    uint32_t grid_x, grid_y;
    uint32_t rank; /* in its cluster */
};
extern struct emulator_place emulator_here;

/* A launch. `body(context)` is called as each thread of each block; `threads` is a multiple of 32.
 */
struct emulator_kernel {
    uint32_t grid_x, grid_y;
    uint32_t threads;
    uint32_t shared_bytes;
    void (*body)(void *context);
    void *context; /* borrowed while it runs */
    bool depends;  /* may begin before the kernel before it has ended, up to prim_depend_wait */
    uint32_t cluster = 1; /* blocks next to each other in x that run together; divides grid_x */
};

/* For the launches that follow. At first: ascending, copies land late, 90. */
void emulator_configure(const struct emulator_settings *settings);

const struct emulator_settings *emulator_read_settings(void);

/* Whether tests run all that they can (./dev test --long), or what covers each property once. */
bool emulator_runs_long(void);

/* 80 or 90, as configured. */
uint32_t emulator_architecture(void);

/* Products of warps of warpgroups since the last emulator_configure: what multiplied, a test may
 * ask.
 */
uint64_t emulator_wgmma_count(void);

/* Kernels as a stream runs them. Of one that depends, the first blocks come as far as they can
 * before the kernel before it has run at all: who reads or writes what the other does, before its
 * wait, is found out. Every thread of such a kernel must come to the wait: else the kernel after it
 * could not tell when all before has ended.
 * DEVICE: a kernel broke a rule. LIMIT: a shape that no card takes. What follows is not run. */
MUST_USE enum status emulator_launch_list(const struct emulator_kernel *kernels, uint32_t count);

/* One that does not depend. */
MUST_USE enum status emulator_launch(uint32_t grid_x, uint32_t grid_y, uint32_t threads,
                                     uint32_t shared_bytes, void (*body)(void *context),
                                     void *context);

/* What rule the last launch broke, by which thread; "" if none. Borrowed. */
const char *emulator_fault_text(void);

/* ---- bodies of prim.cuh, for a running thread; the words are explained there ---- */

void *emulator_shared(void);
void emulator_sync_block(void);
void emulator_sync_warp(void);
void emulator_sync_cluster(void);
const void *emulator_cluster_map(const void *shared, uint32_t rank);
void emulator_depend_wait(void);
void emulator_copy16(void *shared, const void *global, bool valid);
void emulator_copy_commit(void);
void emulator_load16_shared(uint32_t words[4], const void *shared);
void emulator_copy_wait(uint32_t pending);
void emulator_shuffle(void *value, size_t size_bytes, uint32_t source_lane);
uint32_t emulator_ballot(bool vote);
void emulator_ldmatrix_x4(uint32_t r[4], const void *row, bool transposed);
void emulator_mma(float c[4], const uint32_t a[4], const uint32_t b[2],
                  enum emulator_number number);
float emulator_exp2(float x);
void emulator_barrier_init(uint64_t *barrier, uint32_t arrivals);
void emulator_barrier_expect(uint64_t *barrier, uint32_t size_bytes);
void emulator_barrier_arrive(uint64_t *barrier, uint32_t rank);
void emulator_barrier_wait(uint64_t *barrier, uint32_t parity);
/* ranks 0: the own block; else a bit a block of the cluster. */
void emulator_copy_bulk(void *shared, const void *global, uint32_t size_bytes, uint64_t *barrier,
                        uint32_t ranks);
void emulator_wgmma_fence(void);
void emulator_wgmma(float *d, const uint32_t *a, uint64_t descriptor, uint32_t columns,
                    enum emulator_number number);
void emulator_wgmma_commit(void);
void emulator_wgmma_wait(void);
uint32_t emulator_shared_address(const void *shared); /* of the block's own */

/* ---- emulator_tensor.cpp ---- */

/* c + sum of a[i] * b[i] as one step of a tensor core with 16 terms gives it: products are exact,
 * all terms are cut (toward zero) to a number of bits below the largest exponent among them, their
 * sum is cut to fp32.   sm_90: 16 terms at once, 25 bits.   sm_80: 8, then 8 on top, 24 bits.
 * NaNs come out as 0x7fffffff. */
float emulator_tensor_sum(float c, const uint16_t a[16], const uint16_t b[16],
                          enum emulator_number number, uint32_t architecture);

#endif
