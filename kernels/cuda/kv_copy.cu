/* Copies the first positions of pages, all layers and heads, a block per layer and KV head.
 *
 * Maths and shapes: struct kv_copy_args and struct plan_kv_copy in backend.h.
 * Bound by: memory, 8 * slot_count * head_size bytes a copy, layer and KV head; in 16-byte pieces.
 * Launch:   grid = planes (layers * KV heads), block = KV_COPY_THREADS, no shared memory.
 * Order:    no arithmetic; copies of a plane in the order of the plan.
 * Checked:  tests/emulator/test_kv_copy.cpp, against memcpy.
 */
#include "kernels/cuda/kv_copy.cuh"

#include "base/check.h"

enum status cuda_kv_copy(struct backend_program *program, const struct kv_copy_args *args,
                         struct error *error)
{
    struct cuda_op *op = NULL;

    CHECK(args->kv != NULL);
    if (args->kv->shape.head_size % KV_COPY_PIECE_HALVES != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "heads of %u values: the cuda backend needs a multiple of %d",
                         args->kv->shape.head_size, KV_COPY_PIECE_HALVES);
    }
    TRY(cuda_program_push(program, CUDA_OP_kv_copy, error, &op));
    op->args.kv_copy = *args;
    return STATUS_OK;
}

enum status cuda_kv_copy_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct backend_kv *kv = entry->args.kv_copy.kv;
    const uint32_t plane_count = kv->shape.layer_count * kv->shape.kv_head_count;

    return device_launch<kv_copy_kernel>(
        step->backend->device, plane_count, 1, KV_COPY_THREADS, 0, step->view, kv->k, kv->v,
        plane_count, kv->shape.page_count, kv->shape.head_size * KV_PAGE_TOKEN_COUNT);
}
