/* What the files of the writer share. Thread: loop. */
#ifndef PERSONAD_SESSION_PORTABLE_WRITE_INSIDE_H
#define PERSONAD_SESSION_PORTABLE_WRITE_INSIDE_H

#include "base/table.h"
#include "session/portable.h"

struct portable_writer {
    const struct portable *portable;
    struct table rows;     /* node id -> its index + 1, as a pointer */
    struct table contexts; /* context id -> number of the first node that has it, likewise */
    struct table labels;   /* node id -> struct journal_note */
    uint32_t *numbers;     /* owned, [node_count]: in the file; 0: it is not in it */
    uint32_t *steps_users; /* owned, [steps_count]: number of the first node that has them */
    uint32_t node_count;   /* in the file */
    uint32_t next_node, next_note, next_author_note;
    bool is_over;
    /* Of the sampled node that is being written. */
    struct buffer tokens, logprobs, sampler_logprobs, entropies, text_ends, tops, text;
};

/* 0: the root, or a node that is not in the file. */
uint32_t portable_writer_number(const struct portable_writer *writer, uint64_t id);

/* portable_write_node.c: the node of that row with its tokens. STORAGE where it is damaged. */
MUST_USE enum status portable_write_node(struct portable_writer *writer, uint32_t at,
                                         struct buffer *out);

#endif
