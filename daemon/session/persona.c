#include "session/persona.h"

#include "base/memory.h"

static bool card_uses(const struct card *card, struct bytes name)
{
    const struct bytes texts[] = {card->description, card->personality,   card->scenario,
                                  card->examples,    card->system_prompt, card->post_history};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (render_uses(texts[i], name)) {
            return true;
        }
    }
    for (uint32_t i = 0; i < card->greeting_count; i++) {
        if (render_uses(card->greetings[i], name)) {
            return true;
        }
    }
    return false;
}

enum status persona_create(struct card *card, struct persona **out)
{
    struct persona *persona = memory_alloc(1, sizeof(*persona));

    if (persona == NULL) {
        return STATUS_MEMORY;
    }
    persona->variables = memory_alloc(card->variable_count + 1, sizeof(*persona->variables));
    if (persona->variables == NULL) {
        memory_free(persona);
        return STATUS_MEMORY;
    }
    if (card_uses(card, bytes_of_text("user"))) {
        persona->variables[persona->variable_count++] = bytes_of_text("user");
    }
    for (uint32_t i = 0; i < card->variable_count; i++) {
        persona->variables[persona->variable_count++] = card->variables[i].name;
    }
    persona->card = card;
    *out = persona;
    return STATUS_OK;
}

void persona_destroy(struct persona *persona)
{
    if (persona != NULL) {
        card_destroy(persona->card);
        memory_free(persona->variables);
        memory_free(persona);
    }
}

bool persona_is_playable(const struct persona *persona, uint32_t uid)
{
    return !persona->is_deleted &&
           (persona->visibility == VISIBILITY_PUBLIC || persona->owner_uid == uid);
}

struct persona_view persona_view_of(const struct persona *persona)
{
    const struct card *card = persona->card;

    return (struct persona_view){
        .id = persona->id,
        .name = card->name,
        .description = card->creator_notes,
        .play = bytes_of_text(card_play_name(card->play)),
        .version = persona->version,
        .owner_uid = persona->owner_uid,
        .greeting_count = card->greeting_count,
        .visibility = persona->visibility,
        .created_us = persona->created_us,
        .built_in = persona->is_built_in,
        .variables = persona->variables,
        .variable_count = persona->variable_count,
    };
}
