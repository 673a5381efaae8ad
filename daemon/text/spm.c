/* Symbols that are no piece stay in the merge: a larger piece may still hold them. Byte tokens that
 * were put in on purpose never join. */
#include "text/spm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "text/merge_table.h"

enum { BYTE_COUNT = 256, SPACE_BYTES = 3 };

static const uint8_t written_space[SPACE_BYTES] = {0xe2, 0x96, 0x81}; /* U+2581 */

struct spm {
    const struct token_index *index; /* borrowed */
    uint32_t *ranks;                 /* owned; [token_count], lower is better, equal for equals */
    struct merge_table merges;       /* owned; used instead of ranks where there are no scores */
    uint32_t byte_tokens[BYTE_COUNT];
    uint32_t piece_bytes_max; /* no longer pair is looked up */
};

struct scored {
    float score;
    uint32_t id;
};

static int compare_scored(const void *left, const void *right)
{
    const struct scored *a = left, *b = right;

    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Scores are floats that only their order gives a meaning. */
static enum status rank_pieces(struct spm *spm)
{
    const struct vocabulary *vocabulary = spm->index->vocabulary;
    struct scored *order = memory_alloc(vocabulary->token_count, sizeof *order);

    spm->ranks = memory_alloc(vocabulary->token_count, sizeof *spm->ranks);
    if (order == NULL || spm->ranks == NULL) {
        memory_free(order);
        return STATUS_MEMORY;
    }
    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const float score = vocabulary->scores[id];
        order[id] = (struct scored){isnan(score) ? -INFINITY : score, id};
    }
    qsort(order, vocabulary->token_count, sizeof *order, compare_scored);
    for (uint32_t i = 1; i < vocabulary->token_count; i++) {
        const bool same = order[i].score == order[i - 1].score;
        spm->ranks[order[i].id] = spm->ranks[order[i - 1].id] + (same ? 0 : 1);
    }
    memory_free(order);
    return STATUS_OK;
}

static void find_pieces(struct spm *spm)
{
    const struct vocabulary *vocabulary = spm->index->vocabulary;

    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const size_t size = vocabulary->tokens[id].size;
        if (token_index_is_text(vocabulary, id) && size > spm->piece_bytes_max) {
            spm->piece_bytes_max = (uint32_t)size;
        }
    }
    for (uint32_t byte = 0; byte < BYTE_COUNT; byte++) {
        char name[8];
        uint32_t id;
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        id = token_index_find(spm->index, bytes_of_text(name));
        if (id != TOKEN_NONE && vocabulary->types[id] != TOKEN_BYTE) {
            id = TOKEN_NONE;
        }
        spm->byte_tokens[byte] = id;
    }
}

enum status spm_create(const struct token_index *index, struct error *error, struct spm **out)
{
    const struct vocabulary *vocabulary = index->vocabulary;
    enum status status = STATUS_MEMORY;
    struct spm *spm;

    if (vocabulary->scores == NULL && vocabulary->merge_count == 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the vocabulary has neither scores nor merges; a SentencePiece vocabulary "
                         "needs either");
    }
    spm = memory_alloc(1, sizeof *spm);
    if (spm == NULL) {
        goto done;
    }
    spm->index = index;
    find_pieces(spm);
    if (vocabulary->scores == NULL) {
        status = merge_table_init(&spm->merges, index, error);
    } else {
        status = rank_pieces(spm);
    }
    if (status == STATUS_OK) {
        *out = spm;
        spm = NULL; /* handed over */
    }
done:
    spm_destroy(spm);
    return status;
}

void spm_destroy(struct spm *spm)
{
    if (spm == NULL) {
        return;
    }
    memory_free(spm->ranks);
    merge_table_finish(&spm->merges);
    memory_free(spm);
}

static bool is_byte(const struct spm *spm, uint32_t id)
{
    return id != TOKEN_NONE && spm->index->vocabulary->types[id] == TOKEN_BYTE;
}

static bool find_merge(const void *context, struct bytes text, const struct merge_symbol *left,
                       const struct merge_symbol *right, uint32_t *rank, uint32_t *id)
{
    const struct spm *spm = context;
    const uint32_t size = left->size + right->size;
    uint32_t found;

    if (spm->ranks == NULL) {
        return left->id != TOKEN_NONE && right->id != TOKEN_NONE &&
               merge_table_find(&spm->merges, left->id, right->id, rank, id);
    }
    if (size > spm->piece_bytes_max || is_byte(spm, left->id) || is_byte(spm, right->id)) {
        return false;
    }
    found = token_index_find_text(spm->index, bytes_of(text.data + left->offset, size));
    if (found == TOKEN_NONE) {
        return false;
    }
    *rank = spm->ranks[found];
    *id = found;
    return true;
}

static void push_character(const struct spm *spm, struct merger *merger, struct bytes text,
                           size_t offset, size_t size)
{
    const uint32_t id = token_index_find_text(spm->index, bytes_of(text.data + offset, size));

    merger_push(merger, (uint32_t)offset, (uint32_t)size, id);
}

/* Byte tokens for all bytes of a symbol; NOT_FOUND, with nothing pushed, when one is missing. */
static enum status push_bytes(const struct spm *spm, struct bytes bytes, struct token_sink *sink)
{
    for (size_t i = 0; i < bytes.size; i++) {
        if (spm->byte_tokens[bytes.data[i]] == TOKEN_NONE) {
            return STATUS_NOT_FOUND;
        }
    }
    for (size_t i = 0; i < bytes.size; i++) {
        TRY(token_sink_push(sink, spm->byte_tokens[bytes.data[i]]));
    }
    return STATUS_OK;
}

enum status spm_encode(const struct spm *spm, struct merger *merger, struct bytes text,
                       struct token_sink *sink)
{
    const struct merge_rules rules = {spm, find_merge};
    const uint32_t unknown = spm->index->vocabulary->unknown;
    bool in_unknown = false;

    if (text.size == 0) {
        return STATUS_OK;
    }
    TRY(merger_clear(merger, (uint32_t)text.size));
    for (size_t at = 0; at < text.size;) {
        uint32_t code_point;
        const size_t size = utf8_decode(bytes_of(text.data + at, text.size - at), &code_point);
        CHECK(size > 0);
        push_character(spm, merger, text, at, size);
        at += size;
    }
    merger_run(merger, &rules, text);
    for (uint32_t i = 0; i != MERGER_NONE; i = merger->symbols[i].next) {
        const struct merge_symbol *symbol = &merger->symbols[i];
        enum status status = STATUS_OK;

        if (symbol->id != TOKEN_NONE) {
            TRY(token_sink_push(sink, symbol->id));
            in_unknown = false;
            continue;
        }
        status = push_bytes(spm, bytes_of(text.data + symbol->offset, symbol->size), sink);
        if (status == STATUS_NOT_FOUND) {
            status =
                in_unknown || unknown == TOKEN_NONE ? STATUS_OK : token_sink_push(sink, unknown);
            in_unknown = true;
        }
        TRY(status);
    }
    return STATUS_OK;
}

/* Rewrites raw bytes into `room` as a text of this vocabulary, and pushes its symbols. What a piece
 * would show otherwise (a written U+2581 shows a space, broken UTF-8 has none) becomes bytes. */
static enum status push_raw(const struct spm *spm, struct merger *merger, struct bytes bytes,
                            struct buffer *room)
{
    size_t at = 0;

    while (at < bytes.size) {
        const struct bytes rest = bytes_of(bytes.data + at, bytes.size - at);
        const struct bytes space = bytes_of(written_space, SPACE_BYTES);
        const size_t offset = room->size;
        uint32_t code_point;
        size_t size = utf8_decode(rest, &code_point);

        if (size == 0 || bytes_equal(bytes_of(rest.data, size), space)) {
            const uint32_t id = spm->byte_tokens[rest.data[0]];
            if (id == TOKEN_NONE) {
                return STATUS_NOT_FOUND;
            }
            TRY(buffer_append(room, bytes_of(rest.data, 1)));
            merger_push(merger, (uint32_t)offset, 1, id);
            at++;
            continue;
        }
        TRY(buffer_append(room, rest.data[0] == ' ' ? space : bytes_of(rest.data, size)));
        push_character(spm, merger, buffer_bytes(room), offset, room->size - offset);
        at += size;
    }
    return STATUS_OK;
}

enum status spm_encode_raw(const struct spm *spm, struct merger *merger, struct bytes bytes,
                           struct buffer *room, struct token_sink *sink)
{
    const struct merge_rules rules = {spm, find_merge};

    if (bytes.size == 0) {
        return STATUS_OK;
    }
    room->size = 0;
    TRY(merger_clear(merger, (uint32_t)bytes.size));
    TRY(push_raw(spm, merger, bytes, room));
    merger_run(merger, &rules, buffer_bytes(room));
    for (uint32_t i = 0; i != MERGER_NONE; i = merger->symbols[i].next) {
        const struct merge_symbol *symbol = &merger->symbols[i];
        struct bytes written = bytes_of(room->data + symbol->offset, symbol->size);

        if (symbol->id != TOKEN_NONE) {
            TRY(token_sink_push(sink, symbol->id));
            continue;
        }
        if (bytes_equal(written, bytes_of(written_space, SPACE_BYTES))) {
            written = bytes_of(" ", 1);
        }
        TRY(push_bytes(spm, written, sink));
    }
    return STATUS_OK;
}
