/* Where a text goes: special tokens are cut out (if asked), what is left is normalised,
 * user-defined tokens of plain text are cut out, and the rest goes to BPE by way of the
 * pre-tokeniser, or to SentencePiece BPE as it is. */
#include "text/tokenizer.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/special_trie.h"
#include "text/spm.h"
#include "text/token_index.h"

enum {
    END_COUNT_MAX = 64,
    /* Each space becomes three bytes, and one may be put in front; NFC triples at most as well. */
    NORMAL_BYTES_MAX = 3 * TEXT_BYTES_MAX + 3,
    SPACE_BYTES = 3,
};

static const uint8_t written_space[SPACE_BYTES] = {0xe2, 0x96, 0x81}; /* U+2581 */

/* Control tokens that end a turn in the templates of model families, whatever the file's own end
 * ids are. */
static const char *const end_names[] = {
    "</s>",
    "<eos>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<\357\275\234end\342\226\201of\342\226\201sentence\357\275\234>", /* <|end_of_sentence|>, wide
                                                                        */
};

struct tokenizer {
    const struct vocabulary *vocabulary; /* borrowed */
    struct token_index index;
    struct pretokenizer *pretokenizer; /* owned; BPE */
    struct bpe *bpe;                   /* owned; BPE */
    struct spm *spm;                   /* owned; SentencePiece */
    struct special_trie special;       /* control and markup: encode_special() only */
    struct special_trie defined;       /* user-defined, found in any text */
    struct buffer shown;               /* the bytes of all tokens, one after another */
    uint32_t *shown_ends;              /* owned; [token_count] */
    uint32_t token_bytes_max;
    uint32_t end_ids[END_COUNT_MAX]; /* ascending */
    uint32_t end_count;
};

struct tokenizer_scratch {
    struct merger merger;
    struct pretokenizer_match *match; /* owned; BPE */
    struct buffer normal;
};

/* One call of encode. */
struct job {
    const struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    struct token_sink sink;
};

static enum status check_vocabulary(const struct vocabulary *vocabulary, struct error *error)
{
    if (vocabulary->token_count == 0) {
        return error_set(error, STATUS_BAD_INPUT, "tokenizer.ggml.tokens: the vocabulary is empty");
    }
    if (vocabulary->token_count > VOCABULARY_COUNT_MAX) {
        return error_set_limit(error, "VOCABULARY_COUNT_MAX", VOCABULARY_COUNT_MAX,
                               "tokenizer.ggml.tokens: %u tokens are too many",
                               vocabulary->token_count);
    }
    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        if (vocabulary->tokens[id].size > TOKEN_BYTES_MAX) {
            return error_set_limit(error, "TOKEN_BYTES_MAX", TOKEN_BYTES_MAX,
                                   "tokenizer.ggml.tokens: token %u has %zu bytes", id,
                                   vocabulary->tokens[id].size);
        }
    }
    return STATUS_OK;
}

/* A name in the byte alphabet becomes its bytes; one that is not written in it stands for itself,
 * as added tokens do. */
static enum status show_bpe(struct bytes name, struct buffer *shown)
{
    const size_t start = shown->size;

    for (size_t at = 0; at < name.size;) {
        uint32_t code_point;
        uint8_t byte;
        const size_t size = utf8_decode(bytes_of(name.data + at, name.size - at), &code_point);

        if (size == 0 || !byte_alphabet_byte(code_point, &byte)) {
            shown->size = start;
            return buffer_append(shown, name);
        }
        TRY(buffer_append(shown, bytes_of(&byte, 1)));
        at += size;
    }
    return STATUS_OK;
}

static enum status show_spm(struct bytes name, struct buffer *shown)
{
    for (size_t at = 0; at < name.size;) {
        const bool space = name.size - at >= SPACE_BYTES &&
                           memcmp(name.data + at, written_space, SPACE_BYTES) == 0;
        TRY(buffer_append(shown, space ? bytes_of(" ", 1) : bytes_of(name.data + at, 1)));
        at += space ? SPACE_BYTES : 1;
    }
    return STATUS_OK;
}

/* "<0x0A>" */
static enum status show_byte(struct bytes name, struct buffer *shown)
{
    uint8_t byte = 0;

    if (name.size != 6 || memcmp(name.data, "<0x", 3) != 0) {
        return STATUS_OK;
    }
    for (size_t i = 3; i < 5; i++) {
        const char *digits = "0123456789ABCDEF";
        const char *digit = memchr(digits, name.data[i], 16);
        if (digit == NULL) {
            return STATUS_OK;
        }
        byte = (uint8_t)(byte << 4 | (digit - digits));
    }
    return buffer_append(shown, bytes_of(&byte, 1));
}

static enum status show_token(const struct vocabulary *vocabulary, uint32_t id,
                              struct buffer *shown)
{
    const struct bytes name = vocabulary->tokens[id];
    const bool spm = vocabulary->kind == VOCABULARY_SPM;

    switch (vocabulary->types[id]) {
    case TOKEN_NORMAL:
        return spm ? show_spm(name, shown) : show_bpe(name, shown);
    case TOKEN_USER_DEFINED:
        return spm ? show_spm(name, shown) : buffer_append(shown, name);
    case TOKEN_BYTE:
        return show_byte(name, shown);
    default: /* control, unknown, unused: nothing that a reader should see */
        return STATUS_OK;
    }
}

static enum status show_tokens(struct tokenizer *tokenizer)
{
    const struct vocabulary *vocabulary = tokenizer->vocabulary;

    tokenizer->shown_ends = memory_alloc(vocabulary->token_count, sizeof *tokenizer->shown_ends);
    if (tokenizer->shown_ends == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const size_t start = tokenizer->shown.size;
        size_t size;
        TRY(show_token(vocabulary, id, &tokenizer->shown));
        size = tokenizer->shown.size - start;
        tokenizer->shown_ends[id] = (uint32_t)tokenizer->shown.size;
        if (size > tokenizer->token_bytes_max) {
            tokenizer->token_bytes_max = (uint32_t)size;
        }
    }
    return STATUS_OK;
}

static enum status add_specials(struct tokenizer *tokenizer)
{
    const struct vocabulary *vocabulary = tokenizer->vocabulary;

    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const uint8_t type = vocabulary->types[id];
        if (type == TOKEN_USER_DEFINED && token_index_is_text(vocabulary, id)) {
            TRY(special_trie_add(&tokenizer->defined, vocabulary->tokens[id], id));
        } else if (type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED) {
            TRY(special_trie_add(&tokenizer->special, vocabulary->tokens[id], id));
        }
    }
    return STATUS_OK;
}

static void add_end(struct tokenizer *tokenizer, uint32_t id)
{
    uint32_t at = tokenizer->end_count;

    if (id >= tokenizer->vocabulary->token_count || tokenizer_is_end(tokenizer, id)) {
        return;
    }
    CHECK(at < END_COUNT_MAX);
    while (at > 0 && tokenizer->end_ids[at - 1] > id) {
        tokenizer->end_ids[at] = tokenizer->end_ids[at - 1];
        at--;
    }
    tokenizer->end_ids[at] = id;
    tokenizer->end_count++;
}

static void find_ends(struct tokenizer *tokenizer)
{
    const struct vocabulary *vocabulary = tokenizer->vocabulary;

    add_end(tokenizer, vocabulary->eos);
    add_end(tokenizer, vocabulary->eot);
    add_end(tokenizer, vocabulary->eom);
    for (uint32_t i = 0; i < vocabulary->end_count; i++) {
        add_end(tokenizer, vocabulary->ends[i]);
    }
    for (size_t i = 0; i < sizeof end_names / sizeof end_names[0]; i++) {
        const uint32_t id = tokenizer_find(tokenizer, bytes_of_text(end_names[i]));
        /* A plain word that happens to be written so ends nothing. */
        if (id != TOKEN_NONE && (vocabulary->types[id] == TOKEN_CONTROL ||
                                 vocabulary->types[id] == TOKEN_USER_DEFINED)) {
            add_end(tokenizer, id);
        }
    }
}

static enum status build(struct tokenizer *tokenizer, struct error *error)
{
    const struct vocabulary *vocabulary = tokenizer->vocabulary;

    TRY(token_index_init(&tokenizer->index, vocabulary));
    if (vocabulary->kind == VOCABULARY_SPM) {
        TRY(spm_create(&tokenizer->index, error, &tokenizer->spm));
    } else {
        TRY(pretokenizer_create(vocabulary->pre, error, &tokenizer->pretokenizer));
        TRY(bpe_create(&tokenizer->index, error, &tokenizer->bpe));
    }
    TRY(show_tokens(tokenizer));
    TRY(add_specials(tokenizer));
    find_ends(tokenizer);
    return STATUS_OK;
}

enum status tokenizer_create(const struct vocabulary *vocabulary, struct error *error,
                             struct tokenizer **out)
{
    struct tokenizer *tokenizer;
    enum status status;

    TRY(check_vocabulary(vocabulary, error));
    tokenizer = memory_alloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        return STATUS_MEMORY;
    }
    tokenizer->vocabulary = vocabulary;
    special_trie_init(&tokenizer->special);
    special_trie_init(&tokenizer->defined);
    buffer_init(&tokenizer->shown, UINT32_MAX);
    status = build(tokenizer, error);
    if (status == STATUS_OK) {
        *out = tokenizer;
        return STATUS_OK;
    }
    tokenizer_destroy(tokenizer);
    return status;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    token_index_finish(&tokenizer->index);
    pretokenizer_destroy(tokenizer->pretokenizer);
    bpe_destroy(tokenizer->bpe);
    spm_destroy(tokenizer->spm);
    special_trie_finish(&tokenizer->special);
    special_trie_finish(&tokenizer->defined);
    buffer_finish(&tokenizer->shown);
    memory_free(tokenizer->shown_ends);
    memory_free(tokenizer);
}

enum status tokenizer_scratch_create(const struct tokenizer *tokenizer,
                                     struct tokenizer_scratch **out)
{
    struct tokenizer_scratch *scratch = memory_alloc(1, sizeof *scratch);
    enum status status = STATUS_MEMORY;

    if (scratch == NULL) {
        return STATUS_MEMORY;
    }
    merger_init(&scratch->merger);
    buffer_init(&scratch->normal, NORMAL_BYTES_MAX);
    /* Room for short texts from the start: the engine's never allocate. */
    status = merger_clear(&scratch->merger, TOKEN_BYTES_MAX);
    if (status == STATUS_OK) {
        status = buffer_reserve(&scratch->normal, (size_t)SPACE_BYTES * TOKEN_BYTES_MAX);
    }
    if (status == STATUS_OK && tokenizer->pretokenizer != NULL) {
        status = pretokenizer_match_create(tokenizer->pretokenizer, &scratch->match);
    }
    if (status == STATUS_OK) {
        *out = scratch;
        return STATUS_OK;
    }
    tokenizer_scratch_destroy(scratch);
    return status;
}

void tokenizer_scratch_destroy(struct tokenizer_scratch *scratch)
{
    if (scratch == NULL) {
        return;
    }
    merger_finish(&scratch->merger);
    pretokenizer_match_destroy(scratch->match);
    buffer_finish(&scratch->normal);
    memory_free(scratch);
}

const struct vocabulary *tokenizer_vocabulary(const struct tokenizer *tokenizer)
{
    return tokenizer->vocabulary;
}

static enum status on_piece(void *context, struct bytes piece)
{
    struct job *job = context;

    return bpe_encode(job->tokenizer->bpe, &job->scratch->merger, piece,
                      pretokenizer_takes_whole(job->tokenizer->pretokenizer), &job->sink);
}

/* Text in which no token is written out. */
static enum status encode_rest(struct job *job, struct bytes text)
{
    if (job->tokenizer->spm != NULL) {
        return spm_encode(job->tokenizer->spm, &job->scratch->merger, text, &job->sink);
    }
    return pretokenizer_split(job->tokenizer->pretokenizer, job->scratch->match, text, on_piece,
                              job);
}

/* Spaces as the vocabulary writes them, and the one in front. */
static enum status write_spaces(const struct vocabulary *vocabulary, struct bytes text,
                                bool at_start, struct buffer *out)
{
    const struct bytes space = bytes_of(written_space, SPACE_BYTES);
    size_t at = 0;

    out->size = 0;
    if (at_start && vocabulary->add_space_prefix && text.size > 0) {
        TRY(buffer_append(out, space));
    }
    while (at < text.size) {
        const uint8_t *next = memchr(text.data + at, ' ', text.size - at);
        const size_t size = next == NULL ? text.size - at : (size_t)(next - text.data) - at;
        TRY(buffer_append(out, bytes_of(text.data + at, size)));
        if (next != NULL) {
            TRY(buffer_append(out, space));
        }
        at += size + 1;
    }
    return STATUS_OK;
}

/* Text between special tokens. */
static enum status encode_segment(struct job *job, struct bytes text, bool at_start)
{
    const struct tokenizer *tokenizer = job->tokenizer;
    struct bytes normal = text;
    size_t at = 0, offset = 0, size = 0;
    uint32_t id = TOKEN_NONE;

    if (tokenizer->spm != NULL) {
        TRY(write_spaces(tokenizer->vocabulary, text, at_start, &job->scratch->normal));
        normal = buffer_bytes(&job->scratch->normal);
    } else if (pretokenizer_wants_nfc(tokenizer->pretokenizer)) {
        TRY(normalizer_compose(text, &job->scratch->normal, &normal));
    }
    while (special_trie_find(&tokenizer->defined, normal, at, &offset, &size, &id)) {
        TRY(encode_rest(job, bytes_of(normal.data + at, offset - at)));
        TRY(token_sink_push(&job->sink, id));
        at = offset + size;
    }
    return at == normal.size ? STATUS_OK
                             : encode_rest(job, bytes_of(normal.data + at, normal.size - at));
}

static enum status check_text(struct bytes text)
{
    if (text.size > TEXT_BYTES_MAX) {
        return STATUS_LIMIT;
    }
    return utf8_is_valid(text) ? STATUS_OK : STATUS_BAD_INPUT;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                             struct bytes text, bool at_start, uint32_t *ids, uint32_t count_max,
                             uint32_t *count)
{
    struct job job = {tokenizer, scratch, {ids, *count, count_max}};

    TRY(check_text(text));
    if (text.size == 0) {
        return STATUS_OK;
    }
    TRY(encode_segment(&job, text, at_start));
    *count = job.sink.count;
    return STATUS_OK;
}

enum status tokenizer_encode_special(const struct tokenizer *tokenizer,
                                     struct tokenizer_scratch *scratch, struct bytes text,
                                     bool at_start, uint32_t *ids, uint32_t count_max,
                                     uint32_t *count)
{
    struct job job = {tokenizer, scratch, {ids, *count, count_max}};
    size_t at = 0, offset = 0, size = 0;
    uint32_t id = TOKEN_NONE;

    TRY(check_text(text));
    if (text.size == 0) {
        return STATUS_OK;
    }
    while (special_trie_find(&tokenizer->special, text, at, &offset, &size, &id)) {
        if (offset > at) {
            TRY(encode_segment(&job, bytes_of(text.data + at, offset - at), at_start));
        }
        TRY(token_sink_push(&job.sink, id));
        at = offset + size;
        at_start = true;
    }
    if (at < text.size) {
        TRY(encode_segment(&job, bytes_of(text.data + at, text.size - at), at_start));
    }
    *count = job.sink.count;
    return STATUS_OK;
}

enum status tokenizer_encode_bytes(const struct tokenizer *tokenizer,
                                   struct tokenizer_scratch *scratch, struct bytes bytes,
                                   uint32_t *ids, uint32_t count_max, uint32_t *count)
{
    struct token_sink sink = {ids, *count, count_max};

    if (bytes.size > TEXT_BYTES_MAX) {
        return STATUS_LIMIT;
    }
    if (tokenizer->spm != NULL) {
        TRY(spm_encode_raw(tokenizer->spm, &scratch->merger, bytes, &scratch->normal, &sink));
    } else if (bpe_covers(tokenizer->bpe, bytes)) {
        TRY(bpe_encode(tokenizer->bpe, &scratch->merger, bytes, false, &sink));
    } else {
        return STATUS_NOT_FOUND;
    }
    *count = sink.count;
    return STATUS_OK;
}

struct bytes tokenizer_token_bytes(const struct tokenizer *tokenizer, uint32_t id)
{
    uint32_t start;

    if (id >= tokenizer->vocabulary->token_count) {
        return bytes_of(NULL, 0);
    }
    start = id == 0 ? 0 : tokenizer->shown_ends[id - 1];
    return bytes_of(tokenizer->shown.data + start, tokenizer->shown_ends[id] - start);
}

struct bytes tokenizer_token_name(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocabulary->token_count ? tokenizer->vocabulary->tokens[id]
                                                   : bytes_of(NULL, 0);
}

uint32_t tokenizer_find(const struct tokenizer *tokenizer, struct bytes name)
{
    return token_index_find(&tokenizer->index, name);
}

bool tokenizer_is_end(const struct tokenizer *tokenizer, uint32_t id)
{
    for (uint32_t i = 0; i < tokenizer->end_count; i++) {
        if (tokenizer->end_ids[i] == id) {
            return true;
        }
    }
    return false;
}

const uint32_t *tokenizer_end_ids(const struct tokenizer *tokenizer, uint32_t *count)
{
    *count = tokenizer->end_count;
    return tokenizer->end_ids;
}

uint32_t tokenizer_token_bytes_max(const struct tokenizer *tokenizer)
{
    return tokenizer->token_bytes_max;
}
