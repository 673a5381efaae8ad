/* What the parts of the emulator know of each other: fibers, and the lanes of a warp.
 *
 * Thread: that of the launch. Ownership: all of it is emulator.cpp's.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_FIBER_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_FIBER_H

#include "tests/emulator/emulator.h"

/* Where a thread stands. */
enum emulator_wait {
    EMULATOR_WAIT_NONE,
    EMULATOR_WAIT_SYNC_BLOCK,
    EMULATOR_WAIT_SYNC_WARP,
    EMULATOR_WAIT_SHUFFLE,
    EMULATOR_WAIT_BALLOT,
    EMULATOR_WAIT_LDMATRIX,
    EMULATOR_WAIT_LDMATRIX_TRANS,
    EMULATOR_WAIT_MMA_BF16,
    EMULATOR_WAIT_MMA_F16,
    EMULATOR_WAIT_ENDED,
};

/* What a lane brings to where its warp meets. Pointers into its own stack, which waits. */
struct emulator_offer {
    void *value;
    const void *operands[2];
    size_t size_bytes;
    uint32_t lane;
};

/* The running thread's fault, after which it does not come back. */
void emulator_fault_here(const char *text) __attribute__((noreturn));

/* 16 bytes of shared memory at an aligned address, or a fault. */
void emulator_shared_check(const void *at);

/* ---- a warp meets ----
 * True: the caller is the last lane, and does the work for all before emulator_lanes_release;
 * false: it was done. A lane that meets others elsewhere is a fault. */
bool emulator_lane_arrive(enum emulator_wait wait, struct emulator_offer offer);
void emulator_lanes_release(void);

/* What lane i of the running thread's warp brought. */
const struct emulator_offer *emulator_lane_offer(uint32_t lane);

#endif
