/* The instruction sets of this architecture, for tests that go through all of them. Those that the
 * machine lacks are refused by name when they are asked for. The first is what the others equal.
 */
#ifndef PERSONAD_TESTS_SUPPORT_ISA_NAMES_H
#define PERSONAD_TESTS_SUPPORT_ISA_NAMES_H

static const char *const isa_names[] = {
    "scalar",
#if defined(__x86_64__)
    "avx2",
    "avx512",
    "avx512bf16",
#elif defined(__aarch64__)
    "neon",
    "dotprod",
    "i8mm",
#endif
};

enum { ISA_NAME_COUNT = sizeof(isa_names) / sizeof(isa_names[0]) };

#endif
