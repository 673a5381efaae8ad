#include "session/inserting.h"

#include <string.h>

#include "base/memory.h"
#include "limits.h"
#include "session/author_note.h"
#include "session/lore.h"

static enum status out_of_memory(const struct inserting *inserting)
{
    return error_set(inserting->error, STATUS_MEMORY, "out of memory while a context was made");
}

/* Behind those that stand at the same place. */
static enum status place(const struct inserting *inserting, const struct insert *insert,
                         struct insert_list *out)
{
    uint32_t at = out->count;

    if (out->count == out->capacity) {
        const uint32_t capacity = out->capacity == 0 ? 8 : out->capacity * 2;
        struct insert *items = memory_resize(out->items, capacity, sizeof(*items));

        if (items == NULL) {
            return out_of_memory(inserting);
        }
        out->items = items;
        out->capacity = capacity;
    }
    while (at > 0 && out->items[at - 1].turn > insert->turn) {
        at--;
    }
    memmove(out->items + at + 1, out->items + at, (out->count - at) * sizeof(*out->items));
    out->items[at] = *insert;
    out->count++;
    out->token_count += insert->ids.count;
    return STATUS_OK;
}

enum status inserting_add_ids(const struct inserting *inserting, enum insert_role role,
                              uint32_t depth, struct id_list *ids, struct insert_list *out)
{
    const struct insert insert = {
        .role = role,
        .turn = depth < inserting->written ? inserting->written - depth : 0,
        .ids = *ids,
    };

    TRY(place(inserting, &insert, out));
    *ids = (struct id_list){0}; /* handed over */
    return STATUS_OK;
}

static enum status add(const struct inserting *inserting, enum insert_role role, uint32_t depth,
                       struct bytes text, struct insert_list *out)
{
    struct id_list ids = {0};
    enum status status;

    if (text.size == 0) {
        return STATUS_OK;
    }
    status = encoder_text(inserting->encoder, text, false, inserting->error, &ids);
    if (status == STATUS_OK) {
        status = inserting_add_ids(inserting, role, depth, &ids, out);
    }
    id_list_finish(&ids);
    return status;
}

static enum status add_card_note(const struct inserting *inserting, uint32_t speaker,
                                 struct insert_list *out)
{
    const struct prompt *prompt = inserting->session->cast.members[speaker].prompt;
    const struct card_note *note = &prompt->persona->card->note;

    return add(inserting, note->role, note->depth, prompt->inserts.note, out);
}

/* Of the persona through whose eyes, or of all that share one view. */
static enum status add_cards(const struct inserting *inserting,
                             enum status (*add_card)(const struct inserting *inserting,
                                                     uint32_t speaker, struct insert_list *out),
                             struct insert_list *out)
{
    const struct cast *cast = &inserting->session->cast;

    for (uint32_t i = 0; i < cast->count; i++) {
        const bool is_meant =
            cast->mode == GROUP_JOINT ? cast->members[i].prompt != NULL : i == inserting->viewpoint;

        if (is_meant) {
            TRY(add_card(inserting, i, out));
        }
    }
    return STATUS_OK;
}

static enum status add_author_note(const struct inserting *inserting, struct insert_list *out)
{
    const struct author_note *note =
        author_note_in_force(inserting->session, inserting->path->steps, inserting->path->count);

    return note == NULL ? STATUS_OK : add(inserting, note->role, note->depth, note->text, out);
}

enum status inserting_collect(const struct inserting *asked, struct insert_list *out)
{
    uint64_t work = LORE_SEARCH_BYTES_MAX;
    struct inserting copy = *asked;
    const struct inserting *inserting = &copy;
    const struct cast *cast = &inserting->session->cast;
    const struct prompt *prompt = cast_prompt(cast, inserting->viewpoint);
    const struct prompt *own = cast->members[inserting->viewpoint].prompt;

    copy.work = &work;
    if (prompt->template.format == TEMPLATE_PLAIN) {
        return STATUS_OK;
    }
    TRY(add_cards(inserting, lore_add, out));
    TRY(add_cards(inserting, add_card_note, out));
    TRY(add_author_note(inserting, out));
    return inserting->has_instruction
               ? add(inserting, INSERT_SYSTEM, 0, buffer_bytes(&own->post_history), out)
               : STATUS_OK;
}

void inserting_finish(struct insert_list *list)
{
    for (uint32_t i = 0; i < list->count; i++) {
        id_list_finish(&list->items[i].ids);
    }
    memory_free(list->items);
    *list = (struct insert_list){0};
}
