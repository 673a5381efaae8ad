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

enum { PERSONA_COUNT = 3 };

struct playing {
    struct tree_world world;
    struct tree_model model;
    uint64_t personas[PERSONA_COUNT]; /* plain, chat, another plain one */
    uint64_t random;                  /* of the operation at hand */
    uint32_t key;                     /* client keys so far */
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
bool play_has_ended(struct model_place place);

/* A daemon with its personas, and an empty twin. */
void play_open(uint64_t seed);

/* The operations, for as long as nothing is wrong; then all that is going on ends. */
void play_all(const struct tree_op *ops, uint32_t count, struct tree_progress *progress);

/* ---- the operations ---- */

void make_session(void);
void make_say(void);
void make_generate(void);
void make_append(void);
void make_edit(void);

void change_cancel(void);
void change_head(void);
void change_bookmark(void);
void change_label(void);
void change_mark(enum tree_kind kind); /* DELETE, UNDELETE, PURGE */
void change_session(void);
void change_cast(void);

#endif
