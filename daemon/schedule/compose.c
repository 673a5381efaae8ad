#include "schedule/compose.h"

#include <string.h>

#include "base/check.h"
#include "schedule/admission.h"
#include "schedule/leave.h"
#include "schedule/prescribe.h"
#include "schedule/pressure.h"
#include "schedule/speculate.h"

enum {
    READ_COUNT = 64,
    PREFILL_ALONE_BUDGETS = 3, /* of time, for a step in which no branch decodes */
    PREFILL_ROWS_MIN = 16, /* beside however many decode rows: else those who wait wait for ever */
};

/* The branch's pages enter the plan: named by this step, with the copy that opens a fork. */
static void add_span(struct engine *engine, struct engine_flight *flight, struct branch *branch)
{
    struct kv_span *span = &branch->span;

    for (uint32_t i = 0; i < span->page_count; i++) {
        kv_pages_name(engine->pages, span->pages[i], flight->number);
    }
    plan_builder_add_span(flight->builder, span->pages, span->page_count);
    if (span->copy_from != KV_PAGE_NONE) {
        kv_pages_name(engine->pages, span->copy_from, flight->number);
        plan_builder_add_copy(flight->builder, span->copy_from, span->pages[span->copy_to],
                              span->copy_slots);
        kv_pages_release(engine->pages, span->copy_from);
        span->copy_from = KV_PAGE_NONE;
    }
}

static struct step_entry *add_entry(struct engine *engine, struct engine_flight *flight,
                                    struct branch *branch)
{
    struct step_entry *entry = &flight->entries[flight->entry_count++];

    CHECK(flight->entry_count <= 2 * engine->settings.running_count_max);
    entry->branch = branch_table_slot(&engine->table, branch);
    entry->row_first = 0;
    entry->row_count = 0;
    entry->kv_after = branch->kv_planned;
    entry->sample = ENTRY_NONE;
    entry->sample_count = 0;
    entry->draft_count = 0;
    entry->leader = ENTRY_NONE;
    entry->failure = STATUS_OK;
    branch->steps_in_flight++;
    return entry;
}

static void add_sample(struct engine *engine, struct engine_flight *flight,
                       struct step_entry *entry, struct branch *branch, uint32_t logits_row)
{
    const struct branch_spec *spec = branch->spec;
    const struct plan_sample sample = {
        .logits_row = logits_row,
        .slot = branch->running,
        .steps = &spec->sampler->steps,
        .mask = prescribe_mask(engine, flight, branch, branch->sampled_count),
        .seed = spec->seed,
        .index = branch->planned_count,
        .top_count = spec->output->top_count,
    };

    entry->sample = plan_builder_add_sample(flight->builder, &sample);
    entry->sample_count = 1;
    branch->planned_count++;
    flight->sample_count++;
}

/* Rows and samples of what is guessed to come behind the entry's own; its KV may turn out to be of
 * no use, so kv_after stays where the guesses begin. */
static void add_drafts(struct engine *engine, struct engine_flight *flight,
                       struct step_entry *entry, struct branch *branch, const uint32_t *drafts,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct plan_sample sample = {
            .slot = branch->running,
            .steps = &branch->spec->sampler->steps,
            .mask = prescribe_mask(engine, flight, branch, branch->sampled_count),
            .seed = branch->spec->seed,
            .index = branch->planned_count,
            .top_count = branch->spec->output->top_count,
            .flags = PLAN_SAMPLE_DRAFT,
            .given = drafts[i],
        };
        const uint32_t row =
            plan_builder_add_row(flight->builder, drafts[i], branch->kv_planned, true);

        sample.logits_row = plan_builder_add_logits(flight->builder, row);
        plan_builder_add_sample(flight->builder, &sample);
        branch->kv_planned++;
        branch->planned_count++;
    }
    entry->row_count += count;
    entry->sample_count += count;
    entry->draft_count = count;
    flight->row_count += count;
    flight->decode_row_count += count;
    flight->sample_count += count;
}

/* Sends the backend all that the penalties may look at. False: no room in this plan. */
static bool add_history(struct engine_flight *flight, struct branch *branch)
{
    const struct branch_spec *spec = branch->spec;
    const uint32_t sampled_count = branch_known_count(branch) - spec->context_token_count;
    uint32_t count = sampled_count;
    uint32_t prompt_count = 0;
    uint32_t *ids;

    for (uint32_t i = 0; i < spec->run_count; i++) {
        if ((spec->runs[i].flags & BRANCH_RUN_FRAME) == 0) {
            count += spec->runs[i].count;
            prompt_count +=
                (spec->runs[i].flags & BRANCH_RUN_PROMPT) != 0 ? spec->runs[i].count : 0;
        }
    }
    ids = plan_builder_add_history(flight->builder, branch->running, prompt_count, count);
    if (ids == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < spec->run_count; i++) {
        if ((spec->runs[i].flags & BRANCH_RUN_FRAME) == 0) {
            memcpy(ids, spec->runs[i].ids, spec->runs[i].count * sizeof(uint32_t));
            ids += spec->runs[i].count;
        }
    }
    memcpy(ids, spec->output->tokens, sampled_count * sizeof(uint32_t));
    branch->history_count = count;
    branch->is_history_sent = true;
    return true;
}

static void compose_decode(struct engine *engine, struct engine_flight *flight,
                           struct branch *branch)
{
    const struct branch_spec *spec = branch->spec;
    const uint32_t position = spec->context_token_count + branch->planned_count - 1;
    uint32_t drafts[DRAFT_COUNT_MAX];
    struct step_entry *entry;
    uint32_t token = PLAN_TOKEN_LAST | branch->running;
    uint32_t draft_count;
    uint32_t row;

    if (spec->marks != NULL || branch->draft_count > 0) {
        return; /* all its marks are on their way, or what comes next is not known */
    }
    CHECK(position == branch->kv_planned);
    if (prescribe_waits(branch) || branch->planned_count >= branch_sample_count_max(spec) ||
        plan_builder_rows_fit(flight->builder, position, 1) == 0) {
        return;
    }
    if (position / KV_PAGE_TOKEN_COUNT >= branch->span.page_count &&
        pressure_grow(engine, branch) != STATUS_OK) {
        return;
    }
    if (branch->planned_count == branch->sampled_count) {
        token = spec->output->tokens[branch->sampled_count - 1];
    }
    draft_count = speculate_draft(engine, branch, position, drafts);
    add_span(engine, flight, branch);
    row = plan_builder_add_row(flight->builder, token, position, true);
    branch->kv_planned++;
    entry = add_entry(engine, flight, branch);
    entry->row_first = row;
    entry->row_count = 1;
    add_sample(engine, flight, entry, branch, plan_builder_add_logits(flight->builder, row));
    flight->row_count++;
    flight->decode_row_count++;
    add_drafts(engine, flight, entry, branch, drafts, draft_count);
    fairness_charge(&engine->fairness, branch, 1 + draft_count);
}

/* Siblings whose context has just been planned to its end start from the leader's logits. */
static void join_siblings(struct engine *engine, struct engine_flight *flight,
                          struct branch *leader, uint32_t leader_entry, uint32_t logits_row)
{
    struct branch_table *table = &engine->table;
    uint32_t next;

    if (leader->spec->group == 0 || leader->sampled_count > 0) {
        return;
    }
    for (uint32_t i = table->waiting_first; i != BRANCH_NONE; i = next) {
        struct branch *branch = &table->branches[i];
        next = branch->next;
        if (branch->spec->group != leader->spec->group || branch->sampled_count > 0) {
            continue;
        }
        if (admission_join(engine, branch, leader) != STATUS_OK) {
            return;
        }
        if (!add_history(flight, branch)) {
            /* Its row cannot be shared later: wait again, and find the context cached. */
            branch->is_preempting = true;
            leave_begin(engine, branch);
            return;
        }
        struct step_entry *entry = add_entry(engine, flight, branch);
        entry->leader = leader_entry;
        add_sample(engine, flight, entry, branch, logits_row);
    }
}

static void add_prefill_rows(struct engine_flight *flight, struct branch *branch, uint32_t start,
                             uint32_t count)
{
    uint32_t ids[READ_COUNT];

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t position = start + i;
        if (i % READ_COUNT == 0) {
            branch_read_ids(branch, position, count - i < READ_COUNT ? count - i : READ_COUNT, ids);
        }
        plan_builder_add_row(flight->builder, ids[i % READ_COUNT], position,
                             position >= branch->kv_planned);
    }
}

/* A chunk of known tokens, at most row_count_max. Returns the rows added. */
static uint32_t compose_prefill(struct engine *engine, struct engine_flight *flight,
                                struct branch *branch, uint32_t row_count_max)
{
    const uint32_t known = branch->known_count;
    const uint32_t context_count = branch->spec->context_token_count;
    /* The last known token's logits are wanted, so its row runs even when its KV is there. */
    const uint32_t start = branch->kv_planned < known ? branch->kv_planned : known - 1;
    uint32_t count = known - start < row_count_max ? known - start : row_count_max;
    const uint32_t row_first = flight->row_count;
    uint32_t entry_index = flight->entry_count;
    struct step_entry *entry;
    bool is_last;

    count = plan_builder_rows_fit(flight->builder, start, count);
    is_last = start + count == known;
    if (is_last && count > 0 && !branch->is_history_sent && !add_history(flight, branch)) {
        count--;
        is_last = false;
    }
    if (count == 0) {
        return 0;
    }
    add_span(engine, flight, branch);
    add_prefill_rows(flight, branch, start, count);
    flight->row_count += count;
    if (start + count > branch->kv_planned) {
        branch->kv_planned = start + count;
    }
    entry = add_entry(engine, flight, branch);
    entry->row_first = row_first;
    entry->row_count = count;
    fairness_charge(&engine->fairness, branch, count);
    if (start < context_count) {
        const uint32_t end = start + count < context_count ? start + count : context_count;
        branch->event.context_computed_count += end - start;
        engine->stats.context_computed_count += end - start;
    }
    if (is_last) {
        const uint32_t logits_row = plan_builder_add_logits(flight->builder, row_first + count - 1);
        add_sample(engine, flight, entry, branch, logits_row);
        branch_table_move(&engine->table, branch, BRANCH_DECODE);
        join_siblings(engine, flight, branch, entry_index, logits_row);
    }
    return count;
}

/* ---- looks ---- */

/* How many rows of [start, start + count) the marks leave whose samples there is room for; the
 * marks that those rows answer in *mark_count. A row of many marks may take several steps. */
static uint32_t cut_to_samples(const struct branch *branch, uint32_t start, uint32_t count,
                               uint32_t sample_room, uint32_t *mark_count)
{
    const struct branch_mark *marks = branch->spec->marks + branch->planned_count;
    const uint32_t left = branch->spec->mark_count - branch->planned_count;
    uint32_t taken = 0;

    while (taken < left && taken < sample_room && marks[taken].position < start + count) {
        taken++;
    }
    *mark_count = taken;
    if (taken == left || marks[taken].position >= start + count) {
        return count;
    }
    return taken == 0 ? marks[0].position - start : marks[taken - 1].position + 1 - start;
}

static void add_marks(struct engine *engine, struct engine_flight *flight, struct step_entry *entry,
                      struct branch *branch, uint32_t start, uint32_t mark_count)
{
    const struct branch_spec *spec = branch->spec;
    const struct branch_mark *marks = spec->marks + branch->planned_count;
    uint32_t logits_row = 0;

    for (uint32_t i = 0; i < mark_count; i++) {
        struct plan_sample sample = {
            .slot = branch->running,
            .steps = spec->marks_draw ? &spec->sampler->steps : NULL,
            .mask = spec->marks_draw
                        ? prescribe_mask(engine, flight, branch, branch->planned_count + i)
                        : NULL,
            .seed = spec->seed,
            .index = branch->planned_count + i,
            .top_count = spec->output->top_count,
            .flags = PLAN_SAMPLE_GIVEN,
            .given = marks[i].token,
            /* Behind the first mark come sampled tokens alone, and no frames. */
            .history_count =
                branch->history_count - (spec->context_token_count - 1 - marks[i].position),
        };
        if (i == 0 || marks[i].position != marks[i - 1].position) {
            const uint32_t row = entry->row_first + marks[i].position - start;
            logits_row = plan_builder_add_logits(flight->builder, row);
        }
        sample.logits_row = logits_row;
        const uint32_t index = plan_builder_add_sample(flight->builder, &sample);
        entry->sample = i == 0 ? index : entry->sample;
    }
    flight->reads_rows = flight->reads_rows || spec->output->rows != NULL;
    entry->sample_count = mark_count;
    branch->planned_count += mark_count;
    flight->sample_count += mark_count;
}

/* A chunk of a look. Rows whose KV is there run again where their logits are wanted. */
static uint32_t compose_look(struct engine *engine, struct engine_flight *flight,
                             struct branch *branch, uint32_t row_count_max, uint32_t sample_room)
{
    const struct branch_spec *spec = branch->spec;
    const uint32_t known = branch->known_count;
    const uint32_t marked = spec->marks[branch->planned_count].position;
    const uint32_t start = branch->kv_planned < marked ? branch->kv_planned : marked;
    const uint32_t row_first = flight->row_count;
    uint32_t count = known - start < row_count_max ? known - start : row_count_max;
    uint32_t mark_count;

    count = plan_builder_rows_fit(flight->builder, start, count);
    count = cut_to_samples(branch, start, count, sample_room, &mark_count);
    if (mark_count > 0 && spec->marks_draw && !branch->is_history_sent &&
        !add_history(flight, branch)) {
        mark_count = 0;
        count = marked - start;
    }
    if (count == 0) {
        return 0;
    }
    add_span(engine, flight, branch);
    add_prefill_rows(flight, branch, start, count);
    flight->row_count += count;
    if (start + count > branch->kv_planned) {
        const uint32_t computed = start + count - branch->kv_planned;
        branch->event.context_computed_count += computed;
        engine->stats.context_computed_count += computed;
        branch->kv_planned = start + count;
    }
    struct step_entry *entry = add_entry(engine, flight, branch);
    entry->row_first = row_first;
    entry->row_count = count;
    fairness_charge(&engine->fairness, branch, count);
    if (mark_count > 0) {
        add_marks(engine, flight, entry, branch, start, mark_count);
    }
    if (branch->planned_count == spec->mark_count) {
        branch_table_move(&engine->table, branch, BRANCH_DECODE);
    }
    return count;
}

/* Samples that the branches which may still want one in this step do not need: those of `order`,
 * and siblings that wait for a leader among them. At least one for the first look of a step, since
 * a look has a running slot itself. */
static uint32_t spare_sample_count(struct engine *engine, const struct engine_flight *flight,
                                   const uint32_t *order, uint32_t count)
{
    struct branch_table *table = &engine->table;
    const uint32_t free_count = table->running_count_max - table->running_count;
    uint32_t used = flight->sample_count;

    used += table->waiting_count < free_count ? table->waiting_count : free_count;
    for (uint32_t i = 0; i < count; i++) {
        used += branch_table_at(table, order[i])->spec->marks == NULL;
    }
    return used < table->running_count_max ? table->running_count_max - used : 0;
}

/* Running branches in PREFILL, whoever is served next first. */
static uint32_t sort_prefills(struct engine *engine)
{
    struct branch_table *table = &engine->table;
    uint32_t *order = engine->scratch_branches;
    uint32_t count = 0;

    for (uint32_t i = 0; i < table->running_count; i++) {
        struct branch *branch = branch_table_at(table, table->running[i]);
        uint32_t at = count;
        if (branch->state != BRANCH_PREFILL) {
            continue;
        }
        while (at > 0 && fairness_serves_before(&engine->fairness, branch,
                                                branch_table_at(table, order[at - 1]))) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = table->running[i];
        count++;
    }
    return count;
}

/* What the budget leaves for prefill beside the decode rows that are planned already. Where nobody
 * waits for a next token, more rows share each reading of the weights. */
static uint32_t prefill_row_count(const struct engine *engine, const struct engine_flight *flight)
{
    const uint32_t times = flight->row_count == 0 ? PREFILL_ALONE_BUDGETS : 1;
    const uint32_t budget = pace_row_count(&engine->pace, times);

    if (flight->row_count == 0 || budget > flight->row_count + PREFILL_ROWS_MIN) {
        return budget - flight->row_count;
    }
    return PREFILL_ROWS_MIN;
}

bool compose_step(struct engine *engine, struct engine_flight *flight)
{
    struct branch_table *table = &engine->table;
    uint32_t *order = engine->scratch_branches;
    const uint32_t running_count = table->running_count;
    uint32_t row_count_max;
    uint32_t prefill_count;

    plan_builder_begin(flight->builder);
    flight->entry_count = 0;
    flight->row_count = 0;
    flight->decode_row_count = 0;
    flight->sample_count = 0;
    flight->reads_rows = false;
    flight->mask_count = 0;
    speculate_begin(engine);
    /* A copy: preemption takes branches out of the table's own list. */
    memcpy(order, table->running, running_count * sizeof(uint32_t));
    for (uint32_t i = 0; i < running_count; i++) {
        struct branch *branch = branch_table_at(table, order[i]);
        if (branch->state == BRANCH_DECODE) {
            compose_decode(engine, flight, branch);
        }
    }
    row_count_max = prefill_row_count(engine, flight);
    prefill_count = sort_prefills(engine);
    for (uint32_t i = 0; i < prefill_count && row_count_max > 0; i++) {
        struct branch *branch = branch_table_at(table, order[i]);
        if (branch->spec->marks != NULL) {
            const uint32_t room = spare_sample_count(engine, flight, order + i, prefill_count - i);
            row_count_max -= compose_look(engine, flight, branch, row_count_max, room);
        } else {
            row_count_max -= compose_prefill(engine, flight, branch, row_count_max);
        }
    }
    return flight->entry_count > 0;
}
