/* A session as a tree of exoloom: our nodes, cut where others hang inside them.
 *
 * Theirs hang at the end of one another only, so a node becomes a chain of pieces. Their texts are
 * whole characters, ours may fork inside one: the bytes of a character that the end of a piece cuts
 * are held back, and stand in front of whatever goes on there. So every path has the text that it
 * has here.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "foreign.h"
#include "json.h"
#include "utf8.h"

enum { ROOT = 1, FIRST_PIECE = 2, HELD_BYTES_MAX = 3, TIME_CHARS_MAX = 40 };

struct piece {
    size_t node;     /* index */
    size_t from, to; /* bytes of its text */
    size_t above;    /* the piece that it goes on behind, index + 1; 0: the root */
    size_t first_child, last_child, next_sibling; /* index + 1; 0: none */
    char held[HELD_BYTES_MAX];                    /* of a character that its end cuts */
    size_t held_size;
};

struct loom {
    const struct foreign_tree *tree;
    struct piece *pieces; /* owned, by node, then by byte: parents first */
    size_t count;
    size_t *first;        /* owned, [node count + 1]: of each node, and behind the last one's */
    size_t first_of_root; /* index + 1 */
    size_t last_of_root;
    char *text; /* owned; of the piece that is being written */
};

/* ---------------------------------------------------------------- pieces */

static int by_place(const void *a, const void *b)
{
    const struct foreign_place *left = a;
    const struct foreign_place *right = b;
    if (left->node != right->node) {
        return left->node < right->node ? -1 : 1;
    }
    return left->byte < right->byte ? -1 : left->byte > right->byte;
}

/* Every end of a piece, in order, some of them more than once. */
static struct foreign_place *cuts_of(const struct foreign_tree *tree, size_t *count)
{
    const struct node_copies *nodes = tree->nodes;
    const size_t most = 2 * nodes->count + tree->mark_count + 1;
    struct foreign_place *cuts = calloc(most, sizeof *cuts);
    *count = 0;
    for (size_t i = 0; i < nodes->count && cuts != NULL; i++) {
        const struct node_copy *node = &nodes->list[i];
        cuts[(*count)++] = (struct foreign_place){i + 1, node->text_size};
        if (node->above != 0) {
            cuts[(*count)++] = (struct foreign_place){node->above, node->parent_byte};
        }
    }
    for (size_t i = 0; i < tree->mark_count && cuts != NULL; i++) {
        if (tree->marks[i].node != 0) {
            cuts[(*count)++] = tree->marks[i];
        }
    }
    if (cuts != NULL) {
        qsort(cuts, *count, sizeof *cuts, by_place);
    }
    return cuts;
}

static bool pieces_make(struct loom *loom)
{
    size_t count = 0;
    struct foreign_place *cuts = cuts_of(loom->tree, &count);
    loom->pieces = calloc(count + 1, sizeof *loom->pieces);
    loom->first = calloc(loom->tree->nodes->count + 1, sizeof *loom->first);
    if (cuts == NULL || loom->pieces == NULL || loom->first == NULL) {
        free(cuts);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const bool is_new_node = i == 0 || cuts[i].node != cuts[i - 1].node;
        if (is_new_node || cuts[i].byte != cuts[i - 1].byte) {
            loom->pieces[loom->count++] = (struct piece){
                .node = cuts[i].node - 1,
                .from = is_new_node ? 0 : cuts[i - 1].byte,
                .to = cuts[i].byte,
            };
        }
        loom->first[cuts[i].node] = loom->count; /* so far */
    }
    free(cuts);
    return true;
}

/* The piece that ends there, index + 1; 0: the root. There is one: the place is a cut. */
static size_t piece_at(const struct loom *loom, struct foreign_place place)
{
    if (place.node == 0) {
        return 0;
    }
    size_t low = loom->first[place.node - 1];
    size_t high = loom->first[place.node] - 1;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (loom->pieces[middle].to < place.byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low + 1;
}

static void pieces_link(struct loom *loom)
{
    for (size_t i = 0; i < loom->count; i++) {
        struct piece *piece = &loom->pieces[i];
        const struct node_copy *node = &loom->tree->nodes->list[piece->node];
        const bool is_first = i == loom->first[piece->node];
        piece->above =
            is_first ? piece_at(loom, (struct foreign_place){node->above, node->parent_byte}) : i;
        size_t *first =
            piece->above == 0 ? &loom->first_of_root : &loom->pieces[piece->above - 1].first_child;
        size_t *last =
            piece->above == 0 ? &loom->last_of_root : &loom->pieces[piece->above - 1].last_child;
        if (*last != 0) {
            loom->pieces[*last - 1].next_sibling = i + 1;
        } else {
            *first = i + 1;
        }
        *last = i + 1;
    }
}

/* ---------------------------------------------------------------- texts */

/* Bytes at the end that may be the beginning of a character. */
static size_t open_bytes(const char *text, size_t size)
{
    const size_t most = size < HELD_BYTES_MAX ? size : HELD_BYTES_MAX;
    size_t count = 1;
    while (count <= most && ((unsigned char)text[size - count] & 0xc0) == 0x80) {
        count++;
    }
    return count <= most && utf8_lead_bytes(text[size - count]) > count ? count : 0;
}

/* What was held back above it, and its own bytes; what it holds back is kept. */
static struct personad_text piece_text(struct loom *loom, struct piece *piece)
{
    const struct node_copy *node = &loom->tree->nodes->list[piece->node];
    const struct piece *above = piece->above != 0 ? &loom->pieces[piece->above - 1] : NULL;
    size_t size = 0;
    if (above != NULL) {
        memcpy(loom->text, above->held, above->held_size);
        size = above->held_size;
    }
    memcpy(loom->text + size, node->text + piece->from, piece->to - piece->from);
    size += piece->to - piece->from;
    if (piece->first_child != 0) {
        piece->held_size = open_bytes(loom->text, size);
        size -= piece->held_size;
        memcpy(piece->held, loom->text + size, piece->held_size);
    }
    return (struct personad_text){loom->text, size};
}

static bool text_make(struct loom *loom)
{
    size_t most = 0;
    for (size_t i = 0; i < loom->tree->nodes->count; i++) {
        const size_t size = loom->tree->nodes->list[i].text_size;
        most = size > most ? size : most;
    }
    loom->text = malloc(most + HELD_BYTES_MAX + 1);
    return loom->text != NULL;
}

/* ---------------------------------------------------------------- the file */

static void time_put(struct json *json, uint64_t us)
{
    const time_t seconds = (time_t)(us / 1000000);
    struct tm parts;
    char text[TIME_CHARS_MAX];
    char whole[2 * TIME_CHARS_MAX];
    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        return;
    }
    (void)snprintf(whole, sizeof whole, "%s.%06uZ", text, (unsigned)(us % 1000000));
    json_text_of(json, "createdAt", whole);
}

static void children_put(const struct loom *loom, struct json *json, size_t first)
{
    json_list(json, "childrenIds");
    for (size_t at = first; at != 0; at = loom->pieces[at - 1].next_sibling) {
        json_u64(json, NULL, FIRST_PIECE + at - 1);
    }
    json_list_end(json);
}

static void root_put(const struct loom *loom, struct json *json)
{
    json_object_start(json, "1");
    json_text_of(json, "content", "");
    json_text_of(json, "authorType", "USER");
    json_null(json, "parentId");
    children_put(loom, json, loom->first_of_root);
    json_object_end(json);
}

static void piece_put(struct loom *loom, struct json *json, size_t at)
{
    struct piece *piece = &loom->pieces[at];
    const struct node_copy *node = &loom->tree->nodes->list[piece->node];
    const struct cast *cast = loom->tree->cast;
    const struct cast_member *member =
        node->speaker < cast->count ? &cast->members[node->speaker] : NULL;
    char key[24];
    (void)snprintf(key, sizeof key, "%zu", FIRST_PIECE + at);
    json_object_start(json, key);
    json_text(json, "content", piece_text(loom, piece));
    json_text_of(json, "authorType", member == NULL || member->is_human ? "USER" : "LLM");
    json_text_of(json, "authorName", member == NULL ? "" : member->name);
    json_u64(json, "parentId", piece->above == 0 ? ROOT : FIRST_PIECE + piece->above - 1);
    children_put(loom, json, piece->first_child);
    time_put(json, node->created_us);
    json_object_end(json);
}

static void lens_put(const struct loom *loom, struct json *json)
{
    const struct foreign_tree *tree = loom->tree;
    json_object_start(json, "lens");
    json_list(json, "bookmarks");
    for (size_t i = 0; i < tree->mark_count; i++) {
        const size_t at = piece_at(loom, tree->marks[i]);
        json_object_start(json, NULL);
        json_u64(json, "nodeId", at == 0 ? ROOT : FIRST_PIECE + at - 1);
        json_object_end(json);
    }
    json_list_end(json);
    json_list(json, "prunedNodes");
    for (size_t i = 0; i < tree->nodes->count; i++) {
        if (tree->nodes->list[i].deleted) {
            json_object_start(json, NULL);
            json_u64(json, "nodeId", FIRST_PIECE + loom->first[i]);
            json_object_end(json);
        }
    }
    json_list_end(json);
    json_object_end(json);
}

static void tree_put(struct loom *loom, FILE *file)
{
    struct json json;
    json_start(&json, file);
    json_text_of(&json, "loomType", "Exoloom");
    json_text_of(&json, "version", "1");
    json_u64(&json, "schemaVersion", 1);
    json_object_start(&json, "tree");
    json_text_of(&json, "title", loom->tree->title);
    time_put(&json, loom->tree->created_us);
    json_u64(&json, "rootNodeId", ROOT);
    json_object_start(&json, "nodes");
    root_put(loom, &json);
    for (size_t i = 0; i < loom->count; i++) {
        piece_put(loom, &json, i);
    }
    json_object_end(&json);
    json_object_end(&json);
    lens_put(loom, &json);
    json_end(&json);
}

int foreign_print_loom(const struct foreign_tree *tree, FILE *file)
{
    struct loom loom = {.tree = tree};
    const bool is_made = pieces_make(&loom) && text_make(&loom);
    if (is_made) {
        pieces_link(&loom);
        tree_put(&loom, file);
    } else {
        cli_complain("out of memory");
    }
    free(loom.pieces);
    free(loom.first);
    free(loom.text);
    return is_made ? CLI_OK : CLI_FAILED;
}

/* ---------------------------------------------------------------- from a session */

/* Places of a page, in tokens, since what is asked next ends the page's life. */
static int marks_of_page(struct cli *cli, const struct node_copies *nodes,
                         const struct personad_bookmark *marks, size_t count,
                         struct foreign_tree *tree)
{
    struct personad_position *places = calloc(count + 1, sizeof *places);
    struct foreign_place *moved =
        realloc(tree->marks, (tree->mark_count + count + 1) * sizeof *moved);
    int status = CLI_OK;
    tree->marks = moved != NULL ? moved : tree->marks;
    if (places == NULL || moved == NULL) {
        free(places);
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    for (size_t i = 0; i < count; i++) {
        places[i] = marks[i].position;
    }
    for (size_t i = 0; i < count && status == CLI_OK; i++) {
        struct foreign_place place = {nodes_find(nodes, places[i].node), 0};
        if (place.node != 0) {
            status =
                nodes_byte_at(cli, &nodes->list[place.node - 1], places[i].offset, &place.byte);
        }
        if (place.node != 0 || places[i].node == 0) { /* else not on the path that was asked for */
            tree->marks[tree->mark_count++] = place;
        }
    }
    free(places);
    return status;
}

static int marks_read(struct cli *cli, uint64_t session, const struct node_copies *nodes,
                      struct foreign_tree *tree)
{
    uint32_t skip = 0;
    bool end = false;
    while (!end) {
        const struct personad_bookmark *marks = NULL;
        size_t count = 0;
        if (personad_bookmark_list(cli->client, session, skip, &marks, &count, &end) !=
            PERSONAD_OK) {
            return cli_failed(cli);
        }
        if (marks_of_page(cli, nodes, marks, count, tree) != CLI_OK) {
            return CLI_FAILED;
        }
        skip += (uint32_t)count;
    }
    return CLI_OK;
}

static int session_read(struct cli *cli, uint64_t id, struct cast *cast, struct foreign_tree *tree)
{
    const struct personad_session *session = cast_session(cli, id);
    if (session == NULL) {
        return CLI_FAILED;
    }
    cast_take(cast, session);
    tree->cast = cast;
    tree->created_us = session->created_us;
    (void)snprintf(tree->title, sizeof tree->title, "%.*s", (int)session->label.size,
                   session->label.size > 0 ? session->label.data : "");
    return CLI_OK;
}

int foreign_write_loom(struct cli *cli, uint64_t session, uint64_t node, FILE *file)
{
    const struct personad_position place = {node, PERSONAD_END};
    const struct personad_walk_options walk = {
        .session = session,
        .position = &place,
        .what = node != 0 ? PERSONAD_PATH : PERSONAD_SUBTREE,
        .deleted = true,
    };
    struct node_copies nodes = {0};
    struct cast cast;
    struct foreign_tree tree = {.nodes = &nodes};
    int status = session_read(cli, session, &cast, &tree);
    if (status == CLI_OK) {
        status = nodes_read(cli, &walk, &nodes);
    }
    if (status == CLI_OK) {
        status = marks_read(cli, session, &nodes, &tree);
    }
    if (status == CLI_OK) {
        status = foreign_print_loom(&tree, file);
    }
    if (status == CLI_OK) {
        cli_complain("a tree of exoloom has texts, authors, bookmarks and what is deleted: tokens, "
                     "numbers, notes, labels, turns and prompts are not in it");
    }
    free(tree.marks);
    nodes_finish(&nodes);
    return status;
}
