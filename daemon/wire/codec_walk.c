/* Walk, and nodes as every family shows them. */
#include "limits.h"
#include "wire/codec_inside.h"

void codec_decode_walk(const Personad__V1__WalkRequest *from, struct request *out)
{
    struct request_walk *walk = &out->u.walk;
    out->type = REQUEST_WALK;
    walk->session = from->session;
    codec_position(from->position, &walk->has_position, &walk->position);
    walk->what = WALK_PATH;
    if (from->has_what && from->what > PERSONAD__V1__WALK_WHAT__PATH &&
        from->what <= PERSONAD__V1__WALK_WHAT__NODE) {
        walk->what = (enum walk_what)from->what;
    }
    walk->skip = from->skip;
    walk->count = from->has_count && from->count > 0 && from->count < WALK_PAGE_NODE_COUNT_MAX
                      ? from->count
                      : WALK_PAGE_NODE_COUNT_MAX;
    walk->text = from->has_text && from->text;
    walk->content = from->has_content && from->content;
    walk->numbers = from->has_numbers && from->numbers;
    walk->deleted = from->has_deleted && from->deleted;
}

/* ---------------------------------------------------------------- nodes */

static enum status tops_fill(const struct node_view *view, uint32_t first, uint32_t count,
                             struct arena *arena, Personad__V1__Numbers *out)
{
    const size_t entry_count = (size_t)count * view->top_count;
    uint32_t *tokens = arena_alloc(arena, entry_count, sizeof *tokens);
    float *logprobs = arena_alloc(arena, entry_count, sizeof *logprobs);
    if (tokens == NULL || logprobs == NULL) {
        return STATUS_MEMORY;
    }
    const struct sample_top *tops = view->tops + (size_t)first * view->top_count;
    for (size_t i = 0; i < entry_count; i++) {
        tokens[i] = tops[i].token;
        logprobs[i] = tops[i].logprob;
    }
    CODEC_SET(out, top_count, view->top_count);
    out->n_top_tokens = entry_count;
    out->top_tokens = tokens;
    out->n_top_logprobs = entry_count;
    out->top_logprobs = logprobs;
    return STATUS_OK;
}

/* protobuf-c reads through pointers that are not const; packing writes nothing. */
enum status codec_fill_numbers(const struct node_view *view, uint32_t first, uint32_t count,
                               struct arena *arena, Personad__V1__Numbers *out)
{
    CODEC_SET(out, first, first);
    out->n_tokens = count;
    out->tokens = (uint32_t *)(uintptr_t)(view->sampled + first);
    out->n_logprobs = count;
    out->logprobs = (float *)(uintptr_t)(view->logprobs + first);
    out->n_sampler_logprobs = count;
    out->sampler_logprobs = (float *)(uintptr_t)(view->logprobs_sampler + first);
    out->n_entropies = count;
    out->entropies = (float *)(uintptr_t)(view->entropies + first);
    if (view->top_count == 0 || view->tops == NULL) {
        return STATUS_OK;
    }
    return tops_fill(view, first, count, arena, out);
}

static void sampled_fill(const struct node_view *view, Personad__V1__NodeInfo *out)
{
    CODEC_SET(out, seed, view->seed);
    CODEC_SET(out, context_tokens, view->context_token_count);
    CODEC_SET(out, turns_left_out, view->turns_left_out);
}

static enum status parts_fill(const struct node_view *view, struct codec_parts parts,
                              struct arena *arena, Personad__V1__NodeInfo *out)
{
    if (parts.text) {
        CODEC_SET(out, text, codec_data(bytes_of(view->text, view->text_bytes)));
    }
    if (parts.content) {
        out->n_content = view->content_count;
        out->content = (uint32_t *)(uintptr_t)view->content;
    }
    if (parts.numbers && view->sampled_count > 0) {
        out->numbers = codec_new(arena, &personad__v1__numbers__descriptor);
        if (out->numbers == NULL) {
            return STATUS_MEMORY;
        }
        return codec_fill_numbers(view, 0, view->sampled_count, arena, out->numbers);
    }
    return STATUS_OK;
}

enum status codec_fill_node(const struct node_view *view, struct codec_parts parts,
                            struct arena *arena, Personad__V1__NodeInfo *out)
{
    CODEC_SET(out, id, view->id);
    CODEC_SET(out, session, view->session);
    CODEC_SET(out, ordinal, view->ordinal);
    CODEC_SET(out, speaker, view->speaker);
    CODEC_SET(out, origin, (Personad__V1__Origin)view->origin);
    CODEC_SET(out, opens_turn, view->opens_turn);
    CODEC_SET(out, finish, (Personad__V1__Finish)view->finish);
    CODEC_SET(out, content_tokens, view->content_count);
    CODEC_SET(out, child_count, view->child_count);
    CODEC_SET(out, created_us, view->created_us);
    CODEC_SET_BYTES(out, label, view->label);
    if (view->original != 0) {
        CODEC_SET(out, original, view->original);
    }
    if (view->is_deleted) {
        CODEC_SET(out, deleted, true);
    }
    if (view->finished_us != 0) {
        CODEC_SET(out, finished_us, view->finished_us);
    }
    if (view->origin == ORIGIN_SAMPLED) {
        sampled_fill(view, out);
    }
    out->parent = codec_build_position(view->parent, arena);
    if (out->parent == NULL) {
        return STATUS_MEMORY;
    }
    if (view->finish == NODE_FAILED ||
        (view->finish == NODE_INTERRUPTED && view->error.status != STATUS_OK)) {
        out->error = codec_build_error(&view->error, arena);
        if (out->error == NULL) {
            return STATUS_MEMORY;
        }
    }
    return parts_fill(view, parts, arena, out);
}

/* Bytes of a node in a reply at most, before it is built: what cannot fit need not be copied. */
static size_t node_bytes(const struct node_view *view, struct codec_parts parts)
{
    size_t size = 256 + view->label.size + ERROR_TEXT_BYTES_MAX;
    size += parts.text ? view->text_bytes : 0;
    size += parts.content ? (size_t)view->content_count * 5 : 0;
    size += parts.numbers ? (size_t)view->sampled_count * codec_number_bytes(view->top_count) : 0;
    return size;
}

/* A node too large for any frame comes without its numbers, then without ids and text: Follow reads
 * those in pieces. */
static struct codec_parts parts_that_fit(const struct node_view *view, struct codec_parts parts)
{
    if (node_bytes(view, parts) > CODEC_LIST_BYTES_MAX) {
        parts.numbers = false;
    }
    if (node_bytes(view, parts) > CODEC_LIST_BYTES_MAX) {
        parts.content = false;
    }
    if (node_bytes(view, parts) > CODEC_LIST_BYTES_MAX) {
        parts.text = false;
    }
    return parts;
}

enum status codec_build_walk(const struct reply *reply, struct arena *arena,
                             Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.walk.count;
    const struct codec_parts asked = {reply->u.walk.text, reply->u.walk.content,
                                      reply->u.walk.numbers};
    Personad__V1__WalkReply *body = codec_new(arena, &personad__v1__walk_reply__descriptor);
    Personad__V1__NodeInfo **list =
        codec_new_list(arena, &personad__v1__node_info__descriptor, count);
    if (body == NULL || list == NULL) {
        return STATUS_MEMORY;
    }
    size_t size = 0;
    uint32_t taken = 0;
    while (taken < count) {
        const struct node_view *view = &reply->u.walk.nodes[taken];
        const struct codec_parts parts = parts_that_fit(view, asked);
        size += node_bytes(view, parts);
        if (size > CODEC_LIST_BYTES_MAX && taken > 0) {
            break;
        }
        TRY(codec_fill_node(view, parts, arena, list[taken]));
        taken++;
    }
    body->n_nodes = taken;
    body->nodes = list;
    CODEC_SET(body, end, reply->u.walk.end && taken == count);
    out->result_case = PERSONAD__V1__REPLY__RESULT_WALK;
    out->walk = body;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- streams */

uint32_t codec_number_bytes(uint32_t top_count)
{
    /* An id takes up to 5 bytes as a varint, a float 4. */
    return 5 + 3 * 4 + top_count * (5 + 4);
}

bool codec_finished_fits(const struct node_view *view, bool numbers)
{
    const struct codec_parts all = {.text = true, .content = true, .numbers = numbers};
    return node_bytes(view, all) <= CODEC_LIST_BYTES_MAX;
}

enum status codec_encode_tokens(uint64_t id, const struct node_view *view,
                                const struct codec_piece *piece, struct buffer *out)
{
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    Personad__V1__TokensReply body = PERSONAD__V1__TOKENS_REPLY__INIT;
    Personad__V1__Numbers numbers = PERSONAD__V1__NUMBERS__INIT;
    struct arena arena;
    arena_init(&arena, MESSAGE_UNPACK_BYTES_MAX);
    CODEC_SET(&reply, id, id);
    CODEC_SET(&reply, more, true);
    CODEC_SET(&body, node, view->id);
    CODEC_SET(&body, first_token, piece->first_token);
    CODEC_SET(&body, token_count, piece->token_count);
    CODEC_SET(&body, first_byte, piece->first_byte);
    if (piece->byte_count > 0) {
        CODEC_SET_BYTES(&body, text, bytes_of(view->text + piece->first_byte, piece->byte_count));
    }
    enum status status = STATUS_OK;
    if (piece->numbers && piece->number_count > 0) {
        status =
            codec_fill_numbers(view, piece->first_number, piece->number_count, &arena, &numbers);
        body.numbers = &numbers;
    }
    reply.result_case = PERSONAD__V1__REPLY__RESULT_TOKENS;
    reply.tokens = &body;
    if (status == STATUS_OK) {
        status = codec_pack(&reply, out);
    }
    arena_finish(&arena);
    return status;
}

enum status codec_encode_finished(uint64_t id, const struct node_view *view, bool numbers,
                                  struct buffer *out)
{
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    Personad__V1__FinishedReply body = PERSONAD__V1__FINISHED_REPLY__INIT;
    Personad__V1__NodeInfo node = PERSONAD__V1__NODE_INFO__INIT;
    const struct codec_parts all = {.text = true, .content = true, .numbers = numbers};
    struct arena arena;
    arena_init(&arena, MESSAGE_UNPACK_BYTES_MAX);
    CODEC_SET(&reply, id, id);
    CODEC_SET(&reply, more, true);
    CODEC_SET(&body, queued_us, view->queued_us);
    CODEC_SET(&body, first_token_us, view->first_token_us);
    CODEC_SET(&body, total_us, view->total_us);
    CODEC_SET(&body, context_cached, view->context_cached_count);
    CODEC_SET(&body, context_computed, view->context_computed_count);
    enum status status = codec_fill_node(view, parts_that_fit(view, all), &arena, &node);
    body.node = &node;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_FINISHED;
    reply.finished = &body;
    if (status == STATUS_OK) {
        status = codec_pack(&reply, out);
    }
    arena_finish(&arena);
    return status;
}
