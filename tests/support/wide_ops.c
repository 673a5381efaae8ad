#include "support/wide_ops.h"

#include "base/memory.h"
#include "kernels/dtype.h"
#include "kernels/steps/math.h"

static void wide_encode(const struct weight_source *source, uint32_t dtype, float *floats,
                        uint16_t *halves)
{
    const size_t row_bytes = source->size_bytes / source->rows;
    const uint64_t cols = source->cols;

    for (uint32_t row = 0; row < source->rows; row++) {
        dtype_dequantize_row(source->dtype, (const uint8_t *)source->data + row * row_bytes,
                             source->cols, floats + row * cols);
    }
    for (uint64_t i = 0; dtype == DTYPE_F16 && i < source->rows * cols; i++) {
        halves[i] = steps_half_from_float(floats[i]);
    }
}

static enum status wide_load(struct backend *backend, const struct weight_source *source,
                             uint32_t dtype, struct error *error, struct backend_weight **out)
{
    const uint64_t count = (uint64_t)source->rows * source->cols;
    float *floats = memory_alloc_aligned(64, count, sizeof(float));
    uint16_t *halves = memory_alloc_aligned(64, count, sizeof(uint16_t));
    struct weight_source wide = *source;
    enum status status = STATUS_MEMORY;

    if (floats != NULL && halves != NULL) {
        wide_encode(source, dtype, floats, halves);
        wide.dtype = dtype;
        wide.data = dtype == DTYPE_F16 ? (const void *)halves : (const void *)floats;
        wide.size_bytes = count * dtype_block_bytes(dtype);
        status = backend_cpu_ops.weight_load(backend, &wide, error, out);
    }
    memory_free(floats);
    memory_free(halves);
    return status;
}

static enum status wide_load_f16(struct backend *backend, const struct weight_source *source,
                                 struct error *error, struct backend_weight **out)
{
    return wide_load(backend, source, DTYPE_F16, error, out);
}

static enum status wide_load_f32(struct backend *backend, const struct weight_source *source,
                                 struct error *error, struct backend_weight **out)
{
    return wide_load(backend, source, DTYPE_F32, error, out);
}

struct backend_ops wide_ops_f16(void)
{
    struct backend_ops ops = backend_cpu_ops;

    ops.weight_load = wide_load_f16;
    return ops;
}

struct backend_ops wide_ops_f32(void)
{
    struct backend_ops ops = backend_cpu_ops;

    ops.weight_load = wide_load_f32;
    return ops;
}
