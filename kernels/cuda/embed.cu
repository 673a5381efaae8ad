/* x[r] = table[token of row r] * scale, one block per row.
 *
 * Maths and shapes: struct embed_args in backend.h. The table may be the output matrix: a row is
 *           read back out of its panel.
 * Bound by: memory, a few bytes a value.
 * Launch:   grid = row_count, block = BLOCK_THREADS, no shared memory.
 * Order:    a value is its stored one (F16 and quantised types exactly, others as rounded to
 *           bf16 at load) times scale.
 * Checked:  tests/emulator/test_blocks.cpp, against kernels/dtype.c, by memcmp.
 */
#include "base/check.h"
#include "kernels/cuda/matmul.cuh"

enum { BLOCK_THREADS = 128 };

/* Column `col` of row `row` (0..15) of a panel: its value. */
template <uint32_t FORMAT>
DEVICE_INLINE float element_of(const struct cuda_weight_view &view, uint32_t panel, uint32_t row,
                               uint32_t col)
{
    const uint32_t unit = col / CUDA_UNIT_COLS, step = col % CUDA_UNIT_COLS / CUDA_STEP_COLS;
    const uint32_t within = col % CUDA_STEP_COLS;
    const uint32_t lane = row % 8 * 4 + within % 8 / 2;
    const uint32_t element = within % 2 + row / 8 * 2 + within / 8 * 4;
    const uint32_t loads = cuda_unit_load_count(FORMAT);
    const uint64_t at = (uint64_t)panel * view.unit_count + unit;
    const uint8_t *load =
        view.codes + (at * loads + step * loads / CUDA_UNIT_STEPS) * CUDA_LOAD_BYTES + lane * 16;
    uint32_t code;

    if (FORMAT == CUDA_BF16) {
        return steps_float_from_bf16(((const uint16_t *)load)[element]);
    }
    if (FORMAT == CUDA_F16) {
        return cuda_half(((const uint16_t *)load)[element]);
    }
    if (loads == 1) {
        code = load[step * 4 + element / 2] >> (element % 2 * 4) & 15u;
    } else {
        code = load[step % 2 * 8 + element];
    }
    return cuda_weight_value<FORMAT>(
        code, cuda_weight_scale<FORMAT>(view.scales + at * cuda_unit_scale_bytes(FORMAT),
                                        cuda_weight_super<FORMAT>(view, panel, unit), step, row % 8,
                                        row / 8));
}

template <uint32_t FORMAT>
DEVICE_INLINE void embed_row(const struct cuda_weight_view &view, uint32_t token, float scale,
                             float *x)
{
    for (uint32_t c = PRIM_THREAD; c < view.cols; c += BLOCK_THREADS) {
        x[c] =
            element_of<FORMAT>(view, token / CUDA_PANEL_ROWS, token % CUDA_PANEL_ROWS, c) * scale;
    }
}

static KERNEL void embed_kernel(struct cuda_weight_view view, const uint32_t *row_count,
                                const uint32_t *tokens, float scale, float *out)
{
    prim_depend_wait();
    if (PRIM_BLOCK_X >= *row_count) {
        return;
    }
    const uint32_t token = tokens[PRIM_BLOCK_X];
    float *x = out + (uint64_t)PRIM_BLOCK_X * view.cols;

    switch (view.format) {
    case CUDA_Q4_0:
        embed_row<CUDA_Q4_0>(view, token, scale, x);
        break;
    case CUDA_Q4_1:
        embed_row<CUDA_Q4_1>(view, token, scale, x);
        break;
    case CUDA_Q8_0:
        embed_row<CUDA_Q8_0>(view, token, scale, x);
        break;
    case CUDA_Q4_K:
        embed_row<CUDA_Q4_K>(view, token, scale, x);
        break;
    case CUDA_Q5_K:
        embed_row<CUDA_Q5_K>(view, token, scale, x);
        break;
    case CUDA_Q6_K:
        embed_row<CUDA_Q6_K>(view, token, scale, x);
        break;
    case CUDA_FP8:
        embed_row<CUDA_FP8>(view, token, scale, x);
        break;
    case CUDA_F16:
        embed_row<CUDA_F16>(view, token, scale, x);
        break;
    default:
        embed_row<CUDA_BF16>(view, token, scale, x);
        break;
    }
    prim_depend_launch();
}

enum status cuda_embed(struct backend_program *program, const struct embed_args *args,
                       struct error *error)
{
    struct cuda_op *entry;

    CHECK(args->x != NULL && args->table != NULL);
    CHECK((uint64_t)program->row_count_max * args->table->view.cols <= args->x->float_count);
    TRY(cuda_program_push(program, CUDA_OP_embed, error, &entry));
    entry->args.embed = *args;
    return STATUS_OK;
}

enum status cuda_embed_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct embed_args *args = &entry->args.embed;

    return device_launch<embed_kernel>(step->backend->device, step->most.row_count, 1,
                                       BLOCK_THREADS, 0, args->table->view, cuda_row_count_at(step),
                                       step->tokens, args->scale, args->x->data);
}
