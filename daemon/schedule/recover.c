#include "schedule/recover.h"

#include <stdio.h>

#include "base/check.h"
#include "base/log.h"
#include "schedule/deliver.h"
#include "schedule/leave.h"

enum { RESTART_COUNT_MAX = 2 }; /* without a good step between them */

static void flight_drop(struct engine *engine, const struct engine_flight *flight)
{
    kv_pages_complete(engine->pages, flight->number);
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct branch *branch = branch_table_at(&engine->table, flight->entries[i].branch);

        CHECK(branch->steps_in_flight > 0);
        branch->steps_in_flight--;
    }
}

/* What it computed is gone: nothing of it may enter the tree, and it waits again, or leaves. */
static void branch_drop(struct engine *engine, struct branch *branch)
{
    branch->span.is_publishing = false;
    branch->is_preempting = branch->finish == FINISH_NONE;
    leave_begin(engine, branch);
}

void recover_begin(struct engine *engine, struct engine_flight *flight)
{
    while (engine->flight_count > 0) {
        flight_drop(engine, &engine->flights[engine->flight_first]);
        engine->flight_first = (engine->flight_first + 1) % engine->flight_count_max;
        engine->flight_count--;
    }
    if (flight != NULL) {
        flight_drop(engine, flight);
    }
    kv_tree_release_all(engine->tree);
    for (uint32_t i = 0; i < BRANCH_COUNT_MAX; i++) {
        struct branch *branch = branch_table_at(&engine->table, i);

        if (branch->state != BRANCH_FREE && branch->state != BRANCH_WAITING) {
            branch_drop(engine, branch);
        }
    }
    engine->is_device_lost = true;
}

static void end_all(struct engine *engine)
{
    for (uint32_t i = 0; i < BRANCH_COUNT_MAX; i++) {
        struct branch *branch = branch_table_at(&engine->table, i);

        if (branch->state != BRANCH_FREE) {
            CHECK(branch->finish == FINISH_NONE);
            deliver_cut(branch, FINISH_FAILED, STATUS_DEVICE);
            leave_begin(engine, branch);
        }
    }
}

enum status recover_run(struct engine *engine)
{
    const struct engine_settings *settings = &engine->settings;
    struct engine_stats *stats = &engine->stats;

    if (!engine->is_device_lost || engine->is_stopping || engine->table.waiting_count == 0) {
        return STATUS_OK;
    }
    while (engine->restart_count < RESTART_COUNT_MAX) {
        struct forward *forward = NULL;
        struct error error = {STATUS_OK, "", NULL, 0};

        engine->restart_count++;
        log_line(LOG_WARN, "engine", "the device failed; restart %u of %u", engine->restart_count,
                 (unsigned)RESTART_COUNT_MAX);
        if (settings->restart(settings->restart_context, &error, &forward) == STATUS_OK) {
            engine->settings.forward = forward;
            engine->is_device_lost = false;
            stats->restart_count++;
            log_line(LOG_INFO, "engine", "the device is back; %u branches are computed again",
                     engine->table.waiting_count);
            return STATUS_OK;
        }
        (void)snprintf(stats->device_text, sizeof(stats->device_text), "%s", error.text);
        log_line(LOG_ERROR, "engine", "the device could not be restarted: %s", error.text);
    }
    log_line(LOG_ERROR, "engine", "%u branches end: %u restarts did not help",
             engine->table.waiting_count, (unsigned)RESTART_COUNT_MAX);
    end_all(engine);
    engine->restart_count = 0; /* the next branch that comes tries anew */
    return STATUS_DEVICE;
}
