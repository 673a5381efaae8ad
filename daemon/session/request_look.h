/* The part of request.h that looks into the distribution: requests that change nothing, and what
 * they answer. What request.h says of borrowing and checking holds here.
 */
#ifndef PERSONAD_SESSION_REQUEST_LOOK_H
#define PERSONAD_SESSION_REQUEST_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "schedule/branch.h"
#include "session/position.h"

/* Where a look stands, and in whose context: that of a reply as Generate would make it there. */
struct look_place {
    uint64_t session;
    bool has_position;
    struct position position;
    bool has_speaker;
    uint32_t speaker;
    bool continuing;
};

struct request_distribution {
    struct look_place place;
    uint32_t top_count;     /* at most TOP_COUNT_MAX */
    const uint32_t *tokens; /* not checked against the vocabulary */
    uint32_t token_count;   /* at most DISTRIBUTION_TOKEN_COUNT_MAX */
    enum branch_priority priority;
};

struct score_option {
    struct bytes text; /* valid UTF-8, at most TEXT_BYTES_MAX; or: */
    const uint32_t *tokens;
    uint32_t token_count;
};

struct score_item {
    struct look_place place;
    const struct score_option *options;
    uint32_t option_count; /* at least 1 */
};

struct request_score {
    const struct score_item *items;
    uint32_t item_count;   /* at least 1 */
    uint32_t option_count; /* of all items, at most SCORE_OPTION_COUNT_MAX */
    bool numbers;
    enum branch_priority priority;
};

struct request_compare {
    uint64_t session;
    bool has_position;
    struct position position;
    const uint64_t *personas;
    uint32_t persona_count; /* at most COMPARE_PERSONA_COUNT_MAX; 0: the one that is there */
    bool has_speaker;
    uint32_t speaker;
    bool divergence;
    enum branch_priority priority;
};

struct request_group {
    uint64_t session;
    const uint64_t *nodes;
    uint32_t node_count; /* at most GROUP_NODE_COUNT_MAX; 0: the children of the position */
    bool has_position;
    struct position position;
};

/* Exactly one of the three. */
struct request_verify {
    uint64_t node;
    bool path; /* with node */
    uint64_t session;
    bool all;
};

struct request_expand {
    struct look_place place;
    uint32_t depth;          /* 1 to EXPAND_DEPTH_MAX */
    uint32_t width;          /* 1 to TOP_COUNT_MAX */
    double probability_min;  /* 0 to 1 */
    uint32_t node_count_max; /* 1 to EXPAND_NODE_COUNT_MAX */
    enum branch_priority priority;
};

struct request_keep {
    uint64_t expansion;
    uint32_t node; /* its number; not checked */
};

/* ---- answers ---- */

struct distribution_view {
    float entropy;
    const struct sample_top *tops;
    const struct bytes *top_pieces;
    uint32_t top_count;
    const float *logprobs;
    uint32_t logprob_count;
    uint32_t context_token_count;
};

/* The options of all items, one after another. */
struct scored_option_view {
    double logprob, share;
    const uint32_t *tokens; /* NULL unless asked for, like the two below */
    const float *logprobs, *entropies;
    uint32_t token_count;
};

struct score_view {
    const struct scored_option_view *options;
    const uint32_t *option_counts; /* [item_count] */
    uint32_t item_count;
};

struct compared_span_view {
    uint64_t node;
    uint32_t first, speaker, token_count;
    const uint32_t *tokens;
};

struct compared_persona_view {
    uint64_t persona;
    double logprob, ratio;
    const float *logprobs, *entropies; /* [token_count] */
    const float *divergences;          /* likewise; NULL unless asked for */
};

struct compare_view {
    const struct compared_span_view *spans;
    uint32_t span_count;
    const struct compared_persona_view *personas;
    uint32_t persona_count;
    uint32_t token_count; /* of all spans */
};

struct answer_group_view {
    struct bytes text;
    const uint64_t *nodes;
    uint32_t node_count;
    double share, mass;
    bool has_mass;
};

struct group_view {
    const struct answer_group_view *groups;
    uint32_t count;
    double entropy;
};

/* Numbers as in the protocol. */
enum verified_number {
    VERIFIED_NOTHING = 0,
    VERIFIED_TOKEN = 1,
    VERIFIED_LOGPROB = 2,
    VERIFIED_SAMPLER_LOGPROB = 3,
    VERIFIED_ENTROPY = 4,
    VERIFIED_ALTERNATIVES = 5,
};

struct verified_node_view {
    uint64_t node, session;
    enum verified_number number;
    uint32_t index, stored_bits, computed_bits;
    bool is_foreign;
    float difference_max;
    const uint32_t *other_tokens; /* [at most VERIFY_OTHER_TOKEN_COUNT_MAX] */
    uint32_t other_token_count;
    struct error error; /* status OK: it was computed */
};

struct verify_view {
    uint64_t node_count, equal_count, different_count, foreign_count, failed_count, token_count;
    const struct verified_node_view *nodes;
    uint32_t new_count;
};

/* Numbers as in the protocol. */
enum expand_end {
    EXPAND_END_DEPTH = 0,
    EXPAND_END_PROBABILITY = 1,
    EXPAND_END_NODES = 2,
    EXPAND_END_CONTEXT = 3,
    EXPAND_END_CANCELLED = 4,
};

struct expanded_node_view {
    uint32_t parent; /* its number; 0: the place */
    uint32_t token;
    struct bytes piece;
    float logprob, entropy;
    double joint_logprob;
    bool is_end;
};

struct expand_view {
    uint64_t expansion;
    uint32_t level, first;
    const struct expanded_node_view *nodes;
    uint32_t new_count;
    uint32_t node_count, growing_count, context_token_count;
    bool has_end;
    enum expand_end end;
};

#endif
