/* Programs: recorded operations, and one run of them over a plan. Thread: the engine thread. */
#ifndef PERSONAD_KERNELS_CPU_PROGRAM_H
#define PERSONAD_KERNELS_CPU_PROGRAM_H

#include "kernels/cpu/cpu.h"

MUST_USE enum status cpu_program_make(struct backend *backend, uint32_t row_count_max,
                                      struct error *error, struct backend_program **out);

/* NULL is fine. */
void cpu_program_destroy(struct backend_program *program);

/* Histories, tokens and angles first, then every operation in the recorded order. */
void cpu_program_run(struct backend_program *program, const struct plan *plan);

#endif
