/* Random products for the tests of matrix kernels: a weight on the card and its values here.
 *
 * Thread: any. The rig owns what it points to; product_rig_finish gives it back.
 */
#ifndef PERSONAD_TESTS_EMULATOR_PRODUCT_RIG_H
#define PERSONAD_TESTS_EMULATOR_PRODUCT_RIG_H

#include <vector>

#include "kernels/cuda/matmul.cuh"
#include "tests/emulator/emulator.h"

struct product_rig {
    struct backend backend; /* only its device is set */
    struct backend_weight *weight;
    uint32_t dtype;
    uint32_t rows, cols;
    std::vector<float> exact;  /* [rows][cols] as kernels/dtype.c gives them */
    bool half;                 /* multiplies as f16 */
    std::vector<float> values; /* [rows][cols] rounded to what multiplies */
    std::vector<float> x;      /* [x_count][cols] */
};

void product_rig_init(struct product_rig *rig, uint64_t seed, uint32_t dtype, uint32_t rows,
                      uint32_t cols, uint32_t x_count, bool fp8 = false);
void product_rig_finish(struct product_rig *rig);

/* out becomes the products of rows [first, first + count) of x; a product that writes past its
 * outputs ends the process. Ranks meet in the backend's `meeting`, if it has one. */
typedef enum status (*product_multiply)(struct device *device, struct cuda_matmul_args *args);
enum status product_rig_run(const struct product_rig *rig, product_multiply function,
                            uint32_t first, uint32_t count, std::vector<float> &out);

/* The emulator's settings: `which` counts schedules, copies early and late, sm_80 and sm_90. */
enum { PRODUCT_SETTINGS_COUNT = 6 };
void product_settings_use(uint32_t which);

float product_bf16(float value);

/* A row as it multiplies: rounded to bf16, or scaled by its largest magnitude and rounded to f16.
 */
std::vector<float> product_rounded(const struct product_rig *rig, const float *x);

/* What x[row] times output `output` is, over rounded operands, and the sum of the magnitudes. */
struct product_exact {
    double value;
    double magnitude;
};
struct product_exact product_rig_exact(const struct product_rig *rig, const float *x,
                                       uint32_t output);

/* A bound of |kernel - exact| for `cols` columns, given the sum of magnitudes. A step adds 17
 * numbers at the most, each cut by less than 2^-23 of the largest magnitude that occurs, which the
 * sum of magnitudes bounds, and cuts the sum to fp32; folding four segments rounds thrice. */
double product_bound(uint32_t cols, double magnitude);

#endif
