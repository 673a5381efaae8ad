#include "session/encoder.h"

#include "base/check.h"
#include "limits.h"

enum status encoder_init(struct encoder *encoder, const struct tokenizer *tokenizer)
{
    encoder->tokenizer = tokenizer;
    return tokenizer_scratch_create(tokenizer, &encoder->scratch);
}

void encoder_finish(struct encoder *encoder)
{
    tokenizer_scratch_destroy(encoder->scratch);
    encoder->scratch = NULL;
}

static enum status encode(struct encoder *encoder, struct bytes text, bool is_special,
                          bool at_start, struct error *error, struct id_list *list)
{
    /* A token shows at least a byte, but for the space that SentencePiece puts in front. */
    const uint64_t most =
        (uint64_t)text.size + 1 < TEXT_TOKEN_COUNT_MAX ? text.size + 1 : TEXT_TOKEN_COUNT_MAX;
    uint32_t count = 0;
    enum status status;

    if (text.size == 0) {
        return STATUS_OK;
    }
    if (id_list_reserve(list, (uint32_t)most) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a text was tokenised");
    }
    if (is_special) {
        status = tokenizer_encode_special(encoder->tokenizer, encoder->scratch, text, at_start,
                                          list->ids + list->count, (uint32_t)most, &count);
    } else {
        status = tokenizer_encode(encoder->tokenizer, encoder->scratch, text, at_start,
                                  list->ids + list->count, (uint32_t)most, &count);
    }
    if (status == STATUS_LIMIT) {
        return error_set_limit(error, "TEXT_TOKEN_COUNT_MAX", TEXT_TOKEN_COUNT_MAX,
                               "a text of %zu bytes becomes more than %u tokens; send it in parts",
                               text.size, TEXT_TOKEN_COUNT_MAX);
    }
    if (status != STATUS_OK) {
        return error_set(error, status, "a text of %zu bytes could not be tokenised: %s", text.size,
                         status_text(status));
    }
    CHECK(count <= most);
    list->count += count;
    return STATUS_OK;
}

enum status encoder_frame(struct encoder *encoder, struct bytes text, bool at_start,
                          struct error *error, struct id_list *list)
{
    return encode(encoder, text, true, at_start, error, list);
}

enum status encoder_text(struct encoder *encoder, struct bytes text, bool at_start,
                         struct error *error, struct id_list *list)
{
    return encode(encoder, text, false, at_start, error, list);
}

enum status encoder_bytes(struct encoder *encoder, struct bytes bytes, struct id_list *list)
{
    uint32_t count = 0;

    if (bytes.size == 0) {
        return STATUS_OK;
    }
    CHECK(bytes.size < UINT32_MAX);
    TRY(id_list_reserve(list, (uint32_t)bytes.size));
    TRY(tokenizer_encode_bytes(encoder->tokenizer, encoder->scratch, bytes, list->ids + list->count,
                               (uint32_t)bytes.size, &count));
    CHECK(count <= bytes.size);
    list->count += count;
    return STATUS_OK;
}

uint32_t encoder_start_id(const struct encoder *encoder)
{
    static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};
    const struct vocabulary *vocabulary = tokenizer_vocabulary(encoder->tokenizer);

    if (vocabulary->add_bos && vocabulary->bos != TOKEN_NONE) {
        return vocabulary->bos;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint32_t id = tokenizer_find(encoder->tokenizer, bytes_of_text(names[i]));

        if (id != TOKEN_NONE) {
            return id;
        }
    }
    if (vocabulary->eos != TOKEN_NONE) {
        return vocabulary->eos;
    }
    return vocabulary->bos != TOKEN_NONE ? vocabulary->bos : 0;
}

enum status encoder_show(const struct encoder *encoder, const uint32_t *ids, uint32_t count,
                         struct buffer *out)
{
    for (uint32_t i = 0; i < count; i++) {
        TRY(buffer_append(out, tokenizer_token_bytes(encoder->tokenizer, ids[i])));
    }
    return STATUS_OK;
}
