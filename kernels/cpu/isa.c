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
    case CPU_AVX512BF16:
        return is_supported(CPU_AVX512) && __builtin_cpu_supports("avx512bf16");
    case CPU_NEON:
    case CPU_DOTPROD:
    case CPU_I8MM:
        break;
    }
    return false;
}

/* Intel's vdpbf16ps takes twice the time of a fused multiply-add, so that it gains nothing. */
static bool is_worth_it(enum cpu_isa isa)
{
    return isa != CPU_AVX512BF16 || !__builtin_cpu_is("intel");
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    return isa == CPU_AVX512BF16 ? &cpu_kernels_avx512bf16
           : isa == CPU_AVX512   ? &cpu_kernels_avx512
           : isa == CPU_AVX2     ? &cpu_kernels_avx2
                                 : &cpu_kernels_scalar;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

static bool is_worth_it(enum cpu_isa isa)
{
    (void)isa;
    return true;
}

/* Bits of Linux for this architecture, which headers older than the processors lack. */
#define HAS_FP (1ul << 0)
#define HAS_ASIMD (1ul << 1)
#define HAS_DOTPROD (1ul << 20)
#define HAS_I8MM (1ul << 13) /* of the second word */

static bool is_supported(enum cpu_isa isa)
{
    const unsigned long first = getauxval(AT_HWCAP);
    const unsigned long second = getauxval(AT_HWCAP2);

    switch (isa) {
    case CPU_SCALAR:
        return true;
    case CPU_NEON:
        return (first & HAS_FP) != 0 && (first & HAS_ASIMD) != 0;
    case CPU_DOTPROD:
        return is_supported(CPU_NEON) && (first & HAS_DOTPROD) != 0;
    case CPU_I8MM:
        return is_supported(CPU_DOTPROD) && (second & HAS_I8MM) != 0;
    case CPU_AVX2:
    case CPU_AVX512:
    case CPU_AVX512BF16:
        break;
    }
    return false;
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    return isa == CPU_I8MM      ? &cpu_kernels_i8mm
           : isa == CPU_DOTPROD ? &cpu_kernels_dotprod
           : isa == CPU_NEON    ? &cpu_kernels_neon
                                : &cpu_kernels_scalar;
}
#else
static bool is_supported(enum cpu_isa isa)
{
    return isa == CPU_SCALAR;
}

static bool is_worth_it(enum cpu_isa isa)
{
    (void)isa;
    return true;
}

const struct cpu_kernels *cpu_isa_kernels(enum cpu_isa isa)
{
    (void)isa;
    return &cpu_kernels_scalar;
}
#endif

enum status cpu_isa_choose(const char *name, struct error *error, enum cpu_isa *out)
{
    /* In the order of enum cpu_isa, so that of one architecture's the last is the best. */
    static const char *const names[] = {"scalar", "avx2",    "avx512", "avx512bf16",
                                        "neon",   "dotprod", "i8mm"};
    enum { COUNT = sizeof(names) / sizeof(names[0]) };

    for (uint32_t i = COUNT; i-- > 0;) {
        const bool is_auto = name == NULL || strcmp(name, "auto") == 0;

        if (!is_auto && strcmp(name, names[i]) != 0) {
            continue;
        }
        if (is_supported((enum cpu_isa)i) && (!is_auto || is_worth_it((enum cpu_isa)i))) {
            *out = (enum cpu_isa)i;
            return STATUS_OK;
        }
        if (!is_auto) {
            return error_set(error, STATUS_UNSUPPORTED,
                             "this machine has no %s; leave the choice to \"auto\"", name);
        }
    }
    return error_set(error, STATUS_BAD_INPUT,
                     "the instruction set \"%s\" is not one of auto, scalar; avx2, avx512, "
                     "avx512bf16 on x86; "
                     "neon, dotprod, i8mm on ARM",
                     name);
}
