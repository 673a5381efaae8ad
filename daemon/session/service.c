#include "session/service.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/generate.h"
#include "session/pending.h"
#include "session/record.h"

static void send(struct store *store, struct reply_to to, const struct reply *reply, bool more)
{
    store->settings.events.on_reply(store->settings.events.context, to, reply, more);
}

void service_info(struct store *store, const struct request *request, struct reply_to to)
{
    struct reply reply = {.type = REPLY_INFO, .request = request->type};

    reply.u.info = store->settings.info;
    send(store, to, &reply, false);
}

/* Of all trees, in memory or not. */
static uint64_t count_nodes(const struct store *store)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < store->sessions.count; i++) {
        count += ((const struct session *)store->sessions.items[i])->node_count;
    }
    return count;
}

void service_stats(struct store *store, const struct request *request, struct reply_to to)
{
    struct reply reply = {.type = REPLY_STATS, .request = request->type};
    struct engine_stats stats;

    engine_stats(store->settings.engine, &stats);
    reply.u.stats = (struct stats_view){
        .session_count = store->sessions.count,
        .node_count = count_nodes(store),
        .persona_count = store->personas.count,
        .uptime_us = (clock_monotonic_ns() - store->started_ns) / 1000,
        .branch_waiting_count = stats.waiting_count,
        .branch_running_count = stats.running_count,
        .step_count = stats.step_count,
        .row_count = stats.row_count,
        .decode_row_count = stats.decode_row_count,
        .prefill_row_count = stats.prefill_row_count,
        .sample_count = stats.sample_count,
        .step_ns = stats.step_ns,
        .context_token_count = stats.context_token_count,
        .context_cached_count = stats.context_cached_count,
        .context_computed_count = stats.context_computed_count,
        .preemption_count = stats.preemption_count,
        .cancelled_count = stats.cancelled_count,
        .finished_count = stats.finished_count,
        .failed_count = stats.failed_count,
        .kv_page_count = stats.page_count,
        .kv_page_free_count = stats.page_free_count,
        .kv_page_cached_count = stats.page_cached_count,
        .drafted_count = stats.drafted_count,
        .accepted_count = stats.accepted_count,
    };
    send(store, to, &reply, false);
}

void service_walk(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_walk *walk = &request->u.walk;
    struct session *session = NULL;
    struct place place;
    struct error error = {0};

    if (state_session_open(store, walk->session, request->uid, &error, &session) != STATUS_OK ||
        state_place_any(store, session, walk->has_position, walk->position, walk->deleted, &error,
                        &place) != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        return;
    }
    while (!place.node->is_visible) {
        place = (struct place){place.node->parent, place.node->parent_offset};
    }
    answer_walk(store, to, session, place, walk);
}

void service_follow(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_follow *asked = &request->u.follow;
    struct node *node = NULL;
    struct error error = {0};

    if (state_node_open(store, asked->node, request->uid, &error, &node) != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        return;
    }
    const struct follow follow = {
        .nodes = &node->id,
        .node_count = 1,
        .from_token = asked->from_token,
        .from_byte = asked->from_byte,
        .delivery = asked->delivery,
        .numbers = asked->numbers,
    };

    store->settings.events.on_follow(store->settings.events.context, to, &follow);
}

/* Moves the reader, and answers when that is committed. */
static enum status move_head(struct store *store, const struct request *request, struct reply_to to,
                             struct session *session, struct place place, struct error *error)
{
    const struct position asked = request->u.head.position;
    struct node *before = session->head;
    const uint32_t before_offset = session->head_offset;
    struct pending *pending = NULL;
    uint64_t ticket = 0;
    enum status status;

    TRY(pending_create(0, bytes_of(NULL, 0), error, &pending));
    session->head = place.node;
    session->head_offset = asked.offset == OFFSET_END ? OFFSET_END : place.offset;
    status = record_head(store, session, error, &ticket);
    if (status != STATUS_OK) {
        session->head = before;
        session->head_offset = before_offset;
        pending_destroy(pending);
        return status;
    }
    pending->to = to;
    pending->type = request->type;
    pending->uid = request->uid;
    pending->head = (struct position){place.node->id, place.offset};
    pending_start_ticket(store, pending, ticket);
    return STATUS_OK;
}

void service_head(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_head *head = &request->u.head;
    struct session *session = NULL;
    struct place place;
    struct error error = {0};
    enum status status = state_session_open(store, head->session, request->uid, &error, &session);

    if (status == STATUS_OK) {
        status = state_place(store, session, head->has_position, head->position, &error, &place);
    }
    if (status == STATUS_OK && head->has_position) {
        status = move_head(store, request, to, session, place, &error);
    } else if (status == STATUS_OK) {
        answer_head(store, to, (struct position){place.node->id, place.offset});
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    }
}

/* The daemon writes it as its own user: only that user, and root, may say where. */
static enum status start_backup(struct store *store, const struct request *request,
                                struct error *error, uint64_t *ticket)
{
    if (request->uid != (uint32_t)geteuid() && request->uid != 0) {
        return error_set(error, STATUS_DENIED, "only the user of the daemon may make a backup");
    }
    TRY(journal_backup(store->settings.journal, request->u.backup, store->last_ticket + 1, error));
    *ticket = ++store->last_ticket;
    return STATUS_OK;
}

void service_backup(struct store *store, const struct request *request, struct reply_to to)
{
    struct pending *pending = NULL;
    struct error error = {0};
    uint64_t ticket = 0;
    enum status status = pending_create(0, bytes_of(NULL, 0), &error, &pending);

    if (status == STATUS_OK) {
        status = start_backup(store, request, &error, &ticket);
    }
    if (status != STATUS_OK) {
        pending_destroy(pending);
        answer_error(store, to, request->type, &error);
        return;
    }
    pending->to = to;
    pending->type = request->type;
    pending->uid = request->uid;
    pending_start_ticket(store, pending, ticket);
}

/* ---- cancelling ---- */

/* Also before its intent is committed: it computes since it was lent. Where the journal has failed
 * nothing that readers do not see yet will ever end visibly, and all of it was ended then. */
static bool is_going(const struct store *store, const struct node *node)
{
    if (node->sampled == NULL || node->is_finish_visible) {
        return false;
    }
    return node->is_visible ||
           (node->sampled->has_intent && journal_is_writable(store->settings.journal));
}

static uint32_t list_going(const struct store *store, struct session *session, struct node **out)
{
    uint32_t count = 0;

    for (struct node *node = tree_next_of_all(&session->root, &session->root); node != NULL;
         node = tree_next_of_all(&session->root, node)) {
        if (is_going(store, node)) {
            if (out != NULL) {
                out[count] = node;
            }
            count++;
        }
    }
    return count;
}

/* All of them are checked before the first one is touched. */
static enum status prepare_cancel(struct store *store, const struct request *request,
                                  struct error *error, struct pending **out)
{
    const struct request_cancel *cancel = &request->u.cancel;
    struct session *session = NULL;
    struct node *node = NULL;
    uint32_t count = cancel->node_count;

    for (uint32_t i = 0; i < cancel->node_count; i++) {
        TRY(state_node_open(store, cancel->nodes[i], request->uid, error, &node));
    }
    if (cancel->session != 0) {
        TRY(state_session_open(store, cancel->session, request->uid, error, &session));
        count += list_going(store, session, NULL);
    }
    TRY(pending_create(count, bytes_of(NULL, 0), error, out));
    (*out)->node_count = 0;
    for (uint32_t i = 0; i < cancel->node_count; i++) {
        node = table_find(&store->nodes, cancel->nodes[i]);
        if (is_going(store, node)) {
            (*out)->nodes[(*out)->node_count++] = node;
        }
    }
    if (session != NULL) {
        (*out)->node_count += list_going(store, session, (*out)->nodes + (*out)->node_count);
    }
    return STATUS_OK;
}

/* Answered when every cut is committed. */
void service_cancel(struct store *store, const struct request *request, struct reply_to to)
{
    struct pending *pending = NULL;
    struct error error = {0};

    if (prepare_cancel(store, request, &error, &pending) != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        return;
    }
    pending->to = to;
    pending->type = request->type;
    pending->uid = request->uid;
    for (uint32_t i = 0; i < pending->node_count; i++) {
        generate_cancel(store, pending->nodes[i]);
    }
    pending_start(store, pending, true);
}

/* ---- text ---- */

void service_tokenize(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_tokenize *tokenize = &request->u.tokenize;
    struct reply reply = {.type = REPLY_TOKENS, .request = request->type};
    struct id_list ids = {0};
    struct bytes *pieces = NULL;
    struct error error = {0};
    enum status status;

    if (tokenize->special) {
        status = encoder_frame(&store->encoder, tokenize->text, true, &error, &ids);
    } else {
        status = encoder_text(&store->encoder, tokenize->text, true, &error, &ids);
    }
    if (status == STATUS_OK && tokenize->pieces) {
        pieces = memory_alloc(ids.count, sizeof(*pieces));
        if (pieces == NULL) {
            status = error_set(&error, STATUS_MEMORY, "out of memory while a text was tokenised");
        }
        for (uint32_t i = 0; pieces != NULL && i < ids.count; i++) {
            pieces[i] = tokenizer_token_bytes(store->settings.tokenizer, ids.ids[i]);
        }
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    } else {
        reply.u.tokens.ids = ids.ids;
        reply.u.tokens.pieces = pieces;
        reply.u.tokens.count = ids.count;
        send(store, to, &reply, false);
    }
    memory_free(pieces);
    id_list_finish(&ids);
}

static enum status show(const struct store *store, const struct request_detokenize *detokenize,
                        struct buffer *out)
{
    for (uint32_t i = 0; i < detokenize->token_count; i++) {
        const uint32_t id = detokenize->tokens[i];
        struct bytes bytes = tokenizer_token_bytes(store->settings.tokenizer, id);

        if (bytes.size == 0 && detokenize->names) {
            bytes = tokenizer_token_name(store->settings.tokenizer, id);
        }
        TRY(buffer_append(out, bytes));
    }
    return STATUS_OK;
}

void service_detokenize(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_detokenize *detokenize = &request->u.detokenize;
    struct reply reply = {.type = REPLY_TEXT, .request = request->type};
    struct buffer text;
    struct error error = {0};
    enum status status;

    buffer_init(&text, FRAME_BODY_BYTES_MAX - FRAME_BODY_BYTES_MAX / 8);
    status = show(store, detokenize, &text);
    if (status == STATUS_LIMIT) {
        error_set_limit(&error, "FRAME_BODY_BYTES_MAX", FRAME_BODY_BYTES_MAX,
                        "the text of %u tokens does not fit a reply; ask for fewer",
                        detokenize->token_count);
    } else if (status != STATUS_OK) {
        error_set(&error, status, "out of memory while tokens were shown");
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    } else {
        reply.u.text = buffer_bytes(&text);
        send(store, to, &reply, false);
    }
    buffer_finish(&text);
}
