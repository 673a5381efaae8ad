/* Notes that the model reads some turns before the end, from a place of the tree on.
 *
 * Thread: loop. A note is set at a position and is in force there and below, until a later position
 * on the way sets another one; an empty one takes notes away from there on. So branches differ, and
 * the root's note is the session's. A node that an edit carried along has the notes of its
 * original.
 */
#ifndef PERSONAD_SESSION_AUTHOR_NOTE_H
#define PERSONAD_SESSION_AUTHOR_NOTE_H

#include "journal/record.h"
#include "session/state.h"

struct author_note {
    struct node *node; /* of the session's tree, the root included */
    uint32_t offset;
    uint32_t depth;
    enum insert_role role;
    uint64_t created_us;
    struct bytes text; /* owned */
};

/* Sets, takes away, or answers which one is in force. */
void author_note_execute(struct store *store, const struct request *request, struct reply_to to);

/* The one in force at the end of the path, or NULL. */
const struct author_note *author_note_in_force(const struct session *session,
                                               const struct tree_step *steps, uint32_t count);

/* One from the journal; what names a node that is not there any more is left out. */
MUST_USE enum status author_note_load(const struct table *nodes, struct session *session,
                                      const struct journal_author_note *row);

/* Bytes that all of them take of what the user stores. */
uint64_t author_note_bytes(const struct session *session);

void author_note_drop_purged(struct store *store, struct session *session);
void author_note_finish(struct session *session);

#endif
