/* Where the time of a step goes, for people and as JSON.
 *
 * Thread: any, no state. A line a part of the step. All shares are of the whole step, and a part's
 * time is what its operation took: all threads at work, a thread waiting for the others' last
 * tasks, or the calling thread alone at work.
 */
#ifndef PERSONAD_BENCH_BENCH_PROFILE_TABLE_H
#define PERSONAD_BENCH_BENCH_PROFILE_TABLE_H

#include "bench/bench.h"

struct bench_profile_case {
    const char *name;
    uint32_t rows;        /* of each step, a token each */
    uint32_t taken_count; /* steps, or prompts of a prefill, that were measured */
    uint64_t wall_ns; /* of all steps, or of each part's fastest; planning and delivery among it */
    struct backend_profile times;
};

void bench_profile_head(const struct bench_settings *settings, const struct model *model,
                        const struct backend *backend);
void bench_profile_print(const struct bench_settings *settings,
                         const struct bench_profile_case *of);

#endif
