/* Asks the processor once, at create. */
#include "kernels/cpu/isa.h"

#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c(void)
{
    unsigned int eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

static bool is_supported(enum cpu_isa isa)
{
    switch (isa) {
    case CPU_SCALAR:
        return true;
    case CPU_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case CPU_AVX512:
        return is_supported(CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    }
    return false;
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    switch (isa) {
    case CPU_AVX512:
        return &cpu_kernels_avx512;
    case CPU_AVX2:
        return &cpu_kernels_avx2;
    case CPU_SCALAR:
        break;
    }
    return &cpu_kernels_scalar;
}
#else
static bool is_supported(enum cpu_isa isa)
{
    return isa == CPU_SCALAR;
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    (void)isa;
    return &cpu_kernels_scalar;
}
#endif

enum status cpu_isa_choose(const char *name, struct error *error, enum cpu_isa *out)
{
    static const char *const names[] = {"scalar", "avx2", "avx512"};

    if (name == NULL || strcmp(name, "auto") == 0) {
        *out = is_supported(CPU_AVX512) ? CPU_AVX512
               : is_supported(CPU_AVX2) ? CPU_AVX2
                                        : CPU_SCALAR;
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) != 0) {
            continue;
        }
        if (!is_supported((enum cpu_isa)i)) {
            return error_set(error, STATUS_UNSUPPORTED,
                             "this machine has no %s; leave the choice to \"auto\"", name);
        }
        *out = (enum cpu_isa)i;
        return STATUS_OK;
    }
    return error_set(error, STATUS_BAD_INPUT,
                     "the instruction set \"%s\" is not one of auto, scalar, avx2, avx512", name);
}
