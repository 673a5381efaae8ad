#include "session/score.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/look.h"
#include "session/say.h"

/* An option: its ids, and where its numbers lie in the job's arrays. */
struct option {
    const uint32_t *ids; /* in score.ids, once all are there */
    uint32_t first;
    uint32_t count;
};

struct score {
    struct look_job job; /* first */
    bool numbers;
    uint32_t item_count, option_count;
    uint32_t *option_counts; /* owned; [item_count] */
    struct option *options;  /* owned; [option_count] */
    struct id_list ids;      /* owned */
    float *numbers_block;    /* owned: log probabilities, then entropies, [ids.count] each */
    struct look *
        *looks; /* owned: [item_count] at the items' ends, then [option_count], some NULL */
    struct scored_option_view *views; /* owned; [option_count] */
};

static void destroy(struct look_job *job)
{
    struct score *score = (struct score *)job;

    for (uint32_t i = 0; score->looks != NULL && i < score->item_count + score->option_count; i++) {
        look_destroy(score->looks[i]);
    }
    memory_free(score->looks);
    memory_free(score->option_counts);
    memory_free(score->options);
    memory_free(score->numbers_block);
    memory_free(score->views);
    id_list_finish(&score->ids);
    memory_free(score);
}

/* ---- the answer ---- */

/* Brings the numbers of an option together: its first token's from the item's look. */
static void gather(const struct score *score, uint32_t item, uint32_t option, uint32_t mark)
{
    const struct option *from = &score->options[option];
    const struct branch_output *first = &score->looks[item]->output;
    const struct look *rest = score->looks[score->item_count + option];
    float *logprobs = score->numbers_block + from->first;
    float *entropies = logprobs + score->ids.count;
    struct scored_option_view *view = &score->views[option];

    logprobs[0] = first->logprobs[mark];
    entropies[0] = first->entropies[mark];
    if (rest != NULL) {
        memcpy(logprobs + 1, rest->output.logprobs, (from->count - 1) * sizeof(float));
        memcpy(entropies + 1, rest->output.entropies, (from->count - 1) * sizeof(float));
    }
    *view = (struct scored_option_view){.token_count = from->count};
    for (uint32_t i = 0; i < from->count; i++) {
        view->logprob += (double)logprobs[i];
    }
    if (score->numbers) {
        view->tokens = from->ids;
        view->logprobs = logprobs;
        view->entropies = entropies;
    }
}

/* exp(logprob) over the sum of it, from the likeliest on, so that it cannot vanish. */
static void share_out(struct scored_option_view *views, uint32_t count)
{
    double max = -INFINITY;
    double sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        max = views[i].logprob > max ? views[i].logprob : max;
    }
    for (uint32_t i = 0; i < count; i++) {
        views[i].share = max == -INFINITY ? 1.0 : exp(views[i].logprob - max);
        sum += views[i].share;
    }
    for (uint32_t i = 0; i < count; i++) {
        views[i].share /= sum;
    }
}

static void answer(struct store *store, const struct score *score)
{
    struct reply reply = {.type = REPLY_SCORE, .request = REQUEST_SCORE};
    uint32_t first = 0;

    for (uint32_t item = 0; item < score->item_count; item++) {
        const uint32_t count = score->option_counts[item];

        for (uint32_t i = 0; i < count; i++) {
            gather(score, item, first + i, i);
        }
        share_out(score->views + first, count);
        first += count;
    }
    reply.u.score = (struct score_view){score->views, score->option_counts, score->item_count};
    store->settings.events.on_reply(store->settings.events.context, score->job.to, &reply, false);
}

static void on_end(struct store *store, struct look_job *job, struct look *look)
{
    struct score *score = (struct score *)job;

    (void)look;
    if (job->error.status != STATUS_OK) {
        look_job_fail(store, job, score->looks, score->item_count + score->option_count);
    } else if (job->lent_count == 0) {
        answer(store, score);
        destroy(job);
    }
}

/* ---- making ---- */

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_MEMORY, "out of memory while options were scored");
}

static enum status add_ids(struct store *store, const struct look_stand *stand,
                           const struct score_option *asked, struct score *score,
                           struct error *error)
{
    if (asked->token_count == 0) {
        return say_encode(store, stand->session, stand->place, stand->speaker, asked->text,
                          stand->opens_turn, error, &score->ids);
    }
    for (uint32_t i = 0; i < asked->token_count; i++) {
        TRY(look_check_token(store, asked->tokens[i], error));
    }
    return id_list_append(&score->ids, asked->tokens, asked->token_count) == STATUS_OK
               ? STATUS_OK
               : out_of_memory(error);
}

static enum status add_option(struct store *store, const struct look_stand *stand,
                              const struct score_option *asked, struct score *score,
                              struct option *out, struct error *error)
{
    out->first = score->ids.count;
    TRY(add_ids(store, stand, asked, score, error));
    out->count = score->ids.count - out->first;
    if (out->count == 0) {
        return error_set(error, STATUS_BAD_INPUT, "an option is empty: give it text or tokens");
    }
    if (score->ids.count > TEXT_TOKEN_COUNT_MAX) {
        return error_set_limit(error, "TEXT_TOKEN_COUNT_MAX", TEXT_TOKEN_COUNT_MAX,
                               "the options have more than %u tokens together",
                               (unsigned)TEXT_TOKEN_COUNT_MAX);
    }
    return STATUS_OK;
}

static enum status add_options(struct store *store, const struct request_score *asked,
                               struct look_stand *stands, struct score *score, struct error *error)
{
    uint32_t at = 0;

    for (uint32_t item = 0; item < asked->item_count; item++) {
        const struct score_item *from = &asked->items[item];

        TRY(look_stand_open(store, score->job.uid, &from->place, error, &stands[item]));
        score->option_counts[item] = from->option_count;
        for (uint32_t i = 0; i < from->option_count; i++) {
            TRY(add_option(store, &stands[item], &from->options[i], score, &score->options[at],
                           error));
            at++;
        }
    }
    CHECK(at == score->option_count);
    for (uint32_t i = 0; i < score->option_count; i++) {
        score->options[i].ids = score->ids.ids + score->options[i].first;
    }
    score->numbers_block = memory_alloc(score->ids.count, 2 * sizeof(float));
    return score->numbers_block != NULL ? STATUS_OK : out_of_memory(error);
}

/* The look that measures the first tokens, and those along the other tokens. */
static enum status make_looks(const struct look_stand *stand, const struct context *context,
                              enum branch_priority priority, struct score *score, uint32_t item,
                              uint32_t first, struct error *error)
{
    const uint32_t count = score->option_counts[item];
    struct look_query query = {
        .session = stand->session,
        .context = context,
        .mark_count = count,
        .priority = priority,
    };
    struct look **looks = score->looks + score->item_count;

    TRY(look_create(&score->job, &query, error, &score->looks[item]));
    for (uint32_t i = 0; i < count; i++) {
        const struct option *option = &score->options[first + i];

        score->looks[item]->marks[i] =
            (struct branch_mark){context->token_count - 1, option->ids[0]};
        if (option->count == 1) {
            continue;
        }
        query.more = option->ids;
        query.more_count = option->count - 1;
        query.mark_count = option->count - 1;
        TRY(look_create(&score->job, &query, error, &looks[first + i]));
        for (uint32_t k = 1; k < option->count; k++) {
            looks[first + i]->marks[k - 1] =
                (struct branch_mark){context->token_count - 1 + k, option->ids[k]};
        }
    }
    return STATUS_OK;
}

/* In one batch: they share what is in front of them. */
static enum status lend_all(struct store *store, const struct score *score, struct error *error)
{
    enum status status = STATUS_OK;

    engine_hold(store->settings.engine, true);
    for (uint32_t i = 0; i < score->item_count + score->option_count && status == STATUS_OK; i++) {
        if (score->looks[i] != NULL) {
            status = look_lend(store, score->looks[i], error);
        }
    }
    engine_hold(store->settings.engine, false);
    return status;
}

static enum status start(struct store *store, const struct request_score *asked,
                         struct look_stand *stands, struct score *score, struct error *error)
{
    uint32_t first = 0, look_count = 0;

    TRY(add_options(store, asked, stands, score, error));
    TRY(state_user(store, score->job.uid, error, &score->job.user));
    for (uint32_t item = 0; item < asked->item_count; item++) {
        struct context *context = NULL;

        TRY(look_stand_context(store, &stands[item], error, &context));
        const enum status status =
            make_looks(&stands[item], context, asked->priority, score, item, first, error);
        context_release(context);
        TRY(status);
        first += score->option_counts[item];
    }
    for (uint32_t i = 0; i < score->item_count + score->option_count; i++) {
        look_count += score->looks[i] != NULL;
    }
    TRY(look_check(store, score->job.user, look_count, error));
    return lend_all(store, score, error);
}

static enum status create(const struct request_score *asked, struct score **out)
{
    struct score *score = memory_alloc(1, sizeof(*score));

    if (score == NULL) {
        return STATUS_MEMORY;
    }
    score->item_count = asked->item_count;
    score->option_count = asked->option_count;
    score->numbers = asked->numbers;
    score->option_counts = memory_alloc(asked->item_count, sizeof(*score->option_counts));
    score->options = memory_alloc(asked->option_count, sizeof(*score->options));
    score->views = memory_alloc(asked->option_count, sizeof(*score->views));
    score->looks = memory_alloc(asked->item_count + asked->option_count, sizeof(*score->looks));
    if (score->option_counts == NULL || score->options == NULL || score->views == NULL ||
        score->looks == NULL) {
        destroy(&score->job);
        return STATUS_MEMORY;
    }
    *out = score;
    return STATUS_OK;
}

void score_execute(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_score *asked = &request->u.score;
    struct look_stand *stands = memory_alloc(asked->item_count, sizeof(*stands));
    struct score *score = NULL;
    struct error error = {0};

    if (stands == NULL || create(asked, &score) != STATUS_OK) {
        out_of_memory(&error);
        answer_error(store, to, request->type, &error);
        memory_free(stands);
        return;
    }
    score->job.to = to;
    score->job.type = request->type;
    score->job.uid = request->uid;
    score->job.on_end = on_end;
    score->job.destroy = destroy;
    if (start(store, asked, stands, score, &error) != STATUS_OK) {
        score->job.error = error;
        look_job_fail(store, &score->job, score->looks, score->item_count + score->option_count);
    }
    memory_free(stands);
}
