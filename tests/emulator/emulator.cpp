/* The threads of blocks as fibers, which of them runs, and where they meet. */
#include "tests/emulator/emulator_state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RESIDENT_SHUFFLED = 3, /* blocks of a grid that are in the middle of their work at once */
};

const char *const emulator_wait_texts[] = {
    "runs",
    "waits at prim_sync",
    "waits at prim_cluster_sync",
    "waits at prim_sync_warp",
    "waits at a shuffle",
    "waits at a ballot",
    "waits at prim_ldmatrix",
    "waits at prim_ldmatrix_trans",
    "waits at prim_mma_bf16",
    "waits at prim_mma_f16",
    "waits at prim_wgmma_fence",
    "waits at prim_wgmma",
    "waits at prim_wgmma_commit",
    "waits at prim_wgmma_wait",
    "waits at prim_barrier_wait",
    "waits at prim_depend_wait",
    "has ended",
};

struct emulator_state emulator;

struct emulator_place emulator_here;

/* ---- switching ---- */

static struct emulator_fiber *fiber_here(void)
{
    return &emulator.block->fibers[emulator_here.thread];
}

void emulator_leave(void)
{
    struct emulator_fiber *fiber = fiber_here();

    emulator_context_leave(&fiber->context, fiber->wait == EMULATOR_WAIT_ENDED);
}

static void switch_to_fiber(struct emulator_grid *grid, struct emulator_block *block,
                            uint32_t thread)
{
    emulator.grid = grid;
    emulator.block = block;
    emulator_here = block->place;
    emulator_here.thread = thread;
    emulator_context_enter(&block->fibers[thread].context);
}

void emulator_fault_set(const char *format, ...)
{
    char text[EMULATOR_FAULT_BYTES_MAX / 2];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)snprintf(emulator.fault, sizeof emulator.fault, "block (%u, %u): %s",
                   (unsigned)emulator_here.block_x, (unsigned)emulator_here.block_y, text);
    emulator.faulted = true;
}

void emulator_fault_outside(const char *text)
{
    (void)snprintf(emulator.fault, sizeof emulator.fault, "%s", text);
}

void emulator_fault_here(const char *text)
{
    emulator_fault_set("thread %u: %s", (unsigned)emulator_here.thread, text);
    emulator_leave();
    abort();
}

/* ---- the life of a fiber ---- */

static void fiber_main(void)
{
    emulator_context_begin();
    emulator.grid->kernel->body(emulator.grid->kernel->context);
    struct emulator_fiber *fiber = fiber_here();
    emulator_copies_land(fiber, UINT64_MAX);
    if (emulator.grid->kernel->depends && !fiber->depended) {
        emulator_fault_here("ends without prim_depend_wait, though its kernel may begin early");
    }
    fiber->wait = EMULATOR_WAIT_ENDED;
    emulator.block->ended_count++;
    emulator_leave();
    abort();
}

static void fiber_init(struct emulator_block *block, uint32_t thread)
{
    struct emulator_fiber *fiber = &block->fibers[thread];

    fiber->copy_first = 0;
    fiber->copy_count = 0;
    fiber->group = 0;
    fiber->wait = EMULATOR_WAIT_NONE;
    fiber->depended = false;
    fiber->barrier = NULL;
    emulator_context_init(&fiber->context, emulator_stack_at(block->stacks, thread), fiber_main);
}

/* ---- the scheduler ---- */

uint32_t emulator_random_next(uint32_t below)
{
    emulator.random = emulator.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((emulator.random >> 33) % below);
}

/* The n-th of the bits that are set. */
static uint32_t bit_pick(uint32_t bits, uint32_t n)
{
    for (; n > 0; n--) {
        bits &= bits - 1;
    }
    return (uint32_t)__builtin_ctz(bits);
}

/* False: none of the block can run. */
static bool thread_choose(const struct emulator_block *block, uint32_t *thread)
{
    const uint32_t warp_count = block->place.threads / EMULATOR_WARP_THREADS;
    const enum emulator_schedule schedule = emulator.settings.schedule;
    const uint32_t first = schedule == EMULATOR_SHUFFLED ? emulator_random_next(warp_count) : 0;

    for (uint32_t i = 0; i < warp_count; i++) {
        const uint32_t warp =
            schedule == EMULATOR_DESCENDING ? warp_count - 1 - i : (first + i) % warp_count;
        const uint32_t ready = block->warps[warp].ready;
        if (ready == 0) {
            continue;
        }
        uint32_t lane = (uint32_t)__builtin_ctz(ready);
        if (schedule == EMULATOR_DESCENDING) {
            lane = 31 - (uint32_t)__builtin_clz(ready);
        } else if (schedule == EMULATOR_SHUFFLED) {
            lane = bit_pick(ready, emulator_random_next((uint32_t)__builtin_popcount(ready)));
        }
        *thread = warp * EMULATOR_WARP_THREADS + lane;
        return true;
    }
    return false;
}

/* NULL: none of the grid's blocks can run. Shuffled blocks take turns at every wait. */
static struct emulator_block *block_choose(struct emulator_grid *grid, uint32_t *thread)
{
    const uint32_t count = grid->resident_count;
    const uint32_t first = count > 1 ? emulator_random_next(count) : 0;

    for (uint32_t i = 0; i < count; i++) {
        struct emulator_block *block = &grid->blocks[(first + i) % count];
        if (block->alive && thread_choose(block, thread)) {
            return block;
        }
    }
    return NULL;
}

/* None can run, but not all have ended: names one that waits and one that does not come. */
static void fault_of_deadlock(const struct emulator_block *block)
{
    uint32_t waiting = 0;

    for (; block->fibers[waiting].wait == EMULATOR_WAIT_ENDED; waiting++) {
    }
    const enum emulator_wait wait = block->fibers[waiting].wait;
    emulator_here = block->place;
    if (wait == EMULATOR_WAIT_SYNC_CLUSTER) {
        emulator_fault_set("thread %u %s, but not all threads of its cluster come",
                           (unsigned)waiting, emulator_wait_texts[wait]);
        return;
    }
    if (wait == EMULATOR_WAIT_BARRIER) {
        const uint64_t word = *block->fibers[waiting].barrier;
        emulator_fault_set("thread %u %s, but %u arrivals and %lld bytes are missing",
                           (unsigned)waiting, emulator_wait_texts[wait], (unsigned)(word & 0xffff),
                           (long long)(word >> 32 & 0x7fffffff) - (1 << 29));
        return;
    }
    const uint32_t first = wait == EMULATOR_WAIT_SYNC_BLOCK ? 0 : waiting / 32 * 32;
    uint32_t missing = first;
    while (block->fibers[missing].wait == wait) {
        missing++;
    }
    emulator_fault_set("thread %u %s, but thread %u %s", (unsigned)waiting,
                       emulator_wait_texts[wait], (unsigned)missing,
                       emulator_wait_texts[block->fibers[missing].wait]);
}

static void block_begin(struct emulator_grid *grid, struct emulator_block *block, uint64_t index,
                        uint32_t rank)
{
    const struct emulator_kernel *kernel = grid->kernel;

    block->alive = true;
    block->place = {0,
                    kernel->threads,
                    (uint32_t)(index % kernel->grid_x),
                    (uint32_t)(index / kernel->grid_x),
                    kernel->grid_x,
                    kernel->grid_y,
                    rank};
    if (kernel->shared_bytes > 0) {
        memset(block->shared, 0xff, kernel->shared_bytes);
    }
    block->ended_count = 0;
    block->barrier_count = 0;
    block->bulk_count = 0;
    for (uint32_t i = 0; i < kernel->threads; i++) {
        fiber_init(block, i);
    }
    for (uint32_t i = 0; i < kernel->threads / EMULATOR_WARP_THREADS; i++) {
        block->warps[i].ready = UINT32_MAX;
        block->warps[i].arrived = 0;
        emulator_flight_init(&block->warps[i].flight);
    }
}

static void cluster_begin(struct emulator_grid *grid, uint32_t place)
{
    const uint32_t cluster = grid->kernel->cluster;

    for (uint32_t i = 0; i < cluster; i++) {
        block_begin(grid, &grid->blocks[place + i], grid->cluster_next * cluster + i, i);
    }
    grid->cluster_arrived = 0;
    grid->cluster_next = (grid->cluster_next + grid->stride) % grid->cluster_count;
    grid->begun_count++;
}

/* Fills the places whose blocks have ended. A cluster begins when all of the last have. */
static void blocks_begin(struct emulator_grid *grid)
{
    const uint32_t cluster = grid->kernel->cluster;
    uint32_t alive_count = 0;

    for (uint32_t i = 0; i < grid->resident_count; i++) {
        alive_count += grid->blocks[i].alive;
        if (cluster == 1 && !grid->blocks[i].alive && grid->begun_count < grid->cluster_count) {
            cluster_begin(grid, i);
        }
    }
    if (cluster > 1 && alive_count == 0 && grid->begun_count < grid->cluster_count) {
        cluster_begin(grid, 0);
    }
}

/* What a block of a cluster had in shared memory ends with it. */
static void block_end(struct emulator_grid *grid, struct emulator_block *block)
{
    block->alive = false;
    emulator_flights_check(block);
    if (block->bulk_count != 0) {
        emulator_here = block->place;
        emulator_fault_set("ends while %u bulk copies are on their way to it",
                           (unsigned)block->bulk_count);
    }
    if (grid->kernel->shared_bytes > 0) {
        memset(block->shared, 0xff, grid->kernel->shared_bytes);
    }
    blocks_begin(grid);
}

/* Until no thread can run: all have ended, or what the grid depends on must end first. */
static void grid_run(struct emulator_grid *grid)
{
    struct emulator_block *block;
    uint32_t thread;

    blocks_begin(grid);
    while (!emulator.faulted) {
        block = block_choose(grid, &thread);
        if (block == NULL) {
            if (!emulator_bulk_land(grid)) {
                break;
            }
            continue;
        }
        switch_to_fiber(grid, block, thread);
        if (block->fibers[thread].wait != EMULATOR_WAIT_ENDED) {
            continue;
        }
        block->warps[thread / 32].ready &= ~(1u << thread % 32);
        if (block->ended_count == block->place.threads) {
            block_end(grid, block);
        }
    }
    for (uint32_t i = 0; i < grid->resident_count && grid->released; i++) {
        if (!emulator.faulted && grid->blocks[i].alive) {
            fault_of_deadlock(&grid->blocks[i]);
        }
    }
}

/* What the grid depends on is done: those who wait for it go on. */
static void grid_release(struct emulator_grid *grid)
{
    grid->released = true;
    for (uint32_t i = 0; i < grid->resident_count; i++) {
        struct emulator_block *block = &grid->blocks[i];
        for (uint32_t thread = 0; block->alive && thread < block->place.threads; thread++) {
            if (block->fibers[thread].wait == EMULATOR_WAIT_DEPEND) {
                block->fibers[thread].wait = EMULATOR_WAIT_NONE;
                block->warps[thread / 32].ready |= 1u << thread % 32;
            }
        }
    }
}

/* A grid without a thread that has run. */
static enum status grid_begin(struct emulator_grid *grid, const struct emulator_kernel *kernel)
{
    const uint64_t count = (uint64_t)kernel->grid_x * kernel->grid_y / kernel->cluster;
    const enum emulator_schedule schedule = emulator.settings.schedule;
    const uint32_t resident = schedule == EMULATOR_SHUFFLED ? (uint32_t)RESIDENT_SHUFFLED : 1;

    grid->kernel = kernel;
    grid->released = !kernel->depends;
    grid->cluster_count = count;
    grid->begun_count = 0;
    grid->cluster_next = 0;
    grid->stride = 1;
    grid->resident_count = count < resident ? (uint32_t)count : resident;
    if (kernel->cluster > 1) {
        grid->resident_count = kernel->cluster;
    }
    emulator.random = emulator.settings.seed;
    if (schedule == EMULATOR_DESCENDING) {
        grid->cluster_next = grid->stride = count - 1;
    } else if (schedule == EMULATOR_SHUFFLED) {
        grid->cluster_next = emulator_random_next((uint32_t)count);
        grid->stride = 1000003 % count == 0 ? 1 : 1000003; /* a prime */
    }
    for (uint32_t i = 0; i < grid->resident_count; i++) {
        void *shared = NULL;
        if (grid->blocks[i].stacks == NULL) {
            TRY(emulator_stacks_create(EMULATOR_BLOCK_THREADS_MAX, &grid->blocks[i].stacks));
        }
        /* Exactly as large as asked for, so that AddressSanitizer sees what lies past it. */
        if (posix_memalign(&shared, 128, kernel->shared_bytes) != 0) {
            return STATUS_MEMORY;
        }
        grid->blocks[i].shared = static_cast<unsigned char *>(shared);
        grid->blocks[i].alive = false;
    }
    return STATUS_OK;
}

static void grid_end(struct emulator_grid *grid)
{
    for (uint32_t i = 0; i < EMULATOR_RESIDENT_MAX; i++) {
        free(grid->blocks[i].shared);
        grid->blocks[i].shared = NULL;
    }
}

uint32_t emulator_architecture(void)
{
    return emulator.settings.architecture != 0 ? emulator.settings.architecture : 90;
}

bool emulator_runs_long(void)
{
    const char *value = getenv("PERSONAD_LONG");
    return value != NULL && strcmp(value, "1") == 0;
}

void emulator_configure(const struct emulator_settings *settings)
{
    emulator.settings = *settings;
    emulator.wgmma_count = 0;
}

uint64_t emulator_wgmma_count(void)
{
    return emulator.wgmma_count;
}

const char *emulator_fault_text(void)
{
    return emulator.fault;
}

static enum status check_shape(const struct emulator_kernel *kernel)
{
    const uint32_t shared_bytes_max =
        emulator_architecture() >= 90 ? (uint32_t)EMULATOR_SHARED_BYTES_MAX : 163 * 1024;

    if (kernel->threads == 0 || kernel->threads % EMULATOR_WARP_THREADS != 0 ||
        kernel->threads > EMULATOR_BLOCK_THREADS_MAX || kernel->shared_bytes > shared_bytes_max ||
        kernel->grid_x == 0 || kernel->grid_x > INT32_MAX || kernel->grid_y == 0 ||
        kernel->grid_y > UINT16_MAX || kernel->cluster == 0 ||
        kernel->cluster > (emulator_architecture() >= 90 ? EMULATOR_CLUSTER_BLOCKS_MAX : 1) ||
        kernel->grid_x % kernel->cluster != 0) {
        (void)snprintf(emulator.fault, sizeof emulator.fault,
                       "grid (%u, %u), clusters of %u, %u threads, %u bytes of shared memory",
                       (unsigned)kernel->grid_x, (unsigned)kernel->grid_y,
                       (unsigned)kernel->cluster, (unsigned)kernel->threads,
                       (unsigned)kernel->shared_bytes);
        return STATUS_LIMIT;
    }
    return STATUS_OK;
}

/* Kernel `index`, and the part of the next that comes before its wait. */
static enum status run_one(const struct emulator_kernel *kernels, uint32_t index, uint32_t count)
{
    struct emulator_grid *grid = &emulator.grids[index % EMULATOR_GRIDS];
    struct emulator_grid *next = &emulator.grids[(index + 1) % EMULATOR_GRIDS];

    if (index == 0 || !kernels[index].depends) {
        TRY(check_shape(&kernels[index]));
        TRY(grid_begin(grid, &kernels[index]));
    }
    if (index + 1 < count && kernels[index + 1].depends) {
        TRY(check_shape(&kernels[index + 1]));
        TRY(grid_begin(next, &kernels[index + 1]));
        grid_run(next);
    }
    grid_release(grid);
    grid_run(grid);
    grid_end(grid);
    return emulator.faulted ? STATUS_DEVICE : STATUS_OK;
}

enum status emulator_launch_list(const struct emulator_kernel *kernels, uint32_t count)
{
    enum status status = STATUS_OK;

    if (emulator.running) {
        abort(); /* a launch from within a kernel */
    }
    emulator.faulted = false;
    emulator.fault[0] = '\0';
    emulator.running = true;
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        status = run_one(kernels, i, count);
    }
    emulator_bulk_forget();
    for (uint32_t i = 0; i < EMULATOR_GRIDS; i++) {
        grid_end(&emulator.grids[i]); /* after a fault */
    }
    emulator.running = false;
    return status;
}

enum status emulator_launch(uint32_t grid_x, uint32_t grid_y, uint32_t threads,
                            uint32_t shared_bytes, void (*body)(void *context), void *context)
{
    const struct emulator_kernel kernel = {grid_x, grid_y,  threads, shared_bytes,
                                           body,   context, false};

    return emulator_launch_list(&kernel, 1);
}

/* ---- what the other parts ask ---- */

struct emulator_fiber *emulator_fiber_here(void)
{
    return fiber_here();
}

const struct emulator_settings *emulator_read_settings(void)
{
    return &emulator.settings;
}

uint32_t emulator_shared_bytes(void)
{
    return emulator.grid->kernel->shared_bytes;
}

void *emulator_shared(void)
{
    return emulator.block->shared;
}

uint32_t emulator_shared_address(const void *shared)
{
    return (uint32_t)(static_cast<const unsigned char *>(shared) - emulator.block->shared);
}
