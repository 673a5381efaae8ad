/* The session's front door: all personas, sessions and nodes, and the execution of requests.
 *
 * Thread: loop. Owns the trees, personas, immutable token runs and the branches' output blocks.
 * Lends branches to the engine, sends copies to the journal.
 *
 * Requests are prepared (what they name is brought into memory, residence.h) and then executed
 * (synchronous, all resident).
 *
 * What becomes of a request: open.h (sessions), say.h (Say, Generate, Append), service.h (what
 * changes no tree), catalog.h (personas). A `prefix` becomes a given node of its own, which the
 * sampled nodes continue; Created lists given nodes first. A node is visible from the commit of its
 * intent, its end from the commit of its finish row.
 */
#ifndef PERSONAD_SESSION_STORE_H
#define PERSONAD_SESSION_STORE_H

#include "base/error.h"
#include "base/status.h"
#include "journal/journal.h"
#include "schedule/engine.h"
#include "session/request.h"
#include "text/tokenizer.h"

struct store;
struct model;

struct store_settings {
    const struct tokenizer *tokenizer; /* borrowed, like all below */
    struct engine *engine;
    struct journal *journal;
    const uint8_t *model_hash; /* 32 bytes */
    const char *numerics_id;
    const char *chat_format; /* NULL or "auto": recognised from the vocabulary's chat_template */
    const char *default_persona;      /* its name; NULL: the first that was loaded */
    uint32_t context_token_count_max; /* longest context + reply */
    uint64_t resident_bytes_max;      /* of trees in memory; 0: RESIDENT_MIB_MAX */
    struct info_view
        info; /* answered to Info, borrowed strings; chat_format is filled in by the store */
    struct session_events events;
};

MUST_USE enum status store_create(const struct store_settings *settings, struct error *error,
                                  struct store **out);
void store_destroy(struct store *store);

/* What the journal keeps: personas and sessions come back, and nodes without an end go on. Once,
 * before cards are loaded and before any thread starts. */
MUST_USE enum status store_load(struct store *store, struct error *error);

/* A card from a file that ships with the daemon or is named in the settings; owner: the daemon's
 * user, public. */
MUST_USE enum status store_persona_load(struct store *store, const char *path, struct error *error);

/* Whether all that the request reads is in memory. AGAIN: it is being loaded; ask again once
 * events.on_loaded was called, and until then leave the request where it is. STORAGE: it cannot be
 * read, the sentence is in error. Call it in front of store_execute(). */
MUST_USE enum status store_prepare(struct store *store, const struct request *request,
                                   struct error *error);

/* Executes one request; its answer goes to settings.events, now or later. Never fails otherwise.
 * The request is borrowed for the call: also where the answer comes within it. */
void store_execute(struct store *store, const struct request *request, struct reply_to to);

/* Takes the engine's events and the journal's completions; call on every wake-up, and in every turn
 * of the loop while store_has_work(): it does a slice of that, too. */
void store_pump(struct store *store);
bool store_has_work(const struct store *store);

/* NOT_FOUND or DENIED, with the sentence in error. */
MUST_USE enum status store_node_view(struct store *store, uint32_t uid, uint64_t node,
                                     struct error *error, struct node_view *out);

/* Readers come and go: a branch that nobody follows for a while is parked, following it goes on. */
void store_node_follow(struct store *store, uint64_t node);
void store_node_unfollow(struct store *store, uint64_t node);

/* Ends the computation behind a request, also before its nodes are named: who generates says Cancel
 * of them to learn that the cut is final, who looks or expands gets its last reply soon. Harmless
 * where there is none. */
void store_cancel_request(struct store *store, struct reply_to to);

/* What was kept for that connection goes. May be called while the store answers. */
void store_connection_closed(struct store *store, uint64_t connection);

/* Refuses new work with STOPPING from now on. */
void store_stop(struct store *store);

/* True when no branch is lent out and no commit is pending. */
bool store_is_idle(const struct store *store);

#endif
