/* The C client of personad: one connection to the daemon's Unix socket.
 *
 * Thread: a handle belongs to one thread at a time; different handles are independent. No global
 * state, no signals, no exit(). Link with `pkg-config --libs personad_client`.
 *
 * Two ways of use, which may be mixed:
 *   blocking   personad_info(), personad_open(), ... send one request and wait for its answer
 *   streaming  personad_say() and the like return a request id at once; personad_next() gives the
 * events of all requests in the order in which they arrive. personad_fd() and personad_pump() let a
 * program poll.
 *
 * Ownership: a struct personad_event, and all that it points at, belongs to the client and is valid
 * until the next call that takes the same handle; the same holds for what blocking calls return.
 * Text is UTF-8 with a length, not NUL-terminated; what a model wrote may be cut inside a
 * character. Ids are never 0. Log probabilities and entropies are in nats. Protocol:
 * proto/personad.proto.
 */
#ifndef PERSONAD_CLIENT_H
#define PERSONAD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct personad_client personad_client; /* opaque */

/* 0 is success; positive codes come from the daemon (ErrorCode in the protocol); negative ones from
 * here. */
enum personad_code {
    PERSONAD_OK = 0,
    PERSONAD_AGAIN = 1, /* also: the time passed, or a signal came, and nothing else */
    PERSONAD_MEMORY = 2,
    PERSONAD_LIMIT = 3,
    PERSONAD_BAD_INPUT = 4,
    PERSONAD_NOT_FOUND = 5,
    PERSONAD_DEVICE = 6,
    PERSONAD_STORAGE = 7,
    PERSONAD_DENIED = 8,
    PERSONAD_CONFLICT = 9,
    PERSONAD_UNSUPPORTED = 10,
    PERSONAD_IO = 11,
    PERSONAD_CANCELLED = 12,
    PERSONAD_STOPPING = 13,
    PERSONAD_NUMERIC = 14,
    PERSONAD_NO_DAEMON = -1, /* nothing answers on the socket */
    PERSONAD_CLOSED = -2,    /* the connection ended */
    PERSONAD_PROTOCOL = -3,  /* the daemon sent what this library does not understand */
    PERSONAD_OUT_OF_MEMORY = -4,
    PERSONAD_USAGE = -5, /* an argument is wrong */
};

struct personad_error {
    int code;       /* enum personad_code */
    char text[512]; /* a sentence for people, NUL-terminated */
};

struct personad_text {
    const char *data; /* borrowed; may be NULL when size is 0 */
    size_t size;      /* bytes */
};

/* A place in a session's tree. node 0 is the root. */
struct personad_position {
    uint64_t node;
    uint32_t offset; /* tokens of the node's content, or PERSONAD_END */
};

#define PERSONAD_END 0xffffffffu

/* ---------------------------------------------------------------- connection */

/* path NULL: personad_default_socket(). NULL on failure, with the reason in *error (error may be
 * NULL). */
personad_client *personad_connect(const char *path, struct personad_error *error);
void personad_close(personad_client *client); /* NULL is fine */

/* $PERSONAD_SOCKET, else $XDG_RUNTIME_DIR/personad/personad.sock, else
 * /tmp/personad-UID/personad.sock. False when it does not fit. */
bool personad_default_socket(char *path, size_t size);

/* To poll for reading; also for writing while personad_wants_write(). */
int personad_fd(const personad_client *client);
bool personad_wants_write(const personad_client *client);

/* Reads and writes what is possible without waiting. */
int personad_pump(personad_client *client);

/* Goes on by itself when the daemon goes away and comes back within timeout_ms (negative: however
 * long it takes; 0: not at all, which is the default): blocking calls and personad_next() connect
 * again, send what is not answered yet and leave out what was handed out before, so that a stream
 * ends with the same bytes. Requests get client keys for this, so that nothing is done twice.
 * personad_fd() changes then. on_change (may be NULL) hears of the loss and of the return; it must
 * not call the handle. */
void personad_resume(personad_client *client, int timeout_ms,
                     void (*on_change)(void *context, bool is_back), void *context);

/* The next request carries this client key (at most 64 bytes, copied): a repeat with the same key,
 * by the same user, also over another connection or after a crash, gives the same nodes. */
void personad_next_key(personad_client *client, const char *key);

/* What the last failed call on this handle had to say. */
const struct personad_error *personad_last_error(const personad_client *client);

/* ---------------------------------------------------------------- what is described */

struct personad_limit {
    struct personad_text name;
    uint64_t value;
};

struct personad_info {
    struct personad_text daemon_version, model_name, model_path, architecture, numerics_id;
    struct personad_text backend, chat_format, socket_path;
    struct personad_text model_hash; /* 32 bytes, not text */
    uint32_t vocabulary_count, context_tokens_max, context_tokens_trained, pid;
    uint64_t kv_page_count, kv_bytes, weight_bytes, started_us;
    const struct personad_limit *limits;
    size_t limit_count;
    struct personad_text speculation; /* "auto" or "off" */
};

struct personad_stats {
    uint64_t uptime_us, connection_count, session_count, node_count, persona_count;
    uint64_t branch_waiting_count, branch_running_count;
    uint64_t step_count, row_count, decode_row_count, prefill_row_count, sample_count, step_ns;
    uint64_t context_token_count, context_cached_count, context_computed_count;
    uint64_t preemption_count, cancelled_count, finished_count, failed_count;
    uint64_t kv_page_count, kv_page_free_count, kv_page_cached_count, memory_bytes;
    uint64_t drafted_count, accepted_count;
};

struct personad_persona {
    uint64_t id;
    struct personad_text name, description, play;
    uint32_t version, owner_uid, greeting_count;
    bool is_public, built_in;
    uint64_t created_us;
};

struct personad_cast_member {
    uint32_t speaker;
    struct personad_text name;
    uint64_t persona; /* 0: a human */
};

struct personad_session {
    uint64_t id, seed, node_count, created_us;
    uint32_t owner_uid, context_tokens;
    struct personad_text label;
    const struct personad_cast_member *cast;
    size_t cast_count;
    int group_mode; /* enum personad_group_mode */
    struct personad_position head;
};

enum personad_origin {
    PERSONAD_SAMPLED,
    PERSONAD_GIVEN,
    PERSONAD_EDITED,
    PERSONAD_IMPORTED,
    PERSONAD_EXPANDED
};

enum personad_finish {
    PERSONAD_FINISH_NONE,
    PERSONAD_FINISH_END,
    PERSONAD_FINISH_CUE,
    PERSONAD_FINISH_LENGTH,
    PERSONAD_FINISH_CONTEXT,
    PERSONAD_FINISH_CUT,
    PERSONAD_FINISH_FAILED,
    PERSONAD_FINISH_INTERRUPTED,
    PERSONAD_FINISH_WHOLE,
};

/* "end", "cue", ...; static. */
const char *personad_finish_name(int finish);

/* Parallel arrays, one entry a sampled token. */
struct personad_numbers {
    uint32_t first; /* index of the first entry in the node's sampled tokens */
    size_t count;
    const uint32_t *tokens;
    const float *logprobs;         /* under the model, before any step */
    const float *sampler_logprobs; /* under what was drawn from */
    const float *entropies;        /* of the model's distribution */
    uint32_t top_count;            /* alternatives an entry */
    const uint32_t *top_tokens;    /* [count][top_count], likeliest first */
    const float *top_logprobs;
};

struct personad_node {
    uint64_t id, session, seed, created_us, finished_us;
    uint64_t original; /* with PERSONAD_EDITED: the node that it was made from */
    struct personad_position parent;
    uint32_t ordinal, speaker, content_tokens, child_count, context_tokens, turns_left_out;
    int origin; /* enum personad_origin */
    int finish; /* enum personad_finish */
    bool opens_turn, deleted;
    struct personad_text text, label;
    const uint32_t *content; /* [content_count], when asked for */
    size_t content_count;
    struct personad_numbers numbers;
    struct personad_text error_text; /* with PERSONAD_FINISH_FAILED */
};

/* ---------------------------------------------------------------- blocking calls: PERSONAD_OK or a
 * code */

int personad_info(personad_client *client, const struct personad_info **out);
int personad_stats(personad_client *client, struct personad_stats *out);

/* card: a character card as JSON. */
int personad_persona_put(personad_client *client, struct personad_text card, bool is_public,
                         const struct personad_persona **out);
/* id 0: by name. card: absent (size 0) unless the caller owns the persona. */
int personad_persona_get(personad_client *client, uint64_t id, const char *name,
                         const struct personad_persona **out, struct personad_text *card);
/* One page: ids greater than `after`. */
int personad_persona_list(personad_client *client, uint64_t after,
                          const struct personad_persona **out, size_t *count, bool *end);

/* A further speaker: a persona by id or by name, or a human; the rest is 0 and NULL. */
struct personad_cast_entry {
    uint64_t persona;
    const char *persona_name;
    const char *human;
};

enum { PERSONAD_CAST_COUNT_MAX = 64 };

/* Each persona its own preamble and view, or one that all share. */
enum personad_group_mode { PERSONAD_SEPARATE, PERSONAD_JOINT };

struct personad_open_options {
    uint64_t persona;         /* 0: by name */
    const char *persona_name; /* NULL: the daemon's default */
    const char *user_name;    /* NULL: "User" */
    const char *label;        /* NULL: none */
    bool has_seed;
    uint64_t seed;
    uint32_t context_tokens; /* 0: the daemon's */
    bool no_greeting;
    const struct personad_cast_entry *cast; /* speakers 2 and on */
    size_t cast_count;
    int group_mode; /* enum personad_group_mode */
};

int personad_session_open(personad_client *client, const struct personad_open_options *options,
                          const struct personad_session **out,
                          const struct personad_node **greetings, size_t *greeting_count);
/* Further speakers join, behind those that are there; who is there already stays. out may be NULL,
 * here and below. */
int personad_session_add(personad_client *client, uint64_t session,
                         const struct personad_cast_entry *entries, size_t count,
                         const struct personad_session **out);
/* A human behind speaker 0 who has not said anything yet. */
int personad_session_rename(personad_client *client, uint64_t session, uint32_t speaker,
                            const char *name, const struct personad_session **out);
int personad_session_list(personad_client *client, uint64_t after,
                          const struct personad_session **out, size_t *count, bool *end);

enum personad_walk { PERSONAD_PATH, PERSONAD_CHILDREN, PERSONAD_SUBTREE, PERSONAD_NODE };

struct personad_walk_options {
    uint64_t session;
    const struct personad_position *position; /* NULL: the session's head */
    int what;                                 /* enum personad_walk */
    uint32_t skip;
    uint32_t count; /* 0: as many as a reply holds */
    bool text, content, numbers;
    bool deleted; /* also what is marked as deleted */
};

int personad_walk(personad_client *client, const struct personad_walk_options *options,
                  const struct personad_node **out, size_t *count, bool *end);

/* position NULL: only read it. */
int personad_head(personad_client *client, uint64_t session,
                  const struct personad_position *position, struct personad_position *out);

struct personad_append_options {
    uint64_t session;
    const struct personad_position *position; /* NULL: the session's head */
    uint32_t speaker;
    struct personad_text text;
    bool special;
    bool continuing;
    bool has_at_byte; /* with continuing: behind so many bytes of the node's text, instead of the */
    uint32_t at_byte; /* position's offset */
};

int personad_append(personad_client *client, const struct personad_append_options *options,
                    const struct personad_node **out);

struct personad_edit_options {
    uint64_t node;
    uint32_t from_byte, to_byte; /* of its text; to_byte may be PERSONAD_END */
    struct personad_text text;
    bool carry;                            /* attach the path below again */
    const struct personad_position *until; /* its end; NULL: the session's head */
};

/* A sibling with other bytes in that range: *out is it, then what was carried. */
int personad_edit(personad_client *client, const struct personad_edit_options *options,
                  const struct personad_node **out, size_t *count);

/* Marks nodes as deleted and back; purging frees those that are marked, for ever. */
int personad_delete(personad_client *client, const uint64_t *nodes, size_t node_count);
int personad_undelete(personad_client *client, const uint64_t *nodes, size_t node_count);
int personad_purge(personad_client *client, const uint64_t *nodes, size_t node_count);

/* The same for a whole session; undo and purge exclude each other. */
int personad_session_delete(personad_client *client, uint64_t session, bool undo, bool purge);

/* A session as a file (docs/EXPORT.md): on_data gets its bytes in order, false ends it with
 * PERSONAD_CANCELLED. node: only the path to it; 0: everything. */
int personad_session_export(personad_client *client, uint64_t session, uint64_t node,
                            bool (*on_data)(void *context, const void *data, size_t size),
                            void *context);

/* And back. read_data fills in up to `size` bytes of the file: how many, 0 at its end, negative
 * when it cannot be read. All of it becomes a session, or nothing does. */
int personad_session_import(personad_client *client,
                            long (*read_data)(void *context, void *data, size_t size),
                            void *context, const struct personad_session **out);

/* The daemon writes a copy of its journal to that path, absolute and new. */
int personad_backup(personad_client *client, struct personad_text path);
int personad_persona_delete(personad_client *client, uint64_t persona);

/* Text of size 0 takes the label away. */
int personad_label(personad_client *client, uint64_t node, struct personad_text label);
int personad_session_label(personad_client *client, uint64_t session, struct personad_text label);

struct personad_bookmark {
    struct personad_text name;
    struct personad_position position;
    uint64_t created_us;
};

/* position NULL: the session's head. A name that exists moves. */
int personad_bookmark(personad_client *client, uint64_t session, struct personad_text name,
                      const struct personad_position *position);
int personad_bookmark_remove(personad_client *client, uint64_t session, struct personad_text name);
/* One page, by name: `skip` bookmarks are left out. */
int personad_bookmark_list(personad_client *client, uint64_t session, uint32_t skip,
                           const struct personad_bookmark **out, size_t *count, bool *end);

enum personad_insert_role { PERSONAD_AS_SYSTEM, PERSONAD_AS_USER, PERSONAD_AS_ASSISTANT };

/* A note that the model reads `depth` turns before the one that it writes. */
struct personad_note {
    bool is_there;
    struct personad_position position; /* where it was set */
    uint32_t depth;
    int role; /* enum personad_insert_role */
    uint64_t created_us;
    struct personad_text text;
};

/* The note in force at a position (NULL: the session's head, here and below). */
int personad_note(personad_client *client, uint64_t session,
                  const struct personad_position *position, struct personad_note *out);
/* Sets one, in force there and below; text of size 0: none from there on. */
int personad_note_set(personad_client *client, uint64_t session,
                      const struct personad_position *position, struct personad_text text,
                      uint32_t depth, int role);
/* Takes away what was set at exactly that position. */
int personad_note_clear(personad_client *client, uint64_t session,
                        const struct personad_position *position);

enum personad_segment_kind {
    PERSONAD_SEGMENT_PROMPT,
    PERSONAD_SEGMENT_NODE,
    PERSONAD_SEGMENT_FRAME,
    PERSONAD_SEGMENT_INSERT,
    PERSONAD_SEGMENT_START,
};

struct personad_segment {
    int kind; /* enum personad_segment_kind */
    uint64_t node;
    uint32_t from, count;   /* tokens of that node's content */
    const uint32_t *tokens; /* [count], or NULL when hidden */
    struct personad_text text;
    bool hidden; /* the persona is another user's */
};

struct personad_context {
    const struct personad_segment *segments;
    size_t count;
    bool end;
    uint32_t token_count, segment_count, speaker, turns_left_out;
    uint64_t persona;
};

/* What the model saw before a sampled node; one page, `skip` segments are left out. */
int personad_context(personad_client *client, uint64_t node, uint32_t skip,
                     struct personad_context *out);

/* Ends these nodes, or (node_count 0) all of the session's; returns once their cut is final. */
int personad_cancel(personad_client *client, const uint64_t *nodes, size_t node_count,
                    uint64_t session);

/* pieces may be NULL; else it receives count texts. names: control tokens, which show nothing, are
 * written as the vocabulary writes them. */
int personad_tokenize(personad_client *client, struct personad_text text, bool special,
                      const uint32_t **tokens, size_t *count, const struct personad_text **pieces);
int personad_detokenize(personad_client *client, const uint32_t *tokens, size_t count, bool names,
                        struct personad_text *text);

/* ---------------------------------------------------------------- streaming calls: request id, or
 * 0 */

/* A NaN float or a negative int64 means: not set (as the persona says). personad_sampler_init()
 * sets all so. */
struct personad_sampler {
    float temperature, top_p, min_p;
    float repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, penalty_range, max_tokens, min_tokens, top_count;
    int penalize_prompt, ignore_end; /* -1: not set */
    const char *const *stops;
    size_t stop_count;
    const uint32_t *bias_tokens;
    const float *bias_values;
    size_t bias_count;
};

void personad_sampler_init(struct personad_sampler *sampler);

enum personad_delivery { PERSONAD_EACH_TOKEN, PERSONAD_FINAL_ONLY, PERSONAD_NO_FOLLOW };

struct personad_generation {
    uint64_t session;
    const struct personad_position *position; /* NULL: the session's head */
    bool has_speaker;
    uint32_t speaker;                       /* who is generated; default: the first persona */
    uint32_t n;                             /* siblings; 0: 1 */
    const struct personad_sampler *sampler; /* NULL: nothing set */
    bool has_seed, has_raw_seed;
    uint64_t seed, raw_seed;
    struct personad_text prefix;
    int delivery; /* enum personad_delivery */
    bool batch;   /* low priority */
    bool numbers;
    bool context;                        /* PERSONAD_EVENT_CREATED carries the context's ids */
    const struct personad_text *choices; /* the reply is one of these; count 0: free */
    size_t choice_count;
    bool distinct_first; /* the siblings' first tokens are drawn without replacement */
    bool has_at_byte;    /* personad_generate() with continuing: go on behind so many bytes of */
    uint32_t at_byte;    /* the node's text, instead of the position's offset */
};

/* The user's turn, then n replies. */
uint64_t personad_say(personad_client *client, struct personad_text text, uint32_t speaker,
                      const struct personad_generation *generation);
/* continuing: inside the turn at the position. */
uint64_t personad_generate(personad_client *client, bool continuing,
                           const struct personad_generation *generation);
/* Reads a node from an offset, while it grows or later. */
uint64_t personad_follow(personad_client *client, uint64_t node, uint32_t from_token,
                         uint32_t from_byte, int delivery, bool numbers);
/* Does not wait: the answer is a PERSONAD_EVENT_DONE of its own request. */
uint64_t personad_cancel_send(personad_client *client, const uint64_t *nodes, size_t node_count);

enum personad_event_type {
    PERSONAD_EVENT_CREATED,  /* nodes, context */
    PERSONAD_EVENT_TOKENS,   /* node_id, first_*, token_count, text, numbers */
    PERSONAD_EVENT_FINISHED, /* nodes[0], times */
    PERSONAD_EVENT_DONE,     /* the request's last */
    PERSONAD_EVENT_ERROR,    /* the request's last; error */
};

struct personad_event {
    int type;         /* enum personad_event_type */
    uint64_t request; /* whose */
    bool last;        /* nothing more comes for it */
    const struct personad_node *nodes;
    size_t node_count;
    const uint32_t *context;
    size_t context_count;
    uint64_t node_id;
    uint32_t first_token, token_count, first_byte;
    struct personad_text text;
    struct personad_numbers numbers;
    uint64_t queued_us, first_token_us, total_us;
    uint32_t context_cached, context_computed;
    struct personad_error error;
};

/* The next event of any streaming request. Waits at most timeout_ms (0: not at all; negative: no
 * limit). PERSONAD_AGAIN when the time passed or a signal came (stopping and resuming the program
 * counts as one): call again. PERSONAD_CLOSED when the connection ended. Blocking calls outlast
 * signals. */
int personad_next(personad_client *client, int timeout_ms, const struct personad_event **out);

#ifdef __cplusplus
}
#endif

/* The calls that look into the distribution, compare, verify and expand. */
#include "personad_client_look.h"

#endif
