/* Plans for measuring: sequences with a context of their own, or branches of one shared prefix, and
 * chunks of one sequence's prefill.
 *
 * Thread: one at a time. All arrays are made in create; a plan is good until the next one.
 */
#ifndef PERSONAD_BENCH_BENCH_PLAN_H
#define PERSONAD_BENCH_BENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"

struct bench_plan;

/* MEMORY. */
MUST_USE enum status bench_plan_create(uint32_t row_count_max, uint32_t position_max,
                                       struct bench_plan **out);
void bench_plan_destroy(struct bench_plan *plan); /* NULL is fine */

/* One row for each of `count` sequences, at the position after `context` tokens. The first
 * shared_count (a multiple of ATTENTION_BLOCK_TOKENS) of them lie in the same pages for all, from
 * page 0 on, and are listed once with all rows; the rest of sequence i lies in pages of its own.
 * Each row is sampled with `steps`; NULL: its numbers are taken, nothing is drawn. */
const struct plan *bench_plan_decode(struct bench_plan *plan, uint32_t count, uint32_t context,
                                     uint32_t shared_count, const struct step_list *steps);

/* Pages that bench_plan_decode() names. */
uint32_t bench_plan_page_count(uint32_t count, uint32_t context, uint32_t shared_count);

/* `count` rows of one sequence from `position` on, which lies in pages 0, 1, ...; the last row's
 * logits are taken if `last`. */
const struct plan *bench_plan_prefill(struct bench_plan *plan, uint32_t position, uint32_t count,
                                      bool last);

/* Copies pages [0, from_count) over pages [from_count, to_count), as often as they go in; in
 * slices, until NULL: *done is where it goes on, 0 at first. */
const struct plan *bench_plan_spread(struct bench_plan *plan, uint32_t from_count,
                                     uint32_t to_count, uint32_t *done);

#endif
