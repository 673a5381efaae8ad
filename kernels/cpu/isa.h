/* Which instruction set runs. Thread: any. */
#ifndef PERSONAD_KERNELS_CPU_ISA_H
#define PERSONAD_KERNELS_CPU_ISA_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

/* name: NULL or "auto" for the best that this machine has, "scalar", "avx2", "avx512",
 * "avx512bf16", "neon", "dotprod" and "i8mm" (both with neon). UNSUPPORTED when the machine lacks
 * it, BAD_INPUT for another name. */
MUST_USE enum status cpu_isa_choose(const char *name, struct error *error, enum cpu_isa *out);

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa);

#endif
