/* PCRE2 with its just-in-time compiler; where memory may not be made executable, compilation to
 * machine code is refused and pcre2_match() interprets instead, with the same result.
 *
 * Expressions are written as the models' authors did and rewritten before they are compiled:
 * PCRE2's \s also matches U+180E, which the reference's does not, and its tables know fewer letters
 * and numbers. The newer ones make a class slow, so each expression is compiled twice, and the
 * second form is used only for texts that hold such a character. */
#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>

#include "base/check.h"
#include "base/memory.h"
#include "text/unicode_newer.h"

enum {
    STAGE_COUNT_MAX = 2,
    NAME_COUNT_MAX = 6,
    PATTERN_BYTES_MAX = 8192,
    PROPERTY_BYTES = 5,
    FORM_COUNT = 2, /* plain, newer */
    /* A match costs a few steps a byte at most; this is far above, and ends a runaway. */
    MATCH_STEP_COUNT_MAX = 64 * 1024 * 1024,
};

struct family {
    const char *names[NAME_COUNT_MAX];
    const char *stages[STAGE_COUNT_MAX];
    bool takes_whole;
    bool wants_nfc;
};

/* Each character that counts as a number stands alone. */
#define SINGLE_DIGITS "\\p{N}"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define NEWER_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define NEWER_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct family families[] = {
    {{"gpt-2", "gpt2", "phi-2", "default", ""}, {GPT2}, false, false},
    {{"smollm", "starcoder", "refact"}, {SINGLE_DIGITS, GPT2}, false, false},
    {{"llama-bpe", "llama3", "llama-v3"}, {NEWER_HEAD "\\p{N}{1,3}" NEWER_TAIL}, true, false},
    {{"qwen2"}, {NEWER_HEAD "\\p{N}" NEWER_TAIL}, false, true},
};

struct pretokenizer {
    const struct family *family;
    uint32_t stage_count;
    pcre2_general_context *memory;                  /* owned */
    pcre2_code *codes[STAGE_COUNT_MAX][FORM_COUNT]; /* owned */
};

struct pretokenizer_match {
    pcre2_match_data *data;       /* owned */
    pcre2_match_context *context; /* owned */
};

struct split_job {
    const struct pretokenizer *pretokenizer;
    struct pretokenizer_match *match;
    uint32_t form;
    enum status (*on_piece)(void *context, struct bytes piece);
    void *context;
};

static void *regex_alloc(size_t bytes, void *context)
{
    (void)context;
    return memory_alloc(1, bytes);
}

static void regex_free(void *block, void *context)
{
    (void)context;
    memory_free(block);
}

/* True for a character that an older Unicode does not know as a letter or a number. */
static bool is_newer(uint32_t code_point)
{
    uint32_t low = 0, high = sizeof unicode_newer / sizeof unicode_newer[0];

    if (code_point < unicode_newer[0].first) {
        return false;
    }
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (code_point > unicode_newer[middle].last) {
            low = middle + 1;
        } else if (code_point < unicode_newer[middle].first) {
            high = middle;
        } else {
            return true;
        }
    }
    return false;
}

static bool has_newer(struct bytes text)
{
    size_t at = 0;

    while (at < text.size) {
        uint32_t code_point;
        if (text.data[at] < 0xe1) { /* one byte, two, or three below U+1000: none is newer */
            at += text.data[at] < 0x80 ? 1 : text.data[at] < 0xe0 ? 2 : 3;
            continue;
        }
        at += utf8_decode(bytes_of(text.data + at, text.size - at), &code_point);
        if (is_newer(code_point)) {
            return true;
        }
    }
    return false;
}

/* Writes the ranges of the kinds wanted as the inside of a class. */
static size_t write_ranges(char *out, size_t room, const char *kinds)
{
    size_t size = 0;

    for (size_t i = 0; i < sizeof unicode_newer / sizeof unicode_newer[0]; i++) {
        const struct unicode_range *range = &unicode_newer[i];
        if (strchr(kinds, range->kind) != NULL) {
            size += (size_t)snprintf(out + size, room - size, "\\x{%x}-\\x{%x}",
                                     (unsigned)range->first, (unsigned)range->last);
            CHECK(size < room);
        }
    }
    return size;
}

/* A pattern as it is rewritten. */
struct rewriting {
    char *out; /* [PATTERN_BYTES_MAX] */
    size_t size;
    bool newer;
    bool single_digits;
    bool in_class;
};

static void put_text(struct rewriting *rewriting, const char *text, size_t size)
{
    CHECK(size < PATTERN_BYTES_MAX - rewriting->size);
    memcpy(rewriting->out + rewriting->size, text, size);
    rewriting->size += size;
}

/* \p{L} or \p{N} with the newer characters beside it, as a class unless it stands in one. */
static void put_newer(struct rewriting *rewriting, const char *property, bool is_letter)
{
    const char *kinds = is_letter ? "L" : rewriting->single_digits ? "DN" : "N";

    put_text(rewriting, "[", rewriting->in_class ? 0 : 1);
    put_text(rewriting, property, PROPERTY_BYTES);
    rewriting->size +=
        write_ranges(rewriting->out + rewriting->size, PATTERN_BYTES_MAX - rewriting->size, kinds);
    put_text(rewriting, "]", rewriting->in_class ? 0 : 1);
}

/* \s and \S become exact properties; \p{L} and \p{N} gain the newer characters. Our patterns hold
 * no escaped backslash or bracket, so that the characters at hand decide. */
static void rewrite(const char *pattern, struct rewriting *rewriting)
{
    static const char white[] = "\\p{White_Space}", other[] = "\\P{White_Space}";

    while (*pattern != '\0') {
        const bool is_letter = strncmp(pattern, "\\p{L}", PROPERTY_BYTES) == 0;
        const bool is_number = strncmp(pattern, "\\p{N}", PROPERTY_BYTES) == 0;
        const bool is_space = strncmp(pattern, "\\s", 2) == 0;

        if (is_space || strncmp(pattern, "\\S", 2) == 0) {
            put_text(rewriting, is_space ? white : other, sizeof white - 1);
            pattern += 2;
        } else if (rewriting->newer && (is_letter || is_number)) {
            put_newer(rewriting, pattern, is_letter);
            pattern += PROPERTY_BYTES;
        } else {
            rewriting->in_class = *pattern == '[' || (rewriting->in_class && *pattern != ']');
            put_text(rewriting, pattern++, 1);
        }
    }
    rewriting->out[rewriting->size] = '\0';
}

static enum status compile(struct pretokenizer *pretokenizer, uint32_t stage, uint32_t form)
{
    const char *pattern = pretokenizer->family->stages[stage];
    pcre2_compile_context *context = pcre2_compile_context_create(pretokenizer->memory);
    char rewritten[PATTERN_BYTES_MAX];
    struct rewriting rewriting = {
        .out = rewritten,
        .newer = form == 1,
        .single_digits = strcmp(pattern, SINGLE_DIGITS) == 0,
    };
    PCRE2_SIZE where = 0;
    int failure = 0;
    pcre2_code *code;

    if (context == NULL) {
        return STATUS_MEMORY;
    }
    rewrite(pattern, &rewriting);
    code = pcre2_compile((PCRE2_SPTR)rewritten, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                         &failure, &where, context);
    pcre2_compile_context_free(context);
    if (code == NULL) {
        return STATUS_MEMORY; /* the patterns are ours and tested: nothing else can fail */
    }
    /* Refusal is fine: see the top of this file. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    pretokenizer->codes[stage][form] = code;
    return STATUS_OK;
}

static const struct family *find_family(struct bytes name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        for (size_t k = 0; k < NAME_COUNT_MAX && families[i].names[k] != NULL; k++) {
            if (bytes_equal(bytes_of_text(families[i].names[k]), name)) {
                return &families[i];
            }
        }
    }
    return NULL;
}

enum status pretokenizer_create(struct bytes name, struct error *error, struct pretokenizer **out)
{
    const struct family *family = find_family(name);
    struct pretokenizer *pretokenizer = NULL;
    enum status status = STATUS_MEMORY;

    if (family == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "tokenizer.ggml.pre: the pre-tokeniser '%.*s' is not known; known are "
                         "gpt-2, smollm, starcoder, refact, llama-bpe, llama3 and qwen2",
                         name.size > 64 ? 64 : (int)name.size, (const char *)name.data);
    }
    pretokenizer = memory_alloc(1, sizeof *pretokenizer);
    if (pretokenizer == NULL) {
        goto done;
    }
    pretokenizer->family = family;
    pretokenizer->memory = pcre2_general_context_create(regex_alloc, regex_free, NULL);
    if (pretokenizer->memory == NULL) {
        goto done;
    }
    while (pretokenizer->stage_count < STAGE_COUNT_MAX &&
           family->stages[pretokenizer->stage_count] != NULL) {
        for (uint32_t form = 0; form < FORM_COUNT; form++) {
            status = compile(pretokenizer, pretokenizer->stage_count, form);
            if (status != STATUS_OK) {
                goto done;
            }
        }
        pretokenizer->stage_count++;
    }
    *out = pretokenizer;
    pretokenizer = NULL; /* handed over */
    status = STATUS_OK;
done:
    pretokenizer_destroy(pretokenizer);
    return status;
}

void pretokenizer_destroy(struct pretokenizer *pretokenizer)
{
    if (pretokenizer == NULL) {
        return;
    }
    for (uint32_t i = 0; i < STAGE_COUNT_MAX * FORM_COUNT; i++) {
        pcre2_code_free(pretokenizer->codes[i / FORM_COUNT][i % FORM_COUNT]);
    }
    pcre2_general_context_free(pretokenizer->memory);
    memory_free(pretokenizer);
}

bool pretokenizer_takes_whole(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->family->takes_whole;
}

bool pretokenizer_wants_nfc(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->family->wants_nfc;
}

enum status pretokenizer_match_create(const struct pretokenizer *pretokenizer,
                                      struct pretokenizer_match **out)
{
    struct pretokenizer_match *match = memory_alloc(1, sizeof *match);

    if (match == NULL) {
        return STATUS_MEMORY;
    }
    match->data = pcre2_match_data_create(1, pretokenizer->memory);
    match->context = pcre2_match_context_create(pretokenizer->memory);
    if (match->data == NULL || match->context == NULL) {
        pretokenizer_match_destroy(match);
        return STATUS_MEMORY;
    }
    pcre2_set_match_limit(match->context, MATCH_STEP_COUNT_MAX);
    *out = match;
    return STATUS_OK;
}

void pretokenizer_match_destroy(struct pretokenizer_match *match)
{
    if (match == NULL) {
        return;
    }
    pcre2_match_data_free(match->data);
    pcre2_match_context_free(match->context);
    memory_free(match);
}

static enum status split_stage(const struct split_job *job, uint32_t stage, struct bytes text);

static enum status pass_on(const struct split_job *job, uint32_t stage, struct bytes text,
                           size_t from, size_t to)
{
    const struct bytes piece = bytes_of(text.data + from, to - from);

    if (from == to) {
        return STATUS_OK;
    }
    return stage + 1 < job->pretokenizer->stage_count ? split_stage(job, stage + 1, piece)
                                                      : job->on_piece(job->context, piece);
}

/* Matches and what lies between them are pieces alike. Each piece is a text of its own for the next
 * stage, so that its expression sees an end where this one cut. */
static enum status split_stage(const struct split_job *job, uint32_t stage, struct bytes text)
{
    const pcre2_code *code = job->pretokenizer->codes[stage][job->form];
    size_t at = 0;

    while (at < text.size) {
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(job->match->data);
        size_t from, to;
        const int result = pcre2_match(code, text.data, text.size, at, PCRE2_NO_UTF_CHECK,
                                       job->match->data, job->match->context);

        if (result == PCRE2_ERROR_NOMATCH) {
            return pass_on(job, stage, text, at, text.size);
        }
        if (result < 0) {
            return result == PCRE2_ERROR_NOMEMORY ? STATUS_MEMORY : STATUS_LIMIT;
        }
        from = place[0];
        to = place[1];
        CHECK(from >= at && to > from);
        TRY(pass_on(job, stage, text, at, from));
        TRY(pass_on(job, stage, text, from, to));
        at = to;
    }
    return STATUS_OK;
}

enum status pretokenizer_split(const struct pretokenizer *pretokenizer,
                               struct pretokenizer_match *match, struct bytes text,
                               enum status (*on_piece)(void *context, struct bytes piece),
                               void *context)
{
    const struct split_job job = {pretokenizer, match, has_newer(text) ? 1 : 0, on_piece, context};

    return split_stage(&job, 0, text);
}
