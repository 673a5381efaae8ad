#include "session/card.h"

#include <jansson.h>
#include <string.h>

#include "base/memory.h"
#include "limits.h"
#include "session/card_book.h"
#include "session/card_settings.h"

enum { CARD_ARENA_BYTES_MAX = 8 * PERSONA_CARD_BYTES_MAX };

/* Loop thread only. The library does not say in every case that memory was what it lacked. */
static bool is_short_of_memory;

static void *json_allocate(size_t size)
{
    void *block = memory_alloc(1, size);

    is_short_of_memory = is_short_of_memory || block == NULL;
    return block;
}

const char *card_play_name(enum card_play play)
{
    static const char *const names[] = {"chat", "transcript", "plain"};

    return names[play];
}

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_MEMORY, "out of memory while a card was read");
}

static enum status load(struct bytes json, struct error *error, json_t **out)
{
    json_error_t problem;
    json_t *root;

    json_set_alloc_funcs(json_allocate, memory_free);
    if (json.size > PERSONA_CARD_BYTES_MAX) {
        return error_set_limit(error, "PERSONA_CARD_BYTES_MAX", PERSONA_CARD_BYTES_MAX,
                               "the card has %zu bytes, at most %u are taken", json.size,
                               (unsigned)PERSONA_CARD_BYTES_MAX);
    }
    if (json.size >= 3 && memcmp(json.data, "\xef\xbb\xbf", 3) == 0) {
        json = bytes_of(json.data + 3, json.size - 3); /* a byte order mark, as Windows writes it */
    }
    is_short_of_memory = false;
    root = json_loadb((const char *)json.data, json.size, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL) {
        if (is_short_of_memory) {
            return out_of_memory(error);
        }
        return error_set(error, STATUS_BAD_INPUT, "the card is not valid JSON: line %d: %s",
                         problem.line, problem.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(error, STATUS_BAD_INPUT, "the card must be a JSON object");
    }
    *out = root;
    return STATUS_OK;
}

/* Where the fields are: V2 and V3 keep them in "data", V1 at the top. */
static enum status find_fields(const json_t *root, struct error *error, const json_t **out)
{
    const json_t *spec = json_object_get(root, "spec");
    const json_t *data = json_object_get(root, "data");

    if (spec == NULL) {
        *out = root;
        return STATUS_OK;
    }
    if (!json_is_string(spec) || strncmp(json_string_value(spec), "chara_card_v", 12) != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the card's field \"spec\" is not \"chara_card_v2\" or \"chara_card_v3\"");
    }
    if (!json_is_object(data)) {
        return error_set(error, STATUS_BAD_INPUT, "the card's field \"data\" must be an object");
    }
    *out = data;
    return STATUS_OK;
}

static enum status read_name(struct card *card, const json_t *fields, struct error *error)
{
    TRY(card_read_text(card, fields, "name", error, &card->name));
    TRY(card_read_text(card, fields, "nickname", error, &card->character));
    if (card->name.size == 0) {
        return error_set(error, STATUS_BAD_INPUT, "the card's field \"name\" is missing or empty");
    }
    if (card->character.size == 0) {
        card->character = card->name;
    }
    TRY(card_check_name("name", card->name, error));
    return card_check_name("nickname", card->character, error);
}

static enum status read_greetings(struct card *card, const json_t *fields, struct error *error)
{
    struct bytes first = bytes_of(NULL, 0);
    const struct bytes *others = NULL;
    uint32_t other_count = 0;
    struct bytes *all;
    uint32_t count = 0;

    TRY(card_read_text(card, fields, "first_mes", error, &first));
    TRY(card_read_texts(card, fields, "alternate_greetings", PERSONA_GREETING_COUNT_MAX - 1,
                        "PERSONA_GREETING_COUNT_MAX", error, &others, &other_count));
    all = arena_alloc(&card->arena, other_count + 1, sizeof(*all));
    if (all == NULL) {
        return out_of_memory(error);
    }
    if (first.size > 0) {
        all[count++] = first;
    }
    for (uint32_t i = 0; i < other_count; i++) {
        if (others[i].size > 0) {
            all[count++] = others[i];
        }
    }
    card->greetings = all;
    card->greeting_count = count;
    return STATUS_OK;
}

/* What the conversation gets from the card; is_stored: none where it cannot be read. */
static enum status read_inserts(struct card *card, const json_t *fields, bool is_stored,
                                struct error *error)
{
    enum status status = card_read_book(card, fields, error);

    if (status == STATUS_OK) {
        status = card_read_note(card, json_object_get(fields, "extensions"), error);
    }
    if (status == STATUS_OK || status == STATUS_MEMORY || !is_stored) {
        return status;
    }
    card->note = (struct card_note){0};
    card->lore_count = 0;
    return STATUS_OK;
}

static enum status read_fields(struct card *card, const json_t *fields, struct error *error)
{
    const struct {
        const char *key;
        struct bytes *out;
    } texts[] = {
        {"description", &card->description},     {"personality", &card->personality},
        {"scenario", &card->scenario},           {"mes_example", &card->examples},
        {"system_prompt", &card->system_prompt}, {"post_history_instructions", &card->post_history},
        {"creator_notes", &card->creator_notes},
    };
    const json_t *extensions;
    const json_t *ours;

    TRY(read_name(card, fields, error));
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        TRY(card_read_text(card, fields, texts[i].key, error, texts[i].out));
    }
    TRY(read_greetings(card, fields, error));
    extensions = json_object_get(fields, "extensions");
    if (extensions == NULL || json_is_null(extensions)) {
        return STATUS_OK;
    }
    if (!json_is_object(extensions)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the card's field \"extensions\" must be an object");
    }
    ours = json_object_get(extensions, "personad");
    return ours == NULL ? STATUS_OK : card_read_settings(card, ours, error);
}

/* The same whatever the order of keys and the blanks. */
static enum status hash_canonical(const json_t *root, struct error *error, uint8_t *out)
{
    char *text = json_dumps(root, JSON_SORT_KEYS | JSON_COMPACT);

    if (text == NULL) {
        return out_of_memory(error);
    }
    sha256_bytes(bytes_of_text(text), out);
    memory_free(text);
    return STATUS_OK;
}

static enum status parse(struct bytes json, bool is_stored, struct error *error, struct card **out)
{
    struct card *card = NULL;
    json_t *root = NULL;
    const json_t *fields = NULL;
    enum status status = load(json, error, &root);

    if (status != STATUS_OK) {
        goto done;
    }
    status = STATUS_MEMORY;
    card = memory_alloc(1, sizeof(*card));
    if (card == NULL) {
        out_of_memory(error);
        goto done;
    }
    arena_init(&card->arena, CARD_ARENA_BYTES_MAX);
    card->json = bytes_of(arena_copy(&card->arena, json.data, json.size), json.size);
    if (card->json.data == NULL) {
        out_of_memory(error);
        goto done;
    }
    status = hash_canonical(root, error, card->hash);
    if (status == STATUS_OK) {
        status = find_fields(root, error, &fields);
    }
    if (status == STATUS_OK) {
        status = read_fields(card, fields, error);
    }
    if (status == STATUS_OK) {
        status = read_inserts(card, fields, is_stored, error);
    }
    if (status == STATUS_OK) {
        *out = card;
        card = NULL; /* handed over */
    }
done:
    card_destroy(card);
    json_decref(root);
    return status;
}

enum status card_parse(struct bytes json, struct error *error, struct card **out)
{
    return parse(json, false, error, out);
}

enum status card_parse_stored(struct bytes json, struct error *error, struct card **out)
{
    return parse(json, true, error, out);
}

void card_destroy(struct card *card)
{
    if (card != NULL) {
        arena_finish(&card->arena);
        memory_free(card);
    }
}
