#include "session/import_settle.h"

#include "base/memory.h"
#include "session/load_tree.h"

enum { TEXT_BYTES_PER_WORK = 16 };

static uint32_t content_count(const struct rows_node *row)
{
    if (!row->is_sampled) {
        return (uint32_t)(row->ids.size / 4);
    }
    return row->tail.size > 0 ? (uint32_t)(row->tail.size / 4) : row->kept;
}

static enum status encode(struct import_settling *settling, const struct session *session,
                          struct rows_node *row, uint32_t before)
{
    struct store *store = settling->store;
    struct arena *arena = &settling->portable->tree->arena;
    const uint32_t viewpoint = cast_viewpoint(&session->cast, row->node.speaker);
    const struct prompt *prompt = session->cast.members[viewpoint].prompt;
    const bool at_start = row->node.parent_id == 0 && prompt->ids.count <= 1 &&
                          prompt->template.format == TEMPLATE_PLAIN;
    struct id_list ids = {0};
    struct buffer text;
    enum status status = STATUS_OK;

    if (session->is_foreign) {
        return error_set(settling->error, STATUS_UNSUPPORTED,
                         "a text comes without its tokens, and the file names another model");
    }
    buffer_init(&text, 8 * (size_t)TEXT_BYTES_MAX);
    if ((row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0) {
        status = buffer_append(&text, cast_lead(&session->cast, before, row->node.speaker));
    }
    if (status == STATUS_OK) {
        status = buffer_append(&text, row->text);
    }
    if (status == STATUS_OK) {
        status =
            encoder_text(&store->encoder, buffer_bytes(&text), at_start, settling->error, &ids);
    }
    text.size = 0;
    if (status == STATUS_OK) {
        status = encoder_show(&store->encoder, ids.ids, ids.count, &text);
    }
    if (status == STATUS_OK && ids.count > 0) {
        row->ids =
            bytes_of(arena_copy(arena, ids.ids, (size_t)ids.count * 4), (size_t)ids.count * 4);
        row->text = bytes_of(arena_copy(arena, text.data, text.size), text.size);
        status = row->ids.data != NULL && row->text.data != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    buffer_finish(&text);
    id_list_finish(&ids);
    return status == STATUS_OK || settling->error->status == status
               ? status
               : error_set(settling->error, status, "out of memory for an import");
}

/* A greeting may be shared between sessions only if it is one; of one that is purged nothing is. */
static bool is_greeting(const struct session *session, const struct rows_node *row)
{
    const struct prompt *prompt = session->cast.members[row->node.speaker].prompt;

    if ((row->node.flags & JOURNAL_NODE_PURGED) != 0) {
        return true;
    }
    for (uint32_t i = 0; prompt != NULL && row->node.parent_id == 0 && !row->is_sampled &&
                         i < prompt->persona->card->greeting_count;
         i++) {
        if (bytes_equal(row->ids, bytes_of(prompt->greetings[i].ids,
                                           prompt->greetings[i].count * sizeof(uint32_t)))) {
            return true;
        }
    }
    return false;
}

static enum status check_bookmarks(const struct import_settling *settling)
{
    const struct rows_tree *tree = settling->portable->tree;
    uint32_t count = 0;

    for (uint32_t i = 0; i < tree->note_count; i++) {
        const struct journal_note *note = &tree->notes[i];
        const uint32_t most = note->node_id == 0 || note->kind != JOURNAL_NOTE_BOOKMARK
                                  ? 0
                                  : content_count(&tree->nodes[note->node_id - 1]);

        if (note->kind == JOURNAL_NOTE_BOOKMARK && note->node_offset > most &&
            note->node_offset != OFFSET_END) {
            return error_set(settling->error, STATUS_BAD_INPUT,
                             "bookmark \"%.*s\" lies behind the end of its node",
                             (int)note->name.size, (const char *)note->name.data);
        }
        count += note->kind == JOURNAL_NOTE_BOOKMARK;
    }
    for (uint32_t i = 0; i < tree->author_note_count; i++) {
        const struct journal_author_note *note = &tree->author_notes[i];

        if (note->node_offset >
            (note->node_id == 0 ? 0 : content_count(&tree->nodes[note->node_id - 1]))) {
            return error_set(settling->error, STATUS_BAD_INPUT,
                             "a note at node %llu lies behind its end",
                             (unsigned long long)note->node_id);
        }
    }
    if (count > BOOKMARK_COUNT_MAX) {
        return error_set_limit(settling->error, "BOOKMARK_COUNT_MAX", BOOKMARK_COUNT_MAX,
                               "the session has %u bookmarks, at most %u are kept", count,
                               (unsigned)BOOKMARK_COUNT_MAX);
    }
    return STATUS_OK;
}

/* Of what leaves it to us: the next one of its place, whose offset is known now. */
static enum status count_ordinal(struct import_settling *settling, struct rows_node *row)
{
    const uint64_t place = row->node.parent_id << 32 | row->node.parent_offset;
    const uint32_t next = table_find_number(&settling->siblings, place);

    if (row->is_ordinal_open) {
        row->node.ordinal = next;
    }
    (void)table_remove(&settling->siblings, place);
    return table_insert_number(&settling->siblings, place,
                               (row->node.ordinal > next ? row->node.ordinal : next) + 1) ==
                   STATUS_OK
               ? STATUS_OK
               : error_set(settling->error, STATUS_MEMORY, "out of memory for an import");
}

static enum status settle_node(struct import_settling *settling, struct rows_node *row)
{
    const struct session *session = settling->session;
    const struct rows_tree *tree = settling->portable->tree;
    const uint32_t parent = (uint32_t)row->node.parent_id;
    const bool opens = parent == 0 || (row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0;

    settling->turns[settling->at + 1] = opens ? row->node.speaker : settling->turns[parent];
    if (row->node.parent_offset == OFFSET_END) {
        row->node.parent_offset = content_count(&tree->nodes[parent - 1]);
    }
    TRY(count_ordinal(settling, row));
    if (!row->is_sampled && row->ids.size == 0 && row->text.size > 0) {
        settling->work += row->text.size / TEXT_BYTES_PER_WORK;
        TRY(encode(settling, session, row, settling->turns[parent]));
    }
    if (!is_greeting(session, row)) {
        row->node.flags &= ~(uint32_t)JOURNAL_NODE_GREETING;
    }
    return STATUS_OK;
}

enum status import_settling_init(struct import_settling *settling, struct store *store,
                                 struct portable *portable, const struct session *session)
{
    *settling = (struct import_settling){.store = store, .portable = portable, .session = session};
    settling->turns = memory_alloc(portable->tree->node_count + 1, sizeof(*settling->turns));
    if (settling->turns == NULL) {
        return STATUS_MEMORY;
    }
    settling->turns[0] = CAST_START;
    return STATUS_OK;
}

void import_settling_finish(struct import_settling *settling)
{
    memory_free(settling->turns);
    table_finish(&settling->siblings);
    settling->turns = NULL;
}

enum status import_settle(struct import_settling *settling, uint32_t work, struct error *error)
{
    struct rows_tree *tree = settling->portable->tree;
    const uint64_t until = settling->work + work;

    settling->error = error;
    for (; settling->at < tree->node_count; settling->at++) {
        if (settling->work >= until) {
            return STATUS_AGAIN;
        }
        TRY(settle_node(settling, &tree->nodes[settling->at]));
        settling->work++;
    }
    return check_bookmarks(settling);
}
