/* One small layer on the CPU backend, for tests of its operations: embed, attn_in, attn_out (over q
 * in the place of attention's output), ffn_in, ffn_out, logits. Seeded, so that two layers of one
 * shape and seed differ only in what computes them.
 *
 * Thread: one at a time; everything belongs to the layer.
 */
#ifndef PERSONAD_TESTS_SUPPORT_LAYER_H
#define PERSONAD_TESTS_SUPPORT_LAYER_H

#include "kernels/cpu/cpu.h"

enum { LAYER_ROW_COUNT_MAX = 32, LAYER_PAGE_COUNT = 8 };

struct layer_shape {
    uint32_t dtype;
    uint32_t head_count;
    uint32_t kv_head_count;
    uint32_t head_size;
    uint32_t hidden;
    uint32_t vocabulary;
    uint32_t rope_pair_count;
    enum rope_style rope_style;
    bool biased;  /* with biases and head norms */
    bool precise; /* as the backend's setting */
};

struct layer {
    const struct backend_ops *ops;
    struct layer_shape shape;
    struct backend *backend;
    struct backend_program *program;
    struct backend_program *until_h; /* the same up to ffn_in, which then leaves h to be read */
    struct backend_buffer *x, *q, *h, *logits;
    struct backend_kv *kv;
    float *dense[8];      /* table, wq, wk, wv, wo, wg, wu, wd, dequantised: [rows][cols] */
    float *norms[3];      /* of attn_in, ffn_in, logits: [width] */
    float *biases[4];     /* q, k, v, o */
    float *head_norms[2]; /* q, k */
    double *inverse_frequency;
};

enum { LAYER_TABLE, LAYER_WQ, LAYER_WK, LAYER_WV, LAYER_WO, LAYER_WG, LAYER_WU, LAYER_WD };

#define LAYER_EPSILON 1e-5f

uint32_t layer_width(const struct layer_shape *shape);

/* UNSUPPORTED when this machine lacks the instruction set; the layer is then empty. */
enum status layer_init(struct layer *layer, const struct layer_shape *shape, const char *isa,
                       uint32_t thread_count, uint64_t seed);
void layer_finish(struct layer *layer);

/* Runs rows [first, first + count): row r has token (7 r + 1) mod vocabulary and position 3 r, in
 * pages that all share one table; logits of all. faults may be NULL. */
void layer_run(struct layer *layer, uint32_t first, uint32_t count, uint8_t *faults);

#endif
