/* Merges lie in a hash table from (left id, right id) to (rank, id), so that a lookup touches no
 * text. */
#include "text/bpe.h"

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "text/byte_alphabet.h"

enum { BYTE_COUNT = 256, CAPACITY_MIN = 16, WRITTEN_BYTES_MAX = 2 /* a byte */ };

struct bpe_merge {
    uint64_t pair; /* left id in the high half, right id in the low */
    uint32_t rank;
    uint32_t id; /* TOKEN_NONE: a free slot */
};

struct bpe {
    const struct token_index *index;  /* borrowed */
    struct bpe_merge *merges;         /* owned; open addressing */
    uint32_t capacity;                /* power of two */
    uint32_t byte_tokens[BYTE_COUNT]; /* id of each byte alone, or TOKEN_NONE */
};

static uint32_t pair_slot(const struct bpe *bpe, uint64_t pair)
{
    uint32_t slot = (uint32_t)(pair * 0x9e3779b97f4a7c15u >> 32) & (bpe->capacity - 1);

    while (bpe->merges[slot].id != TOKEN_NONE && bpe->merges[slot].pair != pair) {
        slot = (slot + 1) & (bpe->capacity - 1);
    }
    return slot;
}

static void find_byte_tokens(struct bpe *bpe)
{
    for (uint32_t byte = 0; byte < BYTE_COUNT; byte++) {
        uint8_t written[4];
        const size_t size = utf8_encode(byte_alphabet_code_point((uint8_t)byte), written);
        bpe->byte_tokens[byte] = token_index_find_text(bpe->index, bytes_of(written, size));
    }
}

/* "left right" into its halves. A token of this alphabet holds no space. */
static bool split_merge(struct bytes merge, struct bytes *left, struct bytes *right)
{
    const uint8_t *space = merge.size == 0 ? NULL : memchr(merge.data, ' ', merge.size);

    if (space == NULL) {
        return false;
    }
    *left = bytes_of(merge.data, (size_t)(space - merge.data));
    *right = bytes_of(space + 1, merge.size - left->size - 1);
    return left->size > 0 && right->size > 0;
}

static enum status add_merge(struct bpe *bpe, uint32_t rank, struct buffer *joined,
                             struct error *error)
{
    const struct vocabulary *vocabulary = bpe->index->vocabulary;
    const struct bytes merge = vocabulary->merges[rank];
    struct bytes left, right;
    uint32_t left_id, right_id, id;
    uint64_t pair;

    if (!split_merge(merge, &left, &right)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "tokenizer.ggml.merges: merge %u is not two tokens and a space", rank);
    }
    joined->size = 0;
    TRY(buffer_append(joined, left));
    TRY(buffer_append(joined, right));
    left_id = token_index_find(bpe->index, left);
    right_id = token_index_find(bpe->index, right);
    id = token_index_find(bpe->index, buffer_bytes(joined));
    if (left_id == TOKEN_NONE || right_id == TOKEN_NONE || id == TOKEN_NONE) {
        return error_set(error, STATUS_BAD_INPUT,
                         "tokenizer.ggml.merges: merge %u needs a token that tokenizer.ggml.tokens "
                         "does not have",
                         rank);
    }
    if (!token_index_is_text(vocabulary, id)) {
        return STATUS_OK;
    }
    pair = (uint64_t)left_id << 32 | right_id;
    bpe->merges[pair_slot(bpe, pair)] = (struct bpe_merge){pair, rank, id};
    return STATUS_OK;
}

static enum status add_merges(struct bpe *bpe, struct error *error)
{
    const struct vocabulary *vocabulary = bpe->index->vocabulary;
    enum status status = STATUS_OK;
    struct buffer joined;

    buffer_init(&joined, SIZE_MAX / 4);
    for (uint32_t rank = 0; rank < vocabulary->merge_count && status == STATUS_OK; rank++) {
        status = add_merge(bpe, rank, &joined, error);
    }
    buffer_finish(&joined);
    return status;
}

enum status bpe_create(const struct token_index *index, struct error *error, struct bpe **out)
{
    const uint32_t merge_count = index->vocabulary->merge_count;
    struct bpe *bpe = memory_alloc(1, sizeof *bpe);
    enum status status = STATUS_MEMORY;

    if (bpe == NULL) {
        goto done;
    }
    bpe->index = index;
    bpe->capacity = CAPACITY_MIN;
    while (bpe->capacity / 2 < merge_count) {
        CHECK(bpe->capacity <= UINT32_MAX / 2);
        bpe->capacity *= 2;
    }
    bpe->merges = memory_alloc(bpe->capacity, sizeof *bpe->merges);
    if (bpe->merges == NULL) {
        goto done;
    }
    for (uint32_t i = 0; i < bpe->capacity; i++) {
        bpe->merges[i].id = TOKEN_NONE;
    }
    find_byte_tokens(bpe);
    status = add_merges(bpe, error);
    if (status == STATUS_OK) {
        *out = bpe;
        bpe = NULL; /* handed over */
    }
done:
    bpe_destroy(bpe);
    return status;
}

void bpe_destroy(struct bpe *bpe)
{
    if (bpe == NULL) {
        return;
    }
    memory_free(bpe->merges);
    memory_free(bpe);
}

static bool find_merge(const void *context, struct bytes text, const struct merge_symbol *left,
                       const struct merge_symbol *right, uint32_t *rank, uint32_t *id)
{
    const struct bpe *bpe = context;
    const struct bpe_merge *merge =
        &bpe->merges[pair_slot(bpe, (uint64_t)left->id << 32 | right->id)];

    (void)text;
    if (merge->id == TOKEN_NONE) {
        return false;
    }
    *rank = merge->rank;
    *id = merge->id;
    return true;
}

/* The token that is written exactly as the piece, for vocabularies that want it tried first. */
static uint32_t find_whole(const struct bpe *bpe, struct bytes piece)
{
    uint8_t written[WRITTEN_BYTES_MAX * TOKEN_BYTES_MAX];
    size_t size = 0;

    if (piece.size > TOKEN_BYTES_MAX) {
        return TOKEN_NONE;
    }
    for (size_t i = 0; i < piece.size; i++) {
        size += utf8_encode(byte_alphabet_code_point(piece.data[i]), written + size);
    }
    return token_index_find_text(bpe->index, bytes_of(written, size));
}

enum status bpe_encode(const struct bpe *bpe, struct merger *merger, struct bytes piece,
                       bool whole_first, struct token_sink *sink)
{
    const struct merge_rules rules = {bpe, find_merge};

    if (whole_first) {
        const uint32_t id = find_whole(bpe, piece);
        if (id != TOKEN_NONE) {
            return token_sink_push(sink, id);
        }
    }
    TRY(merger_clear(merger, (uint32_t)piece.size));
    for (uint32_t i = 0; i < piece.size; i++) {
        const uint32_t id = bpe->byte_tokens[piece.data[i]];
        if (id != TOKEN_NONE) {
            merger_push(merger, i, 1, id);
        }
    }
    if (merger->symbol_count == 0) {
        return STATUS_OK;
    }
    merger_run(merger, &rules, piece);
    for (uint32_t i = 0; i != MERGER_NONE; i = merger->symbols[i].next) {
        TRY(token_sink_push(sink, merger->symbols[i].id));
    }
    return STATUS_OK;
}

bool bpe_covers(const struct bpe *bpe, struct bytes piece)
{
    for (size_t i = 0; i < piece.size; i++) {
        if (bpe->byte_tokens[piece.data[i]] == TOKEN_NONE) {
            return false;
        }
    }
    return true;
}
