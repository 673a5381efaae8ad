#include "wire/cursor.h"

#include "base/check.h"
#include "base/memory.h"
#include "wire/codec.h"

enum {
    PIECE_TEXT_BYTES_MAX = 64 * 1024,
    PIECE_NUMBERS_BYTES_MAX = 256 * 1024,
    UTF8_BYTES_MAX = 4,
};

void cursor_index_init(struct cursor_index *index)
{
    table_init(&index->nodes);
}

void cursor_index_finish(struct cursor_index *index)
{
    CHECK(index->nodes.count == 0);
    table_finish(&index->nodes);
}

struct cursor_node *cursor_index_find(const struct cursor_index *index, uint64_t node)
{
    return table_find(&index->nodes, node);
}

static enum status node_find_or_create(struct cursor_index *index, uint64_t id,
                                       struct cursor_node **out)
{
    struct cursor_node *node = table_find(&index->nodes, id);
    if (node == NULL) {
        node = memory_alloc(1, sizeof *node);
        if (node == NULL) {
            return STATUS_MEMORY;
        }
        node->id = id;
        link_init(&node->cursors);
        if (table_insert(&index->nodes, id, node) != STATUS_OK) {
            memory_free(node);
            return STATUS_MEMORY;
        }
    }
    *out = node;
    return STATUS_OK;
}

enum status cursor_create(struct cursor_index *index, const struct follow *follow, uint32_t i,
                          struct cursor **out)
{
    CHECK(i < follow->node_count);
    struct cursor *cursor = memory_alloc(1, sizeof *cursor);
    if (cursor == NULL) {
        return STATUS_MEMORY;
    }
    if (node_find_or_create(index, follow->nodes[i], &cursor->node) != STATUS_OK) {
        memory_free(cursor);
        return STATUS_MEMORY;
    }
    link_init(&cursor->of_node);
    link_init(&cursor->of_exchange);
    link_init(&cursor->of_news);
    link_push_back(&cursor->node->cursors, &cursor->of_node);
    cursor->delivery = follow->delivery;
    cursor->numbers = follow->numbers;
    cursor->token_count = cursor->number_count = follow->from_token;
    cursor->byte_count = follow->from_byte;
    *out = cursor;
    return STATUS_OK;
}

void cursor_destroy(struct cursor_index *index, struct cursor *cursor)
{
    if (cursor == NULL) {
        return;
    }
    struct cursor_node *node = cursor->node;
    link_remove(&cursor->of_node);
    link_remove(&cursor->of_exchange);
    link_remove(&cursor->of_news);
    memory_free(cursor);
    if (link_is_alone(&node->cursors)) {
        (void)table_remove(&index->nodes, node->id);
        memory_free(node);
    }
}

static uint32_t at_most(uint32_t value, uint32_t max)
{
    return value < max ? value : max;
}

/* As far as there is, or to the last whole character before the bound. */
static uint32_t text_piece(const struct node_view *view, uint32_t first)
{
    if (view->text_bytes <= first) {
        return 0;
    }
    const uint32_t rest = view->text_bytes - first;
    if (rest <= PIECE_TEXT_BYTES_MAX) {
        return rest;
    }
    uint32_t size = PIECE_TEXT_BYTES_MAX;
    for (int i = 1; i < UTF8_BYTES_MAX && (view->text[first + size] & 0xc0) == 0x80; i++) {
        size--;
    }
    return size;
}

static uint32_t rest_of(uint32_t count, uint32_t sent)
{
    return count > sent ? count - sent : 0;
}

static struct codec_piece piece_next(const struct cursor *cursor, const struct node_view *view)
{
    struct codec_piece piece = {
        .first_token = cursor->token_count,
        .token_count = rest_of(view->content_count, cursor->token_count),
        .first_byte = cursor->byte_count,
        .byte_count = text_piece(view, cursor->byte_count),
        .numbers = cursor->numbers,
        .first_number = cursor->number_count,
    };
    if (cursor->numbers) {
        piece.number_count = at_most(rest_of(view->sampled_count, cursor->number_count),
                                     PIECE_NUMBERS_BYTES_MAX / codec_number_bytes(view->top_count));
    }
    return piece;
}

enum status cursor_write(struct cursor *cursor, const struct node_view *view, uint64_t request,
                         struct buffer *out, bool *ended)
{
    const bool is_finished = view->finish != NODE_GOING;
    if (cursor->delivery == DELIVERY_EACH_TOKEN ||
        (is_finished && !codec_finished_fits(view, cursor->numbers))) {
        const struct codec_piece piece = piece_next(cursor, view);
        if (piece.token_count + piece.byte_count + piece.number_count > 0) {
            TRY(codec_encode_tokens(request, view, &piece, out));
            cursor->token_count += piece.token_count;
            cursor->byte_count += piece.byte_count;
            cursor->number_count += piece.number_count;
            *ended = false;
            return STATUS_OK;
        }
    }
    if (!is_finished) {
        return STATUS_AGAIN;
    }
    TRY(codec_encode_finished(request, view, cursor->numbers, out));
    *ended = true;
    return STATUS_OK;
}
