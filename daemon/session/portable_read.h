/* A session's file read line by line, from hostile hands, into rows.
 *
 * Thread: loop. It holds one line and what was read so far, both bounded (IMPORT_LINE_BYTES_MAX,
 * TREE_BYTES_MAX). What is read is well formed: kinds, ranges, the order of records, numbers that
 * name what came before. Whether it makes a tree is for load_tree().
 */
#ifndef PERSONAD_SESSION_PORTABLE_READ_H
#define PERSONAD_SESSION_PORTABLE_READ_H

#include "base/error.h"
#include "base/table.h"
#include "session/portable.h"
#include "session/portable_json.h"

struct portable_reader {
    struct portable *portable; /* borrowed; empty at first */
    struct buffer line;        /* owned */
    uint64_t line_count;
    bool has_session, is_over;
    uint32_t token_count;  /* of the last node, read so far */
    struct table contexts; /* node number -> index of its context + 1, as a pointer */
    struct table steps;    /* likewise */
    struct table siblings; /* parent << 32 | offset -> next ordinal, likewise */
    uint32_t context_capacity;
};

/* MEMORY. */
MUST_USE enum status portable_reader_init(struct portable_reader *reader,
                                          struct portable *portable);
void portable_reader_finish(struct portable_reader *reader); /* a zeroed one is fine */

/* The next piece of the file, cut anywhere. BAD_INPUT names the line and the key; LIMIT; MEMORY. */
MUST_USE enum status portable_read(struct portable_reader *reader, struct bytes piece,
                                   struct error *error);

/* That was all. BAD_INPUT when the end is missing. */
MUST_USE enum status portable_read_end(struct portable_reader *reader, struct error *error);

/* portable_node.c: the records of nodes. */
void portable_read_node(struct portable_reader *reader, struct portable_json *json,
                        const json_t *record);
void portable_read_tokens(struct portable_reader *reader, struct portable_json *json,
                          const json_t *record);
/* Whether all tokens of the last node have come. */
void portable_check_tokens(struct portable_reader *reader, struct portable_json *json);

#endif
