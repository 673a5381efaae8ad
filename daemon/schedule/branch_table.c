#include "schedule/branch_table.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"

#define TO(state) (1u << (state))

/* Row: from. Bits: where it may go. */
static const uint32_t branch_edges[BRANCH_STATE_COUNT] = {
    [BRANCH_FREE] = TO(BRANCH_WAITING),
    [BRANCH_WAITING] = TO(BRANCH_PREFILL) | TO(BRANCH_DECODE) | TO(BRANCH_FREE),
    [BRANCH_PREFILL] = TO(BRANCH_DECODE) | TO(BRANCH_DRAINING),
    [BRANCH_DECODE] = TO(BRANCH_DRAINING),
    [BRANCH_DRAINING] = TO(BRANCH_WAITING) | TO(BRANCH_FREE),
};

enum status branch_table_init(struct branch_table *table, uint32_t running_count_max,
                              uint32_t span_page_count_max)
{
    memset(table, 0, sizeof(*table));
    table->branches = memory_alloc(BRANCH_COUNT_MAX, sizeof(*table->branches));
    table->span_pages =
        memory_alloc((size_t)running_count_max * span_page_count_max, sizeof(uint32_t));
    table->span_nodes =
        memory_alloc((size_t)running_count_max * span_page_count_max, sizeof(uint32_t));
    table->running = memory_alloc(running_count_max, sizeof(uint32_t));
    table->running_free = memory_alloc(running_count_max, sizeof(uint32_t));
    if (table->branches == NULL || table->span_pages == NULL || table->span_nodes == NULL ||
        table->running == NULL || table->running_free == NULL) {
        branch_table_finish(table);
        return STATUS_MEMORY;
    }
    table->running_count_max = running_count_max;
    table->span_page_count_max = span_page_count_max;
    table->waiting_first = BRANCH_NONE;
    table->waiting_last = BRANCH_NONE;
    for (uint32_t i = 0; i < running_count_max; i++) {
        table->running_free[i] = running_count_max - 1 - i;
    }
    return STATUS_OK;
}

void branch_table_finish(struct branch_table *table)
{
    memory_free(table->branches);
    memory_free(table->span_pages);
    memory_free(table->span_nodes);
    memory_free(table->running);
    memory_free(table->running_free);
    memset(table, 0, sizeof(*table));
}

struct branch *branch_table_at(struct branch_table *table, uint32_t slot)
{
    CHECK(slot < BRANCH_COUNT_MAX);
    return &table->branches[slot];
}

uint32_t branch_table_slot(const struct branch_table *table, const struct branch *branch)
{
    return (uint32_t)(branch - table->branches);
}

/* ---- the list of waiting branches, by sequence ---- */

static void waiting_insert(struct branch_table *table, struct branch *branch)
{
    const uint32_t slot = branch_table_slot(table, branch);
    uint32_t after = table->waiting_last;

    /* From the back: new and preempted branches are the youngest. */
    while (after != BRANCH_NONE && table->branches[after].sequence > branch->sequence) {
        after = table->branches[after].previous;
    }
    branch->previous = after;
    branch->next = after == BRANCH_NONE ? table->waiting_first : table->branches[after].next;
    if (after == BRANCH_NONE) {
        table->waiting_first = slot;
    } else {
        table->branches[after].next = slot;
    }
    if (branch->next == BRANCH_NONE) {
        table->waiting_last = slot;
    } else {
        table->branches[branch->next].previous = slot;
    }
    table->waiting_count++;
}

static void waiting_remove(struct branch_table *table, struct branch *branch)
{
    if (branch->previous == BRANCH_NONE) {
        table->waiting_first = branch->next;
    } else {
        table->branches[branch->previous].next = branch->next;
    }
    if (branch->next == BRANCH_NONE) {
        table->waiting_last = branch->previous;
    } else {
        table->branches[branch->next].previous = branch->previous;
    }
    table->waiting_count--;
}

/* ---- running slots ---- */

static void running_take(struct branch_table *table, struct branch *branch)
{
    uint32_t at = table->running_count;

    CHECK(table->running_count < table->running_count_max);
    branch->running = table->running_free[table->running_count_max - 1 - table->running_count];
    while (at > 0 && table->branches[table->running[at - 1]].sequence > branch->sequence) {
        table->running[at] = table->running[at - 1];
        at--;
    }
    table->running[at] = branch_table_slot(table, branch);
    table->running_count++;
    branch->span.pages = table->span_pages + (size_t)branch->running * table->span_page_count_max;
    branch->span.nodes = table->span_nodes + (size_t)branch->running * table->span_page_count_max;
}

static void running_give(struct branch_table *table, struct branch *branch)
{
    const uint32_t slot = branch_table_slot(table, branch);
    uint32_t at = 0;

    CHECK(branch->steps_in_flight == 0);
    while (table->running[at] != slot) {
        at++;
        CHECK(at < table->running_count);
    }
    table->running_count--;
    memmove(&table->running[at], &table->running[at + 1],
            (table->running_count - at) * sizeof(uint32_t));
    table->running_free[table->running_count_max - 1 - table->running_count] = branch->running;
    branch->running = RUNNING_NONE;
    branch->span.pages = NULL;
    branch->span.nodes = NULL;
}

struct branch *branch_table_open(struct branch_table *table, const struct branch_spec *spec,
                                 uint64_t submit_ns)
{
    struct branch *branch = branch_table_at(table, spec->slot);

    CHECK(branch->state == BRANCH_FREE);
    memset(branch, 0, sizeof(*branch));
    branch->spec = spec;
    branch->submit_ns = submit_ns;
    branch->sequence = ++table->sequence;
    branch->priority = (uint32_t)spec->priority;
    branch->running = RUNNING_NONE;
    branch->wait.node = KV_NODE_NONE;
    branch_table_move(table, branch, BRANCH_WAITING);
    return branch;
}

void branch_table_move(struct branch_table *table, struct branch *branch, enum branch_state to)
{
    const enum branch_state from = branch->state;

    CHECK((branch_edges[from] & TO(to)) != 0);
    if (from == BRANCH_WAITING) {
        waiting_remove(table, branch);
        if (to != BRANCH_FREE) {
            running_take(table, branch);
        }
    }
    if (from == BRANCH_DRAINING) {
        running_give(table, branch);
    }
    branch->state = to;
    if (to == BRANCH_WAITING) {
        waiting_insert(table, branch);
    }
    if (to == BRANCH_FREE) {
        branch->spec = NULL;
    }
}

/* Moves the cursor to the run that holds context position `at`. */
static const struct branch_run *run_seek(struct branch *branch, uint32_t at)
{
    const struct branch_run *runs = branch->spec->runs;

    if (at < branch->run_start) {
        branch->run_index = 0;
        branch->run_start = 0;
    }
    while (at - branch->run_start >= runs[branch->run_index].count) {
        branch->run_start += runs[branch->run_index].count;
        branch->run_index++;
        CHECK(branch->run_index < branch->spec->run_count);
    }
    return &runs[branch->run_index];
}

void branch_read_ids(struct branch *branch, uint32_t from, uint32_t count, uint32_t *ids)
{
    const uint32_t context_count = branch->spec->context_token_count;

    CHECK(from + count <= context_count + branch->sampled_count);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = from + i;
        if (at < context_count) {
            const struct branch_run *run = run_seek(branch, at);
            ids[i] = run->ids[at - branch->run_start];
        } else {
            ids[i] = branch->spec->output->tokens[at - context_count];
        }
    }
}

uint32_t branch_known_count(const struct branch *branch)
{
    const bool is_look = branch->spec->marks != NULL;

    return branch->spec->context_token_count + (is_look ? 0 : branch->sampled_count);
}

uint32_t branch_sample_count_max(const struct branch_spec *spec)
{
    uint32_t room = 0;

    if (spec->marks != NULL) {
        return spec->mark_count;
    }
    if (spec->context_room > spec->context_token_count) {
        room = spec->context_room - spec->context_token_count;
    }
    return spec->sampler->settings.max_tokens < room ? spec->sampler->settings.max_tokens : room;
}
