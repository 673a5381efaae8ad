/* Who goes first: interactive before batch, then the user who was served least, then the session of
 * that user that was served least, then the branch that came first.
 *
 * Thread: engine. Everything is allocated in create. An account exists while its user or session
 * has a branch. It starts level with those that are being served, so that nobody saves up turns by
 * being away. Served is counted in rows; slots taken count too, so that one user cannot take them
 * all while another waits.
 */
#ifndef PERSONAD_SCHEDULE_FAIRNESS_H
#define PERSONAD_SCHEDULE_FAIRNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/table.h"
#include "schedule/branch_table.h"

struct fairness_account {
    uint64_t id;
    uint64_t served_rows;
    uint32_t alive_count;   /* branches */
    uint32_t running_count; /* of them with a running slot */
    uint64_t level_rows;    /* of a user: served_rows of its session that was served last */
    uint32_t next_free;
};

struct fairness {
    struct fairness_account *accounts; /* owned: users and sessions */
    struct table users;                /* id -> account */
    struct table sessions;
    uint32_t free_first;
    uint64_t level_rows; /* served_rows of the user that was served last */
};

MUST_USE enum status fairness_init(struct fairness *fairness);
void fairness_finish(struct fairness *fairness);

/* A branch appears (sets its accounts; table says who is running) and goes. */
void fairness_enter(struct fairness *fairness, const struct branch_table *table,
                    struct branch *branch);
void fairness_leave(struct fairness *fairness, const struct branch *branch);

/* It got a running slot, or gave it back. */
void fairness_start(struct fairness *fairness, const struct branch *branch);
void fairness_stop(struct fairness *fairness, const struct branch *branch);

/* It got rows of a step. */
void fairness_charge(struct fairness *fairness, const struct branch *branch, uint32_t row_count);

/* True when `a` should get a running slot before `b`. */
bool fairness_admits_before(const struct fairness *fairness, const struct branch *a,
                            const struct branch *b);

/* True when `a` should get rows of prefill before `b`. */
bool fairness_serves_before(const struct fairness *fairness, const struct branch *a,
                            const struct branch *b);

/* Running slots of the branch's user. */
uint32_t fairness_user_running_count(const struct fairness *fairness, const struct branch *branch);

#endif
