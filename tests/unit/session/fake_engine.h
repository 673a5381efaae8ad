/* A double of the engine: takes branches, and writes what a test dictates.
 *
 * Thread: one. It defines the engine_* functions that the session calls, so it is linked instead of
 * schedule/. Tokens go through the real cue reader, so that cuts, tails and held bytes are as the
 * engine makes them. Log probabilities are -(index + 1) / 8.
 */
#ifndef PERSONAD_TESTS_UNIT_SESSION_FAKE_ENGINE_H
#define PERSONAD_TESTS_UNIT_SESSION_FAKE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "schedule/engine.h"
#include "text/cue.h"
#include "text/tokenizer.h"

struct fake_branch {
    const struct branch_spec *spec; /* borrowed until the end */
    uint32_t *context;              /* owned: its ids at submit, for comparing */
    uint32_t context_count;
    uint64_t seed;
    struct branch_scope scope;
    uint32_t slot;
    struct cue_reader reader;
    struct branch_event event;
    bool has_news, is_parked, is_ended;
};

enum { FAKE_BRANCH_COUNT_MAX = 4096 };

struct engine {
    const struct tokenizer *tokenizer; /* borrowed */
    struct fake_branch branches[FAKE_BRANCH_COUNT_MAX];
    uint32_t branch_count;  /* ever submitted */
    uint32_t refused_after; /* submits from this one on answer LIMIT */
    uint32_t released_scope_count;
    bool is_held;
    uint32_t held_submit_count; /* while it was held */
};

struct engine *fake_engine_create(const struct tokenizer *tokenizer);
void fake_engine_destroy(struct engine *engine);

/* One sampled token more; ends the branch when a cue is complete. */
void fake_engine_emit(struct engine *engine, uint32_t index, uint32_t token);

/* Plain text as tokens, one after another, until it ends. */
void fake_engine_emit_text(struct engine *engine, uint32_t index, const char *text);

/* Ends it for another reason. END samples an end token first. */
void fake_engine_end(struct engine *engine, uint32_t index, enum branch_finish finish,
                     enum status status);

/* Answers the next `count` marks of a look as sampling would have: entry i of `as` (or of a rule of
 * its own, when that is NULL) for mark i; ends it after the last one. */
void fake_engine_answer(struct engine *engine, uint32_t index, const struct branch_output *as,
                        uint32_t count);

/* Whether what was lent is still as it was: the context's ids. */
bool fake_engine_is_intact(const struct engine *engine, uint32_t index);

#endif
