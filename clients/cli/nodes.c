#include "nodes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { NODE_COUNT_MAX = 1 << 22 };

void nodes_finish(struct node_copies *nodes)
{
    for (size_t i = 0; i < nodes->count; i++) {
        free(nodes->list[i].text);
        free(nodes->list[i].content);
    }
    free(nodes->list);
    free(nodes->slots);
    *nodes = (struct node_copies){0};
}

/* ---------------------------------------------------------------- copies */

static int out_of_memory(void)
{
    cli_complain("out of memory");
    return CLI_FAILED;
}

/* One byte more, so that an empty one is no failure. */
static void *copy_of(const void *data, size_t size)
{
    void *copy = malloc(size + 1);
    if (copy != NULL && size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

static int node_add(struct node_copies *nodes, const struct personad_node *from)
{
    if (nodes->count == nodes->capacity) {
        const size_t capacity = nodes->capacity == 0 ? 64 : 2 * nodes->capacity;
        struct node_copy *moved =
            capacity > NODE_COUNT_MAX ? NULL : realloc(nodes->list, capacity * sizeof *moved);
        if (moved == NULL) {
            return out_of_memory();
        }
        nodes->list = moved;
        nodes->capacity = capacity;
    }
    struct node_copy *node = &nodes->list[nodes->count++];
    *node = (struct node_copy){
        .id = from->id,
        .created_us = from->created_us,
        .parent = from->parent,
        .speaker = from->speaker,
        .opens_turn = from->opens_turn,
        .deleted = from->deleted,
        .text = copy_of(from->text.data, from->text.size),
        .text_size = from->text.size,
        .content = copy_of(from->content, from->content_count * sizeof *from->content),
        .content_count = from->content_count,
    };
    return node->text != NULL && node->content != NULL ? CLI_OK : out_of_memory();
}

static int nodes_walk(struct cli *cli, const struct personad_walk_options *asked,
                      struct node_copies *out)
{
    struct personad_walk_options walk = *asked;
    bool end = false;
    walk.text = true;
    walk.content = true;
    while (!end) {
        const struct personad_node *nodes = NULL;
        size_t count = 0;
        if (personad_walk(cli->client, &walk, &nodes, &count, &end) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            if (node_add(out, &nodes[i]) != CLI_OK) {
                return CLI_FAILED;
            }
        }
        walk.skip += (uint32_t)count;
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- parents */

static int by_id(const void *a, const void *b)
{
    const uint64_t left = ((const struct node_slot *)a)->id;
    const uint64_t right = ((const struct node_slot *)b)->id;
    return left < right ? -1 : left > right;
}

size_t nodes_find(const struct node_copies *nodes, uint64_t id)
{
    const struct node_slot wanted = {id, 0};
    const struct node_slot *found = nodes->count == 0 ? NULL
                                                      : bsearch(&wanted, nodes->slots, nodes->count,
                                                                sizeof *nodes->slots, by_id);
    return found != NULL ? found->at + 1 : 0;
}

/* Pages are of different moments: what was made or purged between them may be told twice or be
 * missing. */
static int parents_find(struct node_copies *nodes)
{
    bool is_good = true;
    nodes->slots = calloc(nodes->count + 1, sizeof *nodes->slots);
    if (nodes->slots == NULL) {
        return out_of_memory();
    }
    for (size_t i = 0; i < nodes->count; i++) {
        nodes->slots[i] = (struct node_slot){nodes->list[i].id, i};
    }
    qsort(nodes->slots, nodes->count, sizeof *nodes->slots, by_id);
    for (size_t i = 0; i + 1 < nodes->count; i++) {
        is_good = is_good && nodes->slots[i].id != nodes->slots[i + 1].id;
    }
    for (size_t i = 0; i < nodes->count; i++) {
        struct node_copy *node = &nodes->list[i];
        node->above = nodes_find(nodes, node->parent.node);
        is_good = is_good && (node->above != 0 || node->parent.node == 0) && node->above <= i;
    }
    if (!is_good) {
        cli_complain("the tree changed while it was read; try again");
        return CLI_FAILED;
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- bytes */

/* *byte is where token `from` begins, and becomes where token `to` does. */
static int byte_advance(struct cli *cli, const struct node_copy *node, size_t from, size_t to,
                        size_t *byte)
{
    struct personad_text shown = {NULL, 0};
    if (to >= node->content_count) {
        *byte = node->text_size;
        return CLI_OK;
    }
    if (from == to) {
        return CLI_OK;
    }
    if (personad_detokenize(cli->client, node->content + from, to - from, false, &shown) !=
        PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (shown.size > node->text_size - *byte ||
        (shown.size > 0 && memcmp(shown.data, node->text + *byte, shown.size) != 0)) {
        cli_complain("the tokens of node %" PRIu64 " do not show its text here, since another "
                     "model made it: what hangs inside it has no place in the text",
                     node->id);
        return CLI_FAILED;
    }
    *byte += shown.size;
    return CLI_OK;
}

int nodes_byte_at(struct cli *cli, const struct node_copy *node, uint32_t offset, size_t *byte)
{
    *byte = 0;
    return byte_advance(cli, node, 0, offset, byte);
}

/* A fork inside a node. */
struct fork {
    size_t above;
    uint32_t offset;
    size_t at;
};

static int by_place(const void *a, const void *b)
{
    const struct fork *left = a;
    const struct fork *right = b;
    if (left->above != right->above) {
        return left->above < right->above ? -1 : 1;
    }
    return left->offset < right->offset ? -1 : left->offset > right->offset;
}

/* Each token of a parent is shown once, however many forks it has. */
static int bytes_find(struct cli *cli, struct node_copies *nodes)
{
    struct fork *forks = calloc(nodes->count + 1, sizeof *forks);
    size_t count = 0;
    size_t byte = 0;
    int status = CLI_OK;
    if (forks == NULL) {
        return out_of_memory();
    }
    for (size_t i = 0; i < nodes->count; i++) {
        if (nodes->list[i].above != 0) {
            forks[count++] = (struct fork){nodes->list[i].above, nodes->list[i].parent.offset, i};
        }
    }
    qsort(forks, count, sizeof *forks, by_place);
    for (size_t i = 0; i < count && status == CLI_OK; i++) {
        const bool is_first = i == 0 || forks[i].above != forks[i - 1].above;
        const struct node_copy *parent = &nodes->list[forks[i].above - 1];
        byte = is_first ? 0 : byte;
        status =
            byte_advance(cli, parent, is_first ? 0 : forks[i - 1].offset, forks[i].offset, &byte);
        nodes->list[forks[i].at].parent_byte = byte;
    }
    free(forks);
    return status;
}

int nodes_read(struct cli *cli, const struct personad_walk_options *walk, struct node_copies *out)
{
    *out = (struct node_copies){0};
    int status = nodes_walk(cli, walk, out);
    if (status == CLI_OK) {
        status = parents_find(out);
    }
    return status == CLI_OK ? bytes_find(cli, out) : status;
}

int nodes_read_path(struct cli *cli, uint64_t session, uint64_t node, struct node_copies *out,
                    size_t *size)
{
    struct personad_position position = {node, PERSONAD_END};
    const struct personad_walk_options walk = {
        .session = session, .position = &position, .what = PERSONAD_PATH};
    *out = (struct node_copies){0};
    *size = 0;
    if (node == 0 && personad_head(cli->client, session, NULL, &position) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    const int status = nodes_read(cli, &walk, out);
    return status != CLI_OK || out->count == 0
               ? status
               : nodes_byte_at(cli, &out->list[out->count - 1], position.offset, size);
}
