/* A path as a chat file of SillyTavern: a header, then a message a turn, its siblings as swipes. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cast.h"
#include "foreign.h"
#include "utf8.h"

/* One turn of the path. */
struct turn {
    struct personad_position parent; /* where it hangs */
    uint64_t first;                  /* its first node */
    uint32_t speaker;
    char *text; /* owned */
    size_t size;
};

struct path {
    struct turn *turns; /* owned */
    size_t count;
};

static int out_of_memory(void)
{
    cli_complain("out of memory, or the file cannot be written");
    return CLI_FAILED;
}

static void path_finish(struct path *path)
{
    for (size_t i = 0; i < path->count; i++) {
        free(path->turns[i].text);
    }
    free(path->turns);
}

/* So much of the node's text behind that of its turn. */
static bool path_add(struct path *path, const struct node_copy *node, size_t size)
{
    if (node->opens_turn || path->count == 0) {
        struct turn *turns = realloc(path->turns, (path->count + 1) * sizeof *turns);
        if (turns == NULL) {
            return false;
        }
        path->turns = turns;
        turns[path->count++] = (struct turn){node->parent, node->id, node->speaker, NULL, 0};
    }
    struct turn *turn = &path->turns[path->count - 1];
    char *text = realloc(turn->text, turn->size + size + 1);
    if (text == NULL) {
        return false;
    }
    memcpy(text + turn->size, node->text, size);
    turn->text = text;
    turn->size += size;
    return true;
}

static int path_read(struct cli *cli, uint64_t session, uint64_t node, struct path *path)
{
    struct node_copies nodes = {0};
    size_t size = 0;
    int status = nodes_read_path(cli, session, node, &nodes, &size);
    for (size_t i = 0; status == CLI_OK && i < nodes.count; i++) {
        if (!path_add(path, &nodes.list[i],
                      i + 1 < nodes.count ? nodes.list[i + 1].parent_byte : size)) {
            status = out_of_memory();
        }
    }
    nodes_finish(&nodes);
    return status;
}

/* JSON has no bytes that are no text: they become U+FFFD. */
static json_t *text_new(const char *text, size_t size)
{
    char *clean = malloc(3 * size + 1);
    size_t at = 0;
    for (size_t i = 0; clean != NULL && i < size;) {
        const size_t length = utf8_sequence_bytes(text + i, size - i);
        memcpy(clean + at, length > 0 ? text + i : "\xef\xbf\xbd", length > 0 ? length : 3);
        at += length > 0 ? length : 3;
        i += length > 0 ? length : 1;
    }
    json_t *made = clean == NULL ? NULL : json_stringn(clean, at);
    free(clean);
    return made;
}

static bool swipe_put(json_t *swipes, const char *text, size_t size)
{
    return json_array_append_new(swipes, text_new(text, size)) == 0;
}

/* The siblings of a turn, of the same speaker; the one on the path has its whole text. */
static int swipes_put(struct cli *cli, uint64_t session, const struct turn *turn, json_t *message)
{
    const struct personad_position parent = {turn->parent.node, PERSONAD_END};
    struct personad_walk_options walk = {
        .session = session, .position = &parent, .what = PERSONAD_CHILDREN, .text = true};
    json_t *swipes = json_array();
    bool is_good = swipes != NULL;
    bool end = false;
    while (!end) {
        const struct personad_node *nodes = NULL;
        size_t count = 0;
        if (personad_walk(cli->client, &walk, &nodes, &count, &end) != PERSONAD_OK) {
            json_decref(swipes);
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            const struct personad_node *node = &nodes[i];
            if (node->id == turn->first) {
                json_t *at = json_integer((json_int_t)json_array_size(swipes));
                is_good = json_object_set_new(message, "swipe_id", at) == 0 && is_good;
                is_good = swipe_put(swipes, turn->text, turn->size) && is_good;
            } else if (node->parent.offset == turn->parent.offset && node->opens_turn &&
                       node->speaker == turn->speaker) {
                is_good = swipe_put(swipes, node->text.data, node->text.size) && is_good;
            }
        }
        walk.skip += (uint32_t)count;
    }
    is_good = json_object_set_new(message, "swipes", swipes) == 0 && is_good;
    return is_good ? CLI_OK : out_of_memory();
}

static int line_put(FILE *file, json_t *object)
{
    const bool is_good = object != NULL && json_dumpf(object, file, JSON_COMPACT) == 0;
    json_decref(object);
    if (!is_good) {
        return out_of_memory();
    }
    (void)fputc('\n', file);
    return CLI_OK;
}

static int turn_put(struct cli *cli, uint64_t session, const struct cast *cast,
                    const struct turn *turn, FILE *file)
{
    const bool is_known = turn->speaker < cast->count;
    const bool is_user = is_known && cast->members[turn->speaker].is_human;
    json_t *message =
        json_pack("{s:s,s:b,s:b,s:o}", "name", is_known ? cast->members[turn->speaker].name : "",
                  "is_user", is_user, "is_system", false, "mes", text_new(turn->text, turn->size));
    const int status =
        is_user || message == NULL ? CLI_OK : swipes_put(cli, session, turn, message);
    if (status != CLI_OK) {
        json_decref(message);
        return status;
    }
    return line_put(file, message);
}

int foreign_write_chat(struct cli *cli, uint64_t session, uint64_t node, FILE *file)
{
    struct path path = {NULL, 0};
    struct cast cast;
    int status = cast_read(cli, session, &cast);
    if (status == CLI_OK) {
        status = path_read(cli, session, node, &path);
    }
    if (status == CLI_OK) {
        const bool has_persona = cast.count > 1;
        status = line_put(file, json_pack("{s:s,s:s,s:{}}", "user_name", cast.members[0].name,
                                          "character_name", has_persona ? cast.members[1].name : "",
                                          "chat_metadata"));
    }
    for (size_t i = 0; i < path.count && status == CLI_OK; i++) {
        status = turn_put(cli, session, &cast, &path.turns[i], file);
    }
    if (status == CLI_OK) {
        cli_complain("a chat file has one path and its swipes: the rest of the tree, tokens, "
                     "numbers and prompts are not in it");
    }
    path_finish(&path);
    return status;
}
