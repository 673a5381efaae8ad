#include "session/filling.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/context.h"

enum status filling_damaged(const struct filling *filling, const char *what, uint64_t id)
{
    return error_set(filling->error, STATUS_STORAGE,
                     "session %llu cannot be read from the journal: %s %llu is damaged",
                     (unsigned long long)filling->session->id, what, (unsigned long long)id);
}

enum status filling_out_of_memory(const struct filling *filling)
{
    return error_set(filling->error, STATUS_MEMORY, "out of memory while session %llu was loaded",
                     (unsigned long long)filling->session->id);
}

enum status filling_failed(const struct filling *filling, enum status status, const char *what,
                           uint64_t id)
{
    return status == STATUS_MEMORY ? filling_out_of_memory(filling)
                                   : filling_damaged(filling, what, id);
}

static const struct prompt *find_prompt(const struct filling *filling,
                                        const uint8_t digest[JOURNAL_DIGEST_BYTES])
{
    const struct cast *cast = &filling->session->cast;

    for (uint32_t i = 0; i < cast->count; i++) {
        const struct prompt *prompt = cast->members[i].prompt;

        if (prompt != NULL && memcmp(prompt->digest, digest, JOURNAL_DIGEST_BYTES) == 0) {
            return prompt;
        }
    }
    for (uint32_t i = 0; i < cast->joint_count; i++) {
        const struct prompt *prompt = cast->joints[i].prompt;

        if (memcmp(prompt->digest, digest, JOURNAL_DIGEST_BYTES) == 0) {
            return prompt;
        }
    }
    return NULL;
}

/* Reads the segment at *at and moves behind it. ids points into the stored bytes. */
static enum status next_segment(const struct filling *filling, const struct prompt *prompt,
                                struct bytes stored, size_t *at, struct segment *out)
{
    const uint8_t *data = stored.data + *at;
    const size_t left = stored.size - *at;
    size_t size = 8;

    if (left < size || bytes_load_u32(data) > SEGMENT_INSERT) {
        return STATUS_BAD_INPUT;
    }
    *out = (struct segment){.kind = (enum segment_kind)bytes_load_u32(data),
                            .count = bytes_load_u32(data + 4)};
    if (out->kind == SEGMENT_PROMPT) {
        out->ids = prompt->ids.ids;
        if (out->count != prompt->ids.count) {
            return STATUS_BAD_INPUT;
        }
    } else if (out->kind == SEGMENT_NODE) {
        size += 12;
        if (left < size) {
            return STATUS_BAD_INPUT;
        }
        out->node = table_find(filling->nodes, bytes_load_u64(data + 8));
        out->from = bytes_load_u32(data + 16);
        if (out->node == NULL || out->node->session != filling->session) {
            return STATUS_BAD_INPUT;
        }
    } else {
        if ((left - size) / sizeof(uint32_t) < out->count) {
            return STATUS_BAD_INPUT;
        }
        out->ids = (const uint32_t *)(const void *)(data + size);
        size += out->count * sizeof(uint32_t);
    }
    *at += size;
    return STATUS_OK;
}

/* How many segments, and ids in them that the context itself has to own. */
static enum status measure(const struct filling *filling, const struct prompt *prompt,
                           struct bytes stored, uint32_t *segment_count, uint64_t *id_count)
{
    struct segment segment;

    *segment_count = 0;
    *id_count = 0;
    for (size_t at = 0; at < stored.size;) {
        TRY(next_segment(filling, prompt, stored, &at, &segment));
        (*segment_count)++;
        if (segment.kind != SEGMENT_PROMPT && segment.kind != SEGMENT_NODE) {
            *id_count += segment.count;
        }
    }
    return STATUS_OK;
}

static enum status check_token_count(const struct context *context)
{
    const uint32_t count = context_segment_count(context);
    struct segment *segments = memory_alloc(count, sizeof(*segments));
    uint64_t token_count = 0;

    if (segments == NULL) {
        return STATUS_MEMORY;
    }
    context_segments(context, segments);
    for (uint32_t i = 0; i < count; i++) {
        token_count += segments[i].count;
    }
    memory_free(segments);
    return token_count == context->token_count && context->scope_token_count <= token_count
               ? STATUS_OK
               : STATUS_BAD_INPUT;
}

static enum status make_context(const struct filling *filling, const struct journal_context *row,
                                struct context *base, struct context **out)
{
    const struct prompt *prompt = find_prompt(filling, row->prompt_digest);
    uint32_t own_count = 0;
    uint64_t id_count = 0;
    struct context *context;
    uint32_t *ids;
    size_t at = 0;

    if (prompt == NULL || row->base_count > (base != NULL ? context_segment_count(base) : 0)) {
        return STATUS_BAD_INPUT;
    }
    TRY(measure(filling, prompt, row->segments, &own_count, &id_count));
    context = memory_alloc(1, sizeof(*context) + own_count * sizeof(struct segment) +
                                  id_count * sizeof(uint32_t));
    if (context == NULL) {
        return STATUS_MEMORY;
    }
    *context = (struct context){
        .id = row->id,
        .reference_count = 1,
        .prompt = prompt,
        .speaker = row->speaker,
        .token_count = row->token_count,
        .first_turn = row->first_turn,
        .scope_token_count = row->scope_token_count,
        .base = base != NULL ? context_acquire(base) : NULL,
        .base_count = row->base_count,
        .own_count = own_count,
    };
    ids = (uint32_t *)(void *)&context->own[own_count];
    for (uint32_t i = 0; i < own_count; i++) {
        struct segment *segment = &context->own[i];

        CHECK(next_segment(filling, prompt, row->segments, &at, segment) == STATUS_OK);
        if (segment->kind != SEGMENT_PROMPT && segment->kind != SEGMENT_NODE) {
            memcpy(ids, segment->ids, segment->count * sizeof(uint32_t));
            segment->ids = ids;
            ids += segment->count;
        }
    }
    *out = context;
    return STATUS_OK;
}

enum status filling_make_context(struct filling *filling, uint32_t at)
{
    const struct journal_context *row = &filling->rows->contexts[at];
    const bool has_base = row->base_id != 0;
    const uint32_t base = has_base ? rows_tree_find_context(filling->rows, row->base_id) : 0;
    enum status status = STATUS_BAD_INPUT;

    filling->work += row->segments.size / 4 / FILLING_TOKENS_PER_WORK;
    if (!has_base || base < at) { /* as ROWS_NONE never is */
        status = make_context(filling, row, has_base ? filling->contexts[base] : NULL,
                              &filling->contexts[at]);
    }
    if (status == STATUS_OK) {
        status = check_token_count(filling->contexts[at]);
        filling->work += context_segment_count(filling->contexts[at]) / FILLING_TOKENS_PER_WORK;
    }
    return status == STATUS_OK ? STATUS_OK
                               : filling_failed(filling, status, "the context of node", row->id);
}
