/* Integer products by bytes multiplied into 16 bits: every ARM processor of 64 bits has these.
 *
 * Two products of at most 128 * 127 fit into 16 bits; then they widen. A register of codes holds
 * four columns of four rows, so each half of the sums has two lanes a row, added at the end.
 */
#include <arm_neon.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/neon/matmul.h"

enum { SUM_ROWS_MAX = 4 };

struct sums {
    int32x4_t half[SUM_ROWS_MAX][2][2]; /* [row][register][low or high half of it] */
};

static CPU_EXPAND void sums_clear(uint32_t rows, struct sums *sums)
{
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < rows; r++) {
        CPU_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            sums->half[r][i / 2][i % 2] = vdupq_n_s32(0);
        }
    }
}

/* x: eight codes of a row, of columns in `first` and in `second`. */
static CPU_EXPAND void sums_add(uint32_t rows, const int8x16_t first[2], const int8x16_t second[2],
                                const int8x8_t *x, struct sums *sums)
{
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < rows; r++) {
        const int8x8_t a = vreinterpret_s8_s32(vdup_lane_s32(vreinterpret_s32_s8(x[r]), 0));
        const int8x8_t b = vreinterpret_s8_s32(vdup_lane_s32(vreinterpret_s32_s8(x[r]), 1));

        CPU_UNROLL(2)
        for (uint32_t i = 0; i < 2; i++) {
            int16x8_t low = vmull_s8(vget_low_s8(first[i]), a);
            int16x8_t high = vmull_s8(vget_high_s8(first[i]), a);

            low = vmlal_s8(low, vget_low_s8(second[i]), b);
            high = vmlal_s8(high, vget_high_s8(second[i]), b);
            sums->half[r][i][0] = vpadalq_s16(sums->half[r][i][0], low);
            sums->half[r][i][1] = vpadalq_s16(sums->half[r][i][1], high);
        }
    }
}

/* Of row r, lane by lane of register i. */
static CPU_EXPAND int32x4_t sums_read(const struct sums *sums, uint32_t r, uint32_t i)
{
    return vpaddq_s32(sums->half[r][i][0], sums->half[r][i][1]);
}

#define MATMUL_CODES neon_matmul_codes
#include "kernels/cpu/neon/matmul_codes.h"
