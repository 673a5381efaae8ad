/* Operations on a daemon and on its naive twin, drawn from seeds.
 *
 * An operation is its kind and a seed of its own, so that a list of them still means something when
 * others are taken out: what it names it picks among what is there then. Thread: one.
 */
#ifndef PERSONAD_TESTS_SIM_TREE_PLAY_H
#define PERSONAD_TESTS_SIM_TREE_PLAY_H

#include <stdbool.h>
#include <stdint.h>

enum tree_kind {
    TREE_OPEN,
    TREE_APPEND,
    TREE_SAY,
    TREE_GENERATE,
    TREE_EDIT,
    TREE_CANCEL,
    TREE_HEAD,
    TREE_BOOKMARK,
    TREE_LABEL,
    TREE_DELETE,
    TREE_UNDELETE,
    TREE_PURGE,
    TREE_SESSION,
    TREE_VERIFY,
    TREE_LOOK,
    TREE_JOIN,
    TREE_NOTE,
    TREE_EXPAND,
    TREE_COPY,
    TREE_EVICT,
    TREE_DEVICE,
    TREE_WAIT,
    TREE_STOP,
    TREE_KILL,
    TREE_POWER,
    TREE_KIND_COUNT,
};

struct tree_op {
    enum tree_kind kind;
    uint64_t seed;
};

/* The operations of one seed. */
void tree_play_draw(uint64_t seed, struct tree_op *out, uint32_t count);

/* What happened, added up: a simulation in which nothing happened has shown nothing. */
struct tree_counts {
    uint64_t operations, refusals, repeats; /* repeats: after a death in the middle of a request */
    uint64_t stops, kills, power_cuts, device_restarts, disk_faults, memory_faults;
    uint64_t nodes, sampled_tokens, cuts, purged, slid; /* slid: by the window */
    uint64_t notes, chosen, distinct, expanded, kept, copies, interrupted, joint, crowds;
    uint64_t preemptions, context_tokens, context_cached;
};

/* How far a run is: `at` is the operation at hand, `problem` what was wrong ("": nothing). */
struct tree_progress {
    volatile uint32_t at;
    char problem[256];
    struct tree_counts counts;
};

/* Plays them. is_told: each is printed as it is played. */
void tree_play(uint64_t seed, const struct tree_op *ops, uint32_t count, bool is_told,
               struct tree_progress *progress);

#endif
