/* Stacks of fibers, and how the emulator gets from one to another.
 *
 * Thread: that of the launch. Ownership: a context borrows its stack. Between enter and leave the
 * fiber runs; there is one scheduler, who entered.
 */
#ifndef PERSONAD_TESTS_EMULATOR_EMULATOR_SWITCH_H
#define PERSONAD_TESTS_EMULATOR_EMULATOR_SWITCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#define EMULATOR_SWITCH_BY_UCONTEXT 1
#else
#define EMULATOR_SWITCH_BY_UCONTEXT 0
#endif

enum { EMULATOR_STACK_BYTES = 192 * 1024 };

struct emulator_context {
    unsigned char *stack; /* EMULATOR_STACK_BYTES */
    void *fake_stack;     /* AddressSanitizer's */
#if EMULATOR_SWITCH_BY_UCONTEXT
    ucontext_t registers;
#else
    void *stack_pointer;
#endif
};

/* Stacks one after another, each behind a page that nobody may touch; never given back. MEMORY. */
MUST_USE enum status emulator_stacks_create(uint32_t count, unsigned char **out);
unsigned char *emulator_stack_at(unsigned char *stacks, uint32_t index);

/* The first enter calls main(), which must begin with emulator_context_begin() and never return. */
void emulator_context_init(struct emulator_context *context, unsigned char *stack,
                           void (*main)(void));
void emulator_context_begin(void);

/* From the scheduler to the fiber, until that leaves. */
void emulator_context_enter(struct emulator_context *context);

/* From the running fiber, whose context this is, to the scheduler. One that has ended does not come
 * back. */
void emulator_context_leave(struct emulator_context *context, bool ended);

#endif
