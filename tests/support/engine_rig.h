/* An engine over the fake backend (or a forward of the caller's), with a small vocabulary and
 * branches to lend to it.
 *
 * Thread: one: the rig plays the loop and the engine thread in turns. What the engine borrows for a
 * branch is freed as soon as its final event was taken, so that a sanitizer sees who uses it after.
 * Every event is held to the contract of schedule/branch.h: counts only grow, the end is the end.
 */
#ifndef PERSONAD_TESTS_SUPPORT_ENGINE_RIG_H
#define PERSONAD_TESTS_SUPPORT_ENGINE_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "schedule/engine.h"
#include "support/fake_backend.h"

enum {
    RIG_TOKEN_COUNT = 40,
    RIG_TOKEN_END = 0, /* <|im_end|> */
    RIG_TOKEN_A = 1,   /* "a"; b, c, ... follow up to z */
    RIG_TOKEN_NEWLINE = 27,
    RIG_TOKEN_FIRST_UTF8 = 36, /* two bytes of one character: ids 36, 37 */
};

struct engine_rig_settings {
    uint32_t page_count;
    uint32_t row_count_max;
    uint32_t running_count_max;
    uint32_t context_token_count_max;
    uint32_t step_slot_count;
    uint32_t partial_count_max; /* 0: enough for every row */
    uint32_t rest_ms;
    bool speculates;
    bool restarts; /* the engine may make the fake anew after it failed */
};

/* What is asked for. Zero means: the plain case. */
struct engine_rig_request {
    const uint32_t *ids; /* copied */
    uint32_t count;
    uint32_t prompt_count; /* leading ids that are the prompt's */
    uint32_t frame_first;  /* ids [frame_first, frame_first + frame_count) are a frame */
    uint32_t frame_count;
    uint64_t prompt_scope;
    uint64_t session_scope;
    uint64_t session;
    uint64_t group;
    uint32_t user;
    enum branch_priority priority;
    uint64_t seed;
    uint32_t max_tokens; /* 0: 16 */
    uint32_t room;       /* 0: context_token_count_max */
    uint32_t top_count;
    const char *cue; /* a literal cue, or NULL */
    bool ignore_end;
    const struct sampler *sampler;  /* borrowed, in place of max_tokens and ignore_end; or NULL */
    const struct branch_run *texts; /* borrowed, with their ids: what drafts are taken from */
    uint32_t text_count;
    const uint32_t *resume; /* tokens that are in the output already */
    uint32_t resume_count;
    const struct branch_mark *marks; /* borrowed: the branch looks */
    uint32_t mark_count;
    bool marks_draw;
};

/* What came of it; lives until engine_rig_close. */
struct engine_rig_branch {
    struct branch_event event; /* the last one */
    bool has_ended;
    uint32_t *ids; /* the context */
    uint32_t count;
    uint32_t slot;
    struct branch_output output;
    /* lent, gone after the end */
    struct branch_spec *spec;
    struct branch_run *runs;
    uint32_t *lent_ids;
    struct sampler *sampler; /* the rig's own, or NULL */
    struct cue_set *cues;
};

struct engine_rig {
    struct engine_rig_settings settings;
    struct fake *fake;             /* NULL over a forward of the caller's */
    const struct backend_ops *ops; /* the fake's */
    struct forward *forward;       /* borrowed then, as the tokenizer is */
    struct vocabulary vocabulary;
    struct tokenizer *tokenizer;
    struct engine *engine;
    struct engine_rig_branch *branches; /* [branch_count_max] */
    uint32_t branch_count;
    uint32_t branch_count_max;
    uint32_t *slot_branches; /* [BRANCH_COUNT_MAX]: index in branches, or UINT32_MAX */
    uint32_t slot_next;
    uint32_t alive_count;
    struct fake_behaviour restart_behaviour; /* of every fake after the first */
    uint32_t restart_refuse_count;           /* the next restarts that do not succeed */
    uint32_t restart_count;                  /* asked for */
};

struct engine_rig_settings engine_rig_defaults(void);
void engine_rig_open(struct engine_rig *rig, const struct engine_rig_settings *settings,
                     uint32_t branch_count_max);

/* The same with a changed table of entries for the fake, borrowed. */
void engine_rig_open_changed(struct engine_rig *rig, const struct engine_rig_settings *settings,
                             const struct backend_ops *changed, uint32_t branch_count_max);

/* The same over a forward and a tokenizer that outlive the rig; step_slot_count is the backend's.
 */
void engine_rig_open_over(struct engine_rig *rig, const struct engine_rig_settings *settings,
                          struct forward *forward, struct tokenizer *tokenizer,
                          uint32_t branch_count_max);
void engine_rig_close(struct engine_rig *rig);

/* Lends a branch. The index of its struct in rig->branches, or UINT32_MAX when it was refused. */
uint32_t engine_rig_submit(struct engine_rig *rig, const struct engine_rig_request *request,
                           struct error *error);

/* One engine_step, then all events. */
enum status engine_rig_step(struct engine_rig *rig);

/* Takes all events there are. */
void engine_rig_take(struct engine_rig *rig);

/* Steps until no branch is left (at most step_count_max steps; false: some are left). */
bool engine_rig_run(struct engine_rig *rig, uint32_t step_count_max);

/* For tests with cmocka: a submit that must succeed; the index in rig->branches. */
uint32_t engine_rig_lend(struct engine_rig *rig, const struct engine_rig_request *request);

/* Opens *rig with the same request in an engine of its own; the branch lies in *rig. */
const struct engine_rig_branch *engine_rig_alone(struct engine_rig *rig,
                                                 const struct engine_rig_request *request);
void engine_rig_assert_as_alone(const struct engine_rig_branch *branch,
                                const struct engine_rig_request *request);

/* Letters that differ with the salt. */
void engine_rig_fill(uint32_t *ids, uint32_t count, uint32_t salt);

/* Same ids, bits, text and end? */
bool engine_rig_equal(const struct engine_rig_branch *a, const struct engine_rig_branch *b);

/* As far as `part` got (it was cancelled, say), it did as `whole`. */
bool engine_rig_leads(const struct engine_rig_branch *part, const struct engine_rig_branch *whole);

#endif
