/* The personas of the tree simulator, as cards and as what the naive twin reads out of them.
 *
 * Thread: any; constant tables.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_CAST_H
#define PERSONAD_TESTS_SIM_TREE_CAST_H

#include <stdbool.h>
#include <stdint.h>

enum { CAST_CARD_COUNT = 7, CAST_GREETING_COUNT = 2, CAST_LORE_COUNT = 4, CAST_NOBODY = -1 };

enum cast_play { CAST_PLAIN, CAST_CHAT, CAST_TRANSCRIPT };

/* As whom the model reads an insert. */
enum cast_role { CAST_SYSTEM, CAST_USER, CAST_ASSISTANT };

struct cast_lore {
    const char *key, *second, *text; /* key NULL: always there; second NULL: not asked for */
    bool is_deep;                    /* else right behind the prompt */
    uint32_t depth, scan_depth;
    enum cast_role role;
    int order, priority;
};

struct cast_card {
    const char *json;
    const char *name;
    enum cast_play play;
    const char *system; /* "@" in it: the human's name */
    const char *greetings[CAST_GREETING_COUNT];
    const char *note; /* NULL: none */
    uint32_t note_depth;
    enum cast_role note_role;
    const char *instruction; /* after the history; NULL: none */
    uint32_t lore_budget;    /* tokens; 0: a quarter of the context */
    struct cast_lore lore[CAST_LORE_COUNT];
    uint32_t lore_count;
};

extern const struct cast_card cast_cards[CAST_CARD_COUNT];

/* A human's name number `choice`. Some of them are said often. */
const char *cast_human(uint32_t choice);

#endif
