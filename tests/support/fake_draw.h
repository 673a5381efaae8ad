/* What the fake backend makes of a sample, given the hash of all that its row saw.
 *
 * The model's numbers of a token are hashes of that and of the token alone; a draw is a hash of
 * history, seed and index too. A mask leaves fewer to draw from, in the whole vocabulary where none
 * of the usual tokens fits it; siblings that are to begin distinctly draw from their group's seed
 * without replacement. Thread: any; pure.
 */
#ifndef PERSONAD_TESTS_SUPPORT_FAKE_DRAW_H
#define PERSONAD_TESTS_SUPPORT_FAKE_DRAW_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

struct fake_place {
    uint64_t value; /* of the row */
    bool has_nan;
    const uint32_t *history; /* borrowed */
    uint32_t history_count, prompt_count;
};

uint64_t fake_mix(uint64_t hash, uint64_t value);

/* token_count: ids below it are usual. */
void fake_draw(const struct fake_place *place, uint32_t token_count, uint32_t vocabulary_count,
               const struct plan_sample *sample, struct sample_result *result);

#endif
