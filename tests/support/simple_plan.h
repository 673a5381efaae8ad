/* The plainest maker of plans: any number of sequences, chunks of any size, one attention item a
 * sequence and block. What the scheduler's builder makes must give the same bits.
 *
 * Thread: one at a time. All arrays are allocated in create; a plan is good until the next begin.
 */
#ifndef PERSONAD_TESTS_SUPPORT_SIMPLE_PLAN_H
#define PERSONAD_TESTS_SUPPORT_SIMPLE_PLAN_H

#include <stdint.h>

#include "kernels/backend.h"

struct simple_plan;

/* row_count_max rows, each of at most position_max positions. */
struct simple_plan *simple_plan_create(uint32_t row_count_max, uint32_t position_max);
void simple_plan_destroy(struct simple_plan *plan);

void simple_plan_begin(struct simple_plan *plan);

/* Rows for ids[0..count) at positions from `position` on, of the sequence that lies in `pages`
 * (borrowed during the call). Returns the index of the first row. */
uint32_t simple_plan_add(struct simple_plan *plan, const uint32_t *pages, uint32_t position,
                         const uint32_t *ids, uint32_t count);

/* Wants logits of a row and one sample of them; `sample->logits_row` is filled in. Returns the
 * index of both. */
uint32_t simple_plan_sample(struct simple_plan *plan, uint32_t row,
                            const struct plan_sample *sample);

const struct plan *simple_plan_finish(struct simple_plan *plan);

#endif
