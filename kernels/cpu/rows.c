/* Where rows and tiles lie. The packing itself is a kernel (rows_scalar.c and its vector versions).
 */
#include "kernels/cpu/rows.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/weight.h"

enum status cpu_rows_create(uint32_t row_count_max, uint32_t thread_count, bool is_precise,
                            bool with_words, struct cpu_rows **out)
{
    struct cpu_rows *rows = memory_alloc(1, sizeof(*rows));

    if (rows == NULL) {
        return STATUS_MEMORY;
    }
    rows->row_count_max = row_count_max;
    rows->thread_count = thread_count;
    rows->is_precise = is_precise;
    rows->with_words = with_words;
    *out = rows;
    return STATUS_OK;
}

static void free_arrays(struct cpu_rows *rows)
{
    memory_free(rows->values);
    memory_free(rows->paired);
    memory_free(rows->codes);
    memory_free(rows->low_codes);
    memory_free(rows->scales);
    memory_free(rows->sums);
    memory_free(rows->code_sums);
    memory_free(rows->half_sums);
    memory_free(rows->rows);
    rows->values = NULL;
    rows->paired = NULL;
    rows->words = NULL;
    rows->codes = NULL;
    rows->low_codes = NULL;
    rows->scales = NULL;
    rows->sums = NULL;
    rows->code_sums = NULL;
    rows->half_sums = NULL;
    rows->rows = NULL;
    rows->cols_max = 0;
}

void cpu_rows_destroy(struct cpu_rows *rows)
{
    if (rows == NULL) {
        return;
    }
    free_arrays(rows);
    memory_free(rows);
}

void cpu_rows_clear(struct cpu_rows *rows)
{
    const size_t count = (size_t)rows->row_count_max * rows->cols_max;
    const size_t block_count = count / CPU_BLOCK;

    memory_clear(rows->values, count, sizeof(rows->values[0]));
    memory_clear(rows->paired, count, sizeof(rows->paired[0]));
    memory_clear(rows->codes, count, sizeof(rows->codes[0]));
    memory_clear(rows->low_codes, count, sizeof(rows->low_codes[0]));
    memory_clear(rows->scales, block_count, sizeof(rows->scales[0]));
    memory_clear(rows->sums, block_count, sizeof(rows->sums[0]));
    memory_clear(rows->code_sums, block_count, sizeof(rows->code_sums[0]));
    memory_clear(rows->half_sums, block_count * 2, sizeof(rows->half_sums[0]));
    memory_clear(rows->rows, (size_t)rows->thread_count * CPU_TILE_ROWS_MAX * rows->cols_max,
                 sizeof(rows->rows[0]));
}

enum status cpu_rows_reserve(struct cpu_rows *rows, uint32_t cols)
{
    const size_t count = rows->row_count_max;
    const size_t block_count = ((size_t)cols + CPU_BLOCK - 1) / CPU_BLOCK;
    const size_t padded = block_count * CPU_BLOCK;

    if (cols <= rows->cols_max) {
        return STATUS_OK;
    }
    free_arrays(rows);
    rows->values = memory_alloc_aligned(64, count * padded, sizeof(rows->values[0]));
    rows->paired = memory_alloc_aligned(64, count * padded, sizeof(rows->paired[0]));
    rows->words = (uint32_t *)(void *)rows->paired;
    rows->codes = memory_alloc_aligned(64, count * padded, sizeof(rows->codes[0]));
    if (rows->is_precise) {
        rows->low_codes = memory_alloc_aligned(64, count * padded, sizeof(rows->low_codes[0]));
    }
    rows->scales = memory_alloc_aligned(64, count * block_count, sizeof(rows->scales[0]));
    rows->sums = memory_alloc_aligned(64, count * block_count, sizeof(rows->sums[0]));
    rows->code_sums = memory_alloc_aligned(64, count * block_count, sizeof(rows->code_sums[0]));
    rows->half_sums = memory_alloc_aligned(64, count * block_count * 2, sizeof(rows->half_sums[0]));
    rows->rows = memory_alloc_aligned(64, padded * rows->thread_count * CPU_TILE_ROWS_MAX,
                                      sizeof(rows->rows[0]));
    if (rows->values == NULL || rows->paired == NULL || rows->codes == NULL ||
        rows->scales == NULL || rows->sums == NULL || rows->code_sums == NULL ||
        rows->half_sums == NULL || rows->rows == NULL ||
        (rows->is_precise && rows->low_codes == NULL)) {
        free_arrays(rows);
        return STATUS_MEMORY;
    }
    rows->cols_max = (uint32_t)padded;
    return STATUS_OK;
}

void cpu_row_forms_add(struct cpu_row_forms *forms, const struct backend_weight *weight)
{
    if (weight->format.code_bits != 0) {
        forms->with_codes = true;
        forms->with_halves = forms->with_halves || weight->format.scale == SCALE_K6;
    } else if (weight->is_paired) {
        forms->with_pairs = true;
    } else {
        forms->with_floats = true;
    }
}

void cpu_rows_begin(struct cpu_rows *rows, uint32_t row_count, uint32_t cols,
                    struct cpu_row_forms forms)
{
    CHECK(row_count > 0 && row_count <= rows->row_count_max);
    CHECK(cols <= rows->cols_max);
    CHECK(!forms.with_codes || cols % CPU_BLOCK == 0);
    rows->row_count = row_count;
    rows->cols = cols;
    rows->block_count = (cols + CPU_BLOCK - 1) / CPU_BLOCK;
    rows->tile_count = (row_count + CPU_TILE_ROWS_MAX - 1) / CPU_TILE_ROWS_MAX;
    rows->tile_rows = (row_count + rows->tile_count - 1) / rows->tile_count;
    rows->with_floats = forms.with_floats;
    rows->with_pairs = forms.with_pairs;
    rows->with_codes = forms.with_codes;
    rows->with_halves = forms.with_halves;
}

void cpu_rows_tile(const struct cpu_rows *rows, uint32_t tile, struct cpu_tile *out)
{
    const uint32_t row = tile * rows->tile_rows;
    const uint32_t left = rows->row_count - row;
    const uint64_t block = (uint64_t)row * rows->block_count;
    const uint64_t pair = (uint64_t)row * ((rows->cols + 1) / 2);

    CHECK(row < rows->row_count);
    out->row_first = row;
    out->height = left < rows->tile_rows ? left : rows->tile_rows;
    out->cols = rows->cols;
    out->block_count = rows->block_count;
    out->values = rows->values + (uint64_t)row * rows->cols;
    out->paired = rows->paired + 2 * pair;
    out->words = rows->words + pair;
    out->codes = rows->codes + block * CPU_BLOCK;
    out->low_codes = rows->is_precise ? rows->low_codes + block * CPU_BLOCK : NULL;
    out->scales = rows->scales + block;
    out->sums = rows->sums + block;
    out->code_sums = rows->code_sums + block;
    out->half_sums = rows->half_sums + block * 2;
}
