/* Barriers in shared memory that count arrivals and bytes, and the copies that bring these.
 *
 * A barrier is one word: bits 0..15 arrivals that are missing in this phase, 16..31 arrivals of a
 * phase, 32..62 bytes that are missing (plus BYTES_BIAS: a copy may come before it is announced),
 * 63 the phase.
 */
#include <string.h>

#include <vector>

#include "tests/emulator/emulator_state.h"

enum { ARRIVALS_MAX = 4096 };
#define BYTES_BIAS (UINT64_C(1) << 29)

struct bulk {
    struct emulator_grid *grid;
    struct emulator_block *block; /* whose shared memory it goes to */
    unsigned char *to;
    const unsigned char *from;
    uint32_t size_bytes;
    uint64_t *barrier; /* the block's */
};

static std::vector<struct bulk> under_way;

static uint32_t missing_of(uint64_t word)
{
    return (uint32_t)(word & 0xffff);
}

static uint32_t arrivals_of(uint64_t word)
{
    return (uint32_t)(word >> 16 & 0xffff);
}

static uint64_t bytes_of(uint64_t word)
{
    return word >> 32 & 0x7fffffff;
}

static void check_barrier(const uint64_t *barrier)
{
    const ptrdiff_t offset =
        reinterpret_cast<const unsigned char *>(barrier) - emulator.block->shared;

    if (offset % 8 != 0 || offset < 0 || offset + 8 > (ptrdiff_t)emulator_shared_bytes()) {
        emulator_fault_here("a barrier is not in shared memory, aligned to 8");
    }
    if (arrivals_of(*barrier) == 0 || arrivals_of(*barrier) > ARRIVALS_MAX) {
        emulator_fault_here("a barrier was never begun");
    }
}

static uint64_t *barrier_of(struct emulator_block *block, const uint64_t *barrier)
{
    const ptrdiff_t offset =
        reinterpret_cast<const unsigned char *>(barrier) - emulator.block->shared;

    return reinterpret_cast<uint64_t *>(block->shared + offset);
}

/* A phase ends when nothing is missing; those who wait look again. */
static void turn(struct emulator_block *block, uint64_t *barrier)
{
    if (missing_of(*barrier) != 0 || bytes_of(*barrier) != BYTES_BIAS) {
        return;
    }
    *barrier = (*barrier ^ UINT64_C(1) << 63) | arrivals_of(*barrier);
    for (uint32_t i = 0; i < block->place.threads; i++) {
        if (block->fibers[i].wait == EMULATOR_WAIT_BARRIER && block->fibers[i].barrier == barrier) {
            emulator_make_ready(block, i);
        }
    }
}

void emulator_barrier_init(uint64_t *barrier, uint32_t arrivals)
{
    if (arrivals == 0 || arrivals > ARRIVALS_MAX) {
        emulator_fault_here("a barrier for no arrivals, or for too many");
    }
    *barrier = arrivals | (uint64_t)arrivals << 16 | BYTES_BIAS << 32;
    check_barrier(barrier);
}

void emulator_barrier_expect(uint64_t *barrier, uint32_t size_bytes)
{
    check_barrier(barrier);
    *barrier += (uint64_t)size_bytes << 32;
}

void emulator_barrier_arrive(uint64_t *barrier, uint32_t rank)
{
    if (rank >= emulator.grid->kernel->cluster) {
        emulator_fault_here("arrives at a block that its cluster does not have");
    }
    struct emulator_block *block =
        emulator.grid->kernel->cluster == 1 ? emulator.block : &emulator.grid->blocks[rank];
    uint64_t *there = barrier_of(block, barrier);

    check_barrier(barrier);
    if (!block->alive) {
        emulator_fault_here("arrives at a barrier of a block that has ended");
    }
    if (missing_of(*there) == 0) {
        emulator_fault_here("arrives at a barrier that has all arrivals of its phase");
    }
    *there -= 1;
    turn(block, there);
}

void emulator_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    check_barrier(barrier);
    while (*barrier >> 63 == (parity & 1)) {
        emulator_fiber_here()->barrier = barrier;
        emulator_wait_here(EMULATOR_WAIT_BARRIER);
    }
}

static void land(const struct bulk *bulk)
{
    memcpy(bulk->to, bulk->from, bulk->size_bytes);
    *bulk->barrier -= (uint64_t)bulk->size_bytes << 32;
    bulk->block->bulk_count--;
    turn(bulk->block, bulk->barrier);
}

static void send(struct emulator_block *block, ptrdiff_t offset, const void *global,
                 uint32_t size_bytes, const uint64_t *barrier)
{
    const struct bulk bulk = {emulator.grid,
                              block,
                              block->shared + offset,
                              static_cast<const unsigned char *>(global),
                              size_bytes,
                              barrier_of(block, barrier)};

    if (!block->alive) {
        emulator_fault_here("copies to a block that has ended");
    }
    block->bulk_count++;
    if (emulator.settings.copies_land_early) {
        land(&bulk);
        return;
    }
    memset(bulk.to, 0xff, size_bytes);
    under_way.push_back(bulk);
}

void emulator_copy_bulk(void *shared, const void *global, uint32_t size_bytes, uint64_t *barrier,
                        uint32_t ranks)
{
    const ptrdiff_t offset = static_cast<unsigned char *>(shared) - emulator.block->shared;
    const uint32_t cluster = emulator.grid->kernel->cluster;

    check_barrier(barrier);
    if (offset % 16 != 0 || size_bytes % 16 != 0 || size_bytes == 0 ||
        reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        emulator_fault_here("a bulk copy is not in whole, aligned 16 bytes");
    }
    if (offset < 0 || offset + (ptrdiff_t)size_bytes > (ptrdiff_t)emulator_shared_bytes()) {
        emulator_fault_here("a bulk copy goes past shared memory");
    }
    if (ranks == 0) { /* to the own block */
        send(emulator.block, offset, global, size_bytes, barrier);
        return;
    }
    if (cluster == 1 || ranks >> cluster != 0) {
        emulator_fault_here("copies to a block that its cluster does not have");
    }
    for (uint32_t rank = 0; rank < cluster; rank++) {
        if ((ranks >> rank & 1) != 0) {
            send(&emulator.grid->blocks[rank], offset, global, size_bytes, barrier);
        }
    }
}

/* The oldest, the youngest or any, by the schedule. */
bool emulator_bulk_land(struct emulator_grid *grid)
{
    const enum emulator_schedule schedule = emulator.settings.schedule;
    std::vector<size_t> own;

    for (size_t i = 0; i < under_way.size(); i++) {
        if (under_way[i].grid == grid) {
            own.push_back(i);
        }
    }
    if (own.empty()) {
        return false;
    }
    const size_t at = schedule == EMULATOR_ASCENDING    ? own.front()
                      : schedule == EMULATOR_DESCENDING ? own.back()
                                                        : own[emulator_random_next(own.size())];
    const struct bulk bulk = under_way[at];
    under_way.erase(under_way.begin() + (ptrdiff_t)at);
    land(&bulk);
    return true;
}

void emulator_bulk_forget(void)
{
    under_way.clear();
}
