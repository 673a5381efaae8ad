#include "tests/emulator/emulator_switch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { GUARD_BYTES = 4096, EACH_BYTES = EMULATOR_STACK_BYTES + GUARD_BYTES };

static struct {
#if EMULATOR_SWITCH_BY_UCONTEXT
    ucontext_t registers;
#else
    void *stack_pointer;
#endif
    const void *stack; /* for AddressSanitizer */
    size_t stack_bytes;
} scheduler = {};

enum status emulator_stacks_create(uint32_t count, unsigned char **out)
{
    void *memory = mmap(NULL, (size_t)EACH_BYTES * count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        return STATUS_MEMORY;
    }
    *out = static_cast<unsigned char *>(memory);
    for (size_t i = 0; i < count; i++) {
        if (mprotect(*out + i * EACH_BYTES, GUARD_BYTES, PROT_NONE) != 0) {
            abort();
        }
    }
    return STATUS_OK;
}

unsigned char *emulator_stack_at(unsigned char *stacks, uint32_t index)
{
    return stacks + (size_t)index * EACH_BYTES + GUARD_BYTES;
}

#if !EMULATOR_SWITCH_BY_UCONTEXT
/* Saves what a call must preserve on the running stack, its pointer in *save, and returns on the
 * stack whose pointer is given. swapcontext() would make two system calls each time. */
extern "C" void emulator_switch_stack(void **save, void *to);
__asm__(".text\n"
        ".globl emulator_switch_stack\n"
        ".type emulator_switch_stack, @function\n"
        "emulator_switch_stack:\n"
        "pushq %rbp\n"
        "pushq %rbx\n"
        "pushq %r12\n"
        "pushq %r13\n"
        "pushq %r14\n"
        "pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n"
        "popq %r14\n"
        "popq %r13\n"
        "popq %r12\n"
        "popq %rbx\n"
        "popq %rbp\n"
        "ret\n"
        ".size emulator_switch_stack, . - emulator_switch_stack\n");
#endif

void emulator_context_leave(struct emulator_context *context, bool ended)
{
#ifdef HAS_ASAN
    __sanitizer_start_switch_fiber(ended ? NULL : &context->fake_stack, scheduler.stack,
                                   scheduler.stack_bytes);
#else
    (void)ended;
#endif
#if EMULATOR_SWITCH_BY_UCONTEXT
    swapcontext(&context->registers, &scheduler.registers);
#else
    emulator_switch_stack(&context->stack_pointer, scheduler.stack_pointer);
#endif
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(context->fake_stack, NULL, NULL);
#endif
}

void emulator_context_enter(struct emulator_context *context)
{
#ifdef HAS_ASAN
    void *fake_stack = NULL;
    __sanitizer_start_switch_fiber(&fake_stack, context->stack, EMULATOR_STACK_BYTES);
#endif
#if EMULATOR_SWITCH_BY_UCONTEXT
    swapcontext(&scheduler.registers, &context->registers);
#else
    emulator_switch_stack(&scheduler.stack_pointer, context->stack_pointer);
#endif
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
}

void emulator_context_begin(void)
{
#ifdef HAS_ASAN
    __sanitizer_finish_switch_fiber(NULL, &scheduler.stack, &scheduler.stack_bytes);
#endif
}

void emulator_context_init(struct emulator_context *context, unsigned char *stack,
                           void (*main)(void))
{
#ifdef HAS_ASAN
    /* A fiber that a fault left behind never cleaned up. */
    __asan_unpoison_memory_region(stack, EMULATOR_STACK_BYTES);
#endif
    context->stack = stack;
    context->fake_stack = NULL;
#if EMULATOR_SWITCH_BY_UCONTEXT
    getcontext(&context->registers);
    context->registers.uc_stack.ss_sp = stack;
    context->registers.uc_stack.ss_size = EMULATOR_STACK_BYTES;
    context->registers.uc_link = NULL;
    makecontext(&context->registers, main, 0);
#else
    /* Six registers, where to return to, and a word that keeps calls aligned to 16. */
    void **top = reinterpret_cast<void **>(stack + EMULATOR_STACK_BYTES) - 8;
    memset(top, 0, 8 * sizeof *top);
    top[6] = reinterpret_cast<void *>(main);
    context->stack_pointer = top;
#endif
}
