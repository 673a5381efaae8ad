/* The records of nodes and of their tokens. */
#include <string.h>

#include "session/context.h"
#include "session/portable_line.h"
#include "session/portable_write_inside.h"
#include "session/request.h"

enum { TOKENS_A_RECORD = 256 };

/* ---- contexts and steps ---- */

/* As context_prompts[] has it; PORTABLE_NO_PROMPT: none that is in the file. */
static uint32_t prompt_of(const struct portable_writer *writer,
                          const struct journal_context *context)
{
    const struct portable *portable = writer->portable;
    const uint8_t *digest = context->prompt_digest;

    for (uint32_t i = 0; i < portable->joint_count; i++) {
        if (memcmp(portable->joints[i].prompt.digest, digest, JOURNAL_DIGEST_BYTES) == 0) {
            return PORTABLE_JOINT | i;
        }
    }
    for (uint32_t i = 0; i < portable->member_count; i++) {
        const struct portable_member *member = &portable->members[i];

        if (member->has_prompt && !member->is_hidden &&
            memcmp(member->prompt.digest, digest, JOURNAL_DIGEST_BYTES) == 0) {
            return i;
        }
    }
    return PORTABLE_NO_PROMPT;
}

static void put_segments(const struct portable_writer *writer, struct portable_line *line,
                         struct bytes segments)
{
    portable_line_list(line, "segments");
    for (size_t at = 0; at + 8 <= segments.size;) {
        const uint8_t *data = segments.data + at;
        const uint32_t kind = bytes_load_u32(data);
        const uint32_t count = bytes_load_u32(data + 4);
        const size_t size = kind == SEGMENT_PROMPT ? 8
                            : kind == SEGMENT_NODE ? 20
                                                   : 8 + (size_t)count * 4;

        if (size > segments.size - at || portable_segment_name(kind) == NULL) {
            line->status = STATUS_STORAGE;
            return;
        }
        portable_line_list(line, NULL);
        portable_line_text(line, NULL, bytes_of_text(portable_segment_name(kind)));
        if (kind == SEGMENT_NODE) {
            portable_line_u32(line, NULL, portable_writer_number(writer, bytes_load_u64(data + 8)));
            portable_line_u32(line, NULL, bytes_load_u32(data + 16));
            portable_line_u32(line, NULL, count);
        } else if (kind != SEGMENT_PROMPT) {
            portable_line_ids(line, NULL, bytes_of(data + 8, (size_t)count * 4));
        }
        portable_line_list_end(line);
        at += size;
    }
    portable_line_list_end(line);
}

/* The whole context with the first node that has it, else that node's number. */
static enum status put_context(struct portable_writer *writer, struct portable_line *line,
                               uint32_t number, const struct journal_context *context)
{
    const uint32_t user = table_find_number(&writer->contexts, context->id);
    const uint32_t prompt = prompt_of(writer, context);

    if (user != 0) {
        portable_line_u32(line, "context", user);
        return STATUS_OK;
    }
    TRY(table_insert_number(&writer->contexts, context->id, number));
    portable_line_object(line, "context");
    portable_line_u32(line, "speaker", context->speaker);
    portable_line_u32(line, prompt >= PORTABLE_JOINT ? "joint" : "member",
                      prompt & ~(uint32_t)PORTABLE_JOINT);
    portable_line_u32(line, "tokens", context->token_count);
    if (context->first_turn > 0) {
        portable_line_u32(line, "first_turn", context->first_turn);
    }
    if (context->base_id != 0) {
        portable_line_u32(line, "base", table_find_number(&writer->contexts, context->base_id));
        portable_line_u32(line, "base_count", context->base_count);
    }
    put_segments(writer, line, context->segments);
    portable_line_object_end(line);
    return STATUS_OK;
}

static void put_steps(struct portable_writer *writer, struct portable_line *line, uint32_t number,
                      const struct rows_node *row)
{
    const struct rows_tree *tree = writer->portable->tree;
    const uint32_t at = rows_tree_find_steps(tree, row->steps_digest);

    if (at == ROWS_NONE) {
        line->status = STATUS_STORAGE;
    } else if (writer->steps_users[at] != 0) {
        portable_line_u32(line, "steps", writer->steps_users[at]);
    } else {
        writer->steps_users[at] = number;
        portable_line_object(line, "steps");
        portable_line_base64(line, "sampler", tree->steps[at].sampler);
        portable_line_base64(line, "cues", tree->steps[at].cues);
        portable_line_object_end(line);
    }
}

/* ---- nodes ---- */

static enum status gather(struct portable_writer *writer, const struct rows_node *row)
{
    const struct rows_tree *tree = writer->portable->tree;

    writer->tokens.size = writer->logprobs.size = writer->sampler_logprobs.size = 0;
    writer->entropies.size = writer->text_ends.size = writer->tops.size = writer->text.size = 0;
    for (uint32_t i = 0; i < row->chunk_count; i++) {
        const struct journal_chunk *chunk = &tree->chunks[row->first_chunk + i];

        TRY(buffer_append(&writer->tokens, chunk->tokens));
        TRY(buffer_append(&writer->logprobs, chunk->logprobs));
        TRY(buffer_append(&writer->sampler_logprobs, chunk->logprobs_sampler));
        TRY(buffer_append(&writer->entropies, chunk->entropies));
        TRY(buffer_append(&writer->text_ends, chunk->text_ends));
        TRY(buffer_append(&writer->tops, chunk->tops));
        TRY(buffer_append(&writer->text, chunk->text));
    }
    return STATUS_OK;
}

/* What was gathered has one entry a token, and its text is all there. */
static bool is_whole_row(const struct portable_writer *writer, const struct rows_node *row)
{
    const size_t size = writer->tokens.size;
    uint32_t end = 0;

    if (portable_origin_name(row->node.origin) == NULL ||
        portable_finish_name(row->finish) == NULL || row->top_count > TOP_COUNT_MAX ||
        size % 4 != 0 || writer->logprobs.size != size || writer->sampler_logprobs.size != size ||
        writer->entropies.size != size || writer->text_ends.size != size ||
        writer->tops.size != size * 2 * row->top_count || row->kept > size / 4 ||
        row->content_bytes > writer->text.size) {
        return false;
    }
    for (size_t at = 0; at < size; at += 4) {
        const uint32_t next = bytes_load_u32(writer->text_ends.data + at);

        if (next < end || next > writer->text.size) {
            return false;
        }
        end = next;
    }
    return end == writer->text.size;
}

static uint32_t text_end(const struct portable_writer *writer, uint32_t count)
{
    return count == 0 ? 0 : bytes_load_u32(writer->text_ends.data + (size_t)(count - 1) * 4);
}

static struct bytes slice(const struct buffer *buffer, size_t from, size_t size)
{
    return size == 0 ? bytes_of(NULL, 0) : bytes_of(buffer->data + from, size);
}

/* (id, log probability) pairs, one half of each. */
static void put_tops(struct portable_line *line, struct bytes tops, bool is_ids,
                     struct buffer *half, const char *key)
{
    half->size = 0;
    for (size_t at = is_ids ? 0 : 4; at < tops.size && line->status == STATUS_OK; at += 8) {
        line->status = buffer_append(half, bytes_of(tops.data + at, 4));
    }
    if (is_ids) {
        portable_line_ids(line, key, buffer_bytes(half));
    } else {
        portable_line_floats(line, key, buffer_bytes(half));
    }
}

static enum status write_tokens(struct portable_writer *writer, uint32_t number, uint32_t top_count,
                                struct buffer *out)
{
    const uint32_t count = (uint32_t)(writer->tokens.size / 4);
    struct buffer half;
    enum status status = STATUS_OK;

    buffer_init(&half, TREE_BYTES_MAX);
    for (uint32_t at = 0; at < count && status == STATUS_OK; at += TOKENS_A_RECORD) {
        const uint32_t some = count - at < TOKENS_A_RECORD ? count - at : TOKENS_A_RECORD;
        const size_t from = (size_t)at * 4;
        const size_t size = (size_t)some * 4;
        const uint32_t shown = text_end(writer, at);
        struct portable_line line;

        portable_line_start(&line, out, "tokens");
        portable_line_u32(&line, "node", number);
        portable_line_ids(&line, "tokens", slice(&writer->tokens, from, size));
        portable_line_floats(&line, "logprobs", slice(&writer->logprobs, from, size));
        portable_line_floats(&line, "sampler_logprobs",
                             slice(&writer->sampler_logprobs, from, size));
        portable_line_floats(&line, "entropies", slice(&writer->entropies, from, size));
        if (top_count > 0) {
            const struct bytes tops =
                slice(&writer->tops, from * 2 * top_count, size * 2 * top_count);

            put_tops(&line, tops, true, &half, "top_tokens");
            put_tops(&line, tops, false, &half, "top_logprobs");
        }
        portable_line_ids(&line, "text_ends", slice(&writer->text_ends, from, size));
        portable_line_text(&line, "text",
                           slice(&writer->text, shown, text_end(writer, at + some) - shown));
        status = portable_line_end(&line);
    }
    buffer_finish(&half);
    return status;
}

static void put_sampled(const struct portable_writer *writer, struct portable_line *line,
                        const struct rows_node *row)
{
    const struct rows_tree *tree = writer->portable->tree;

    if (!bytes_equal(row->model_hash, tree->model_hash)) {
        portable_line_hex(line, "model", row->model_hash);
    }
    if (!bytes_equal(row->numerics_id, tree->numerics_id)) {
        portable_line_text(line, "numerics", row->numerics_id);
    }
    portable_line_u64(line, "seed", row->seed);
    portable_line_u32(line, "room", row->room);
    portable_line_u32(line, "top_count", row->top_count);
    portable_line_u32(line, "sampled", (uint32_t)(writer->tokens.size / 4));
    portable_line_u32(line, "kept", row->kept);
    /* A node that was under way is cut behind its last whole token. */
    portable_line_u32(line, "content_bytes",
                      row->finish == NODE_GOING ? text_end(writer, row->kept) : row->content_bytes);
    portable_line_u32(line, "cue", row->cue_pattern);
    if (row->tail.size > 0) {
        portable_line_ids(line, "content", row->tail);
    }
    portable_line_u64(line, "queued_ns", row->queued_ns);
    portable_line_u64(line, "first_token_ns", row->first_token_ns);
    portable_line_u64(line, "last_token_ns", row->last_token_ns);
    portable_line_u32(line, "cached", row->cached_count);
    portable_line_u32(line, "computed", row->computed_count);
    if (row->error_status != STATUS_OK) {
        portable_line_u32(line, "error", row->error_status);
        portable_line_text(line, "error_text", row->error_text);
    }
}

static void put_skeleton(const struct portable_writer *writer, struct portable_line *line,
                         const struct rows_node *row, bool is_whole)
{
    const bool is_going = row->finish == NODE_GOING;
    const uint32_t finish = is_going ? NODE_INTERRUPTED : row->finish;
    const uint32_t origin = is_whole && row->is_sampled ? ORIGIN_IMPORTED : row->node.origin;
    const uint32_t original = portable_writer_number(writer, row->original);

    portable_line_u32(line, "node", portable_writer_number(writer, row->node.id));
    portable_line_u32(line, "parent", portable_writer_number(writer, row->node.parent_id));
    portable_line_u32(line, "offset", row->node.parent_offset);
    portable_line_u32(line, "ordinal", row->node.ordinal);
    portable_line_u32(line, "speaker", row->node.speaker);
    portable_line_text(line, "origin", bytes_of_text(portable_origin_name(origin)));
    portable_line_text(line, "finish",
                       bytes_of_text(portable_finish_name(is_whole ? NODE_WHOLE : finish)));
    portable_line_flag(line, "opens_turn", (row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0);
    portable_line_flag(line, "greeting", (row->node.flags & JOURNAL_NODE_GREETING) != 0);
    portable_line_flag(line, "deleted", (row->node.flags & JOURNAL_NODE_DELETED) != 0);
    portable_line_flag(line, "purged", (row->node.flags & JOURNAL_NODE_PURGED) != 0);
    portable_line_u64(line, "created_us", row->node.created_us);
    if (!is_whole) {
        portable_line_u64(line, "finished_us", is_going ? row->node.created_us : row->finished_us);
    }
    if (original != 0) {
        portable_line_u32(line, "original", original);
    }
}

/* What is purged holds nothing; what is hidden has its content alone. */
static void put_whole(const struct portable_writer *writer, struct portable_line *line,
                      const struct rows_node *row)
{
    if ((row->node.flags & JOURNAL_NODE_PURGED) != 0) {
        return;
    }
    if (!row->is_sampled) {
        portable_line_ids(line, "content", row->ids);
        portable_line_text(line, "text", row->text);
        return;
    }
    portable_line_ids(line, "content",
                      row->tail.size > 0 ? row->tail
                                         : slice(&writer->tokens, 0, (size_t)row->kept * 4));
    portable_line_text(
        line, "text",
        slice(&writer->text, 0,
              row->tail.size > 0 ? row->content_bytes : text_end(writer, row->kept)));
}

enum status portable_write_node(struct portable_writer *writer, uint32_t at, struct buffer *out)
{
    const struct rows_tree *tree = writer->portable->tree;
    const struct rows_node *row = &tree->nodes[at];
    const uint32_t number = writer->numbers[at];
    const struct journal_note *label = table_find(&writer->labels, row->node.id);
    const uint32_t place =
        row->is_sampled ? rows_tree_find_context(tree, row->context_id) : ROWS_NONE;
    const struct journal_context *context = place == ROWS_NONE ? NULL : &tree->contexts[place];
    const bool is_whole = (row->node.flags & JOURNAL_NODE_PURGED) != 0 || context == NULL ||
                          prompt_of(writer, context) == PORTABLE_NO_PROMPT;
    struct portable_line line;

    TRY(gather(writer, row));
    if (!is_whole_row(writer, row)) {
        return STATUS_STORAGE;
    }
    portable_line_start(&line, out, "node");
    put_skeleton(writer, &line, row, is_whole);
    if (label != NULL && (row->node.flags & JOURNAL_NODE_PURGED) == 0) {
        portable_line_text(&line, "label", label->label);
    }
    if (is_whole) {
        put_whole(writer, &line, row);
        return portable_line_end(&line);
    }
    put_sampled(writer, &line, row);
    TRY(put_context(writer, &line, number, context));
    put_steps(writer, &line, number, row);
    TRY(portable_line_end(&line));
    return write_tokens(writer, number, row->top_count, out);
}
