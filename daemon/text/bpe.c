#include "text/bpe.h"

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "text/byte_alphabet.h"
#include "text/merge_table.h"

enum { BYTE_COUNT = 256, WRITTEN_BYTES_MAX = 2 /* a byte */ };

struct bpe {
    const struct token_index *index;  /* borrowed */
    struct merge_table merges;        /* owned */
    uint32_t byte_tokens[BYTE_COUNT]; /* id of each byte alone, or TOKEN_NONE */
};

static void find_byte_tokens(struct bpe *bpe)
{
    for (uint32_t byte = 0; byte < BYTE_COUNT; byte++) {
        uint8_t written[4];
        const size_t size = utf8_encode(byte_alphabet_code_point((uint8_t)byte), written);
        bpe->byte_tokens[byte] = token_index_find_text(bpe->index, bytes_of(written, size));
    }
}

enum status bpe_create(const struct token_index *index, struct error *error, struct bpe **out)
{
    struct bpe *bpe = memory_alloc(1, sizeof *bpe);
    enum status status = STATUS_MEMORY;

    if (bpe == NULL) {
        goto done;
    }
    bpe->index = index;
    find_byte_tokens(bpe);
    status = merge_table_init(&bpe->merges, index, error);
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
    merge_table_finish(&bpe->merges);
    memory_free(bpe);
}

static bool find_merge(const void *context, struct bytes text, const struct merge_symbol *left,
                       const struct merge_symbol *right, uint32_t *rank, uint32_t *id)
{
    const struct bpe *bpe = context;

    (void)text;
    return merge_table_find(&bpe->merges, left->id, right->id, rank, id);
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
