/* What the emulator's files hold together: the launch under way, its blocks, their fibers.
 *
 * Thread: that of the launch. Ownership: emulator.cpp has all of it; emulator_meet.cpp,
 * emulator_bulk.cpp and emulator_wgmma.cpp let its threads wait and go on.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_STATE_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_STATE_H

#include "tests/emulator/emulator_fiber.h"

enum {
    EMULATOR_WARPS_MAX = EMULATOR_BLOCK_THREADS_MAX / EMULATOR_WARP_THREADS,
    EMULATOR_RESIDENT_MAX = EMULATOR_CLUSTER_BLOCKS_MAX,
    EMULATOR_GRIDS = 2, /* one that runs, and one that depends on it */
    EMULATOR_FAULT_BYTES_MAX = 240,
    EMULATOR_FLIGHT_MAX = 8, /* products of a warp that nobody has waited for */
    EMULATOR_SUMS_MAX = EMULATOR_WGMMA_COLUMNS_MAX / 2, /* a lane's of a product */
};

/* By enum emulator_wait. */
extern const char *const emulator_wait_texts[];

/* A product of a warpgroup that one of its warps has begun: emulator_wgmma.cpp. */
struct emulator_product {
    const uint32_t *a[EMULATOR_WARP_THREADS]; /* registers: a lane's, which waits or goes on */
    uint64_t descriptor;
    uint32_t columns;
    enum emulator_number number;
    uint64_t group; /* of its commit */
};

/* What a warp has begun and not waited for, all of it into the same registers. */
struct emulator_flight {
    struct emulator_product products[EMULATOR_FLIGHT_MAX];
    uint32_t count;
    bool pending;   /* `sums` stand for what is in `d` */
    bool fenced;    /* since the last wait */
    uint64_t group; /* the one that collects now */
    float *d[EMULATOR_WARP_THREADS];
    float sums[EMULATOR_WARP_THREADS][EMULATOR_SUMS_MAX];
    const uint32_t *fenced_a[EMULATOR_WARP_THREADS]; /* of the last product behind the fence */
    uint32_t fenced_words[EMULATOR_WARP_THREADS][4];
    uint64_t history; /* of all products: the four warps of a group must have the same */
};

struct emulator_warp {
    uint32_t ready; /* a bit a lane */
    uint32_t arrived;
    struct emulator_flight flight;
};

/* A block that runs, or a place for one. */
struct emulator_block {
    bool alive;
    struct emulator_place place; /* its thread is whoever ran last */
    unsigned char *stacks;       /* one after the other, each behind its guard page */
    unsigned char *shared;       /* of the launch */
    uint32_t ended_count, barrier_count;
    uint32_t bulk_count; /* copies of emulator_bulk.cpp on their way to it */
    struct emulator_warp warps[EMULATOR_WARPS_MAX];
    struct emulator_fiber fibers[EMULATOR_BLOCK_THREADS_MAX];
};

/* A launch under way. */
struct emulator_grid {
    const struct emulator_kernel *kernel;
    bool released; /* what it depends on is done */
    uint64_t cluster_count, begun_count;
    uint64_t cluster_next, stride; /* a walk that meets every cluster once */
    uint32_t resident_count;       /* of a cluster: its blocks */
    uint32_t cluster_arrived;      /* threads at the barrier of the cluster that runs */
    struct emulator_block blocks[EMULATOR_RESIDENT_MAX];
};

struct emulator_state {
    struct emulator_settings settings;
    uint64_t wgmma_count; /* since it was configured */
    bool running;
    uint64_t random;
    bool faulted;
    char fault[EMULATOR_FAULT_BYTES_MAX];
    struct emulator_grid grids[EMULATOR_GRIDS];
    struct emulator_grid *grid;   /* of the running thread */
    struct emulator_block *block; /* of the running thread */
};
extern struct emulator_state emulator;

uint32_t emulator_random_next(uint32_t below);

/* Ends the launch; the caller must leave its fiber, if it is one. */
void emulator_fault_set(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From the running fiber back to the scheduler. One that has ended does not come back. */
void emulator_leave(void);

/* The running thread waits until somebody makes it ready. */
void emulator_wait_here(enum emulator_wait wait);
void emulator_make_ready(struct emulator_block *block, uint32_t thread);

/* ---- emulator_bulk.cpp ---- */

/* One of the copies on their way arrives; false: there is none. For the scheduler, when no thread
 * can run. */
bool emulator_bulk_land(struct emulator_grid *grid);
void emulator_bulk_forget(void); /* all, after a fault */

/* ---- emulator_wgmma.cpp ---- */

void emulator_flight_init(struct emulator_flight *flight);
/* What its warps did together is whole, or a fault. */
void emulator_flights_check(const struct emulator_block *block);

#endif
