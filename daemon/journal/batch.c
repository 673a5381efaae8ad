#include "journal/batch.h"

#include <stddef.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"

/* Where the borrowed bytes of each kind are: a kind that has some and is not listed would keep
 * pointers into the caller's memory, which the sanitizers of the tests see. */
enum { PART_COUNT_MAX = 9 };

#define AT(member) (offsetof(struct journal_record, u.member) + 1)
#define CHUNK(kind)                                                                  \
    AT(kind.chunk.tokens), AT(kind.chunk.logprobs), AT(kind.chunk.logprobs_sampler), \
        AT(kind.chunk.entropies), AT(kind.chunk.text_ends), AT(kind.chunk.tops),     \
        AT(kind.chunk.text)

/* Offset + 1 of every struct bytes; 0 ends the list. */
static const size_t part_offsets[JOURNAL_KIND_COUNT][PART_COUNT_MAX + 1] = {
    [JOURNAL_PERSONA] = {AT(persona.card)},
    [JOURNAL_PROMPT] = {AT(prompt.character), AT(prompt.user), AT(prompt.post_history),
                        AT(prompt.ids), AT(prompt.greetings), AT(prompt.inserts)},
    [JOURNAL_SESSION] = {AT(session.label), AT(session.origin.numerics_id)},
    [JOURNAL_MEMBER] = {AT(member.name), AT(member.prompt_digest)},
    [JOURNAL_STEPS] = {AT(steps.sampler), AT(steps.cues)},
    [JOURNAL_CONTEXT] = {AT(context.segments)},
    [JOURNAL_GIVEN] = {AT(given.ids), AT(given.text)},
    [JOURNAL_INTENT] = {AT(intent.origin.numerics_id)},
    [JOURNAL_CHECKPOINT] = {CHUNK(checkpoint)},
    [JOURNAL_FINISH] = {CHUNK(finish), AT(finish.tail), AT(finish.error_text)},
    [JOURNAL_KEY] = {AT(key.key), AT(key.nodes)},
    [JOURNAL_NOTE] = {AT(note.name), AT(note.label)},
    [JOURNAL_PREAMBLE] = {AT(preamble.system), AT(preamble.examples)},
    [JOURNAL_AUTHOR_NOTE] = {AT(author_note.text)},
};

static struct bytes *part_of(struct journal_record *record, size_t offset)
{
    return (struct bytes *)(void *)((uint8_t *)record + offset - 1);
}

enum status journal_batch_create(struct journal_batch **out)
{
    struct journal_batch *batch = memory_alloc(1, sizeof(*batch));

    if (batch == NULL) {
        return STATUS_MEMORY;
    }
    batch->last = &batch->first;
    *out = batch;
    return STATUS_OK;
}

void journal_batch_destroy(struct journal_batch *batch)
{
    if (batch == NULL) {
        return;
    }
    while (batch->first != NULL) {
        struct journal_batch_record *next = batch->first->next;

        memory_free(batch->first);
        batch->first = next;
    }
    memory_free(batch);
}

enum status journal_batch_add(struct journal_batch *batch, const struct journal_record *record)
{
    const size_t *offsets = part_offsets[record->kind];
    struct journal_record copy = *record;
    struct journal_batch_record *added;
    size_t bytes = sizeof(*added);
    uint8_t *at;

    CHECK(record->kind < JOURNAL_KIND_COUNT);
    for (uint32_t i = 0; offsets[i] != 0; i++) {
        bytes += part_of(&copy, offsets[i])->size;
    }
    added = memory_alloc(1, bytes);
    if (added == NULL) {
        return STATUS_MEMORY;
    }
    added->record = copy;
    at = (uint8_t *)(added + 1);
    for (uint32_t i = 0; offsets[i] != 0; i++) {
        struct bytes *part = part_of(&added->record, offsets[i]);

        if (part->size > 0) {
            memcpy(at, part->data, part->size);
        }
        part->data = at;
        at += part->size;
    }
    *batch->last = added;
    batch->last = &added->next;
    batch->bytes += bytes;
    if (batch->is_silent) {
        return STATUS_OK;
    }
    batch->told_count += record->kind == JOURNAL_GIVEN || record->kind == JOURNAL_INTENT ||
                         record->kind == JOURNAL_FINISH;
    batch->intent_count += record->kind == JOURNAL_INTENT;
    batch->finish_count += record->kind == JOURNAL_FINISH;
    return STATUS_OK;
}
