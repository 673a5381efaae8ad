/* The personas that there are: put, found, listed.
 *
 * Thread: loop. Versions are immutable and never go away while the daemon runs. Equal content of
 * the same owner and visibility is one version.
 */
#ifndef PERSONAD_SESSION_CATALOG_H
#define PERSONAD_SESSION_CATALOG_H

#include "session/state.h"

struct catalog_put {
    struct bytes card;
    uint32_t owner_uid;
    enum visibility visibility;
    bool is_built_in; /* the card may choose its visibility */
};

/* *ticket names its commit (pending.h), 0 when nothing new is to be stored. BAD_INPUT, LIMIT,
 * UNSUPPORTED, STORAGE, MEMORY. */
MUST_USE enum status catalog_put(struct store *store, const struct catalog_put *put,
                                 struct error *error, uint64_t *ticket, struct persona **out);

/* A card from a file, for everybody unless it says otherwise; it belongs to the daemon's user. One
 * that was deleted comes back. The first of them is the default where no name is set. As above. */
MUST_USE enum status catalog_put_built_in(struct store *store, struct bytes card,
                                          struct error *error);

/* By id, or by name: the newest version of the caller's own, else of the built-in ones, else of
 * other users' public ones and of those that files of the folder were before. Both empty: the
 * default persona. NOT_FOUND, DENIED. */
MUST_USE enum status catalog_find(const struct store *store, uint64_t id, struct bytes name,
                                  uint32_t uid, struct error *error, struct persona **out);

void catalog_answer_put(struct store *store, const struct request *request, struct reply_to to);
void catalog_answer_get(struct store *store, const struct request *request, struct reply_to to);
void catalog_answer_list(struct store *store, const struct request *request, struct reply_to to);

#endif
