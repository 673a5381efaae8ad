#include "session/verify.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/look.h"

enum { PROGRESS_MS = 200 };

struct verify {
    struct look_job job; /* first */
    uint64_t *nodes;     /* owned: ids, in the order in which they are computed */
    uint32_t node_count;
    uint32_t next;                             /* the first one that is not begun */
    struct look *looks[VERIFY_LOOK_COUNT_MAX]; /* owned */
    struct verify_view seen;                   /* counts so far */
    uint64_t reported_ns;                      /* when the last reply went out */
    uint32_t reported_count;                   /* nodes that were told in all */
    bool is_ending;
};

static void destroy(struct look_job *job)
{
    struct verify *verify = (struct verify *)job;

    for (uint32_t i = 0; i < VERIFY_LOOK_COUNT_MAX; i++) {
        look_destroy(verify->looks[i]);
    }
    memory_free(verify->nodes);
    memory_free(verify);
}

/* ---- comparing ---- */

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* How far apart, an infinity on one side alone counting as infinitely far. */
static float distance(float a, float b)
{
    return bits_of(a) == bits_of(b) ? 0.0f : fabsf(a - b);
}

static bool is_same_top(const struct sample_top *a, const struct sample_top *b, uint32_t count)
{
    return count == 0 || memcmp(a, b, count * sizeof(*a)) == 0;
}

/* What differs first at one index, in the order of enum verified_number. */
static enum verified_number compare_at(const struct branch_output *stored,
                                       const struct branch_output *computed, uint32_t i,
                                       uint32_t *stored_bits, uint32_t *computed_bits)
{
    const uint32_t tops = stored->top_count;
    const uint32_t pairs[][2] = {
        {stored->tokens[i], computed->tokens[i]},
        {bits_of(stored->logprobs[i]), bits_of(computed->logprobs[i])},
        {bits_of(stored->logprobs_sampler[i]), bits_of(computed->logprobs_sampler[i])},
        {bits_of(stored->entropies[i]), bits_of(computed->entropies[i])},
    };

    for (uint32_t k = 0; k < sizeof(pairs) / sizeof(pairs[0]); k++) {
        if (pairs[k][0] != pairs[k][1]) {
            *stored_bits = pairs[k][0];
            *computed_bits = pairs[k][1];
            return (enum verified_number)(VERIFIED_TOKEN + k);
        }
    }
    CHECK(tops == computed->top_count);
    if (tops > 0 &&
        !is_same_top(stored->tops + (size_t)i * tops, computed->tops + (size_t)i * tops, tops)) {
        return VERIFIED_ALTERNATIVES;
    }
    return VERIFIED_NOTHING;
}

bool verify_compare(const struct branch_output *stored, uint32_t count,
                    const struct branch_output *computed, uint32_t *other_tokens,
                    struct verified_node_view *out)
{
    out->number = VERIFIED_NOTHING;
    out->other_tokens = other_tokens;
    out->other_token_count = 0;
    out->difference_max = 0;
    for (uint32_t i = 0; i < count; i++) {
        const float apart = distance(stored->logprobs[i], computed->logprobs[i]);
        uint32_t stored_bits = 0, computed_bits = 0;
        const enum verified_number number =
            compare_at(stored, computed, i, &stored_bits, &computed_bits);

        if (number != VERIFIED_NOTHING && out->number == VERIFIED_NOTHING) {
            out->number = number;
            out->index = i;
            out->stored_bits = stored_bits;
            out->computed_bits = computed_bits;
        }
        /* Written so that a NaN stays. */
        out->difference_max = apart <= out->difference_max ? out->difference_max : apart;
        if (stored->tokens[i] != computed->tokens[i] &&
            out->other_token_count < VERIFY_OTHER_TOKEN_COUNT_MAX) {
            other_tokens[out->other_token_count++] = i;
        }
    }
    return out->number == VERIFIED_NOTHING;
}

/* ---- replies ---- */

static void report(struct store *store, struct verify *verify,
                   const struct verified_node_view *node, bool more)
{
    struct reply reply = {.type = REPLY_VERIFY, .request = REQUEST_VERIFY};

    reply.u.verify = verify->seen;
    if (node != NULL && verify->reported_count < VERIFY_NODE_COUNT_MAX) {
        reply.u.verify.nodes = node;
        reply.u.verify.new_count = 1;
        verify->reported_count++;
    }
    verify->reported_ns = clock_monotonic_ns();
    store->settings.events.on_reply(store->settings.events.context, verify->job.to, &reply, more);
}

static bool is_awaited(const struct store *store, const struct verify *verify)
{
    const struct session_events *events = &store->settings.events;

    return events->is_awaited == NULL || events->is_awaited(events->context, verify->job.to);
}

/* ---- one node ---- */

static enum status lend_node(struct store *store, struct verify *verify, struct node *node,
                             uint32_t at, struct error *error)
{
    const struct node_sampled *sampled = node->sampled;
    const uint32_t count = sampled->event.sampled_count;
    const uint32_t context_count = sampled->context->token_count;
    const struct look_query query = {
        .session = node->session,
        .context = sampled->context,
        .more = sampled->output.tokens,
        .more_count = count - 1,
        .mark_count = count,
        .top_count = sampled->output.top_count,
        .priority = BRANCH_BACKGROUND,
        .is_secret = true,
        .sampler = sampled->sampler,
        .seed = sampled->seed,
        .node = node->id,
    };

    TRY(look_check_session(node->session, error));
    TRY(look_create(&verify->job, &query, error, &verify->looks[at]));
    verify->looks[at]->index = at;
    for (uint32_t i = 0; i < count; i++) {
        verify->looks[at]->marks[i] =
            (struct branch_mark){context_count - 1 + i, sampled->output.tokens[i]};
    }
    return look_lend(store, verify->looks[at], error);
}

/* A node that has something to compare, deleted ones too. NULL: it was purged, or has nothing. */
static struct node *find_node(const struct store *store, uint64_t id)
{
    struct node *node = table_find(&store->nodes, id);

    return node != NULL && !node->is_purged && node->sampled != NULL && node->is_finish_visible &&
                   node->sampled->event.sampled_count > 0
               ? node
               : NULL;
}

static void fail_node(struct store *store, struct verify *verify, uint64_t id,
                      const struct error *error)
{
    const struct node *node = table_find(&store->nodes, id);
    const struct verified_node_view view = {
        .node = id,
        .session = node != NULL ? node->session->id : 0,
        .error = *error,
    };

    verify->seen.failed_count++;
    report(store, verify, &view, true);
}

/* Begins nodes until `looks` is full. A node that cannot be begun is told and passed over. */
static void go_on(struct store *store, struct verify *verify)
{
    for (uint32_t at = 0; at < VERIFY_LOOK_COUNT_MAX && !verify->is_ending; at++) {
        while (verify->looks[at] == NULL && verify->next < verify->node_count) {
            const uint64_t id = verify->nodes[verify->next++];
            struct node *node = find_node(store, id);
            struct error error = {0};

            if (node == NULL) {
                verify->seen.node_count--;
                continue;
            }
            if (lend_node(store, verify, node, at, &error) != STATUS_OK) {
                look_destroy(verify->looks[at]);
                verify->looks[at] = NULL;
                fail_node(store, verify, id, &error);
            }
        }
    }
}

static void finish_node(struct store *store, struct verify *verify, const struct look *look)
{
    const struct node *node = table_find(&store->nodes, look->spec.node);
    const uint32_t count = look->spec.mark_count;
    uint32_t other_tokens[VERIFY_OTHER_TOKEN_COUNT_MAX];
    struct verified_node_view view = {.node = look->spec.node};

    if (node == NULL || node->is_purged) {
        verify->seen.node_count--;
        return;
    }
    view.session = node->session->id;
    view.is_foreign = node->sampled->is_foreign;
    verify->seen.token_count += count;
    const bool is_equal =
        verify_compare(&node->sampled->output, count, &look->output, other_tokens, &view);
    verify->seen.foreign_count += view.is_foreign;
    verify->seen.equal_count += is_equal && !view.is_foreign;
    verify->seen.different_count += !is_equal && !view.is_foreign;
    if (!is_equal || view.is_foreign) {
        report(store, verify, &view, true);
    }
}

static void on_end(struct store *store, struct look_job *job, struct look *look)
{
    struct verify *verify = (struct verify *)job;
    const struct error failure = job->error;

    verify->looks[look->index] = NULL;
    job->error = (struct error){0};
    verify->is_ending =
        verify->is_ending || store->is_stopping || job->is_cancelled || !is_awaited(store, verify);
    if (failure.status == STATUS_OK) {
        finish_node(store, verify, look);
    } else if (failure.status == STATUS_STOPPING || failure.status == STATUS_CANCELLED) {
        verify->is_ending = true;
    } else {
        fail_node(store, verify, look->spec.node, &failure);
    }
    look_destroy(look);
    go_on(store, verify);
    for (uint32_t i = 0; i < VERIFY_LOOK_COUNT_MAX && verify->is_ending; i++) {
        if (verify->looks[i] != NULL) {
            look_cancel(store, verify->looks[i]);
        }
    }
    if (job->lent_count > 0) {
        if (clock_monotonic_ns() - verify->reported_ns > (uint64_t)PROGRESS_MS * 1000000) {
            report(store, verify, NULL, true);
        }
        return;
    }
    if (verify->is_ending) {
        struct error error = {0};

        error_set(&error, job->is_cancelled ? STATUS_CANCELLED : STATUS_STOPPING,
                  "%s: not all nodes were verified",
                  job->is_cancelled ? "it was cancelled" : "the daemon is stopping");
        answer_error(store, job->to, job->type, &error);
    } else {
        report(store, verify, NULL, false);
    }
    destroy(job);
}

/* ---- which nodes ---- */

static enum status push(struct verify *verify, uint32_t *capacity, const struct node *node)
{
    if (verify->node_count == *capacity) {
        const uint32_t wider = *capacity == 0 ? 64 : 2 * *capacity;
        uint64_t *nodes = memory_resize(verify->nodes, wider, sizeof(*nodes));

        if (nodes == NULL) {
            return STATUS_MEMORY;
        }
        verify->nodes = nodes;
        *capacity = wider;
    }
    verify->nodes[verify->node_count++] = node->id;
    return STATUS_OK;
}

static enum status push_if_sampled(const struct store *store, struct verify *verify,
                                   uint32_t *capacity, const struct node *node)
{
    return find_node(store, node->id) != NULL ? push(verify, capacity, node) : STATUS_OK;
}

static enum status push_session(const struct store *store, struct verify *verify,
                                uint32_t *capacity, struct session *session)
{
    struct node *node = tree_next(&session->root, &session->root, true);

    for (; node != NULL; node = tree_next(&session->root, node, true)) {
        TRY(push_if_sampled(store, verify, capacity, node));
    }
    return STATUS_OK;
}

static enum status push_path(const struct store *store, struct verify *verify, uint32_t *capacity,
                             struct node *node)
{
    struct tree_path path = {0};
    enum status status = tree_path_create((struct place){node, 0}, &path);

    for (uint32_t i = 0; status == STATUS_OK && i < path.count; i++) {
        status = push_if_sampled(store, verify, capacity, path.steps[i].node);
    }
    tree_path_finish(&path);
    return status;
}

static enum status push_all(const struct store *store, struct verify *verify, uint32_t *capacity)
{
    for (uint32_t i = 0; i < store->sessions.count; i++) {
        struct session *session = store->sessions.items[i];

        if (session->owner_uid == verify->job.uid && session->is_open && !session->is_deleted) {
            TRY(push_session(store, verify, capacity, session));
        }
    }
    return STATUS_OK;
}

static enum status check_node(const struct node *node, struct error *error)
{
    if (node->sampled == NULL) {
        return error_set(error, STATUS_BAD_INPUT,
                         "node %llu was given, not sampled: there is nothing to compute again",
                         (unsigned long long)node->id);
    }
    if (!node->is_finish_visible) {
        return error_set(error, STATUS_CONFLICT,
                         "node %llu is still being generated: verify it when it has ended",
                         (unsigned long long)node->id);
    }
    return STATUS_OK;
}

static enum status collect(struct store *store, const struct request_verify *asked,
                           struct verify *verify, struct error *error)
{
    const uint32_t uid = verify->job.uid;
    struct session *session = NULL;
    struct node *node = NULL;
    uint32_t capacity = 0;
    enum status status;

    if (asked->all) {
        status = push_all(store, verify, &capacity);
    } else if (asked->session != 0) {
        TRY(state_session_open(store, asked->session, uid, error, &session));
        status = push_session(store, verify, &capacity, session);
    } else {
        TRY(state_node_open(store, asked->node, uid, error, &node));
        if (asked->path) {
            status = push_path(store, verify, &capacity, node);
        } else {
            TRY(check_node(node, error));
            status = push_if_sampled(store, verify, &capacity, node);
        }
    }
    if (status != STATUS_OK) {
        return error_set(error, status, "out of memory while nodes were listed");
    }
    return state_user(store, uid, error, &verify->job.user);
}

void verify_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct verify *verify = memory_alloc(1, sizeof(*verify));
    struct error error = {0};

    if (verify == NULL) {
        error_set(&error, STATUS_MEMORY, "out of memory to verify");
        answer_error(store, to, request->type, &error);
        return;
    }
    verify->job = (struct look_job){
        .to = to,
        .type = request->type,
        .uid = request->uid,
        .on_end = on_end,
        .destroy = destroy,
    };
    if (collect(store, &request->u.verify, verify, &error) != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        destroy(&verify->job);
        return;
    }
    verify->seen.node_count = verify->node_count;
    go_on(store, verify);
    report(store, verify, NULL, verify->job.lent_count > 0);
    if (verify->job.lent_count == 0) {
        destroy(&verify->job);
    }
}
