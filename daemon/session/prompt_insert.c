#include "session/prompt_insert.h"

#include "base/memory.h"
#include "limits.h"

enum { KIND_NOTE = 0, KIND_LORE = 1, HEAD_BYTES = 12 };

/* Appends one text behind its head; nothing where it is empty. */
static enum status append(struct render *render, uint32_t kind, uint32_t index, struct bytes text,
                          struct buffer *out)
{
    const size_t at = out->size;
    uint8_t head[HEAD_BYTES];

    bytes_store_u32(head, kind);
    bytes_store_u32(head + 4, index);
    bytes_store_u32(head + 8, 0);
    TRY(buffer_append(out, bytes_of(head, sizeof(head))));
    TRY(render_text(render, text, out));
    if (out->size == at + HEAD_BYTES) {
        out->size = at;
    } else {
        bytes_store_u32(out->data + at + 8, (uint32_t)(out->size - at - HEAD_BYTES));
    }
    return STATUS_OK;
}

/* Finds the texts in what is stored. */
static enum status parse(struct prompt_inserts *inserts, const struct card *card)
{
    const struct bytes stored = buffer_bytes(&inserts->stored);

    inserts->lore = memory_alloc(card->lore_count, sizeof(*inserts->lore));
    if (inserts->lore == NULL) {
        return STATUS_MEMORY;
    }
    for (size_t at = 0; at < stored.size;) {
        const size_t left = stored.size - at;

        if (left < HEAD_BYTES) {
            return STATUS_BAD_INPUT;
        }
        const uint32_t kind = bytes_load_u32(stored.data + at);
        const uint32_t index = bytes_load_u32(stored.data + at + 4);
        const uint32_t size = bytes_load_u32(stored.data + at + 8);

        if (size == 0 || size > left - HEAD_BYTES || kind > KIND_LORE ||
            !utf8_is_valid(bytes_of(stored.data + at + HEAD_BYTES, size))) {
            return STATUS_BAD_INPUT;
        }
        if (kind == KIND_NOTE) {
            inserts->note = bytes_of(stored.data + at + HEAD_BYTES, size);
        } else if (index < card->lore_count) {
            inserts->lore[index] = bytes_of(stored.data + at + HEAD_BYTES, size);
        }
        at += HEAD_BYTES + size;
    }
    return STATUS_OK;
}

enum status prompt_insert_render(struct render *render, const struct card *card,
                                 struct prompt_inserts *out)
{
    buffer_init(&out->stored, TEXT_BYTES_MAX);
    TRY(append(render, KIND_NOTE, 0, card->note.text, &out->stored));
    for (uint32_t i = 0; i < card->lore_count; i++) {
        if (card->lore[i].is_enabled && !card_lore_is_in_prompt(&card->lore[i])) {
            TRY(append(render, KIND_LORE, i, card->lore[i].content, &out->stored));
        }
    }
    return parse(out, card);
}

enum status prompt_insert_restore(struct bytes stored, const struct card *card,
                                  struct prompt_inserts *out)
{
    buffer_init(&out->stored, TEXT_BYTES_MAX);
    TRY(buffer_append(&out->stored, stored));
    return parse(out, card);
}

void prompt_insert_finish(struct prompt_inserts *inserts)
{
    buffer_finish(&inserts->stored);
    memory_free(inserts->lore);
    *inserts = (struct prompt_inserts){0};
}
