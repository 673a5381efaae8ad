/* What the parts of the emulator know of each other: fibers, and the lanes of a warp.
 *
 * Thread: that of the launch. Ownership: emulator.cpp has the fibers.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_FIBER_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_FIBER_H

#include "tests/emulator/emulator.h"
#include "tests/emulator/emulator_switch.h"

enum { EMULATOR_COPY_COUNT_MAX = 256 }; /* of a thread, on their way */

/* Where a thread stands. */
enum emulator_wait {
    EMULATOR_WAIT_NONE,
    EMULATOR_WAIT_SYNC_BLOCK,
    EMULATOR_WAIT_SYNC_CLUSTER,
    EMULATOR_WAIT_SYNC_WARP,
    EMULATOR_WAIT_SHUFFLE,
    EMULATOR_WAIT_BALLOT,
    EMULATOR_WAIT_LDMATRIX,
    EMULATOR_WAIT_LDMATRIX_TRANS,
    EMULATOR_WAIT_MMA_BF16,
    EMULATOR_WAIT_MMA_F16,
    EMULATOR_WAIT_WGMMA_FENCE,
    EMULATOR_WAIT_WGMMA,
    EMULATOR_WAIT_WGMMA_COMMIT,
    EMULATOR_WAIT_WGMMA_WAIT,
    EMULATOR_WAIT_BARRIER,
    EMULATOR_WAIT_DEPEND,
    EMULATOR_WAIT_ENDED,
};

/* What a lane brings to where its warp meets. Pointers into its own stack, which waits. */
struct emulator_offer {
    void *value;
    const void *operands[2];
    size_t size_bytes;
    uint32_t lane;
};

/* A copy on its way. */
struct emulator_copy {
    void *to;
    const void *from; /* NULL: zeros */
    uint64_t group;
};

/* A thread. */
struct emulator_fiber {
    struct emulator_copy copies[EMULATOR_COPY_COUNT_MAX]; /* a ring */
    uint32_t copy_first, copy_count;
    uint64_t group; /* the one that collects now */
    enum emulator_wait wait;
    bool depended;           /* has been at prim_depend_wait */
    const uint64_t *barrier; /* EMULATOR_WAIT_BARRIER: the one */
    struct emulator_offer offer;
    struct emulator_context context;
};

/* The one that runs, and what its launch says. */
struct emulator_fiber *emulator_fiber_here(void);
uint32_t emulator_shared_bytes(void);

/* Of the groups before this one. */
void emulator_copies_land(struct emulator_fiber *fiber, uint64_t group_end);

/* The running thread's fault, after which it does not come back. */
void emulator_fault_here(const char *text) __attribute__((noreturn));

/* 16 bytes of shared memory at an aligned address, or a fault. */
void emulator_shared_check(const void *at);

/* A rule that no running thread broke: what emulator_fault_text() says until the next launch. */
void emulator_fault_outside(const char *text);

/* ---- a warp meets ----
 * True: the caller is the last lane, and does the work for all before emulator_lanes_release;
 * false: it was done. A lane that meets others elsewhere is a fault. */
bool emulator_lane_arrive(enum emulator_wait wait, struct emulator_offer offer);
void emulator_lanes_release(void);

/* What lane i of the running thread's warp brought. */
const struct emulator_offer *emulator_lane_offer(uint32_t lane);

#endif
