#include "schedule/prescribe.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"

enum { TEXT_BYTES_SHOWN_MAX = 2 * CHOICE_BYTES_MAX + TOKEN_BYTES_MAX };

enum status prescribe_init(struct engine *engine)
{
    struct prescribe *prescribe = &engine->prescribe;
    size_t words;

    TRY(byte_mask_create(engine->settings.tokenizer, &prescribe->mask));
    words = byte_mask_word_count(prescribe->mask);
    prescribe->all = memory_alloc(words, sizeof(uint32_t));
    prescribe->text = memory_alloc(1, TEXT_BYTES_SHOWN_MAX);
    if (prescribe->all == NULL || prescribe->text == NULL) {
        return STATUS_MEMORY;
    }
    memset(prescribe->all, 0xff, words * sizeof(uint32_t));
    for (uint32_t i = 0; i < engine->flight_count_max; i++) {
        engine->flights[i].masks =
            memory_alloc(words * engine->settings.running_count_max, sizeof(uint32_t));
        if (engine->flights[i].masks == NULL) {
            return STATUS_MEMORY;
        }
    }
    return STATUS_OK;
}

void prescribe_finish(struct engine *engine)
{
    byte_mask_destroy(engine->prescribe.mask);
    memory_free(engine->prescribe.all);
    memory_free(engine->prescribe.text);
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        memory_free(engine->flights[i].masks);
    }
}

static const struct byte_rule *rule_of(const struct branch *branch)
{
    const struct sampler *sampler = branch->spec->sampler;

    return sampler != NULL && !byte_rule_is_empty(&sampler->settings.rule) ? &sampler->settings.rule
                                                                           : NULL;
}

bool prescribe_is_spent(const struct branch *branch)
{
    const struct byte_rule *rule = rule_of(branch);

    return rule == NULL || byte_rule_is_spent(rule, branch->text_bytes);
}

bool prescribe_waits(const struct branch *branch)
{
    return branch->planned_count != branch->sampled_count && !prescribe_is_spent(branch);
}

/* What a look's tokens show, as far as a rule may ask for it. */
static struct bytes marked_text(struct engine *engine, const struct branch_spec *spec,
                                uint32_t token_count)
{
    struct prescribe *prescribe = &engine->prescribe;
    size_t size = 0;

    for (uint32_t i = 0; i < token_count; i++) {
        const struct bytes bytes =
            tokenizer_token_bytes(engine->settings.tokenizer, spec->marks[i].token);

        if (bytes.size > TEXT_BYTES_SHOWN_MAX - size) {
            break; /* longer than anything that is prescribed */
        }
        if (bytes.size > 0) {
            memcpy(prescribe->text + size, bytes.data, bytes.size);
        }
        size += bytes.size;
    }
    return bytes_of(prescribe->text, size);
}

const uint32_t *prescribe_mask(struct engine *engine, struct engine_flight *flight,
                               const struct branch *branch, uint32_t token_count)
{
    const struct prescribe *prescribe = &engine->prescribe;
    const struct branch_spec *spec = branch->spec;
    const struct byte_rule *rule = rule_of(branch);
    const size_t at = (size_t)flight->mask_count * byte_mask_word_count(prescribe->mask);
    struct bytes text;

    if (rule == NULL) {
        return NULL;
    }
    CHECK(flight->mask_count < engine->settings.running_count_max);
    if (spec->marks != NULL) {
        text = marked_text(engine, spec, token_count);
    } else {
        text = bytes_of(spec->output->text,
                        token_count > 0 ? spec->output->text_ends[token_count - 1] : 0);
    }
    if (byte_rule_fill(rule, prescribe->mask, text, flight->masks + at)) {
        return prescribe->all;
    }
    flight->mask_count++;
    return flight->masks + at;
}
