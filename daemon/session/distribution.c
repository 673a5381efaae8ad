#include "session/distribution.h"

#include "base/memory.h"
#include "session/answer.h"
#include "session/look.h"

struct distribution {
    struct look_job job; /* first */
    struct look *look;   /* owned; its last mark is of no token */
};

static void destroy(struct look_job *job)
{
    struct distribution *distribution = (struct distribution *)job;

    look_destroy(distribution->look);
    memory_free(distribution);
}

static void answer(struct store *store, const struct distribution *distribution)
{
    const struct branch_output *output = &distribution->look->output;
    const uint32_t last = output->token_count_max - 1;
    struct reply reply = {.type = REPLY_DISTRIBUTION, .request = REQUEST_DISTRIBUTION};
    struct distribution_view *view = &reply.u.distribution;
    struct bytes pieces[TOP_COUNT_MAX];

    view->entropy = output->entropies[last];
    view->tops = output->tops == NULL ? NULL : output->tops + (size_t)last * output->top_count;
    view->top_pieces = pieces;
    view->logprobs = output->logprobs;
    view->logprob_count = last;
    view->context_token_count = distribution->look->spec.context_token_count;
    while (view->top_count < output->top_count && view->tops[view->top_count].token != TOKEN_NONE) {
        pieces[view->top_count] =
            tokenizer_token_bytes(store->settings.tokenizer, view->tops[view->top_count].token);
        view->top_count++;
    }
    store->settings.events.on_reply(store->settings.events.context, distribution->job.to, &reply,
                                    false);
}

static void on_end(struct store *store, struct look_job *job, struct look *look)
{
    (void)look;
    if (job->error.status != STATUS_OK) {
        answer_error(store, job->to, job->type, &job->error);
    } else {
        answer(store, (struct distribution *)job);
    }
    destroy(job);
}

static enum status start(struct store *store, const struct request_distribution *asked,
                         struct distribution *distribution, struct error *error)
{
    struct look_stand stand;
    struct context *context = NULL;
    enum status status;

    TRY(look_stand_open(store, distribution->job.uid, &asked->place, error, &stand));
    for (uint32_t i = 0; i < asked->token_count; i++) {
        TRY(look_check_token(store, asked->tokens[i], error));
    }
    TRY(state_user(store, distribution->job.uid, error, &distribution->job.user));
    TRY(look_stand_context(store, &stand, error, &context));
    const struct look_query query = {
        .session = stand.session,
        .context = context,
        .mark_count = asked->token_count + 1,
        .top_count = asked->top_count,
        .priority = asked->priority,
    };
    status = look_create(&distribution->job, &query, error, &distribution->look);
    for (uint32_t i = 0; status == STATUS_OK && i <= asked->token_count; i++) {
        distribution->look->marks[i] = (struct branch_mark){
            context->token_count - 1, i < asked->token_count ? asked->tokens[i] : PLAN_GIVEN_NONE};
    }
    context_release(context);
    return status == STATUS_OK ? look_lend(store, distribution->look, error) : status;
}

void distribution_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct distribution *distribution = memory_alloc(1, sizeof(*distribution));
    struct error error = {0};
    enum status status;

    if (distribution == NULL) {
        error_set(&error, STATUS_MEMORY, "out of memory for a distribution");
        answer_error(store, to, request->type, &error);
        return;
    }
    distribution->job = (struct look_job){
        .to = to,
        .type = request->type,
        .uid = request->uid,
        .on_end = on_end,
        .destroy = destroy,
    };
    status = start(store, &request->u.distribution, distribution, &error);
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        destroy(&distribution->job);
    }
}
