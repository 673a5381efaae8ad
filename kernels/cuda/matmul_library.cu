/* The matrix product by cuBLASLt: sums by the library, then what becomes of them.
 *
 * Maths and shapes: struct cuda_matmul_args in matmul.cuh.
 * Bound by: the library; the sums pass through memory once more, 8 bytes each, and the weights lie
 *           on the card twice: as panels, and row by row for the library.
 * Launch:   the library's kernel over all rows of the bucket, those behind the last included, whose
 *           sums nobody reads; then grid = (groups of BLOCK_OUTPUTS outputs, groups of BLOCK_ROWS
 *           rows), block = BLOCK_OUTPUTS.
 * Order:    the library's algorithm, one for all numbers of rows: cublaslt.cuh.
 * Checked:  tests/emulator/test_cublaslt.cpp, by memcmp against sums of a library of our own.
 */
#include "kernels/cuda/cublaslt.cuh"
#include "kernels/cuda/matmul_block.cuh"
#include "kernels/cuda/matmul_launch.cuh"

#include "base/check.h"

enum { BLOCK_OUTPUTS = 128, BLOCK_ROWS = 8, PLAIN_THREADS = 256 };

/* ---- the copy of the weights ---- */

/* A thread a pair of columns; numbers of 16 bits in panels become rows of padded columns. */
static KERNEL void plain_kernel(struct cuda_weight_view view, uint32_t *to)
{
    const uint32_t pairs = view.unit_count * CUDA_UNIT_COLS / 2;
    const uint32_t row = PRIM_BLOCK_X;

    prim_depend_wait();
    for (uint32_t pair = PRIM_THREAD; pair < pairs; pair += PLAIN_THREADS) {
        const uint32_t col = pair * 2, within = col % CUDA_STEP_COLS,
                       in_panel = row % CUDA_PANEL_ROWS;
        const uint64_t step =
            (uint64_t)(row / CUDA_PANEL_ROWS) * view.unit_count * CUDA_UNIT_STEPS +
            col / CUDA_STEP_COLS;
        const uint32_t lane = in_panel % 8 * 4 + within % 8 / 2;
        const uint32_t word = in_panel / 8 + within / 8 * 2;

        to[(uint64_t)row * pairs + pair] =
            ((const uint32_t *)view.codes)[(step * CUDA_WARP_LANES + lane) * 4 + word];
    }
    prim_depend_launch();
}

enum status cuda_weight_copy_plain(struct device *device, const struct cuda_weight_view *view,
                                   uint16_t *to)
{
    CHECK(view->format == CUDA_BF16 || view->format == CUDA_F16);
    return device_launch<plain_kernel>(device, view->rows, 1, PLAIN_THREADS, 0, *view,
                                       (uint32_t *)to);
}

/* ---- the end of a product ---- */

static KERNEL void finish_kernel(const PRIM_GRID_CONSTANT struct cuda_matmul_args args)
{
    const bool swiglu = args.shape.epilogue == CUDA_SWIGLU;
    const uint32_t part_count = swiglu ? 1 : args.part_count;
    uint32_t output = PRIM_BLOCK_X * BLOCK_OUTPUTS + PRIM_THREAD, at = output, part = 0;

    prim_depend_wait();
    const uint32_t row_count = args.row_count_at == NULL ? args.row_count : *args.row_count_at;

    while (part < part_count && output >= args.parts[part].weight.rows) {
        output -= args.parts[part].weight.rows;
        part++;
    }
    for (uint32_t i = 0; part < part_count && i < BLOCK_ROWS; i++) {
        const uint32_t row = PRIM_BLOCK_Y * BLOCK_ROWS + i;

        if (row < row_count) {
            const float *sums = args.library.sums + (uint64_t)row * args.library.outputs + at;
            const float scale = cuda_row_scale(args, row);
            const float up = swiglu ? sums[args.parts[0].weight.rows] : 0.0f;

            cuda_output(args.parts[part], args.shape.epilogue, row, output, sums[0] * scale,
                        up * scale);
        }
    }
    prim_depend_launch();
}

enum status cuda_library_launch(struct device *device, struct cuda_matmul_args *args)
{
    const struct cuda_library_product *library = &args->library;
    const uint32_t outputs =
        args->shape.epilogue == CUDA_SWIGLU ? args->parts[0].weight.rows : library->outputs;
    struct cuda_matmul_args on_card = *args; /* what is the host's stays here */
    struct cublaslt_product product = {};

    product.outputs = library->outputs;
    product.cols = args->parts[0].weight.unit_count * CUDA_UNIT_COLS;
    product.rows = args->row_count;
    product.is_half = args->row_scales != NULL;
    if (args->row_count == 0) {
        return STATUS_OK;
    }
    TRY(cublaslt_run(library->library, &product, library->algorithm, library->weights,
                     args->activations, library->sums, library->workspace));
    on_card.library.library = NULL;
    on_card.library.algorithm = NULL;
    return device_launch<finish_kernel>(device, (outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS,
                                        (args->row_count + BLOCK_ROWS - 1) / BLOCK_ROWS,
                                        BLOCK_OUTPUTS, 0, on_card);
}
