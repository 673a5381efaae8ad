/* A tree whose journal is damaged before the daemon reads it again.
 *
 * Thread: one. For processes that end afterwards: nothing is taken down.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_DAMAGE_H
#define PERSONAD_TESTS_SIM_TREE_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/tree_play.h"

struct tree_damage {
    char what[160];           /* table and column */
    char problem[256];        /* what is never answered; "": nothing */
    bool is_done, is_refused; /* a value was changed; the daemon did not start */
    uint64_t answers, errors;
    uint64_t touched; /* the sum of all bytes that were shown */
};

/* Plays the operations and stops the daemon. */
void tree_build(uint64_t seed, const struct tree_op *ops, uint32_t count);

/* Changes one value, starts the daemon and asks everything about everything. */
void tree_explore(uint64_t seed, struct tree_damage *damage);

#endif
