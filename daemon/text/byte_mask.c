#include "text/byte_mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"

struct entry {
    struct bytes bytes; /* borrowed from the tokenizer; not empty */
    uint32_t id;
};

struct byte_mask {
    const struct tokenizer *tokenizer;
    uint32_t *ids; /* owned: of tokens with bytes, by these, then by id */
    uint32_t count;
    uint32_t vocabulary_count;
};

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    const size_t size = a->bytes.size < b->bytes.size ? a->bytes.size : b->bytes.size;
    const int order = memcmp(a->bytes.data, b->bytes.data, size);

    if (order != 0) {
        return order;
    }
    if (a->bytes.size != b->bytes.size) {
        return a->bytes.size < b->bytes.size ? -1 : 1;
    }
    return a->id < b->id ? -1 : a->id > b->id;
}

/* All tokens that may stand in a text; how many. */
static uint32_t list_entries(const struct tokenizer *tokenizer, uint32_t vocabulary_count,
                             struct entry *entries)
{
    uint32_t count = 0;

    for (uint32_t id = 0; id < vocabulary_count; id++) {
        const struct bytes bytes = tokenizer_token_bytes(tokenizer, id);

        if (bytes.size > 0 && !tokenizer_is_end(tokenizer, id)) {
            entries[count++] = (struct entry){bytes, id};
        }
    }
    return count;
}

enum status byte_mask_create(const struct tokenizer *tokenizer, struct byte_mask **out)
{
    const uint32_t vocabulary_count = tokenizer_vocabulary(tokenizer)->token_count;
    struct entry *entries = memory_alloc(vocabulary_count, sizeof(*entries));
    struct byte_mask *mask = memory_alloc(1, sizeof(*mask));

    if (mask != NULL) {
        mask->ids = memory_alloc(vocabulary_count, sizeof(*mask->ids));
    }
    if (entries == NULL || mask == NULL || mask->ids == NULL) {
        memory_free(entries);
        byte_mask_destroy(mask);
        return STATUS_MEMORY;
    }
    mask->tokenizer = tokenizer;
    mask->vocabulary_count = vocabulary_count;
    mask->count = list_entries(tokenizer, vocabulary_count, entries);
    qsort(entries, mask->count, sizeof(*entries), compare);
    for (uint32_t i = 0; i < mask->count; i++) {
        mask->ids[i] = entries[i].id;
    }
    memory_free(entries);
    *out = mask;
    return STATUS_OK;
}

void byte_mask_destroy(struct byte_mask *mask)
{
    if (mask != NULL) {
        memory_free(mask->ids);
        memory_free(mask);
    }
}

uint32_t byte_mask_word_count(const struct byte_mask *mask)
{
    return (mask->vocabulary_count + 31) / 32;
}

static struct bytes bytes_at(const struct byte_mask *mask, uint32_t at)
{
    return tokenizer_token_bytes(mask->tokenizer, mask->ids[at]);
}

static void allow(uint32_t *words, uint32_t id)
{
    words[id / 32] |= 1u << id % 32;
}

/* The tokens whose bytes begin with the same `depth` bytes of a text. */
struct range {
    uint32_t first, end;
};

/* The first token of the range whose byte at `depth` is at least `value`; shorter ones come first,
 * and have none. */
static uint32_t lower_bound(const struct byte_mask *mask, struct range range, size_t depth,
                            uint32_t value)
{
    while (range.first < range.end) {
        const uint32_t middle = range.first + (range.end - range.first) / 2;
        const struct bytes bytes = bytes_at(mask, middle);

        if (bytes.size <= depth || bytes.data[depth] < value) {
            range.first = middle + 1;
        } else {
            range.end = middle;
        }
    }
    return range.first;
}

static struct range narrow(const struct byte_mask *mask, struct range range, size_t depth,
                           uint8_t value)
{
    return (struct range){lower_bound(mask, range, depth, value),
                          lower_bound(mask, range, depth, (uint32_t)value + 1)};
}

void byte_mask_allow_within(const struct byte_mask *mask, struct bytes rest, uint32_t *words)
{
    struct range range = {0, mask->count};

    for (size_t depth = 0; depth < rest.size && range.first < range.end; depth++) {
        range = narrow(mask, range, depth, rest.data[depth]);
        /* Those that end here stand first. */
        for (uint32_t i = range.first; i < range.end && bytes_at(mask, i).size == depth + 1; i++) {
            allow(words, mask->ids[i]);
        }
    }
}

void byte_mask_allow_beyond(const struct byte_mask *mask, struct bytes rest, uint32_t *words)
{
    struct range range = {0, mask->count};

    CHECK(rest.size > 0);
    for (size_t depth = 0; depth < rest.size && range.first < range.end; depth++) {
        range = narrow(mask, range, depth, rest.data[depth]);
    }
    for (uint32_t i = range.first; i < range.end; i++) {
        if (bytes_at(mask, i).size > rest.size) {
            allow(words, mask->ids[i]);
        }
    }
}

/* ---- rules ---- */

bool byte_rule_is_spent(const struct byte_rule *rule, size_t text_bytes)
{
    return rule->choice_count == 0 && text_bytes >= rule->forced.size;
}

static struct bytes behind(struct bytes bytes, size_t size)
{
    return bytes_of(bytes.data + size, bytes.size - size);
}

/* What is left of forced + choice after a text that it begins with, in *rest when the text has
 * passed `forced`. False: it does not begin so. */
static bool follows(const struct byte_rule *rule, struct bytes choice, struct bytes text,
                    struct bytes *rest)
{
    const size_t forced = rule->forced.size;

    CHECK(text.size >= forced);
    text = behind(text, forced);
    if (text.size > choice.size ||
        (text.size > 0 && memcmp(text.data, choice.data, text.size) != 0)) {
        return false;
    }
    *rest = behind(choice, text.size);
    return true;
}

static void fill_choices(const struct byte_rule *rule, const struct byte_mask *mask,
                         struct bytes text, uint32_t *words)
{
    uint32_t end_count = 0;
    const uint32_t *ends = tokenizer_end_ids(mask->tokenizer, &end_count);
    struct bytes rest;

    for (uint32_t i = 0; i < rule->choice_count; i++) {
        if (!follows(rule, rule->choices[i], text, &rest)) {
            continue;
        }
        byte_mask_allow_within(mask, rest, words);
        for (uint32_t k = 0; rest.size == 0 && k < end_count; k++) {
            allow(words, ends[k]);
        }
    }
}

bool byte_rule_fill(const struct byte_rule *rule, const struct byte_mask *mask, struct bytes text,
                    uint32_t *words)
{
    const size_t size = byte_mask_word_count(mask) * sizeof(uint32_t);

    if (text.size < rule->forced.size) {
        const struct bytes rest = behind(rule->forced, text.size);

        memset(words, 0, size);
        byte_mask_allow_within(mask, rest, words);
        if (rule->choice_count == 0) {
            byte_mask_allow_beyond(mask, rest, words);
        }
        return false;
    }
    if (byte_rule_is_spent(rule, text.size)) {
        return true;
    }
    memset(words, 0, size);
    fill_choices(rule, mask, text, words);
    return false;
}

bool byte_rule_is_done(const struct byte_rule *rule, struct bytes text)
{
    bool is_whole = false;
    struct bytes rest;

    if (rule->choice_count == 0 || text.size < rule->forced.size) {
        return false;
    }
    for (uint32_t i = 0; i < rule->choice_count; i++) {
        if (follows(rule, rule->choices[i], text, &rest)) {
            if (rest.size > 0) {
                return false;
            }
            is_whole = true;
        }
    }
    return is_whole;
}
