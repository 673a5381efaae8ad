/* Copies the first positions of a page, all layers and heads: how a fork gets its own last page. */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/cpu.h"

enum status cpu_kv_copy(struct backend_program *program, const struct kv_copy_args *args,
                        struct error *error)
{
    struct cpu_op *op = NULL;

    CHECK(args->kv != NULL);
    TRY(cpu_program_push(program, CPU_OP_kv_copy, error, &op));
    op->args.kv_copy = *args;
    return STATUS_OK;
}

static void copy_head(struct backend_kv *kv, uint32_t layer, uint32_t head,
                      const struct plan_kv_copy *copy)
{
    const uint32_t head_size = kv->shape.head_size;
    const uint16_t *from = cpu_kv_k(kv, layer, head, copy->from);
    uint16_t *to = cpu_kv_k(kv, layer, head, copy->to);

    /* K's positions are the inner dimension: n halves of each run of 16. */
    for (uint32_t d = 0; d < head_size; d++) {
        memcpy(to + (size_t)d * KV_PAGE_TOKEN_COUNT, from + (size_t)d * KV_PAGE_TOKEN_COUNT,
               copy->slot_count * sizeof *to);
    }
    memcpy(cpu_kv_v(kv, layer, head, copy->to), cpu_kv_v(kv, layer, head, copy->from),
           (size_t)copy->slot_count * head_size * sizeof *to);
}

/* On the calling thread: a step has a few copies at most, each of some tens of kilobytes. */
void cpu_kv_copy_run(const struct cpu_step *step, const struct kv_copy_args *args)
{
    const struct plan *plan = step->plan;
    struct backend_kv *kv = args->kv;

    for (uint32_t i = 0; i < plan->kv_copy_count; i++) {
        const struct plan_kv_copy *copy = &plan->kv_copies[i];
        CHECK(copy->from < kv->shape.page_count);
        CHECK(copy->to < kv->shape.page_count);
        CHECK(copy->from != copy->to);
        CHECK(copy->slot_count <= KV_PAGE_TOKEN_COUNT);
        for (uint32_t layer = 0; layer < kv->shape.layer_count; layer++) {
            for (uint32_t head = 0; head < kv->shape.kv_head_count; head++) {
                copy_head(kv, layer, head, copy);
            }
        }
    }
}
