/* The part of the client library that looks into the distribution: nothing here is sampled, and
 * nothing but personad_keep() changes anything.
 *
 * personad_client.h includes it, and says how results live and what the int of a call means.
 * Numbers are the model's, before any sampler step, in nats.
 */
#ifndef PERSONAD_CLIENT_LOOK_H
#define PERSONAD_CLIENT_LOOK_H

#include "personad_client.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- looking into the distribution */

/* Where a look stands, and in whose context: that of a reply as personad_generate() would make it.
 */
struct personad_place {
    uint64_t session;
    const struct personad_position *position; /* NULL: the session's head */
    bool has_speaker;
    uint32_t speaker;
    bool continuing;
};

struct personad_distribution {
    float entropy; /* nats */
    uint32_t context_tokens;
    size_t top_count; /* likeliest first */
    const uint32_t *top_tokens;
    const float *top_logprobs;
    const struct personad_text *top_pieces;
    const float *logprobs; /* [logprob_count]: of the tokens that were asked for */
    size_t logprob_count;
};

int personad_distribution(personad_client *client, const struct personad_place *place,
                          uint32_t top_count, const uint32_t *tokens, size_t token_count,
                          struct personad_distribution *out);

struct personad_scored {
    double logprob;       /* sum */
    double token_logprob; /* mean */
    double share;         /* exp(logprob) over the sum of it over the options */
    size_t token_count;
    const uint32_t *tokens;
    const float *logprobs, *entropies;
};

/* As many answers as options, in their order. */
int personad_score(personad_client *client, const struct personad_place *place,
                   const struct personad_text *options, size_t option_count,
                   const struct personad_scored **out);

/* A stretch of what was said on a path. */
struct personad_span {
    uint64_t node;
    uint32_t first, speaker; /* offset of the first token in the node's content */
    const uint32_t *tokens;
    size_t token_count;
};

struct personad_compared {
    uint64_t persona;
    double logprob, ratio;             /* ratio: logprob of the first persona less this one's */
    const float *logprobs, *entropies; /* [token_count], of all spans one after another */
    const float *divergences; /* likewise: Kullback-Leibler, from the first persona's distribution;
                                 NULL unless asked for */
};

struct personad_comparison {
    const struct personad_span *spans;
    size_t span_count;
    const struct personad_compared *personas;
    size_t persona_count;
    size_t token_count; /* of all spans */
};

struct personad_compare_options {
    uint64_t session;
    const struct personad_position *position; /* the path's end; NULL: the session's head */
    const uint64_t *personas;                 /* version ids */
    size_t persona_count;                     /* 0: the one that is there */
    bool has_speaker;                         /* only what this one says */
    uint32_t speaker;
    bool divergence; /* compare whole distributions too */
};

int personad_compare(personad_client *client, const struct personad_compare_options *options,
                     struct personad_comparison *out);

struct personad_answers {
    struct personad_text text; /* folded */
    const uint64_t *nodes;
    size_t node_count;
    double share;
    double mass; /* NaN: not all of them were sampled */
};

/* position: whose children are grouped; NULL: the siblings of the session's head. entropy may be
 * NULL. */
int personad_group(personad_client *client, uint64_t session,
                   const struct personad_position *position, const struct personad_answers **out,
                   size_t *count, double *entropy);

/* A node that is not what it was, is foreign, or could not be computed (error_text). */
struct personad_verified {
    uint64_t node, session;
    int number;     /* what differs first, see personad_verified_name(); 0: nothing */
    uint32_t index; /* at which sampled token */
    uint32_t stored_bits, computed_bits;
    bool is_foreign; /* of another model or numerics id */
    float difference_max;
    const uint32_t *other_tokens; /* where the same draw picks another token */
    size_t other_token_count;
    struct personad_text error_text;
};

/* "token", "logprob", "sampler_logprob", "entropy", "alternatives"; static. */
const char *personad_verified_name(int number);

struct personad_verification {
    uint64_t node_count, equal_count, different_count, foreign_count, failed_count, token_count;
    const struct personad_verified *nodes; /* new since the last progress */
    size_t new_count;
};

struct personad_verify_options {
    uint64_t node;    /* this one, */
    bool path;        /* and all above it; or */
    uint64_t session; /* all of this session; both 0: everything of the caller's */
};

/* Returns when all is verified; on_progress (may be NULL) hears of it meanwhile, the last time
 * included, and must not call the handle. */
int personad_verify(personad_client *client, const struct personad_verify_options *options,
                    void (*on_progress)(void *context, const struct personad_verification *seen),
                    void *context, struct personad_verification *out);

/* ---------------------------------------------------------------- expanding */

struct personad_expand_options {
    struct personad_place place;
    uint32_t depth;           /* tokens of a path; 0: the daemon's default, 4 */
    uint32_t width;           /* the likeliest tokens behind a node; 0: 4 */
    uint32_t node_count;      /* in all; 0: 256 */
    bool has_probability_min; /* else 0.01: */
    double probability_min;   /* what has a smaller joint probability is left out */
};

struct personad_expanded {
    uint32_t parent; /* its number; 0: the place */
    uint32_t level;  /* tokens of the path */
    uint32_t token;
    bool is_end; /* ends the turn, and does not grow */
    float logprob, entropy;
    double joint_logprob;
    struct personad_text piece; /* what the token shows */
};

/* Nodes are numbered from 1: number n is nodes[n - 1]. Parents come before children, likelier
 * siblings first. */
struct personad_expansion {
    uint64_t id;
    const struct personad_expanded *nodes;
    size_t count;
    uint32_t context_tokens;
    uint32_t growing_count; /* in on_progress: nodes that are being grown */
    int end;                /* why it ended, see personad_expand_end_name() */
};

/* "depth", "probability", "nodes", "context", "cancelled"; static. */
const char *personad_expand_end_name(int end);

/* Returns when all is grown; on_progress (may be NULL) hears of each level meanwhile, and must not
 * call the handle. The daemon forgets the expansion when the handle is closed, at the latest. */
int personad_expand(personad_client *client, const struct personad_expand_options *options,
                    void (*on_progress)(void *context, const struct personad_expansion *seen),
                    void *context, struct personad_expansion *out);

/* Makes the path to a node of an expansion a node of the session; the head moves to its end. */
int personad_keep(personad_client *client, uint64_t expansion, uint32_t node,
                  const struct personad_node **out);

#ifdef __cplusplus
}
#endif

#endif
