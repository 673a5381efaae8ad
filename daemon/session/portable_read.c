#include "session/portable_read.h"

#include <string.h>

#include "base/memory.h"

enum status portable_reader_init(struct portable_reader *reader, struct portable *portable)
{
    memset(reader, 0, sizeof(*reader));
    memset(portable, 0, sizeof(*portable));
    reader->portable = portable;
    buffer_init(&reader->line, IMPORT_LINE_BYTES_MAX);
    return rows_tree_create(0, &portable->tree);
}

void portable_reader_finish(struct portable_reader *reader)
{
    buffer_finish(&reader->line);
    table_finish(&reader->contexts);
    table_finish(&reader->steps);
    table_finish(&reader->siblings);
    memset(reader, 0, sizeof(*reader));
}

/* ---- the session ---- */

static void read_session(struct portable_reader *reader, struct portable_json *json,
                         const json_t *record)
{
    struct portable *portable = reader->portable;
    struct rows_tree *tree = portable->tree;
    const struct bytes format = portable_json_text(json, record, "format", LABEL_BYTES_MAX);

    if (reader->has_session) {
        portable_json_fail(json, "record", "tells of a second session");
    }
    if (!bytes_equal(format, bytes_of_text("personad"))) {
        portable_json_fail(json, "format", "is not \"personad\"");
    }
    if (portable_json_u32(json, record, "version", UINT32_MAX, 0) != PORTABLE_VERSION) {
        portable_json_fail(json, "version", "is none that this daemon knows: it knows version 1");
    }
    reader->has_session = true;
    portable->has_seed = portable_json_has(record, "seed");
    portable->seed = portable_json_u64(json, record, "seed");
    portable->created_us = portable_json_u64(json, record, "created_us");
    portable->context_tokens =
        portable_json_u32(json, record, "context_tokens", CONTEXT_TOKEN_COUNT_MAX, 0);
    portable->label = portable_json_text(json, record, "label", LABEL_BYTES_MAX);
    portable->is_joint = portable_json_flag(json, record, "joint");
    portable->head.node =
        portable_json_u32(json, record, "head_node", SESSION_NODE_COUNT_MAX, UINT32_MAX);
    portable->head.offset =
        portable_json_u32(json, record, "head_offset", UINT32_MAX - 1, OFFSET_END);
    tree->model_hash = portable_json_hex(json, record, "model");
    tree->numerics_id = portable_json_text(json, record, "numerics", LABEL_BYTES_MAX);
    if (tree->model_hash.size != 0 && tree->model_hash.size != JOURNAL_DIGEST_BYTES) {
        portable_json_fail(json, "model", "is no hash of a model file: it has 64 digits");
    }
    if ((tree->model_hash.size == 0) != (tree->numerics_id.size == 0)) {
        portable_json_fail(json, "numerics", "and \"model\" come together or not at all");
    }
}

/* Each greeting with its length in front. */
static struct bytes read_greetings(struct portable_json *json, const json_t *prompt)
{
    const json_t *list = portable_json_list(json, prompt, "greetings", true);
    struct bytes greetings = {0};
    size_t size = 0;
    uint8_t *data;

    for (size_t i = 0; i < json_array_size(list); i++) {
        size += 4 + 4 * json_array_size(json_array_get(list, i));
    }
    data = size > 0 ? arena_alloc(json->arena, size, 1) : NULL;
    if (size == 0 || data == NULL) {
        if (size > 0) {
            portable_json_fail_memory(json);
        }
        return greetings;
    }
    greetings = bytes_of(data, size);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const struct bytes ids = portable_json_ids(json, json_array_get(list, i), "greetings");

        if (json->status != STATUS_OK) {
            return bytes_of(NULL, 0);
        }
        bytes_store_u32(data, (uint32_t)(ids.size / 4));
        if (ids.size > 0) {
            memcpy(data + 4, ids.data, ids.size);
        }
        data += 4 + ids.size;
    }
    return greetings;
}

static struct journal_prompt read_prompt(struct portable_json *json, const json_t *from)
{
    const struct journal_prompt prompt = {
        .format = portable_json_name(json, from, "format", portable_format_name, 0),
        .end_side = portable_json_name(json, from, "end", portable_side_name, 0),
        .is_open = portable_json_flag(json, from, "open"),
        .character = portable_json_text(json, from, "character", PERSONA_NAME_BYTES_MAX),
        .user = portable_json_text(json, from, "user", PERSONA_NAME_BYTES_MAX),
        .post_history = portable_json_text(json, from, "post_history", TEXT_BYTES_MAX),
        .ids = portable_json_ids(json, portable_json_list(json, from, "ids", true), "ids"),
        .inserts = portable_json_base64(json, from, "inserts"),
        .greetings = read_greetings(json, from),
    };

    if (prompt.ids.size / 4 > TEXT_TOKEN_COUNT_MAX) {
        portable_json_fail(json, "ids", "are more tokens than a text may have");
    }
    return prompt;
}

static void read_member(struct portable_reader *reader, struct portable_json *json,
                        const json_t *record)
{
    struct portable *portable = reader->portable;
    struct portable_member member = {
        .name = portable_json_text(json, record, "name", PERSONA_NAME_BYTES_MAX),
        .is_persona = portable_json_has(record, "persona"),
        .persona_name = portable_json_text(json, record, "persona", PERSONA_NAME_BYTES_MAX),
        .is_hidden = portable_json_flag(json, record, "hidden"),
        .card = portable_json_text(json, record, "card", PERSONA_CARD_BYTES_MAX),
        .system = portable_json_text(json, record, "system", TEXT_BYTES_MAX),
        .examples = portable_json_text(json, record, "examples", TEXT_BYTES_MAX),
    };
    const json_t *prompt = portable_json_object(json, record, "prompt", false);

    if (portable->member_count == SESSION_CAST_COUNT_MAX || portable->tree->node_count > 0) {
        portable_json_fail(json, "record", "is one member too many, or comes behind the nodes");
        return;
    }
    if (member.name.size == 0 || (member.is_persona && member.persona_name.size == 0)) {
        portable_json_fail(json, "name", "is empty");
    }
    if (prompt != NULL && member.is_persona) {
        member.prompt = read_prompt(json, prompt);
        member.has_prompt = true;
    }
    portable->members[portable->member_count++] = member;
}

static void read_joint(struct portable_reader *reader, struct portable_json *json,
                       const json_t *record)
{
    struct portable *portable = reader->portable;
    const json_t *prompt = portable_json_object(json, record, "prompt", true);
    struct portable_joint joint = {
        .member_count = portable_json_u32(json, record, "members", portable->member_count, 0)};

    if (!portable->is_joint || portable->joint_count == SESSION_CAST_COUNT_MAX ||
        portable->tree->node_count > 0) {
        portable_json_fail(json, "record", "is one too many, or its session is not joint");
        return;
    }
    if (joint.member_count < 2 ||
        (portable->joint_count > 0 &&
         joint.member_count <= portable->joints[portable->joint_count - 1].member_count)) {
        portable_json_fail(json, "members", "are not more than those of the last one");
    }
    if (prompt != NULL) {
        joint.prompt = read_prompt(json, prompt);
    }
    portable->joints[portable->joint_count++] = joint;
}

static void read_bookmark(struct portable_reader *reader, struct portable_json *json,
                          const json_t *record)
{
    struct rows_tree *tree = reader->portable->tree;
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_BOOKMARK,
        .id = 1, /* the session; it gets its id when the file is read */
        .name = portable_json_text(json, record, "name", LABEL_BYTES_MAX),
        .node_id = portable_json_u32(json, record, "node", tree->node_count, 0),
        .node_offset = portable_json_u32(json, record, "offset", UINT32_MAX, OFFSET_END),
        .created_us = portable_json_u64(json, record, "created_us"),
    };
    const struct journal_note *last =
        tree->note_count > 0 ? &tree->notes[tree->note_count - 1] : NULL;

    if (note.name.size == 0) {
        portable_json_fail(json, "name", "is empty");
    }
    /* By name, so that none comes twice. */
    if (last != NULL && last->kind == JOURNAL_NOTE_BOOKMARK) {
        const size_t size = last->name.size < note.name.size ? last->name.size : note.name.size;
        const int order = size == 0 ? 0 : memcmp(last->name.data, note.name.data, size);

        if (order > 0 || (order == 0 && last->name.size >= note.name.size)) {
            portable_json_fail(json, "name", "does not come behind the last one by its bytes");
        }
    }
    portable_check_tokens(reader, json);
    if (json->status == STATUS_OK && rows_tree_add_note(tree, &note) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
}

static void read_note(struct portable_reader *reader, struct portable_json *json,
                      const json_t *record)
{
    struct rows_tree *tree = reader->portable->tree;
    const struct journal_author_note *last =
        tree->author_note_count > 0 ? &tree->author_notes[tree->author_note_count - 1] : NULL;
    const struct journal_author_note note = {
        .node_id = portable_json_u32(json, record, "node", tree->node_count, 0),
        .node_offset = portable_json_u32(json, record, "offset", UINT32_MAX, 0),
        .depth = portable_json_u32(json, record, "depth", INSERT_DEPTH_MAX, 0),
        .role = portable_json_u32(json, record, "role", UINT32_MAX, 0),
        .created_us = portable_json_u64(json, record, "created_us"),
        .text = portable_json_text(json, record, "text", NOTE_BYTES_MAX),
    };

    portable_check_tokens(reader, json);
    if (last != NULL && (note.node_id < last->node_id || (note.node_id == last->node_id &&
                                                          note.node_offset <= last->node_offset))) {
        portable_json_fail(json, "node", "of a note does not come behind that of the last one");
    }
    if (tree->author_note_count == AUTHOR_NOTE_COUNT_MAX) {
        portable_json_fail(json, "record", "is one note too many");
    }
    if (json->status == STATUS_OK && rows_tree_add_author_note(tree, &note) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
}

static void read_end(struct portable_reader *reader, struct portable_json *json,
                     const json_t *record)
{
    const struct rows_tree *tree = reader->portable->tree;

    portable_check_tokens(reader, json);
    if (portable_json_u32(json, record, "nodes", UINT32_MAX, UINT32_MAX) != tree->node_count) {
        portable_json_fail(json, "nodes", "is not the number of nodes in the file");
    }
    if (reader->portable->head.node == UINT32_MAX) {
        reader->portable->head.node = tree->node_count;
    }
    if (reader->portable->head.node > tree->node_count) {
        portable_json_fail(json, "head_node", "of the session names a node that is not there");
    }
    reader->is_over = true;
}

/* ---- lines ---- */

static void read_record(struct portable_reader *reader, struct portable_json *json,
                        const json_t *record)
{
    static const struct {
        const char *name;
        void (*read)(struct portable_reader *reader, struct portable_json *json,
                     const json_t *record);
    } kinds[] = {
        {"node", portable_read_node}, {"tokens", portable_read_tokens},
        {"member", read_member},      {"note", read_note},
        {"joint", read_joint},        {"bookmark", read_bookmark},
        {"session", read_session},    {"end", read_end},
    };
    const char *name = json_string_value(json_object_get(record, "record"));

    for (size_t i = 0; name != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(name, kinds[i].name) != 0) {
            continue;
        }
        if (reader->is_over || (!reader->has_session && kinds[i].read != read_session)) {
            portable_json_fail(json, "record", "stands before the session or behind the end");
            return;
        }
        kinds[i].read(reader, json, record);
        return;
    }
    portable_json_fail(json, "record", "is no kind that is known here");
}

static enum status read_line(struct portable_reader *reader, struct bytes line, struct error *error)
{
    struct portable_json json = {
        .arena = &reader->portable->tree->arena, .error = error, .line = ++reader->line_count};
    json_t *record;

    if (line.size > 0 && line.data[line.size - 1] == '\r') {
        line.size--;
    }
    if (line.size == 0) {
        return STATUS_OK;
    }
    record = portable_json_parse(&json, line);
    if (record != NULL) {
        read_record(reader, &json, record);
        json_decref(record);
    }
    return json.status;
}

enum status portable_read(struct portable_reader *reader, struct bytes piece, struct error *error)
{
    while (piece.size > 0) {
        const uint8_t *end = memchr(piece.data, '\n', piece.size);
        const size_t size = end != NULL ? (size_t)(end - piece.data) : piece.size;
        const enum status status = buffer_append(&reader->line, bytes_of(piece.data, size));

        if (status == STATUS_LIMIT) {
            return error_set_limit(error, "IMPORT_LINE_BYTES_MAX", IMPORT_LINE_BYTES_MAX,
                                   "line %llu of the file is longer than %u bytes",
                                   (unsigned long long)reader->line_count + 1,
                                   (unsigned)IMPORT_LINE_BYTES_MAX);
        }
        if (status != STATUS_OK) {
            return error_set(error, status, "out of memory for an import");
        }
        if (end == NULL) {
            return STATUS_OK;
        }
        TRY(read_line(reader, buffer_bytes(&reader->line), error));
        reader->line.size = 0;
        piece = bytes_of(end + 1, piece.size - size - 1);
    }
    return STATUS_OK;
}

enum status portable_read_end(struct portable_reader *reader, struct error *error)
{
    if (reader->line.size > 0) {
        TRY(read_line(reader, buffer_bytes(&reader->line), error));
        reader->line.size = 0;
    }
    if (!reader->is_over) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the file is cut off: its last line is no end record");
    }
    return STATUS_OK;
}
