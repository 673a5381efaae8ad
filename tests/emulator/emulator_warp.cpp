/* What the lanes of a warp do together. */
#include "tests/emulator/emulator_fiber.h"

#include <math.h>
#include <string.h>

void emulator_shuffle(void *value, size_t size_bytes, uint32_t source_lane)
{
    unsigned char before[EMULATOR_WARP_THREADS][8];

    if (source_lane >= EMULATOR_WARP_THREADS || size_bytes > sizeof before[0]) {
        emulator_fault_here("shuffles from a lane that is none, or more than 8 bytes");
    }
    if (!emulator_lane_arrive(EMULATOR_WAIT_SHUFFLE, {value, {}, size_bytes, source_lane})) {
        return;
    }
    for (uint32_t i = 0; i < EMULATOR_WARP_THREADS; i++) {
        memcpy(before[i], emulator_lane_offer(i)->value, size_bytes);
    }
    for (uint32_t i = 0; i < EMULATOR_WARP_THREADS; i++) {
        memcpy(emulator_lane_offer(i)->value, before[emulator_lane_offer(i)->lane], size_bytes);
    }
    emulator_lanes_release();
}

uint32_t emulator_ballot(bool vote)
{
    uint32_t votes = vote ? 1 : 0;

    if (!emulator_lane_arrive(EMULATOR_WAIT_BALLOT, {&votes, {}, 0, 0})) {
        return votes;
    }
    uint32_t all = 0;
    for (uint32_t i = 0; i < EMULATOR_WARP_THREADS; i++) {
        all |= *static_cast<const uint32_t *>(emulator_lane_offer(i)->value) << i;
    }
    for (uint32_t i = 0; i < EMULATOR_WARP_THREADS; i++) {
        *static_cast<uint32_t *>(emulator_lane_offer(i)->value) = all;
    }
    emulator_lanes_release();
    return votes;
}

void emulator_ldmatrix_x4(uint32_t r[4], const void *row, bool transposed)
{
    emulator_shared_check(row);
    if (!emulator_lane_arrive(transposed ? EMULATOR_WAIT_LDMATRIX_TRANS : EMULATOR_WAIT_LDMATRIX,
                              {r, {row, NULL}, 0, 0})) {
        return;
    }
    for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
        uint32_t *to = static_cast<uint32_t *>(emulator_lane_offer(lane)->value);
        const uint32_t g = lane / 4;
        for (uint32_t i = 0; i < 4; i++) {
            uint16_t pair[2];
            for (uint32_t j = 0; j < 2; j++) {
                const uint32_t k = lane % 4 * 2 + j;
                const uint32_t from = 8 * i + (transposed ? k : g);
                const uint16_t *numbers =
                    static_cast<const uint16_t *>(emulator_lane_offer(from)->operands[0]);
                pair[j] = numbers[transposed ? g : k];
            }
            to[i] = pair[0] | (uint32_t)pair[1] << 16;
        }
    }
    emulator_lanes_release();
}

/* ---- tensor cores ---- */

void emulator_mma(float c[4], const uint32_t a[4], const uint32_t b[2], enum emulator_number number)
{
    uint16_t rows[16][16];
    uint16_t columns[8][16];

    if (!emulator_lane_arrive(number == EMULATOR_BF16 ? EMULATOR_WAIT_MMA_BF16
                                                      : EMULATOR_WAIT_MMA_F16,
                              {c, {a, b}, 0, 0})) {
        return;
    }
    for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
        const uint32_t *row = static_cast<const uint32_t *>(emulator_lane_offer(lane)->operands[0]);
        const uint32_t *column =
            static_cast<const uint32_t *>(emulator_lane_offer(lane)->operands[1]);
        const uint32_t g = lane / 4;
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t k = lane % 4 * 2 + i / 2 * 8;
            rows[g + i % 2 * 8][k] = (uint16_t)row[i];
            rows[g + i % 2 * 8][k + 1] = (uint16_t)(row[i] >> 16);
        }
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t k = lane % 4 * 2 + i * 8;
            columns[g][k] = (uint16_t)column[i];
            columns[g][k + 1] = (uint16_t)(column[i] >> 16);
        }
    }
    for (uint32_t lane = 0; lane < EMULATOR_WARP_THREADS; lane++) {
        float *sums = static_cast<float *>(emulator_lane_offer(lane)->value);
        for (uint32_t i = 0; i < 4; i++) {
            sums[i] =
                emulator_tensor_sum(sums[i], rows[lane / 4 + i / 2 * 8],
                                    columns[lane % 4 * 2 + i % 2], number, emulator_architecture());
        }
    }
    emulator_lanes_release();
}

float emulator_exp2(float x)
{
    const float power = exp2f(x);

    return power < 0x1p-126f ? 0.0f : power;
}
