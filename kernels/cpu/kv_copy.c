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

static void copy_halves(uint32_t head_size, uint32_t slot_count, const uint16_t *k_from,
                        uint16_t *k_to, const uint16_t *v_from, uint16_t *v_to)
{
    /* K's positions are the inner dimension: n halves of each run of 16. */
    for (uint32_t d = 0; d < head_size; d++) {
        memcpy(k_to + (size_t)d * KV_PAGE_TOKEN_COUNT, k_from + (size_t)d * KV_PAGE_TOKEN_COUNT,
               slot_count * sizeof *k_to);
    }
    memcpy(v_to, v_from, (size_t)slot_count * head_size * sizeof *v_to);
}

static void copy_pairs(uint32_t head_size, uint32_t slot_count, const uint16_t *k_from,
                       uint16_t *k_to, const uint16_t *v_from, uint16_t *v_to)
{
    for (uint32_t d = 0; d < head_size; d += 2) {
        const size_t at = cpu_kv_pairs_k(d, 0);

        memcpy(k_to + at, k_from + at, (size_t)slot_count * 2 * sizeof *k_to);
    }
    memcpy(v_to, v_from, (size_t)(slot_count / 2) * 2 * head_size * sizeof *v_to);
    for (uint32_t d = 0; d < head_size && slot_count % 2 != 0; d++) {
        const size_t at = cpu_kv_pairs_v(head_size, d, slot_count - 1);

        v_to[at] = v_from[at];
    }
}

static void copy_head(struct backend_kv *kv, uint32_t layer, uint32_t head,
                      const struct plan_kv_copy *copy)
{
    (kv->is_paired ? copy_pairs : copy_halves)(
        kv->shape.head_size, copy->slot_count, cpu_kv_k(kv, layer, head, copy->from),
        cpu_kv_k(kv, layer, head, copy->to), cpu_kv_v(kv, layer, head, copy->from),
        cpu_kv_v(kv, layer, head, copy->to));
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
