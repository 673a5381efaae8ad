/* Attention, a block per tile of up to 64 or 128 query columns and KV head, then a fold per row and
 * query head of what is not final yet.
 *
 * Maths and shapes: struct attention_args in backend.h.
 * Bound by: memory in decode, 4 * head_size bytes a position and KV head (fp8: half, and 8); tensor
 *           cores in prefill.
 * Launch:   grid = as many blocks as fill the card, or rows, x heads; blocks stride over the tiles
 *           that the plan has. Tall tiles and chains are a launch of their own, where a step may
 * have any; with heads of 256 one each. Order:    attention.cuh: a column's bits depend on its own
 * query and positions only. Checked:  tests/emulator/test_attention.cpp, against double; rows
 * alone, in batches, in tiles of every height and in chains by memcmp.
 */
#include "kernels/cuda/attention.cuh"

#include "base/check.h"

enum {
    GRID_X_MAX = 4096,         /* blocks for each head; a kernel strides over more */
    BLOCKS_MULTIPROCESSOR = 4, /* how many fit at the most; of tall tiles one */
    GROUP_MAX = 64,            /* query heads a KV head */
};

static const float log2_of_e = 1.44269504f;

static bool head_size_is_known(uint32_t head_size)
{
    return head_size == 64 || head_size == 80 || head_size == 96 || head_size == 128 ||
           head_size == 256;
}

static enum status check_args(const struct attention_args *args, struct error *error)
{
    if (args->window != 0 || args->soft_cap != 0.0f || args->sinks != NULL ||
        args->page_group != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "attention with a sliding window, a soft cap, sinks or page groups is not "
                         "supported by the cuda backend; choose another model");
    }
    if (!head_size_is_known(args->head_size)) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "attention heads of size %u are not supported by the cuda backend: 64, "
                         "80, 96, 128 and 256 are; use the cpu backend",
                         args->head_size);
    }
    if (args->kv_head_count == 0 || args->head_count == 0 ||
        args->head_count % args->kv_head_count != 0 ||
        args->head_count / args->kv_head_count > GROUP_MAX) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%u query heads over %u key heads are not supported: a whole number of "
                         "query heads, at most %d, must share a key head",
                         args->head_count, args->kv_head_count, GROUP_MAX);
    }
    return STATUS_OK;
}

static uint64_t partial_heads(const struct backend *backend, const struct attention_args *args)
{
    return (uint64_t)backend->settings.partial_count_max * args->head_count;
}

enum status cuda_attention(struct backend_program *program, const struct attention_args *args,
                           struct error *error)
{
    struct backend *backend = program->backend;
    struct cuda_op *op = NULL;

    TRY(check_args(args, error));
    CHECK(args->kv->shape.head_size == args->head_size);
    CHECK(args->kv->shape.kv_head_count == args->kv_head_count);
    CHECK(args->layer < args->kv->shape.layer_count);
    const uint32_t shared_bytes =
        attention_shared_bytes(args->head_size, args->kv->type, ATTENTION_TILE_COLUMNS);
    if (shared_bytes > backend->facts.shared_bytes_max) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "attention heads of size %u need %u bytes of shared memory, this card has "
                         "%u; use the cpu backend",
                         args->head_size, shared_bytes, backend->facts.shared_bytes_max);
    }
    TRY(cuda_scratch_want(backend, &backend->partials,
                          partial_heads(backend, args) * (args->head_size + 2) * sizeof(float),
                          "attention partials", error));
    TRY(cuda_program_push(program, CUDA_OP_attention, error, &op));
    op->args.attention = *args;
    return STATUS_OK;
}

template <uint32_t D>
static enum status launch_fold(const struct cuda_step *step, const struct attention_view *view)
{
    const uint32_t rows =
        step->most.row_count < GRID_X_MAX ? step->most.row_count : (uint32_t)GRID_X_MAX;

    return device_launch<attention_fold_kernel<D>>(step->backend->device, rows, view->head_count,
                                                   ATTENTION_FOLD_THREADS, 0, step->view, *view);
}

/* Blocks in x that fill the card, so many a multiprocessor. */
static uint32_t blocks_of(const struct cuda_step *step, const struct attention_view *view,
                          uint32_t per_multiprocessor)
{
    const uint32_t fill = step->backend->facts.multiprocessor_count * per_multiprocessor;

    return (fill + view->kv_head_count - 1) / view->kv_head_count;
}

template <uint32_t D, enum kv_type T>
static enum status launch_tall(const struct cuda_step *step, const struct attention_view *view)
{
    struct device *device = step->backend->device;
    const uint32_t columns = ATTENTION_TALL_COLUMNS, blocks = blocks_of(step, view, 1);

    if (view->has_tall) {
        TRY((device_launch<attention_tall_kernel<D, T>>(
            device, blocks, view->kv_head_count, ATTENTION_THREADS(D, columns),
            attention_shared_bytes(D, T, columns), step->view, *view)));
    }
    if constexpr (ATTENTION_TAKES_CHAINS(D, ATTENTION_CHAIN)) {
        if (view->has_chains) {
            return device_launch<attention_chain_kernel<D, T>>(
                device, blocks, view->kv_head_count, ATTENTION_CHAIN_THREADS(D),
                attention_chain_shared_bytes(D, T), step->view, *view);
        }
    }
    return STATUS_OK;
}

template <uint32_t D, enum kv_type T>
static enum status launch_type(const struct cuda_step *step, const struct attention_view *view)
{
    const uint32_t columns = ATTENTION_TILE_COLUMNS;

    TRY((device_launch<attention_kernel<D, T>>(
        step->backend->device, blocks_of(step, view, BLOCKS_MULTIPROCESSOR), view->kv_head_count,
        ATTENTION_THREADS(D, columns), attention_shared_bytes(D, T, columns), step->view, *view)));
    return launch_tall<D, T>(step, view);
}

template <uint32_t D>
static enum status launch(const struct cuda_step *step, const struct attention_view *view)
{
    switch (view->kv.type) {
    case KV_TYPE_F16:
        TRY((launch_type<D, KV_TYPE_F16>(step, view)));
        break;
    case KV_TYPE_BF16:
        TRY((launch_type<D, KV_TYPE_BF16>(step, view)));
        break;
    case KV_TYPE_FP8:
        TRY((launch_type<D, KV_TYPE_FP8>(step, view)));
        break;
    }
    return launch_fold<D>(step, view);
}

struct chain_shape cuda_attention_chains(const struct backend_program *program)
{
    const struct backend *backend = program->backend;
    struct chain_shape shape = {};

    for (uint32_t i = 0; i < program->op_count; i++) {
        const struct attention_args *args = &program->ops[i].args.attention;
        const struct chain_shape none = {};

        if (program->ops[i].kind != CUDA_OP_attention) {
            continue;
        }
        const uint32_t group = args->head_count / args->kv_head_count;
        const uint32_t columns = ATTENTION_CHAIN_COLUMNS(args->head_size);
        const bool differs = shape.group != 0 &&
                             (shape.group != group || shape.kv_head_count != args->kv_head_count ||
                              shape.tile_columns != columns);
        if (differs || !attention_has_chains(args->head_size, args->kv->type,
                                             backend->facts.shared_bytes_max)) {
            return none;
        }
        shape = {group, args->kv_head_count, columns, backend->facts.multiprocessor_count};
    }
    return shape;
}

enum status cuda_attention_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct attention_args *args = &entry->args.attention;
    const struct cuda_kv_view kv = cuda_kv_layer(args->kv, args->layer);
    const uint64_t heads = partial_heads(step->backend, args);
    struct attention_view view = {};

    view.q = args->q->data;
    view.out = args->out->data;
    view.kv = kv;
    view.acc = (float *)step->backend->partials.data;
    view.max = view.acc + heads * args->head_size;
    view.sum = view.max + heads;
    view.scale_log2 = args->scale * log2_of_e;
    view.head_count = args->head_count;
    view.kv_head_count = args->kv_head_count;
    /* An item that has more columns than a short tile. */
    if (step->most.row_count * (args->head_count / args->kv_head_count) > ATTENTION_TILE_COLUMNS) {
        const uint32_t shared_bytes_max = step->backend->facts.shared_bytes_max;
        view.has_tall = attention_has_tall(args->head_size, args->kv->type, shared_bytes_max);
        view.has_chains = attention_has_chains(args->head_size, args->kv->type, shared_bytes_max);
    }
    switch (args->head_size) {
    case 64:
        return launch<64>(step, &view);
    case 80:
        return launch<80>(step, &view);
    case 96:
        return launch<96>(step, &view);
    case 128:
        return launch<128>(step, &view);
    default:
        CHECK(args->head_size == 256);
        return launch<256>(step, &view);
    }
}
