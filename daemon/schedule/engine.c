#include "schedule/engine.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "schedule/admission.h"
#include "schedule/compose.h"
#include "schedule/deliver.h"
#include "schedule/engine_state.h"
#include "schedule/leave.h"
#include "schedule/prescribe.h"
#include "schedule/recover.h"
#include "schedule/settle.h"
#include "schedule/speculate.h"

enum {
    HISTORY_TOKENS_MIN = 65536, /* of one plan: many short contexts may start in one step */
    NODES_PER_PAGE = 3,         /* a full one, a prompt's end, a context's end */
};

enum message_kind { MESSAGE_SUBMIT, MESSAGE_CANCEL, MESSAGE_PARK, MESSAGE_RELEASE_SCOPE };

struct message {
    enum message_kind kind;
    uint32_t slot;
    bool is_parked;
    uint64_t scope;
    uint64_t submit_ns;
    const struct branch_spec *spec; /* borrowed until the branch's final event */
};

static uint32_t page_count_of(uint64_t token_count)
{
    return (uint32_t)((token_count + KV_PAGE_TOKEN_COUNT - 1) / KV_PAGE_TOKEN_COUNT);
}

/* ---- life ---- */

static enum status check_settings(const struct engine_settings *settings, struct error *error)
{
    const uint32_t block_count =
        (settings->context_token_count_max - 1) / ATTENTION_BLOCK_TOKENS + 1;

    CHECK(settings->page_count > 0);
    CHECK(settings->running_count_max > 0);
    CHECK(settings->running_count_max <= BRANCH_RUNNING_COUNT_MAX);
    CHECK(settings->context_token_count_max > 0);
    if (settings->row_count_max < settings->running_count_max) {
        return error_set(error, STATUS_LIMIT,
                         "a step of %u rows cannot hold a row of each of %u running branches: "
                         "raise the rows of a step or run fewer branches",
                         settings->row_count_max, settings->running_count_max);
    }
    if (settings->partial_count_max < block_count) {
        return error_set(error, STATUS_LIMIT,
                         "a context of %u tokens needs %u attention partials a row, a step has %u",
                         settings->context_token_count_max, block_count,
                         settings->partial_count_max);
    }
    return STATUS_OK;
}

static enum status flights_init(struct engine *engine)
{
    const struct engine_settings *settings = &engine->settings;
    const uint32_t context_count = settings->context_token_count_max;
    const struct plan_limits limits = {
        .row_count_max = settings->row_count_max,
        .span_page_count_max = engine->table.span_page_count_max,
        .span_count_max = settings->running_count_max,
        .partial_count_max = settings->partial_count_max,
        .sample_count_max = settings->running_count_max,
        .history_token_count_max =
            context_count > HISTORY_TOKENS_MIN ? context_count : HISTORY_TOKENS_MIN,
    };

    for (uint32_t i = 0; i < engine->flight_count_max; i++) {
        struct engine_flight *flight = &engine->flights[i];
        TRY(plan_builder_create(&limits, &flight->builder));
        flight->entries =
            memory_alloc(2 * (size_t)settings->running_count_max, sizeof(*flight->entries));
        if (flight->entries == NULL) {
            return STATUS_MEMORY;
        }
    }
    return STATUS_OK;
}

static enum status parts_init(struct engine *engine)
{
    const struct engine_settings *settings = &engine->settings;
    const uint32_t span_page_count_max = page_count_of(settings->context_token_count_max) + 1;

    TRY(queue_create(sizeof(struct message), ENGINE_INBOX_COUNT_MAX, &engine->inbox));
    TRY(board_create(sizeof(struct branch_event), BRANCH_COUNT_MAX, &engine->outbox));
    TRY(board_create(sizeof(struct engine_stats), 1, &engine->stats_board));
    TRY(kv_pages_create(settings->page_count, &engine->pages));
    TRY(kv_tree_create(engine->pages, NODES_PER_PAGE * settings->page_count, &engine->tree));
    TRY(branch_table_init(&engine->table, settings->running_count_max, span_page_count_max));
    TRY(fairness_init(&engine->fairness));
    TRY(flights_init(engine));
    TRY(prescribe_init(engine));
    TRY(speculate_init(engine));
    engine->scratch_pages = memory_alloc(span_page_count_max, sizeof(uint32_t));
    engine->scratch_branches = memory_alloc(settings->running_count_max, sizeof(uint32_t));
    engine->tried = memory_alloc(BRANCH_COUNT_MAX, sizeof(*engine->tried));
    if (engine->scratch_pages == NULL || engine->scratch_branches == NULL ||
        engine->tried == NULL) {
        return STATUS_MEMORY;
    }
    return STATUS_OK;
}

enum status engine_create(const struct engine_settings *settings, struct error *error,
                          struct engine **out)
{
    struct engine *engine = NULL;
    enum status status;

    TRY(check_settings(settings, error));
    engine = memory_alloc(1, sizeof(*engine));
    if (engine == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while making the engine");
    }
    engine->settings = *settings;
    engine->flight_count_max = forward_step_slot_count(settings->forward);
    CHECK(engine->flight_count_max > 0);
    CHECK(engine->flight_count_max <= BACKEND_STEP_SLOT_COUNT);
    pace_init(&engine->pace, settings->step_budget_ms, settings->row_count_max);
    status = parts_init(engine);
    if (status != STATUS_OK) {
        error_set(error, status,
                  "out of memory while making the tables of %u KV pages and %u branches",
                  settings->page_count, settings->running_count_max);
        goto done;
    }
    *out = engine;
    engine = NULL; /* handed over */
done:
    engine_destroy(engine);
    return status;
}

void engine_destroy(struct engine *engine)
{
    if (engine == NULL) {
        return;
    }
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        plan_builder_destroy(engine->flights[i].builder);
        memory_free(engine->flights[i].entries);
    }
    prescribe_finish(engine);
    speculate_finish(engine);
    fairness_finish(&engine->fairness);
    branch_table_finish(&engine->table);
    kv_tree_destroy(engine->tree);
    kv_pages_destroy(engine->pages);
    board_destroy(engine->stats_board);
    board_destroy(engine->outbox);
    queue_destroy(engine->inbox);
    memory_free(engine->scratch_pages);
    memory_free(engine->scratch_branches);
    memory_free(engine->tried);
    memory_free(engine);
}

/* ---- the loop's side ---- */

void engine_on_events(struct engine *engine, void (*on_ready)(void *context), void *context)
{
    engine->on_events = on_ready;
    engine->on_events_context = context;
}

static enum status message_push(struct engine *engine, const struct message *message,
                                struct error *error)
{
    if (queue_push(engine->inbox, message) != STATUS_OK) {
        return error_set_limit(error, "ENGINE_INBOX_COUNT_MAX", ENGINE_INBOX_COUNT_MAX,
                               "the engine has %u messages unread: try again in a moment",
                               (unsigned)ENGINE_INBOX_COUNT_MAX);
    }
    return STATUS_OK;
}

static void check_marks(const struct branch_spec *spec)
{
    CHECK(spec->mark_count > 0);
    CHECK(spec->group == 0);
    CHECK(spec->resume_count == 0);
    CHECK(!spec->marks_draw || spec->sampler != NULL);
    for (uint32_t i = 1; i < spec->mark_count; i++) {
        CHECK(spec->marks[i - 1].position <= spec->marks[i].position);
    }
    CHECK(spec->marks[spec->mark_count - 1].position == spec->context_token_count - 1);
}

enum status engine_submit(struct engine *engine, const struct branch_spec *spec,
                          struct error *error)
{
    const struct engine_settings *settings = &engine->settings;
    const uint32_t reply_count = spec->marks != NULL ? 0 : branch_sample_count_max(spec);
    const uint64_t token_count = (uint64_t)spec->context_token_count + reply_count;
    const struct message message = {
        .kind = MESSAGE_SUBMIT,
        .slot = spec->slot,
        .submit_ns = clock_monotonic_ns(),
        .spec = spec,
    };

    CHECK(spec->slot < BRANCH_COUNT_MAX);
    CHECK(spec->context_token_count > 0);
    CHECK(spec->output->token_count_max >= branch_sample_count_max(spec));
    CHECK(spec->output->top_count <= BACKEND_TOP_COUNT_MAX);
    CHECK(spec->scope.prompt_token_count <= spec->context_token_count);
    if (spec->marks != NULL) {
        check_marks(spec);
    }
    if (token_count > settings->context_token_count_max) {
        return error_set_limit(error, "CONTEXT_TOKEN_COUNT_MAX", settings->context_token_count_max,
                               "a context of %u tokens with a reply of %u is longer than the %u "
                               "tokens that one branch may have",
                               spec->context_token_count, reply_count,
                               settings->context_token_count_max);
    }
    /* Admission asks for the page of the row after the last known token, too. */
    if (page_count_of(token_count + (reply_count == 0)) > settings->page_count) {
        return error_set_limit(error, "kv_page_count", settings->page_count,
                               "a context of %u tokens with a reply of %u needs %u KV pages, the "
                               "pool has %u: shorten it or give the daemon more KV memory",
                               spec->context_token_count, reply_count, page_count_of(token_count),
                               settings->page_count);
    }
    return message_push(engine, &message, error);
}

void engine_hold(struct engine *engine, bool is_held)
{
    queue_hold(engine->inbox, is_held);
}

enum status engine_cancel(struct engine *engine, uint32_t slot)
{
    const struct message message = {.kind = MESSAGE_CANCEL, .slot = slot};

    return message_push(engine, &message, NULL);
}

enum status engine_park(struct engine *engine, uint32_t slot, bool parked)
{
    const struct message message = {.kind = MESSAGE_PARK, .slot = slot, .is_parked = parked};

    return message_push(engine, &message, NULL);
}

enum status engine_release_scope(struct engine *engine, uint64_t scope)
{
    const struct message message = {.kind = MESSAGE_RELEASE_SCOPE, .scope = scope};

    return message_push(engine, &message, NULL);
}

enum status engine_event_take(struct engine *engine, uint32_t *slot, struct branch_event *event)
{
    return board_take(engine->outbox, slot, event);
}

void engine_stats(struct engine *engine, struct engine_stats *out)
{
    uint32_t slot;

    while (board_take(engine->stats_board, &slot, &engine->stats_seen) == STATUS_OK) {
    }
    *out = engine->stats_seen;
}

void engine_wait(struct engine *engine, int timeout_ms)
{
    queue_wait(engine->inbox, timeout_ms);
}

void engine_wake(struct engine *engine)
{
    queue_wake(engine->inbox);
}

/* ---- the engine's side ---- */

/* Ends a branch from outside, unless its end is decided already. */
static void cut(struct engine *engine, struct branch *branch, enum branch_finish finish,
                enum status status)
{
    if (branch->state == BRANCH_FREE || branch->finish != FINISH_NONE) {
        return;
    }
    deliver_cut(branch, finish, status);
    leave_begin(engine, branch);
}

static void take_submit(struct engine *engine, const struct message *message)
{
    struct branch *branch = branch_table_open(&engine->table, message->spec, message->submit_ns);

    fairness_enter(&engine->fairness, &engine->table, branch);
    deliver_start(engine->settings.tokenizer, branch);
    if (branch->finish != FINISH_NONE) {
        leave_begin(engine, branch);
    } else if (engine->is_stopping) {
        cut(engine, branch, FINISH_FAILED, STATUS_STOPPING);
    }
}

static void take_park(struct engine *engine, struct branch *branch, bool is_parked)
{
    if (branch->state == BRANCH_FREE || branch->finish != FINISH_NONE) {
        return;
    }
    branch->is_parked = is_parked;
    if (is_parked && branch->state != BRANCH_WAITING) {
        branch->is_preempting = true;
        leave_begin(engine, branch);
    }
}

static void take_inbox(struct engine *engine)
{
    struct message message;

    while (queue_pop(engine->inbox, &message) == STATUS_OK) {
        switch (message.kind) {
        case MESSAGE_SUBMIT:
            take_submit(engine, &message);
            break;
        case MESSAGE_CANCEL:
            cut(engine, branch_table_at(&engine->table, message.slot), FINISH_CANCELLED, STATUS_OK);
            break;
        case MESSAGE_PARK:
            take_park(engine, branch_table_at(&engine->table, message.slot), message.is_parked);
            break;
        case MESSAGE_RELEASE_SCOPE:
            kv_tree_release_scope(engine->tree, message.scope);
            break;
        }
    }
}

static struct engine_flight *flight_at(struct engine *engine, uint32_t index)
{
    return &engine->flights[(engine->flight_first + index) % engine->flight_count_max];
}

/* What the device says of its failure, for the log and for those whose branches end by it. */
static void keep_fault(struct engine *engine, const struct engine_flight *flight, const char *how)
{
    struct engine_stats *stats = &engine->stats;

    (void)snprintf(stats->device_text, sizeof(stats->device_text), "step %llu of %u rows %s: %s",
                   (unsigned long long)flight->number, flight->row_count, how,
                   forward_fault_text(engine->settings.forward));
    log_line(LOG_ERROR, "engine", "%s", stats->device_text);
}

/* Waits for the oldest step on its way and gives its results to its branches. */
static enum status flight_end(struct engine *engine)
{
    struct engine_flight *flight = flight_at(engine, 0);
    struct step_result result;
    const enum status status = forward_wait(engine->settings.forward, flight->ticket, &result);

    if (status != STATUS_OK) {
        keep_fault(engine, flight, "failed on the device");
        if (engine->settings.restart != NULL) {
            recover_begin(engine, NULL);
            return STATUS_OK;
        }
    }
    engine->flight_first = (engine->flight_first + 1) % engine->flight_count_max;
    engine->flight_count--;
    if (status != STATUS_OK) {
        settle_failure(engine, flight);
        return STATUS_DEVICE;
    }
    engine->restart_count = 0;
    pace_observe(&engine->pace, flight->row_count, result.elapsed_ns);
    settle_step(engine, flight, &result);
    return STATUS_OK;
}

static enum status flight_begin(struct engine *engine, struct engine_flight *flight)
{
    const struct plan *plan = plan_builder_finish(flight->builder);
    struct engine_stats *stats = &engine->stats;
    enum status status;

    engine->step_number = flight->number;
    flight->plan = plan;
    status = forward_submit(engine->settings.forward, plan, &flight->ticket);
    if (status != STATUS_OK) {
        keep_fault(engine, flight, "was refused by the device");
        if (engine->settings.restart != NULL) {
            recover_begin(engine, flight);
            return STATUS_OK;
        }
        /* Steps end in their order, this one after those on their way. */
        while (engine->flight_count > 0) {
            (void)flight_end(engine);
        }
        settle_failure(engine, flight);
        return STATUS_DEVICE;
    }
    engine->flight_count++;
    stats->step_count++;
    stats->row_count += flight->row_count;
    stats->decode_row_count += flight->decode_row_count;
    stats->prefill_row_count += flight->row_count - flight->decode_row_count;
    stats->sample_count += flight->sample_count;
    return STATUS_OK;
}

static void stats_post(struct engine *engine)
{
    const struct kv_pages_counts counts = kv_pages_counts(engine->pages);
    struct engine_stats *stats = &engine->stats;

    stats->waiting_count = engine->table.waiting_count;
    stats->running_count = engine->table.running_count;
    stats->page_count = counts.page_count;
    stats->page_free_count = counts.free_count;
    stats->page_cached_count = counts.cached_count;
    board_post(engine->stats_board, 0, stats);
    if (engine->has_posted && engine->on_events != NULL) {
        engine->on_events(engine->on_events_context);
    }
    engine->has_posted = false;
}

/* The first step after a rest touches memory anew, so a pause between two replies is none. */
static void rest_when_idle(struct engine *engine, uint64_t now_ns)
{
    const uint64_t rest_ns = (uint64_t)engine->settings.rest_ms * 1000000;

    if (rest_ns != 0 && engine->step_end_ns != 0 && now_ns - engine->step_end_ns >= rest_ns) {
        forward_rest(engine->settings.forward);
        engine->step_end_ns = 0;
    }
}

enum status engine_step(struct engine *engine)
{
    const uint64_t begin_ns = clock_monotonic_ns();
    struct engine_flight *flight = flight_at(engine, engine->flight_count);
    enum status status;
    bool has_work;

    take_inbox(engine);
    status = recover_run(engine);
    if (status != STATUS_OK || engine->is_device_lost) {
        stats_post(engine);
        return status == STATUS_OK ? STATUS_AGAIN : status;
    }
    status = STATUS_AGAIN;
    admission_run(engine);
    flight->number = engine->step_number + 1;
    has_work = compose_step(engine, flight);
    if (has_work) {
        status = flight_begin(engine, flight);
    }
    if (engine->flight_count == engine->flight_count_max ||
        (engine->flight_count > 0 && !has_work)) {
        const enum status ended = flight_end(engine);
        status = status == STATUS_DEVICE ? status : ended;
    }
    while (has_work && flight->reads_rows && engine->flight_count > 0) {
        const enum status ended = flight_end(engine);
        status = status == STATUS_DEVICE ? status : ended;
    }
    if (status != STATUS_AGAIN) {
        engine->step_end_ns = clock_monotonic_ns();
        engine->stats.step_ns += engine->step_end_ns - begin_ns;
    } else {
        rest_when_idle(engine, begin_ns);
    }
    stats_post(engine);
    return status;
}

void engine_stop(struct engine *engine)
{
    engine->is_stopping = true;
    while (engine->flight_count > 0) {
        (void)flight_end(engine);
    }
    take_inbox(engine);
    for (uint32_t i = 0; i < BRANCH_COUNT_MAX; i++) {
        cut(engine, branch_table_at(&engine->table, i), FINISH_FAILED, STATUS_STOPPING);
    }
    stats_post(engine);
}
