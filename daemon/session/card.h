/* A character card: JSON of the V1, V2 or V3 format, read as hostile input.
 *
 * Thread: loop. Owns all that it hands out, immutable once parsed. Fields with a meaning here:
 *
 *   name, nickname (V3: what {{char}} becomes), description, personality, scenario,
 *   first_mes and alternate_greetings, mes_example, system_prompt, post_history_instructions,
 *   creator_notes, character_book (lore), extensions.depth_prompt (a note),
 *   extensions.personad
 *
 *   extensions.personad   an object; a key that is not listed is refused, since it is a mistake
 *     play       "chat" (default), "transcript" or "plain"
 *     user       default name of the human
 *     public     true: other users of the machine may play it
 *     variables  object of name: default value
 *     cues       array of strings that end a reply
 *     sampler    temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,
 *                frequency_penalty, penalty_range, penalize_prompt, max_tokens, min_tokens,
 *                top_count, ignore_end, stop (array of strings), bias (object of id: value)
 *
 * All other fields are kept in the stored card and have no effect. A field that is null counts as
 * absent. Errors name the field.
 */
#ifndef PERSONAD_SESSION_CARD_H
#define PERSONAD_SESSION_CARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status.h"
#include "sample/sampler.h"
#include "session/render.h"
#include "session/template.h"

enum card_play { CARD_PLAY_CHAT, CARD_PLAY_TRANSCRIPT, CARD_PLAY_PLAIN };

/* A text that the conversation calls up. */
enum card_lore_place { CARD_LORE_BEFORE, CARD_LORE_AFTER, CARD_LORE_DEPTH };

struct card_lore {
    const struct bytes *keys, *secondary;
    uint32_t key_count, secondary_count; /* secondary 0: one of the keys is enough */
    struct bytes content;                /* without decorators */
    bool is_enabled, is_constant, is_case_sensitive, has_scan_depth;
    enum card_lore_place place;
    enum insert_role role;
    uint32_t depth, scan_depth; /* turns from the end */
    int64_t order, priority;
};

/* A text that stands some turns before the end. */
struct card_note {
    struct bytes text;
    uint32_t depth;
    enum insert_role role;
};

struct card {
    struct arena arena;         /* owns all below */
    struct bytes json;          /* as it was given, unknown fields included */
    uint8_t hash[SHA256_BYTES]; /* of the canonical form: equal content, equal hash */
    struct bytes name;
    struct bytes character; /* what {{char}} becomes */
    struct bytes description, personality, scenario, examples;
    struct bytes system_prompt, post_history, creator_notes;
    const struct bytes *greetings; /* first_mes first; the empty ones left out */
    uint32_t greeting_count;
    enum card_play play;
    struct bytes user; /* "" when the card names none */
    bool has_public, is_public;
    const struct render_variable *variables; /* with their default values */
    uint32_t variable_count;
    const struct bytes *cues;
    uint32_t cue_count;
    struct sampler_settings sampler; /* stops and biases lie in the arena */
    struct card_note note;
    const struct card_lore *lore;
    uint32_t lore_count, lore_key_count;
    uint32_t lore_scan_depth, lore_budget; /* turns; tokens */
    bool has_lore_budget;
};

/* Whether it is always there, so that it belongs to the prompt. */
static inline bool card_lore_is_in_prompt(const struct card_lore *lore)
{
    return lore->is_constant && lore->place != CARD_LORE_DEPTH;
}

/* BAD_INPUT, LIMIT, UNSUPPORTED or MEMORY. */
MUST_USE enum status card_parse(struct bytes json, struct error *error, struct card **out);

/* One that was stored: a note and lore that are damaged count as absent, since a daemon that did
 * not read them may have taken the card. */
MUST_USE enum status card_parse_stored(struct bytes json, struct error *error, struct card **out);
void card_destroy(struct card *card); /* NULL is fine */

/* A name that can stand in a cue: one line, at most PERSONA_NAME_BYTES_MAX bytes. */
MUST_USE enum status card_check_name(const char *key, struct bytes name, struct error *error);

/* "chat", "transcript", "plain". Static. */
const char *card_play_name(enum card_play play);

#endif
