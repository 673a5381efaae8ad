/* Random weights of every type and their plain values. */
#include "tests/emulator/product_rig.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/fragment.cuh"
#include "kernels/steps/fp8.h"
#include "tests/emulator/card.h"

extern "C" {
#include "support/random_weight.h"
}

float product_bf16(float value)
{
    return steps_float_from_bf16(steps_bf16_from_float(value));
}

/* A row's largest magnitude comes to within (224, 448] by a power of two. */
static void round_to_fp8(float *row, uint32_t cols)
{
    double largest = 0.0, scale = 1.0;

    for (uint32_t c = 0; c < cols; c++) {
        largest = fmax(largest, fabs((double)row[c]));
    }
    for (; largest > 0.0 && largest * scale > 448.0; scale /= 2.0) {
    }
    for (; largest > 0.0 && largest * scale <= 224.0; scale *= 2.0) {
    }
    for (uint32_t c = 0; c < cols; c++) {
        row[c] =
            (float)(steps_float_from_fp8(steps_fp8_from_float((float)(row[c] * scale))) / scale);
    }
}

void product_rig_init(struct product_rig *rig, uint64_t seed, uint32_t dtype, uint32_t rows,
                      uint32_t cols, uint32_t x_count, bool fp8)
{
    uint64_t state = seed;
    struct weight_source source = random_weight(&state, dtype, rows, cols);
    const uint64_t row_bytes = source.size_bytes / rows;

    rig->backend = {};
    rig->backend.settings.weights_fp8 = fp8;
    rig->dtype = dtype;
    rig->half = dtype == DTYPE_F16 && !fp8;
    rig->rows = rows;
    rig->cols = cols;
    rig->exact.resize((size_t)rows * cols);
    rig->values.resize((size_t)rows * cols);
    rig->x.resize((size_t)x_count * cols);
    CHECK(device_open(0, NULL, &rig->backend.device) == STATUS_OK);
    CHECK(cuda_weight_create(&rig->backend, &source, NULL, &rig->weight) == STATUS_OK);
    for (uint32_t r = 0; r < rows; r++) {
        dtype_dequantize_row(dtype, (const uint8_t *)source.data + r * row_bytes, cols,
                             rig->exact.data() + (size_t)r * cols);
    }
    for (uint32_t r = 0; fp8 && r < rows; r++) {
        round_to_fp8(rig->exact.data() + (size_t)r * cols, cols);
    }
    for (size_t i = 0; i < rig->exact.size(); i++) {
        rig->values[i] = rig->half ? rig->exact[i] : product_bf16(rig->exact[i]);
    }
    random_floats(&state, rig->x.data(), rig->x.size());
    memory_free(const_cast<void *>(source.data));
}

void product_rig_finish(struct product_rig *rig)
{
    cuda_weight_destroy(rig->weight);
    device_close(rig->backend.device);
}

enum status product_rig_run(const struct product_rig *rig, product_multiply function,
                            uint32_t first, uint32_t count, std::vector<float> &out)
{
    const size_t margin = 8, words = (cuda_activation_bytes(count, rig->cols) + 15) / 16;
    std::vector<struct cuda_words> activations(words);
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};
    struct card card;

    card_borrow(&card, rig->backend.device);
    memset(activations.data(), 0xff, words * sizeof(activations[0]));
    out.assign((size_t)count * rig->rows + margin, NAN);
    args.part_count = 1;
    args.parts[0].weight = rig->weight->view;
    args.parts[0].out = card_give(&card, out.data(), out.size());
    uint8_t *rounded = (uint8_t *)card_give(&card, activations.data(), words);
    args.parts[0].stride = rig->rows;
    if (cuda_matmul_is_half(&args)) {
        source.row_scales = (float *)(rounded + cuda_row_scales_at(count, rig->cols));
        args.row_scales = source.row_scales;
    }
    source.x =
        card_give(&card, rig->x.data() + (size_t)first * rig->cols, (size_t)count * rig->cols);
    source.cols = rig->cols;
    source.row_count = count;
    enum status status = cuda_activations_fill(rig->backend.device, &source, (uint16_t *)rounded);
    args.row_count = count;
    args.activations = (const uint16_t *)rounded;
    args.meeting = (uint8_t *)rig->backend.meeting.data;
    if (status == STATUS_OK) {
        status = function(rig->backend.device, &args);
    }
    card_take(&card);
    card_finish(&card);
    for (size_t i = 0; i < margin && status == STATUS_OK; i++) {
        CHECK(isnan(out[(size_t)count * rig->rows + i]));
    }
    return status;
}

void product_settings_use(uint32_t which)
{
    static const enum emulator_schedule schedules[] = {EMULATOR_ASCENDING, EMULATOR_DESCENDING,
                                                       EMULATOR_SHUFFLED};
    struct emulator_settings settings = {};

    settings.schedule = schedules[which % 3];
    settings.seed = 17 + which;
    settings.copies_land_early = which % 2 == 1;
    settings.architecture = which / 3 == 0 ? 90 : 80;
    emulator_configure(&settings);
}

std::vector<float> product_rounded(const struct product_rig *rig, const float *x)
{
    std::vector<float> row(x, x + rig->cols);
    float largest = 0.0f;
    int exponent = 0;

    for (float value : row) {
        largest = fmaxf(largest, fabsf(value));
    }
    if (largest > 0.0f) {
        (void)frexpf(largest, &exponent); /* largest < 2^exponent */
    }
    for (float &value : row) {
        value =
            rig->half
                ? ldexpf(steps_float_from_half(steps_half_from_float(ldexpf(value, 15 - exponent))),
                         exponent - 15)
                : product_bf16(value);
    }
    return row;
}

struct product_exact product_rig_exact(const struct product_rig *rig, const float *x,
                                       uint32_t output)
{
    const float *w = rig->values.data() + (size_t)output * rig->cols;
    const std::vector<float> row = product_rounded(rig, x);
    struct product_exact exact = {0.0, 0.0};

    for (uint32_t c = 0; c < rig->cols; c++) {
        const double term = (double)w[c] * row[c];

        exact.value += term;
        exact.magnitude += fabs(term);
    }
    return exact;
}

double product_bound(uint32_t cols, double magnitude)
{
    const double steps = (cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS * CUDA_UNIT_STEPS;

    return (steps * 18 + 3) * ldexp(1.0, -23) * magnitude;
}
