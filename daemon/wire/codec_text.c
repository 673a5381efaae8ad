/* Tokenize, Detokenize. */
#include "limits.h"
#include "wire/codec_inside.h"

enum status codec_decode_tokenize(const Personad__V1__TokenizeRequest *from, struct error *error,
                                  struct request *out)
{
    out->type = REQUEST_TOKENIZE;
    out->u.tokenize.special = from->has_special && from->special;
    out->u.tokenize.pieces = from->has_pieces && from->pieces;
    return codec_check_text(from->text, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "tokenize.text", error,
                            &out->u.tokenize.text);
}

enum status codec_decode_detokenize(const Personad__V1__DetokenizeRequest *from,
                                    struct error *error, struct request *out)
{
    TRY(codec_check_count(from->n_tokens, TEXT_TOKEN_COUNT_MAX, "TEXT_TOKEN_COUNT_MAX",
                          "detokenize.tokens", error));
    out->type = REQUEST_DETOKENIZE;
    out->u.detokenize.tokens = from->tokens;
    out->u.detokenize.token_count = (uint32_t)from->n_tokens;
    out->u.detokenize.names = from->has_names && from->names;
    return STATUS_OK;
}

enum status codec_build_tokenize(const struct reply *reply, struct arena *arena,
                                 Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.tokens.count;
    Personad__V1__TokenizeReply *body = codec_new(arena, &personad__v1__tokenize_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->n_tokens = count;
    body->tokens = (uint32_t *)(uintptr_t)reply->u.tokens.ids;
    if (reply->u.tokens.pieces != NULL) {
        body->pieces = arena_alloc(arena, count, sizeof *body->pieces);
        if (body->pieces == NULL) {
            return STATUS_MEMORY;
        }
        for (uint32_t i = 0; i < count; i++) {
            body->pieces[i] = codec_data(reply->u.tokens.pieces[i]);
        }
        body->n_pieces = count;
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_TOKENIZE;
    out->tokenize = body;
    return STATUS_OK;
}

enum status codec_build_detokenize(const struct reply *reply, struct arena *arena,
                                   Personad__V1__Reply *out)
{
    Personad__V1__DetokenizeReply *body =
        codec_new(arena, &personad__v1__detokenize_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    CODEC_SET_BYTES(body, text, reply->u.text);
    out->result_case = PERSONAD__V1__REPLY__RESULT_DETOKENIZE;
    out->detokenize = body;
    return STATUS_OK;
}
