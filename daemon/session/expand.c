#include "session/expand.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/expansion.h"
#include "session/look.h"

enum { REPLY_NODE_COUNT = 512 };

static_assert((uint64_t)REPLY_NODE_COUNT * (TOKEN_BYTES_MAX + 64) < FRAME_BODY_BYTES_MAX,
              "a stretch of a level fits a frame, whatever its tokens show");

struct expand {
    struct look_job job;         /* first */
    struct expansion *expansion; /* the store's, and going */
    struct context *context;     /* acquired */
    uint32_t *ids;               /* owned: the context's, for all looks */
    uint32_t depth_max, width;
    double joint_min;       /* logarithm of the least joint probability */
    bool is_cut_by_context; /* depth_max is what the context's room leaves */
    bool is_ending;         /* nobody waits, or it was cancelled: nothing more is lent */
    bool has_left_unlikely; /* nodes were left out for that */
    bool has_left_many;     /* and for the number of nodes */
    enum branch_priority priority;

    uint32_t depth;     /* of the frontier, whose nodes grow now; 0: the place */
    uint32_t *frontier; /* owned: their numbers, ascending */
    uint32_t frontier_count;
    uint32_t begun_count;         /* the first of them, whose looks were lent */
    struct expansion_node *found; /* owned: [frontier_count][width], behind each of them; TOKEN_NONE
                                     where there is none */
    struct look
        *looks[EXPAND_LOOK_COUNT_MAX]; /* owned: of frontier i at i % EXPAND_LOOK_COUNT_MAX */
};

static void destroy(struct look_job *job)
{
    struct expand *expand = (struct expand *)job;

    for (uint32_t i = 0; i < EXPAND_LOOK_COUNT_MAX; i++) {
        look_destroy(expand->looks[i]);
    }
    context_release(expand->context);
    memory_free(expand->ids);
    memory_free(expand->frontier);
    memory_free(expand->found);
    memory_free(expand);
}

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_MEMORY, "out of memory while continuations were expanded");
}

/* ---- one node of the frontier ---- */

static enum status lend(struct store *store, struct expand *expand, uint32_t at,
                        struct error *error)
{
    struct look **slot = &expand->looks[at % EXPAND_LOOK_COUNT_MAX];
    struct look_query query = {
        .session = state_session_find(store, expand->expansion->session_id),
        .context = expand->context,
        .ids = expand->ids,
        .mark_count = 1,
        .top_count = expand->width,
        .priority = expand->priority,
    };
    struct id_list path = {0};
    enum status status;

    if (expansion_path(expand->expansion, expand->frontier[at], &path) != STATUS_OK) {
        return out_of_memory(error);
    }
    query.more = path.ids;
    query.more_count = path.count;
    status = look_create(&expand->job, &query, error, slot);
    id_list_finish(&path);
    if (status == STATUS_OK) {
        (*slot)->index = at;
        (*slot)->marks[0] =
            (struct branch_mark){(*slot)->spec.context_token_count - 1, PLAN_GIVEN_NONE};
        status = look_lend(store, *slot, error);
    }
    if (status != STATUS_OK) {
        look_destroy(*slot);
        *slot = NULL;
    }
    return status;
}

static void take(const struct store *store, const struct expand *expand, const struct look *look)
{
    const struct branch_output *output = &look->output;
    const uint32_t parent = expand->frontier[look->index];
    const double before = parent == 0 ? 0.0 : expand->expansion->nodes[parent - 1].joint_logprob;
    struct expansion_node *found = expand->found + (size_t)look->index * expand->width;

    for (uint32_t i = 0; i < output->top_count; i++) {
        found[i] = (struct expansion_node){
            .joint_logprob = before + (double)output->tops[i].logprob,
            .parent = parent,
            .token = output->tops[i].token,
            .logprob = output->tops[i].logprob,
            .entropy = output->entropies[0],
            .is_end = tokenizer_is_end(store->settings.tokenizer, output->tops[i].token),
        };
    }
}

/* ---- replies ---- */

static struct expanded_node_view view_of(const struct store *store,
                                         const struct expansion_node *node)
{
    return (struct expanded_node_view){
        .parent = node->parent,
        .token = node->token,
        .piece = tokenizer_token_bytes(store->settings.tokenizer, node->token),
        .logprob = node->logprob,
        .entropy = node->entropy,
        .joint_logprob = node->joint_logprob,
        .is_end = node->is_end,
    };
}

/* A level's nodes, from entry `first` on. `end`: of the whole expansion, or NULL. */
static void report(struct store *store, const struct expand *expand, uint32_t first,
                   const enum expand_end *end)
{
    const struct expansion *expansion = expand->expansion;
    struct reply reply = {.type = REPLY_EXPAND, .request = REQUEST_EXPAND};
    struct expand_view *view = &reply.u.expand;
    struct expanded_node_view nodes[REPLY_NODE_COUNT];
    uint32_t at = first;

    do {
        const uint32_t left = expansion->node_count - at;
        const uint32_t count = left < REPLY_NODE_COUNT ? left : REPLY_NODE_COUNT;

        for (uint32_t i = 0; i < count; i++) {
            nodes[i] = view_of(store, &expansion->nodes[at + i]);
        }
        *view = (struct expand_view){
            .expansion = expansion->id,
            .level = expand->depth,
            .first = at + 1,
            .nodes = nodes,
            .new_count = count,
            .node_count = expansion->node_count,
            .growing_count = expand->frontier_count,
            .context_token_count = expand->context->token_count,
            .has_end = end != NULL && count == left,
            .end = end != NULL ? *end : EXPAND_END_DEPTH,
        };
        at += count;
        store->settings.events.on_reply(store->settings.events.context, expand->job.to, &reply,
                                        !view->has_end);
    } while (at < expansion->node_count);
}

/* The last reply, with the nodes from entry `first` on. */
static void conclude(struct store *store, struct expand *expand, uint32_t first,
                     enum expand_end end)
{
    expand->frontier_count = 0;
    report(store, expand, first, &end);
    expansion_rest(store, expand->expansion);
    destroy(&expand->job);
}

/* What was lent is asked to end; with the last of it the job is answered with its error. */
static void fail(struct store *store, struct expand *expand)
{
    if (expand->job.lent_count == 0) {
        expansion_forget(store, expand->expansion);
    }
    look_job_fail(store, &expand->job, expand->looks, EXPAND_LOOK_COUNT_MAX);
}

/* ---- levels ---- */

/* More of the frontier, as far as there is room. False: it failed. */
static bool go_on(struct store *store, struct expand *expand)
{
    struct error error = {0};
    enum status status = STATUS_OK;

    engine_hold(store->settings.engine, true);
    while (status == STATUS_OK && expand->begun_count < expand->frontier_count &&
           expand->looks[expand->begun_count % EXPAND_LOOK_COUNT_MAX] == NULL) {
        status = lend(store, expand, expand->begun_count, &error);
        expand->begun_count += status == STATUS_OK;
    }
    engine_hold(store->settings.engine, false);
    if (status == STATUS_OK || (status == STATUS_LIMIT && expand->job.lent_count > 0)) {
        return true; /* what ends next makes room */
    }
    expand->job.error = error;
    fail(store, expand);
    return false;
}

/* Takes the numbers in `frontier` over. */
static enum status begin_level(struct expand *expand, uint32_t *frontier, uint32_t count,
                               struct error *error)
{
    struct expansion_node *found =
        memory_alloc((size_t)count * expand->width, sizeof(*expand->found));

    memory_free(expand->frontier);
    memory_free(expand->found);
    expand->frontier = frontier;
    expand->frontier_count = count;
    expand->begun_count = 0;
    expand->found = found;
    if (frontier == NULL || found == NULL) {
        return out_of_memory(error);
    }
    for (uint32_t i = 0; i < count * expand->width; i++) {
        found[i].token = TOKEN_NONE;
    }
    return STATUS_OK;
}

/* Likelier first; what is equally likely in the order in which it was found. */
static int compare_found(const void *left, const void *right)
{
    const struct expansion_node *const *a = left;
    const struct expansion_node *const *b = right;

    if ((*a)->joint_logprob != (*b)->joint_logprob) {
        return (*a)->joint_logprob > (*b)->joint_logprob ? -1 : 1;
    }
    return *a < *b ? -1 : 1;
}

/* Leaves those that are likely enough, and of those the likeliest that there is room for. */
static enum status choose(struct expand *expand, struct error *error)
{
    const uint32_t count = expand->frontier_count * expand->width;
    const uint32_t room = expand->expansion->node_count_max - expand->expansion->node_count;
    struct expansion_node **order = memory_alloc(count, sizeof(struct expansion_node *));
    uint32_t likely_count = 0;

    if (order == NULL) {
        return out_of_memory(error);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct expansion_node *node = &expand->found[i];

        if (node->token != TOKEN_NONE && node->joint_logprob >= expand->joint_min) {
            order[likely_count++] = node;
        } else if (node->token != TOKEN_NONE) {
            node->token = TOKEN_NONE;
            expand->has_left_unlikely = true;
        }
    }
    if (likely_count > room) {
        expand->has_left_many = true;
        qsort(order, likely_count, sizeof(struct expansion_node *), compare_found);
    }
    for (uint32_t i = room; i < likely_count; i++) {
        order[i]->token = TOKEN_NONE;
    }
    memory_free(order);
    return STATUS_OK;
}

static void append_chosen(const struct expand *expand)
{
    struct expansion *expansion = expand->expansion;

    for (uint32_t i = 0; i < expand->frontier_count * expand->width; i++) {
        if (expand->found[i].token != TOKEN_NONE) {
            expansion->nodes[expansion->node_count++] = expand->found[i];
        }
    }
}

/* Those of the new nodes that do not end the turn. */
static uint32_t list_growing(const struct expansion *expansion, uint32_t first, uint32_t *out)
{
    uint32_t count = 0;

    for (uint32_t i = first; i < expansion->node_count; i++) {
        if (!expansion->nodes[i].is_end) {
            out[count++] = i + 1;
        }
    }
    return count;
}

/* Whether there is nothing more to grow, and why. */
static bool has_ended(const struct expand *expand, uint32_t growing_count, enum expand_end *end)
{
    const struct expansion *expansion = expand->expansion;

    if (expand->has_left_many) {
        *end = EXPAND_END_NODES;
    } else if (growing_count == 0) {
        *end = expand->has_left_unlikely ? EXPAND_END_PROBABILITY : EXPAND_END_DEPTH;
    } else if (expand->depth == expand->depth_max) {
        *end = expand->is_cut_by_context ? EXPAND_END_CONTEXT : EXPAND_END_DEPTH;
    } else if (expansion->node_count == expansion->node_count_max) {
        *end = EXPAND_END_NODES;
    } else {
        return false;
    }
    return true;
}

/* All of the frontier is there: its children become nodes and go out, and the next level begins. */
static void finish_level(struct store *store, struct expand *expand)
{
    const uint32_t first = expand->expansion->node_count;
    enum expand_end end = EXPAND_END_DEPTH;
    uint32_t *growing = NULL;
    uint32_t growing_count;

    if (choose(expand, &expand->job.error) != STATUS_OK) {
        fail(store, expand);
        return;
    }
    append_chosen(expand);
    expand->depth++;
    growing = memory_alloc(expand->expansion->node_count - first, sizeof(*growing));
    if (growing == NULL) {
        out_of_memory(&expand->job.error);
        fail(store, expand);
        return;
    }
    growing_count = list_growing(expand->expansion, first, growing);
    if (has_ended(expand, growing_count, &end)) {
        memory_free(growing);
        conclude(store, expand, first, end);
    } else if (begin_level(expand, growing, growing_count, &expand->job.error) != STATUS_OK) {
        fail(store, expand);
    } else {
        report(store, expand, first, NULL);
        (void)go_on(store, expand);
    }
}

static bool is_awaited(const struct store *store, const struct expand *expand)
{
    const struct session_events *events = &store->settings.events;

    return events->is_awaited == NULL || events->is_awaited(events->context, expand->job.to);
}

static void end_early(struct store *store, struct expand *expand)
{
    for (uint32_t i = 0; i < EXPAND_LOOK_COUNT_MAX && !expand->is_ending; i++) {
        if (expand->looks[i] != NULL) {
            look_cancel(store, expand->looks[i]);
        }
    }
    expand->is_ending = true;
    if (expand->job.lent_count == 0) {
        conclude(store, expand, expand->expansion->node_count, EXPAND_END_CANCELLED);
    }
}

static void on_end(struct store *store, struct look_job *job, struct look *look)
{
    struct expand *expand = (struct expand *)job;
    const bool is_wanted = is_awaited(store, expand);

    if (job->error.status == STATUS_OK) {
        take(store, expand, look);
    }
    expand->looks[look->index % EXPAND_LOOK_COUNT_MAX] = NULL;
    look_destroy(look);
    expand->expansion->is_abandoned = expand->expansion->is_abandoned || !is_wanted;
    if (!is_wanted || (job->is_cancelled && !job->is_failing)) {
        end_early(store, expand);
    } else if (job->error.status != STATUS_OK) {
        fail(store, expand);
    } else if (expand->begun_count < expand->frontier_count) {
        (void)go_on(store, expand);
    } else if (job->lent_count == 0) {
        finish_level(store, expand);
    }
}

/* ---- the request ---- */

/* Where it stands, and how far it may grow there. */
static enum status stand(struct store *store, const struct request_expand *asked,
                         struct expand *expand, struct error *error)
{
    struct segment *segments;
    struct look_stand stand;
    uint32_t count, at = 0, room;

    TRY(look_stand_open(store, expand->job.uid, &asked->place, error, &stand));
    TRY(state_user(store, expand->job.uid, error, &expand->job.user));
    TRY(look_stand_context(store, &stand, error, &expand->context));
    count = context_segment_count(expand->context);
    segments = memory_alloc(count, sizeof(*segments));
    expand->ids = memory_alloc(expand->context->token_count, sizeof(*expand->ids));
    if (segments == NULL || expand->ids == NULL) {
        memory_free(segments);
        return out_of_memory(error);
    }
    context_segments(expand->context, segments);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(expand->ids + at, context_segment_ids(&segments[i]),
               segments[i].count * sizeof(*expand->ids));
        at += segments[i].count;
    }
    memory_free(segments);
    if (expand->context->token_count >= stand.session->context_tokens) {
        return error_set_limit(error, "context_tokens", stand.session->context_tokens,
                               "the context at that place has %u tokens: no room to expand in",
                               expand->context->token_count);
    }
    room = stand.session->context_tokens - expand->context->token_count;
    expand->is_cut_by_context = asked->depth > room;
    expand->depth_max = expand->is_cut_by_context ? room : asked->depth;
    TRY(expansion_create(store, expand->job.user, expand->job.to.connection, asked->node_count_max,
                         error, &expand->expansion));
    expand->expansion->session_id = stand.session->id;
    expand->expansion->position = (struct position){stand.place.node->id, stand.place.offset};
    expand->expansion->speaker = stand.speaker;
    expand->expansion->opens_turn = stand.opens_turn;
    return STATUS_OK;
}

static enum status start(struct store *store, const struct request_expand *asked,
                         struct expand *expand, struct error *error)
{
    uint32_t *frontier;

    TRY(stand(store, asked, expand, error));
    expand->width = asked->width;
    expand->joint_min = log(asked->probability_min);
    expand->priority = asked->priority;
    frontier = memory_alloc(1, sizeof(*frontier)); /* number 0: the place */
    TRY(begin_level(expand, frontier, 1, error));
    TRY(lend(store, expand, 0, error));
    expand->begun_count = 1;
    return STATUS_OK;
}

void expand_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct expand *expand = memory_alloc(1, sizeof(*expand));
    struct error error = {0};

    if (expand == NULL) {
        out_of_memory(&error);
        answer_error(store, to, request->type, &error);
        return;
    }
    expand->job = (struct look_job){
        .to = to,
        .type = request->type,
        .uid = request->uid,
        .on_end = on_end,
        .destroy = destroy,
    };
    if (start(store, &request->u.expand, expand, &error) != STATUS_OK) {
        if (expand->expansion != NULL) {
            expansion_forget(store, expand->expansion);
        }
        answer_error(store, to, request->type, &error);
        destroy(&expand->job);
    }
}
