/* Copies the first positions of pages, all layers and heads, a block per layer and KV head.
 *
 * Maths and shapes: struct kv_copy_args and struct plan_kv_copy in backend.h.
 * Bound by: memory, twice 2 * slot_count rows of bytes a copy, layer and KV head; in 16-byte
 * pieces. Launch:   grid = planes (layers * KV heads), block = KV_COPY_THREADS, no shared memory.
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
    if (cuda_kv_row_bytes(args->kv->type, args->kv->shape.head_size) % KV_COPY_PIECE_BYTES != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "heads of %u values: the cuda backend needs a multiple of %d",
                         args->kv->shape.head_size,
                         args->kv->type == KV_TYPE_FP8 ? KV_COPY_PIECE_BYTES
                                                       : KV_COPY_PIECE_BYTES / 2);
    }
    TRY(cuda_program_push(program, CUDA_OP_kv_copy, error, &op));
    op->args.kv_copy = *args;
    return STATUS_OK;
}

enum status cuda_kv_copy_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct backend_kv *kv = entry->args.kv_copy.kv;
    struct kv_copy_view view = {};

    view.k = kv->k;
    view.v = kv->v;
    view.k_scales = kv->k_scales;
    view.v_scales = kv->v_scales;
    view.plane_count = kv->shape.layer_count * kv->shape.kv_head_count;
    view.page_count = kv->shape.page_count;
    view.row_bytes = cuda_kv_row_bytes(kv->type, kv->shape.head_size);
    return device_launch<kv_copy_kernel>(step->backend->device, view.plane_count, 1,
                                         KV_COPY_THREADS, 0, step->view, view);
}
