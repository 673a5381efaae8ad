/* The seam between the model and a device: one args struct per operation with its maths above it,
 * one table of entries, all but two required. Operations have the size of blocks so that a backend
 * may fuse.
 *
 * Reads as C11 and as C++17 (the headers_* tests of cmake/tests.cmake hold it to both). Thread:
 * every call on the engine thread, except where it says so. A backend owns its memory; handles are
 * opaque.
 *
 * Life:  create -> weights, buffers, kv -> programs (recorded once, finished)
 *        -> { step_submit, step_wait } ... -> destroy
 *
 * A program is a list of operations whose args never vary. All that varies between steps lies in
 * the plan. Rows are independent: a row's output bits depend on its own token, position and past
 * only, never on which other rows, items, pages or slots the plan holds, nor on how many threads
 * run. (docs/ARCHITECTURE.md, arithmetic)
 */
#ifndef PERSONAD_KERNELS_BACKEND_H
#define PERSONAD_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "kernels/dtype.h"
#include "kernels/steps/steps.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    KV_PAGE_TOKEN_COUNT = 16,     /* positions a page */
    ATTENTION_CHUNK_TOKENS = 64,  /* a partial (maximum, sum, accumulator) is made a chunk */
    ATTENTION_BLOCK_TOKENS = 512, /* chunks fold left inside a block, blocks fold left */
    BACKEND_TOP_COUNT_MAX = 32,   /* alternatives of one sample item */
    BACKEND_HEAD_SIZE_MAX = 256,
    BACKEND_STEP_SLOT_COUNT = 2, /* most steps in flight of any backend */
};

struct backend;         /* one device */
struct backend_weight;  /* a matrix, repacked for the device */
struct backend_buffer;  /* device memory of floats */
struct backend_kv;      /* the pool of KV pages, all layers */
struct backend_program; /* recorded operations */
struct provider_table;  /* kernels/provider_table.h */

/* What memory_left answers where no card bounds it. */
#define BACKEND_MEMORY_SHARED UINT64_MAX

/* ---- what is loaded ---- */

/* A matrix W[rows, cols] as a model file stores it: `rows` outputs, each a row of `cols` inputs. */
struct weight_source {
    const char *name; /* for errors: "blk.0.attn_q.weight" */
    uint32_t dtype;   /* enum dtype */
    uint32_t rows;
    uint32_t cols;
    const void
        *data; /* borrowed during the call; rows * cols / block_elements * block_bytes bytes */
    uint64_t size_bytes;
};

/* How keys and values are stored. It is part of the arithmetic, so of the numerics id. */
enum kv_type {
    KV_TYPE_F16,  /* IEEE half precision; finite values saturate */
    KV_TYPE_BF16, /* finite values saturate */
    KV_TYPE_FP8,  /* codes of kernels/steps/fp8.h with a scale for each token and KV head */
};

/* KV: for each page, layer and KV head, K and V of 16 positions in the settings' kv_type. */
struct kv_shape {
    uint32_t layer_count;
    uint32_t kv_head_count;
    uint32_t head_size;
    uint32_t page_count;
};

struct backend_settings {
    uint32_t thread_count;       /* CPU; 0 = the affinity mask's */
    uint32_t row_count_max;      /* rows of one plan */
    uint32_t sample_count_max;   /* sample items of one plan */
    uint32_t slot_count;         /* branch slots with a token history */
    uint32_t history_tokens_max; /* tokens of history a slot */
    uint32_t vocabulary_count;
    uint32_t partial_count_max; /* attention partials of one plan (row x block) */
    enum kv_type kv_type;       /* UNSUPPORTED where the backend has not got it; CPU: no FP8 */
    const char *isa;            /* CPU: NULL or "auto", or a name of kernels/cpu/isa.h */
    uint32_t device;            /* a card's number, as the driver counts */
    uint64_t memory_bytes_max;  /* of the card; 0: nine tenths of what is free */
    const struct provider_table *providers; /* of a card, borrowed by create; NULL: mma alone; CPU:
                                               UNSUPPORTED */
    bool weights_fp8; /* float weights as e4m3, a scale a row; CPU: UNSUPPORTED */
    bool precise;     /* CPU: activations in 16 bits where weights are quantised; cards ignore it */
};

/* ---- the plan: all that varies ---- */

/* token = PLAN_TOKEN_LAST | slot: what that branch sampled last. No enumerator: those are ints. */
#define PLAN_TOKEN_LAST 0x80000000u

enum { PLAN_SAMPLE_GIVEN = 1, PLAN_SAMPLE_DRAFT = 2 };
#define PLAN_GIVEN_NONE 0xffffffffu

struct plan_row {
    uint32_t token;      /* an id, or PLAN_TOKEN_LAST | slot */
    uint32_t position;   /* absolute, from 0 */
    uint32_t page_first; /* index in plan.pages of this row's page table; entry position / 16 is its
                            own page */
    uint32_t partial_first; /* index in plan.row_partials */
    uint32_t partial_count; /* blocks that this row attends to: position / 512 + 1 */
    uint8_t writes_kv;      /* 0: attends to its own position as already stored, appends nothing */
    uint8_t variant;        /* adapters, 0 today */
    uint16_t reserved;
};

/* One block of positions for a list of query rows that all see the same pages there.
 * Row r attends to positions [begin, min(end, r.position + 1)). */
struct plan_item {
    uint32_t begin;      /* a multiple of ATTENTION_BLOCK_TOKENS */
    uint32_t end;        /* at most begin + ATTENTION_BLOCK_TOKENS */
    uint32_t page_first; /* index in plan.pages of the page that holds position `begin` */
    uint32_t row_first;  /* index in plan.item_rows */
    uint32_t row_count;
    uint32_t partial_first; /* the partial of list entry j is partial_first + j */
};

/* Applied before the rows run, in order. */
struct plan_history {
    uint32_t slot;
    uint32_t reset;        /* 1: forget everything first */
    uint32_t prompt_count; /* with reset: how many of the first ids are the persona prompt's */
    uint32_t count;
    const uint32_t *ids; /* [count] appended; borrowed until step_wait */
};

/* Draws one token and appends it to its slot's history; or, with PLAN_SAMPLE_GIVEN, measures a
 * token that is known already: the log probabilities of the result are the given token's,
 * result.token is what the steps, seed and index draw there all the same, and no history changes.
 * The arithmetic is one, so a given token that was drawn once has the bits that it had then.
 *
 * With PLAN_SAMPLE_DRAFT the item stands right behind another one of its slot, and its row is that
 * of `given`, which it expects the other to draw. Its steps see the history and then `given` of the
 * draft items up to it. If the other one counts and drew `given`, it counts, and appends; else its
 * answer is SAMPLE_FLAG_DROPPED. So what counts has the bits of one row after the other. */
struct plan_sample {
    uint32_t logits_row; /* index in plan.logits_rows; several items may share one */
    uint32_t slot;
    const struct step_list *steps; /* borrowed until step_wait; NULL, with GIVEN only: no draw, the
                                      model's numbers alone; then token is the given one, and
                                      logprob_sampler 0 */
    const uint32_t
        *mask;      /* bit set of the vocabulary for STEP_MASK, or NULL; borrowed until step_wait */
    uint64_t seed;  /* node seed */
    uint32_t index; /* in the node's sampled ids */
    uint32_t top_count; /* alternatives wanted */
    uint32_t flags;     /* PLAN_SAMPLE_* */
    uint32_t given; /* with GIVEN: an id, or PLAN_GIVEN_NONE: entropy and alternatives alone, the
                       log probabilities being 0; with DRAFT: the token of its row */
    uint32_t
        history_count; /* with GIVEN: so many of the slot's first ids the steps see, at most all
                        */
};

/* Copies the first slot_count positions of page `from` to page `to`, all layers, before the rows
 * run. */
struct plan_kv_copy {
    uint32_t from;
    uint32_t to;
    uint32_t slot_count;
};

struct plan {
    uint32_t row_count, page_entry_count, item_count, item_row_count, row_partial_count;
    uint32_t partial_count; /* partials used by this plan */
    uint32_t logits_row_count, sample_count, history_count, kv_copy_count;
    const struct plan_row *rows;
    const uint32_t *pages; /* page ids; page tables lie here one after another */
    const struct plan_item *items;
    const uint32_t *item_rows;    /* row indices */
    const uint32_t *row_partials; /* for each row its partials, blocks ascending */
    const uint32_t *logits_rows;  /* row indices whose logits are wanted */
    const struct plan_sample *samples;
    const struct plan_history *histories;
    const struct plan_kv_copy *kv_copies;
};

/* ---- what a step answers ---- */

enum {
    SAMPLE_FLAG_NAN = 1,     /* the row's logits held a NaN, or nothing was left to draw from */
    SAMPLE_FLAG_DROPPED = 2, /* of a draft: another token was drawn; nothing else of it counts */
};

struct sample_top {
    uint32_t token;
    float logprob; /* under the model, nats */
};

struct sample_result {
    uint32_t token;
    uint32_t flags;
    float logprob;         /* of the token under the model, before any step; nats */
    float logprob_sampler; /* of the token under what was drawn from; nats */
    float entropy;         /* of the model's distribution; nats */
    uint32_t top_count;
    struct sample_top top[BACKEND_TOP_COUNT_MAX];
};

struct step_result {
    const struct sample_result
        *samples; /* [plan.sample_count]; borrowed until this ticket's slot is reused */
    const uint8_t *row_faults; /* [plan.row_count]: 1 = K or V of this row held a NaN */
    uint64_t elapsed_ns;       /* of the device, for the rate estimate */
};

/* ---- operations; x, q, h and logits are float buffers, row-major ---- */

/* x[r] = table[token of row r] (dequantised). */
struct embed_args {
    struct backend_buffer *x;           /* [rows, width] */
    const struct backend_weight *table; /* [vocabulary, width] */
    float scale;                        /* multiplies the embedding; 1 for llama */
};

enum rope_style { ROPE_ADJACENT, ROPE_HALVES }; /* pairs (2i, 2i+1), or (i, i + n/2) */

/* n = rms_norm(x) * norm;  q = Wq n + bq;  k = Wk n + bk;  v = Wv n + bv;  q and k rotated at the
 * row's position by angle position * inverse_frequency[i]; q kept in float, k and v rounded to half
 * (finite values saturate) and appended at the row's position if it writes KV. rms_norm(x)_c = x_c
 * / sqrt(mean(x^2) + epsilon). */
struct attn_in_args {
    const struct backend_buffer *x; /* [rows, width] */
    struct backend_buffer *q;       /* [rows, head_count * head_size] */
    struct backend_kv *kv;
    uint32_t layer;
    const struct backend_buffer *norm; /* [width] */
    float epsilon;
    const struct backend_weight *wq, *wk, *wv;
    const struct backend_buffer *bq, *bk, *bv; /* NULL: no bias */
    const struct backend_buffer *q_norm,
        *k_norm; /* [head_size] rms norm a head, or NULL (later families) */
    uint32_t head_count, kv_head_count, head_size;
    uint32_t rope_pair_count; /* rotated pairs a head; the rest passes */
    enum rope_style rope_style;
    const double *inverse_frequency; /* [rope_pair_count], host memory, outlives the program */
};

/* out = softmax(scale * q K^T) V over positions 0..own, by plan items. Query head h reads KV head
 * h / (head_count / kv_head_count). Partials a chunk of 64, folded left inside blocks of 512,
 * blocks folded left. */
struct attention_args {
    const struct backend_buffer *q;
    struct backend_buffer *out; /* [rows, head_count * head_size] */
    const struct backend_kv *kv;
    uint32_t layer;
    uint32_t head_count, kv_head_count, head_size;
    float scale;                        /* 1 / sqrt(head_size) for llama */
    uint32_t window;                    /* 0: none. Others UNSUPPORTED until a family needs them: */
    float soft_cap;                     /* 0: none */
    const struct backend_buffer *sinks; /* NULL: none */
    uint32_t page_group;                /* 0 */
};

/* x += Wo a + bo */
struct attn_out_args {
    struct backend_buffer *x;
    const struct backend_buffer *a; /* [rows, head_count * head_size] */
    const struct backend_weight *wo;
    const struct backend_buffer *bo; /* NULL: none */
};

enum activation { ACTIVATION_SILU, ACTIVATION_GELU_TANH };

/* n = rms_norm(x) * norm;  h = activation(Wg n) * (Wu n).  silu(z) = z / (1 + exp(-z)). Where the
 * operation right behind it is an ffn_out of this h, a backend may hand h over in a form of its
 * own: the buffer then holds nothing that anybody could read. */
struct ffn_in_args {
    const struct backend_buffer *x;
    struct backend_buffer *h; /* [rows, hidden] */
    const struct backend_buffer *norm;
    float epsilon;
    const struct backend_weight *wg, *wu;
    enum activation activation; /* GELU_TANH: UNSUPPORTED until a family needs it */
};

/* x += Wd h */
struct ffn_out_args {
    struct backend_buffer *x;
    const struct backend_buffer *h;
    const struct backend_weight *wd;
};

/* logits[j] = Wout (rms_norm(x[logits_rows[j]]) * norm) */
struct logits_args {
    const struct backend_buffer *x;
    struct backend_buffer *logits; /* [sample_count_max, vocabulary] */
    const struct backend_buffer *norm;
    float epsilon;
    const struct backend_weight
        *table;     /* [vocabulary, width]; may be the embedding's handle (tied) */
    float soft_cap; /* 0: none; others UNSUPPORTED today */
};

/* Runs plan.samples over logits (kernels/steps/steps.h has the maths). */
struct sample_args {
    const struct backend_buffer *logits;
};

/* Runs plan.kv_copies. */
struct kv_copy_args {
    struct backend_kv *kv;
};

/* Every operation, in the order in which a step runs them. A backend that lacks one does not
 * compile. */
#define BACKEND_OP_MAP(X) \
    X(kv_copy)            \
    X(embed)              \
    X(attn_in)            \
    X(attention)          \
    X(attn_out)           \
    X(ffn_in)             \
    X(ffn_out)            \
    X(logits)             \
    X(sample)

#define X(op) +1
enum { BACKEND_OP_COUNT = 0 BACKEND_OP_MAP(X) };
#undef X

/* Where the time of steps went: ns = time of work on all threads + wait_ns + alone_ns. */
struct backend_op_time {
    uint64_t run_count;
    uint64_t ns;       /* from its first task to the end of its last */
    uint64_t wait_ns;  /* of it, a mean over the threads: with no task left, while others had one */
    uint64_t alone_ns; /* of it: the calling thread worked and the others had nothing to do */
};

struct backend_profile {
    uint64_t step_count;
    uint64_t step_ns;
    uint64_t barrier_count; /* times that all threads were waited for */
    uint32_t thread_count;
    struct backend_op_time ops[BACKEND_OP_COUNT]; /* in the order of BACKEND_OP_MAP */
};

struct backend_ops {
    const char *name; /* "cpu", "cuda", "fake" */

    enum status (*create)(const struct backend_settings *settings, struct error *error,
                          struct backend **out);
    void (*destroy)(
        struct backend *backend); /* NULL is fine; everything made from it dies with it */

    /* One line for people: "cpu: AVX-512 VNNI, 2 threads". Borrowed. */
    const char *(*describe)(const struct backend *backend);

    /* The name of the arithmetic, such as "cpu/1/kv-f16". Nodes computed under equal ids have equal
     * bits. */
    const char *(*numerics_id)(const struct backend *backend);
    uint32_t (*step_slot_count)(const struct backend *backend); /* steps in flight: CPU 1, CUDA 2 */

    /* What failed last on the device, for people; "" if nothing did. Borrowed. */
    const char *(*fault_text)(const struct backend *backend);

    /* UNSUPPORTED names a type or shape that it cannot hold. */
    enum status (*weight_load)(struct backend *backend, const struct weight_source *source,
                               struct error *error, struct backend_weight **out);
    enum status (*buffer_create)(struct backend *backend, uint64_t float_count, struct error *error,
                                 struct backend_buffer **out);
    enum status (*buffer_write)(struct backend_buffer *buffer, const float *from,
                                uint64_t float_count);
    enum status (*buffer_read)(const struct backend_buffer *buffer, uint64_t from, float *to,
                               uint64_t float_count);
    enum status (*kv_create)(struct backend *backend, const struct kv_shape *shape,
                             struct error *error, struct backend_kv **out);

    /* Bytes that this shape takes, so that the pool can be sized before it is made. */
    uint64_t (*kv_page_bytes)(const struct backend *backend, const struct kv_shape *shape);

    /* Bytes that may still be taken from a card, BACKEND_MEMORY_SHARED where weights and pages lie
     * in the machine's memory. */
    uint64_t (*memory_left)(const struct backend *backend);

    enum status (*program_create)(struct backend *backend, uint32_t row_count_max,
                                  struct error *error, struct backend_program **out);

    /* Each records one operation. UNSUPPORTED for args that the backend cannot run, and for a
     * program that is finished. */
    struct {
#define X(op)                                                                         \
    enum status (*op)(struct backend_program * program, const struct op##_args *args, \
                      struct error *error);
        BACKEND_OP_MAP(X)
#undef X
    } op;

    /* After the last operation of a program and before its first step: makes ready what steps need,
     * so that they allocate nothing. What all programs share may not grow any more: one that is
     * recorded later and needs more room is refused with UNSUPPORTED where there is such room. */
    enum status (*program_finish)(struct backend_program *program, struct error *error);

    /* Starts a step. The plan and all it borrows stay unchanged until step_wait returns. Never
     * allocates. AGAIN when step_slot_count steps are in flight already. DEVICE when the device
     * failed. */
    enum status (*step_submit)(struct backend_program *program, const struct plan *plan,
                               uint32_t *ticket);

    /* Waits for the step; tickets are waited for in the order in which they were given. */
    enum status (*step_wait)(struct backend *backend, uint32_t ticket, struct step_result *out);

    /* May be NULL: the backend cannot tell. Steps from now on add to *profile,
     * which is borrowed; NULL ends it, and then it costs nothing. No step is in flight. */
    void (*profile)(struct backend *backend, struct backend_profile *profile);

    bool checks_drafts; /* runs PLAN_SAMPLE_DRAFT */

    /* What keys and values are best kept in where products round what they multiply. */
    enum kv_type kv_type_fast;

    /* May be NULL: the backend has nothing to give back. No step is in flight, and none is expected
     * soon: what only steps use goes back to the system and is taken anew as steps touch it. Logits
     * and other results of steps are gone; what was loaded, pages and histories stay. */
    void (*rest)(struct backend *backend);
};

extern const struct backend_ops backend_cpu_ops;

#ifdef __cplusplus
}
#endif

#endif
