/* Repacking of weights into fragments of tensor-core steps, on the host, and their upload.
 *
 * Maths and shapes: struct weight_source in backend.h; weight.cuh has the layout.
 * Bound by: the file's pages and the copy to the device; runs once, at load.
 * Launch:   none.
 * Order:    a code keeps its value, as F16 does; what is not kept is rounded once to bf16.
 * Checked:  tests/emulator/test_matmul.cpp, against kernels/dtype.c, every element of every type.
 */
#include "kernels/cuda/weight.cuh"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/steps/fp8.h"

enum {
    STAGE_BYTES = 8 << 20, /* a copy to the device carries about this much */
    FP8_PLACE = 120,       /* an e4m3 code set into a float is its value times 2^-120 */
};

static uint32_t format_of(uint32_t dtype)
{
    switch (dtype) {
    case DTYPE_Q4_0:
        return CUDA_Q4_0;
    case DTYPE_Q4_1:
        return CUDA_Q4_1;
    case DTYPE_Q8_0:
        return CUDA_Q8_0;
    case DTYPE_Q4_K:
        return CUDA_Q4_K;
    case DTYPE_Q5_K:
        return CUDA_Q5_K;
    case DTYPE_Q6_K:
        return CUDA_Q6_K;
    case DTYPE_F16:
        return CUDA_F16;
    default:
        return CUDA_BF16;
    }
}

/* What a backend keeps it as. */
static uint32_t format_for(const struct backend *backend, uint32_t dtype)
{
    const bool is_float = dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;

    return is_float && backend->settings.weights_fp8 ? (uint32_t)CUDA_FP8 : format_of(dtype);
}

void cuda_weight_get_layout(uint32_t format, uint32_t rows, uint32_t cols,
                            struct cuda_weight_layout *out)
{
    uint64_t units, supers;

    out->format = format;
    out->panel_count = (rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS;
    out->unit_count = (cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS;
    out->super_bytes = cuda_super_bytes(format);
    out->super_count = cuda_super_count(format, out->unit_count);
    out->unit_code_bytes = cuda_unit_load_count(format) * CUDA_LOAD_BYTES;
    out->unit_scale_bytes = cuda_unit_scale_bytes(format);
    units = (uint64_t)out->panel_count * out->unit_count;
    supers = (uint64_t)out->panel_count * out->super_count;
    out->scale_offset = units * out->unit_code_bytes;
    out->super_offset = out->scale_offset + units * out->unit_scale_bytes;
    out->bytes = out->super_offset + supers * out->super_bytes;
}

/* Element i of a stored block, as its code. */
static uint32_t code_at(uint32_t dtype, const uint8_t *block, uint32_t i)
{
    uint32_t low, high;

    switch (dtype) {
    case DTYPE_Q4_0:
        return block[2 + i % 16] >> (i / 16 * 4) & 15u;
    case DTYPE_Q4_1:
        return block[4 + i % 16] >> (i / 16 * 4) & 15u;
    case DTYPE_Q8_0:
        return block[2 + i] ^ 128u;
    case DTYPE_Q4_K:
        return block[16 + 32 * (i / 64) + i % 32] >> (i / 32 % 2 * 4) & 15u;
    case DTYPE_Q5_K:
        low = block[48 + 32 * (i / 64) + i % 32] >> (i / 32 % 2 * 4) & 15u;
        high = block[16 + i % 32] >> (i / 32) & 1u;
        return low | high << 4;
    case DTYPE_Q6_K:
        low = block[64 * (i / 128) + i % 64] >> (i % 128 / 64 * 4) & 15u;
        high = block[128 + 32 * (i / 128) + i % 32] >> (i % 128 / 32 * 2) & 3u;
        return low | high << 4;
    default:
        CHECK(!"a type that stays quantised");
    }
    return 0;
}

/* Where column `col` of a row lies: its lane and its element of the fragment of its step. */
struct place {
    uint32_t unit;
    uint32_t step;
    uint32_t lane;
    uint32_t element;
};

static struct place place_of(uint32_t row, uint32_t col)
{
    const uint32_t within = col % CUDA_STEP_COLS;
    struct place place;

    place.unit = col / CUDA_UNIT_COLS;
    place.step = col % CUDA_UNIT_COLS / CUDA_STEP_COLS;
    place.lane = row % 8 * 4 + within % 8 / 2;
    place.element = within % 2 + row / 8 * 2 + within / 8 * 4;
    return place;
}

static void lay_code(const struct cuda_weight_layout *layout, uint8_t *codes, uint32_t row,
                     uint32_t col, uint32_t code)
{
    const struct place at = place_of(row, col);
    uint8_t *unit = codes + (uint64_t)at.unit * layout->unit_code_bytes;

    if (layout->unit_code_bytes == CUDA_LOAD_BYTES) {
        uint8_t *pair = unit + at.lane * 16 + at.step * 4 + at.element / 2;

        *pair = (uint8_t)(*pair | code << (at.element % 2 * 4));
    } else {
        unit[at.step / 2 * CUDA_LOAD_BYTES + at.lane * 16 + at.step % 2 * 8 + at.element] =
            (uint8_t)code;
    }
}

static void lay_plain(uint8_t *codes, uint32_t row, uint32_t col, uint16_t bits)
{
    const struct place at = place_of(row, col);

    memcpy(codes + ((uint64_t)at.unit * CUDA_UNIT_STEPS + at.step) * CUDA_LOAD_BYTES +
               at.lane * 16 + at.element * 2,
           &bits, sizeof(bits));
}

/* The 6-bit scale and minimum of sub-block j of the eight in 12 bytes, into two bytes. */
static void lay_k_scale(const uint8_t *packed, uint32_t j, uint8_t *to)
{
    if (j < 4) {
        to[0] = packed[j] & 63;
        to[1] = packed[j + 4] & 63;
    } else {
        to[0] = (uint8_t)((packed[j + 4] & 15) | packed[j - 4] >> 6 << 4);
        to[1] = (uint8_t)(packed[j + 4] >> 4 | packed[j] >> 6 << 4);
    }
}

/* The scales of block of 32 columns `block` of the row, and of its super-block. */
static void lay_scales(const struct weight_source *source, const struct cuda_weight_layout *layout,
                       const uint8_t *stored, uint32_t row, uint32_t block,
                       const struct cuda_weight_places *to)
{
    uint8_t *scales = to->scales + (uint64_t)(block / 2) * layout->unit_scale_bytes;
    const uint32_t group = row % 8, high = row / 8;
    const uint32_t pair = (group * 2 + block % 2) * 2 + high;
    uint8_t *super = NULL;

    if (layout->super_count != 0) {
        super = to->supers + (uint64_t)(block / 8) * layout->super_bytes;
    }
    switch (source->dtype) {
    case DTYPE_Q4_0:
    case DTYPE_Q8_0:
        memcpy(scales + (size_t)pair * 2, stored, 2);
        break;
    case DTYPE_Q4_1:
        memcpy(scales + (size_t)pair * 4, stored, 4);
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        lay_k_scale(stored + 4, block % 8, scales + (size_t)pair * 2);
        memcpy(super + (size_t)(group * 2 + high) * 4, stored, 4);
        break;
    case DTYPE_Q6_K:
        for (uint32_t i = 0; i < 2; i++) {
            scales[(group * 4 + block % 2 * 2 + i) * 2 + high] = stored[192 + block % 8 * 2 + i];
        }
        memcpy(super + (size_t)(group * 2 + high) * 2, stored + 208, 2);
        break;
    default:
        CHECK(!"a type that stays quantised");
    }
}

/* A row in e4m3: the least power of two brings its largest magnitude below STEPS_FP8_MAX. */
static void lay_fp8(const struct cuda_weight_layout *layout, uint32_t row, const float *values,
                    uint32_t cols, const struct cuda_weight_places *to)
{
    float largest = 0.0f, scale;
    int exponent = 0;

    for (uint32_t c = 0; c < cols; c++) {
        largest = fabsf(values[c]) > largest ? fabsf(values[c]) : largest;
    }
    if (largest > 0.0f && isfinite(largest)) {
        (void)frexpf(largest / STEPS_FP8_MAX, &exponent);
        if (ldexpf(STEPS_FP8_MAX, exponent - 1) >= largest) {
            exponent--;
        }
    }
    for (uint32_t c = 0; c < cols; c++) {
        lay_code(layout, to->codes, row, c, steps_fp8_from_float(ldexpf(values[c], -exponent)));
    }
    scale = ldexpf(1.0f, FP8_PLACE + exponent);
    memcpy(to->supers + (size_t)(row % 8 * 2 + row / 8) * sizeof(scale), &scale, sizeof(scale));
}

static void lay_row(const struct weight_source *source, const struct cuda_weight_layout *layout,
                    const uint8_t *stored, uint32_t row, float *values,
                    const struct cuda_weight_places *to)
{
    const uint32_t elements = dtype_block_elements(source->dtype);

    if (layout->format == CUDA_F16) {
        for (uint32_t c = 0; c < source->cols; c++) {
            uint16_t bits;

            memcpy(&bits, stored + (size_t)c * sizeof(bits), sizeof(bits));
            lay_plain(to->codes, row, c, bits);
        }
        return;
    }
    if (layout->format == CUDA_BF16 || layout->format == CUDA_FP8) {
        dtype_dequantize_row(source->dtype, stored, source->cols, values);
        if (layout->format == CUDA_FP8) {
            lay_fp8(layout, row, values, source->cols, to);
            return;
        }
        for (uint32_t c = 0; c < source->cols; c++) {
            lay_plain(to->codes, row, c, steps_bf16_from_float(values[c]));
        }
        return;
    }
    for (uint32_t c = 0; c < source->cols; c++) {
        const uint8_t *block = stored + (uint64_t)(c / elements) * dtype_block_bytes(source->dtype);

        lay_code(layout, to->codes, row, c, code_at(source->dtype, block, c % elements));
        if (c % 32 == 0) {
            lay_scales(source, layout, block, row, c / 32, to);
        }
    }
}

enum status cuda_weight_repack(const struct weight_source *source,
                               const struct cuda_weight_layout *layout, uint32_t panel_begin,
                               uint32_t panel_count, const struct cuda_weight_places *to)
{
    const uint64_t row_bytes = source->size_bytes / source->rows;
    float *values = (float *)memory_alloc(source->cols, sizeof(*values));

    if (values == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < panel_count * CUDA_PANEL_ROWS; i++) {
        const uint64_t row = (uint64_t)panel_begin * CUDA_PANEL_ROWS + i;
        const uint64_t panel = i / CUDA_PANEL_ROWS;
        const struct cuda_weight_places places = {
            to->codes + panel * layout->unit_count * layout->unit_code_bytes,
            to->scales + panel * layout->unit_count * layout->unit_scale_bytes,
            to->supers + panel * layout->super_count * layout->super_bytes,
        };

        if (row < source->rows) {
            lay_row(source, layout, (const uint8_t *)source->data + row * row_bytes,
                    i % CUDA_PANEL_ROWS, values, &places);
        }
    }
    memory_free(values);
    return STATUS_OK;
}

static enum status check_source(const struct weight_source *source, struct error *error)
{
    const uint32_t elements = dtype_block_elements(source->dtype);
    uint64_t size;

    if (elements == 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "tensor %s has type %u, which the CUDA backend cannot hold; use a file in "
                         "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                         source->name, source->dtype);
    }
    if (source->rows == 0 || source->cols == 0 || source->cols % elements != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "tensor %s has %u rows of %u columns; %s needs a multiple of %u columns",
                         source->name, source->rows, source->cols, dtype_name(source->dtype),
                         elements);
    }
    size = (uint64_t)source->rows * (source->cols / elements) * dtype_block_bytes(source->dtype);
    if (source->size_bytes != size) {
        return error_set(error, STATUS_BAD_INPUT,
                         "tensor %s has %llu bytes where its shape needs %llu; the file is damaged",
                         source->name, (unsigned long long)source->size_bytes,
                         (unsigned long long)size);
    }
    return STATUS_OK;
}

/* A run of panels in host memory on its way to the card. */
struct stage {
    struct backend_weight *weight;
    const struct weight_source *source;
    struct cuda_weight_layout layout;
    uint8_t *host; /* pinned, [panels_max] codes, then scales, then supers */
    uint32_t panels_max;
    uint64_t code_bytes, scale_bytes, super_bytes; /* of a panel */
};

static enum status send_panels(const struct stage *stage, uint32_t begin, uint32_t count)
{
    struct device *device = stage->weight->backend->device;
    const uint64_t scale_at = stage->code_bytes * stage->panels_max;
    const uint64_t super_at = scale_at + stage->scale_bytes * stage->panels_max;
    const struct cuda_weight_places places = {stage->host, stage->host + scale_at,
                                              stage->host + super_at};
    uint8_t *data = stage->weight->data;

    memset(stage->host, 0, super_at + stage->super_bytes * stage->panels_max);
    TRY(cuda_weight_repack(stage->source, &stage->layout, begin, count, &places));
    TRY(device_upload(device, data + begin * stage->code_bytes, places.codes,
                      count * stage->code_bytes));
    TRY(device_upload(device, data + stage->layout.scale_offset + begin * stage->scale_bytes,
                      places.scales, count * stage->scale_bytes));
    TRY(device_upload(device, data + stage->layout.super_offset + begin * stage->super_bytes,
                      places.supers, count * stage->super_bytes));
    return device_wait(device);
}

static enum status send_weight(struct backend_weight *weight, const struct weight_source *source,
                               const struct cuda_weight_layout *layout)
{
    struct device *device = weight->backend->device;
    struct stage stage = {};
    enum status status = STATUS_OK;
    uint64_t panel_bytes;
    void *host;

    stage.weight = weight;
    stage.source = source;
    stage.layout = *layout;
    stage.code_bytes = (uint64_t)layout->unit_count * layout->unit_code_bytes;
    stage.scale_bytes = (uint64_t)layout->unit_count * layout->unit_scale_bytes;
    stage.super_bytes = (uint64_t)layout->super_count * layout->super_bytes;
    panel_bytes = stage.code_bytes + stage.scale_bytes + stage.super_bytes;
    stage.panels_max = (uint32_t)(STAGE_BYTES / panel_bytes);
    stage.panels_max = stage.panels_max == 0 ? 1 : stage.panels_max;
    if (stage.panels_max > layout->panel_count) {
        stage.panels_max = layout->panel_count;
    }
    TRY(device_pinned_alloc(device, stage.panels_max * panel_bytes, &host));
    stage.host = (uint8_t *)host;
    for (uint32_t p = 0; p < layout->panel_count && status == STATUS_OK; p += stage.panels_max) {
        const uint32_t left = layout->panel_count - p;

        status = send_panels(&stage, p, left < stage.panels_max ? left : stage.panels_max);
    }
    device_pinned_free(device, host);
    return status;
}

static void fill_view(struct backend_weight *weight, const struct weight_source *source,
                      const struct cuda_weight_layout *layout)
{
    weight->view.codes = weight->data;
    weight->view.scales = weight->data + layout->scale_offset;
    weight->view.supers = weight->data + layout->super_offset;
    weight->view.format = layout->format;
    weight->view.rows = source->rows;
    weight->view.cols = source->cols;
    weight->view.unit_count = layout->unit_count;
}

static enum status load_weight(struct backend_weight *weight, const struct weight_source *source,
                               struct error *error)
{
    struct cuda_weight_layout layout;
    enum status status;
    void *data;

    cuda_weight_get_layout(format_for(weight->backend, source->dtype), source->rows, source->cols,
                           &layout);
    status = device_alloc(weight->backend->device, layout.bytes, &data);
    if (status == STATUS_OK) {
        weight->data = (uint8_t *)data;
        weight->data_bytes = layout.bytes;
        fill_view(weight, source, &layout);
        status = send_weight(weight, source, &layout);
    }
    if (status == STATUS_MEMORY) {
        return error_set(error, status,
                         "out of memory for tensor %s: it takes %llu bytes on the card; use a "
                         "smaller model or a smaller type",
                         source->name, (unsigned long long)layout.bytes);
    }
    if (status != STATUS_OK) {
        return error_set(error, status, "tensor %s could not be copied to the card: %s",
                         source->name, device_fault_text(weight->backend->device));
    }
    return STATUS_OK;
}

enum status cuda_weight_create(struct backend *backend, const struct weight_source *source,
                               struct error *error, struct backend_weight **out)
{
    struct backend_weight *weight;
    enum status status;

    TRY(check_source(source, error));
    weight = (struct backend_weight *)memory_alloc(1, sizeof(*weight));
    if (weight == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for tensor %s", source->name);
    }
    weight->backend = backend;
    weight->dtype = source->dtype;
    status = load_weight(weight, source, error);
    if (status != STATUS_OK) {
        cuda_weight_destroy(weight);
        return status;
    }
    *out = weight;
    return STATUS_OK;
}

void cuda_weight_destroy(struct backend_weight *weight)
{
    if (weight == NULL) {
        return;
    }
    device_free(weight->backend->device, weight->data);
    memory_free(weight);
}
