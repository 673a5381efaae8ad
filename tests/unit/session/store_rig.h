/* A whole store on one thread: real tokeniser, journal and trees over a fake engine.
 *
 * Thread: one. The rig keeps what the store answered: the last replies as copies of what tests
 * look at. rig_settle() runs the journal and the store until nothing moves.
 */
#ifndef PERSONAD_TESTS_UNIT_SESSION_STORE_RIG_H
#define PERSONAD_TESTS_UNIT_SESSION_STORE_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "session/store.h"
#include "support/vocabulary_fixture.h"
#include "unit/session/fake_engine.h"

enum {
    RIG_NODE_COUNT_MAX = 1100,
    RIG_CONTEXT_COUNT_MAX = 8192,
    RIG_FILE_BYTES_MAX = 1024 * 1024,
    RIG_UID = 1000
};

struct rig_reply {
    enum reply_type type;
    uint64_t request; /* of its reply_to */
    bool more;
    struct error error;
    uint64_t id;                 /* session or persona */
    struct session_view session; /* its borrowed parts are gone; of a list the first, `text` being
                                    its label */
    struct persona_view persona; /* likewise */
    char card[4096];
    uint32_t node_count;
    struct node_view nodes[RIG_NODE_COUNT_MAX]; /* likewise */
    bool end;
    uint32_t context_count;
    uint32_t context[RIG_CONTEXT_COUNT_MAX];
    struct position head;
    uint32_t item_count; /* of a list */
    char text[4096];
    struct verify_view verify;
    struct verified_node_view verified; /* the one it tells of; other_tokens are gone */
    struct scored_option_view scored[8];
    struct expand_view expanded;                   /* its nodes are in expanded_nodes */
    struct expanded_node_view expanded_nodes[600]; /* the pieces are the vocabulary's */
    uint32_t file_bytes;                           /* of a page of an export */
    uint8_t file[RIG_FILE_BYTES_MAX];
};

struct rig {
    struct vocabulary_fixture vocabulary;
    struct tokenizer *tokenizer;
    struct engine *engine;
    struct journal *journal;
    struct store *store;
    uint8_t model_hash[32];
    struct rig_reply reply; /* the last one */
    uint32_t reply_count;
    uint32_t follow_count, followed_node_count;
    uint64_t followed[RIG_NODE_COUNT_MAX];
    uint32_t progress_count;
    const uint8_t *file_at; /* where the last page of an export lay */
    uint64_t next_request;
    bool is_deserted;               /* nobody waits for replies any more */
    void (*watch)(struct rig *rig); /* called at every answer and news, or NULL */
};

/* vocabulary: a fixture's name. */
void rig_init(struct rig *rig, const char *vocabulary, const char *chat_format);
void rig_finish(struct rig *rig);

/* Makes a new store over a new engine and journal; keeps the tokeniser. */
void rig_restart(struct rig *rig, const char *chat_format);

/* Runs journal and store. */
void rig_settle(struct rig *rig);

/* Executes and settles. */
void rig_execute(struct rig *rig, struct request request);

/* A persona from a card in JSON; its id. The request must succeed. */
uint64_t rig_put(struct rig *rig, const char *card);

/* A session of that persona; its id. */
uint64_t rig_open_session(struct rig *rig, uint64_t persona);

/* Requests with usual values. */
struct request rig_request(enum request_type type);
struct request rig_say(uint64_t session, const char *text);
struct request rig_generate(uint64_t session, uint32_t n);
struct request rig_append(uint64_t session, const char *text);

/* The view of a node, which must exist. */
struct node_view rig_view(struct rig *rig, uint64_t node);

/* Ids as the vocabulary writes them, one after another: "<|im_start|>user\nHi". */
const char *rig_names(struct rig *rig, const uint32_t *ids, uint32_t count);

/* The context of the branch that was submitted as that one, written so. */
const char *rig_context(struct rig *rig, uint32_t branch);

#endif
