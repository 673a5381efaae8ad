/* What the model saw before a node's first token: segments, stored with every sampled node.
 *
 * Thread: loop. A context is built once by a pure function of (path, speaker, persona version,
 * window, inserts) and then stored, so that computing a node again never runs template code. It is
 * stored as a difference: the leading segments that it shares with the context of the nearest
 * ancestor of the same lineage (prompt, and speaker where they do not share one), and its own
 * segments behind them. Contexts are counted shares; siblings of one request share one.
 *
 * A segment borrows the prompt's ids and a node's content, which live as long as the session, and
 * the ids of frames from the context that has the segment.
 */
#ifndef PERSONAD_SESSION_CONTEXT_H
#define PERSONAD_SESSION_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "session/tree.h"

enum segment_kind {
    SEGMENT_PROMPT, /* of the viewpoint's persona */
    SEGMENT_NODE,   /* tokens [from, from + count) of a node's content */
    SEGMENT_FRAME,  /* of a template */
    SEGMENT_START,  /* one token, where nothing stands before the first sampled token */
    SEGMENT_INSERT, /* a text between turns, and what its template puts around it */
};

struct segment {
    enum segment_kind kind;
    uint32_t count;
    const uint32_t *ids; /* borrowed; NULL for SEGMENT_NODE */
    const struct node *node;
    uint32_t from;
};

struct context {
    uint64_t id; /* in the journal: the first node that was sampled from it */
    uint32_t reference_count;
    const struct prompt *prompt;
    uint32_t speaker;
    uint32_t token_count;
    uint32_t first_turn;        /* turns of the path that the window left out */
    uint32_t scope_token_count; /* leading tokens under the prompt's scope */
    struct context *base;       /* acquired, or NULL */
    uint32_t base_count;        /* leading segments taken from it */
    uint32_t own_count;
    struct segment own[];
};

struct context_query {
    struct session *session;
    struct encoder *encoder;
    struct place place;
    uint32_t speaker;      /* whose reply it is for */
    bool opens_turn;       /* else the reply goes on in the turn at the place */
    uint32_t reply_tokens; /* wanted, for the window */
};

/* LIMIT when what must stay does not fit; CONFLICT when there is no turn to go on in. */
MUST_USE enum status context_create(const struct context_query *query, struct error *error,
                                    struct context **out);
struct context *context_acquire(struct context *context);
void context_release(struct context *context); /* NULL is fine */

uint32_t context_token_count(const struct context *context);
uint32_t context_turns_left_out(const struct context *context);

/* All segments in order: as many as context_segment_count() into `out`. */
uint32_t context_segment_count(const struct context *context);
void context_segments(const struct context *context, struct segment *out);

/* The ids of a segment, wherever they lie now. */
const uint32_t *context_segment_ids(const struct segment *segment);

/* For views: the id of a node's session. */
uint64_t context_session_id(const struct node *node);

#endif
