/* How one source of a kernel becomes one function a shape. Thread: none, macros only.
 *
 * CPU_EXPAND functions take their shape as constants and are expanded where they are called;
 * CPU_UNROLL(n) stands before a loop of at most n rounds over registers. A build under a sanitizer
 * keeps calls and loops: hundreds of checked expansions would take it minutes, and the loops touch
 * the same memory in the same order.
 */
#ifndef PERSONAD_KERNELS_CPU_EXPAND_H
#define PERSONAD_KERNELS_CPU_EXPAND_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CPU_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CPU_SANITIZED
#endif
#endif

#define CPU_PRAGMA(text) _Pragma(#text)
#ifdef CPU_SANITIZED
#define CPU_EXPAND
#define CPU_UNROLL(count)
#else
#define CPU_EXPAND inline __attribute__((always_inline))
#define CPU_UNROLL(count) CPU_PRAGMA(GCC unroll count)
#endif

#endif
