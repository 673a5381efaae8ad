#include "session/compare.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "sample/divergence.h"
#include "session/answer.h"
#include "session/casting.h"
#include "session/catalog.h"
#include "session/look.h"

/* A token of content on the path that has something before it in every context. */
struct compared_token {
    uint64_t node;
    uint32_t offset;
    uint32_t speaker;
    uint32_t id;
};

/* A persona that looks. */
struct viewer {
    uint64_t persona;
    struct session *session; /* borrowed, or &shadow */
    struct session shadow;   /* the session with another cast, owned */
    bool has_shadow;
    struct context *context; /* acquired */
    struct look *look;       /* owned */
    struct look *rows;   /* owned: of a stretch of whole distributions, while they are compared */
    float *divergences;  /* owned; NULL unless asked for */
    uint32_t *positions; /* owned: in the context, of its tokens of content */
    uint32_t token_count;
};

struct compare {
    struct look_job job; /* first */
    uint32_t viewer_count;
    struct viewer *viewers;        /* owned */
    struct compared_token *tokens; /* owned: what all of them see */
    uint32_t token_count;
    bool has_divergences; /* are asked for */
    uint32_t begun_count; /* tokens whose rows were asked for */
    uint32_t compared_count;
    enum branch_priority priority;
    struct compared_span_view *spans;    /* owned */
    uint32_t *ids;                       /* owned: of the spans */
    struct compared_persona_view *views; /* owned */
    struct look **looks;                 /* owned array */
    struct store *store;                 /* borrowed: prompts go back to it */
};

static void release_viewer(struct store *store, struct viewer *viewer)
{
    context_release(viewer->context);
    look_destroy(viewer->look);
    look_destroy(viewer->rows);
    memory_free(viewer->divergences);
    memory_free(viewer->positions);
    if (viewer->has_shadow) {
        cast_finish(&viewer->shadow.cast, state_prompt_release, store);
    }
}

static void destroy(struct look_job *job)
{
    struct compare *compare = (struct compare *)job;

    for (uint32_t i = 0; compare->viewers != NULL && i < compare->viewer_count; i++) {
        release_viewer(compare->store, &compare->viewers[i]);
    }
    memory_free(compare->viewers);
    memory_free(compare->tokens);
    memory_free(compare->spans);
    memory_free(compare->ids);
    memory_free(compare->views);
    memory_free(compare->looks);
    memory_free(compare);
}

/* ---- the answer ---- */

static void fill_spans(const struct compare *compare, struct compare_view *out)
{
    for (uint32_t i = 0; i < compare->token_count; i++) {
        const struct compared_token *token = &compare->tokens[i];
        const bool goes_on =
            i > 0 && token[-1].node == token->node && token[-1].offset + 1 == token->offset;

        compare->ids[i] = token->id;
        if (!goes_on) {
            compare->spans[out->span_count++] = (struct compared_span_view){
                .node = token->node,
                .first = token->offset,
                .speaker = token->speaker,
                .tokens = compare->ids + i,
            };
        }
        compare->spans[out->span_count - 1].token_count++;
    }
}

static void answer(struct store *store, const struct compare *compare)
{
    struct reply reply = {.type = REPLY_COMPARE, .request = REQUEST_COMPARE};
    struct compare_view *out = &reply.u.compare;

    fill_spans(compare, out);
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        const struct viewer *viewer = &compare->viewers[v];
        struct compared_persona_view *view = &compare->views[v];
        const struct branch_output *output = &viewer->look->output;

        *view = (struct compared_persona_view){
            .persona = viewer->persona,
            .logprobs = output->logprobs,
            .entropies = output->entropies,
            .divergences = viewer->divergences,
        };
        for (uint32_t i = 0; i < compare->token_count; i++) {
            view->logprob += (double)output->logprobs[i];
        }
        view->ratio = compare->views[0].logprob - view->logprob;
    }
    out->spans = compare->spans;
    out->personas = compare->views;
    out->persona_count = compare->viewer_count;
    out->token_count = compare->token_count;
    store->settings.events.on_reply(store->settings.events.context, compare->job.to, &reply, false);
}

/* ---- whole distributions ---- */

static uint32_t vocabulary_of(const struct store *store)
{
    return tokenizer_vocabulary(store->settings.tokenizer)->token_count;
}

/* Lends a look a viewer along the next stretch, whose rows are few enough to be compared at once.
 */
static enum status begin_rows(struct store *store, struct compare *compare, struct error *error)
{
    const uint32_t width = vocabulary_of(store);
    const uint32_t most = COMPARE_ROW_VALUE_COUNT / (width * compare->viewer_count);
    const uint32_t first = compare->begun_count, left = compare->token_count - first;
    const uint32_t wanted = most > 0 ? most : 1;
    const uint32_t count = left < wanted ? left : wanted;

    compare->begun_count += count;
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        struct viewer *viewer = &compare->viewers[v];
        const uint32_t skipped = viewer->token_count - compare->token_count;
        const uint32_t *positions = viewer->positions + skipped + first;
        const struct look_query query = {
            .session = viewer->session,
            .context = viewer->context,
            .mark_count = count,
            .row_width = width,
            .priority = compare->priority,
        };

        TRY(look_create(&compare->job, &query, error, &viewer->rows));
        compare->looks[v] = viewer->rows;
        for (uint32_t i = 0; i < count; i++) {
            viewer->rows->marks[i] = (struct branch_mark){positions[i] - 1, PLAN_GIVEN_NONE};
        }
        look_cut(viewer->rows, positions[count - 1]);
    }
    TRY(look_check(store, compare->job.user, compare->viewer_count, error));
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        TRY(look_lend(store, compare->looks[v], error));
    }
    return STATUS_OK;
}

static void end_rows(struct store *store, struct compare *compare)
{
    const uint32_t width = vocabulary_of(store);
    const struct branch_output *first = &compare->viewers[0].rows->output;

    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        struct viewer *viewer = &compare->viewers[v];

        for (uint32_t i = compare->compared_count; i < compare->begun_count; i++) {
            const size_t at = (size_t)(i - compare->compared_count) * width;
            viewer->divergences[i] =
                (float)divergence_of(first->rows + at, viewer->rows->output.rows + at, width);
        }
    }
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        compare->looks[v] = NULL;
        look_destroy(compare->viewers[v].rows);
        compare->viewers[v].rows = NULL;
    }
    compare->compared_count = compare->begun_count;
}

static void on_end(struct store *store, struct look_job *job, struct look *look)
{
    struct compare *compare = (struct compare *)job;

    (void)look;
    if (job->error.status == STATUS_OK && job->lent_count > 0) {
        return;
    }
    if (job->error.status == STATUS_OK && compare->begun_count > 0) {
        end_rows(store, compare);
    }
    if (job->error.status == STATUS_OK && compare->has_divergences &&
        compare->begun_count < compare->token_count) {
        struct error error = {0};

        if (begin_rows(store, compare, &error) == STATUS_OK) {
            return;
        }
        job->error = error;
    }
    if (job->error.status != STATUS_OK) {
        look_job_fail(store, job, compare->looks, compare->viewer_count);
        return;
    }
    answer(store, compare);
    destroy(job);
}

/* ---- personas that are not in the cast ---- */

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_MEMORY, "out of memory while personas were compared");
}

/* The session with another persona in the place of `viewpoint`. Nodes, ids and lengths are its own;
 * frames are made anew, since templates may differ. */
static enum status make_shadow(struct store *store, struct session *session, uint32_t viewpoint,
                               const struct persona *persona, struct error *error,
                               struct viewer *viewer)
{
    const struct casting casting = {store, &viewer->shadow, error};

    viewer->shadow = *session;
    viewer->shadow.cast = (struct cast){.mode = session->cast.mode};
    viewer->has_shadow = true;
    viewer->session = &viewer->shadow;
    for (uint32_t i = 0; i < session->cast.count; i++) {
        if (i == viewpoint) {
            TRY(casting_add_persona(&casting, persona, NULL, 0));
        } else {
            TRY(casting_add_copy(&casting, &session->cast.members[i]));
        }
    }
    return casting_join(&casting);
}

/* ---- contexts ---- */

static enum status make_context(struct store *store, struct place place, uint32_t speaker,
                                struct viewer *viewer, struct error *error)
{
    const struct context_query query = {
        .session = viewer->session,
        .encoder = &store->encoder,
        .place = place,
        .speaker = speaker,
        .reply_tokens = 1,
    };

    return context_create(&query, error, &viewer->context);
}

/* All tokens of content in a viewer's context. `tokens` has room for all of the context. */
static enum status list_tokens(const struct request_compare *asked, struct viewer *viewer,
                               struct compared_token *tokens)
{
    const uint32_t count = context_segment_count(viewer->context);
    struct segment *segments = memory_alloc(count, sizeof(*segments));
    uint32_t at = 0;

    viewer->positions = memory_alloc(viewer->context->token_count, sizeof(uint32_t));
    if (segments == NULL || viewer->positions == NULL) {
        memory_free(segments);
        return STATUS_MEMORY;
    }
    context_segments(viewer->context, segments);
    for (uint32_t i = 0; i < count; i++) {
        const struct segment *segment = &segments[i];
        const bool is_wanted = segment->kind == SEGMENT_NODE &&
                               (!asked->has_speaker || segment->node->speaker == asked->speaker);
        const uint32_t *ids = context_segment_ids(segment);

        for (uint32_t k = 0; is_wanted && k < segment->count; k++) {
            if (at + k > 0) {
                viewer->positions[viewer->token_count] = at + k;
                tokens[viewer->token_count++] = (struct compared_token){
                    segment->node->id, segment->from + k, segment->node->speaker, ids[k]};
            }
        }
        at += segment->count;
    }
    memory_free(segments);
    return STATUS_OK;
}

/* The path is the same for all, so what all see is as much of its end as the least of them sees. */
static enum status align(const struct request_compare *asked, struct compare *compare,
                         struct error *error)
{
    uint32_t most = 0;

    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        const uint32_t count = compare->viewers[v].context->token_count;
        most = count > most ? count : most;
    }
    compare->tokens = memory_alloc(most, sizeof(*compare->tokens));
    if (compare->tokens == NULL) {
        return out_of_memory(error);
    }
    compare->token_count = UINT32_MAX;
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        struct viewer *viewer = &compare->viewers[v];

        if (list_tokens(asked, viewer, compare->tokens) != STATUS_OK) {
            return out_of_memory(error);
        }
        if (viewer->token_count < compare->token_count) {
            compare->token_count = viewer->token_count;
        }
    }
    if (compare->token_count == 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "there is nothing to compare on the way to this position");
    }
    if (compare->token_count > COMPARE_TOKEN_COUNT_MAX) {
        return error_set_limit(error, "COMPARE_TOKEN_COUNT_MAX", COMPARE_TOKEN_COUNT_MAX,
                               "the path has %u tokens to compare; say which speaker's, or take a "
                               "shorter one",
                               compare->token_count);
    }
    /* `tokens` holds the last viewer's list: its end is the common part. */
    const struct viewer *last = &compare->viewers[compare->viewer_count - 1];
    memmove(compare->tokens, compare->tokens + (last->token_count - compare->token_count),
            compare->token_count * sizeof(*compare->tokens));
    return STATUS_OK;
}

/* The context is cut behind the last token that is compared: its own distribution is not asked for.
 */
static enum status make_look(const struct request_compare *asked, struct compare *compare,
                             struct viewer *viewer, struct error *error)
{
    const uint32_t count = compare->token_count;
    const uint32_t *positions = viewer->positions + (viewer->token_count - count);
    const struct look_query query = {
        .session = viewer->session,
        .context = viewer->context,
        .mark_count = count,
        .priority = asked->priority,
    };

    TRY(look_create(&compare->job, &query, error, &viewer->look));
    for (uint32_t i = 0; i < count; i++) {
        viewer->look->marks[i] = (struct branch_mark){positions[i] - 1, compare->tokens[i].id};
    }
    look_cut(viewer->look, positions[count - 1]);
    if (asked->divergence) {
        viewer->divergences = memory_alloc(count, sizeof(*viewer->divergences));
    }
    return !asked->divergence || viewer->divergences != NULL ? STATUS_OK : out_of_memory(error);
}

static enum status allocate(struct compare *compare, struct error *error)
{
    compare->spans = memory_alloc(compare->token_count, sizeof(*compare->spans));
    compare->ids = memory_alloc(compare->token_count, sizeof(*compare->ids));
    compare->views = memory_alloc(compare->viewer_count, sizeof(*compare->views));
    compare->looks = memory_alloc(compare->viewer_count, sizeof(struct look *));
    return compare->spans != NULL && compare->ids != NULL && compare->views != NULL &&
                   compare->looks != NULL
               ? STATUS_OK
               : out_of_memory(error);
}

static enum status open_viewers(struct store *store, const struct request_compare *asked,
                                struct compare *compare, struct error *error)
{
    struct session *session = NULL;
    struct place place;

    TRY(state_session_open(store, asked->session, compare->job.uid, error, &session));
    TRY(look_check_session(session, error));
    TRY(state_place(store, session, asked->has_position, asked->position, error, &place));
    const uint32_t speaker = tree_turn_speaker(place);
    if (speaker == CAST_START) {
        return error_set(error, STATUS_CONFLICT, "nothing was said at the start of a session");
    }
    const uint32_t viewpoint = cast_viewpoint(&session->cast, speaker);
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        struct viewer *viewer = &compare->viewers[v];
        struct persona *persona = NULL;

        viewer->session = session;
        viewer->persona = session->cast.members[viewpoint].prompt->persona->id;
        if (asked->persona_count > 0 && asked->personas[v] != viewer->persona) {
            TRY(catalog_find(store, asked->personas[v], bytes_of(NULL, 0), compare->job.uid, error,
                             &persona));
            TRY(make_shadow(store, session, viewpoint, persona, error, viewer));
            viewer->persona = persona->id;
        }
        TRY(make_context(store, place, speaker, viewer, error));
    }
    return STATUS_OK;
}

static enum status start(struct store *store, const struct request_compare *asked,
                         struct compare *compare, struct error *error)
{
    compare->viewers = memory_alloc(compare->viewer_count, sizeof(*compare->viewers));
    if (compare->viewers == NULL) {
        return out_of_memory(error);
    }
    TRY(open_viewers(store, asked, compare, error));
    TRY(align(asked, compare, error));
    TRY(allocate(compare, error));
    TRY(state_user(store, compare->job.uid, error, &compare->job.user));
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        TRY(make_look(asked, compare, &compare->viewers[v], error));
        compare->looks[v] = compare->viewers[v].look;
    }
    TRY(look_check(store, compare->job.user, compare->viewer_count, error));
    for (uint32_t v = 0; v < compare->viewer_count; v++) {
        TRY(look_lend(store, compare->looks[v], error));
    }
    return STATUS_OK;
}

void compare_execute(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_compare *asked = &request->u.compare;
    struct compare *compare = memory_alloc(1, sizeof(*compare));
    struct error error = {0};

    if (compare == NULL) {
        out_of_memory(&error);
        answer_error(store, to, request->type, &error);
        return;
    }
    compare->store = store;
    compare->viewer_count = asked->persona_count > 0 ? asked->persona_count : 1;
    compare->has_divergences = asked->divergence;
    compare->priority = asked->priority;
    compare->job = (struct look_job){
        .to = to,
        .type = request->type,
        .uid = request->uid,
        .on_end = on_end,
        .destroy = destroy,
    };
    if (start(store, asked, compare, &error) != STATUS_OK) {
        compare->job.error = error;
        look_job_fail(store, &compare->job, compare->looks,
                      compare->looks != NULL ? compare->viewer_count : 0);
    }
}
