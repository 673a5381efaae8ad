#include "unit/session/fake_engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct engine *fake_engine_create(const struct tokenizer *tokenizer)
{
    struct engine *engine = calloc(1, sizeof(*engine));

    CHECK(engine != NULL);
    engine->tokenizer = tokenizer;
    engine->refused_after = FAKE_BRANCH_COUNT_MAX;
    return engine;
}

void fake_engine_destroy(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->branch_count; i++) {
        free(engine->branches[i].context);
    }
    free(engine);
}

static void flatten(const struct branch_spec *spec, uint32_t *out)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < spec->run_count; i++) {
        memcpy(out + at, spec->runs[i].ids, spec->runs[i].count * sizeof(*out));
        at += spec->runs[i].count;
    }
    CHECK(at == spec->context_token_count);
}

enum status engine_submit(struct engine *engine, const struct branch_spec *spec,
                          struct error *error)
{
    struct fake_branch *branch = &engine->branches[engine->branch_count];

    if (engine->branch_count >= engine->refused_after) {
        return error_set_limit(error, "TEST", 1, "refused by the test");
    }
    CHECK(spec->context_token_count > 0);
    for (uint32_t i = 0; i < engine->branch_count; i++) {
        CHECK(engine->branches[i].is_ended || engine->branches[i].slot != spec->slot);
    }
    engine->branch_count++;
    engine->held_submit_count += engine->is_held;
    memset(branch, 0, sizeof(*branch));
    branch->spec = spec;
    branch->slot = spec->slot;
    branch->seed = spec->seed;
    branch->scope = spec->scope;
    branch->context_count = spec->context_token_count;
    branch->context = malloc(spec->context_token_count * sizeof(uint32_t));
    CHECK(branch->context != NULL);
    flatten(spec, branch->context);
    if (spec->marks != NULL) {
        CHECK(spec->mark_count > 0);
        CHECK(spec->marks[spec->mark_count - 1].position == spec->context_token_count - 1);
        return STATUS_OK;
    }
    cue_reader_init(&branch->reader, spec->cues, bytes_of(spec->lead_in, spec->lead_in_bytes));
    return STATUS_OK;
}

bool fake_engine_is_intact(const struct engine *engine, uint32_t index)
{
    const struct fake_branch *branch = &engine->branches[index];
    uint32_t *now = malloc(branch->context_count * sizeof(uint32_t));
    bool is_intact;

    CHECK(now != NULL && !branch->is_ended);
    flatten(branch->spec, now);
    is_intact = memcmp(now, branch->context, branch->context_count * sizeof(*now)) == 0;
    free(now);
    return is_intact;
}

static void count_released(struct fake_branch *branch)
{
    const struct branch_output *output = branch->spec->output;

    branch->event.released_bytes = (uint32_t)branch->reader.released_bytes;
    branch->event.released_count = 0;
    while (branch->event.released_count < branch->event.sampled_count &&
           output->text_ends[branch->event.released_count] <= branch->event.released_bytes) {
        branch->event.released_count++;
    }
    branch->has_news = true;
}

static void finish(struct fake_branch *branch, enum branch_finish reason, enum status status)
{
    const struct branch_output *output = branch->spec->output;
    struct branch_event *event = &branch->event;
    const uint32_t sampled = event->sampled_count;
    uint32_t most = sampled;

    event->finish = reason;
    event->status = status;
    if (reason == FINISH_CANCELLED || reason == FINISH_FAILED) {
        event->content_bytes = event->released_bytes;
    } else {
        if (reason != FINISH_CUE) {
            cue_reader_end(&branch->reader);
        }
        event->content_bytes = sampled > 0 ? output->text_ends[sampled - 1] : 0;
        most -= reason == FINISH_END; /* the end token is never content */
        if (branch->reader.stopped) {
            event->finish = FINISH_CUE;
            event->content_bytes = (uint32_t)branch->reader.cut_bytes;
        }
    }
    event->kept = 0;
    while (event->kept < most && output->text_ends[event->kept] <= event->content_bytes) {
        event->kept++;
    }
    event->released_bytes = event->content_bytes;
    event->released_count = event->kept;
    branch->is_ended = true;
    branch->has_news = true;
}

static void sample(struct engine *engine, struct fake_branch *branch, uint32_t token)
{
    struct branch_output *output = branch->spec->output;
    const struct bytes shown = tokenizer_token_bytes(engine->tokenizer, token);
    const uint32_t at = branch->event.sampled_count;
    const uint32_t from = at > 0 ? output->text_ends[at - 1] : 0;

    CHECK(!branch->is_ended && at < output->token_count_max);
    CHECK(from + shown.size <= output->text_bytes_max);
    output->tokens[at] = token;
    output->logprobs[at] = -(float)(at + 1) / 8;
    output->logprobs_sampler[at] = -(float)(at + 1) / 16;
    output->entropies[at] = (float)(at + 1) / 4;
    for (uint32_t i = 0; i < output->top_count; i++) {
        output->tops[at * output->top_count + i] = (struct sample_top){token + i, -(float)i};
    }
    if (shown.size > 0) {
        memcpy(output->text + from, shown.data, shown.size);
    }
    output->text_ends[at] = from + (uint32_t)shown.size;
    branch->event.sampled_count++;
    cue_reader_feed(&branch->reader, shown);
}

void fake_engine_emit(struct engine *engine, uint32_t index, uint32_t token)
{
    struct fake_branch *branch = &engine->branches[index];

    sample(engine, branch, token);
    count_released(branch);
    if (branch->reader.stopped) {
        finish(branch, FINISH_CUE, STATUS_OK);
    } else if (branch->event.sampled_count == branch->spec->output->token_count_max) {
        finish(branch, FINISH_LENGTH, STATUS_OK);
    }
}

void fake_engine_emit_text(struct engine *engine, uint32_t index, const char *text)
{
    struct tokenizer_scratch *scratch = NULL;
    uint32_t ids[1024];
    uint32_t count = 0;

    CHECK(tokenizer_scratch_create(engine->tokenizer, &scratch) == STATUS_OK);
    CHECK(tokenizer_encode(engine->tokenizer, scratch, bytes_of_text(text), false, ids, 1024,
                           &count) == STATUS_OK);
    tokenizer_scratch_destroy(scratch);
    for (uint32_t i = 0; i < count && !engine->branches[index].is_ended; i++) {
        fake_engine_emit(engine, index, ids[i]);
    }
}

void fake_engine_end(struct engine *engine, uint32_t index, enum branch_finish reason,
                     enum status status)
{
    struct fake_branch *branch = &engine->branches[index];

    CHECK(!branch->is_ended);
    if (reason == FINISH_END) {
        uint32_t count = 0;
        const uint32_t *ends = tokenizer_end_ids(engine->tokenizer, &count);

        CHECK(count > 0);
        sample(engine, branch, ends[0]);
    }
    finish(branch, reason, status);
}

void fake_engine_answer(struct engine *engine, uint32_t index, const struct branch_output *as,
                        uint32_t count)
{
    struct fake_branch *branch = &engine->branches[index];
    struct branch_output *output = branch->spec->output;
    const uint32_t tops = output->top_count;

    CHECK(branch->spec->marks != NULL && !branch->is_ended);
    for (uint32_t n = 0; n < count; n++) {
        const uint32_t at = branch->event.sampled_count++;
        const uint32_t token = branch->spec->marks[at].token;

        output->tokens[at] = as != NULL ? as->tokens[at] : token;
        output->logprobs[at] = as != NULL ? as->logprobs[at] : -(float)(token % 64 + 1) / 8;
        output->logprobs_sampler[at] = as != NULL ? as->logprobs_sampler[at] : 0;
        output->entropies[at] = as != NULL ? as->entropies[at] : (float)(token % 64 + 1) / 4;
        for (uint32_t i = 0; i < tops; i++) {
            output->tops[at * tops + i] =
                as != NULL ? as->tops[at * tops + i] : (struct sample_top){token + i, -(float)i};
        }
    }
    branch->has_news = true;
    if (branch->event.sampled_count == branch->spec->mark_count) {
        branch->event.finish = FINISH_LENGTH;
        branch->is_ended = true;
    }
}

/* ---- the rest of what the session calls ---- */

static struct fake_branch *find_slot(struct engine *engine, uint32_t slot)
{
    for (uint32_t i = 0; i < engine->branch_count; i++) {
        if (engine->branches[i].slot == slot && !engine->branches[i].is_ended) {
            return &engine->branches[i];
        }
    }
    return NULL;
}

void engine_hold(struct engine *engine, bool is_held)
{
    CHECK(engine->is_held != is_held);
    engine->is_held = is_held;
}

enum status engine_cancel(struct engine *engine, uint32_t slot)
{
    struct fake_branch *branch = find_slot(engine, slot);

    if (branch != NULL) {
        finish(branch, FINISH_CANCELLED, STATUS_OK);
    }
    return STATUS_OK;
}

enum status engine_park(struct engine *engine, uint32_t slot, bool parked)
{
    struct fake_branch *branch = find_slot(engine, slot);

    if (branch != NULL) {
        branch->is_parked = parked;
    }
    return STATUS_OK;
}

enum status engine_release_scope(struct engine *engine, uint64_t scope)
{
    CHECK(scope != 0);
    engine->released_scope_count++;
    return STATUS_OK;
}

enum status engine_event_take(struct engine *engine, uint32_t *slot, struct branch_event *event)
{
    for (uint32_t i = 0; i < engine->branch_count; i++) {
        if (engine->branches[i].has_news) {
            engine->branches[i].has_news = false;
            *slot = engine->branches[i].slot;
            *event = engine->branches[i].event;
            return STATUS_OK;
        }
    }
    return STATUS_AGAIN;
}

void engine_stats(struct engine *engine, struct engine_stats *out)
{
    memset(out, 0, sizeof(*out));
    out->finished_count = engine->branch_count;
}
