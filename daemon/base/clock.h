/* Time, replaceable in tests. Thread: any; clock_fake_set() is for single-threaded tests only.
 */
#ifndef PERSONAD_BASE_CLOCK_H
#define PERSONAD_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds on a clock that never steps back (CLOCK_MONOTONIC), or the fake one. */
uint64_t clock_monotonic_ns(void);

/* Microseconds since the Unix epoch, for records that people read. */
uint64_t clock_wall_us(void);

/* From now on both clocks answer from *now_ns (borrowed); NULL goes back to the real ones. */
void clock_fake_set(const uint64_t *now_ns);

#endif
