#include "session/card_book.h"

#include <math.h>
#include <string.h>

#include "limits.h"
#include "session/card_settings.h"
#include "text/case_fold.h"

/* Where other programs put an entry: extensions.position. */
enum { POSITION_BEFORE = 0, POSITION_AFTER = 1, POSITION_DEPTH = 4 };
enum { SCAN_DEPTH_DEFAULT = 2, NOTE_DEPTH_DEFAULT = 4 };

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static enum status wrong(struct error *error, size_t entry, const char *key, const char *wanted)
{
    return error_set(error, STATUS_BAD_INPUT,
                     "the card's field \"character_book.entries[%zu].%s\" must be %s", entry, key,
                     wanted);
}

/* A number however it is written, held to what can be meant. */
static int64_t number_of(const json_t *value, int64_t least, int64_t most)
{
    const double number = json_number_value(value);

    if (isnan(number) || number < (double)least) {
        return least;
    }
    return number > (double)most ? most : (int64_t)number;
}

static enum insert_role role_of(const json_t *value)
{
    if (json_is_string(value)) {
        const char *name = json_string_value(value);

        return strcmp(name, "user") == 0        ? INSERT_USER
               : strcmp(name, "assistant") == 0 ? INSERT_PERSONA
                                                : INSERT_SYSTEM;
    }
    return json_is_number(value) ? (enum insert_role)number_of(value, INSERT_SYSTEM, INSERT_PERSONA)
                                 : INSERT_SYSTEM;
}

/* ---- the note ---- */

enum status card_read_note(struct card *card, const json_t *extensions, struct error *error)
{
    const json_t *note = json_object_get(extensions, "depth_prompt");
    const json_t *depth = json_object_get(note, "depth");

    if (is_absent(note)) {
        return STATUS_OK;
    }
    if (!json_is_object(note) || (!is_absent(depth) && !json_is_number(depth))) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the card's field \"extensions.depth_prompt\" must be an object of "
                         "prompt, depth and role");
    }
    card->note.role = role_of(json_object_get(note, "role"));
    card->note.depth =
        is_absent(depth) ? NOTE_DEPTH_DEFAULT : (uint32_t)number_of(depth, 0, INSERT_DEPTH_MAX);
    return card_read_text(card, note, "prompt", error, &card->note.text);
}

/* ---- lore ---- */

static enum status read_flag(const json_t *entry, size_t at, const char *key, bool fallback,
                             struct error *error, bool *out)
{
    const json_t *value = json_object_get(entry, key);

    *out = is_absent(value) ? fallback : json_is_true(value);
    return is_absent(value) || json_is_boolean(value) ? STATUS_OK
                                                      : wrong(error, at, key, "true or false");
}

static enum status read_number(const json_t *object, size_t at, const char *key, int64_t most,
                               struct error *error, bool *has, int64_t *out)
{
    const json_t *value = json_object_get(object, key);

    *has = json_is_number(value);
    if (*has) {
        *out = number_of(value, -most, most);
    }
    return is_absent(value) || *has ? STATUS_OK : wrong(error, at, key, "a number");
}

/* A key as it is compared: without case, unless that counts. */
static enum status fold_key(struct card *card, bool is_case_sensitive, struct bytes *key)
{
    struct buffer folded;
    enum status status;

    if (is_case_sensitive) {
        return STATUS_OK;
    }
    buffer_init(&folded, 4 * (size_t)PERSONA_CARD_BYTES_MAX);
    status = case_fold(*key, &folded);
    if (status == STATUS_OK) {
        *key = bytes_of(arena_copy(&card->arena, folded.data, folded.size), folded.size);
        status = key->data != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    buffer_finish(&folded);
    return status;
}

/* Keys that show something; a list, or (as some write it) one text. */
static enum status read_keys(struct card *card, const json_t *entry, size_t at, const char *key,
                             bool is_case_sensitive, struct error *error, const struct bytes **out,
                             uint32_t *count)
{
    const json_t *value = json_object_get(entry, key);
    const struct bytes *all = NULL;
    struct bytes *kept;
    uint32_t all_count = 0;

    if (!is_absent(value) && !json_is_array(value)) {
        return wrong(error, at, key, "an array of strings");
    }
    TRY(card_read_texts(card, entry, key, LORE_KEY_COUNT_MAX - card->lore_key_count,
                        "LORE_KEY_COUNT_MAX", error, &all, &all_count));
    kept = arena_alloc(&card->arena, all_count, sizeof(*kept));
    if (kept == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a card was read");
    }
    *count = 0;
    for (uint32_t i = 0; i < all_count; i++) {
        if (all[i].size == 0) {
            continue;
        }
        kept[*count] = all[i];
        if (fold_key(card, is_case_sensitive, &kept[(*count)++]) != STATUS_OK) {
            return error_set(error, STATUS_MEMORY, "out of memory while a card was read");
        }
    }
    card->lore_key_count += *count;
    *out = kept;
    return STATUS_OK;
}

static void take_depth(struct card_lore *lore, int64_t depth)
{
    lore->place = CARD_LORE_DEPTH;
    lore->depth = (uint32_t)(depth < 0 ? 0 : depth > INSERT_DEPTH_MAX ? INSERT_DEPTH_MAX : depth);
}

/* position of the format, or what other programs keep in the extensions. */
static enum status read_place(const json_t *entry, size_t at, struct error *error,
                              struct card_lore *lore)
{
    const json_t *position = json_object_get(entry, "position");
    const json_t *extensions = json_object_get(entry, "extensions");
    int64_t where = 0, number = NOTE_DEPTH_DEFAULT;
    bool has_where = false, has = false;

    lore->place = json_is_string(position) && strcmp(json_string_value(position), "after_char") == 0
                      ? CARD_LORE_AFTER
                      : CARD_LORE_BEFORE;
    if (!json_is_object(extensions)) {
        return STATUS_OK;
    }
    TRY(read_number(extensions, at, "position", INSERT_DEPTH_MAX, error, &has_where, &where));
    TRY(read_number(extensions, at, "depth", INSERT_DEPTH_MAX, error, &has, &number));
    if (has_where && where == POSITION_DEPTH) {
        take_depth(lore, number);
    } else if (has_where && (where == POSITION_BEFORE || where == POSITION_AFTER)) {
        lore->place = where == POSITION_AFTER ? CARD_LORE_AFTER : CARD_LORE_BEFORE;
    }
    lore->role = role_of(json_object_get(extensions, "role"));
    TRY(read_number(extensions, at, "scan_depth", INSERT_DEPTH_MAX, error, &has, &number));
    if (has && number >= 0) {
        lore->has_scan_depth = true;
        lore->scan_depth = (uint32_t)number;
    }
    return STATUS_OK;
}

/* "@@name value": what a text of the third format says of itself. True: it was one. */
static bool take_decorator(struct bytes line, struct card_lore *lore)
{
    char text[64] = "";
    char name[32] = "";
    char value[32] = "";

    if (line.size < 3 || line.data[0] != '@' || line.data[1] != '@') {
        return false;
    }
    memcpy(text, line.data, line.size < sizeof(text) - 1 ? line.size : sizeof(text) - 1);
    if (sscanf(text, "@@%*[@]%31s", name) > 0 || sscanf(text, "@@%31s %31s", name, value) < 1) {
        return true; /* a fallback of one that is understood, or nothing */
    }
    const long number = strtol(value, NULL, 10);

    if (strcmp(name, "depth") == 0) {
        take_depth(lore, number);
    } else if (strcmp(name, "role") == 0) {
        lore->role = strcmp(value, "user") == 0        ? INSERT_USER
                     : strcmp(value, "assistant") == 0 ? INSERT_PERSONA
                                                       : INSERT_SYSTEM;
    } else if (strcmp(name, "scan_depth") == 0) {
        lore->has_scan_depth = true;
        lore->scan_depth = number < 0 ? 0 : (uint32_t)number;
    } else if (strcmp(name, "position") == 0) {
        lore->place = strcmp(value, "before_desc") == 0 ? CARD_LORE_BEFORE : CARD_LORE_AFTER;
    } else if (strcmp(name, "activate") == 0) {
        lore->is_constant = true;
    } else if (strcmp(name, "dont_activate") == 0) {
        lore->is_enabled = false;
    }
    return true;
}

static void take_decorators(struct card_lore *lore)
{
    while (lore->content.size > 0) {
        const uint8_t *end = memchr(lore->content.data, '\n', lore->content.size);
        const size_t size = end == NULL ? lore->content.size : (size_t)(end - lore->content.data);

        if (!take_decorator(bytes_of(lore->content.data, size), lore)) {
            return;
        }
        lore->content = bytes_of(lore->content.data + size + (end != NULL),
                                 lore->content.size - size - (end != NULL));
    }
}

static enum status read_entry(struct card *card, const json_t *entry, size_t at,
                              struct error *error, struct card_lore *lore)
{
    bool is_selective = false, is_expression = false, has = false;

    if (!json_is_object(entry)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the card's field \"character_book.entries[%zu]\" must be an object", at);
    }
    TRY(card_read_text(card, entry, "content", error, &lore->content));
    TRY(read_flag(entry, at, "case_sensitive", false, error, &lore->is_case_sensitive));
    TRY(read_keys(card, entry, at, "keys", lore->is_case_sensitive, error, &lore->keys,
                  &lore->key_count));
    TRY(read_keys(card, entry, at, "secondary_keys", lore->is_case_sensitive, error,
                  &lore->secondary, &lore->secondary_count));
    TRY(read_flag(entry, at, "enabled", true, error, &lore->is_enabled));
    TRY(read_flag(entry, at, "constant", false, error, &lore->is_constant));
    TRY(read_flag(entry, at, "selective", false, error, &is_selective));
    TRY(read_flag(entry, at, "use_regex", false, error, &is_expression));
    TRY(read_number(entry, at, "insertion_order", INT32_MAX, error, &has, &lore->order));
    TRY(read_number(entry, at, "priority", INT32_MAX, error, &has, &lore->priority));
    if (!is_selective) {
        lore->secondary_count = 0;
    }
    if (is_expression) {
        lore->key_count = 0;
    }
    TRY(read_place(entry, at, error, lore));
    take_decorators(lore);
    return STATUS_OK;
}

static enum status read_entries(struct card *card, const json_t *book, struct error *error)
{
    const json_t *entries = json_object_get(book, "entries");
    const size_t count = json_array_size(entries);
    struct card_lore *lore;

    if (!is_absent(entries) && !json_is_array(entries)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the card's field \"character_book.entries\" must be an array");
    }
    if (count > LORE_ENTRY_COUNT_MAX) {
        return error_set_limit(error, "LORE_ENTRY_COUNT_MAX", LORE_ENTRY_COUNT_MAX,
                               "the card's lore has %zu entries, at most %u are taken", count,
                               (unsigned)LORE_ENTRY_COUNT_MAX);
    }
    lore = arena_alloc(&card->arena, count, sizeof(*lore));
    if (lore == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a card was read");
    }
    memset(lore, 0, count * sizeof(*lore));
    for (size_t i = 0; i < count; i++) {
        TRY(read_entry(card, json_array_get(entries, i), i, error, &lore[i]));
    }
    card->lore = lore;
    card->lore_count = (uint32_t)count;
    return STATUS_OK;
}

enum status card_read_book(struct card *card, const json_t *fields, struct error *error)
{
    const json_t *book = json_object_get(fields, "character_book");
    const json_t *scan_depth = json_object_get(book, "scan_depth");
    const json_t *budget = json_object_get(book, "token_budget");

    card->lore_scan_depth = SCAN_DEPTH_DEFAULT;
    if (is_absent(book)) {
        return STATUS_OK;
    }
    if (!json_is_object(book) || (!is_absent(scan_depth) && !json_is_number(scan_depth)) ||
        (!is_absent(budget) && !json_is_number(budget))) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the card's field \"character_book\" must be an object whose scan_depth "
                         "and token_budget are numbers");
    }
    if (json_is_number(scan_depth)) {
        card->lore_scan_depth = (uint32_t)number_of(scan_depth, 0, INSERT_DEPTH_MAX);
    }
    card->has_lore_budget = json_is_number(budget);
    if (card->has_lore_budget) {
        card->lore_budget = (uint32_t)number_of(budget, 0, CONTEXT_TOKEN_COUNT_MAX);
    }
    return read_entries(card, book, error);
}
