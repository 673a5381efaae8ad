#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "expand.h"
#include "json.h"

enum { PIECE_COLUMNS = 60, LINE_DEPTH_MAX = 24, PATH_BYTES_MAX = 3 * 256 + 1, RANK_BYTES_MAX = 11 };

/* ---------------------------------------------------------------- shape */

bool expand_shape_take(struct expand_shape *shape, const struct personad_expansion *seen)
{
    uint32_t *parents = malloc((seen->count + 1) * sizeof *parents);
    if (parents == NULL) {
        return false;
    }
    for (size_t i = 0; i < seen->count; i++) {
        parents[i] = seen->nodes[i].parent;
    }
    free(shape->parents);
    *shape = (struct expand_shape){seen->id, parents, seen->count};
    return true;
}

void expand_shape_finish(struct expand_shape *shape)
{
    free(shape->parents);
    *shape = (struct expand_shape){0};
}

/* The child of that rank, from 1; 0: there is none. */
static uint32_t child_of(const struct expand_shape *shape, uint32_t parent, uint64_t rank)
{
    for (size_t i = 0; i < shape->count; i++) {
        if (shape->parents[i] == parent && --rank == 0) {
            return (uint32_t)i + 1;
        }
    }
    return 0;
}

uint32_t expand_find(const struct expand_shape *shape, const char *path)
{
    uint32_t at = 0;
    while (*path != '\0') {
        const size_t size = strcspn(path, ".");
        char text[8] = "";
        uint64_t rank = 0;
        if (size == 0 || size >= sizeof text) {
            return 0;
        }
        memcpy(text, path, size);
        if (!cli_parse_u64(text, UINT32_MAX, &rank) || rank == 0) {
            return 0;
        }
        at = child_of(shape, at, rank);
        path += size + (path[size] == '.' && path[size + 1] != '\0');
        if (at == 0 || *path == '.') {
            return 0;
        }
    }
    return at;
}

/* ---------------------------------------------------------------- printing */

/* Children as linked lists, and the path that is being printed. */
struct picture {
    FILE *file;
    const struct personad_expansion *seen;
    uint32_t *first, *next; /* owned: by number; 0 ends a list */
    uint32_t *ranks;        /* owned: among its siblings, from 1 */
    bool *is_last;          /* owned: among its siblings */
};

static void picture_finish(struct picture *picture)
{
    free(picture->first);
    free(picture->next);
    free(picture->ranks);
    free(picture->is_last);
}

static bool picture_init(struct picture *picture, FILE *file, const struct personad_expansion *seen)
{
    const size_t count = seen->count + 1;
    uint32_t *last = calloc(count, sizeof *last);
    *picture = (struct picture){
        .file = file,
        .seen = seen,
        .first = calloc(count, sizeof(uint32_t)),
        .next = calloc(count, sizeof(uint32_t)),
        .ranks = calloc(count, sizeof(uint32_t)),
        .is_last = calloc(count, sizeof(bool)),
    };
    const bool is_there = last != NULL && picture->first != NULL && picture->next != NULL &&
                          picture->ranks != NULL && picture->is_last != NULL;
    for (uint32_t at = 1; is_there && at < count; at++) {
        const uint32_t parent = seen->nodes[at - 1].parent;
        const uint32_t before = last[parent];
        *(before == 0 ? &picture->first[parent] : &picture->next[before]) = at;
        picture->ranks[at] = before == 0 ? 1 : picture->ranks[before] + 1;
        picture->is_last[before] = false;
        picture->is_last[at] = true;
        last[parent] = at;
    }
    free(last);
    return is_there;
}

static const struct personad_expanded *node_at(const struct picture *picture, uint32_t number)
{
    return &picture->seen->nodes[number - 1];
}

/* "1.2.1". Ranks of two digits and 256 levels are the most that a daemon grows; of more the end. */
static const char *path_of(const struct picture *picture, uint32_t number, char *room)
{
    char *at = room + PATH_BYTES_MAX - 1;
    *at = '\0';
    while (number != 0 && at - room >= RANK_BYTES_MAX) {
        uint32_t rank = picture->ranks[number];
        if (*at != '\0') {
            *--at = '.';
        }
        for (; rank > 0; rank /= 10) {
            *--at = (char)('0' + rank % 10);
        }
        number = node_at(picture, number)->parent;
    }
    return at;
}

static void branches_print(const struct picture *picture, uint32_t number)
{
    bool open[LINE_DEPTH_MAX];
    size_t depth = 0;
    for (uint32_t at = number; at != 0 && depth < LINE_DEPTH_MAX;
         at = node_at(picture, at)->parent) {
        /* A run of single tokens stands on one line, and adds no column. */
        const uint32_t parent = node_at(picture, at)->parent;
        const bool is_single = picture->ranks[at] == 1 && picture->is_last[at] && parent != 0;
        if (at == number || !is_single) {
            open[depth++] = !picture->is_last[at];
        }
    }
    for (size_t i = depth; i > 1; i--) {
        (void)fputs(open[i - 1] ? "\xe2\x94\x82  " : "   ", picture->file);
    }
    (void)fputs(open[0] ? "\xe2\x94\x9c\xe2\x94\x80 " : "\xe2\x94\x94\xe2\x94\x80 ", picture->file);
}

static void piece_print(const struct picture *picture, const struct personad_expanded *node)
{
    if (node->piece.size > 0) {
        cli_print_line(picture->file, node->piece, PIECE_COLUMNS);
    } else if (!node->is_end) {
        (void)fprintf(picture->file, "<%" PRIu32 ">", node->token);
    }
}

/* The node and the single tokens behind it. Returns the last of them. */
static uint32_t line_print(const struct picture *picture, uint32_t number)
{
    char room[PATH_BYTES_MAX];
    const struct personad_expanded *node = node_at(picture, number);
    uint32_t last = number;
    const uint32_t parent = node->parent;
    const double before = parent == 0 ? 0.0 : node_at(picture, parent)->joint_logprob;
    while (picture->first[last] != 0 && picture->is_last[picture->first[last]]) {
        last = picture->first[last];
    }
    const struct personad_expanded *end = node_at(picture, last);
    (void)fprintf(picture->file, "%7.2f%% %7.2f%%  ", 100 * exp(end->joint_logprob),
                  100 * exp(end->joint_logprob - before));
    branches_print(picture, number);
    (void)fputc('"', picture->file);
    for (uint32_t at = number;; at = picture->first[at]) {
        piece_print(picture, node_at(picture, at));
        if (at == last) {
            break;
        }
    }
    (void)fprintf(picture->file, "\"%s  %s\n", end->is_end ? " (ends)" : "",
                  path_of(picture, last, room));
    return last;
}

bool expand_print(FILE *file, const struct personad_expansion *seen)
{
    struct picture picture;
    const bool is_there = picture_init(&picture, file, seen);
    uint32_t at = is_there ? picture.first[0] : 0;
    if (at != 0) {
        (void)fprintf(file, "entropy %.4f nats after %" PRIu32 " tokens\n",
                      (double)seen->nodes[0].entropy, seen->context_tokens);
        (void)fputs("  joint     here\n", file);
    }
    while (at != 0) {
        const uint32_t last = line_print(&picture, at);
        uint32_t up = last;
        if (picture.first[last] != 0) {
            at = picture.first[last];
            continue;
        }
        while (up != 0 && picture.next[up] == 0) {
            up = node_at(&picture, up)->parent;
        }
        at = up == 0 ? 0 : picture.next[up];
    }
    if (is_there) {
        (void)fprintf(file, "%zu nodes; it ended by %s\n", seen->count,
                      personad_expand_end_name(seen->end));
    }
    picture_finish(&picture);
    return is_there;
}

bool expand_print_json(FILE *file, const struct personad_expansion *seen)
{
    struct picture picture;
    const bool is_there = picture_init(&picture, file, seen);
    for (uint32_t at = 1; is_there && at <= seen->count; at++) {
        const struct personad_expanded *node = node_at(&picture, at);
        char room[PATH_BYTES_MAX];
        const char *path = path_of(&picture, at, room);
        struct json json;
        json_start(&json, file);
        json_u64(&json, "node", at);
        json_u64(&json, "parent", node->parent);
        json_text(&json, "path", (struct personad_text){path, strlen(path)});
        json_u64(&json, "token", node->token);
        json_text(&json, "piece", node->piece);
        json_float(&json, "logprob", node->logprob);
        json_float(&json, "entropy", node->entropy);
        json_double(&json, "joint_logprob", node->joint_logprob);
        json_bool(&json, "end", node->is_end);
        json_end(&json);
    }
    picture_finish(&picture);
    return is_there;
}
