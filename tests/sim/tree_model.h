/* The naive twin of the daemon: what every session, node and token has to be, from the definitions
 * alone. Arrays, linear searches, no sharing, no cache, nothing stored: a context is written anew
 * from the path each time, and a reply is known in full the moment it is asked for, because the
 * fake model's numbers are defined (fake_expect).
 *
 * Thread: one. Uses of the daemon's code: the tokeniser, SHA-256, and the number of steps that a
 * sampler makes.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_MODEL_H
#define PERSONAD_TESTS_SIM_TREE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "session/request.h"
#include "sim/tree_cast.h"
#include "support/fake_backend.h"
#include "text/tokenizer.h"

enum {
    MODEL_SESSION_COUNT = 12,
    MODEL_NODE_COUNT = 1024,
    MODEL_CONTENT_MAX = 96,
    MODEL_SAMPLED_MAX = 32,
    MODEL_CONTEXT_MAX = 2048,
    MODEL_TEXT_MAX = 256,
    MODEL_BOOKMARK_COUNT = 8,
    MODEL_MEMBER_COUNT = 6,
    MODEL_NOTE_COUNT = 12,
    MODEL_CHOICE_COUNT = 3,
    MODEL_ROOT = -1,
};

struct model_node {
    uint64_t id;
    int session, parent; /* indices; MODEL_ROOT: the session's root */
    uint32_t parent_offset, ordinal, speaker;
    enum node_origin origin;
    int original; /* an index, or MODEL_ROOT */
    bool opens_turn, is_deleted, is_purged;
    bool is_copy; /* it came with an import */
    char label[8];
    /* as it will be when nobody cancels it */
    uint32_t ids[MODEL_CONTENT_MAX];
    uint32_t count, kept; /* content; of it sampled */
    enum node_finish finish;
    uint32_t sampled_count, context_count, first_turn;
    uint64_t prompt; /* which one it was sampled behind */
    uint32_t sampled[MODEL_SAMPLED_MAX];
    float logprobs[MODEL_SAMPLED_MAX], logprobs_sampler[MODEL_SAMPLED_MAX];
    float entropies[MODEL_SAMPLED_MAX];
    uint64_t seed;
    /* as it is */
    bool has_ended;   /* and its end was seen: frozen */
    bool may_be_cut;  /* it was asked to stop */
    bool is_followed; /* in the store */
    /* of its content, what readers have seen in this life of the daemon */
    uint32_t seen, seen_bytes;
};

struct model_bookmark {
    char name[8]; /* "": none */
    int node;
    uint32_t offset;
};

struct model_note {
    bool is_there;
    int node;
    uint32_t offset, depth, role;
    char text[16];
};

struct model_member {
    int card; /* CAST_NOBODY: a human */
    char name[8];
};

struct model_session {
    uint64_t id, seed;
    uint32_t uid;
    bool is_deleted, is_purged, is_joint;
    uint32_t context_tokens;
    struct model_member members[MODEL_MEMBER_COUNT]; /* the human, a persona, others */
    uint32_t speaker_count;
    uint32_t joint_count; /* so many of them were there when the joint prompt was made */
    int head;
    uint32_t head_offset; /* or OFFSET_END */
    char label[8];
    struct model_bookmark bookmarks[MODEL_BOOKMARK_COUNT];
    struct model_note notes[MODEL_NOTE_COUNT];
};

struct tree_model {
    const struct tokenizer *tokenizer; /* borrowed */
    struct tokenizer_scratch *scratch; /* owned */
    const struct fake *fake;           /* borrowed: its fake_expect is pure */
    uint32_t step_counts[2][2];        /* of samplers: [greedy][ignores ends] */
    uint32_t vocabulary_count;
    struct model_session sessions[MODEL_SESSION_COUNT];
    int session_count;
    struct model_node nodes[MODEL_NODE_COUNT];
    int count;
};

/* A place, and a way from the root to it. */
struct model_place {
    int session, node;
    uint32_t offset;
};

struct model_path {
    int nodes[MODEL_NODE_COUNT];
    uint32_t counts[MODEL_NODE_COUNT];
    uint32_t count;
};

/* What a reply is asked for with. */
struct model_reply {
    struct model_place place;
    uint32_t speaker;
    bool opens_turn, is_greedy, ignores_end, has_raw_seed;
    uint64_t raw_seed;
    uint32_t max_tokens;
    struct bytes stop; /* empty: none */
    struct bytes choices[MODEL_CHOICE_COUNT];
    uint32_t choice_count;
    bool is_distinct;
    uint64_t group_seed; /* filled with the first sibling */
};

/* What stands in front of a reply, and what of it the penalties may look at. */
struct model_context {
    uint32_t ids[MODEL_CONTEXT_MAX], history[MODEL_CONTEXT_MAX];
    uint32_t count, history_count, prompt_count; /* count 0: none fits the window */
    uint32_t first_turn;
    uint64_t prompt;
};

void model_init(struct tree_model *model, const struct tokenizer *tokenizer);
void model_finish(struct tree_model *model);

int model_find(const struct tree_model *model, uint64_t id); /* MODEL_ROOT: there is none */
struct model_path model_path_of(const struct tree_model *model, struct model_place place);
uint32_t model_next_ordinal(const struct tree_model *model, struct model_place place);

/* Itself or the nearest above that is marked as deleted, or MODEL_ROOT. */
int model_hidden_by(const struct tree_model *model, int node);

/* Whether `node` is `top` or stands below it. */
bool model_is_below(const struct tree_model *model, int node, int top);

/* The ids of a text that enters, and the bytes of ids. */
uint32_t model_encode(struct tree_model *model, struct bytes text, bool is_text, uint32_t *ids);
uint32_t model_show(const struct tree_model *model, const uint32_t *ids, uint32_t count,
                    uint8_t *out);

/* The context of such a reply. The answer lies in place until the next call. */
const struct model_context *model_context(struct tree_model *model,
                                          const struct model_reply *reply);

/* Whether a prompt of the cast as it is fits; and how those of a cast play. */
bool model_prompt_fits(struct tree_model *model, const struct model_session *session);
enum cast_play model_play(const struct model_session *session, uint32_t speaker);

/* The blank in front of a text of that speaker, where it opens a turn; "" or " ". */
const char *model_lead(const struct model_session *session, uint32_t speaker);

/* A card's text for a session. Appends to `out`, which holds MODEL_TEXT_MAX. */
void model_render(const struct model_session *session, const char *text, char *out);

/* The note that is in force there, or NULL. */
const struct model_note *model_note_at(const struct tree_model *model, struct model_place place);

/* The numbers of a token as what comes next behind those ids. */
void model_look(const struct tree_model *model, const uint32_t *ids, uint32_t count, uint32_t token,
                float *logprob, float *entropy);

/* The likeliest tokens there. Appends no draw. */
void model_tops(const struct tree_model *model, const uint32_t *ids, uint32_t count,
                uint32_t top_count, struct sample_result *out);

/* A node is there from now on. */
struct model_node *model_give(struct tree_model *model, struct model_place place, uint32_t speaker,
                              bool opens_turn, const uint32_t *ids, uint32_t count);
struct model_node *model_generate(struct tree_model *model, struct model_reply *reply,
                                  uint32_t sibling);

/* Content = the sampled tokens before that byte, and what the cut token still showed. */
void model_cut(struct tree_model *model, struct model_node *node, uint32_t cut_bytes);

/* Edits `node`: what takes its place. False: nothing would be left, or it grows too long.
 * *from_token, *to_token: what went; *to_new: where that ends now. */
struct model_edit {
    uint32_t ids[2 * MODEL_CONTENT_MAX];
    uint32_t count, prefix_count, suffix_first, middle_count;
};
bool model_edit(struct tree_model *model, const struct model_node *node, uint32_t from_byte,
                uint32_t to_byte, struct bytes text, struct model_edit *out);

/* The head of a session moves out of what is hidden. */
void model_head_leave(struct tree_model *model, struct model_session *session);

#endif
