/* The threads of blocks as fibers, which of them runs, and where they meet. */
#include "tests/emulator/emulator_fiber.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WARP_COUNT_MAX = EMULATOR_BLOCK_THREADS_MAX / EMULATOR_WARP_THREADS,
    RESIDENT_MAX = EMULATOR_CLUSTER_BLOCKS_MAX,
    RESIDENT_SHUFFLED = 3, /* blocks of a grid that are in the middle of their work at once */
    GRID_COUNT = 2,        /* one that runs, and one that depends on it */
    FAULT_BYTES_MAX = 240,
};

static const char *const wait_texts[] = {
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
    "waits at prim_depend_wait",
    "has ended",
};

struct warp {
    uint32_t ready; /* a bit a lane */
    uint32_t arrived;
};

/* A block that runs, or a place for one. */
struct block {
    bool alive;
    struct emulator_place place; /* its thread is whoever ran last */
    unsigned char *stacks;       /* one after the other, each behind its guard page */
    unsigned char *shared;       /* of the launch */
    uint32_t ended_count, barrier_count;
    struct warp warps[WARP_COUNT_MAX];
    struct emulator_fiber fibers[EMULATOR_BLOCK_THREADS_MAX];
};

/* A launch under way. */
struct grid {
    const struct emulator_kernel *kernel;
    bool released; /* what it depends on is done */
    uint64_t cluster_count, begun_count;
    uint64_t cluster_next, stride; /* a walk that meets every cluster once */
    uint32_t resident_count;       /* of a cluster: its blocks */
    uint32_t cluster_arrived;      /* threads at the barrier of the cluster that runs */
    struct block blocks[RESIDENT_MAX];
};

static struct {
    struct emulator_settings settings;
    bool running;
    uint64_t random;
    bool faulted;
    char fault[FAULT_BYTES_MAX];
    struct grid grids[GRID_COUNT];
    struct grid *grid;   /* of the running thread */
    struct block *block; /* of the running thread */
} emulator = {};

struct emulator_place emulator_here;

/* ---- switching ---- */

static struct emulator_fiber *fiber_here(void)
{
    return &emulator.block->fibers[emulator_here.thread];
}

/* From the running fiber back to the scheduler. A fiber that has ended does not come back. */
static void switch_to_scheduler(void)
{
    struct emulator_fiber *fiber = fiber_here();

    emulator_context_leave(&fiber->context, fiber->wait == EMULATOR_WAIT_ENDED);
}

static void switch_to_fiber(struct grid *grid, struct block *block, uint32_t thread)
{
    emulator.grid = grid;
    emulator.block = block;
    emulator_here = block->place;
    emulator_here.thread = thread;
    emulator_context_enter(&block->fibers[thread].context);
}

static void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Ends the launch; from a fiber it does not return. */
static void fault(const char *format, ...)
{
    char text[FAULT_BYTES_MAX / 2];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)snprintf(emulator.fault, sizeof emulator.fault, "block (%u, %u): %s",
                   (unsigned)emulator_here.block_x, (unsigned)emulator_here.block_y, text);
    emulator.faulted = true;
}

void emulator_fault_here(const char *text)
{
    fault("thread %u: %s", (unsigned)emulator_here.thread, text);
    switch_to_scheduler();
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
    switch_to_scheduler();
    abort();
}

static void fiber_init(struct block *block, uint32_t thread)
{
    struct emulator_fiber *fiber = &block->fibers[thread];

    fiber->copy_first = 0;
    fiber->copy_count = 0;
    fiber->group = 0;
    fiber->wait = EMULATOR_WAIT_NONE;
    fiber->depended = false;
    emulator_context_init(&fiber->context, emulator_stack_at(block->stacks, thread), fiber_main);
}

/* ---- the scheduler ---- */

static uint32_t random_next(uint32_t below)
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
static bool thread_choose(const struct block *block, uint32_t *thread)
{
    const uint32_t warp_count = block->place.threads / EMULATOR_WARP_THREADS;
    const enum emulator_schedule schedule = emulator.settings.schedule;
    const uint32_t first = schedule == EMULATOR_SHUFFLED ? random_next(warp_count) : 0;

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
            lane = bit_pick(ready, random_next((uint32_t)__builtin_popcount(ready)));
        }
        *thread = warp * EMULATOR_WARP_THREADS + lane;
        return true;
    }
    return false;
}

/* NULL: none of the grid's blocks can run. Shuffled blocks take turns at every wait. */
static struct block *block_choose(struct grid *grid, uint32_t *thread)
{
    const uint32_t count = grid->resident_count;
    const uint32_t first = count > 1 ? random_next(count) : 0;

    for (uint32_t i = 0; i < count; i++) {
        struct block *block = &grid->blocks[(first + i) % count];
        if (block->alive && thread_choose(block, thread)) {
            return block;
        }
    }
    return NULL;
}

/* None can run, but not all have ended: names one that waits and one that does not come. */
static void fault_of_deadlock(const struct block *block)
{
    uint32_t waiting = 0;

    for (; block->fibers[waiting].wait == EMULATOR_WAIT_ENDED; waiting++) {
    }
    const enum emulator_wait wait = block->fibers[waiting].wait;
    emulator_here = block->place;
    if (wait == EMULATOR_WAIT_SYNC_CLUSTER) {
        fault("thread %u %s, but not all threads of its cluster come", (unsigned)waiting,
              wait_texts[wait]);
        return;
    }
    const uint32_t first = wait == EMULATOR_WAIT_SYNC_BLOCK ? 0 : waiting / 32 * 32;
    uint32_t missing = first;
    while (block->fibers[missing].wait == wait) {
        missing++;
    }
    fault("thread %u %s, but thread %u %s", (unsigned)waiting, wait_texts[wait], (unsigned)missing,
          wait_texts[block->fibers[missing].wait]);
}

static void block_begin(struct grid *grid, struct block *block, uint64_t index, uint32_t rank)
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
    for (uint32_t i = 0; i < kernel->threads; i++) {
        fiber_init(block, i);
    }
    for (uint32_t i = 0; i < kernel->threads / EMULATOR_WARP_THREADS; i++) {
        block->warps[i].ready = UINT32_MAX;
        block->warps[i].arrived = 0;
    }
}

static void cluster_begin(struct grid *grid, uint32_t place)
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
static void blocks_begin(struct grid *grid)
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
static void block_end(struct grid *grid, struct block *block)
{
    block->alive = false;
    if (grid->kernel->shared_bytes > 0) {
        memset(block->shared, 0xff, grid->kernel->shared_bytes);
    }
    blocks_begin(grid);
}

/* Until no thread can run: all have ended, or what the grid depends on must end first. */
static void grid_run(struct grid *grid)
{
    struct block *block;
    uint32_t thread;

    blocks_begin(grid);
    while (!emulator.faulted && (block = block_choose(grid, &thread)) != NULL) {
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
static void grid_release(struct grid *grid)
{
    grid->released = true;
    for (uint32_t i = 0; i < grid->resident_count; i++) {
        struct block *block = &grid->blocks[i];
        for (uint32_t thread = 0; block->alive && thread < block->place.threads; thread++) {
            if (block->fibers[thread].wait == EMULATOR_WAIT_DEPEND) {
                block->fibers[thread].wait = EMULATOR_WAIT_NONE;
                block->warps[thread / 32].ready |= 1u << thread % 32;
            }
        }
    }
}

/* A grid without a thread that has run. */
static enum status grid_begin(struct grid *grid, const struct emulator_kernel *kernel)
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
        grid->cluster_next = random_next((uint32_t)count);
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

static void grid_end(struct grid *grid)
{
    for (uint32_t i = 0; i < RESIDENT_MAX; i++) {
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
    struct grid *grid = &emulator.grids[index % GRID_COUNT];
    struct grid *next = &emulator.grids[(index + 1) % GRID_COUNT];

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
    for (uint32_t i = 0; i < GRID_COUNT; i++) {
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

/* ---- where threads meet ---- */

static void lane_wait(enum emulator_wait wait)
{
    const uint32_t thread = emulator_here.thread;

    emulator.block->fibers[thread].wait = wait;
    emulator.block->warps[thread / 32].ready &= ~(1u << thread % 32);
    switch_to_scheduler();
}

/* True: the caller is the last lane of its warp, and does the work for all before
 * emulator_lanes_release; the others come back when it is done. */
bool emulator_lane_arrive(enum emulator_wait wait, struct emulator_offer offer)
{
    const uint32_t thread = emulator_here.thread;
    struct warp *warp = &emulator.block->warps[thread / 32];
    const struct emulator_fiber *lanes = &emulator.block->fibers[thread / 32 * 32];

    emulator.block->fibers[thread].offer = offer;
    if (warp->arrived != 0) {
        const uint32_t other = (uint32_t)__builtin_ctz(warp->arrived);
        if (lanes[other].wait != wait || lanes[other].offer.size_bytes != offer.size_bytes) {
            emulator.block->fibers[thread].wait = wait;
            fault("lanes part: thread %u %s, but thread %u %s",
                  (unsigned)(thread / 32 * 32 + other), wait_texts[lanes[other].wait],
                  (unsigned)thread, wait_texts[wait]);
            switch_to_scheduler();
            abort();
        }
    }
    warp->arrived |= 1u << thread % 32;
    if (warp->arrived == UINT32_MAX) {
        return true;
    }
    lane_wait(wait);
    return false;
}

const struct emulator_offer *emulator_lane_offer(uint32_t lane)
{
    return &emulator.block->fibers[emulator_here.thread / 32 * 32 + lane].offer;
}

void emulator_lanes_release(void)
{
    struct warp *warp = &emulator.block->warps[emulator_here.thread / 32];
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
        lane_wait(EMULATOR_WAIT_SYNC_BLOCK);
        return;
    }
    emulator.block->barrier_count = 0;
    for (uint32_t i = 0; i < emulator_here.threads; i++) {
        emulator.block->fibers[i].wait = EMULATOR_WAIT_NONE;
        emulator.block->warps[i / 32].ready |= 1u << i % 32;
    }
}

void emulator_sync_cluster(void)
{
    struct grid *grid = emulator.grid;

    if (++grid->cluster_arrived < emulator_here.threads * grid->kernel->cluster) {
        lane_wait(EMULATOR_WAIT_SYNC_CLUSTER);
        return;
    }
    grid->cluster_arrived = 0;
    for (uint32_t rank = 0; rank < grid->kernel->cluster; rank++) {
        for (uint32_t i = 0; i < emulator_here.threads; i++) {
            grid->blocks[rank].fibers[i].wait = EMULATOR_WAIT_NONE;
            grid->blocks[rank].warps[i / 32].ready |= 1u << i % 32;
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
    fiber_here()->depended = true;
    if (!emulator.grid->released) {
        lane_wait(EMULATOR_WAIT_DEPEND);
    }
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
