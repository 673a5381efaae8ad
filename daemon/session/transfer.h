/* Exports and imports under way: files that travel in pieces, one request a piece.
 *
 * Thread: loop. A transfer belongs to the connection that began it, and goes with it, unless its
 * file is being stored already. The store owns them.
 */
#ifndef PERSONAD_SESSION_TRANSFER_H
#define PERSONAD_SESSION_TRANSFER_H

#include "session/portable_read.h"
#include "session/portable_write.h"
#include "session/state.h"

struct import_making;
struct import_saving;
struct key;

struct transfer {
    uint64_t id;
    uint32_t uid;
    bool is_import;
    struct reply_to to; /* who began it, or waits now */
    struct portable portable;
    struct user *user;      /* borrowed */
    uint64_t counted_bytes; /* of the portable, counted for the user */
    bool is_answering;      /* its reply is on its way: it goes when that has left */
    bool is_gone;           /* its connection is */

    /* export */
    uint64_t session_id, node;
    struct portable_writer *writer; /* owned; NULL: its rows are being read */
    struct buffer out;              /* owned */
    size_t sent;                    /* bytes of it that were sent */
    bool is_over;

    /* import */
    struct portable_reader reader; /* owned */
    struct import_making *making;  /* owned; NULL: the file is still coming, or it is made */
    struct error failure;          /* of the making, which is being taken down */
    struct import_saving *saving;  /* owned; NULL: it is not stored yet */
    struct key *key;               /* owned; NULL: none, or it is being stored */
};

/* LIMIT past TRANSFER_COUNT_MAX or TRANSFER_PER_USER_COUNT_MAX; MEMORY. */
MUST_USE enum status transfer_create(struct store *store, uint32_t uid, struct reply_to to,
                                     bool is_import, struct error *error, struct transfer **out);

/* NULL where it is gone. */
struct transfer *transfer_of(const struct store *store, uint64_t id);

/* NOT_FOUND where this connection has no such transfer of that kind. */
MUST_USE enum status transfer_find(const struct store *store, uint64_t id, uint32_t uid,
                                   struct reply_to to, bool is_import, struct error *error,
                                   struct transfer **out);

/* Counts what the portable holds now; LIMIT of the user's content. */
MUST_USE enum status transfer_count(struct transfer *transfer, struct error *error);

/* To whoever waits now; is_end: then the transfer is over. It may be gone afterwards. */
void transfer_answer(struct store *store, struct transfer *transfer, const struct reply *reply,
                     bool is_end);

/* What that connection began goes. May be called while the store answers. */
void transfer_connection_closed(struct store *store, uint64_t connection);

void transfer_destroy(struct store *store, struct transfer *transfer);

/* All of them, for store_destroy(). */
void transfer_finish(struct store *store);

#endif
