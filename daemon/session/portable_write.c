#include "session/portable_write.h"

#include <string.h>

#include "base/memory.h"
#include "session/context.h"
#include "session/portable_line.h"
#include "session/portable_write_inside.h"
#include "session/request.h"

enum { BUFFER_COUNT = 7 };

static struct rows_node *find_row(const struct portable_writer *writer, uint64_t id, uint32_t *at)
{
    const uint32_t found = id == 0 ? 0 : table_find_number(&writer->rows, id);

    *at = found - 1;
    return found == 0 ? NULL : &writer->portable->tree->nodes[found - 1];
}

uint32_t portable_writer_number(const struct portable_writer *writer, uint64_t id)
{
    uint32_t at = 0;

    return find_row(writer, id, &at) != NULL ? writer->numbers[at] : 0;
}

/* ---- what is in the file ---- */

static enum status fill_tables(struct portable_writer *writer)
{
    const struct rows_tree *tree = writer->portable->tree;

    for (uint32_t i = 0; i < tree->node_count; i++) {
        TRY(table_insert_number(&writer->rows, tree->nodes[i].node.id, i + 1));
    }
    for (uint32_t i = 0; i < tree->note_count; i++) {
        if (tree->notes[i].kind == JOURNAL_NOTE_NODE && tree->notes[i].label.size > 0) {
            TRY(table_insert(&writer->labels, tree->notes[i].id, &tree->notes[i]));
        }
    }
    return STATUS_OK;
}

static enum status number_nodes(struct portable_writer *writer, uint64_t node, struct error *error)
{
    const struct rows_tree *tree = writer->portable->tree;
    uint32_t at = 0;
    const struct rows_node *row = find_row(writer, node, &at);

    if (node != 0 && row == NULL) {
        return error_set(error, STATUS_NOT_FOUND, "there is no node %llu in this session",
                         (unsigned long long)node);
    }
    for (; row != NULL; row = find_row(writer, row->node.parent_id, &at)) {
        writer->numbers[at] = 1;
    }
    for (uint32_t i = 0; i < tree->node_count; i++) {
        if (node == 0 || writer->numbers[i] != 0) {
            writer->numbers[i] = ++writer->node_count;
        }
    }
    return STATUS_OK;
}

static void list_buffers(struct portable_writer *writer, struct buffer *out[BUFFER_COUNT])
{
    struct buffer *const buffers[BUFFER_COUNT] = {
        &writer->tokens,    &writer->logprobs,  &writer->sampler_logprobs,
        &writer->entropies, &writer->text_ends, &writer->tops,
        &writer->text};

    memcpy(out, buffers, sizeof(buffers));
}

enum status portable_writer_create(const struct portable *portable, uint64_t node,
                                   struct error *error, struct portable_writer **out)
{
    struct portable_writer *writer = memory_alloc(1, sizeof(*writer));
    struct buffer *buffers[BUFFER_COUNT];
    enum status status = STATUS_MEMORY;

    if (writer == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for an export");
    }
    writer->portable = portable;
    list_buffers(writer, buffers);
    for (uint32_t i = 0; i < BUFFER_COUNT; i++) {
        buffer_init(buffers[i], TREE_BYTES_MAX);
    }
    writer->numbers = memory_alloc(portable->tree->node_count, sizeof(*writer->numbers));
    writer->steps_users = memory_alloc(portable->tree->steps_count, sizeof(*writer->steps_users));
    if (writer->numbers != NULL && writer->steps_users != NULL) {
        status = fill_tables(writer);
    }
    if (status == STATUS_OK) {
        status = number_nodes(writer, node, error);
    } else {
        error_set(error, status, "out of memory for an export");
    }
    if (status != STATUS_OK) {
        portable_writer_destroy(writer);
        return status;
    }
    *out = writer;
    return STATUS_OK;
}

void portable_writer_destroy(struct portable_writer *writer)
{
    struct buffer *buffers[BUFFER_COUNT];

    if (writer == NULL) {
        return;
    }
    table_finish(&writer->rows);
    table_finish(&writer->contexts);
    table_finish(&writer->labels);
    memory_free(writer->numbers);
    memory_free(writer->steps_users);
    list_buffers(writer, buffers);
    for (uint32_t i = 0; i < BUFFER_COUNT; i++) {
        buffer_finish(buffers[i]);
    }
    memory_free(writer);
}

/* ---- the session and its members ---- */

/* A reader that was elsewhere stands at the end of the last node. */
static void put_head(const struct portable_writer *writer, struct portable_line *line)
{
    const struct position head = writer->portable->head;
    const uint32_t number = portable_writer_number(writer, head.node);

    if (number == 0 && head.node != 0) {
        portable_line_u32(line, "head_node", writer->node_count);
        return;
    }
    portable_line_u32(line, "head_node", number);
    if (head.offset != OFFSET_END) {
        portable_line_u32(line, "head_offset", head.offset);
    }
}

static enum status write_session(const struct portable_writer *writer, struct buffer *out)
{
    const struct portable *portable = writer->portable;
    struct portable_line line;

    portable_line_start(&line, out, "session");
    portable_line_text(&line, "format", bytes_of_text("personad"));
    portable_line_u32(&line, "version", PORTABLE_VERSION);
    portable_line_u64(&line, "seed", portable->seed);
    portable_line_u64(&line, "created_us", portable->created_us);
    portable_line_u32(&line, "context_tokens", portable->context_tokens);
    portable_line_text(&line, "label", portable->label);
    portable_line_flag(&line, "joint", portable->is_joint);
    portable_line_hex(&line, "model", portable->tree->model_hash);
    portable_line_text(&line, "numerics", portable->tree->numerics_id);
    put_head(writer, &line);
    return portable_line_end(&line);
}

static void put_prompt(struct portable_line *line, const struct journal_prompt *prompt)
{
    portable_line_object(line, "prompt");
    portable_line_text(line, "format", bytes_of_text(portable_format_name(prompt->format)));
    portable_line_text(line, "end", bytes_of_text(portable_side_name(prompt->end_side)));
    portable_line_flag(line, "open", prompt->is_open != 0);
    portable_line_text(line, "character", prompt->character);
    portable_line_text(line, "user", prompt->user);
    portable_line_text(line, "post_history", prompt->post_history);
    portable_line_ids(line, "ids", prompt->ids);
    portable_line_list(line, "greetings");
    for (size_t at = 0; at + 4 <= prompt->greetings.size;) {
        const size_t size = (size_t)bytes_load_u32(prompt->greetings.data + at) * 4;

        portable_line_ids(line, NULL, bytes_of(prompt->greetings.data + at + 4, size));
        at += 4 + size;
    }
    portable_line_list_end(line);
    if (prompt->inserts.size > 0) {
        portable_line_base64(line, "inserts", prompt->inserts);
    }
    portable_line_object_end(line);
}

static enum status write_member(const struct portable_member *member, bool is_joint,
                                struct buffer *out)
{
    struct portable_line line;

    portable_line_start(&line, out, "member");
    portable_line_text(&line, "name", member->name);
    if (member->is_persona) {
        portable_line_text(&line, "persona", member->persona_name);
        portable_line_flag(&line, "hidden", member->is_hidden);
        if (member->card.size > 0) {
            portable_line_text(&line, "card", member->card);
        }
        if (member->has_prompt) {
            put_prompt(&line, &member->prompt);
        }
        if (member->has_prompt && is_joint) {
            portable_line_text(&line, "system", member->system);
            portable_line_text(&line, "examples", member->examples);
        }
    }
    return portable_line_end(&line);
}

static enum status write_joint(const struct portable_joint *joint, struct buffer *out)
{
    struct portable_line line;

    portable_line_start(&line, out, "joint");
    portable_line_u32(&line, "members", joint->member_count);
    put_prompt(&line, &joint->prompt);
    return portable_line_end(&line);
}

enum status portable_write_head(struct portable_writer *writer, struct buffer *out)
{
    TRY(write_session(writer, out));
    for (uint32_t i = 0; i < writer->portable->member_count; i++) {
        TRY(write_member(&writer->portable->members[i], writer->portable->is_joint, out));
    }
    for (uint32_t i = 0; i < writer->portable->joint_count; i++) {
        TRY(write_joint(&writer->portable->joints[i], out));
    }
    return STATUS_OK;
}

/* ---- the rest ---- */

/* Whether what is marked there is in the file: the place's node is, and not purged. */
static bool has_place(const struct portable_writer *writer, uint64_t node)
{
    uint32_t at = 0;
    const struct rows_node *row = find_row(writer, node, &at);

    return node == 0 || (row != NULL && writer->numbers[at] != 0 &&
                         (row->node.flags & JOURNAL_NODE_PURGED) == 0);
}

/* Tokens of content that the file has of a node. */
static uint32_t content_count(const struct rows_node *row)
{
    if (!row->is_sampled) {
        return (uint32_t)(row->ids.size / sizeof(uint32_t));
    }
    return row->tail.size > 0 ? (uint32_t)(row->tail.size / sizeof(uint32_t)) : row->kept;
}

/* A reader may have seen, and marked, more of a reply than the journal has of it, or had when the
 * reply was cut. */
static uint32_t offset_in_file(const struct portable_writer *writer, uint64_t node, uint32_t offset)
{
    uint32_t at = 0;
    const struct rows_node *row = find_row(writer, node, &at);
    const uint32_t most = row != NULL ? content_count(row) : 0;

    return row != NULL && offset != OFFSET_END && most < offset ? most : offset;
}

static enum status write_bookmark(const struct portable_writer *writer,
                                  const struct journal_note *note, struct buffer *out)
{
    const uint32_t number = portable_writer_number(writer, note->node_id);
    struct portable_line line;

    if (note->kind != JOURNAL_NOTE_BOOKMARK || (note->flags & JOURNAL_NOTE_DELETED) != 0 ||
        !has_place(writer, note->node_id)) {
        return STATUS_OK;
    }
    portable_line_start(&line, out, "bookmark");
    portable_line_text(&line, "name", note->name);
    portable_line_u32(&line, "node", number);
    portable_line_u32(&line, "offset", offset_in_file(writer, note->node_id, note->node_offset));
    portable_line_u64(&line, "created_us", note->created_us);
    return portable_line_end(&line);
}

/* Of several notes that come to one place so, the one that stood last. */
static bool is_hidden_by_another(const struct portable_writer *writer,
                                 const struct journal_author_note *note)
{
    const struct rows_tree *tree = writer->portable->tree;
    uint32_t at = 0;
    const struct rows_node *row = find_row(writer, note->node_id, &at);

    if (row == NULL || note->node_offset < content_count(row)) {
        return false;
    }
    for (uint32_t i = 0; i < tree->author_note_count; i++) {
        const struct journal_author_note *other = &tree->author_notes[i];

        if (other->node_id == note->node_id && other->node_offset > note->node_offset) {
            return true;
        }
    }
    return false;
}

static enum status write_note(const struct portable_writer *writer,
                              const struct journal_author_note *note, struct buffer *out)
{
    const uint32_t number = portable_writer_number(writer, note->node_id);
    struct portable_line line;

    if (!has_place(writer, note->node_id) || is_hidden_by_another(writer, note)) {
        return STATUS_OK;
    }
    portable_line_start(&line, out, "note");
    portable_line_u32(&line, "node", number);
    portable_line_u32(&line, "offset", offset_in_file(writer, note->node_id, note->node_offset));
    portable_line_u32(&line, "depth", note->depth);
    portable_line_u32(&line, "role", note->role);
    portable_line_u64(&line, "created_us", note->created_us);
    portable_line_text(&line, "text", note->text);
    return portable_line_end(&line);
}

static enum status write_end(struct portable_writer *writer, struct buffer *out)
{
    struct portable_line line;

    portable_line_start(&line, out, "end");
    portable_line_u32(&line, "nodes", writer->node_count);
    writer->is_over = true;
    return portable_line_end(&line);
}

enum status portable_write_some(struct portable_writer *writer, size_t bytes, struct buffer *out,
                                bool *is_over)
{
    const struct rows_tree *tree = writer->portable->tree;

    while (out->size < bytes && !writer->is_over) {
        if (writer->next_node < tree->node_count) {
            const uint32_t at = writer->next_node++;

            if (writer->numbers[at] != 0) {
                TRY(portable_write_node(writer, at, out));
            }
        } else if (writer->next_note < tree->note_count) {
            TRY(write_bookmark(writer, &tree->notes[writer->next_note++], out));
        } else if (writer->next_author_note < tree->author_note_count) {
            TRY(write_note(writer, &tree->author_notes[writer->next_author_note++], out));
        } else {
            TRY(write_end(writer, out));
        }
    }
    *is_over = writer->is_over;
    return STATUS_OK;
}
