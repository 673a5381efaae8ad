/* Copies to shared memory that land later, and loads of 16 bytes from it. */
#include <string.h>

#include "tests/emulator/emulator_fiber.h"

void emulator_copies_land(struct emulator_fiber *fiber, uint64_t group_end)
{
    while (fiber->copy_count > 0 && fiber->copies[fiber->copy_first].group < group_end) {
        const struct emulator_copy *copy = &fiber->copies[fiber->copy_first];
        if (copy->from != NULL) {
            memcpy(copy->to, copy->from, 16);
        } else {
            memset(copy->to, 0, 16);
        }
        fiber->copy_first = (fiber->copy_first + 1) % EMULATOR_COPY_COUNT_MAX;
        fiber->copy_count--;
    }
}

void emulator_shared_check(const void *at)
{
    const uintptr_t offset =
        reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(emulator_shared());

    if (offset % 16 != 0) {
        emulator_fault_here("an address in shared memory is not aligned to 16");
    }
    if (offset > emulator_shared_bytes() || emulator_shared_bytes() - offset < 16) {
        emulator_fault_here("an address is not in shared memory");
    }
}

void emulator_copy16(void *shared, const void *global, bool valid)
{
    struct emulator_fiber *fiber = emulator_fiber_here();

    emulator_shared_check(shared);
    if (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        emulator_fault_here("an address in global memory is not aligned to 16");
    }
    if (fiber->copy_count == EMULATOR_COPY_COUNT_MAX) {
        emulator_fault_here("more copies on their way than the emulator holds");
    }
    const uint32_t last = (fiber->copy_first + fiber->copy_count++) % EMULATOR_COPY_COUNT_MAX;
    fiber->copies[last] = {shared, valid ? global : NULL, fiber->group};
    if (emulator_read_settings()->copies_land_early) {
        emulator_copies_land(fiber, UINT64_MAX);
    } else {
        memset(shared, 0xff, 16);
    }
}

void emulator_load16_shared(uint32_t words[4], const void *shared)
{
    emulator_shared_check(shared);
    memcpy(words, shared, 16);
}

void emulator_copy_commit(void)
{
    emulator_fiber_here()->group++;
}

void emulator_copy_wait(uint32_t pending)
{
    struct emulator_fiber *fiber = emulator_fiber_here();

    if (fiber->group > pending) {
        emulator_copies_land(fiber, fiber->group - pending);
    }
}
