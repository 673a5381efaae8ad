/* A path as a chat file of SillyTavern: a header, then a message a turn, its siblings as swipes. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cast.h"
#include "foreign.h"

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
            cli_complain("out of memory");
            status = CLI_FAILED;
        }
    }
    nodes_finish(&nodes);
    return status;
}

/* JSON has no bytes that are no text: they become U+FFFD. */
static json_t *text_new(const char *text, size_t size)
{
    json_t *made = json_stringn(text, size);
    if (made != NULL) {
        return made;
    }
    char *clean = malloc(3 * size + 1);
    size_t at = 0;
    for (size_t i = 0; clean != NULL && i < size;) {
        size_t length = size - i < 4 ? size - i : 4;
        json_t *one = NULL;
        while (length > 0 && (one = json_stringn(text + i, length)) == NULL) {
            length--;
        }
        memcpy(clean + at, length > 0 ? text + i : "\xef\xbf\xbd", length > 0 ? length : 3);
        at += length > 0 ? length : 3;
        i += length > 0 ? length : 1;
        json_decref(one);
    }
    made = clean == NULL ? NULL : json_stringn(clean, at);
    free(clean);
    return made;
}

/* The siblings of a turn, of the same speaker; the one on the path has its whole text. */
static int swipes_put(struct cli *cli, uint64_t session, const struct turn *turn, json_t *message)
{
    const struct personad_position parent = {turn->parent.node, PERSONAD_END};
    struct personad_walk_options walk = {
        .session = session, .position = &parent, .what = PERSONAD_CHILDREN, .text = true};
    json_t *swipes = json_array();
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
                (void)json_object_set_new(message, "swipe_id",
                                          json_integer((json_int_t)json_array_size(swipes)));
                (void)json_array_append_new(swipes, text_new(turn->text, turn->size));
            } else if (node->parent.offset == turn->parent.offset && node->opens_turn &&
                       node->speaker == turn->speaker) {
                (void)json_array_append_new(swipes, text_new(node->text.data, node->text.size));
            }
        }
        walk.skip += (uint32_t)count;
    }
    (void)json_object_set_new(message, "swipes", swipes);
    return CLI_OK;
}

static void line_put(FILE *file, json_t *object)
{
    (void)json_dumpf(object, file, JSON_COMPACT);
    (void)fputc('\n', file);
    json_decref(object);
}

static int turns_put(struct cli *cli, uint64_t session, const struct cast *cast,
                     const struct path *path, FILE *file)
{
    int status = CLI_OK;
    for (size_t i = 0; i < path->count && status == CLI_OK; i++) {
        const struct turn *turn = &path->turns[i];
        const bool is_known = turn->speaker < cast->count;
        const bool is_user = is_known && cast->members[turn->speaker].is_human;
        json_t *message = json_pack(
            "{s:s,s:b,s:b,s:o}", "name", is_known ? cast->members[turn->speaker].name : "",
            "is_user", is_user, "is_system", false, "mes", text_new(turn->text, turn->size));
        status = is_user ? CLI_OK : swipes_put(cli, session, turn, message);
        line_put(file, message);
    }
    return status;
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
        line_put(file,
                 json_pack("{s:s,s:s,s:{}}", "user_name", cast.members[0].name, "character_name",
                           has_persona ? cast.members[1].name : "", "chat_metadata"));
        status = turns_put(cli, session, &cast, &path, file);
        cli_complain("a chat file has one path and its swipes: the rest of the tree, tokens, "
                     "numbers and prompts are not in it");
    }
    path_finish(&path);
    return status;
}
