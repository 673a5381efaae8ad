/* Sequences in poisoned pages, a planner of attention items, and the backend's attention over them.
 *
 * Thread: the test's. Ownership: the rig owns its pools of pages, of exactly the size, so that
 * AddressSanitizer sees a byte too far. Keys, values and queries depend on a sequence's content
 * number and the position only, never on its pages; all other slots hold NaNs, infinities and the
 * largest finite values, in an order that `poison` picks. Functions assert with cmocka.
 */
#ifndef PERSONAD_TESTS_EMULATOR_ATTENTION_RIG_H
#define PERSONAD_TESTS_EMULATOR_ATTENTION_RIG_H

#include <stdint.h>

#include "kernels/cuda/cuda.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/emulator.h"

enum {
    PAGE_COUNT = 160,
    SEQUENCE_PAGES_MAX = 80,
    ROWS_MAX = 80,
    PARTIALS_MAX = 256,
    LAYERS = 2,
    LAYER = 1,
};

struct rig_shape {
    uint32_t head_count, kv_head_count, head_size;
    enum kv_type type = KV_TYPE_F16;
};

struct rig_sequence {
    uint32_t content, length;
    uint32_t pages[SEQUENCE_PAGES_MAX];
};

struct rig_query {
    const struct rig_sequence *sequence;
    uint32_t position;
};

/* How one run differs from another without a difference in its answers. */
struct rig_variation {
    bool shared; /* rows that see the same pages of a block share an item */
    uint32_t list_max;
    bool descending; /* order inside a list */
    uint32_t poison;
    struct emulator_settings emulator;
    bool chains = false; /* wherever they pay on a card of one multiprocessor */
};

struct attention_rig {
    struct rig_shape shape;
    uint8_t *k, *v;             /* [layer][kv_head][page][16][head_size], of the shape's type */
    float *k_scales, *v_scales; /* [layer][kv_head][page][16], fp8 only */
    uint32_t shared_bytes_max;  /* of the card: how tall tiles are; as on sm_90 unless changed */
    struct plan plan;
    struct plan_row rows[ROWS_MAX];
    uint32_t pages[ROWS_MAX * SEQUENCE_PAGES_MAX];
    struct plan_item items[PARTIALS_MAX];
    uint32_t item_rows[PARTIALS_MAX];
    uint32_t row_partials[PARTIALS_MAX];
    uint32_t chain_count; /* the first of the items */
};

/* What the card is to hold for the planned queries: owned, of exactly the size, poisoned. */
struct rig_memory {
    float *q, *out, *partials;
    uint64_t width, partial_floats;
    uint32_t row_count;
};

/* Three sequences; b begins with a's pages. */
struct rig_story {
    struct rig_sequence a, b, c;
};

void attention_rig_init(struct attention_rig *rig, const struct rig_shape *shape, uint32_t poison);
void attention_rig_finish(struct attention_rig *rig);

/* Writes the three sequences. */
void attention_rig_story_init(struct rig_story *story, struct attention_rig *rig);

/* Plans the queries, one row each, in rig->plan and the lists beside it. */
void attention_rig_plan(struct attention_rig *rig, const struct rig_query *queries, uint32_t count,
                        const struct rig_variation *variation);
/* The plan on the card, and one layer of the pools. */
const struct cuda_plan_view *attention_rig_give_plan(struct attention_rig *rig, struct card *card);
void attention_rig_give_pools(struct attention_rig *rig, struct card *card, struct backend_kv *kv);

/* Runs what was planned by the backend's own launcher; out: [count][head_count * head_size]. */
void attention_rig_run_planned(struct attention_rig *rig, const struct rig_query *queries,
                               const struct emulator_settings *settings, float *out);
/* Plans and runs. */
void attention_rig_run(struct attention_rig *rig, const struct rig_query *queries, uint32_t count,
                       const struct rig_variation *variation, float *out);

void attention_rig_memory_init(struct rig_memory *memory, const struct attention_rig *rig,
                               const struct rig_query *queries);
/* The same on the card; `out` and `partials` come back with card_take. */
void attention_rig_give_memory(const struct rig_memory *memory, struct card *card,
                               struct rig_memory *out);
void attention_rig_memory_finish(struct rig_memory *memory);

/* Which row of both pools a slot of LAYER is. */
uint64_t attention_rig_row(const struct rig_shape *shape, uint32_t kv_head, uint32_t page,
                           uint32_t slot);
/* What is stored there, what is asked there before rounding, and as it is multiplied. */
float attention_rig_stored(enum kv_type type, uint32_t content, uint32_t position, uint32_t kv_head,
                           bool is_v, uint32_t d);
float attention_rig_query(uint32_t content, uint32_t position, uint32_t i);
float attention_rig_asked(enum kv_type type, uint32_t content, uint32_t position, uint32_t i);

#endif
