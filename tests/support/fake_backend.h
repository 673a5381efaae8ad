/* A backend without arithmetic: its numbers are hashes of exactly what a row may see.
 *
 * It really keeps KV in pages: a slot stores a hash of its token, its position and of every slot
 * that its row saw through the plan's items. A sampled token is a hash of that, of the slot's
 * history, of seed and index; a mask leaves fewer to draw from, and siblings that are to begin
 * distinctly draw from one seed without replacement. So a page that was mixed up, used again too
 * early, not copied, a row at a wrong place, an item that misses a block or a history that differs:
 * each gives other tokens.
 *
 * It answers late: a step runs when it is waited for. What a submitted step is going to write is
 * spoilt at once, so that a page given away while an older step still names it is noticed. All that
 * the contract of kernels/backend.h forbids and that does not show in values ends the program.
 *
 * Thread: one at a time. After create nothing allocates.
 */
#ifndef PERSONAD_TESTS_SUPPORT_FAKE_BACKEND_H
#define PERSONAD_TESTS_SUPPORT_FAKE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

/* How the fake behaves; may be changed between steps. */
struct fake_behaviour {
    uint32_t page_count;
    uint32_t step_slot_count; /* 1 or 2 */
    uint32_t token_count;     /* samples are drawn from ids below */
    uint64_t row_ns, base_ns; /* what a step claims to take */
    uint64_t fail_submit;     /* the n-th submitted step is refused; 0: none */
    uint64_t fail_wait;       /* the n-th submitted step fails when waited for */
    uint32_t nan_token;       /* a context that holds it gives NaN logits; TOKEN_NONE: none */
    uint32_t fault_token;     /* a row of it has NaN in its KV */
    bool depends_on_batch;    /* a planted fault: values depend on how many rows share the step */
};

struct fake;

enum status fake_create(const struct backend_settings *settings,
                        const struct fake_behaviour *behaviour, struct fake **out);
void fake_destroy(struct fake *fake);

/* For forward_create_program. */
const struct backend_ops *fake_ops(void);
struct backend *fake_backend(struct fake *fake);
struct backend_program *fake_program(struct fake *fake);

struct fake_behaviour *fake_behaviour(struct fake *fake);

/* The same numbers by definition, without pages, plans or slots: what a sample after `ids` gives.
 */
struct fake_expectation {
    const uint32_t *ids;
    uint32_t count; /* at least 1 */
    const uint32_t *history;
    uint32_t history_count;
    uint32_t prompt_count;
};

/* Of `sample` seed, index, steps, mask and top_count count. */
void fake_expect(const struct fake *fake, const struct fake_expectation *of,
                 const struct plan_sample *sample, struct sample_result *result);

/* Steps and rows that it has run, and rows of them that wrote KV. */
uint64_t fake_step_count(const struct fake *fake);
uint64_t fake_row_count(const struct fake *fake);

/* The rows of the step that ran last. */
uint32_t fake_last_row_count(const struct fake *fake);

#endif
