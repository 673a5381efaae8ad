#include "schedule/pressure.h"

#include "base/check.h"
#include "schedule/leave.h"

static void preempt(struct engine *engine, struct branch *branch)
{
    branch->is_preempting = true;
    engine->stats.preemption_count++;
    leave_begin(engine, branch);
}

static bool yields_before(const struct branch *a, const struct branch *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->sequence > b->sequence;
}

/* The branch that gives way first, or NULL. *is_draining: one is on its way out already. */
static struct branch *find_victim(struct engine *engine, bool *is_draining)
{
    struct branch_table *table = &engine->table;
    struct branch *victim = NULL;

    *is_draining = false;
    for (uint32_t i = 0; i < table->running_count; i++) {
        struct branch *branch = branch_table_at(table, table->running[i]);
        if (branch->state == BRANCH_DRAINING) {
            *is_draining = true;
        } else if (victim == NULL || yields_before(branch, victim)) {
            victim = branch;
        }
    }
    return victim;
}

enum status pressure_grow(struct engine *engine, struct branch *branch)
{
    while (span_grow(engine->tree, engine->pages, branch) != STATUS_OK) {
        bool is_draining;
        struct branch *victim = find_victim(engine, &is_draining);
        if (is_draining || kv_pages_counts(engine->pages).limbo_count > 0) {
            return STATUS_AGAIN;
        }
        CHECK(victim != NULL);
        preempt(engine, victim);
        if (victim == branch) {
            return STATUS_AGAIN;
        }
    }
    return STATUS_OK;
}

void pressure_make_room(struct engine *engine, const struct branch *branch, bool needs_pages)
{
    struct branch_table *table = &engine->table;
    const uint32_t own_count = fairness_user_running_count(&engine->fairness, branch);
    bool is_draining;
    struct branch *victim = find_victim(engine, &is_draining);

    if (is_draining || victim == NULL) {
        return;
    }
    if (victim->priority > branch->priority) {
        preempt(engine, victim);
        return;
    }
    if (needs_pages) {
        return;
    }
    victim = NULL;
    for (uint32_t i = 0; i < table->running_count; i++) {
        struct branch *other = branch_table_at(table, table->running[i]);
        if (other->priority == branch->priority &&
            fairness_user_running_count(&engine->fairness, other) >= own_count + 2 &&
            (victim == NULL || yields_before(other, victim))) {
            victim = other;
        }
    }
    if (victim != NULL) {
        preempt(engine, victim);
    }
}
