/* What the store tells the journal: from its own structs to records.
 * record_node.c: what a node got. record.c: all else.
 *
 * Thread: loop. Batches are made before anything is visible, so that a lack of memory undoes the
 * change; record_load.h is the way back. docs/JOURNAL.md has the formats.
 */
#ifndef PERSONAD_SESSION_RECORD_H
#define PERSONAD_SESSION_RECORD_H

#include "journal/journal.h"
#include "session/change.h"
#include "session/state.h"

/* All that a change makes, in the order in which it has to come: a session that is new with its
 * prompt and cast, given nodes, what its sampled nodes hang on and are computed from, their
 * intents, the client key, the head. Ids are assigned already. MEMORY. */
MUST_USE enum status record_change(const struct change *change, const struct change_answer *answer,
                                   struct journal_batch **out);

/* The tokens that a node has got since it was last recorded. Gives nothing when there are none.
 * A failure (LIMIT, MEMORY, STORAGE) is logged and loses nothing: the next one has them too. */
enum status record_checkpoint(struct store *store, struct node *node);

/* How a node ended, with its last tokens. STORAGE, MEMORY. */
MUST_USE enum status record_finish(struct store *store, struct node *node);

/* A persona version; *ticket names its commit. STORAGE, LIMIT, MEMORY. */
MUST_USE enum status record_persona(struct store *store, const struct persona *persona,
                                    struct error *error, uint64_t *ticket);

/* Nothing; *ticket says when all that was submitted before is committed. */
MUST_USE enum status record_barrier(struct store *store, struct error *error, uint64_t *ticket);

/* Where a session's reader is. Likewise. */
MUST_USE enum status record_head(struct store *store, const struct session *session,
                                 struct error *error, uint64_t *ticket);

/* What is said about a node, a session, a persona; added to a batch of the caller's. MEMORY. */
MUST_USE enum status record_add_mark(struct journal_batch *batch, const struct node *node,
                                     bool is_deleted, bool is_purged);
MUST_USE enum status record_add_note(struct journal_batch *batch, const struct journal_note *note);
/* A speaker with its prompt; renames one that is there. */
MUST_USE enum status record_add_member(struct journal_batch *batch, const struct session *session,
                                       uint32_t speaker);
MUST_USE enum status record_add_joint(struct journal_batch *batch, const struct session *session,
                                      uint32_t index);
MUST_USE enum status record_add_head(struct journal_batch *batch, const struct session *session,
                                     const struct node *head, uint32_t offset);

/* A session that is new, with its prompts and cast; made by that model. MEMORY. */
MUST_USE enum status record_add_session(struct journal_batch *batch, const struct session *session,
                                        const struct journal_origin *origin);

/* The row of a prompt; its greetings are appended to the buffer and borrowed from there. MEMORY. */
MUST_USE enum status record_fill_prompt(const struct prompt *prompt, struct buffer *greetings,
                                        struct journal_prompt *out);

/* The name of steps in the journal. */
void record_digest_steps(struct bytes sampler, struct bytes cues,
                         uint8_t digest[JOURNAL_DIGEST_BYTES]);

/* A batch of small records of your own: submits it and gives its ticket. Takes the batch over. */
MUST_USE enum status record_submit(struct store *store, struct journal_batch *batch,
                                   struct error *error, uint64_t *ticket);

#endif
