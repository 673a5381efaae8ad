/* What the recorders of the matrix operations share. Thread: the engine thread.
 *
 * A recorder checks shapes and asks for the scratch of its activations; a runner fills that scratch
 * and launches the product.
 */
#ifndef PERSONAD_KERNELS_CUDA_PRODUCT_CUH
#define PERSONAD_KERNELS_CUDA_PRODUCT_CUH

#include "kernels/cuda/matmul.cuh"

/* UNSUPPORTED, with both shapes, when the weight is not [rows, cols]; MEMORY for the scratch.
 * `what`: "the output matrix". */
MUST_USE enum status cuda_product_check(struct backend_program *program, const char *what,
                                        const struct backend_weight *weight, uint32_t rows,
                                        uint32_t cols, struct error *error);

/* After the checks of matrices that are multiplied at once by at most row_count_max rows: what
 * their provider needs. UNSUPPORTED: it does not serve them after all; MEMORY. */
MUST_USE enum status cuda_product_provide(struct backend *backend,
                                          const struct backend_weight *const *weights,
                                          uint32_t weight_count, uint32_t row_count_max,
                                          struct error *error);
/* Frees what it made. */
void cuda_product_forget(struct backend *backend);

/* Fills the activations from `source`, as the parts of `args` want them, and `args` with them and
 * its number of rows. */
MUST_USE enum status cuda_product_begin(const struct cuda_step *step,
                                        struct cuda_activation_source *source,
                                        struct cuda_matmul_args *args);

/* x[r] += W a[r] + bias for the plan's rows. bias NULL: none. */
MUST_USE enum status cuda_product_add(const struct cuda_step *step,
                                      const struct backend_weight *weight,
                                      const struct backend_buffer *bias,
                                      const struct backend_buffer *from, struct backend_buffer *x);

/* qkv[row][(head_count + 2 kv_head_count) * head_size] = rms_norm(x) * norm times Wq, Wk and Wv,
 * one after another, without bias. */
MUST_USE enum status cuda_qkv_product(const struct cuda_step *step, const struct attn_in_args *args,
                                      float *qkv);

#endif
