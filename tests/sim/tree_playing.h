/* What the operations of tree_play.c, tree_make.c and tree_change.c share: the daemon and its twin,
 * the operation at hand, and how they are asked and drawn.
 *
 * Thread: one.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_PLAYING_H
#define PERSONAD_TESTS_SIM_TREE_PLAYING_H

#include "sim/tree_check.h"
#include "sim/tree_play.h"
#include "sim/tree_words.h"

enum { USER_COUNT = 2 };

struct playing {
    struct tree_world world;
    struct tree_model model;
    uint64_t personas[USER_COUNT][CAST_CARD_COUNT]; /* 0: that user has it not */
    uint64_t random;                                /* of the operation at hand */
    uint32_t key;                                   /* client keys so far */
    char key_text[16];
    bool is_told;
    struct tree_counts counts;
};

extern struct playing playing;

/* Below `below`, from the seed of the operation at hand. */
uint32_t play_draw(uint32_t below);

/* Prints when the run is to be told. */
void play_tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct request play_request(enum request_type type);

/* As whoever the session belongs to. */
void play_as(struct request *request, int session);

/* The answer must have been this one. */
void play_expect(enum status status);

/* Sometimes the daemon dies under the request, which is then repeated with its client key: what it
 * makes is there once. may_die: what it reads is the same after a restart. */
void play_ask(struct request *request, bool may_die);

/* kind: STOP, KILL or POWER. */
void play_restart(enum tree_kind kind);

/* -1: there is none. */
int play_pick_session(void);

/* A node of any session, purged or not, or MODEL_ROOT. */
int play_pick_node(void);

/* A node of any session, or its root; young ones more often. */
struct model_place play_pick_place(void);

/* Compares the place's session; how far its nodes have got is known until the next step. Draws the
 * place's offset. */
void play_look_at(struct model_place *place);

/* One of the cast of that place's session. */
uint32_t play_draw_speaker(struct model_place place);

struct position play_position(struct model_place place);

/* What any request at that place is answered with before it begins. */
enum status play_check_place(struct model_place place);

/* Of requests that may go on in the turn at the place: *speaker is that turn's then. */
enum status play_check_turn(struct model_place place, bool continues, uint32_t *speaker);
bool play_has_ended(struct model_place place);

/* A daemon with its personas, and an empty twin. */
void play_open(uint64_t seed);

/* The operations, for as long as nothing is wrong; then all that is going on ends. */
void play_all(const struct tree_op *ops, uint32_t count, struct tree_progress *progress);

/* ---- the operations ---- */

void make_say(void);
void make_generate(void);
void make_append(void);
void make_edit(void);
void make_expansion(void);
void make_copy(void);

/* What makes nodes: the ids of those from number `first` on are those of the answer. */
void make_learn(int first);
void make_move_head(int session, int node);

/* Whether a path is short enough to go on. */
bool make_is_short(struct model_place place);

void change_cancel(void);
void change_head(void);
void change_bookmark(void);
void change_label(void);
void change_mark(enum tree_kind kind); /* DELETE, UNDELETE, PURGE */
void change_note(void);

void session_open(void);
void session_change(void);
void session_join(void);

#endif
