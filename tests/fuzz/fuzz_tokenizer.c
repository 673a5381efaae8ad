/* Goal: no text and no vocabulary breaks a tokeniser: no crash, no special token from plain text,
 * and ids that show the bytes they were made from.
 * Method: the first byte chooses a vocabulary of tests/fixtures/tokenizer/, or 4 and above one that
 * the input itself spells out (lines: type digit, then the name; "m" and a merge; a blank line ends
 * it). The rest is text. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "limits.h"
#include "support/vocabulary_fixture.h"
#include "text/detokenizer.h"

enum { FIXTURE_COUNT = 4, LINE_COUNT_MAX = 256, ID_COUNT_MAX = 65536 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static uint32_t ids[ID_COUNT_MAX];

static void join(const struct tokenizer *tokenizer, uint32_t count, struct buffer *out)
{
    struct detokenizer detokenizer;

    detokenizer_init(&detokenizer, tokenizer);
    for (uint32_t i = 0; i < count; i++) {
        const enum status status = detokenizer_push(&detokenizer, ids[i], out);
        CHECK(status == STATUS_OK);
    }
    const enum status status = detokenizer_end(&detokenizer, out);
    CHECK(status == STATUS_OK);
}

/* exact: the vocabulary covers every byte, so that nothing may be lost. */
static void use(const struct tokenizer *tokenizer, struct bytes text, bool exact)
{
    const struct vocabulary *vocabulary = tokenizer_vocabulary(tokenizer);
    struct tokenizer_scratch *scratch = NULL;
    struct buffer shown;
    uint32_t count = 0;
    enum status status = tokenizer_scratch_create(tokenizer, &scratch);

    CHECK(status == STATUS_OK);
    buffer_init(&shown, TEXT_BYTES_MAX);
    status = tokenizer_encode(tokenizer, scratch, text, false, ids, ID_COUNT_MAX, &count);
    CHECK((status == STATUS_BAD_INPUT) == !utf8_is_valid(text));
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ids[i] < vocabulary->token_count);
        CHECK(vocabulary->types[ids[i]] != TOKEN_CONTROL);
    }
    if (status == STATUS_OK && exact) {
        join(tokenizer, count, &shown);
        CHECK(bytes_equal(buffer_bytes(&shown), text));
    }
    count = 0;
    status = tokenizer_encode_special(tokenizer, scratch, text, true, ids, ID_COUNT_MAX, &count);
    CHECK((status == STATUS_BAD_INPUT) == !utf8_is_valid(text));
    count = 0;
    shown.size = 0;
    status = tokenizer_encode_bytes(tokenizer, scratch, text, ids, ID_COUNT_MAX, &count);
    CHECK(!exact || status == STATUS_OK);
    if (status == STATUS_OK) {
        join(tokenizer, count, &shown);
        CHECK(bytes_equal(buffer_bytes(&shown), text));
    }
    buffer_finish(&shown);
    tokenizer_scratch_destroy(scratch);
}

static const struct tokenizer *fixture_tokenizer(size_t index)
{
    static const char *const names[FIXTURE_COUNT] = {"gpt2", "llama3", "qwen2", "spm"};
    static struct vocabulary_fixture fixtures[FIXTURE_COUNT];
    static struct tokenizer *tokenizers[FIXTURE_COUNT];

    if (tokenizers[index] == NULL) {
        vocabulary_fixture_load(names[index], 0, &fixtures[index]);
        const enum status status =
            tokenizer_create(&fixtures[index].vocabulary, NULL, &tokenizers[index]);
        CHECK(status == STATUS_OK);
    }
    return tokenizers[index];
}

/* Takes the vocabulary off the front of the input. */
static void read_vocabulary(struct bytes *input, struct bytes *tokens, uint8_t *types,
                            float *scores, struct bytes *merges, struct vocabulary *vocabulary)
{
    while (input->size > 0 && vocabulary->token_count < LINE_COUNT_MAX &&
           vocabulary->merge_count < LINE_COUNT_MAX) {
        const uint8_t *end = memchr(input->data, '\n', input->size);
        const size_t size = end == NULL ? input->size : (size_t)(end - input->data);
        const struct bytes rest = bytes_of(input->data + 1, size == 0 ? 0 : size - 1);
        const uint8_t first = input->data[0];
        const size_t taken = end == NULL ? size : size + 1;

        *input = bytes_of(input->data + taken, input->size - taken);
        if (size == 0) {
            return;
        }
        if (first == 'm') {
            merges[vocabulary->merge_count++] = rest;
        } else {
            scores[vocabulary->token_count] = (float)(first % 7);
            types[vocabulary->token_count] = (uint8_t)(1 + first % 6);
            tokens[vocabulary->token_count++] = rest;
        }
    }
}

static void use_spelled_out(uint8_t choice, struct bytes input)
{
    static const char *const pretokenizers[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
    struct bytes tokens[LINE_COUNT_MAX], merges[LINE_COUNT_MAX];
    uint8_t types[LINE_COUNT_MAX];
    float scores[LINE_COUNT_MAX];
    struct tokenizer *tokenizer = NULL;
    struct vocabulary vocabulary = {
        .kind = choice & 1 ? VOCABULARY_SPM : VOCABULARY_BPE,
        .tokens = tokens,
        .types = types,
        .scores = scores,
        .merges = merges,
        .pre = bytes_of_text(pretokenizers[choice / 2 % 4]),
        .bos = 0,
        .eos = 1,
        .eot = TOKEN_NONE,
        .eom = TOKEN_NONE,
        .unknown = TOKEN_NONE,
        .pad = TOKEN_NONE,
        .add_space_prefix = (choice & 16) != 0,
    };

    read_vocabulary(&input, tokens, types, scores, merges, &vocabulary);
    if (tokenizer_create(&vocabulary, NULL, &tokenizer) == STATUS_OK) {
        use(tokenizer, input, false);
    }
    tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    if (byte_count == 0 || byte_count > ID_COUNT_MAX / 2) {
        return 0;
    }
    const struct bytes rest = bytes_of(bytes + 1, byte_count - 1);
    if (bytes[0] >= FIXTURE_COUNT) {
        use_spelled_out(bytes[0], rest);
    } else {
        use(fixture_tokenizer(bytes[0]), rest, bytes[0] < 2);
    }
    return 0;
}
