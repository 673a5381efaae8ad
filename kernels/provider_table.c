#include "kernels/provider_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"

enum {
    VERSION = 1,
    WORD_COUNT_MAX = 8,
    WORD_BYTES_MAX = 160,
    RULE_WORD_COUNT = 5,
    LIBRARY_WORD_COUNT = 7,
    LIBRARY_VERSION_MAX = 9999999,
    WORD_DIGITS = 16, /* of a word of an algorithm */
    OUTPUTS_MAX = 1 << 24,
};

static const char *const type_names[] = {
#define X(name) #name,
    PROVIDER_TYPE_MAP(X)
#undef X
};

static const char *const provider_names[] = {"mma", "wgmma", "cublaslt", "unpacked"};

enum { TYPE_COUNT = sizeof type_names / sizeof type_names[0] };

_Static_assert(sizeof provider_names / sizeof provider_names[0] == PROVIDER_COUNT, "one each");

const char *provider_name(enum provider provider)
{
    CHECK((uint32_t)provider < PROVIDER_COUNT);
    return provider_names[provider];
}

const char *provider_type_name(uint32_t type)
{
    return type < TYPE_COUNT ? type_names[type] : NULL;
}

enum status provider_type_parse(const char *name, uint32_t *out)
{
    for (uint32_t i = 0; i < TYPE_COUNT; i++) {
        if (strcmp(type_names[i], name) == 0) {
            *out = i;
            return STATUS_OK;
        }
    }
    return STATUS_NOT_FOUND;
}

/* ---- rules in their order ---- */

static int compare_numbers(uint32_t a, uint32_t b)
{
    return a < b ? -1 : a > b;
}

static int rule_compare(const struct provider_rule *a, const struct provider_rule *b)
{
    int order = compare_numbers(a->type, b->type);

    order = order != 0 ? order : compare_numbers(a->outputs, b->outputs);
    return order != 0 ? order : compare_numbers(a->cols, b->cols);
}

static enum status rule_insert(struct provider_table *table, const struct provider_rule *rule,
                               struct error *error)
{
    uint32_t at = 0;

    while (at < table->rule_count && rule_compare(&table->rules[at], rule) < 0) {
        at++;
    }
    if (at < table->rule_count && rule_compare(&table->rules[at], rule) == 0) {
        return error_set(error, STATUS_BAD_INPUT, "%s %u %u has a rule already",
                         type_names[rule->type], rule->outputs, rule->cols);
    }
    if (table->rule_count == PROVIDER_RULE_COUNT_MAX) {
        return error_set_limit(error, "PROVIDER_RULE_COUNT_MAX", PROVIDER_RULE_COUNT_MAX,
                               "a table has at most %d rules", PROVIDER_RULE_COUNT_MAX);
    }
    memmove(&table->rules[at + 1], &table->rules[at],
            (table->rule_count - at) * sizeof table->rules[0]);
    table->rules[at] = *rule;
    table->rule_count++;
    return STATUS_OK;
}

const struct provider_rule *provider_table_find(const struct provider_table *table, uint32_t type,
                                                uint32_t outputs, uint32_t cols, uint32_t row_count)
{
    const struct provider_rule wanted = {.type = type, .outputs = outputs, .cols = cols};

    for (uint32_t i = 0; table != NULL && i < table->rule_count; i++) {
        const struct provider_rule *rule = &table->rules[i];
        if (rule_compare(rule, &wanted) == 0) {
            return row_count >= rule->rows_min ? rule : NULL;
        }
    }
    return NULL;
}

/* What a rule says of the library, or "". */
static void library_format(const struct provider_rule *rule, char *text, size_t size_bytes)
{
    int size = 0;

    text[0] = '\0';
    if (rule->provider != PROVIDER_CUBLASLT) {
        return;
    }
    size = snprintf(text, size_bytes, " %u ", rule->version);
    for (uint32_t i = 0; i < PROVIDER_ALGORITHM_WORDS; i++) {
        size += snprintf(text + size, size_bytes - (size_t)size, "%016" PRIx64,
                         rule->algorithm.words[i]);
    }
}

size_t provider_rule_format(const struct provider_rule *rule, char *line, size_t size_bytes)
{
    char library[PROVIDER_LINE_BYTES_MAX];

    library_format(rule, library, sizeof library);
    const int size =
        snprintf(line, size_bytes, "%s %u %u %s %u%s\n", type_names[rule->type], rule->outputs,
                 rule->cols, provider_names[rule->provider], rule->rows_min, library);
    CHECK(size > 0 && (size_t)size < size_bytes);
    return (size_t)size;
}

/* FNV-1a, 64 bits: it tells tables apart, and guards against nobody. */
static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint64_t table_digest(const struct provider_table *table)
{
    char line[PROVIDER_LINE_BYTES_MAX];
    const int size = snprintf(line, sizeof line, "%u\n", table->architecture);
    uint64_t hash = hash_bytes(UINT64_C(0xcbf29ce484222325), line, (size_t)size);

    for (uint32_t i = 0; i < table->rule_count; i++) {
        hash = hash_bytes(hash, line, provider_rule_format(&table->rules[i], line, sizeof line));
    }
    return hash;
}

/* ---- words of a line ---- */

struct line {
    uint32_t word_count;
    char words[WORD_COUNT_MAX][WORD_BYTES_MAX];
};

static enum status line_split(const char *text, size_t size, struct error *error, struct line *out)
{
    size_t at = 0;

    out->word_count = 0;
    while (at < size) {
        size_t end = at;
        while (end < size && text[end] != ' ' && text[end] != '\t') {
            if (text[end] < '!' || text[end] > '~') {
                return error_set(error, STATUS_BAD_INPUT,
                                 "byte %u of the line is 0x%02x; words "
                                 "are of ASCII letters, digits and signs",
                                 (unsigned)end, (unsigned)(uint8_t)text[end]);
            }
            end++;
        }
        if (end == at) {
            at++;
            continue;
        }
        if (out->word_count == WORD_COUNT_MAX || end - at >= WORD_BYTES_MAX) {
            return error_set(error, STATUS_BAD_INPUT, "it has too many words, or too long a one");
        }
        memcpy(out->words[out->word_count], text + at, end - at);
        out->words[out->word_count][end - at] = '\0';
        out->word_count++;
        at = end;
    }
    return STATUS_OK;
}

static enum status number_parse(const char *what, const char *word, uint32_t most,
                                struct error *error, uint32_t *out)
{
    uint64_t number = 0;
    size_t i = 0;

    for (; word[i] >= '0' && word[i] <= '9' && number <= most; i++) {
        number = number * 10 + (uint64_t)(word[i] - '0');
    }
    if (word[i] != '\0' || word[0] == '0' || number > most) {
        return error_set(error, STATUS_BAD_INPUT, "%s: '%s' is not a number from 1 to %u", what,
                         word, most);
    }
    *out = (uint32_t)number;
    return STATUS_OK;
}

/* ---- lines ---- */

static enum status title_parse(const struct line *line, struct error *error)
{
    static const char *const words[] = {"personad", "gpu", "providers", "1"};

    for (uint32_t i = 0; i < 4; i++) {
        if (line->word_count != 4 || strcmp(line->words[i], words[i]) != 0) {
            return error_set(error, STATUS_BAD_INPUT,
                             "a table of providers begins with 'personad gpu providers %d'",
                             VERSION);
        }
    }
    return STATUS_OK;
}

static enum status card_parse(const struct line *line, struct error *error, uint32_t *out)
{
    if (line->word_count != 2 || strcmp(line->words[0], "card") != 0 ||
        strncmp(line->words[1], "sm_", 3) != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the second line names the card, such as 'card sm_90'");
    }
    return number_parse("the card", line->words[1] + 3, 999, error, out);
}

static enum status provider_parse(const char *word, uint32_t architecture, struct error *error,
                                  enum provider *out)
{
    for (uint32_t i = PROVIDER_MMA + 1; i < PROVIDER_COUNT; i++) {
        if (strcmp(word, provider_names[i]) != 0) {
            continue;
        }
        if (i != PROVIDER_CUBLASLT && architecture != PROVIDER_WGMMA_ARCHITECTURE) {
            return error_set(error, STATUS_BAD_INPUT, "%s is for sm_%d alone, not for sm_%u",
                             provider_names[i], PROVIDER_WGMMA_ARCHITECTURE, architecture);
        }
        *out = (enum provider)i;
        return STATUS_OK;
    }
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s' is no provider: it may be wgmma, unpacked or cublaslt; mma computes "
                     "what no line names",
                     word);
}

static enum status algorithm_parse(const char *word, struct error *error,
                                   struct provider_algorithm *out)
{
    const size_t count = (size_t)PROVIDER_ALGORITHM_WORDS * WORD_DIGITS;

    if (strlen(word) != count || strspn(word, "0123456789abcdef") != count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "an algorithm of cublaslt is %u digits of 0 to 9 and a to f",
                         (unsigned)count);
    }
    for (uint32_t i = 0; i < PROVIDER_ALGORITHM_WORDS; i++) {
        char digits[WORD_DIGITS + 1] = "";

        memcpy(digits, word + (size_t)i * WORD_DIGITS, WORD_DIGITS);
        out->words[i] = strtoull(digits, NULL, 16);
    }
    return STATUS_OK;
}

static bool type_is_plain(uint32_t type)
{
    return strcmp(type_names[type], "BF16") == 0 || strcmp(type_names[type], "F16") == 0;
}

/* What follows the rows of a rule for cublaslt. */
static enum status library_parse(const struct line *line, struct error *error,
                                 struct provider_rule *rule)
{
    const char *type = type_names[rule->type];

    if (!type_is_plain(rule->type)) {
        return error_set(error, STATUS_BAD_INPUT, "cublaslt multiplies BF16 and F16, not %s", type);
    }
    TRY(number_parse("version", line->words[5], LIBRARY_VERSION_MAX, error, &rule->version));
    return algorithm_parse(line->words[6], error, &rule->algorithm);
}

static enum status rule_parse(const struct line *line, uint32_t architecture, struct error *error,
                              struct provider_rule *out)
{
    const bool of_library = line->word_count > 3 && strcmp(line->words[3], "cublaslt") == 0;
    struct provider_rule rule = {0};

    if (line->word_count !=
        (of_library ? (uint32_t)LIBRARY_WORD_COUNT : (uint32_t)RULE_WORD_COUNT)) {
        return error_set(error, STATUS_BAD_INPUT, "%u words where a rule has %s", line->word_count,
                         of_library ? "seven: TYPE OUTPUTS COLUMNS cublaslt ROWS VERSION ALGORITHM"
                                    : "five: TYPE OUTPUTS COLUMNS PROVIDER ROWS");
    }
    if (provider_type_parse(line->words[0], &rule.type) != STATUS_OK) {
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is none of the types in which a card holds matrices: BF16, F16, "
                         "Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, FP8",
                         line->words[0]);
    }
    TRY(number_parse("outputs", line->words[1], OUTPUTS_MAX, error, &rule.outputs));
    TRY(number_parse("columns", line->words[2], OUTPUTS_MAX, error, &rule.cols));
    TRY(provider_parse(line->words[3], architecture, error, &rule.provider));
    TRY(number_parse("rows", line->words[4], PROVIDER_ROWS_MAX, error, &rule.rows_min));
    if (of_library) {
        TRY(library_parse(line, error, &rule));
    }
    if (rule.provider == PROVIDER_UNPACKED && type_is_plain(rule.type)) {
        return error_set(error, STATUS_BAD_INPUT, "%s has nothing to unpack: it may be wgmma's",
                         type_names[rule.type]);
    }
    *out = rule;
    return STATUS_OK;
}

/* `said` counts the lines before this one that said something. */
static enum status line_take(const struct line *line, uint32_t said, struct error *error,
                             struct provider_table *table)
{
    struct provider_rule rule;

    if (said == 0) {
        return title_parse(line, error);
    }
    if (said == 1) {
        return card_parse(line, error, &table->architecture);
    }
    TRY(rule_parse(line, table->architecture, error, &rule));
    return rule_insert(table, &rule, error);
}

enum status provider_table_parse(const char *text, size_t size_bytes, struct error *error,
                                 struct provider_table *out)
{
    struct provider_table table = {0};
    uint32_t said = 0, number = 0;
    size_t at = 0;

    while (at < size_bytes) {
        const char *end = memchr(text + at, '\n', size_bytes - at);
        const size_t size = end == NULL ? size_bytes - at : (size_t)(end - (text + at));
        struct line line = {0};
        enum status status = STATUS_OK;

        number++;
        if (size > 0 && text[at] != '#') {
            status = line_split(text + at, size, error, &line);
        }
        if (status == STATUS_OK && line.word_count > 0) {
            status = line_take(&line, said, error, &table);
            said++;
        }
        if (status != STATUS_OK) {
            error_prefix(error, "line %u", number);
            return status;
        }
        at += size + 1;
    }
    if (said < 2) {
        return error_set(error, STATUS_BAD_INPUT,
                         "it ends before it has named itself and its card: 'personad gpu "
                         "providers %d', then 'card sm_90'",
                         VERSION);
    }
    table.digest = table_digest(&table);
    *out = table;
    return STATUS_OK;
}

static enum status file_read(FILE *file, char *text, struct error *error,
                             struct provider_table *out)
{
    const size_t size = fread(text, 1, PROVIDER_TEXT_BYTES_MAX + 1, file);

    if (ferror(file) != 0) {
        return error_set(error, STATUS_IO, "%s", strerror(errno));
    }
    if (size > PROVIDER_TEXT_BYTES_MAX) {
        return error_set_limit(error, "PROVIDER_TEXT_BYTES_MAX", PROVIDER_TEXT_BYTES_MAX,
                               "it is longer than %d bytes: no table of providers",
                               PROVIDER_TEXT_BYTES_MAX);
    }
    return provider_table_parse(text, size, error, out);
}

enum status provider_table_read(const char *path, struct error *error, struct provider_table *out)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return error_set(error, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", path,
                         strerror(errno));
    }
    char *text = memory_alloc(PROVIDER_TEXT_BYTES_MAX + 1, 1);
    const enum status status = text == NULL ? error_set(error, STATUS_MEMORY, "out of memory")
                                            : file_read(file, text, error, out);
    if (status != STATUS_OK) {
        error_prefix(error, "%s", path);
    }
    memory_free(text);
    (void)fclose(file);
    return status;
}
