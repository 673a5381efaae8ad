/* Where threads meet: barriers, and the lanes of a warp. */
#include "tests/emulator/emulator_state.h"

#include <stdlib.h>

void emulator_wait_here(enum emulator_wait wait)
{
    const uint32_t thread = emulator_here.thread;

    emulator.block->fibers[thread].wait = wait;
    emulator.block->warps[thread / 32].ready &= ~(1u << thread % 32);
    emulator_leave();
}

void emulator_make_ready(struct emulator_block *block, uint32_t thread)
{
    block->fibers[thread].wait = EMULATOR_WAIT_NONE;
    block->warps[thread / 32].ready |= 1u << thread % 32;
}

/* True: the caller is the last lane of its warp, and does the work for all before
 * emulator_lanes_release; the others come back when it is done. */
bool emulator_lane_arrive(enum emulator_wait wait, struct emulator_offer offer)
{
    const uint32_t thread = emulator_here.thread;
    struct emulator_warp *warp = &emulator.block->warps[thread / 32];
    const struct emulator_fiber *lanes = &emulator.block->fibers[thread / 32 * 32];

    emulator.block->fibers[thread].offer = offer;
    if (warp->arrived != 0) {
        const uint32_t other = (uint32_t)__builtin_ctz(warp->arrived);
        if (lanes[other].wait != wait || lanes[other].offer.size_bytes != offer.size_bytes) {
            emulator.block->fibers[thread].wait = wait;
            emulator_fault_set("lanes part: thread %u %s, but thread %u %s",
                               (unsigned)(thread / 32 * 32 + other),
                               emulator_wait_texts[lanes[other].wait], (unsigned)thread,
                               emulator_wait_texts[wait]);
            emulator_leave();
            abort();
        }
    }
    warp->arrived |= 1u << thread % 32;
    if (warp->arrived == UINT32_MAX) {
        return true;
    }
    emulator_wait_here(wait);
    return false;
}

const struct emulator_offer *emulator_lane_offer(uint32_t lane)
{
    return &emulator.block->fibers[emulator_here.thread / 32 * 32 + lane].offer;
}

void emulator_lanes_release(void)
{
    struct emulator_warp *warp = &emulator.block->warps[emulator_here.thread / 32];
    struct emulator_fiber *lanes = &emulator.block->fibers[emulator_here.thread / 32 * 32];

    warp->arrived = 0;
    warp->ready = UINT32_MAX;
    for (uint32_t i = 0; i < EMULATOR_WARP_THREADS; i++) {
        lanes[i].wait = EMULATOR_WAIT_NONE;
    }
}

void emulator_sync_warp(void)
{
    if (emulator_lane_arrive(EMULATOR_WAIT_SYNC_WARP, {})) {
        emulator_lanes_release();
    }
}

void emulator_sync_block(void)
{
    if (++emulator.block->barrier_count < emulator_here.threads) {
        emulator_wait_here(EMULATOR_WAIT_SYNC_BLOCK);
        return;
    }
    emulator.block->barrier_count = 0;
    for (uint32_t i = 0; i < emulator_here.threads; i++) {
        emulator_make_ready(emulator.block, i);
    }
}

void emulator_sync_cluster(void)
{
    struct emulator_grid *grid = emulator.grid;

    if (++grid->cluster_arrived < emulator_here.threads * grid->kernel->cluster) {
        emulator_wait_here(EMULATOR_WAIT_SYNC_CLUSTER);
        return;
    }
    grid->cluster_arrived = 0;
    for (uint32_t rank = 0; rank < grid->kernel->cluster; rank++) {
        for (uint32_t i = 0; i < emulator_here.threads; i++) {
            emulator_make_ready(&grid->blocks[rank], i);
        }
    }
}

const void *emulator_cluster_map(const void *shared, uint32_t rank)
{
    const ptrdiff_t offset = static_cast<const unsigned char *>(shared) - emulator.block->shared;

    if (rank >= emulator.grid->kernel->cluster) {
        emulator_fault_here("asks for a block that its cluster does not have");
    }
    return emulator.grid->blocks[rank].shared + offset;
}

void emulator_depend_wait(void)
{
    emulator_fiber_here()->depended = true;
    if (!emulator.grid->released) {
        emulator_wait_here(EMULATOR_WAIT_DEPEND);
    }
}
