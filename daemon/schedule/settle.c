#include "schedule/settle.h"

#include "base/check.h"
#include "base/clock.h"
#include "model/config.h"
#include "schedule/deliver.h"
#include "schedule/leave.h"
#include "schedule/speculate.h"

/* Why nothing of this entry counts: its own rows hold what is not a number, a step before failed,
 * or the branch whose pages and logits it shares has failed. */
static enum status entry_failure(const struct engine_flight *flight, const struct step_entry *entry,
                                 const struct branch *branch, const struct step_result *result)
{
    if (branch->finish == FINISH_FAILED) {
        return (enum status)branch->event.status;
    }
    if (entry->leader != ENTRY_NONE && flight->entries[entry->leader].failure != STATUS_OK) {
        return flight->entries[entry->leader].failure;
    }
    /* Drafts that were not drawn were never there: theirs are looked at when they were. */
    for (uint32_t i = 0; i < entry->row_count - entry->draft_count; i++) {
        if (result->row_faults[entry->row_first + i] != 0) {
            return STATUS_NUMERIC;
        }
    }
    return STATUS_OK;
}

/* The row that the next mark was measured in, where it is wanted. */
static enum status read_row(struct engine *engine, const struct engine_flight *flight,
                            const struct branch *branch, uint32_t sample)
{
    const struct forward *forward = engine->settings.forward;
    const struct branch_output *output = branch->spec->output;

    if (output->rows == NULL) {
        return STATUS_OK;
    }
    const size_t vocabulary_count = model_config(forward_model(forward))->vocabulary_count;
    return forward_logits_read(forward, flight->plan->samples[sample].logits_row,
                               output->rows + branch->sampled_count * vocabulary_count);
}

/* Leading drafts of the entry that were drawn, up to one whose own row holds what is not a number:
 * with that one the branch fails, as it would have one step later. */
static uint32_t count_drawn(const struct step_entry *entry, const struct step_result *result,
                            bool *is_faulty)
{
    uint32_t count = 0;

    *is_faulty = false;
    while (count < entry->draft_count &&
           (result->samples[entry->sample + count + 1].flags & SAMPLE_FLAG_DROPPED) == 0) {
        if (result->row_faults[entry->row_first + count + 1] != 0) {
            *is_faulty = true;
            break;
        }
        count++;
    }
    return count;
}

/* The next `count` sampled tokens, or the marks of a look that this step has answered. */
static void settle_samples(struct engine *engine, const struct engine_flight *flight,
                           const struct step_entry *entry, uint32_t count, struct branch *branch,
                           const struct step_result *result)
{
    const uint64_t now_ns = clock_monotonic_ns();

    for (uint32_t i = 0; i < count && branch->finish == FINISH_NONE; i++) {
        const struct sample_result *sample = &result->samples[entry->sample + i];

        if ((sample->flags & SAMPLE_FLAG_NAN) != 0) {
            deliver_cut(branch, FINISH_FAILED, STATUS_NUMERIC);
        } else if (branch->spec->marks != NULL &&
                   read_row(engine, flight, branch, entry->sample + i) != STATUS_OK) {
            deliver_cut(branch, FINISH_FAILED, STATUS_DEVICE);
        } else if (branch->spec->marks != NULL) {
            deliver_mark(branch, sample, now_ns);
        } else {
            deliver_token(engine->settings.tokenizer, branch, sample, now_ns);
        }
    }
}

/* What was guessed wrong leaves no trace: the next row goes where the first wrong one went. */
static void settle_drafts(struct engine *engine, struct branch *branch, uint32_t drawn_count,
                          bool is_faulty)
{
    speculate_learn(engine, branch, drawn_count);
    branch->planned_count = branch->sampled_count;
    branch->kv_planned = branch->kv_done;
    if (is_faulty && branch->finish == FINISH_NONE) {
        deliver_cut(branch, FINISH_FAILED, STATUS_NUMERIC);
    }
}

static void settle_entry(struct engine *engine, struct engine_flight *flight,
                         struct step_entry *entry, struct branch *branch,
                         const struct step_result *result)
{
    const uint32_t released_before = branch->event.released_count;
    uint32_t drawn_count;
    bool is_faulty;

    entry->failure = entry_failure(flight, entry, branch, result);
    if (entry->failure != STATUS_OK) {
        if (branch->finish == FINISH_NONE) {
            deliver_cut(branch, FINISH_FAILED, entry->failure);
        }
        return;
    }
    drawn_count = count_drawn(entry, result, &is_faulty);
    entry->kv_after += drawn_count;
    if (branch->kv_done < entry->kv_after) {
        branch->kv_done = entry->kv_after;
        span_settle(engine->tree, branch);
    }
    if (entry->sample == ENTRY_NONE || branch->finish != FINISH_NONE) {
        return; /* sampled after the stop: dropped */
    }
    settle_samples(engine, flight, entry, entry->sample_count - entry->draft_count + drawn_count,
                   branch, result);
    if (entry->draft_count > 0) {
        settle_drafts(engine, branch, drawn_count, is_faulty);
    }
    if (branch->finish == FINISH_NONE && branch->event.released_count > released_before) {
        span_publish(engine->tree, engine->pages, branch,
                     branch->spec->context_token_count + branch->event.released_count, false);
    }
}

/* After all entries: leaving frees what other entries of the step may look at. */
static void settle_leaving(struct engine *engine, struct engine_flight *flight)
{
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct branch *branch = branch_table_at(&engine->table, flight->entries[i].branch);
        CHECK(branch->steps_in_flight > 0);
        branch->steps_in_flight--;
        if (branch->finish == FINISH_NONE && !branch->is_preempting) {
            leave_post(engine, branch);
        } else {
            leave_begin(engine, branch);
        }
    }
}

void settle_step(struct engine *engine, struct engine_flight *flight,
                 const struct step_result *result)
{
    kv_pages_complete(engine->pages, flight->number);
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct step_entry *entry = &flight->entries[i];
        settle_entry(engine, flight, entry, branch_table_at(&engine->table, entry->branch), result);
    }
    settle_leaving(engine, flight);
}

void settle_failure(struct engine *engine, struct engine_flight *flight)
{
    kv_pages_complete(engine->pages, flight->number);
    for (uint32_t i = 0; i < flight->entry_count; i++) {
        struct branch *branch = branch_table_at(&engine->table, flight->entries[i].branch);
        if (branch->finish == FINISH_NONE) {
            deliver_cut(branch, FINISH_FAILED, STATUS_DEVICE);
        }
    }
    settle_leaving(engine, flight);
}
