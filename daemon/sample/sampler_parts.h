/* What the files of this stage share: checks, and where a sampler's lists lie.
 *
 * Thread: any. All lists of a sampler (biases, stops, end ids) lie in one block of memory that the
 * sampler owns, so that a stored node costs two allocations.
 */
#ifndef PERSONAD_SAMPLE_SAMPLER_PARTS_H
#define PERSONAD_SAMPLE_SAMPLER_PARTS_H

#include "sample/sampler.h"

/* The block of a sampler, handed out from the front. */
struct sampler_block {
    uint8_t *data; /* borrowed from the sampler */
    size_t used;
    size_t size;
};

/* A sampler with one reference and room for `entry_count` biases or ids, `stop_count` stops and
 * their bytes; NULL when out of memory. */
struct sampler *sampler_allocate(size_t entry_count, size_t stop_count, size_t stop_bytes,
                                 struct sampler_block *block);

/* The next count * bytes, aligned to 8. Taking more than was made room for is our bug. */
void *sampler_block_take(struct sampler_block *block, size_t count, size_t bytes);

/* The ranges of sampler.h, biases excepted; turns -0 into 0. BAD_INPUT, LIMIT. */
MUST_USE enum status sampler_check_settings(struct sampler_settings *settings, struct error *error);

/* Sorted, distinct, in the vocabulary, in range. BAD_INPUT. */
MUST_USE enum status sampler_check_biases(const struct step_bias *biases, uint32_t count,
                                          uint32_t vocabulary_count, struct error *error);

/* Steps as they may be stored: known types, values in range, ids in the vocabulary, and a token
 * left to choose. BAD_INPUT. */
MUST_USE enum status sampler_check_steps(const struct step_list *steps, uint32_t vocabulary_count,
                                         struct error *error);

#endif
