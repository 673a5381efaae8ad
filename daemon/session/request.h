/* The boundary between codecs (wire/, later http/) and the session: plain, validated structs.
 *
 * Thread: loop. A request is parsed once at the edge; whoever receives one need not check it again
 * for what its comments promise. All bytes and arrays in a request are borrowed for the duration of
 * store_execute(): what is kept is copied. All bytes and arrays in a reply are borrowed for the
 * duration of the callback.
 *
 * Answers come through `struct session_events`, maybe later than store_execute() returns (a node's
 * intent commits first), addressed by a `struct reply_to` value, so that a connection may vanish
 * meanwhile: the codec drops what has no reader. Streams are cursors: on_follow says which nodes a
 * request reads; the codec keeps a cursor each, on_progress says that a node has more,
 * store_node_view() gives it. No reader slows a branch.
 */
#ifndef PERSONAD_SESSION_REQUEST_H
#define PERSONAD_SESSION_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "sample/sampler.h"
#include "schedule/branch.h"
#include "session/position.h"
#include "session/request_look.h"
#include "session/request_transfer.h"

enum request_type {
    REQUEST_INFO,
    REQUEST_STATS,
    REQUEST_PERSONA_PUT,
    REQUEST_PERSONA_GET,
    REQUEST_PERSONA_LIST,
    REQUEST_SESSION_OPEN,
    REQUEST_SESSION_LIST,
    REQUEST_SAY,
    REQUEST_GENERATE,
    REQUEST_APPEND,
    REQUEST_WALK,
    REQUEST_FOLLOW,
    REQUEST_CANCEL,
    REQUEST_HEAD,
    REQUEST_TOKENIZE,
    REQUEST_DETOKENIZE,
    REQUEST_PERSONA_DELETE,
    REQUEST_SESSION_DELETE,
    REQUEST_SESSION_SET,
    REQUEST_BOOKMARK,
    REQUEST_BOOKMARK_LIST,
    REQUEST_DELETE,
    REQUEST_UNDELETE,
    REQUEST_PURGE,
    REQUEST_LABEL,
    REQUEST_CONTEXT,
    REQUEST_DISTRIBUTION,
    REQUEST_SCORE,
    REQUEST_COMPARE,
    REQUEST_GROUP,
    REQUEST_VERIFY,
    REQUEST_BACKUP,
    REQUEST_EDIT,
    REQUEST_EXPAND,
    REQUEST_KEEP,
    REQUEST_NOTE,
    REQUEST_SESSION_EXPORT,
    REQUEST_SESSION_IMPORT,
    REQUEST_COUNT, /* stays last: numbers are stored with client keys, so append */
};

enum visibility { VISIBILITY_PRIVATE = 0, VISIBILITY_PUBLIC = 1 };
enum delivery { DELIVERY_EACH_TOKEN = 0, DELIVERY_FINAL_ONLY = 1, DELIVERY_NO_FOLLOW = 2 };
enum walk_what { WALK_PATH = 0, WALK_CHILDREN = 1, WALK_SUBTREE = 2, WALK_NODE = 3 };
enum node_origin {
    ORIGIN_SAMPLED = 0,
    ORIGIN_GIVEN = 1,
    ORIGIN_EDITED = 2,
    ORIGIN_IMPORTED = 3,
    ORIGIN_EXPANDED = 4
};

/* Finish of protocol and tree; 0..4 as enum branch_finish. */
enum node_finish {
    NODE_GOING = 0,
    NODE_END = 1,
    NODE_CUE = 2,
    NODE_LENGTH = 3,
    NODE_CONTEXT = 4,
    NODE_CUT = 5,
    NODE_FAILED = 6,
    NODE_INTERRUPTED = 7,
    NODE_WHOLE = 8,
};

enum group_mode { GROUP_SEPARATE = 0, GROUP_JOINT = 1 };

struct variable {
    struct bytes name;
    struct bytes value;
};

struct request_page {
    uint64_t after;
    uint32_t count; /* 1 to LIST_PAGE_COUNT_MAX */
    bool deleted;   /* SESSION_LIST: those that are marked as deleted too */
};

struct request_persona_put {
    struct bytes card; /* JSON, at most PERSONA_CARD_BYTES_MAX, not parsed yet */
    enum visibility visibility;
};

struct request_persona_get {
    uint64_t id; /* 0: by name */
    struct bytes name;
};

/* A further speaker: a persona (by id or name), or a human. */
struct request_member {
    uint64_t persona; /* 0: by name */
    struct bytes persona_name;
    struct bytes name; /* of a human: set where no persona is named, and only there; valid UTF-8 */
    const struct variable *variables;
    uint32_t variable_count;
};

struct request_session_open {
    uint64_t persona;          /* 0: by name */
    struct bytes persona_name; /* empty: the default persona */
    struct bytes user_name;    /* empty: "User"; valid UTF-8 */
    const struct variable *variables;
    uint32_t variable_count;
    bool has_seed;
    uint64_t seed;
    uint32_t context_tokens; /* 0: the daemon's */
    struct bytes label;
    bool no_greeting;
    const struct request_member *members; /* speakers 2 and on */
    uint32_t member_count;                /* at most SESSION_CAST_COUNT_MAX */
    enum group_mode group_mode;
};

/* What Say and Generate share. */
struct request_generation {
    uint32_t n; /* 1 to GENERATE_SIBLING_COUNT_MAX */
    struct sampler_settings
        sampler; /* has_ flags say what was set; ranges are checked by sampler_create */
    bool has_seed, has_raw_seed;
    uint64_t seed, raw_seed;
    struct bytes prefix; /* valid UTF-8 */
    enum delivery delivery;
    enum branch_priority priority;
    bool numbers;
    bool distinct_first; /* first tokens of the siblings are drawn without replacement */
    bool context; /* the answer has it where the caller owns the persona, or nothing is hidden */
};

struct request_say {
    uint64_t session;
    bool has_position;
    struct position position;
    uint32_t speaker;
    struct bytes text; /* valid UTF-8, at most TEXT_BYTES_MAX */
    bool has_reply_speaker;
    uint32_t reply_speaker;
    struct request_generation generation;
};

struct request_generate {
    uint64_t session;
    bool has_position;
    struct position position;
    bool has_speaker;
    uint32_t speaker;
    bool continuing;
    bool has_at_byte; /* with continuing: where in the node's text, instead of position.offset */
    uint32_t at_byte;
    struct request_generation generation;
};

struct request_append {
    uint64_t session;
    bool has_position;
    struct position position;
    uint32_t speaker;
    struct bytes text; /* valid UTF-8, at most TEXT_BYTES_MAX */
    bool special;
    bool continuing;
    bool has_at_byte; /* with continuing: where in the node's text, instead of position.offset */
    uint32_t at_byte;
};

struct request_walk {
    uint64_t session;
    bool has_position;
    struct position position;
    enum walk_what what;
    uint32_t skip;
    uint32_t count; /* 1 to WALK_PAGE_NODE_COUNT_MAX */
    bool text, content, numbers;
    bool deleted; /* also what is marked as deleted */
};

struct request_follow {
    uint64_t node;
    uint32_t from_token;
    uint32_t from_byte;
    enum delivery delivery; /* not NO_FOLLOW */
    bool numbers;
};

struct request_cancel {
    const uint64_t *nodes;
    uint32_t node_count;
    uint64_t session; /* 0: none */
    bool has_request; /* the codec fills `nodes` from its open request before it hands this over */
};

struct request_head {
    uint64_t session;
    bool has_position;
    struct position position;
};

struct request_tokenize {
    struct bytes text; /* valid UTF-8 */
    bool special;
    bool pieces;
};

struct request_detokenize {
    const uint32_t *tokens;
    uint32_t token_count;
    bool names; /* control tokens as the vocabulary writes them */
};

struct request_session_delete {
    uint64_t session;
    bool undo, purge; /* not both */
};

struct request_session_set {
    uint64_t session;
    bool has_label;
    struct bytes label;                   /* valid UTF-8, at most LABEL_BYTES_MAX */
    const struct request_member *members; /* who joins */
    uint32_t member_count;                /* at most SESSION_CAST_COUNT_MAX */
    bool has_name;                        /* who has not spoken yet is renamed */
    uint32_t speaker;
    struct bytes name; /* valid UTF-8 */
};

struct request_bookmark {
    uint64_t session;
    struct bytes name; /* valid UTF-8, 1 to LABEL_BYTES_MAX bytes */
    bool has_position;
    struct position position;
    bool remove;
};

/* Sets a note (has_text), takes one away (clear), or asks for the one in force. */
struct request_note {
    uint64_t session;
    bool has_position;
    struct position position;
    bool has_text, clear; /* not both */
    struct bytes text;    /* valid UTF-8, at most NOTE_BYTES_MAX; empty: none from there on */
    uint32_t depth;       /* at most INSERT_DEPTH_MAX */
    uint32_t role;        /* enum insert_role */
};

/* A page by number: BOOKMARK_LIST. */
struct request_bookmark_list {
    uint64_t session;
    uint32_t skip;
    uint32_t count; /* 1 to LIST_PAGE_COUNT_MAX */
};

/* DELETE, UNDELETE, PURGE. */
struct request_nodes {
    const uint64_t *nodes;
    uint32_t count; /* 1 to MARK_NODE_COUNT_MAX */
};

struct request_edit {
    uint64_t node;
    uint32_t from_byte, to_byte; /* of its text; to_byte may be OFFSET_END */
    struct bytes text;           /* valid UTF-8, at most TEXT_BYTES_MAX; may be empty */
    bool carry;
    bool has_until;
    struct position until;
};

struct request_label {
    uint64_t node;
    struct bytes label; /* valid UTF-8, at most LABEL_BYTES_MAX */
};

struct request_context {
    uint64_t node;
    bool tokens, text;
    uint32_t skip;
    uint32_t count; /* 1 to LIST_PAGE_COUNT_MAX */
};

struct request {
    enum request_type type;
    uint32_t uid;            /* of the peer */
    struct bytes client_key; /* at most CLIENT_KEY_BYTES_MAX; empty: none */
    union {
        struct request_persona_put persona_put;
        struct request_persona_get persona_get;
        struct request_page page; /* PERSONA_LIST, SESSION_LIST */
        struct request_session_open session_open;
        struct request_say say;
        struct request_generate generate;
        struct request_append append;
        struct request_walk walk;
        struct request_follow follow;
        struct request_cancel cancel;
        struct request_head head;
        struct request_tokenize tokenize;
        struct request_detokenize detokenize;
        uint64_t persona_delete; /* its id */
        struct request_session_delete session_delete;
        struct request_session_set session_set;
        struct request_bookmark bookmark;
        struct request_note note;
        struct request_bookmark_list bookmark_list;
        struct request_nodes nodes;
        struct request_edit edit;
        struct request_label label;
        struct request_export session_export;
        struct request_import session_import;
        struct request_context context;
        struct request_distribution distribution;
        struct request_score score;
        struct request_compare compare;
        struct request_group group;
        struct request_verify verify;
        struct request_expand expand;
        struct request_keep keep;
        struct bytes backup; /* absolute path, at most BACKUP_PATH_BYTES_MAX; no NUL in it */
    } u;
};

/* ---------------------------------------------------------------- answers */

struct persona_view {
    uint64_t id;
    struct bytes name, description, play;
    uint32_t version, owner_uid, greeting_count;
    enum visibility visibility;
    uint64_t created_us;
    bool built_in;
    const struct bytes *variables;
    uint32_t variable_count;
};

struct cast_view {
    uint32_t speaker;
    struct bytes name;
    uint64_t persona; /* 0: a human */
};

struct session_view {
    uint64_t id, seed, created_us;
    uint32_t owner_uid, context_tokens;
    uint64_t node_count;
    struct bytes label;
    const struct cast_view *cast;
    uint32_t cast_count;
    enum group_mode group_mode;
    struct position head;
    bool is_deleted;
};

/* A node as readers see it. Released entries never change; pointers stay valid until the next turn
 * of the loop. */
struct node_view {
    uint64_t id, session, seed, created_us, finished_us, original;
    struct position parent;
    uint32_t ordinal, speaker, child_count;
    enum node_origin origin;
    enum node_finish finish; /* visible finish: after its row was committed */
    bool opens_turn, is_deleted;
    uint32_t context_token_count, turns_left_out;
    const uint32_t *content; /* ids: kept + tail; while going: released tokens */
    uint32_t content_count;
    const uint8_t *text; /* bytes of the content; while going: released bytes */
    uint32_t text_bytes;
    uint32_t sampled_count; /* visible entries of the arrays below; 0 for given nodes */
    uint32_t top_count;
    const uint32_t *sampled;
    const float *logprobs, *logprobs_sampler, *entropies;
    const struct sample_top *tops; /* [sampled][top_count] or NULL */
    const uint32_t *text_ends;     /* [sampled] bytes shown by tokens 0..i */
    struct bytes label;
    struct error error; /* with NODE_FAILED */
    uint64_t queued_us, first_token_us, total_us;
    uint32_t context_cached_count, context_computed_count;
};

struct info_view {
    struct bytes model_name, model_path, architecture, numerics_id, backend, chat_format;
    struct bytes speculation;
    uint8_t model_hash[32];
    uint32_t vocabulary_count, context_tokens_max, context_tokens_trained;
    uint64_t kv_page_count, kv_bytes, weight_bytes, started_us;
};

struct stats_view {
    uint64_t session_count, node_count, persona_count;
    uint64_t uptime_us;
    uint64_t branch_waiting_count, branch_running_count, step_count, row_count, decode_row_count;
    uint64_t prefill_row_count, sample_count, step_ns, context_token_count, context_cached_count;
    uint64_t context_computed_count, preemption_count, cancelled_count, finished_count;
    uint64_t failed_count, kv_page_count, kv_page_free_count, kv_page_cached_count;
    uint64_t drafted_count, accepted_count;
};

struct bookmark_view {
    struct bytes name;
    struct position position;
    uint64_t created_us;
};

struct note_view {
    bool is_there;
    struct position position;
    uint32_t depth, role;
    uint64_t created_us;
    struct bytes text;
};

enum context_part {
    CONTEXT_PROMPT = 0,
    CONTEXT_NODE = 1,
    CONTEXT_FRAME = 2,
    CONTEXT_INSERT = 3,
    CONTEXT_START = 4
};

struct segment_view {
    enum context_part kind;
    uint64_t node; /* CONTEXT_NODE */
    uint32_t from, count;
    const uint32_t *ids; /* NULL unless asked for, or when hidden */
    struct bytes text;   /* likewise */
    bool is_hidden;
};

struct range_view {
    uint64_t node;
    uint32_t from, count;
};

struct context_view {
    const struct segment_view *segments;
    uint32_t count;
    bool end;
    uint32_t segment_count, token_count, speaker, turns_left_out;
    uint64_t persona;
    const struct range_view *omitted;
    uint32_t omitted_count;
};

enum reply_type {
    REPLY_ERROR,
    REPLY_INFO,
    REPLY_STATS,
    REPLY_PERSONA, /* PersonaPut, PersonaGet */
    REPLY_PERSONA_LIST,
    REPLY_SESSION, /* SessionOpen, SessionSet */
    REPLY_SESSION_LIST,
    REPLY_CREATED,
    REPLY_WALK,
    REPLY_HEAD,
    REPLY_TOKENS, /* Tokenize */
    REPLY_TEXT,   /* Detokenize */
    REPLY_DISTRIBUTION,
    REPLY_SCORE,
    REPLY_COMPARE,
    REPLY_GROUP,
    REPLY_VERIFY,
    REPLY_EXPAND,
    REPLY_DONE,
    REPLY_BOOKMARK_LIST,
    REPLY_CONTEXT,
    REPLY_NOTE,
    REPLY_EXPORT,
    REPLY_IMPORT,
};

struct reply {
    enum reply_type type;
    enum request_type request; /* what it answers: PERSONA for Put or Get */
    struct error error;
    union {
        struct info_view info;
        struct stats_view stats;
        struct {
            struct persona_view persona;
            struct bytes card; /* empty when the caller may not see it */
        } persona;
        struct {
            const struct persona_view *items;
            uint32_t count;
            bool end;
        } personas;
        struct {
            struct session_view session;
            const struct node_view *greetings;
            uint32_t greeting_count;
        } session;
        struct {
            const struct session_view *items;
            uint32_t count;
            bool end;
        } sessions;
        struct {
            const struct node_view *nodes;
            uint32_t count;
            const uint32_t *context; /* NULL unless asked for */
            uint32_t context_count;
        } created;
        struct {
            const struct node_view *nodes;
            uint32_t count;
            bool end;
            bool text, content, numbers; /* what was asked for */
        } walk;
        struct position head;
        struct {
            const uint32_t *ids;
            const struct bytes *pieces; /* NULL unless asked for */
            uint32_t count;
        } tokens;
        struct bytes text;
        struct {
            const struct bookmark_view *items;
            uint32_t count;
            bool end;
        } bookmarks;
        struct context_view context;
        struct note_view note;
        struct exported_view exported;
        struct {
            uint64_t transfer; /* wants more; with has_session it is over */
            bool has_session;
            struct session_view session;
        } imported;
        struct distribution_view distribution;
        struct score_view score;
        struct compare_view compare;
        struct group_view group;
        struct verify_view verify;
        struct expand_view expand;
    } u;
};

/* Who gets an answer. A value, so that it may outlive its connection. */
struct reply_to {
    uint64_t connection;
    uint64_t request;
};

/* The nodes that a request reads from here on. The codec ends the request with Done once all are
 * finished. */
struct follow {
    const uint64_t *nodes; /* borrowed during the call */
    uint32_t node_count;
    uint32_t from_token, from_byte;
    enum delivery delivery;
    bool numbers;
};

struct session_events {
    void *context;
    /* more: further replies to the same request follow. */
    void (*on_reply)(void *context, struct reply_to to, const struct reply *reply, bool more);
    void (*on_follow)(void *context, struct reply_to to, const struct follow *follow);
    /* The node has more released, or is visibly finished. */
    void (*on_progress)(void *context, uint64_t node);
    /* Whether anybody would still get a reply to that request (0: to any of that connection, it is
     * open); NULL: yes. */
    bool (*is_awaited)(void *context, struct reply_to to);
    /* What store_prepare() waited for may be there: ask again. NULL where nobody waits. */
    void (*on_loaded)(void *context);
};

#endif
