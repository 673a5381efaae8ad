/* Integer products by sdot: four of them a lane. Compiled for FEAT_DotProd. */
#include <arm_neon.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/neon/matmul.h"

enum { SUM_ROWS_MAX = 4 };

struct sums {
    int32x4_t dot[SUM_ROWS_MAX][2]; /* [row][register] */
};

static CPU_EXPAND void sums_clear(uint32_t rows, struct sums *sums)
{
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < rows; r++) {
        sums->dot[r][0] = vdupq_n_s32(0);
        sums->dot[r][1] = vdupq_n_s32(0);
    }
}

/* x: eight codes of a row, of columns in `first` and in `second`. */
static CPU_EXPAND void sums_add(uint32_t rows, const int8x16_t first[2], const int8x16_t second[2],
                                const int8x8_t *x, struct sums *sums)
{
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < rows; r++) {
        CPU_UNROLL(2)
        for (uint32_t i = 0; i < 2; i++) {
            sums->dot[r][i] = vdotq_lane_s32(sums->dot[r][i], first[i], x[r], 0);
            sums->dot[r][i] = vdotq_lane_s32(sums->dot[r][i], second[i], x[r], 1);
        }
    }
}

/* Of row r, lane by lane of register i. */
static CPU_EXPAND int32x4_t sums_read(const struct sums *sums, uint32_t r, uint32_t i)
{
    return sums->dot[r][i];
}

#define MATMUL_CODES dotprod_matmul_codes
#include "kernels/cpu/neon/matmul_codes.h"
