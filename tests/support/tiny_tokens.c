#include "support/tiny_tokens.h"

#include <stdio.h>

#include "base/check.h"
#include "base/memory.h"

/* Letters, digits, punctuation and blank lines, so that merges of all kinds are learnt. */
static const char tiny_text[] =
    "The keeper of the light wrote one line every evening. Wind from the north, two ships, no "
    "letters.\n\nShe had been on the island for eleven years, and the book on her table was the "
    "ninth. \"Who reads it?\" asked the boy who brought the bread. \"You do, it seems,\" she said, "
    "and he laughed.\n\nThen the lamp went out. It was 1911, the night of the 23rd of March, and "
    "there was nothing to be seen but the white of the waves. She climbed the stairs: 148 steps, "
    "she knew them all. The boy held the matches. They worked for an hour, they burned their "
    "fingers, and when the light turned again they saw what had been waiting in the dark.\n\n"
    "User: Hello! Are you there?\nKeeper: I am here. What do you want to know?\nUser: Where is the "
    "ship?\nKeeper: She is there, beyond the rocks; she will be in the harbour before the morning."
    "\n\nHe thinks that this is the end of the story. It is not: the next day another letter came, "
    "and with it a stone, a key and 3 coins of a kind that nobody on the coast had ever seen. "
    "What would you have done? They would have thrown them into the sea. She kept them in the "
    "drawer, under the old books, and wrote one more line: \"Wind from the east. A key.\"\n\n"
    "You can tell a story in many ways, and each of them makes it a different one. This is how I "
    "would tell it, if you asked me now; tomorrow I might say that the boy was a girl, that there "
    "were 7 coins, or that the light never went out at all.\n";

enum {
    LEARN_SYMBOL_COUNT_MAX = 2048,
    LEARN_BOUNDARY = 0xffff,
    LEARN_TEXT_BYTES_MAX = 1024 * 1024,
};

/* Byte pair merges, learnt the plain way: count, take the commonest pair, merge, again. */
struct learner {
    uint16_t sequence[2 * sizeof(tiny_text)];
    uint32_t length;
    struct bytes symbols[LEARN_SYMBOL_COUNT_MAX]; /* raw bytes; the first 256 are the bytes */
    uint32_t symbol_count;
    uint16_t merges[LEARN_SYMBOL_COUNT_MAX][3]; /* left, right, symbol */
    uint32_t merge_count;
    uint8_t bytes[256];
    uint16_t *counts; /* owned: [LEARN_SYMBOL_COUNT_MAX][LEARN_SYMBOL_COUNT_MAX] */
    struct buffer text;
};

static bool learner_is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Words take the space before them along; other kinds of text break where the kind changes. */
static bool learner_breaks(const char *text, uint32_t at)
{
    const char before = text[at - 1];
    const char here = text[at];

    if (here == ' ') {
        return true;
    }
    if (before == ' ') {
        return false;
    }
    return learner_is_word(before) != learner_is_word(here) || (before >= '0' && before <= '9');
}

static void learner_init(struct learner *learner)
{
    buffer_init(&learner->text, LEARN_TEXT_BYTES_MAX);
    CHECK(buffer_reserve(&learner->text, LEARN_TEXT_BYTES_MAX) == STATUS_OK);
    learner->counts = memory_alloc((size_t)LEARN_SYMBOL_COUNT_MAX * LEARN_SYMBOL_COUNT_MAX, 2);
    CHECK(learner->counts != NULL);
    for (uint32_t i = 0; i < 256; i++) {
        learner->bytes[i] = (uint8_t)i;
        learner->symbols[i] = bytes_of(&learner->bytes[i], 1);
    }
    learner->symbol_count = 256;
    for (uint32_t i = 0; i + 1 < sizeof(tiny_text); i++) {
        if (i > 0 && learner_breaks(tiny_text, i)) {
            learner->sequence[learner->length++] = LEARN_BOUNDARY;
        }
        learner->sequence[learner->length++] = (uint8_t)tiny_text[i];
    }
}

static void learner_finish(struct learner *learner)
{
    memory_free(learner->counts);
    buffer_finish(&learner->text);
}

/* The commonest pair, of equals the first in the text. False when there is none left. */
static bool learner_best_pair(struct learner *learner, uint32_t *left, uint32_t *right)
{
    const uint16_t *sequence = learner->sequence;
    uint32_t best = 0;

    memset(learner->counts, 0, (size_t)2 * LEARN_SYMBOL_COUNT_MAX * LEARN_SYMBOL_COUNT_MAX);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i + 1 < learner->length; i++) {
            if (sequence[i] == LEARN_BOUNDARY || sequence[i + 1] == LEARN_BOUNDARY) {
                continue;
            }
            uint16_t *count =
                &learner->counts[(uint32_t)sequence[i] * LEARN_SYMBOL_COUNT_MAX + sequence[i + 1]];
            if (round == 0) {
                (*count)++;
            } else if (*count > best) {
                best = *count;
                *left = sequence[i];
                *right = sequence[i + 1];
            }
        }
    }
    return best > 0;
}

/* The symbol of the joined bytes, which two different pairs may give. */
static uint16_t learner_join(struct learner *learner, uint32_t left, uint32_t right)
{
    struct buffer *text = &learner->text;
    const size_t at = text->size;

    CHECK(buffer_append(text, learner->symbols[left]) == STATUS_OK);
    CHECK(buffer_append(text, learner->symbols[right]) == STATUS_OK);
    const struct bytes joined = bytes_of(text->data + at, text->size - at);
    for (uint32_t i = 256; i < learner->symbol_count; i++) {
        if (bytes_equal(learner->symbols[i], joined)) {
            return (uint16_t)i;
        }
    }
    CHECK(learner->symbol_count < LEARN_SYMBOL_COUNT_MAX);
    learner->symbols[learner->symbol_count] = joined;
    return (uint16_t)learner->symbol_count++;
}

static void learner_apply(struct learner *learner, uint32_t left, uint32_t right, uint16_t symbol)
{
    uint16_t *sequence = learner->sequence;
    uint32_t to = 0;

    for (uint32_t i = 0; i < learner->length; i++) {
        const bool pair =
            i + 1 < learner->length && sequence[i] == left && sequence[i + 1] == right;
        sequence[to++] = pair ? symbol : sequence[i];
        i += pair ? 1 : 0;
    }
    learner->length = to;
}

static void learner_run(struct learner *learner, uint32_t symbol_count)
{
    uint32_t left = 0;
    uint32_t right = 0;

    while (learner->symbol_count < symbol_count && learner->merge_count < LEARN_SYMBOL_COUNT_MAX &&
           learner_best_pair(learner, &left, &right)) {
        const uint16_t symbol = learner_join(learner, left, right);
        uint16_t *merge = learner->merges[learner->merge_count++];
        merge[0] = (uint16_t)left;
        merge[1] = (uint16_t)right;
        merge[2] = symbol;
        learner_apply(learner, left, right, symbol);
    }
}

/* ---- tables ---- */

static struct bytes tokens_keep(struct tiny_tokens *tokens, const void *bytes, size_t size)
{
    const size_t at = tokens->text.size;

    CHECK(tokens->text.size + size <= tokens->text.capacity); /* views must not move */
    CHECK(buffer_append(&tokens->text, bytes_of(bytes, size)) == STATUS_OK);
    return bytes_of(tokens->text.data + at, size);
}

static uint32_t tokens_add(struct tiny_tokens *tokens, struct bytes token, enum token_type type,
                           float score)
{
    const uint32_t id = tokens->count++;

    CHECK(id < TINY_TOKEN_COUNT_MAX);
    tokens->tokens[id] = tokens_keep(tokens, token.data, token.size);
    tokens->types[id] = (int32_t)type;
    tokens->scores[id] = score;
    return id;
}

static uint32_t tokens_add_control(struct tiny_tokens *tokens, const char *name)
{
    return tokens_add(tokens, bytes_of_text(name), TOKEN_CONTROL, 0);
}

/* Printable bytes stand for themselves, the others for code points from U+0100 on. */
static uint32_t tokens_byte_code_point(uint8_t byte)
{
    uint32_t hidden = 0;

    for (uint32_t i = 0; i < 256; i++) {
        const bool shown = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
        if (i == byte) {
            return shown ? i : 0x100 + hidden;
        }
        hidden += shown ? 0 : 1;
    }
    return 0;
}

/* How a vocabulary of this kind writes raw bytes. */
static struct bytes tokens_spell(const struct tiny_tokens *tokens, struct bytes raw,
                                 uint8_t spelt[TINY_TOKEN_BYTES_MAX])
{
    size_t size = 0;

    for (size_t i = 0; i < raw.size; i++) {
        uint32_t code_point = raw.data[i] == ' ' ? 0x2581 : raw.data[i];
        if (tokens->kind == VOCABULARY_BPE) {
            code_point = tokens_byte_code_point(raw.data[i]);
        }
        CHECK(size + 4 <= TINY_TOKEN_BYTES_MAX);
        size += utf8_encode(code_point, spelt + size);
    }
    return bytes_of(spelt, size);
}

static void tokens_fill_bpe(struct tiny_tokens *tokens, struct learner *learner, uint32_t count)
{
    uint8_t spelt[TINY_TOKEN_BYTES_MAX];
    uint8_t merge[2 * TINY_TOKEN_BYTES_MAX + 1];

    tokens->eos = tokens_add_control(tokens, "<|endoftext|>");
    tokens->bos = tokens_add_control(tokens, "<|im_start|>");
    tokens->eot = tokens_add_control(tokens, "<|im_end|>");
    tokens->pad = tokens->eos;
    learner_run(learner, count - tokens->count);
    for (uint32_t i = 0; i < learner->symbol_count; i++) {
        (void)tokens_add(tokens, tokens_spell(tokens, learner->symbols[i], spelt), TOKEN_NORMAL, 0);
    }
    for (uint32_t i = 0; i < learner->merge_count; i++) {
        const struct bytes left =
            tokens_spell(tokens, learner->symbols[learner->merges[i][0]], spelt);
        memcpy(merge, left.data, left.size);
        merge[left.size] = ' ';
        const size_t at = left.size + 1;
        const struct bytes right =
            tokens_spell(tokens, learner->symbols[learner->merges[i][1]], spelt);
        memcpy(merge + at, right.data, right.size);
        CHECK(tokens->merge_count < TINY_TOKEN_COUNT_MAX);
        tokens->merges[tokens->merge_count++] = tokens_keep(tokens, merge, at + right.size);
    }
}

static void tokens_fill_spm(struct tiny_tokens *tokens, struct learner *learner, uint32_t count)
{
    uint8_t spelt[TINY_TOKEN_BYTES_MAX];
    char name[16];

    tokens->unknown = tokens_add(tokens, bytes_of_text("<unk>"), TOKEN_UNKNOWN, 0);
    tokens->bos = tokens_add_control(tokens, "<s>");
    tokens->eos = tokens_add_control(tokens, "</s>");
    for (uint32_t i = 0; i < 256; i++) {
        (void)snprintf(name, sizeof(name), "<0x%02X>", i);
        (void)tokens_add(tokens, bytes_of_text(name), TOKEN_BYTE, 0);
    }
    (void)tokens_add_control(tokens, "<|im_start|>");
    tokens->eot = tokens_add_control(tokens, "<|im_end|>");
    (void)tokens_add_control(tokens, "<|endoftext|>");
    const uint32_t piece_first = tokens->count;
    for (uint32_t i = 0x20; i < 0x7f; i++) {
        (void)tokens_add(tokens, tokens_spell(tokens, learner->symbols[i], spelt), TOKEN_NORMAL,
                         -10000.0f - (float)i);
    }
    learner_run(learner, count - tokens->count + 256);
    for (uint32_t i = 256; i < learner->symbol_count; i++) {
        (void)tokens_add(tokens, tokens_spell(tokens, learner->symbols[i], spelt), TOKEN_NORMAL,
                         (float)piece_first - (float)tokens->count);
    }
}

struct tiny_tokens *tiny_tokens_create(enum vocabulary_kind kind, uint32_t count)
{
    struct tiny_tokens *tokens = memory_alloc(1, sizeof(*tokens));
    struct learner *learner = memory_alloc(1, sizeof(*learner));
    char name[32];

    CHECK(tokens != NULL && learner != NULL);
    CHECK(count >= 400 && count <= TINY_TOKEN_COUNT_MAX);
    tokens->kind = kind;
    tokens->bos = tokens->eos = tokens->eot = tokens->unknown = tokens->pad = TOKEN_NONE;
    buffer_init(&tokens->text, LEARN_TEXT_BYTES_MAX);
    CHECK(buffer_reserve(&tokens->text, LEARN_TEXT_BYTES_MAX) == STATUS_OK);
    learner_init(learner);
    if (kind == VOCABULARY_BPE) {
        tokens_fill_bpe(tokens, learner, count);
    } else {
        tokens_fill_spm(tokens, learner, count);
    }
    while (tokens->count < count) {
        (void)snprintf(name, sizeof(name), "<|unused_%u|>", tokens->count);
        (void)tokens_add(tokens, bytes_of_text(name), TOKEN_UNUSED, -20000);
    }
    learner_finish(learner);
    memory_free(learner);
    return tokens;
}

void tiny_tokens_destroy(struct tiny_tokens *tokens)
{
    if (tokens != NULL) {
        buffer_finish(&tokens->text);
        memory_free(tokens);
    }
}
