/* A branch: a node that is being generated, or a look into distributions along a context that is
 * known, as the session hands it over and as the engine answers.
 *
 * Thread: the loop thread fills a branch_spec and its branch_output, then engine_submit() lends
 * both to the engine until the branch's final event was taken; the loop may read the parts of the
 * output that an event has told it about (they never change again), nothing else. Everything a spec
 * points at is immutable and outlives the loan. The loop chooses the slot (0 .. BRANCH_COUNT_MAX-1)
 * and reuses it after the final event.
 */
#ifndef PERSONAD_SCHEDULE_BRANCH_H
#define PERSONAD_SCHEDULE_BRANCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"
#include "sample/sampler.h"
#include "text/cue.h"

/* One stretch of context ids. The context is the runs one after another. */
struct branch_run {
    const uint32_t *ids; /* borrowed, immutable */
    uint32_t count;
    uint32_t flags; /* BRANCH_RUN_* */
};

enum {
    BRANCH_RUN_FRAME = 1,  /* not part of the penalties' history */
    BRANCH_RUN_PROMPT = 2, /* the persona's prompt: history only where the sampler says so */
};

/* BACKGROUND gets what the others leave, but for a few rows a step. */
enum branch_priority { BRANCH_INTERACTIVE = 0, BRANCH_BATCH = 1, BRANCH_BACKGROUND = 2 };

enum branch_finish {
    FINISH_NONE = 0,      /* still going */
    FINISH_END = 1,       /* an end-of-generation token */
    FINISH_CUE = 2,       /* a cue or stop string */
    FINISH_LENGTH = 3,    /* max_tokens */
    FINISH_CONTEXT = 4,   /* the room of the session's context length is full */
    FINISH_CANCELLED = 5, /* by a request; what was released stays, to the byte */
    FINISH_FAILED = 6,    /* status says why (DEVICE, NUMERIC, STOPPING); likewise */
};

/* A mark: the numbers of `token` as what follows the context token at `position`. */
struct branch_mark {
    uint32_t position;
    uint32_t token; /* PLAN_GIVEN_NONE: entropy and alternatives alone */
};

/* Scopes decide who shares KV; ids decide what. scope 0 means: share with nobody. Prompts and
 * sessions take their scopes from one space of numbers: no prompt's equals a session's. */
struct branch_scope {
    uint64_t prompt; /* persona version + variables (+ owner): up to prompt_token_count */
    uint32_t prompt_token_count; /* leading context tokens that are the prompt's, greeting and its
                                    frame included */
    uint64_t session;            /* below that */
};

/* Output block, reserved at admission by the loop, written by the engine. Arrays have
 * token_count_max entries; text has text_bytes_max. */
struct branch_output {
    uint32_t token_count_max;
    uint32_t text_bytes_max; /* at least token_count_max * token_bytes_max is always enough */
    uint32_t top_count;
    uint32_t *tokens; /* sampled ids, the one that completed the stop included */
    float *logprobs;  /* model, nats */
    float *logprobs_sampler;
    float *entropies;
    struct sample_top *tops; /* [token][top_count]; NULL when top_count is 0 */
    float
        *rows; /* of a look: [mark][vocabulary], the logits that a mark was measured in; or NULL */
    uint32_t
        *text_ends; /* [token] bytes of text that tokens 0..i show, all sampled tokens counted */
    uint8_t *text;  /* bytes shown by all sampled tokens (released or not) */
};

/* With marks a branch looks: it samples and shows nothing. Entry i of the output block is mark i's;
 * `tokens` has the mark's token, texts are not used, and it ends as FINISH_LENGTH once all marks
 * are answered. What a mark answers has the bits that the same token had when it was sampled.
 * Sampler and cues may be NULL, unless marks_draw. */
struct branch_spec {
    uint32_t slot;
    uint64_t node;    /* for logs */
    uint64_t request; /* for logs */
    uint32_t user;    /* system user: fairness */
    uint64_t session; /* fairness between sessions of a user */
    uint64_t group; /* siblings of one request share it (0: none): the same runs, one logits row */
    enum branch_priority priority;
    const struct branch_run *runs;
    uint32_t run_count;
    uint32_t context_token_count; /* sum over runs; at least 1 */
    uint32_t context_room;        /* context + sampled tokens never exceed it */
    struct branch_scope scope;
    const struct sampler *sampler;
    uint64_t seed;
    const struct cue_set *cues;
    const uint8_t *lead_in; /* the turn's earlier bytes, for the cue reader */
    uint32_t lead_in_bytes;
    const struct branch_mark *marks; /* borrowed, positions ascending, the last one that of the last
                                        context token; NULL: the branch generates */
    uint32_t mark_count;
    bool marks_draw; /* the marks are a node's sampled tokens in order, the last mark_count - 1 of
                        them the end of the context: `tokens` says what seed and sampler draw there,
                        and logprobs_sampler is filled in */
    const struct branch_run *texts; /* borrowed: texts that the reply may resemble, such as its
                                       siblings'; drafts are taken from them, no bit is */
    uint32_t text_count;
    uint32_t resume_count; /* tokens already in output (an interrupted node goes on); 0 normally */
    struct branch_output *output;
};

/* What the loop is told. Values only grow; the last event of a branch has finish != FINISH_NONE. */
struct branch_event {
    uint32_t sampled_count;  /* entries of the output arrays that are final */
    uint32_t released_count; /* whole tokens every byte of which is released */
    uint32_t released_bytes; /* of output->text that may be shown */
    uint32_t finish;         /* enum branch_finish */
    uint32_t kept;           /* final: whole tokens before the cut */
    uint32_t content_bytes;  /* final: text ends here; bytes after the kept tokens' are the tail */
    uint32_t status;         /* enum status, with FINISH_FAILED */
    uint32_t cue_pattern;    /* with FINISH_CUE: which pattern */
    uint32_t context_cached_count;   /* context tokens whose KV was found or waited for */
    uint32_t context_computed_count; /* context tokens computed for this branch, recomputation after
                                        preemption included */
    uint64_t queued_ns, first_token_ns, last_token_ns; /* since submit; 0 until known */
};

#endif
