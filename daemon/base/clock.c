#include "base/clock.h"

#include <stddef.h>
#include <time.h>

#include "base/check.h"

static const uint64_t *fake_now_ns;

static uint64_t read_ns(clockid_t id)
{
    struct timespec now;

    CHECK(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return fake_now_ns != NULL ? *fake_now_ns : read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall_us(void)
{
    return (fake_now_ns != NULL ? *fake_now_ns : read_ns(CLOCK_REALTIME)) / 1000;
}

void clock_fake_set(const uint64_t *now_ns)
{
    fake_now_ns = now_ns;
}
