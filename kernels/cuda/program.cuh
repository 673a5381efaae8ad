/* Programs of the CUDA backend: life, and one step through one.
 *
 * Thread: the engine thread. cuda_program_finish captures, for each bucket of rows and each slot,
 * the beginning, every operation and the answers' download. A step is then one upload and one
 * launch of a graph. Nothing waits and nothing is allocated.
 */
#ifndef PERSONAD_KERNELS_CUDA_PROGRAM_CUH
#define PERSONAD_KERNELS_CUDA_PROGRAM_CUH

#include "kernels/cuda/cuda.cuh"

MUST_USE enum status cuda_program_make(struct backend *backend, uint32_t row_count_max,
                                       struct error *error, struct backend_program **out);
void cuda_program_destroy(struct backend_program *program); /* NULL is fine */

/* The entries program_finish, step_submit and step_wait of struct backend_ops. */
enum status cuda_program_finish(struct backend_program *program, struct error *error);
enum status cuda_step_submit(struct backend_program *program, const struct plan *plan,
                             uint32_t *ticket);
enum status cuda_step_wait(struct backend *backend, uint32_t ticket, struct step_result *out);

#endif
