/* A CPU backend with one attention program, sequences written to pages, and a planner of its items.
 *
 * Thread: the test's. Pages are poisoned (NaN, infinities) before anything is written. A sequence's
 * keys, values and queries depend on its content number and the position only, never on its pages.
 */
#ifndef PERSONAD_TESTS_SUPPORT_ATTENTION_SETUP_H
#define PERSONAD_TESTS_SUPPORT_ATTENTION_SETUP_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

enum {
    SETUP_PAGE_COUNT = 512,
    SETUP_SEQUENCE_PAGES_MAX = 160,
    SETUP_ROW_COUNT_MAX = 96,
    SETUP_PARTIAL_COUNT_MAX = 1024,
    SETUP_LAYER = 1,
};

struct attention_shape {
    uint32_t head_count;
    uint32_t kv_head_count;
    uint32_t head_size;
    enum kv_type kv_type;
};

struct attention_setup {
    struct attention_shape shape;
    struct backend *backend;
    struct backend_kv *kv;
    struct backend_buffer *q;
    struct backend_buffer *out;
    struct backend_program *program;
    bool swaps_pairs; /* even and odd dimensions of the first head's queries change places */
};

struct attention_sequence {
    uint32_t content;
    uint32_t length;
    uint32_t pages[SETUP_SEQUENCE_PAGES_MAX];
};

struct attention_query {
    const struct attention_sequence *sequence;
    uint32_t position;
};

/* How the planner makes items. */
struct attention_grouping {
    bool shared;         /* rows that see the same pages in a block share an item */
    uint32_t list_max;   /* rows of one item */
    uint64_t order_seed; /* shuffles each item's list; 0: rows ascending */
};

/* isa NULL: the best of this machine. Asserts that it worked. */
void attention_setup_init(struct attention_setup *setup, struct attention_shape shape,
                          const char *isa, uint32_t thread_count, uint32_t poison);
void attention_setup_finish(struct attention_setup *setup);

/* Whether this machine can run it. */
bool attention_setup_has(const char *isa);

/* Writes positions [from, to) of the sequence to its pages. */
void attention_setup_write(struct attention_setup *setup, const struct attention_sequence *sequence,
                           uint32_t from, uint32_t to);

/* out: [count][head_count * head_size] */
void attention_setup_run(struct attention_setup *setup, const struct attention_query *queries,
                         uint32_t count, struct attention_grouping grouping, float *out);

/* The values that write and run use, before they are rounded to the pool's type. */
void attention_setup_values(const struct attention_shape *shape, uint32_t content,
                            uint32_t position, uint32_t kv_head, float *k, float *v);
void attention_setup_query(const struct attention_shape *shape, uint32_t content, uint32_t position,
                           float *q);

#endif
