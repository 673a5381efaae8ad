/* Inside the CUDA backend: what its files share. Thread: the engine thread; kernels get copies.
 *
 * A program is a list of (kind, copy of the args). cuda_OP() checks the args and records them,
 * cuda_OP_run() launches them over the plan of a step. Nothing is allocated by a run: whatever an
 * operation needs is asked for when it is recorded (cuda_scratch_want), from the settings and the
 * program's row bound.
 *
 * A step's plan goes to the card as one copy of flat data, which begins with the struct
 * cuda_plan_view of it. There are BACKEND_STEP_SLOT_COUNT such copies, each used again once its
 * step has been waited for.
 *
 * Launches are captured, once for each bucket of rows and slot (bucket.h, program.cuh), and given
 * again for every step: so cuda_OP_run() never sees a plan, only how large one of its bucket may
 * be, and kernels read counts and lists where the slot's view is. Device memory comes uncleared.
 * Pointers here are the card's unless it says host.
 */
#ifndef PERSONAD_KERNELS_CUDA_CUDA_CUH
#define PERSONAD_KERNELS_CUDA_CUDA_CUH

#include "kernels/backend.h"
#include "kernels/cuda/bucket.h"
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/device.h"
#include "kernels/product_trial.h"
#include "kernels/provider_table.h"
#include "kernels/steps/math.h"

struct backend_buffer {
    struct backend *backend;
    struct backend_buffer *next; /* the backend's list */
    float *data;                 /* owned */
    uint64_t float_count;
};

/* Both K and V: [layer][kv_head][page][KV_PAGE_TOKEN_COUNT][head_size] numbers of the settings'
 * kv_type, so that a token of a page is one row of bytes. With KV_TYPE_FP8 a row's codes (fp8.h)
 * are to be multiplied with its scale: [layer][kv_head][page][KV_PAGE_TOKEN_COUNT]. Cleared when
 * made. */
struct backend_kv {
    struct backend *backend;
    struct backend_kv *next; /* the backend's list */
    struct kv_shape shape;
    enum kv_type type;
    uint8_t *k, *v;             /* owned */
    float *k_scales, *v_scales; /* owned; NULL: no scales */
};

/* One layer of it, for a kernel. */
struct cuda_kv_view {
    uint8_t *k, *v;             /* [kv_head][page][KV_PAGE_TOKEN_COUNT][head_size] */
    float *k_scales, *v_scales; /* [kv_head][page][KV_PAGE_TOKEN_COUNT]; fp8 only */
    uint32_t page_count;
    uint32_t head_size;
    enum kv_type type;
};

STEPS_FUNCTION uint32_t cuda_kv_row_bytes(enum kv_type type, uint32_t head_size)
{
    return type == KV_TYPE_FP8 ? head_size : 2 * head_size;
}

/* The row of a KV head's page where a position lies, in k, v and their scales. */
STEPS_FUNCTION uint64_t cuda_kv_row(const struct cuda_kv_view *view, uint32_t kv_head,
                                    uint32_t page, uint32_t position)
{
    return ((uint64_t)kv_head * view->page_count + page) * KV_PAGE_TOKEN_COUNT +
           position % KV_PAGE_TOKEN_COUNT;
}

/* One branch's token history. */
struct cuda_history {
    uint32_t count;
    uint32_t prompt_count;
    uint32_t last; /* what it sampled last */
};

/* ---- the plan on the card ---- */

/* struct plan_history, its ids in cuda_plan_view.words. */
struct cuda_plan_history {
    uint32_t slot;
    uint32_t reset;
    uint32_t prompt_count;
    uint32_t count;
    uint32_t id_first;
};

/* struct plan_sample, what it borrows in cuda_plan_view.steps and .words. */
struct cuda_plan_sample {
    uint64_t seed;
    uint32_t logits_row;
    uint32_t slot;
    uint32_t step_first;
    uint32_t step_count;
    uint32_t mask_first; /* in words; read only for STEP_MASK */
    uint32_t index;
    uint32_t top_count;
    uint32_t reserved;
    uint32_t flags; /* PLAN_SAMPLE_* */
    uint32_t given;
    uint32_t history_count;
    uint32_t has_steps; /* 0: no draw */
};

/* struct step. A bias takes two words, the token and the float's bits. */
struct cuda_plan_step {
    uint32_t type; /* enum step_type */
    uint32_t count;
    uint32_t flags;
    float values[3];
    uint32_t list_first; /* in words */
    uint32_t list_count;
};

/* Names as in struct plan, items as chain.cuh made them. The first bytes of a slot's plan. */
struct cuda_plan_view {
    uint32_t row_count, page_entry_count, item_count, item_row_count, row_partial_count;
    uint32_t partial_count;
    uint32_t logits_row_count, sample_count, history_count, kv_copy_count;
    uint32_t chain_count; /* of the items, the first are chains */
    const struct plan_row *rows;
    const uint32_t *pages;
    const struct plan_item *items;
    const uint32_t *item_rows;
    const uint32_t *row_partials;
    const uint32_t *logits_rows;
    const struct plan_kv_copy *kv_copies;
    const struct cuda_plan_sample *samples;
    const struct cuda_plan_step *steps;
    const struct cuda_plan_history *histories;
    const uint32_t *words; /* ids, biases and masks */

    uint8_t *row_faults;           /* [row_count]: 0 before the operations; 1: K or V held a NaN */
    struct sample_result *results; /* [sample_count]: all written by sample */
};

/* ---- the backend ---- */

/* Device memory that grows while programs are recorded and never after. */
struct cuda_scratch {
    void *data;
    uint64_t size_bytes;
};

/* Matrices of one launch as cuBLASLt wants them. */
struct cuda_plain {
    struct cuda_plain *next;
    const struct backend_weight *first;
    uint16_t *data; /* owned */
};

/* One step's place: plan, answers, marks in the stream. */
struct cuda_slot {
    void *plan_host; /* pinned */
    void *plan;
    void *answers_host; /* pinned: results, [sample_count_max], then row_faults, [row_count_max] */
    void *answers;
    struct device_event *begin, *end;
    bool in_flight;
};

struct backend {
    struct backend_settings settings; /* isa is NULL */
    struct device *device;            /* owned */
    struct device_facts facts;
    struct provider_table providers; /* of the settings; without rules: mma alone */
    char text[256];                  /* describe() */
    char numerics[64];               /* numerics_id() */

    /* owned */
    struct cuda_history *histories; /* [slot_count] */
    uint32_t *history_ids;          /* [slot_count][history_tokens_max] */
    uint32_t *tokens;               /* [row_count_max]: what each row embeds */
    uint32_t *logits_rows;          /* [sample_count_max] */
    uint64_t plan_bytes;            /* room of a slot's plan */
    struct cuda_slot slots[BACKEND_STEP_SLOT_COUNT];
    struct chain_planner *chains; /* owned */

    struct cuda_scratch activations; /* matmul.cuh: bf16 fragments of the rows at hand */
    struct cuda_scratch meeting;     /* matmul_fold.cuh: where there are no clusters */
    struct cuda_scratch qkv;         /* attn_in.cu: q, k, v before bias and rotation */
    struct cuda_scratch partials;    /* attention.cu */
    struct cuda_scratch sampling;    /* sample.cu */
    struct cuda_scratch sums;        /* matmul_library.cu */
    struct cuda_scratch workspace;   /* cublaslt.cu */
    struct cuda_scratch unpacked;    /* matmul_unpack.cu */
    struct cublaslt *cublaslt;       /* owned; NULL: no rule asks for it */
    struct cuda_plain *plains;       /* owned */

    struct backend_weight *weights;
    struct backend_buffer *buffers;
    struct backend_kv *kvs;
    struct backend_program *programs;
    bool has_graphs; /* of any program: scratch may not move any more */
    uint32_t ticket_next;
    uint32_t ticket_waited; /* the next that step_wait gives */
};

enum cuda_op_kind {
#define X(op) CUDA_OP_##op,
    BACKEND_OP_MAP(X)
#undef X
};

struct cuda_op {
    enum cuda_op_kind kind;
    union {
#define X(op) struct op##_args op;
        BACKEND_OP_MAP(X)
#undef X
    } args;
    void *
        extra; /* device memory that the recorder made for this operation, or NULL; freed with it */
};

struct backend_program {
    struct backend *backend;
    struct backend_program *next; /* the backend's list */
    uint32_t row_count_max;
    uint32_t op_count;
    uint32_t op_count_max;
    struct chain_shape chains; /* of its attention, once it is finished */
    struct cuda_op *ops;       /* owned, host */
    struct device_graph *graphs[BUCKET_COUNT_MAX][BACKEND_STEP_SLOT_COUNT]; /* NULL: not finished */
};

/* The largest plan of a bucket: it sizes grids. */
struct cuda_bounds {
    uint32_t row_count;
    uint32_t logits_row_count;
    uint32_t sample_count;
    uint32_t partial_count;
};

/* What launches are captured for. Contents of the card's memory are another step's, or nothing yet.
 */
struct cuda_step {
    struct backend *backend;
    struct backend_program *program;
    struct cuda_bounds most;
    const struct cuda_plan_view *view; /* the counts of the step that runs are here */
    const uint32_t *tokens;            /* [view->row_count] */
    const uint32_t *logits_rows;       /* [view->logits_row_count] */
};

/* Where the card has the number of a step's rows, and of the rows whose logits are wanted. */
static inline const uint32_t *cuda_row_count_at(const struct cuda_step *step)
{
    return &step->view->row_count;
}

static inline const uint32_t *cuda_logits_row_count_at(const struct cuda_step *step)
{
    return &step->view->logits_row_count;
}

/* Where a slot's answers lie in its one block of memory. */
static inline uint64_t cuda_row_faults_at(const struct backend *backend)
{
    return backend->settings.sample_count_max * (uint64_t)sizeof(struct sample_result);
}

static inline uint64_t cuda_answers_bytes(const struct backend *backend)
{
    return cuda_row_faults_at(backend) + backend->settings.row_count_max;
}

/* A new entry at the end of the program, for the recorder to fill; MEMORY. */
MUST_USE enum status cuda_program_push(struct backend_program *program, enum cuda_op_kind kind,
                                       struct error *error, struct cuda_op **out);

/* At least `size_bytes` in the scratch; what it held is lost. For recorders. MEMORY; UNSUPPORTED
 * when it would have to grow though a program is finished. `what` is for the sentence: "attention
 * partials". */
MUST_USE enum status cuda_scratch_want(struct backend *backend, struct cuda_scratch *scratch,
                                       uint64_t size_bytes, const char *what, struct error *error);

static inline struct cuda_kv_view cuda_kv_layer(const struct backend_kv *kv, uint32_t layer)
{
    const uint64_t row =
        (uint64_t)layer * kv->shape.kv_head_count * kv->shape.page_count * KV_PAGE_TOKEN_COUNT;
    const uint32_t row_bytes = cuda_kv_row_bytes(kv->type, kv->shape.head_size);
    struct cuda_kv_view view = {};

    view.k = kv->k + row * row_bytes;
    view.v = kv->v + row * row_bytes;
    if (kv->type == KV_TYPE_FP8) {
        view.k_scales = kv->k_scales + row;
        view.v_scales = kv->v_scales + row;
    }
    view.page_count = kv->shape.page_count;
    view.head_size = kv->shape.head_size;
    view.type = kv->type;
    return view;
}

/* Of a program whose attention is recorded: tile_columns is 0 where a card has no room for chains,
 * or attention differs from layer to layer. attention.cu. */
struct chain_shape cuda_attention_chains(const struct backend_program *program);

extern "C" {
extern const struct backend_ops backend_cuda_ops;
extern const struct product_trial_ops cuda_trial_ops; /* trial.cu */
}

/* Recorders, and what launches them: a step stops at the first status that is not OK. `entry` is
 * the recorded entry, its args in entry->args.OP. */
#define X(op)                                                                            \
    enum status cuda_##op(struct backend_program *program, const struct op##_args *args, \
                          struct error *error);                                          \
    enum status cuda_##op##_run(const struct cuda_step *step, const struct cuda_op *entry);
extern "C" {
BACKEND_OP_MAP(X)
}
#undef X

#endif
