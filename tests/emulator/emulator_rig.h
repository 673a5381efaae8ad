/* What the emulator's own tests share: configurations, launches, random numbers.
 *
 * Thread: the test's. Ownership: none. Format: none.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_RIG_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_RIG_H

#include <stdint.h>

#include "kernels/cuda/prim.cuh"
#include "tests/emulator/emulator.h"

enum { CONFIG_COUNT = 6 };

/* Three schedules, copies late and early; both sums of tensor cores with each of either. Uploads
 * and graphs come late where copies do. */
static inline void configure(uint32_t i)
{
    struct emulator_settings settings = {};

    settings.schedule = (enum emulator_schedule)(i % 3);
    settings.seed = 20 + i;
    settings.copies_land_early = i / 3 % 2 != 0;
    settings.architecture = i % 2 != 0 ? 80 : 90;
    settings.work_comes_late = i / 3 % 2 == 0;
    emulator_configure(&settings);
}

/* Calls a lambda as every thread. Nothing may be asserted in it: a test's way out is a jump, and
 * its stack another. */
template <typename Body>
static inline enum status launch(uint32_t grid_x, uint32_t grid_y, uint32_t threads,
                                 uint32_t shared_bytes, Body body)
{
    return emulator_launch(
        grid_x, grid_y, threads, shared_bytes,
        [](void *context) { (*static_cast<Body *>(context))(); }, &body);
}

static uint32_t random_state = 1; /* each test program has its own */

/* 16 bits. */
static inline uint32_t random_bits(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8 & 0xffffu;
}

/* In [-1, 1). */
static inline float random_value(void)
{
    return ((float)random_bits() - 32768.0f) / 32768.0f;
}

#endif
