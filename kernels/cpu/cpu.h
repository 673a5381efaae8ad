/* Inside the CPU backend: what its files share. Thread: the engine thread and the pool's workers.
 *
 * Scalar C in kernels/cpu/ defines the bits; avx2/, avx512/ and neon/ equal it by memcmp. Which one
 * runs is chosen once, at create, by `backend.isa`.
 *
 * A program is a list of (kind, copy of the args). cpu_OP() checks the args and records them,
 * cpu_OP_run() runs them over the plan of a step. Nothing is allocated by a run: whatever an
 * operation needs is sized when it is recorded, from the settings and the program's row bound.
 */
#ifndef PERSONAD_KERNELS_CPU_CPU_H
#define PERSONAD_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/panel_store.h"
#include "kernels/cpu/pool.h"

enum cpu_isa { CPU_SCALAR, CPU_AVX2, CPU_AVX512, CPU_AVX512BF16, CPU_NEON, CPU_DOTPROD, CPU_I8MM };

/* AVX-512 itself, or a set that differs from it in its products alone. */
static inline bool cpu_isa_is_avx512(enum cpu_isa isa)
{
    return isa == CPU_AVX512 || isa == CPU_AVX512BF16;
}

enum {
    CPU_THREAD_COUNT_MAX = 256,
    CPU_ANGLE_TABLE_COUNT_MAX = 4, /* different sets of inverse frequencies in one program */
};

struct backend_buffer {
    struct backend *backend;
    struct backend_buffer *next; /* the backend's list */
    float *data;                 /* owned, 64-byte aligned */
    uint64_t float_count;
    bool is_given; /* the host wrote it: steps do not make it anew */
};

/* A page's layers lie together, and a layer's heads: what an operation reads of a page is one run,
 * and pages in use fill huge pages of memory. Large pages are an odd number of CPU_KV_GAP_HALVES
 * apart: at a power of two, one head's parts of all pages would share a few sets of a cache.
 * F16: K of a head is [head_size][16] (head dimension outermost, a lane a key), V [16][head_size].
 * BF16, in pairs: K [head_size / 2][16][2], of dimensions; V [8][head_size][2], of positions. */
struct backend_kv {
    struct backend *backend;
    struct backend_kv *next; /* the backend's list */
    struct kv_shape shape;
    bool is_paired; /* BF16 */
    uint16_t *k;    /* owned: [page][layer][kv_head], of 16 positions each */
    uint16_t *v;    /* owned, as k */
};

enum {
    CPU_KV_GAP_HALVES = 2048,       /* 4 KiB */
    CPU_KV_PAGE_HALVES_GAP = 32768, /* smaller pages have no gap */
};

/* Halves from one page's K, or V, to the next page's. */
static inline uint64_t cpu_kv_page_halves(const struct kv_shape *shape)
{
    const uint64_t halves = (uint64_t)shape->layer_count * shape->kv_head_count * shape->head_size *
                            KV_PAGE_TOKEN_COUNT;
    const bool is_even = halves % CPU_KV_GAP_HALVES == 0 && halves / CPU_KV_GAP_HALVES % 2 == 0;

    return is_even && halves >= CPU_KV_PAGE_HALVES_GAP ? halves + CPU_KV_GAP_HALVES : halves;
}

static inline uint64_t cpu_kv_place(const struct kv_shape *shape, uint32_t layer, uint32_t head,
                                    uint32_t page)
{
    return page * cpu_kv_page_halves(shape) +
           ((uint64_t)layer * shape->kv_head_count + head) * shape->head_size * KV_PAGE_TOKEN_COUNT;
}

static inline uint16_t *cpu_kv_k(const struct backend_kv *kv, uint32_t layer, uint32_t head,
                                 uint32_t page)
{
    return kv->k + cpu_kv_place(&kv->shape, layer, head, page);
}

static inline uint16_t *cpu_kv_v(const struct backend_kv *kv, uint32_t layer, uint32_t head,
                                 uint32_t page)
{
    return kv->v + cpu_kv_place(&kv->shape, layer, head, page);
}

/* Where a page in pairs has dimension d of a position's key, and of its value. */
static inline size_t cpu_kv_pairs_k(uint32_t d, uint32_t slot)
{
    return ((size_t)(d / 2) * KV_PAGE_TOKEN_COUNT + slot) * 2 + d % 2;
}

static inline size_t cpu_kv_pairs_v(uint32_t head_size, uint32_t d, uint32_t slot)
{
    return ((size_t)(slot / 2) * head_size + d) * 2 + slot % 2;
}

/* One branch's token history, for penalties. */
struct cpu_history {
    uint32_t *ids; /* [history_tokens_max], inside backend.history_ids */
    uint32_t count;
    uint32_t prompt_count;
    uint32_t last; /* what it sampled last */
};

struct cpu_attention; /* attention.c: scratch for partials, made when attention is recorded */
struct cpu_sample;    /* sample.c: scratch, made when sample is recorded */
struct cpu_rows;      /* rows.h: activations of a matrix product */
struct cpu_kernels;   /* kernels.h: the matrix products of one instruction set */

struct backend {
    struct backend_settings settings; /* zeros replaced by what they stand for; isa is NULL */
    enum cpu_isa isa;
    uint32_t thread_count;
    char text[64];                     /* describe() */
    const struct cpu_kernels *kernels; /* static */

    /* owned */
    struct pool *pool;
    struct cpu_history *histories; /* [slot_count] */
    uint32_t *history_ids;         /* [slot_count][history_tokens_max] */
    uint32_t *tokens;              /* [row_count_max]: the rows' token ids of this step */
    struct sample_result *results; /* [sample_count_max]: written by sample */
    uint8_t *row_faults;           /* [row_count_max]: of the last step */
    uint8_t *worker_faults;        /* [thread_count][row_count_max]: each worker sets its own */
    struct cpu_attention *attention;
    struct cpu_sample *sample;
    struct panel_store panels; /* of small weights */
    struct backend_weight *weights;
    struct backend_buffer *buffers;
    struct backend_kv *kvs;
    struct backend_program *programs;

    uint32_t ticket_next;
    bool in_flight;
    uint64_t elapsed_ns;
    struct backend_profile *profile; /* borrowed; NULL: nobody asks */
};

enum cpu_op_kind {
#define X(op) CPU_OP_##op,
    BACKEND_OP_MAP(X)
#undef X
};

struct cpu_op {
    enum cpu_op_kind kind;
    /* Of ffn_in and the ffn_out right behind it, the latter's weight: in steps of enough rows h
     * goes between them packed (backend_program.hidden) and is never stored as floats. Else NULL.
     */
    const struct backend_weight *joined;
    union {
#define X(op) struct op##_args op;
        BACKEND_OP_MAP(X)
#undef X
    } args;
};

/* Cosines and sines of every row of a step, made once and read by every layer. */
struct cpu_angles {
    const double *inverse_frequency; /* borrowed: which set this is */
    uint32_t pair_count;
    float *cosines; /* owned: [row_count_max][pair_count] */
    float *sines;   /* owned */
};

struct backend_program {
    struct backend *backend;
    struct backend_program *next; /* the backend's list */
    uint32_t row_count_max;
    uint32_t op_count;
    uint32_t op_count_max;
    struct cpu_op *ops;      /* owned */
    struct cpu_rows *rows;   /* owned: what an operation multiplies */
    struct cpu_rows *hidden; /* owned: what an ffn_in has packed for the next operation */
    struct cpu_angles angles[CPU_ANGLE_TABLE_COUNT_MAX];
    uint32_t angles_count;
    bool is_finished;
};

/* What one step works on. */
struct cpu_step {
    struct backend *backend;
    struct backend_program *program;
    const struct plan *plan;
    const struct cpu_op *op; /* that runs */
};

/* A new entry at the end of the program, for the recorder to fill; MEMORY. */
MUST_USE enum status cpu_program_push(struct backend_program *program, enum cpu_op_kind kind,
                                      struct error *error, struct cpu_op **out);

/* Adds a table of angles to the program. Filled once a step. MEMORY. */
MUST_USE enum status cpu_angles_create(struct backend_program *program,
                                       const double *inverse_frequency, uint32_t pair_count,
                                       struct error *error);

/* Rounds k and v of one row and KV head to the pool's type, finite values to finite ones, and
 * stores them in slot `slot` of `page`. Sets *fault to 1 when one of the 2 * head_size values is a
 * NaN, else leaves it. Called by workers. */
void cpu_kv_append(const struct cpu_kernels *kernels, struct backend_kv *kv, uint32_t layer,
                   uint32_t kv_head, uint32_t page, uint32_t slot, const float *k, const float *v,
                   uint8_t *fault);

/* Free the scratch of attention.c and sample.c; NULL is fine. */
void cpu_attention_destroy(struct cpu_attention *attention);
void cpu_sample_destroy(struct cpu_sample *sample);

/* Clear it, as `rest` of backend.h wants. */
void cpu_attention_rest(const struct backend *backend);
void cpu_sample_rest(const struct backend *backend);

/* Recorders and runners. */
#define X(op)                                                                           \
    enum status cpu_##op(struct backend_program *program, const struct op##_args *args, \
                         struct error *error);                                          \
    void cpu_##op##_run(const struct cpu_step *step, const struct op##_args *args);
BACKEND_OP_MAP(X)
#undef X

#endif
