/* Builds a step's plan: rows, page tables, attention items, samples, histories, copies.
 *
 * Pure: knows neither branches nor devices, tested without either. Thread: engine. All arrays are
 * allocated in create; a plan stays valid until the builder begins the next one, so there is one
 * builder a step in flight.
 *
 * Attention items: rows of one span share an item for each block of 512 positions, and full blocks
 * whose 32 pages are the same in several spans become one item for all their rows, so that a block
 * which 64 branches share is read once. A row's partials are numbered by item; row_partials lists
 * them by block, ascending.
 */
#ifndef PERSONAD_SCHEDULE_PLAN_H
#define PERSONAD_SCHEDULE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"

struct plan_builder;

struct plan_limits {
    uint32_t row_count_max;
    uint32_t span_page_count_max;     /* of one span */
    uint32_t span_count_max;          /* spans of one plan */
    uint32_t partial_count_max;       /* row x block */
    uint32_t sample_count_max;        /* samples, logits rows, histories, copies */
    uint32_t history_token_count_max; /* of all histories of one plan */
};

MUST_USE enum status plan_builder_create(const struct plan_limits *limits,
                                         struct plan_builder **out);
void plan_builder_destroy(struct plan_builder *builder);

/* Forgets the plan before. */
void plan_builder_begin(struct plan_builder *builder);

/* How many of `count` rows at ascending positions from `position` still fit. */
uint32_t plan_builder_rows_fit(const struct plan_builder *builder, uint32_t position,
                               uint32_t count);

/* Opens a span: the rows added next see these pages. Returns its page_first. */
uint32_t plan_builder_add_span(struct plan_builder *builder, const uint32_t *pages,
                               uint32_t page_count);

/* A row of the span opened last; positions of a span's rows ascend by one. Returns its index. */
uint32_t plan_builder_add_row(struct plan_builder *builder, uint32_t token, uint32_t position,
                              bool writes_kv);

/* Wants the logits of a row. Returns the index for plan_sample.logits_row. */
uint32_t plan_builder_add_logits(struct plan_builder *builder, uint32_t row);

/* Returns the sample's index in step_result.samples. */
uint32_t plan_builder_add_sample(struct plan_builder *builder, const struct plan_sample *sample);

/* Room for a slot's whole history, to be filled by the caller; NULL when it does not fit into this
 * plan any more. */
uint32_t *plan_builder_add_history(struct plan_builder *builder, uint32_t slot,
                                   uint32_t prompt_count, uint32_t count);

void plan_builder_add_copy(struct plan_builder *builder, uint32_t from, uint32_t to,
                           uint32_t slot_count);

/* Plans the attention items. Borrowed until the next begin. */
const struct plan *plan_builder_finish(struct plan_builder *builder);

#endif
