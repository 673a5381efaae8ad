/* A whole daemon but for its sockets, on one thread: store, engine, journal, over the fake backend
 * and a disk in memory, with a fake clock. The order in which its three loops turn follows a seed.
 *
 * Thread: one. After each step of the engine the KV pages and the KV tree are counted anew. What is
 * wrong is kept as a sentence (the first one).
 */
#ifndef PERSONAD_TESTS_SIM_TREE_WORLD_H
#define PERSONAD_TESTS_SIM_TREE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "journal/journal.h"
#include "schedule/engine.h"
#include "session/store.h"
#include "support/fake_backend.h"

/* Two users: WORLD_UID and the one behind it. */
enum { WORLD_UID = 1000, WORLD_NODE_COUNT_MAX = 64 };

struct tree_world {
    /* how this daemon is set up */
    uint32_t page_count, row_count, running_count, step_slot_count;
    uint64_t resident_bytes_max;
    /* owned */
    struct tokenizer *tokenizer;
    struct fake *definition; /* never runs: what the numbers are */
    struct fake *fake;
    struct forward *forward;
    struct engine *engine;
    struct journal *journal;
    struct store *store;
    uint64_t now_ns, random;
    /* the last answer */
    bool is_answered, has_error, more, is_following;
    enum reply_type type;
    enum status status; /* of an error */
    char error_text[200];
    uint64_t created[WORLD_NODE_COUNT_MAX];
    uint32_t created_count;
    uint64_t id; /* session or persona; 0: an import wants more */
    uint64_t transfer;
    struct position head;
    uint32_t differing_count; /* nodes that Verify found to differ */
    float entropy, logprobs[2];
    /* who looks at replies that borrow: Walk, lists */
    void (*look)(void *context, const struct reply *reply);
    void *look_context;
    uint64_t followed[4096]; /* nodes with a follower, in this life */
    uint32_t followed_count;
    uint64_t preemption_count, context_count, context_cached_count, device_restart_count;
    char problem[256];
};

/* Draws the settings from the seed. A device that failed is made anew. */
void world_open(struct tree_world *world, uint64_t seed);
void world_close(struct tree_world *world);

void world_start(struct tree_world *world);
void world_stop(struct tree_world *world);                     /* as SIGTERM does */
void world_kill(struct tree_world *world);                     /* as SIGKILL does */
void world_cut_power(struct tree_world *world, uint64_t seed); /* and what was not synced may go */

/* The device fails at one of its next steps. */
void world_fail_device(struct tree_world *world);

/* The disk takes `after` more operations and no other, until the daemon is killed. */
void world_fail_disk(struct tree_world *world, uint32_t after, bool is_full);

/* A turn of one of the three loops. */
void world_step(struct tree_world *world);

/* Executes it once it is prepared; the answer may come later. */
void world_begin(struct tree_world *world, const struct request *request);

/* The same, and waits for the answer. */
void world_ask(struct tree_world *world, const struct request *request);

/* Until what was executed is answered. */
void world_wait(struct tree_world *world, const struct request *request);

/* Until nothing is being generated or stored; parked branches are followed before. */
void world_settle(struct tree_world *world);

/* No reader is left. */
void world_unfollow(struct tree_world *world);

void world_fail(struct tree_world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
