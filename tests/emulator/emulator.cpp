/* The threads of a block as fibers, and where they meet. */
#include "tests/emulator/emulator_fiber.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#define SWITCH_BY_UCONTEXT 1
#else
#define SWITCH_BY_UCONTEXT 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum {
    WARP_COUNT_MAX = EMULATOR_BLOCK_THREADS_MAX / EMULATOR_WARP_THREADS,
    COPY_COUNT_MAX = 256, /* of a thread, on their way */
    STACK_BYTES = 192 * 1024,
    STACK_GUARD_BYTES = 4096,
    FAULT_BYTES_MAX = 240,
};

static const char *const wait_texts[] = {
    "runs",
    "waits at prim_sync",
    "waits at prim_sync_warp",
    "waits at a shuffle",
    "waits at a ballot",
    "waits at prim_ldmatrix",
    "waits at prim_ldmatrix_trans",
    "waits at prim_mma_bf16",
    "waits at prim_mma_f16",
    "has ended",
};

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
    uint64_t group;
};

struct fiber {
    struct copy copies[COPY_COUNT_MAX]; /* a ring */
    uint32_t copy_first, copy_count;
    uint64_t group; /* the one that collects now */
    enum emulator_wait wait;
    struct emulator_offer offer;
#if SWITCH_BY_UCONTEXT
    ucontext_t context;
#else
    void *stack_pointer;
#endif
    void *fake_stack; /* AddressSanitizer's */
};

struct warp {
    uint32_t ready; /* a bit a lane */
    uint32_t arrived;
};

static struct {
    struct emulator_settings settings;
    bool running;
    void (*body)(void *context);
    void *context;
    unsigned char *stacks; /* one after the other, each behind its guard page */
    unsigned char *shared;
    uint32_t shared_bytes;
    uint32_t ended_count, barrier_count;
    uint64_t random;
    bool faulted;
    char fault[FAULT_BYTES_MAX];
    struct warp warps[WARP_COUNT_MAX];
    struct fiber fibers[EMULATOR_BLOCK_THREADS_MAX];
#if SWITCH_BY_UCONTEXT
    ucontext_t scheduler;
#else
    void *scheduler;
#endif
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
} emulator = {};

struct emulator_place emulator_here;

/* ---- switching ---- */

static unsigned char *stack_of(uint32_t thread)
{
    return emulator.stacks + (size_t)thread * (STACK_BYTES + STACK_GUARD_BYTES) + STACK_GUARD_BYTES;
}

#if !SWITCH_BY_UCONTEXT
/* Saves what a call must preserve on the running stack, its pointer in *save, and returns on the
 * stack whose pointer is given. swapcontext() would make two system calls each time. */
extern "C" void emulator_switch_stack(void **save, void *to);
__asm__(".text\n"
        ".globl emulator_switch_stack\n"
        ".type emulator_switch_stack, @function\n"
        "emulator_switch_stack:\n"
        "pushq %rbp\n"
        "pushq %rbx\n"
        "pushq %r12\n"
        "pushq %r13\n"
        "pushq %r14\n"
        "pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n"
        "popq %r14\n"
        "popq %r13\n"
        "popq %r12\n"
        "popq %rbx\n"
        "popq %rbp\n"
        "ret\n"
        ".size emulator_switch_stack, . - emulator_switch_stack\n");
#endif

/* From the running fiber back to the scheduler. A fiber that has ended does not come back. */
static void switch_to_scheduler(void)
{
    struct fiber *fiber = &emulator.fibers[emulator_here.thread];

#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(fiber->wait == EMULATOR_WAIT_ENDED ? NULL : &fiber->fake_stack,
                                   emulator.scheduler_stack, emulator.scheduler_stack_bytes);
#endif
#if SWITCH_BY_UCONTEXT
    swapcontext(&fiber->context, &emulator.scheduler);
#else
    emulator_switch_stack(&fiber->stack_pointer, emulator.scheduler);
#endif
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(fiber->fake_stack, NULL, NULL);
#endif
}

static void switch_to_fiber(uint32_t thread)
{
    struct fiber *fiber = &emulator.fibers[thread];

    emulator_here.thread = thread;
#ifdef HAS_ASAN
    void *fake_stack = NULL;
    __sanitizer_start_switch_fiber(&fake_stack, stack_of(thread), STACK_BYTES);
#endif
#if SWITCH_BY_UCONTEXT
    swapcontext(&emulator.scheduler, &fiber->context);
#else
    emulator_switch_stack(&emulator.scheduler, fiber->stack_pointer);
#endif
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
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

static void copies_land(struct fiber *fiber, uint64_t group_end)
{
    while (fiber->copy_count > 0 && fiber->copies[fiber->copy_first].group < group_end) {
        const struct copy *copy = &fiber->copies[fiber->copy_first];
        if (copy->from != NULL) {
            memcpy(copy->to, copy->from, 16);
        } else {
            memset(copy->to, 0, 16);
        }
        fiber->copy_first = (fiber->copy_first + 1) % COPY_COUNT_MAX;
        fiber->copy_count--;
    }
}

static void fiber_main(void)
{
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(NULL, &emulator.scheduler_stack,
                                    &emulator.scheduler_stack_bytes);
#endif
    emulator.body(emulator.context);
    struct fiber *fiber = &emulator.fibers[emulator_here.thread];
    copies_land(fiber, UINT64_MAX);
    fiber->wait = EMULATOR_WAIT_ENDED;
    emulator.ended_count++;
    switch_to_scheduler();
    abort();
}

static void fiber_init(uint32_t thread)
{
    struct fiber *fiber = &emulator.fibers[thread];
    unsigned char *stack = stack_of(thread);

#ifdef HAS_ASAN
    /* A fiber that a fault left behind never cleaned up. */
    __asan_unpoison_memory_region(stack, STACK_BYTES);
#endif
    fiber->copy_first = 0;
    fiber->copy_count = 0;
    fiber->group = 0;
    fiber->wait = EMULATOR_WAIT_NONE;
    fiber->fake_stack = NULL;
#if SWITCH_BY_UCONTEXT
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
#else
    /* Six registers, where to return to, and a word that keeps calls aligned to 16. */
    void **top = reinterpret_cast<void **>(stack + STACK_BYTES) - 8;
    memset(top, 0, 8 * sizeof *top);
    top[6] = reinterpret_cast<void *>(fiber_main);
    fiber->stack_pointer = top;
#endif
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

/* False: none can run. */
static bool thread_choose(uint32_t *thread)
{
    const uint32_t warp_count = emulator_here.threads / EMULATOR_WARP_THREADS;
    const enum emulator_schedule schedule = emulator.settings.schedule;
    const uint32_t first = schedule == EMULATOR_SHUFFLED ? random_next(warp_count) : 0;

    for (uint32_t i = 0; i < warp_count; i++) {
        const uint32_t warp =
            schedule == EMULATOR_DESCENDING ? warp_count - 1 - i : (first + i) % warp_count;
        const uint32_t ready = emulator.warps[warp].ready;
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

/* None can run, but not all have ended: names one that waits and one that does not come. */
static void fault_of_deadlock(void)
{
    uint32_t waiting = 0;

    while (emulator.fibers[waiting].wait == EMULATOR_WAIT_ENDED) {
        waiting++;
    }
    const enum emulator_wait wait = emulator.fibers[waiting].wait;
    const uint32_t first = wait == EMULATOR_WAIT_SYNC_BLOCK ? 0 : waiting / 32 * 32;
    uint32_t missing = first;
    while (emulator.fibers[missing].wait == wait) {
        missing++;
    }
    fault("thread %u %s, but thread %u %s", (unsigned)waiting, wait_texts[wait], (unsigned)missing,
          wait_texts[emulator.fibers[missing].wait]);
}

static void block_run(void)
{
    const uint32_t threads = emulator_here.threads;
    uint32_t thread;

    if (emulator.shared_bytes > 0) {
        memset(emulator.shared, 0xff, emulator.shared_bytes);
    }
    emulator.ended_count = 0;
    emulator.barrier_count = 0;
    for (uint32_t i = 0; i < threads; i++) {
        fiber_init(i);
    }
    for (uint32_t i = 0; i < threads / EMULATOR_WARP_THREADS; i++) {
        emulator.warps[i].ready = UINT32_MAX;
        emulator.warps[i].arrived = 0;
    }
    while (!emulator.faulted && thread_choose(&thread)) {
        switch_to_fiber(thread);
        if (emulator.fibers[thread].wait == EMULATOR_WAIT_ENDED) {
            emulator.warps[thread / 32].ready &= ~(1u << thread % 32);
        }
    }
    if (!emulator.faulted && emulator.ended_count < threads) {
        fault_of_deadlock();
    }
}

static void grid_run(void)
{
    const uint64_t count = (uint64_t)emulator_here.grid_x * emulator_here.grid_y;
    /* Shuffled: a walk with a random start and a stride that meets every block once. */
    uint64_t stride = 1;
    uint64_t block = 0;

    emulator.random = emulator.settings.seed;
    if (emulator.settings.schedule == EMULATOR_DESCENDING) {
        block = count - 1;
        stride = count - 1;
    } else if (emulator.settings.schedule == EMULATOR_SHUFFLED) {
        block = random_next((uint32_t)count);
        stride = 1000003 % count == 0 ? 1 : 1000003; /* a prime */
    }
    for (uint64_t i = 0; i < count && !emulator.faulted; i++) {
        emulator_here.block_x = (uint32_t)(block % emulator_here.grid_x);
        emulator_here.block_y = (uint32_t)(block / emulator_here.grid_x);
        block_run();
        block = (block + stride) % count;
    }
}

static enum status stacks_create(void)
{
    const size_t each_bytes = STACK_BYTES + STACK_GUARD_BYTES;

    if (emulator.stacks != NULL) {
        return STATUS_OK;
    }
    void *memory = mmap(NULL, each_bytes * EMULATOR_BLOCK_THREADS_MAX, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return STATUS_MEMORY;
    }
    emulator.stacks = static_cast<unsigned char *>(memory);
    for (size_t i = 0; i < EMULATOR_BLOCK_THREADS_MAX; i++) {
        if (mprotect(emulator.stacks + i * each_bytes, STACK_GUARD_BYTES, PROT_NONE) != 0) {
            abort();
        }
    }
    return STATUS_OK;
}

uint32_t emulator_architecture(void)
{
    return emulator.settings.architecture != 0 ? emulator.settings.architecture : 90;
}

void emulator_configure(const struct emulator_settings *settings)
{
    emulator.settings = *settings;
}

const char *emulator_fault_text(void)
{
    return emulator.fault;
}

enum status emulator_launch(uint32_t grid_x, uint32_t grid_y, uint32_t threads,
                            uint32_t shared_bytes, void (*body)(void *context), void *context)
{
    const uint32_t shared_bytes_max =
        emulator_architecture() >= 90 ? (uint32_t)EMULATOR_SHARED_BYTES_MAX : 163 * 1024;
    void *shared = NULL;

    if (emulator.running) {
        abort(); /* a launch from within a kernel */
    }
    emulator.faulted = false;
    emulator.fault[0] = '\0';
    if (threads == 0 || threads % EMULATOR_WARP_THREADS != 0 ||
        threads > EMULATOR_BLOCK_THREADS_MAX || shared_bytes > shared_bytes_max || grid_x == 0 ||
        grid_x > INT32_MAX || grid_y == 0 || grid_y > UINT16_MAX) {
        (void)snprintf(emulator.fault, sizeof emulator.fault,
                       "grid (%u, %u), %u threads, %u bytes of shared memory", (unsigned)grid_x,
                       (unsigned)grid_y, (unsigned)threads, (unsigned)shared_bytes);
        return STATUS_LIMIT;
    }
    TRY(stacks_create());
    /* Exactly as large as asked for, so that AddressSanitizer sees what lies past it. */
    if (posix_memalign(&shared, 128, shared_bytes) != 0) {
        return STATUS_MEMORY;
    }
    emulator_here = {0, threads, 0, 0, grid_x, grid_y};
    emulator.shared = static_cast<unsigned char *>(shared);
    emulator.shared_bytes = shared_bytes;
    emulator.body = body;
    emulator.context = context;
    emulator.running = true;
    grid_run();
    emulator.running = false;
    free(shared);
    emulator.shared = NULL;
    return emulator.faulted ? STATUS_DEVICE : STATUS_OK;
}

/* ---- where threads meet ---- */

static void lane_wait(enum emulator_wait wait)
{
    const uint32_t thread = emulator_here.thread;

    emulator.fibers[thread].wait = wait;
    emulator.warps[thread / 32].ready &= ~(1u << thread % 32);
    switch_to_scheduler();
}

/* True: the caller is the last lane of its warp, and does the work for all before
 * emulator_lanes_release; the others come back when it is done. */
bool emulator_lane_arrive(enum emulator_wait wait, struct emulator_offer offer)
{
    const uint32_t thread = emulator_here.thread;
    struct warp *warp = &emulator.warps[thread / 32];
    const struct fiber *lanes = &emulator.fibers[thread / 32 * 32];

    emulator.fibers[thread].offer = offer;
    if (warp->arrived != 0) {
        const uint32_t other = (uint32_t)__builtin_ctz(warp->arrived);
        if (lanes[other].wait != wait || lanes[other].offer.size_bytes != offer.size_bytes) {
            emulator.fibers[thread].wait = wait;
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
    return &emulator.fibers[emulator_here.thread / 32 * 32 + lane].offer;
}

void emulator_lanes_release(void)
{
    struct warp *warp = &emulator.warps[emulator_here.thread / 32];
    struct fiber *lanes = &emulator.fibers[emulator_here.thread / 32 * 32];

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
    if (++emulator.barrier_count < emulator_here.threads) {
        lane_wait(EMULATOR_WAIT_SYNC_BLOCK);
        return;
    }
    emulator.barrier_count = 0;
    for (uint32_t i = 0; i < emulator_here.threads; i++) {
        emulator.fibers[i].wait = EMULATOR_WAIT_NONE;
        emulator.warps[i / 32].ready |= 1u << i % 32;
    }
}

/* ---- shared memory ---- */

void emulator_shared_check(const void *at)
{
    const uintptr_t offset =
        reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(emulator.shared);

    if (offset % 16 != 0) {
        emulator_fault_here("an address in shared memory is not aligned to 16");
    }
    if (offset > emulator.shared_bytes || emulator.shared_bytes - offset < 16) {
        emulator_fault_here("an address is not in shared memory");
    }
}

void *emulator_shared(void)
{
    return emulator.shared;
}

void emulator_copy16(void *shared, const void *global, bool valid)
{
    struct fiber *fiber = &emulator.fibers[emulator_here.thread];

    emulator_shared_check(shared);
    if (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        emulator_fault_here("an address in global memory is not aligned to 16");
    }
    if (fiber->copy_count == COPY_COUNT_MAX) {
        emulator_fault_here("more copies on their way than the emulator holds");
    }
    const uint32_t last = (fiber->copy_first + fiber->copy_count++) % COPY_COUNT_MAX;
    fiber->copies[last] = {shared, valid ? global : NULL, fiber->group};
    if (emulator.settings.copies_land_early) {
        copies_land(fiber, UINT64_MAX);
    } else {
        memset(shared, 0xff, 16);
    }
}

void emulator_copy_commit(void)
{
    emulator.fibers[emulator_here.thread].group++;
}

void emulator_copy_wait(uint32_t pending)
{
    struct fiber *fiber = &emulator.fibers[emulator_here.thread];

    if (fiber->group > pending) {
        copies_land(fiber, fiber->group - pending);
    }
}
