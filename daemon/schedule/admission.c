#include "schedule/admission.h"

#include "base/check.h"
#include "base/clock.h"
#include "schedule/pressure.h"

enum {
    ADMISSION_PASS_COUNT_MAX = 64,
    ADMISSION_TRY_COUNT_MAX = 64, /* failed lookups a step: a lookup costs microseconds */
};

static bool may_try(const struct engine *engine, const struct branch *branch)
{
    const struct kv_pages_counts counts = kv_pages_counts(engine->pages);

    return !branch->is_parked &&
           engine->tried[branch_table_slot(&engine->table, branch)] != engine->admission_round &&
           branch->pages_wanted <= counts.free_count + counts.cached_count &&
           !kv_tree_is_computing(engine->tree, branch->wait);
}

/* The best waiting branch, or NULL. Once the oldest of the best priority was passed over too often
 * it is the only one that counts, even while it cannot be tried. */
static struct branch *find_candidate(struct engine *engine, uint32_t priority_max,
                                     struct branch **oldest)
{
    struct branch_table *table = &engine->table;
    struct branch *best = NULL;

    *oldest = NULL;
    for (uint32_t i = table->waiting_first; i != BRANCH_NONE; i = table->branches[i].next) {
        struct branch *branch = &table->branches[i];
        if (branch->is_parked || branch->priority > priority_max ||
            kv_tree_is_computing(engine->tree, branch->wait)) {
            continue;
        }
        if (*oldest == NULL || branch->priority < (*oldest)->priority) {
            *oldest = branch;
        }
        if (may_try(engine, branch) &&
            (best == NULL || fairness_admits_before(&engine->fairness, branch, best))) {
            best = branch;
        }
    }
    if (*oldest != NULL && (*oldest)->passed_count >= ADMISSION_PASS_COUNT_MAX) {
        return may_try(engine, *oldest) ? *oldest : NULL;
    }
    return best;
}

static bool has_group_leader(struct engine *engine, const struct branch *branch)
{
    struct branch_table *table = &engine->table;

    for (uint32_t i = 0; i < table->running_count; i++) {
        const struct branch *other = branch_table_at(table, table->running[i]);
        if (other->spec->group == branch->spec->group && other->state == BRANCH_PREFILL &&
            other->sampled_count == 0) {
            return true;
        }
    }
    return false;
}

static void wait_for(struct engine *engine, struct branch *branch, uint32_t node)
{
    struct branch *owner = branch_table_at(&engine->table, kv_tree_owner(engine->tree, node));

    branch->wait = kv_tree_ticket(engine->tree, node);
    if (owner->priority > branch->priority) {
        owner->priority = branch->priority;
    }
}

static void start(struct engine *engine, struct branch *branch, enum branch_state state)
{
    struct engine_stats *stats = &engine->stats;

    branch->wait.node = KV_NODE_NONE;
    branch->pages_wanted = 0;
    branch->passed_count = 0;
    branch_table_move(&engine->table, branch, state);
    fairness_start(&engine->fairness, branch);
    if (branch->event.queued_ns == 0) {
        /* At least 1: 0 means that it has not started. */
        branch->event.queued_ns = clock_monotonic_ns() - branch->submit_ns;
        branch->event.queued_ns += branch->event.queued_ns == 0;
        stats->context_token_count += branch->spec->context_token_count;
    }
}

static void count_cached(struct engine *engine, struct branch *branch, bool is_first)
{
    const uint32_t context_count = branch->spec->context_token_count;
    const uint32_t cached = branch->kv_planned < context_count ? branch->kv_planned : context_count;

    if (is_first) {
        branch->event.context_cached_count = cached;
        engine->stats.context_cached_count += cached;
    }
}

/* Pages beside the ones it needs now that must be left over: every running branch may need one
 * soon, and admitting into the last page only means preempting again. */
static uint32_t reserve_count(const struct engine *engine)
{
    const uint32_t bound = engine->settings.page_count / 16;

    return engine->table.running_count < bound ? engine->table.running_count : bound;
}

static enum status try_admit(struct engine *engine, struct branch *branch)
{
    struct span_match match = {.pages = engine->scratch_pages};
    const bool is_first = branch->event.queued_ns == 0;
    struct kv_pages_counts counts;
    uint32_t wanted;

    if (branch->spec->group != 0 && branch->sampled_count == 0 &&
        has_group_leader(engine, branch)) {
        return STATUS_AGAIN;
    }
    span_find(engine->tree, branch, &match);
    if (match.wait != KV_NODE_NONE) {
        wait_for(engine, branch, match.wait);
        return STATUS_AGAIN;
    }
    wanted = span_new_page_count(branch, &match) + reserve_count(engine);
    span_hold(engine->tree, engine->pages, &match);
    counts = kv_pages_counts(engine->pages);
    if (wanted > counts.free_count + counts.cached_count && match.partial_page != KV_PAGE_NONE) {
        /* The page to copy from may be the one that is missing. */
        kv_pages_release(engine->pages, match.partial_page);
        match.partial_page = KV_PAGE_NONE;
        match.partial_count = 0;
        counts = kv_pages_counts(engine->pages);
    }
    if (wanted > counts.free_count + counts.cached_count ||
        !span_reserve(engine->tree, engine->pages, span_new_page_count(branch, &match))) {
        span_unhold(engine->tree, engine->pages, &match);
        counts = kv_pages_counts(engine->pages);
        branch->pages_wanted = counts.free_count + counts.cached_count + 1;
        return STATUS_LIMIT;
    }
    start(engine, branch, BRANCH_PREFILL);
    span_open(engine->tree, engine->pages, branch, &match);
    count_cached(engine, branch, is_first);
    return STATUS_OK;
}

void admission_run(struct engine *engine)
{
    struct branch_table *table = &engine->table;
    uint32_t failed_count = 0;
    uint32_t priority_max = BRANCH_BACKGROUND;

    engine->admission_round++;
    while (table->waiting_count > 0 && failed_count < ADMISSION_TRY_COUNT_MAX) {
        struct branch *oldest;
        struct branch *branch = find_candidate(engine, priority_max, &oldest);
        enum status status;
        if (branch == NULL) {
            return;
        }
        if (table->running_count == table->running_count_max) {
            pressure_make_room(engine, branch, false);
            return;
        }
        engine->tried[branch_table_slot(table, branch)] = engine->admission_round;
        status = try_admit(engine, branch);
        if (status == STATUS_OK) {
            if (oldest != branch) {
                oldest->passed_count++;
            }
            continue;
        }
        failed_count++;
        if (status == STATUS_LIMIT) {
            /* What is freed for this one must not go to a branch that would yield to it again. */
            priority_max = branch->priority;
            pressure_make_room(engine, branch, true);
        }
    }
}

enum status admission_join(struct engine *engine, struct branch *branch,
                           const struct branch *leader)
{
    const bool is_first = branch->event.queued_ns == 0;
    const struct kv_pages_counts counts = kv_pages_counts(engine->pages);

    CHECK(branch->spec->context_token_count == leader->spec->context_token_count);
    if (branch->is_parked || engine->table.running_count == engine->table.running_count_max ||
        counts.free_count + counts.cached_count < 1 + reserve_count(engine) ||
        !span_reserve(engine->tree, engine->pages, 1)) {
        return STATUS_AGAIN;
    }
    start(engine, branch, BRANCH_DECODE);
    span_join(engine->tree, engine->pages, branch, leader);
    count_cached(engine, branch, is_first);
    return STATUS_OK;
}
