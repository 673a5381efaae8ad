#include "session/look.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/say.h"

/* ---- making ---- */

static uint32_t flags_of(const struct segment *segment)
{
    if (segment->kind == SEGMENT_PROMPT) {
        return BRANCH_RUN_PROMPT;
    }
    return segment->kind == SEGMENT_NODE ? 0 : BRANCH_RUN_FRAME;
}

static enum status make_runs(struct look *look, const struct look_query *query)
{
    const uint32_t count = context_segment_count(query->context);
    const uint32_t copied = query->ids != NULL ? 0 : query->context->token_count;
    struct segment *segments = memory_alloc(count, sizeof(*segments));
    uint32_t at = 0;

    look->ids = memory_alloc(copied + query->more_count, sizeof(uint32_t));
    look->runs = memory_alloc(count + 1, sizeof(*look->runs));
    if (segments == NULL || look->ids == NULL || look->runs == NULL) {
        memory_free(segments);
        return STATUS_MEMORY;
    }
    context_segments(query->context, segments);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t *ids = query->ids != NULL ? query->ids : look->ids;

        look->runs[i] = (struct branch_run){ids + at, segments[i].count, flags_of(&segments[i])};
        if (query->ids == NULL) {
            memcpy(look->ids + at, context_segment_ids(&segments[i]),
                   segments[i].count * sizeof(uint32_t));
        }
        at += segments[i].count;
    }
    CHECK(at == query->context->token_count);
    memory_free(segments);
    look->spec.run_count = count;
    if (query->more_count > 0) {
        look->runs[count] = (struct branch_run){look->ids + copied, query->more_count, 0};
        memcpy(look->ids + copied, query->more, query->more_count * sizeof(uint32_t));
        look->spec.run_count++;
    }
    return STATUS_OK;
}

static enum status make_output(struct look *look, const struct look_query *query)
{
    const uint64_t count = query->mark_count;
    uint64_t top_bytes = count * query->top_count * sizeof(struct sample_top);

    look->block_bytes = top_bytes + count * 4 * sizeof(uint32_t);
    look->block = memory_alloc(look->block_bytes, 1);
    look->marks = memory_alloc(count, sizeof(*look->marks));
    if (look->block == NULL || look->marks == NULL) {
        return STATUS_MEMORY;
    }
    uint32_t *words = (uint32_t *)((uint8_t *)look->block + top_bytes);
    look->output = (struct branch_output){
        .token_count_max = query->mark_count,
        .top_count = query->top_count,
        .tops = query->top_count > 0 ? look->block : NULL,
        .tokens = words,
        .logprobs = (float *)(words + count),
        .logprobs_sampler = (float *)(words + 2 * count),
        .entropies = (float *)(words + 3 * count),
    };
    if (query->row_width > 0) {
        look->output.rows = memory_alloc(count * query->row_width, sizeof(float));
        look->block_bytes += count * query->row_width * sizeof(float);
    }
    return query->row_width == 0 || look->output.rows != NULL ? STATUS_OK : STATUS_MEMORY;
}

static void fill_spec(struct look *look, const struct look_query *query)
{
    const struct context *context = query->context;
    struct branch_spec *spec = &look->spec;

    spec->node = query->node;
    spec->request = look->job->to.request;
    spec->user = look->job->uid;
    spec->session = query->session->id;
    spec->priority = query->priority;
    spec->runs = look->runs;
    spec->context_token_count = context->token_count + query->more_count;
    spec->context_room = spec->context_token_count;
    if (!query->is_secret) {
        spec->scope.prompt = context->prompt->scope;
        spec->scope.prompt_token_count = context->scope_token_count;
        spec->scope.session = query->session->id;
    }
    spec->sampler = look->sampler;
    spec->seed = query->seed;
    spec->marks = look->marks;
    spec->mark_count = query->mark_count;
    spec->marks_draw = look->sampler != NULL;
    spec->output = &look->output;
}

enum status look_create(struct look_job *job, const struct look_query *query, struct error *error,
                        struct look **out)
{
    struct look *look = memory_alloc(1, sizeof(*look));

    CHECK(query->mark_count > 0);
    if (look == NULL || make_runs(look, query) != STATUS_OK ||
        make_output(look, query) != STATUS_OK) {
        look_destroy(look);
        return error_set(error, STATUS_MEMORY, "out of memory for a look along %u tokens",
                         query->context->token_count + query->more_count);
    }
    look->job = job;
    look->sampler = query->sampler != NULL ? sampler_acquire(query->sampler) : NULL;
    fill_spec(look, query);
    *out = look;
    return STATUS_OK;
}

void look_cut(struct look *look, uint32_t count)
{
    struct branch_spec *spec = &look->spec;
    uint32_t cut = spec->context_token_count - count;

    CHECK(count > 0 && count <= spec->context_token_count);
    spec->context_token_count = count;
    spec->context_room = count;
    if (spec->scope.prompt_token_count > count) {
        spec->scope.prompt_token_count = count;
    }
    while (cut > 0) {
        struct branch_run *last = &look->runs[spec->run_count - 1];
        const uint32_t part = last->count < cut ? last->count : cut;

        last->count -= part;
        cut -= part;
        spec->run_count -= last->count == 0;
    }
}

void look_destroy(struct look *look)
{
    if (look == NULL) {
        return;
    }
    if (look->sampler != NULL) {
        sampler_release(look->sampler);
    }
    memory_free(look->ids);
    memory_free(look->runs);
    memory_free(look->marks);
    memory_free(look->block);
    memory_free(look->output.rows);
    memory_free(look);
}

/* ---- lending ---- */

/* While looks along its nodes are lent a session's nodes are not purged: those who made the looks
 * come back to them. Compare's session may be a shadow, so it is found by its id. */
static struct session *session_of(const struct store *store, const struct look *look)
{
    struct session *session = state_session_find(store, look->spec.session);

    CHECK(session != NULL);
    return session;
}

enum status look_check(const struct store *store, const struct user *user, uint32_t count,
                       struct error *error)
{
    if (count > store->free_slot_count) {
        return error_set_limit(error, "BRANCH_COUNT_MAX", BRANCH_COUNT_MAX,
                               "this takes %u places in the engine and %u of %u are free; try "
                               "again when some replies have ended",
                               count, store->free_slot_count, (unsigned)BRANCH_COUNT_MAX);
    }
    if (user->branch_count + count > BRANCH_PER_USER_COUNT_MAX) {
        return error_set_limit(error, "BRANCH_PER_USER_COUNT_MAX", BRANCH_PER_USER_COUNT_MAX,
                               "you have %u replies and looks going, and this takes %u more",
                               user->branch_count, count);
    }
    return STATUS_OK;
}

enum status look_lend(struct store *store, struct look *look, struct error *error)
{
    struct look_job *job = look->job;

    TRY(look_check(store, job->user, 1, error));
    look->spec.slot = store->free_slots[store->free_slot_count - 1];
    TRY(engine_submit(store->settings.engine, &look->spec, error));
    store->free_slot_count--;
    store->looks[look->spec.slot] = look;
    store->look_count++;
    session_of(store, look)->loan_count++;
    job->lent_count++;
    job->user->branch_count++;
    job->user->output_bytes += look->block_bytes;
    return STATUS_OK;
}

static void take_back(struct store *store, struct look *look)
{
    struct look_job *job = look->job;

    store->looks[look->spec.slot] = NULL;
    store->look_count--;
    session_of(store, look)->loan_count--;
    store->free_slots[store->free_slot_count++] = look->spec.slot;
    job->lent_count--;
    job->user->branch_count--;
    job->user->output_bytes -= look->block_bytes;
}

void look_take(struct store *store, uint32_t slot, const struct branch_event *event)
{
    struct look *look = store->looks[slot];
    struct look_job *job = look->job;

    look->event = *event;
    if (event->finish == FINISH_NONE) {
        return;
    }
    take_back(store, look);
    if (event->finish != FINISH_LENGTH && job->error.status == STATUS_OK) {
        const enum status status =
            event->finish == FINISH_CANCELLED ? STATUS_CANCELLED : (enum status)event->status;

        error_set(&job->error, status, "%s", status_text(status));
    }
    job->on_end(store, job, look);
}

void look_cancel(struct store *store, const struct look *look)
{
    if (engine_cancel(store->settings.engine, look->spec.slot) != STATUS_OK) {
        log_line(LOG_WARN, "session", "a look in slot %u could not be ended now", look->spec.slot);
    }
}

void look_cancel_request(struct store *store, struct reply_to to)
{
    for (uint32_t slot = 0; slot < BRANCH_COUNT_MAX && store->look_count > 0; slot++) {
        struct look *look = store->looks[slot];

        if (look != NULL && look->job->to.connection == to.connection &&
            look->job->to.request == to.request) {
            look->job->is_cancelled = true;
            look_cancel(store, look);
        }
    }
}

void look_finish(struct store *store)
{
    for (uint32_t slot = 0; slot < BRANCH_COUNT_MAX; slot++) {
        struct look *look = store->looks[slot];

        if (look != NULL) {
            struct look_job *job = look->job;

            take_back(store, look);
            if (job->lent_count == 0) {
                job->destroy(job);
            }
        }
    }
}

/* ---- where a look stands ---- */

enum status look_check_session(const struct session *session, struct error *error)
{
    if (session->is_foreign) {
        return error_set(error, STATUS_CONFLICT,
                         "session %llu was made with another model: this one cannot compute it",
                         (unsigned long long)session->id);
    }
    return STATUS_OK;
}

enum status look_stand_open(struct store *store, uint32_t uid, const struct look_place *asked,
                            struct error *error, struct look_stand *out)
{
    struct look_stand stand = {.opens_turn = !asked->continuing};

    TRY(state_session_open(store, asked->session, uid, error, &stand.session));
    TRY(look_check_session(stand.session, error));
    TRY(state_place(store, stand.session, asked->has_position, asked->position, error,
                    &stand.place));
    stand.speaker = asked->has_speaker ? asked->speaker : cast_first_persona(&stand.session->cast);
    if (asked->continuing) {
        TRY(say_check_continuing(stand.place, asked->has_speaker, &stand.speaker, error));
    }
    TRY(say_check_speaker(stand.session, stand.speaker, error));
    *out = stand;
    return STATUS_OK;
}

/* One token is asked for, so the window moves only where Generate could not add one either. */
enum status look_stand_context(struct store *store, const struct look_stand *stand,
                               struct error *error, struct context **out)
{
    const struct context_query query = {
        .session = stand->session,
        .encoder = &store->encoder,
        .place = stand->place,
        .speaker = stand->speaker,
        .opens_turn = stand->opens_turn,
        .reply_tokens = 1,
    };

    return context_create(&query, error, out);
}

enum status look_check_token(const struct store *store, uint32_t token, struct error *error)
{
    const uint32_t count = tokenizer_vocabulary(store->settings.tokenizer)->token_count;

    if (token >= count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "there is no token %u: the vocabulary has %u, counted from 0", token,
                         count);
    }
    return STATUS_OK;
}

void look_job_fail(struct store *store, struct look_job *job, struct look *const *looks,
                   uint32_t look_count)
{
    if (job->lent_count == 0) {
        answer_error(store, job->to, job->type, &job->error);
        job->destroy(job);
        return;
    }
    for (uint32_t i = 0; i < look_count && !job->is_failing; i++) {
        if (looks[i] != NULL && store->looks[looks[i]->spec.slot] == looks[i]) {
            look_cancel(store, looks[i]);
        }
    }
    job->is_failing = true;
}
