#include "schedule/leave.h"

#include "base/check.h"
#include "base/log.h"

void leave_post(struct engine *engine, struct branch *branch)
{
    struct branch_event event = branch->event;

    event.finish = FINISH_NONE;
    board_post(engine->outbox, branch_table_slot(&engine->table, branch), &event);
    engine->has_posted = true;
}

static void count_finish(struct engine_stats *stats, enum branch_finish finish)
{
    if (finish == FINISH_FAILED) {
        stats->failed_count++;
    } else if (finish == FINISH_CANCELLED) {
        stats->cancelled_count++;
    } else {
        stats->finished_count++;
    }
}

/* The last word on a branch: after it the loop may free the spec and take the slot again. */
static void post_final(struct engine *engine, struct branch *branch)
{
    const uint32_t slot = branch_table_slot(&engine->table, branch);
    struct branch_event event = branch->event;

    event.finish = (uint32_t)branch->finish;
    count_finish(&engine->stats, branch->finish);
    if (branch->finish == FINISH_FAILED && event.status != STATUS_STOPPING) {
        log_line(LOG_WARN, "engine", "node %016llx failed: %s",
                 (unsigned long long)branch->spec->node, status_name(event.status));
    }
    fairness_leave(&engine->fairness, branch);
    branch_table_move(&engine->table, branch, BRANCH_FREE);
    board_post(engine->outbox, slot, &event);
    engine->has_posted = true;
}

/* No submitted step names it any more. */
static void leave_end(struct engine *engine, struct branch *branch)
{
    const uint32_t context_count = branch->spec->context_token_count;
    const uint32_t content_count =
        branch->finish == FINISH_NONE ? branch->event.released_count : branch->event.kept;

    CHECK(branch->steps_in_flight == 0);
    span_publish(engine->tree, engine->pages, branch, context_count + content_count, true);
    span_close(engine->tree, engine->pages, branch);
    fairness_stop(&engine->fairness, branch);
    if (branch->finish != FINISH_NONE) {
        post_final(engine, branch);
        return;
    }
    branch->planned_count = branch->sampled_count;
    branch->draft_count = 0;
    branch->is_history_sent = false;
    branch->is_preempting = false;
    branch->priority = (uint32_t)branch->spec->priority;
    branch->pages_wanted = 0;
    branch->wait.node = KV_NODE_NONE;
    branch_table_move(&engine->table, branch, BRANCH_WAITING);
}

void leave_begin(struct engine *engine, struct branch *branch)
{
    if (branch->state == BRANCH_WAITING) {
        if (branch->finish != FINISH_NONE) {
            post_final(engine, branch);
        }
        return;
    }
    if (branch->state != BRANCH_DRAINING) {
        branch_table_move(&engine->table, branch, BRANCH_DRAINING);
    }
    leave_check(engine, branch);
}

void leave_check(struct engine *engine, struct branch *branch)
{
    if (branch->state == BRANCH_DRAINING && branch->steps_in_flight == 0) {
        leave_end(engine, branch);
    }
}
