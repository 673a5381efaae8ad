#include "outline.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

enum {
    LINE_TEXT_BYTES_MAX = 256, /* of a node's text that is kept for its line */
    DEPTH_COLUMNS_MAX = 40,    /* indentation past which a fork no longer moves right */
    TEXT_COLUMNS_MIN = 10,     /* of a text, however narrow the terminal */
    NODE_COUNT_MAX = 1 << 22,
};

struct outline_node {
    uint64_t id, parent;
    uint32_t parent_offset, ordinal, speaker;
    int finish;
    size_t first_child, next_sibling; /* index + 1; 0: none */
    size_t child_count;
    size_t text_size;
    bool is_longer; /* there is more of it */
    char text[LINE_TEXT_BYTES_MAX];
};

struct outline {
    struct cli *cli;
    uint64_t session;
    struct outline_node *nodes; /* owned, depth first as they came */
    size_t count, capacity;
    struct personad_position head;
    char (*names)[64]; /* owned, by speaker */
    size_t name_count;
    uint32_t children_max;
    size_t columns;
};

static int node_add(struct outline *outline, const struct personad_node *node)
{
    if (outline->count == outline->capacity) {
        const size_t capacity = outline->capacity == 0 ? 256 : outline->capacity * 2;
        struct outline_node *moved =
            capacity > NODE_COUNT_MAX ? NULL : realloc(outline->nodes, capacity * sizeof *moved);
        if (moved == NULL) {
            cli_complain("the tree is too large to draw");
            return CLI_FAILED;
        }
        outline->nodes = moved;
        outline->capacity = capacity;
    }
    struct outline_node *made = &outline->nodes[outline->count++];
    *made = (struct outline_node){
        .id = node->id,
        .parent = node->parent.node,
        .parent_offset = node->parent.offset,
        .ordinal = node->ordinal,
        .speaker = node->speaker,
        .finish = node->finish,
        .text_size = node->text.size,
        .is_longer = node->text.size > LINE_TEXT_BYTES_MAX,
    };
    if (made->is_longer) {
        made->text_size = utf8_whole_bytes(node->text.data, LINE_TEXT_BYTES_MAX);
    }
    if (made->text_size > 0) {
        memcpy(made->text, node->text.data, made->text_size);
    }
    return CLI_OK;
}

static int nodes_fetch(struct outline *outline, uint64_t root)
{
    const struct personad_position place = {root, PERSONAD_END};
    struct personad_walk_options options = {
        .session = outline->session,
        .position = &place,
        .what = PERSONAD_SUBTREE,
        .text = true,
    };
    bool end = false;
    while (!end) {
        const struct personad_node *nodes = NULL;
        size_t count = 0;
        if (personad_walk(outline->cli->client, &options, &nodes, &count, &end) != PERSONAD_OK) {
            return cli_failed(outline->cli);
        }
        for (size_t i = 0; i < count; i++) {
            if (node_add(outline, &nodes[i]) != CLI_OK) {
                return CLI_FAILED;
            }
        }
        options.skip += (uint32_t)count;
    }
    return CLI_OK;
}

static int names_fetch(struct outline *outline)
{
    const struct personad_session *sessions = NULL;
    size_t count = 0;
    bool end = false;
    if (personad_session_list(outline->cli->client, outline->session - 1, &sessions, &count,
                              &end) != PERSONAD_OK) {
        return cli_failed(outline->cli);
    }
    if (count == 0 || sessions[0].id != outline->session) {
        cli_complain("there is no session %" PRIu64, outline->session);
        return CLI_FAILED;
    }
    outline->head = sessions[0].head;
    outline->names = calloc(sessions[0].cast_count + 1, sizeof *outline->names);
    if (outline->names == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    outline->name_count = sessions[0].cast_count;
    for (size_t i = 0; i < outline->name_count; i++) {
        const struct personad_text name = sessions[0].cast[i].name;
        (void)snprintf(outline->names[i], sizeof outline->names[i], "%.*s", (int)name.size,
                       name.data != NULL ? name.data : "");
    }
    return CLI_OK;
}

/* Index + 1 of the node with that id; the ids of one page are not sorted, so a table of them is
 * made. */
struct id_slot {
    uint64_t id;
    size_t at;
};

static int by_id(const void *a, const void *b)
{
    const uint64_t left = ((const struct id_slot *)a)->id;
    const uint64_t right = ((const struct id_slot *)b)->id;
    return left < right ? -1 : left > right;
}

/* Children keep the order in which they came. Nodes whose parent is not among them are roots. */
static int links_make(struct outline *outline, size_t *first_root, size_t *root_count)
{
    struct id_slot *slots = calloc(outline->count + 1, sizeof *slots);
    if (slots == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    for (size_t i = 0; i < outline->count; i++) {
        slots[i] = (struct id_slot){outline->nodes[i].id, i};
    }
    qsort(slots, outline->count, sizeof *slots, by_id);
    *first_root = 0;
    *root_count = 0;
    for (size_t i = outline->count; i-- > 0;) {
        const struct id_slot wanted = {outline->nodes[i].parent, 0};
        const struct id_slot *found = bsearch(&wanted, slots, outline->count, sizeof *slots, by_id);
        size_t *list = found != NULL ? &outline->nodes[found->at].first_child : first_root;
        outline->nodes[i].next_sibling = *list;
        *list = i + 1;
        if (found != NULL) {
            outline->nodes[found->at].child_count++;
        } else {
            (*root_count)++;
        }
    }
    free(slots);
    return CLI_OK;
}

/* What stands behind the text of a node. */
static const char *suffix_of(const struct outline *outline, const struct outline_node *node,
                             char *out, size_t size)
{
    const bool is_cut =
        node->finish >= PERSONAD_FINISH_CUT && node->finish != PERSONAD_FINISH_WHOLE;
    const bool is_going = node->finish == PERSONAD_FINISH_NONE;
    (void)snprintf(out, size, "%s%s%s%s", is_going || is_cut ? " (" : "",
                   is_going ? "going"
                   : is_cut ? personad_finish_name(node->finish)
                            : "",
                   is_going || is_cut ? ")" : "",
                   node->id == outline->head.node ? "  <- head" : "");
    return out;
}

static void node_print(const struct outline *outline, const struct outline_node *node,
                       const char *indent)
{
    const bool colour = cli_has_colour(stdout);
    char id[24], suffix[64];
    size_t used = strlen(indent) + (size_t)snprintf(id, sizeof id, "%" PRIu64, node->id) + 1;
    (void)printf("%s%s%s%s ", indent, colour ? "\033[2m" : "", id, colour ? "\033[0m" : "");
    if (node->speaker < outline->name_count) {
        const char *name = outline->names[node->speaker];
        used += 2 + cli_print_line(stdout, (struct personad_text){name, strlen(name)}, 24);
        (void)fputs(": ", stdout);
    }
    used += strlen(suffix_of(outline, node, suffix, sizeof suffix));
    const size_t room =
        outline->columns > used + TEXT_COLUMNS_MIN ? outline->columns - used : TEXT_COLUMNS_MIN;
    const struct personad_text text = {node->text, node->text_size};
    if (cli_print_line(stdout, text, room) + 1 < room && node->is_longer) {
        (void)fputs("\xe2\x80\xa6", stdout);
    }
    const bool bold = colour && suffix[0] != '\0';
    (void)printf("%s%s%s\n", bold ? "\033[1m" : "", suffix, bold ? "\033[0m" : "");
}

/* A fork whose branches are being printed. */
struct fork {
    size_t next; /* index + 1 of the branch that comes; 0: none */
    size_t left; /* branches that are not printed yet */
    size_t shown;
    size_t indent_bytes;
};

/* Forks within forks, kept here and not on the stack: a tree is as deep as its users made it. */
struct forks {
    struct fork *list; /* owned */
    size_t count, capacity;
    char indent[DEPTH_COLUMNS_MAX + 8]; /* a fork's is a prefix of those within it */
};

static int fork_push(struct forks *forks, size_t first, size_t count, size_t indent_bytes)
{
    if (forks->count == forks->capacity) {
        const size_t capacity = forks->capacity == 0 ? 64 : forks->capacity * 2;
        struct fork *moved = realloc(forks->list, capacity * sizeof *moved);
        if (moved == NULL) {
            cli_complain("out of memory");
            return CLI_FAILED;
        }
        forks->list = moved;
        forks->capacity = capacity;
    }
    forks->list[forks->count++] = (struct fork){first, count, 0, indent_bytes};
    return CLI_OK;
}

/* Prints a node and, in the same column, the chain of only children below it; pushes the fork where
 * the chain ends. `branch` stands before the first node. */
static int chain_print(const struct outline *outline, struct forks *forks, size_t at,
                       const char *branch)
{
    const struct outline_node *node = &outline->nodes[at - 1];
    node_print(outline, node, branch);
    while (node->child_count == 1) {
        node = &outline->nodes[node->first_child - 1];
        node_print(outline, node, forks->indent);
    }
    return node->child_count == 0
               ? CLI_OK
               : fork_push(forks, node->first_child, node->child_count, strlen(forks->indent));
}

/* Prints the next branch of the innermost fork, or leaves it. */
static int fork_step(const struct outline *outline, struct forks *forks)
{
    struct fork *fork = &forks->list[forks->count - 1];
    const bool cut = outline->children_max != 0 && fork->shown >= outline->children_max;
    const bool last = fork->left == 1 || cut;
    const bool deep = fork->indent_bytes >= DEPTH_COLUMNS_MAX;
    char branch[DEPTH_COLUMNS_MAX + 8];
    forks->indent[fork->indent_bytes] = '\0';
    if (fork->next == 0) {
        forks->count--;
        return CLI_OK;
    }
    memcpy(branch, forks->indent, fork->indent_bytes);
    memcpy(branch + fork->indent_bytes, deep ? "" : last ? "`- " : "|- ", deep ? 1 : 4);
    if (cut) {
        (void)printf("%s... %zu more\n", branch, fork->left);
        forks->count--;
        return CLI_OK;
    }
    if (!deep) {
        memcpy(forks->indent + fork->indent_bytes, last ? "   " : "|  ", 4);
    }
    const size_t at = fork->next;
    fork->next = outline->nodes[at - 1].next_sibling;
    fork->shown++;
    fork->left--;
    return chain_print(outline, forks, at, branch);
}

static int tree_print(const struct outline *outline, size_t first_root, size_t root_count)
{
    struct forks forks = {0};
    int status = root_count == 1 ? chain_print(outline, &forks, first_root, "")
                                 : fork_push(&forks, first_root, root_count, 0);
    while (status == CLI_OK && forks.count > 0) {
        status = fork_step(outline, &forks);
    }
    free(forks.list);
    return status;
}

int outline_print(struct cli *cli, uint64_t session, uint64_t node, uint32_t children_max,
                  size_t columns)
{
    struct outline outline = {
        .cli = cli,
        .session = session,
        .children_max = children_max,
        .columns = columns,
    };
    size_t first_root = 0;
    size_t root_count = 0;
    int status = names_fetch(&outline);
    if (status == CLI_OK) {
        status = nodes_fetch(&outline, node);
    }
    if (status == CLI_OK) {
        status = links_make(&outline, &first_root, &root_count);
    }
    if (status == CLI_OK && outline.count == 0) {
        (void)puts("(the tree is empty)");
    } else if (status == CLI_OK) {
        status = tree_print(&outline, first_root, root_count);
    }
    free(outline.nodes);
    free(outline.names);
    return status;
}
