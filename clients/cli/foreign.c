#include "foreign.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_BYTES_MAX = 16 * 1024 * 1024,
    TREE_NODE_COUNT_MAX = 1024 * 1024,
    LABEL_BYTES_MAX = 256,
    ID_CHARS_MAX = 24,
};

/* The lines that are being written. */
struct lines {
    FILE *file; /* of memory */
    uint32_t node_count;
    bool is_bad; /* a record could not be made: no memory, or a name that is no UTF-8 */
};

static void line_put(struct lines *lines, json_t *record)
{
    lines->is_bad =
        lines->is_bad || record == NULL || json_dumpf(record, lines->file, JSON_COMPACT) != 0;
    (void)fputc('\n', lines->file);
    json_decref(record);
}

/* What the JSON library answers to an addition. */
static void added(struct lines *lines, int failed)
{
    lines->is_bad = lines->is_bad || failed != 0;
}

/* A human and a persona. */
static void head_put(struct lines *lines, const char *label, const char *user,
                     const char *character, const char *persona)
{
    line_put(lines, json_pack("{s:s,s:s,s:i,s:s}", "record", "session", "format", "personad",
                              "version", 1, "label", label));
    line_put(lines, json_pack("{s:s,s:s}", "record", "member", "name", user));
    line_put(lines,
             json_pack("{s:s,s:s,s:s}", "record", "member", "name", character, "persona", persona));
}

/* Its number. text: what is no string is as if it were empty. */
static uint32_t node_put(struct lines *lines, uint32_t parent, int speaker, bool opens_turn,
                         bool deleted, json_t *text)
{
    json_t *words = json_is_string(text) ? json_incref(text) : json_string("");
    line_put(lines, json_pack("{s:s,s:i,s:i,s:b,s:b,s:o}", "record", "node", "parent", (int)parent,
                              "speaker", speaker, "opens_turn", opens_turn, "deleted", deleted,
                              "text", words));
    return ++lines->node_count;
}

static void end_put(struct lines *lines)
{
    line_put(lines, json_pack("{s:s,s:i}", "record", "end", "nodes", (int)lines->node_count));
}

static const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : otherwise;
}

/* ---------------------------------------------------------------- SillyTavern, in */

struct chat {
    const struct cli *cli;
    struct lines *lines;
    uint32_t last; /* the node that the next message follows */
    uint32_t hidden_count;
    bool has_head;
};

static void chat_head(struct chat *chat, const json_t *first)
{
    const char *character = text_of(first, "character_name", text_of(first, "name", "Assistant"));
    const char *persona = chat->cli->persona != NULL ? chat->cli->persona : character;
    const char *user = chat->cli->user != NULL ? chat->cli->user : text_of(first, "user_name", "");
    head_put(chat->lines, "", user[0] != '\0' ? user : "User", character, persona);
    chat->has_head = true;
}

/* Swipes are siblings; the one that was chosen goes on. */
static void chat_message(struct chat *chat, const json_t *message)
{
    const json_t *swipes = json_object_get(message, "swipes");
    const int speaker = json_is_true(json_object_get(message, "is_user")) ? 0 : 1;
    const uint32_t parent = chat->last;
    const size_t count = json_array_size(swipes);
    const size_t chosen = (size_t)json_integer_value(json_object_get(message, "swipe_id"));
    if (json_is_true(json_object_get(message, "is_system"))) {
        chat->hidden_count++;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        json_t *swipe = json_array_get(swipes, i);
        json_t *said = json_object_get(message, "mes");
        const uint32_t node = node_put(chat->lines, parent, speaker, true, false,
                                       i == chosen && json_is_string(said) ? said : swipe);
        chat->last = i == chosen ? node : chat->last;
    }
    if (count == 0 || chosen >= count) {
        chat->last =
            node_put(chat->lines, parent, speaker, true, false, json_object_get(message, "mes"));
    }
}

static int chat_line(struct chat *chat, const char *text, size_t size, size_t number)
{
    json_error_t error;
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(object)) {
        cli_complain("line %zu is no message of a chat: %s", number, error.text);
        json_decref(object);
        return CLI_FAILED;
    }
    if (!chat->has_head) {
        chat_head(chat, object);
    }
    if (json_object_get(object, "mes") != NULL) {
        chat_message(chat, object);
    }
    json_decref(object);
    return CLI_OK;
}

static int chat_read(const struct cli *cli, FILE *file, struct lines *lines)
{
    struct chat chat = {.cli = cli, .lines = lines};
    char *text = NULL;
    size_t capacity = 0;
    size_t number = 0;
    int status = CLI_OK;
    ssize_t size = getline(&text, &capacity, file);
    for (; size > 0 && status == CLI_OK; size = getline(&text, &capacity, file)) {
        number++;
        if (size > LINE_BYTES_MAX) {
            cli_complain("line %zu is longer than %d bytes", number, LINE_BYTES_MAX);
            status = CLI_FAILED;
        } else if (strspn(text, " \t\r\n") < (size_t)size) {
            status = chat_line(&chat, text, (size_t)size, number);
        }
    }
    free(text);
    if (status == CLI_OK && !chat.has_head) {
        cli_complain("the file holds no chat");
        return CLI_FAILED;
    }
    if (chat.hidden_count > 0) {
        cli_complain("%u hidden messages were left out", chat.hidden_count);
    }
    return status;
}

/* ---------------------------------------------------------------- exoloom, in */

struct loom {
    struct lines *lines;
    const json_t *nodes;
    const json_t *pruned; /* set of ids */
    json_t *numbers;      /* id -> number; owned */
    json_t *stack;        /* of ids that are to be written; owned */
};

/* Ids are numbers, and keys of objects are texts. NULL: it is none. */
static const char *id_of(const json_t *value, char text[ID_CHARS_MAX])
{
    if (!json_is_integer(value)) {
        return json_string_value(value);
    }
    (void)snprintf(text, ID_CHARS_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    return text;
}

/* What the object's key names; NULL: nothing. */
static const json_t *named(const json_t *object, const char *key, const json_t *names)
{
    char text[ID_CHARS_MAX];
    const char *id = id_of(json_object_get(object, key), text);
    return id != NULL ? json_object_get(names, id) : NULL;
}

/* A node after its parent; the same author goes on in the same turn. A root without words is our
 * own, which has none. */
static bool loom_node(struct loom *loom, const char *id)
{
    const json_t *node = json_object_get(loom->nodes, id);
    const json_t *above = named(node, "parentId", loom->nodes);
    const json_int_t parent = json_integer_value(named(node, "parentId", loom->numbers));
    const json_t *children = json_object_get(node, "childrenIds");
    json_t *words = json_object_get(node, "content");
    const bool is_model = strcmp(text_of(node, "authorType", "USER"), "LLM") == 0;
    const bool goes_on = parent != 0 && strcmp(text_of(above, "authorType", "USER"),
                                               text_of(node, "authorType", "USER")) == 0;
    uint32_t number = 0;
    if (node == NULL || json_object_get(loom->numbers, id) != NULL) {
        cli_complain("node \"%s\" of the tree is missing, or hangs in two places", id);
        return false;
    }
    if (above != NULL || json_string_length(words) > 0) {
        number = node_put(loom->lines, (uint32_t)parent, is_model, !goes_on,
                          json_object_get(loom->pruned, id) != NULL, words);
    }
    added(loom->lines, json_object_set_new(loom->numbers, id, json_integer(number)));
    for (size_t i = json_array_size(children); i > 0; i--) {
        added(loom->lines, json_array_append(loom->stack, json_array_get(children, i - 1)));
    }
    return true;
}

static bool loom_walk(struct loom *loom, json_t *root)
{
    bool is_good = true;
    added(loom->lines, json_array_append(loom->stack, root));
    while (is_good && json_array_size(loom->stack) > 0) {
        const size_t last = json_array_size(loom->stack) - 1;
        json_t *id = json_incref(json_array_get(loom->stack, last));
        char text[ID_CHARS_MAX];
        const char *name = id_of(id, text);
        (void)json_array_remove(loom->stack, last);
        is_good = name != NULL && loom->lines->node_count < TREE_NODE_COUNT_MAX;
        if (!is_good) {
            cli_complain("the tree has a node whose id is neither number nor text, or more than %d "
                         "nodes",
                         TREE_NODE_COUNT_MAX);
        }
        is_good = is_good && loom_node(loom, name);
        json_decref(id);
    }
    return is_good;
}

/* Ids of nodes in a list of {"nodeId": ...}. */
static json_t *ids_of(struct lines *lines, const json_t *list)
{
    json_t *set = json_object();
    for (size_t i = 0; i < json_array_size(list); i++) {
        char text[ID_CHARS_MAX];
        const char *id = id_of(json_object_get(json_array_get(list, i), "nodeId"), text);
        if (id != NULL) {
            added(lines, json_object_set_new(set, id, json_true()));
        }
    }
    return set;
}

static void bookmarks_put(const struct loom *loom, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *number = named(json_array_get(list, i), "nodeId", loom->numbers);
        char name[32];
        (void)snprintf(name, sizeof name, "bookmark %08zu", i + 1);
        if (number != NULL) {
            line_put(loom->lines, json_pack("{s:s,s:s,s:I}", "record", "bookmark", "name", name,
                                            "node", json_integer_value(number)));
        }
    }
}

/* As much of the title as a label holds, in whole characters. */
static void label_of(const json_t *tree, char label[LABEL_BYTES_MAX + 1])
{
    const char *title = text_of(tree, "title", "");
    size_t size = strlen(title);
    if (size > LABEL_BYTES_MAX) {
        for (size = LABEL_BYTES_MAX; size > 0 && ((unsigned char)title[size] & 0xc0) == 0x80;) {
            size--;
        }
    }
    memcpy(label, title, size);
    label[size] = '\0';
}

static int loom_read(const struct cli *cli, FILE *file, struct lines *lines)
{
    json_error_t error;
    json_t *whole = json_loadf(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    const json_t *tree = json_object_get(whole, "tree");
    const json_t *lens = json_object_get(whole, "lens");
    char label[LABEL_BYTES_MAX + 1];
    json_t *pruned = ids_of(lines, json_object_get(lens, "prunedNodes"));
    struct loom loom = {lines, json_object_get(tree, "nodes"), pruned, json_object(), json_array()};
    bool is_good = json_integer_value(json_object_get(whole, "schemaVersion")) == 1 &&
                   json_is_object(loom.nodes);
    if (!is_good) {
        cli_complain("the file is no tree of exoloom, schemaVersion 1%s%s",
                     whole == NULL ? ": " : "", whole == NULL ? error.text : "");
    } else {
        label_of(tree, label);
        head_put(lines, label, cli->user != NULL ? cli->user : "User", "Model",
                 cli->persona != NULL ? cli->persona : "plain");
        is_good = loom_walk(&loom, json_object_get(tree, "rootNodeId"));
        bookmarks_put(&loom, json_object_get(lens, "bookmarks"));
    }
    json_decref(loom.numbers);
    json_decref(loom.stack);
    json_decref(pruned);
    json_decref(whole);
    return is_good ? CLI_OK : CLI_FAILED;
}

int foreign_read(const struct cli *cli, enum foreign_format format, FILE *file, char **out,
                 size_t *size)
{
    struct lines lines = {.file = open_memstream(out, size)};
    int status = CLI_FAILED;
    if (lines.file == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    status =
        format == FOREIGN_EXOLOOM ? loom_read(cli, file, &lines) : chat_read(cli, file, &lines);
    end_put(&lines);
    if (fclose(lines.file) != 0 || lines.is_bad) {
        cli_complain("the file could not be made into one of ours: out of memory, or a name given "
                     "here is no UTF-8");
        status = CLI_FAILED;
    }
    return status;
}
