/* Blocks of random bytes whose scale fields are then set to ordinary halves. */
#include "support/random_weight.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/steps/math.h"

uint32_t random_bits(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

float random_float(uint64_t *state)
{
    return (float)((int32_t)(random_bits(state) >> 8) - (1 << 23)) * 0x1p-23f;
}

void random_floats(uint64_t *state, float *out, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        out[i] = random_float(state);
    }
}

static void set_half(uint8_t *bytes, float value)
{
    const uint16_t half = steps_half_from_float(value);

    memcpy(bytes, &half, sizeof(half));
}

static void make_block(uint64_t *state, uint32_t dtype, uint8_t *block)
{
    const uint32_t bytes = dtype_block_bytes(dtype);
    const float value = random_float(state) / 64.0f;
    uint16_t bits;

    for (uint32_t i = 0; i < bytes; i++) {
        block[i] = (uint8_t)random_bits(state);
    }
    switch (dtype) {
    case DTYPE_F32:
        memcpy(block, &value, sizeof(value));
        break;
    case DTYPE_BF16:
        bits = steps_bf16_from_float(value);
        memcpy(block, &bits, sizeof(bits));
        break;
    case DTYPE_Q6_K:
        set_half(block + 208, value / 32.0f);
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        set_half(block, value / 16.0f);
        set_half(block + 2, random_float(state) / 64.0f);
        break;
    case DTYPE_Q4_1:
    case DTYPE_Q5_1:
        set_half(block + 2, random_float(state) / 64.0f);
        set_half(block, value);
        break;
    default:
        set_half(block, value);
        break;
    }
}

struct weight_source random_weight(uint64_t *state, uint32_t dtype, uint32_t rows, uint32_t cols)
{
    const uint32_t block_bytes = dtype_block_bytes(dtype);
    const uint64_t block_count = (uint64_t)rows * (cols / dtype_block_elements(dtype));
    uint8_t *bytes = memory_alloc(block_count, block_bytes);

    CHECK(bytes != NULL);
    for (uint64_t i = 0; i < block_count; i++) {
        make_block(state, dtype, bytes + i * block_bytes);
    }
    return (struct weight_source){
        .name = "random",
        .dtype = dtype,
        .rows = rows,
        .cols = cols,
        .data = bytes,
        .size_bytes = block_count * block_bytes,
    };
}
