/* Room for the token and what is held is made first, so that a failure leaves both as they were. */
#include "text/detokenizer.h"

#include "base/check.h"
#include "text/utf8_hold.h"

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer)
{
    *detokenizer = (struct detokenizer){.tokenizer = tokenizer};
}

static void append_reserved(struct buffer *out, const uint8_t *data, size_t size)
{
    const enum status status = buffer_append(out, bytes_of(data, size));

    CHECK(status == STATUS_OK);
}

enum status detokenizer_push(struct detokenizer *detokenizer, uint32_t id, struct buffer *out)
{
    const struct bytes shown = tokenizer_token_bytes(detokenizer->tokenizer, id);

    TRY(buffer_reserve(out, detokenizer->held_size + shown.size));
    for (size_t i = 0; i < shown.size; i++) {
        uint8_t pending[4];
        const uint8_t pending_size = detokenizer->held_size;
        uint8_t held_size;

        memcpy(pending, detokenizer->held, sizeof pending);
        held_size = utf8_hold_push(detokenizer->held, pending_size, shown.data[i]);
        if (held_size != pending_size + 1) {
            append_reserved(out, pending, pending_size); /* whole now, or given up */
            if (held_size == 0) {
                append_reserved(out, &shown.data[i], 1);
            }
        }
        detokenizer->held_size = held_size;
    }
    return STATUS_OK;
}

enum status detokenizer_end(struct detokenizer *detokenizer, struct buffer *out)
{
    TRY(buffer_append(out, bytes_of(detokenizer->held, detokenizer->held_size)));
    detokenizer->held_size = 0;
    return STATUS_OK;
}
