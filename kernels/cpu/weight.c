/* Repacking, in two steps a block: the stored block becomes plain codes (one byte a column) and its
 * scale bytes; these are laid into the panel. Reading a row back runs the same way in reverse.
 */
#include "kernels/cpu/weight.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/rows.h"
#include "kernels/steps/math.h"

enum {
    NIBBLE_BLOCK_BYTES = CPU_BLOCK / 2 * CPU_PANEL_ROWS,
    BYTE_BLOCK_BYTES = CPU_BLOCK * CPU_PANEL_ROWS,
    HALF_LANES_BYTES = 2 * CPU_PANEL_ROWS,
    SUB_BLOCK_COUNT = CPU_SUPER_BLOCK / CPU_BLOCK,
    PANELS_A_TASK = 4, /* some ten thousand codes: more than a task costs to hand out */
};

static struct cpu_format format_of(uint32_t dtype)
{
    switch (dtype) {
    case DTYPE_Q4_0:
        return (struct cpu_format){4, 3, SCALE_HALF};
    case DTYPE_Q4_1:
        return (struct cpu_format){4, 0, SCALE_HALF_MIN};
    case DTYPE_Q5_0:
        return (struct cpu_format){8, 4, SCALE_HALF};
    case DTYPE_Q5_1:
        return (struct cpu_format){8, 0, SCALE_HALF_MIN};
    case DTYPE_Q8_0:
        return (struct cpu_format){8, 7, SCALE_HALF};
    case DTYPE_Q4_K:
        return (struct cpu_format){4, 0, SCALE_K};
    case DTYPE_Q5_K:
        return (struct cpu_format){8, 0, SCALE_K};
    case DTYPE_Q6_K:
        return (struct cpu_format){8, 5, SCALE_K6};
    default:
        return (struct cpu_format){0, 0, SCALE_NONE};
    }
}

/* Bytes of a panel's scales a stored block (32 columns, or 256 of the K types). */
static uint32_t scale_bytes(enum cpu_scale scale)
{
    switch (scale) {
    case SCALE_HALF:
        return HALF_LANES_BYTES;
    case SCALE_HALF_MIN:
        return 2 * HALF_LANES_BYTES;
    case SCALE_K:
        return 2 * HALF_LANES_BYTES + 2 * SUB_BLOCK_COUNT * CPU_PANEL_ROWS;
    case SCALE_K6:
        return HALF_LANES_BYTES + 2 * SUB_BLOCK_COUNT * CPU_PANEL_ROWS;
    case SCALE_NONE:
        break;
    }
    return 0;
}

/* ---- stored block -> codes, a byte a column ---- */

static void codes_of_q4(const uint8_t *nibbles, uint8_t *codes)
{
    for (uint32_t i = 0; i < 16; i++) {
        codes[i] = nibbles[i] & 15;
        codes[16 + i] = nibbles[i] >> 4;
    }
}

static void codes_of_q5(const uint8_t *high, uint8_t *codes)
{
    uint32_t bits;

    memcpy(&bits, high, sizeof(bits));
    codes_of_q4(high + 4, codes);
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        codes[i] |= (uint8_t)((bits >> i & 1u) << 4);
    }
}

static void codes_of_q8_0(const uint8_t *bytes, uint8_t *codes)
{
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        codes[i] = bytes[i] ^ 0x80; /* plus 128 */
    }
}

static void codes_of_k(const uint8_t *nibbles, const uint8_t *high, uint8_t *codes)
{
    for (uint32_t j = 0; j < SUB_BLOCK_COUNT; j++) {
        for (uint32_t i = 0; i < CPU_BLOCK; i++) {
            uint32_t code = nibbles[32 * (j / 2) + i] >> (j % 2 * 4) & 15u;

            if (high != NULL) {
                code |= (high[i] >> j & 1u) << 4;
            }
            codes[CPU_BLOCK * j + i] = (uint8_t)code;
        }
    }
}

static void codes_of_q6_k(const uint8_t *block, uint8_t *codes)
{
    for (uint32_t i = 0; i < CPU_SUPER_BLOCK; i++) {
        const uint32_t half = i / 128, run = i % 128 / 32, at = i % 32;
        const uint32_t low = block[64 * half + 32 * (run % 2) + at] >> (run / 2 * 4) & 15u;

        codes[i] = (uint8_t)(low | (block[128 + 32 * half + at] >> (2 * run) & 3u) << 4);
    }
}

static void codes_of_block(uint32_t dtype, const uint8_t *block, uint8_t *codes)
{
    switch (dtype) {
    case DTYPE_Q4_0:
        codes_of_q4(block + 2, codes);
        break;
    case DTYPE_Q4_1:
        codes_of_q4(block + 4, codes);
        break;
    case DTYPE_Q5_0:
        codes_of_q5(block + 2, codes);
        break;
    case DTYPE_Q5_1:
        codes_of_q5(block + 4, codes);
        break;
    case DTYPE_Q8_0:
        codes_of_q8_0(block + 2, codes);
        break;
    case DTYPE_Q4_K:
        codes_of_k(block + 16, NULL, codes);
        break;
    case DTYPE_Q5_K:
        codes_of_k(block + 48, block + 16, codes);
        break;
    case DTYPE_Q6_K:
        codes_of_q6_k(block, codes);
        break;
    default:
        CHECK(!"a quantised type");
    }
}

/* ---- into the panel ---- */

/* `to` is the block's codes of the whole panel. */
static void lay_codes(const struct cpu_format *format, const uint8_t *codes, uint32_t lane,
                      uint8_t *to)
{
    const uint32_t group_count = format->code_bits; /* of four columns, or of eight half as wide */

    for (uint32_t g = 0; g < group_count; g++) {
        uint8_t four[4];

        memcpy(four, codes + (size_t)4 * g, sizeof(four));
        for (uint32_t j = 0; format->code_bits == 4 && j < 4; j++) {
            four[j] |= (uint8_t)(codes[16 + 4 * g + j] << 4);
        }
        memcpy(to + (size_t)64 * g + (size_t)4 * lane, four, sizeof(four));
    }
}

static void lay_half(const uint8_t *from, uint32_t lane, uint8_t *to)
{
    memcpy(to + (size_t)2 * lane, from, 2);
}

static void lay_k_scales(const uint8_t *block, uint32_t lane, uint8_t *to)
{
    uint8_t *scales = to + (size_t)2 * HALF_LANES_BYTES;
    uint8_t *minimums = scales + (size_t)SUB_BLOCK_COUNT * CPU_PANEL_ROWS;
    const uint8_t *packed = block + 4;
    const uint8_t minus_dmin[2] = {block[2], block[3] ^ 0x80};

    lay_half(block, lane, to);
    lay_half(minus_dmin, lane, to + HALF_LANES_BYTES);
    for (uint32_t j = 0; j < 4; j++) {
        scales[CPU_PANEL_ROWS * j + lane] = packed[j] & 63;
        minimums[CPU_PANEL_ROWS * j + lane] = packed[4 + j] & 63;
        scales[CPU_PANEL_ROWS * (4 + j) + lane] =
            (uint8_t)((packed[8 + j] & 15) | packed[j] >> 6 << 4);
        minimums[CPU_PANEL_ROWS * (4 + j) + lane] =
            (uint8_t)(packed[8 + j] >> 4 | packed[4 + j] >> 6 << 4);
    }
}

static void lay_scales(const struct backend_weight *weight, const uint8_t *block, uint32_t lane,
                       uint8_t *to)
{
    switch (weight->format.scale) {
    case SCALE_HALF:
        lay_half(block, lane, to);
        break;
    case SCALE_HALF_MIN:
        lay_half(block, lane, to);
        lay_half(block + 2, lane, to + HALF_LANES_BYTES);
        break;
    case SCALE_K:
        lay_k_scales(block, lane, to);
        break;
    case SCALE_K6:
        lay_half(block + 208, lane, to);
        for (uint32_t j = 0; j < 2 * SUB_BLOCK_COUNT; j++) {
            to[HALF_LANES_BYTES + CPU_PANEL_ROWS * j + lane] = block[192 + j];
        }
        break;
    case SCALE_NONE:
        CHECK(!"a quantised type");
    }
}

static void lay_quantised_row(const struct backend_weight *weight, const uint8_t *row,
                              uint32_t lane, uint8_t *panel)
{
    const uint32_t elements = dtype_block_elements(weight->dtype);
    const uint32_t block_bytes = dtype_block_bytes(weight->dtype);
    const uint32_t panel_block_bytes =
        weight->format.code_bits == 4 ? NIBBLE_BLOCK_BYTES : BYTE_BLOCK_BYTES;
    uint8_t *scales = panel + weight->scale_offset;
    uint8_t codes[CPU_SUPER_BLOCK];

    for (uint32_t i = 0; i < weight->cols / elements; i++, row += block_bytes) {
        codes_of_block(weight->dtype, row, codes);
        for (uint32_t j = 0; j < elements; j += CPU_BLOCK, panel += panel_block_bytes) {
            lay_codes(&weight->format, codes + j, lane, panel);
        }
        lay_scales(weight, row, lane, scales);
        scales += scale_bytes(weight->format.scale);
    }
}

static void lay_pair_row(const struct backend_weight *weight, const uint8_t *row, uint32_t lane,
                         uint8_t *panel)
{
    for (uint64_t k = 0; k < weight->cols; k++) {
        memcpy(panel + ((k / 2 * CPU_PANEL_ROWS + lane) * 2 + k % 2) * 2, row + k * 2, 2);
    }
}

static void lay_float_row(const struct backend_weight *weight, const uint8_t *row, uint32_t lane,
                          uint8_t *panel)
{
    /* Sizes as constants: each copy is then one store. */
    if (dtype_block_bytes(weight->dtype) == 2) {
        for (uint64_t k = 0; k < weight->cols; k++) {
            memcpy(panel + (k * CPU_PANEL_ROWS + lane) * 2, row + k * 2, 2);
        }
    } else {
        for (uint64_t k = 0; k < weight->cols; k++) {
            memcpy(panel + (k * CPU_PANEL_ROWS + lane) * 4, row + k * 4, 4);
        }
    }
}

static enum status check_source(const struct weight_source *source, struct error *error)
{
    const uint32_t elements = dtype_block_elements(source->dtype);
    uint64_t size;

    if (elements == 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "tensor %s has type %u, which the CPU backend cannot hold; use a file in "
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

static void set_layout(struct backend_weight *weight)
{
    const uint32_t elements = dtype_block_elements(weight->dtype);
    uint64_t bytes;

    weight->format = format_of(weight->dtype);
    weight->panel_count = (weight->rows + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS;
    if (weight->format.code_bits == 0) {
        const uint64_t cols = weight->cols + (weight->is_paired ? weight->cols % 2 : 0);

        weight->scale_offset = cols * CPU_PANEL_ROWS * dtype_block_bytes(weight->dtype);
        bytes = weight->scale_offset;
    } else {
        weight->scale_offset =
            (uint64_t)weight->cols * CPU_PANEL_ROWS / 8 * weight->format.code_bits;
        bytes = weight->scale_offset +
                (uint64_t)(weight->cols / elements) * scale_bytes(weight->format.scale);
    }
    weight->panel_bytes = (bytes + 63) / 64 * 64;
}

struct laying {
    struct backend_weight *weight;
    const struct weight_source *source;
};

static void lay_panel(const struct laying *laying, uint32_t index)
{
    const struct backend_weight *weight = laying->weight;
    const uint64_t row_bytes = laying->source->size_bytes / weight->rows;
    const uint8_t *rows = laying->source->data;
    uint8_t *panel = weight->panels + index * weight->panel_bytes;
    const uint32_t first = index * CPU_PANEL_ROWS;

    for (uint32_t lane = 0; lane < CPU_PANEL_ROWS && first + lane < weight->rows; lane++) {
        const uint8_t *row = rows + (first + lane) * row_bytes;

        if (weight->is_paired) {
            lay_pair_row(weight, row, lane, panel);
        } else if (weight->format.code_bits == 0) {
            lay_float_row(weight, row, lane, panel);
        } else {
            lay_quantised_row(weight, row, lane, panel);
        }
    }
}

static void lay_task(void *context, uint32_t task, uint32_t worker)
{
    const struct laying *laying = context;
    const uint32_t first = task * PANELS_A_TASK;

    (void)worker;
    for (uint32_t i = 0; i < PANELS_A_TASK && first + i < laying->weight->panel_count; i++) {
        lay_panel(laying, first + i);
    }
}

/* Nothing in it can fail: the memory is there, and the source was checked. */
static void lay_all(struct laying *laying, struct pool *pool)
{
    const uint32_t count = (laying->weight->panel_count + PANELS_A_TASK - 1) / PANELS_A_TASK;

    if (pool == NULL) {
        for (uint32_t task = 0; task < count; task++) {
            lay_task(laying, task, 0);
        }
        return;
    }
    pool_run(pool, lay_task, laying, count);
}

static enum status take_panels(struct backend_weight *weight, struct panel_store *store)
{
    const uint64_t bytes = weight->panel_count * weight->panel_bytes;

    if (store != NULL && bytes <= PANEL_STORE_BYTES_MAX) {
        weight->panels = panel_store_take(store, bytes);
        weight->is_stored = true;
    } else {
        weight->panels = memory_alloc_huge(weight->panel_count, weight->panel_bytes);
    }
    return weight->panels == NULL ? STATUS_MEMORY : STATUS_OK;
}

/* Whether each value is 0 or at least 2^-56 (CPU_BF16_MIN_BITS), so that no sum of products is a
 * denormal. */
static bool can_be_paired(const struct weight_source *source)
{
    const uint16_t *values = source->data;
    bool can = true;

    for (uint64_t i = 0; i < source->size_bytes / sizeof(values[0]); i++) {
        const uint32_t magnitude = values[i] & 0x7fffu;

        can &= magnitude == 0 || magnitude >= CPU_BF16_MIN_BITS;
    }
    return can;
}

enum status cpu_weight_create(const struct weight_source *source, bool with_pairs,
                              struct panel_store *store, struct pool *pool, struct error *error,
                              struct backend_weight **out)
{
    struct backend_weight *weight;

    TRY(check_source(source, error));
    weight = memory_alloc(1, sizeof(*weight));
    if (weight == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for tensor %s", source->name);
    }
    weight->dtype = source->dtype;
    weight->rows = source->rows;
    weight->cols = source->cols;
    weight->is_paired = with_pairs && source->dtype == DTYPE_BF16 && can_be_paired(source);
    set_layout(weight);
    if (take_panels(weight, store) != STATUS_OK) {
        cpu_weight_destroy(weight);
        return error_set(error, STATUS_MEMORY, "out of memory for tensor %s", source->name);
    }
    lay_all(&(struct laying){weight, source}, pool);
    *out = weight;
    return STATUS_OK;
}

void cpu_weight_destroy(struct backend_weight *weight)
{
    if (weight == NULL) {
        return;
    }
    if (!weight->is_stored) {
        memory_free(weight->panels);
    }
    memory_free(weight);
}

/* ---- out of the panel ---- */

uint32_t cpu_weight_code(const struct backend_weight *weight, const uint8_t *panel, uint32_t lane,
                         uint32_t k)
{
    const uint32_t block = k / CPU_BLOCK, at = k % CPU_BLOCK;
    const uint8_t *codes;

    if (weight->format.code_bits == 8) {
        codes = panel + (uint64_t)block * BYTE_BLOCK_BYTES;
        return codes[64 * (at / 4) + 4 * lane + at % 4];
    }
    codes = panel + (uint64_t)block * NIBBLE_BLOCK_BYTES;
    return codes[64 * (at % 16 / 4) + 4 * lane + at % 4] >> (at / 16 * 4) & 15u;
}

static float half_lane(const uint8_t *lanes, uint32_t lane)
{
    uint16_t bits;

    memcpy(&bits, lanes + (size_t)2 * lane, sizeof(bits));
    return steps_float_from_half(bits);
}

struct cpu_block_scale cpu_weight_scale(const struct backend_weight *weight, const uint8_t *panel,
                                        uint32_t lane, uint32_t half_block)
{
    const uint32_t block = half_block / 2;
    const uint32_t sub = block % SUB_BLOCK_COUNT;
    const uint8_t *scales = panel + weight->scale_offset;
    struct cpu_block_scale scale = {0.0f, 0.0f};

    switch (weight->format.scale) {
    case SCALE_HALF:
        scale.scale = half_lane(scales + (uint64_t)block * HALF_LANES_BYTES, lane);
        break;
    case SCALE_HALF_MIN:
        scales += (uint64_t)block * 2 * HALF_LANES_BYTES;
        scale.scale = half_lane(scales, lane);
        scale.minimum = half_lane(scales + HALF_LANES_BYTES, lane);
        break;
    case SCALE_K:
        scales += (uint64_t)(block / SUB_BLOCK_COUNT) * scale_bytes(SCALE_K);
        scale.scale = half_lane(scales, lane);
        scale.minimum = half_lane(scales + HALF_LANES_BYTES, lane);
        scales += 2 * HALF_LANES_BYTES + CPU_PANEL_ROWS * sub + lane;
        scale.scale *= (float)scales[0];
        scale.minimum *= (float)scales[(size_t)SUB_BLOCK_COUNT * CPU_PANEL_ROWS];
        break;
    case SCALE_K6:
        scales += (uint64_t)(block / SUB_BLOCK_COUNT) * scale_bytes(SCALE_K6);
        scale.scale = half_lane(scales, lane);
        scales += HALF_LANES_BYTES + CPU_PANEL_ROWS * (half_block % (2 * SUB_BLOCK_COUNT)) + lane;
        scale.scale *= (float)(int8_t)scales[0];
        break;
    case SCALE_NONE:
        CHECK(!"a quantised type");
    }
    return scale;
}

float cpu_weight_float(const struct backend_weight *weight, const uint8_t *panel, uint32_t lane,
                       uint32_t k)
{
    const uint64_t pair = (uint64_t)(k / 2) * CPU_PANEL_ROWS + lane;
    const uint64_t at = weight->is_paired ? 2 * pair + k % 2 : (uint64_t)k * CPU_PANEL_ROWS + lane;
    uint16_t bits;
    float value;

    if (weight->dtype == DTYPE_F32) {
        memcpy(&value, panel + 4 * at, sizeof(value));
        return value;
    }
    memcpy(&bits, panel + 2 * at, sizeof(bits));
    return weight->dtype == DTYPE_F16 ? steps_float_from_half(bits) : steps_float_from_bf16(bits);
}

static bool has_minimum(enum cpu_scale scale)
{
    return scale == SCALE_HALF_MIN || scale == SCALE_K;
}

void cpu_weight_row(const struct backend_weight *weight, uint32_t row, float *out)
{
    const uint8_t *panel = cpu_weight_panel(weight, row / CPU_PANEL_ROWS);
    const uint32_t lane = row % CPU_PANEL_ROWS;
    struct cpu_block_scale scale = {0.0f, 0.0f};

    for (uint32_t k = 0; k < weight->cols; k++) {
        if (weight->format.code_bits == 0) {
            out[k] = cpu_weight_float(weight, panel, lane, k);
            continue;
        }
        if (k % (CPU_BLOCK / 2) == 0) {
            scale = cpu_weight_scale(weight, panel, lane, k / (CPU_BLOCK / 2));
        }
        if (has_minimum(weight->format.scale)) {
            out[k] = scale.scale * (float)cpu_weight_code(weight, panel, lane, k) + scale.minimum;
        } else {
            const int32_t offset = 1 << weight->format.offset_shift;

            out[k] =
                scale.scale * (float)((int32_t)cpu_weight_code(weight, panel, lane, k) - offset);
        }
    }
}
