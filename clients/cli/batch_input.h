/* The lines of a batch: what each asks for, and which of them an earlier run has answered.
 *
 * Thread: one. A file of lines is read whole; lines are parsed when their turn comes. The batch's
 * name is a hash of the file, so that another file never goes on where this one stopped.
 */
#ifndef PERSONAD_CLIENTS_CLI_BATCH_INPUT_H
#define PERSONAD_CLIENTS_CLI_BATCH_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BATCH_BYTES_MAX = 1 << 30,
    BATCH_LINE_COUNT_MAX = 1 << 24,
    BATCH_TURN_COUNT_MAX = 1024,
    BATCH_ERROR_BYTES = 160,
};

struct batch_line {
    const char *text; /* borrowed from the file */
    size_t size;
    bool is_done; /* by an earlier run */
};

struct batch_input {
    char *bytes; /* owned */
    size_t byte_count;
    struct batch_line *lines; /* owned; blank lines are left out of the work, not of the count */
    size_t line_count;
    uint64_t hash; /* FNV-1a, 64 bits, of the whole file */
};

/* What one line asks for; strings are borrowed from json. */
struct batch_item {
    void *json; /* owned: the parsed line */
    const char *id, *persona, *user, *label;
    bool has_seed;
    uint64_t seed;
    const char *turns[BATCH_TURN_COUNT_MAX];
    size_t turn_sizes[BATCH_TURN_COUNT_MAX];
    size_t turn_count;
};

/* CLI_OK, or CLI_FAILED after a complaint. */
int batch_input_read(struct batch_input *input, const char *path);
void batch_input_finish(struct batch_input *input);

/* Marks what the results in `path` hold already and cuts off a last line that is not whole. A file
 * that does not exist holds nothing. CLI_FAILED after a complaint: results of another batch. */
int batch_input_resume(struct batch_input *input, const char *path, size_t *done_count);

/* False, with the reason: the line is no good. */
bool batch_item_parse(const struct batch_line *line, struct batch_item *item,
                      char error[BATCH_ERROR_BYTES]);
void batch_item_finish(struct batch_item *item);

#endif
