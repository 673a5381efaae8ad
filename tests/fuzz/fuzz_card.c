/* Goal: no bytes make the card reader crash, leak, or hand out something that breaks its promises.
 * Method: parse; what is taken is checked, rendered and cut into turns; what is refused has a
 * sentence. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "session/card.h"
#include "session/example.h"
#include "session/prompt_insert.h"
#include "session/render.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static void check_text(struct render *render, struct bytes text)
{
    struct buffer out;
    enum status status;

    CHECK(utf8_is_valid(text));
    buffer_init(&out, TEXT_BYTES_MAX);
    status = render_text(render, text, &out);
    CHECK(status == STATUS_OK || status == STATUS_LIMIT || status == STATUS_MEMORY);
    CHECK(status != STATUS_OK || utf8_is_valid(buffer_bytes(&out)));
    buffer_finish(&out);
}

static void check_examples(const struct card *card)
{
    struct example example;
    struct example_turn turn;
    size_t size = 0;

    example_init(&example, card->examples, card->character, bytes_of_text("User"));
    while (example_next(&example, &turn)) {
        CHECK(turn.text.size > 0);
        size += turn.text.size;
    }
    CHECK(size <= card->examples.size);
}

/* What is rendered is what is read back from the journal. */
static void check_inserts(struct render *render, const struct card *card)
{
    struct prompt_inserts made = {0};
    struct prompt_inserts read = {0};
    uint32_t key_count = 0;

    CHECK(card->lore_count <= LORE_ENTRY_COUNT_MAX && card->note.depth <= INSERT_DEPTH_MAX);
    for (uint32_t i = 0; i < card->lore_count; i++) {
        const struct card_lore *lore = &card->lore[i];

        CHECK(lore->depth <= INSERT_DEPTH_MAX && (uint32_t)lore->role <= INSERT_PERSONA);
        key_count += lore->key_count + lore->secondary_count;
        for (uint32_t k = 0; k < lore->key_count; k++) {
            CHECK(lore->keys[k].size > 0);
        }
    }
    CHECK(key_count <= LORE_KEY_COUNT_MAX);
    if (prompt_insert_render(render, card, &made) == STATUS_OK) {
        CHECK(prompt_insert_restore(buffer_bytes(&made.stored), card, &read) == STATUS_OK);
        CHECK(bytes_equal(made.note, read.note));
        for (uint32_t i = 0; i < card->lore_count; i++) {
            CHECK(bytes_equal(made.lore[i], read.lore[i]));
        }
    }
    prompt_insert_finish(&made);
    prompt_insert_finish(&read);
}

static void check_card(const struct card *card)
{
    struct render render = {
        .character = card->character,
        .user = bytes_of_text("User"),
        .variables = card->variables,
        .variable_count = card->variable_count,
    };

    CHECK(card->name.size > 0 && card->name.size <= PERSONA_NAME_BYTES_MAX);
    CHECK(card->character.size > 0 && card->character.size <= PERSONA_NAME_BYTES_MAX);
    CHECK(card->greeting_count <= PERSONA_GREETING_COUNT_MAX);
    CHECK(card->variable_count <= PERSONA_VARIABLE_COUNT_MAX);
    CHECK(card->cue_count <= CUE_COUNT_MAX && card->sampler.stop_count <= CUE_COUNT_MAX);
    CHECK(card->sampler.bias_count <= LOGIT_BIAS_COUNT_MAX);
    for (uint32_t i = 1; i < card->sampler.bias_count; i++) {
        CHECK(card->sampler.biases[i - 1].token < card->sampler.biases[i].token);
    }
    check_text(&render, card->description);
    check_text(&render, card->examples);
    check_text(&render, card->post_history);
    for (uint32_t i = 0; i < card->greeting_count; i++) {
        CHECK(card->greetings[i].size > 0);
        check_text(&render, card->greetings[i]);
    }
    check_examples(card);
    check_inserts(&render, card);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    const int64_t live = memory_live_count();
    struct card *card = NULL;
    struct error error = {0};
    const enum status status = card_parse(bytes_of(bytes, byte_count), &error, &card);

    if (status == STATUS_OK) {
        check_card(card);
    } else {
        CHECK(card == NULL && error.status == status && error.text[0] != '\0');
        CHECK(utf8_is_valid(bytes_of_text(error.text)));
    }
    card_destroy(card);
    CHECK(memory_live_count() == live);
    return 0;
}
