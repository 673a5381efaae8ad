/* What instructions cost the int8 product, beside which they stand: cycles that one adds to a loop
 * of eight independent vpdpbusd, all 512 bits wide.
 *
 *   bench_pipes
 *
 * None where the processor has other pipes for it, one where it takes a dot product's place. Best
 * of several rounds of one thread. x86-64 with AVX-512 VNNI, VBMI, IFMA and BF16 only.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#if defined(__x86_64__)

enum { ROUNDS = 7, TURNS = 200000, DOTS = 8, EXTRA = 4 };

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

#define DOT(i) "vpdpbusd %%zmm10, %%zmm11, %%zmm" #i "\n"
#define EIGHT_DOTS DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7)

/* An instruction four times, each to a register of its own; its operands are zeros. */
#define FOUR(text, wide)                                                                           \
    text ", %%" wide "mm12\n" text ", %%" wide "mm13\n" text ", %%" wide "mm14\n" text ", %%" wide \
         "mm15\n"

/* Of what it reads: two registers, one, half of one; or writes half of one; or shifts. */
#define TWO(name) X(name, FOUR(#name " %%zmm10, %%zmm11", "z"))
#define ONE(name) X(name, FOUR(#name " %%zmm11", "z"))
#define WIDENS(name) X(name, FOUR(#name " %%ymm11", "z"))
#define NARROWS(name) X(name, FOUR(#name " %%zmm11", "y"))
#define SHIFTS(name) X(name, FOUR(#name " $4, %%zmm11", "z"))

/* clang-format off */
#define INSTRUCTIONS \
    TWO(vfmadd231ps) TWO(vmulps) TWO(vmulpd) TWO(vdpbf16ps) \
    TWO(vpmulld) TWO(vpmaddwd) TWO(vpmullw) TWO(vpmulhrsw) TWO(vpmaddubsw) TWO(vpdpwssd) \
    TWO(vpmadd52luq) \
    TWO(vaddps) TWO(vmaxps) TWO(vscalefps) ONE(vcvtdq2ps) ONE(vcvtps2dq) \
    TWO(vpaddd) TWO(vpsllvd) SHIFTS(vpsrad) TWO(vpermd) TWO(vpshufb) \
    WIDENS(vcvtph2ps) NARROWS(vcvtneps2bf16)
/* clang-format on */

#define LOOP(name, text)                                                                         \
    static void run_##name(void)                                                                 \
    {                                                                                            \
        __asm__ volatile("vpxord %%zmm10, %%zmm10, %%zmm10\nvpxord %%zmm11, %%zmm11, %%zmm11" :: \
                             : "xmm10", "xmm11");                                                \
        for (int i = 0; i < TURNS; i++) {                                                        \
            __asm__ volatile(EIGHT_DOTS text                                                     \
                             :                                                                   \
                             :                                                                   \
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",   \
                               "xmm12", "xmm13", "xmm14", "xmm15", "xmm10", "xmm11");            \
        }                                                                                        \
    }

LOOP(nothing, "")
#define X(name, text) LOOP(name, text)
INSTRUCTIONS
#undef X

static const struct {
    const char *name;
    void (*run)(void);
} instructions[] = {
#define X(name, text) {#name, run_##name},
    INSTRUCTIONS
#undef X
};

static double best_of(void (*run)(void))
{
    double best = 1e30;

    for (int round = 0; round < ROUNDS; round++) {
        const double begin = now_ns();
        run();
        const double time = (now_ns() - begin) / TURNS;
        best = time < best ? time : best;
    }
    return best;
}

int main(void)
{
    if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512bf16") ||
        !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512ifma")) {
        fputs("bench_pipes: this processor lacks some of the instructions\n", stderr);
        return 1;
    }
    const double dots = best_of(run_nothing);

    printf("%-14s %.2f ns for %d\n", "vpdpbusd", dots, DOTS);
    for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++) {
        printf("%-14s adds %.2f cycles\n", instructions[i].name,
               (best_of(instructions[i].run) / dots - 1) * DOTS / EXTRA);
    }
    return 0;
}

#else

int main(void)
{
    fputs("bench_pipes: only for x86-64\n", stderr);
    return 1;
}

#endif
