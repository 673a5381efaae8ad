/* Drafts: tokens that are likely to come next, checked in one step beside the token that is due.
 *
 * A row's bits depend on nothing but its own past, so a draft that equals what is drawn has the
 * bits that it would have had one step later, at any temperature; the first one that does not and
 * all behind it are dropped, with their KV. What is drafted, and how often, changes speed alone.
 *
 * Drafts are looked up, not computed: the longest end of the branch's path (of its last
 * DRAFT_PATH_TOKENS tokens) that stands somewhere before on it, or in one of the texts that the
 * spec names, goes on as it did there. A text that the reply has followed from its start wins.
 *
 * They are made where they may be: the backend checks drafts, all tokens of the branch are known
 * (so with one step in flight), and no mask depends on the next token. And where they pay: a row
 * more takes about a sixth of what a step of one row does, so a draft must be right the more often
 * the more branches share a step. How often drafts of a branch are right is counted for long and
 * for short matches apart; where that is too seldom, one is tried now and then.
 *
 * Thread: engine. Allocates nothing after init.
 */
#ifndef PERSONAD_SCHEDULE_SPECULATE_H
#define PERSONAD_SCHEDULE_SPECULATE_H

#include "schedule/engine_state.h"

MUST_USE enum status speculate_init(struct engine *engine);
void speculate_finish(struct engine *engine);

/* What drafts of this step may take beside a row and a sample of each running branch. */
void speculate_begin(struct engine *engine);

/* Drafts for the branch's row at `position`, in drafts[DRAFT_COUNT_MAX]; how many. It has the pages
 * for them then, and the step's room is taken. */
uint32_t speculate_draft(struct engine *engine, struct branch *branch, uint32_t position,
                         uint32_t *drafts);

/* So many of the branch's drafts in flight were drawn. */
void speculate_learn(struct engine *engine, struct branch *branch, uint32_t accepted_count);

/* The lookup alone: up to count_max tokens that may follow ids[count]; texts as in branch_spec,
 * reply_count the trailing ids that are the reply's so far. is_long: the match. */
struct draft_query {
    const uint32_t *ids;
    uint32_t count;
    uint32_t reply_count;
    const struct branch_run *texts;
    uint32_t text_count;
};
uint32_t speculate_find(const struct draft_query *query, uint32_t count_max, uint32_t *drafts,
                        bool *is_long);

#endif
