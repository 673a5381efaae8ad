/* Storage types: the map's names and sizes, and dequantisation. Layouts as GGUF stores them, little
 * endian. Each value is made of fp32 operations in the order that the formats define; where a
 * product is exact in fp32 the order cannot matter and the shorter form stands.
 */
#include "kernels/dtype.h"

#include <string.h>

#include "base/check.h"
#include "kernels/steps/math.h"

const char *dtype_name(uint32_t dtype)
{
    switch (dtype) {
#define X(name, number, elements, bytes) \
    case (number):                       \
        return #name;
        DTYPE_MAP(X)
#undef X
    default:
        return NULL;
    }
}

uint32_t dtype_block_elements(uint32_t dtype)
{
    switch (dtype) {
#define X(name, number, elements, bytes) \
    case (number):                       \
        return (elements);
        DTYPE_MAP(X)
#undef X
    default:
        return 0;
    }
}

uint32_t dtype_block_bytes(uint32_t dtype)
{
    switch (dtype) {
#define X(name, number, elements, bytes) \
    case (number):                       \
        return (bytes);
        DTYPE_MAP(X)
#undef X
    default:
        return 0;
    }
}

static float half_at(const uint8_t *bytes)
{
    uint16_t bits;

    memcpy(&bits, bytes, sizeof(bits));
    return steps_float_from_half(bits);
}

static void q8_0_block(const uint8_t *block, float *out)
{
    const float scale = half_at(block);

    for (uint32_t i = 0; i < 32; i++) {
        out[i] = scale * (float)(int8_t)block[2 + i];
    }
}

/* No minimum is not a minimum of 0: adding 0 would turn -0 into 0. */
static float q_value(float scale, uint32_t code, int32_t offset, const float *minimum)
{
    const float value = scale * (float)((int32_t)code - offset);

    return minimum == NULL ? value : value + *minimum;
}

/* Q4_0 and Q4_1: byte i holds element i low, element 16 + i high. */
static void q4_block(const uint8_t *codes, float scale, int32_t offset, const float *minimum,
                     float *out)
{
    for (uint32_t i = 0; i < 16; i++) {
        out[i] = q_value(scale, codes[i] & 15u, offset, minimum);
        out[16 + i] = q_value(scale, codes[i] >> 4, offset, minimum);
    }
}

/* Q5_0 and Q5_1: as the 4-bit types, with the fifth bits in one 32-bit word. */
static void q5_block(const uint8_t *high, float scale, int32_t offset, const float *minimum,
                     float *out)
{
    const uint8_t *codes = high + 4;
    uint32_t bits;

    memcpy(&bits, high, sizeof(bits));
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t low = (codes[i] & 15u) | (bits >> i & 1u) << 4;
        const uint32_t top = (uint32_t)(codes[i] >> 4) | (bits >> (16 + i) & 1u) << 4;

        out[i] = q_value(scale, low, offset, minimum);
        out[16 + i] = q_value(scale, top, offset, minimum);
    }
}

/* The 6-bit scale and minimum of sub-block j of the eight in 12 bytes. */
static void k_scale(const uint8_t *packed, uint32_t j, uint32_t *scale, uint32_t *minimum)
{
    if (j < 4) {
        *scale = packed[j] & 63u;
        *minimum = packed[j + 4] & 63u;
    } else {
        *scale = (packed[j + 4] & 15u) | (uint32_t)(packed[j - 4] >> 6) << 4;
        *minimum = (uint32_t)(packed[j + 4] >> 4) | (uint32_t)(packed[j] >> 6) << 4;
    }
}

/* Q4_K, and Q5_K when `high` is not NULL. Codes: 4 runs of 32 bytes, each two sub-blocks. */
static void k_block(const uint8_t *block, const uint8_t *high, const uint8_t *codes, float *out)
{
    const float d = half_at(block);
    const float dmin = half_at(block + 2);

    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *run = codes + (size_t)32 * (j / 2);
        uint32_t scale, minimum;

        k_scale(block + 4, j, &scale, &minimum);
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t code = j % 2 == 0 ? run[i] & 15u : (uint32_t)(run[i] >> 4);

            if (high != NULL) {
                code |= (high[i] >> j & 1u) << 4;
            }
            out[32 * j + i] = d * (float)scale * (float)code - dmin * (float)minimum;
        }
    }
}

static void q6_k_block(const uint8_t *block, float *out)
{
    const uint8_t *low = block;
    const uint8_t *high = block + 128;
    const int8_t *scales = (const int8_t *)block + 192;
    const float d = half_at(block + 208);

    for (uint32_t i = 0; i < 256; i++) {
        /* In each half of 128: four runs of 32 share the high bytes, two by two the low ones. */
        const uint32_t half = i / 128, run = i % 128 / 32, at = i % 32;
        const uint32_t nibble = low[64 * half + 32 * (run % 2) + at] >> (4 * (run / 2)) & 15u;
        const uint32_t top = high[32 * half + at] >> (2 * run) & 3u;
        const int32_t code = (int32_t)(nibble | top << 4) - 32;
        const uint32_t sub_block = i / 16;

        out[i] = d * (float)scales[sub_block] * (float)code;
    }
}

static void block_dequantize(uint32_t dtype, const uint8_t *block, float *out)
{
    const float minimum = half_at(block + 2); /* of the types that have one */

    switch (dtype) {
    case DTYPE_Q4_0:
        q4_block(block + 2, half_at(block), 8, NULL, out);
        break;
    case DTYPE_Q4_1:
        q4_block(block + 4, half_at(block), 0, &minimum, out);
        break;
    case DTYPE_Q5_0:
        q5_block(block + 2, half_at(block), 16, NULL, out);
        break;
    case DTYPE_Q5_1:
        q5_block(block + 4, half_at(block), 0, &minimum, out);
        break;
    case DTYPE_Q8_0:
        q8_0_block(block, out);
        break;
    case DTYPE_Q4_K:
        k_block(block, NULL, block + 16, out);
        break;
    case DTYPE_Q5_K:
        k_block(block, block + 16, block + 48, out);
        break;
    case DTYPE_Q6_K:
        q6_k_block(block, out);
        break;
    default:
        CHECK(!"a block type of the map");
    }
}

void dtype_dequantize_row(uint32_t dtype, const void *row, uint32_t cols, float *out)
{
    const uint32_t elements = dtype_block_elements(dtype);
    const uint8_t *bytes = row;

    CHECK(elements != 0 && cols % elements == 0);
    if (dtype == DTYPE_F32) {
        memcpy(out, row, (size_t)cols * sizeof(out[0]));
        return;
    }
    for (uint32_t i = 0; i < cols / elements; i++, bytes += dtype_block_bytes(dtype)) {
        if (dtype == DTYPE_F16) {
            out[i] = half_at(bytes);
        } else if (dtype == DTYPE_BF16) {
            uint16_t bits;

            memcpy(&bits, bytes, sizeof(bits));
            out[i] = steps_float_from_bf16(bits);
        } else {
            block_dequantize(dtype, bytes, out + (size_t)i * elements);
        }
    }
}
