/* Integer products by smmla: two rows of weights times two rows of activations over eight columns.
 * Compiled for FEAT_I8MM. A row without a partner is multiplied with itself and read once.
 */
#include <arm_neon.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/neon/matmul.h"

enum { SUM_ROWS_MAX = 4 };

struct sums {
    /* [pair of rows][pair of weight rows]: weight 0 row 0, weight 0 row 1, weight 1 row 0, .. */
    int32x4_t square[SUM_ROWS_MAX / 2][4];
};

static CPU_EXPAND void sums_clear(uint32_t rows, struct sums *sums)
{
    CPU_UNROLL(2)
    for (uint32_t pair = 0; pair < (rows + 1) / 2; pair++) {
        CPU_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            sums->square[pair][i] = vdupq_n_s32(0);
        }
    }
}

/* x: eight codes of a row, of columns in `first` and in `second`. */
static CPU_EXPAND void sums_add(uint32_t rows, const int8x16_t first[2], const int8x16_t second[2],
                                const int8x8_t *x, struct sums *sums)
{
    int8x16_t weights[4];

    CPU_UNROLL(2)
    for (uint32_t i = 0; i < 2; i++) {
        const int32x4_t a = vreinterpretq_s32_s8(first[i]);
        const int32x4_t b = vreinterpretq_s32_s8(second[i]);

        weights[2 * i] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        weights[2 * i + 1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
    CPU_UNROLL(2)
    for (uint32_t pair = 0; pair < (rows + 1) / 2; pair++) {
        const uint32_t partner = 2 * pair + 1 < rows ? 2 * pair + 1 : 2 * pair;
        const int8x16_t two = vcombine_s8(x[2 * pair], x[partner]);

        CPU_UNROLL(4)
        for (uint32_t i = 0; i < 4; i++) {
            sums->square[pair][i] = vmmlaq_s32(sums->square[pair][i], weights[i], two);
        }
    }
}

/* Of row r, lane by lane of register i. */
static CPU_EXPAND int32x4_t sums_read(const struct sums *sums, uint32_t r, uint32_t i)
{
    const int32x4_t *square = sums->square[r / 2];

    return r % 2 == 0 ? vuzp1q_s32(square[2 * i], square[2 * i + 1])
                      : vuzp2q_s32(square[2 * i], square[2 * i + 1]);
}

#define MATMUL_CODES i8mm_matmul_codes
#include "kernels/cpu/neon/matmul_codes.h"
