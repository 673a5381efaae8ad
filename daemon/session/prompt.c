#include "session/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "journal/record.h"
#include "limits.h"
#include "session/example.h"

/* What one making needs; the prompt belongs to the caller. */
struct making {
    struct prompt *prompt;
    struct encoder *encoder;
    struct render render;
    struct render_variable *variables; /* owned */
    const struct card_lore **lore;     /* owned; what is always there, in its order */
    uint32_t lore_count;
    struct buffer system;   /* owned; rendered */
    struct buffer examples; /* owned; rendered */
    bool is_named;          /* sample dialogues name who speaks */
    struct error *error;
};

static enum status fail(struct making *making, enum status status)
{
    if (status == STATUS_LIMIT) {
        return error_set_limit(making->error, "TEXT_BYTES_MAX", TEXT_BYTES_MAX,
                               "the rendered text of a persona is longer than %u bytes",
                               (unsigned)TEXT_BYTES_MAX);
    }
    return error_set(making->error, status, "out of memory while a prompt was made");
}

static bool is_same_name(struct bytes a, struct bytes b)
{
    return a.size == b.size && strncasecmp((const char *)a.data, (const char *)b.data, a.size) == 0;
}

/* The card's defaults, replaced by the session's values. */
static enum status merge_variables(struct making *making, const struct prompt_values *values)
{
    const struct card *card = making->prompt->persona->card;

    making->variables = memory_alloc(card->variable_count, sizeof(*making->variables));
    if (making->variables == NULL) {
        return fail(making, STATUS_MEMORY);
    }
    if (card->variable_count > 0) {
        memcpy(making->variables, card->variables,
               card->variable_count * sizeof(*making->variables));
    }
    for (uint32_t i = 0; i < values->variable_count; i++) {
        bool is_found = false;

        for (uint32_t k = 0; k < card->variable_count; k++) {
            if (is_same_name(values->variables[i].name, card->variables[k].name)) {
                making->variables[k].value = values->variables[i].value;
                is_found = true;
            }
        }
        if (!is_found) {
            return error_set(making->error, STATUS_BAD_INPUT,
                             "persona %.*s has no variable \"%.*s\"", (int)card->name.size,
                             (const char *)card->name.data, (int)values->variables[i].name.size,
                             (const char *)values->variables[i].name.data);
        }
    }
    return STATUS_OK;
}

static enum status set_names(struct prompt *prompt, struct bytes character, struct bytes user)
{
    buffer_init(&prompt->names, (size_t)2 * PERSONA_NAME_BYTES_MAX);
    TRY(buffer_append(&prompt->names, character));
    TRY(buffer_append(&prompt->names, user));
    prompt->character = bytes_of(prompt->names.data, character.size);
    prompt->user = bytes_of(prompt->names.data + character.size, user.size);
    return STATUS_OK;
}

/* Adds a rendered text on a line of its own, after a label. */
static enum status add_line(struct making *making, const char *label, struct bytes text)
{
    enum status status = STATUS_OK;

    if (text.size == 0) {
        return STATUS_OK;
    }
    if (making->system.size > 0) {
        status = buffer_append_text(&making->system, "\n");
    }
    if (status == STATUS_OK && label != NULL) {
        status = render_text(&making->render, bytes_of_text(label), &making->system);
    }
    if (status == STATUS_OK) {
        status = render_text(&making->render, text, &making->system);
    }
    return status;
}

/* By order, and where that is equal as the card lists them. */
static int by_order(const void *a, const void *b)
{
    const struct card_lore *left = *(const struct card_lore *const *)a;
    const struct card_lore *right = *(const struct card_lore *const *)b;

    if (left->order != right->order) {
        return left->order < right->order ? -1 : 1;
    }
    return left < right ? -1 : left > right;
}

static enum status sort_lore(struct making *making)
{
    const struct card *card = making->prompt->persona->card;

    making->lore = memory_alloc(card->lore_count, sizeof(*making->lore));
    if (making->lore == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < card->lore_count; i++) {
        if (card->lore[i].is_enabled && card_lore_is_in_prompt(&card->lore[i])) {
            making->lore[making->lore_count++] = &card->lore[i];
        }
    }
    if (making->lore_count > 0) {
        qsort(making->lore, making->lore_count, sizeof(*making->lore), by_order);
    }
    return STATUS_OK;
}

/* What is always there. */
static enum status add_lore(struct making *making, enum card_lore_place place)
{
    for (uint32_t i = 0; i < making->lore_count; i++) {
        if (making->lore[i]->place == place) {
            TRY(add_line(making, NULL, making->lore[i]->content));
        }
    }
    return STATUS_OK;
}

static enum status render_system(struct making *making)
{
    const struct card *card = making->prompt->persona->card;
    const bool is_plain = card->play == CARD_PLAY_PLAIN;

    TRY(sort_lore(making));
    TRY(add_line(making, NULL, card->system_prompt));
    TRY(add_lore(making, CARD_LORE_BEFORE));
    TRY(add_line(making, NULL, card->description));
    TRY(add_line(making, is_plain ? NULL : "{{char}}'s personality: ", card->personality));
    TRY(add_line(making, is_plain ? NULL : "Scenario: ", card->scenario));
    TRY(add_lore(making, CARD_LORE_AFTER));
    TRY(render_text(&making->render, card->examples, &making->examples));
    TRY(render_text(&making->render, card->post_history, &making->prompt->post_history));
    return prompt_insert_render(&making->render, card, &making->prompt->inserts);
}

/* A sample dialogue that names its speakers becomes turns; any other is text of the preamble. */
static enum status add_examples(const struct making *making, struct bytes examples,
                                struct bytes character)
{
    struct prompt *prompt = making->prompt;
    struct example example;
    struct example_turn turn;

    example_init(&example, examples, character, prompt->user);
    while (example_next(&example, &turn)) {
        const struct template_end to = {
            .side = turn.is_persona ? TEMPLATE_PERSONA : TEMPLATE_USER,
            .name = turn.is_persona ? character : prompt->user,
            .is_named = making->is_named,
        };
        const struct bytes lead = template_lead(&prompt->template, to.side, prompt->is_open);
        struct buffer text;
        enum status status;

        TRY(template_frame(&prompt->template, making->encoder, &prompt->end, &to, prompt->is_open,
                           making->error, &prompt->ids));
        buffer_init(&text, TEXT_BYTES_MAX + 1);
        status = buffer_append(&text, lead);
        if (status == STATUS_OK) {
            status = buffer_append(&text, turn.text);
        }
        if (status == STATUS_OK) {
            status = encoder_text(making->encoder, buffer_bytes(&text), false, making->error,
                                  &prompt->ids);
        } else {
            status = error_set(making->error, status, "out of memory while a prompt was made");
        }
        buffer_finish(&text);
        TRY(status);
        prompt->end = to;
        prompt->is_open = false;
    }
    return STATUS_OK;
}

static enum status add_greetings(struct making *making)
{
    struct prompt *prompt = making->prompt;
    const struct card *card = prompt->persona->card;
    const struct bytes lead = template_lead(&prompt->template, TEMPLATE_PERSONA, false);

    prompt->greetings = memory_alloc(card->greeting_count, sizeof(*prompt->greetings));
    if (prompt->greetings == NULL) {
        return fail(making, STATUS_MEMORY);
    }
    for (uint32_t i = 0; i < card->greeting_count; i++) {
        struct id_list ids = {0};
        struct buffer text;
        enum status status;

        buffer_init(&text, TEXT_BYTES_MAX);
        status = buffer_append(&text, lead);
        if (status == STATUS_OK) {
            status = render_text(&making->render, card->greetings[i], &text);
        }
        if (status == STATUS_OK) {
            status = encoder_text(making->encoder, buffer_bytes(&text), false, making->error, &ids);
        } else {
            status = fail(making, status);
        }
        buffer_finish(&text);
        TRY(status);
        prompt->greetings[i].ids = ids.ids;
        prompt->greetings[i].count = ids.count;
    }
    return STATUS_OK;
}

/* Equal for equal ids of the same persona version, and only for users who may share. */
static uint64_t scope_of(const struct prompt *prompt, uint32_t owner_uid)
{
    const uint32_t greeting_count = prompt->persona->card->greeting_count;
    struct sha256 hash;
    uint8_t number[8];
    uint8_t digest[SHA256_BYTES];
    uint64_t scope;

    sha256_init(&hash);
    bytes_store_u64(number, prompt->persona->id);
    sha256_update(&hash, bytes_of(number, 8));
    bytes_store_u64(number, owner_uid);
    sha256_update(&hash, bytes_of(number, 8));
    sha256_update(&hash, bytes_of(prompt->ids.ids, prompt->ids.count * sizeof(uint32_t)));
    for (uint32_t i = 0; i < greeting_count; i++) {
        bytes_store_u64(number, prompt->greetings[i].count);
        sha256_update(&hash, bytes_of(number, 8));
        sha256_update(&hash, bytes_of(prompt->greetings[i].ids,
                                      prompt->greetings[i].count * sizeof(uint32_t)));
    }
    sha256_update(&hash, buffer_bytes(&prompt->post_history));
    sha256_update(&hash, buffer_bytes(&prompt->inserts.stored));
    bytes_store_u64(number, prompt->character.size);
    sha256_update(&hash, bytes_of(number, 8));
    sha256_update(&hash, buffer_bytes(&prompt->names));
    sha256_finish(&hash, digest);
    /* The top bit keeps prompts apart from sessions, whose ids are small. */
    scope = bytes_load_u64(digest) | (UINT64_C(1) << 63);
    return scope;
}

void prompt_set_joint_scope(struct prompt *prompt, uint32_t owner_uid)
{
    prompt->scope = scope_of(prompt, owner_uid);
}

void prompt_set_scope(struct prompt *prompt)
{
    const bool is_public = prompt->persona->visibility == VISIBILITY_PUBLIC;

    prompt->scope = scope_of(prompt, is_public ? UINT32_MAX : prompt->persona->owner_uid);
}

static enum status make(struct making *making, const struct prompt_values *values)
{
    struct prompt *prompt = making->prompt;
    enum status status;

    TRY(merge_variables(making, values));
    if (set_names(prompt, prompt->persona->card->character, values->user) != STATUS_OK) {
        return fail(making, STATUS_MEMORY);
    }
    making->render = (struct render){
        .character = prompt->character,
        .user = prompt->user,
        .variables = making->variables,
        .variable_count = prompt->persona->card->variable_count,
        .seed = values->seed,
        .now_us = values->now_us,
    };
    status = render_system(making);
    if (status == STATUS_OK &&
        !example_has_turns(buffer_bytes(&making->examples), prompt->character, prompt->user)) {
        status = add_line(making, NULL, buffer_bytes(&making->examples));
    }
    if (status != STATUS_OK) {
        return fail(making, status);
    }
    TRY(template_start(&prompt->template, making->encoder, buffer_bytes(&making->system),
                       making->error, &prompt->ids, &prompt->is_open));
    if (prompt->template.format != TEMPLATE_PLAIN) {
        TRY(add_examples(making, buffer_bytes(&making->examples), prompt->character));
    }
    return add_greetings(making);
}

static enum template_format format_of(const struct persona *persona, const struct template *model)
{
    switch (persona->card->play) {
    case CARD_PLAY_PLAIN:
        return TEMPLATE_PLAIN;
    case CARD_PLAY_TRANSCRIPT:
        return TEMPLATE_TRANSCRIPT;
    default:
        return model->format;
    }
}

enum status prompt_create(const struct persona *persona, const struct template *model,
                          struct encoder *encoder, const struct prompt_values *values,
                          struct error *error, struct prompt_texts *texts, struct prompt **out)
{
    struct making making = {.encoder = encoder, .error = error};
    struct prompt *prompt = memory_alloc(1, sizeof(*prompt));
    enum status status;

    if (prompt == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a prompt was made");
    }
    prompt->persona = persona;
    prompt->template = template_with_format(model, format_of(persona, model));
    buffer_init(&prompt->post_history, TEXT_BYTES_MAX);
    buffer_init(&making.system, TEXT_BYTES_MAX);
    buffer_init(&making.examples, TEXT_BYTES_MAX);
    making.prompt = prompt;
    status = make(&making, values);
    if (status == STATUS_OK) {
        prompt_set_scope(prompt);
        *out = prompt;
        prompt = NULL; /* handed over */
    }
    if (status == STATUS_OK && texts != NULL) {
        *texts = (struct prompt_texts){making.system, making.examples};
    } else {
        buffer_finish(&making.system);
        buffer_finish(&making.examples);
    }
    memory_free(making.variables);
    memory_free(making.lore);
    prompt_destroy(prompt);
    return status;
}

/* ---- several personas ---- */

/* The greetings are the first persona's. */
static enum status copy_greetings(struct prompt *prompt, const struct prompt *from)
{
    const uint32_t count = from->persona->card->greeting_count;

    prompt->greetings = memory_alloc(count, sizeof(*prompt->greetings));
    if (prompt->greetings == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct id_list ids = {0};

        TRY(id_list_append(&ids, from->greetings[i].ids, from->greetings[i].count));
        prompt->greetings[i] = (struct prompt_greeting){ids.ids, ids.count};
    }
    return STATUS_OK;
}

static enum status join_systems(const struct prompt_part *parts, uint32_t count, struct buffer *out)
{
    for (uint32_t i = 0; i < count; i++) {
        if (out->size > 0 && parts[i].system.size > 0) {
            TRY(buffer_append_text(out, "\n\n"));
        }
        TRY(buffer_append(out, parts[i].system));
    }
    return STATUS_OK;
}

static enum status join(struct making *making, const struct prompt_part *parts, uint32_t count)
{
    struct prompt *prompt = making->prompt;
    enum status status = set_names(prompt, parts[0].prompt->character, parts[0].prompt->user);

    if (status == STATUS_OK) {
        status = copy_greetings(prompt, parts[0].prompt);
    }
    if (status == STATUS_OK) {
        status = join_systems(parts, count, &making->system);
    }
    if (status != STATUS_OK) {
        return fail(making, status);
    }
    TRY(template_start(&prompt->template, making->encoder, buffer_bytes(&making->system),
                       making->error, &prompt->ids, &prompt->is_open));
    for (uint32_t i = 0; i < count; i++) {
        TRY(add_examples(making, parts[i].examples, parts[i].prompt->character));
    }
    return STATUS_OK;
}

enum status prompt_join(const struct prompt_part *parts, uint32_t count, bool is_named,
                        uint32_t owner_uid, struct encoder *encoder, struct error *error,
                        struct prompt **out)
{
    struct making making = {.encoder = encoder, .is_named = is_named, .error = error};
    struct prompt *prompt = memory_alloc(1, sizeof(*prompt));
    bool is_public = true;
    enum status status;

    if (prompt == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a prompt was made");
    }
    prompt->persona = parts[0].prompt->persona;
    prompt->template = parts[0].prompt->template;
    buffer_init(&prompt->post_history, TEXT_BYTES_MAX);
    buffer_init(&making.system, TEXT_BYTES_MAX);
    making.prompt = prompt;
    status = join(&making, parts, count);
    for (uint32_t i = 0; i < count; i++) {
        is_public = is_public && parts[i].prompt->persona->visibility == VISIBILITY_PUBLIC;
    }
    if (status == STATUS_OK) {
        prompt->scope = scope_of(prompt, is_public ? UINT32_MAX : owner_uid);
        *out = prompt;
        prompt = NULL; /* handed over */
    }
    buffer_finish(&making.system);
    prompt_destroy(prompt);
    return status;
}

/* ---- from the journal ---- */

static enum status restore_greetings(struct prompt *prompt, struct bytes stored)
{
    const uint32_t count = prompt->persona->card->greeting_count;
    size_t at = 0;

    prompt->greetings = memory_alloc(count, sizeof(*prompt->greetings));
    if (prompt->greetings == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct id_list ids = {0};

        if (stored.size - at < sizeof(uint32_t)) {
            return STATUS_BAD_INPUT;
        }
        const uint32_t length = bytes_load_u32(stored.data + at);
        at += sizeof(uint32_t);
        if ((stored.size - at) / sizeof(uint32_t) < length) {
            return STATUS_BAD_INPUT;
        }
        TRY(id_list_append_bytes(&ids, bytes_of(stored.data + at, length * sizeof(uint32_t))));
        prompt->greetings[i] = (struct prompt_greeting){ids.ids, ids.count};
        at += length * sizeof(uint32_t);
    }
    return at == stored.size ? STATUS_OK : STATUS_BAD_INPUT;
}

static enum status restore(struct prompt *prompt, const struct journal_prompt *row)
{
    if (row->format > TEMPLATE_PLAIN || row->end_side > TEMPLATE_PERSONA) {
        return STATUS_BAD_INPUT;
    }
    TRY(set_names(prompt, row->character, row->user));
    TRY(buffer_append(&prompt->post_history, row->post_history));
    TRY(id_list_append_bytes(&prompt->ids, row->ids));
    TRY(restore_greetings(prompt, row->greetings));
    TRY(prompt_insert_restore(row->inserts, prompt->persona->card, &prompt->inserts));
    prompt->end.side = (enum template_side)row->end_side;
    if (prompt->end.side != TEMPLATE_START) {
        prompt->end.name = prompt->end.side == TEMPLATE_PERSONA ? prompt->character : prompt->user;
    }
    return STATUS_OK;
}

enum status prompt_restore(const struct persona *persona, const struct template *model,
                           const struct journal_prompt *row, struct error *error,
                           struct prompt **out)
{
    struct prompt *prompt = memory_alloc(1, sizeof(*prompt));
    enum status status;

    if (prompt == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a prompt was restored");
    }
    prompt->persona = persona;
    buffer_init(&prompt->post_history, TEXT_BYTES_MAX);
    status = restore(prompt, row);
    if (status != STATUS_OK) {
        prompt_destroy(prompt);
        return error_set(error, status, "a stored prompt of persona %llu cannot be restored: %s",
                         (unsigned long long)persona->id, status_text(status));
    }
    prompt->template = template_with_format(model, (enum template_format)row->format);
    prompt->scope = row->scope;
    prompt->is_open = row->is_open != 0;
    memcpy(prompt->digest, row->digest, sizeof(prompt->digest));
    *out = prompt;
    return STATUS_OK;
}

void prompt_destroy(struct prompt *prompt)
{
    if (prompt == NULL) {
        return;
    }
    for (uint32_t i = 0; prompt->greetings != NULL && i < prompt->persona->card->greeting_count;
         i++) {
        memory_free(prompt->greetings[i].ids);
    }
    memory_free(prompt->greetings);
    id_list_finish(&prompt->ids);
    buffer_finish(&prompt->post_history);
    prompt_insert_finish(&prompt->inserts);
    buffer_finish(&prompt->names);
    memory_free(prompt);
}

bool prompt_is_bare(const struct prompt *prompt)
{
    const bool is_empty = prompt->ids.count == 0 ||
                          (prompt->ids.count == 1 && prompt->ids.ids[0] == prompt->template.bos);

    return is_empty && prompt->post_history.size == 0 && prompt->inserts.stored.size == 0;
}
