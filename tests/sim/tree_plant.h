/* Faults planted in the daemon itself: the linker gives each of these functions a wrapper
 * (cmake/tests.cmake lists them) that does what the real one does until a plant is chosen.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_PLANT_H
#define PERSONAD_TESTS_SIM_TREE_PLANT_H

enum tree_plant {
    PLANT_NONE,
    PLANT_FORK_PARENT,        /* a fork inside a node is hung one token too early */
    PLANT_FORK_CONTEXT,       /* its context ends one token too early */
    PLANT_SEED,               /* a node's seed leaves out the ordinals above it */
    PLANT_PAGE_TWICE,         /* a page is given back twice */
    PLANT_PAGE_LOST,          /* a page is not given back */
    PLANT_PAGE_SWAPPED,       /* a page found in the tree is another one */
    PLANT_CUT_FORGOTTEN,      /* a cancelled node keeps all that was sampled */
    PLANT_CUT_UNSTORED,       /* its stored row has a token less than was shown */
    PLANT_HEAD_UNSTORED,      /* where a reader moved to is not stored */
    PLANT_MARK_UNSTORED,      /* nor is that a node is deleted */
    PLANT_KEY_UNSTORED,       /* nor the client key of what a request made */
    PLANT_CHECKPOINT,         /* a node under which another hangs has no checkpoint */
    PLANT_GREETING,           /* a greeting loses its last token */
    PLANT_EYES,               /* a turn is framed as the first persona sees it */
    PLANT_JOINT,              /* a group that shares a view gets one persona's prompt */
    PLANT_NOTE_PATH,          /* a note where a path ends is not in force */
    PLANT_NOTE_UNSTORED,      /* a note is not stored */
    PLANT_LORE,               /* lore stands a turn too early */
    PLANT_CHOICES,            /* a reply is not held to its choices */
    PLANT_DISTINCT,           /* siblings that are to begin distinctly draw alike */
    PLANT_EXPAND,             /* an expansion looks behind the parent of a node */
    PLANT_IMPORT,             /* imported nodes get ids that are given out again */
    PLANT_COUNT,              /* of those that test_tree plants */
    PLANT_LOAD = PLANT_COUNT, /* what is damaged is overlooked where a journal is read */
};

void tree_plant_set(enum tree_plant plant);
const char *tree_plant_name(enum tree_plant plant);

#endif
