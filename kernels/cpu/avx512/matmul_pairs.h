/* Paired BF16 weights times rows of BF16: which panels and rows are multiplied at once. Thread:
 * any.
 *
 * Included once by each of {avx512,avx512bf16}/matmul_pairs.c, which define MATMUL_PAIRS (the
 * function's name), struct pair (a row's pair of columns in all lanes) and the two functions on it.
 *
 * Bound by: for one row the weights' bytes; the panels side by side hide the chain's latency.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_MATMUL_PAIRS_H
#define PERSONAD_KERNELS_CPU_AVX512_MATMUL_PAIRS_H

#ifndef MATMUL_PAIRS
#error "is part of {avx512,avx512bf16}/matmul_pairs.c"
#endif

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/expand.h"

enum { PANELS_MAX = 4, TALL_PANELS = 2, LOW_ROWS_MAX = 6, PAIR_BYTES = 64 };

/* Row r's pair of columns k and k + 1. */
static CPU_EXPAND struct pair load_pair(const struct cpu_tile *tile, uint32_t k, uint32_t height,
                                        uint32_t r);

/* acc + odd columns' product + even columns' product, in this order. */
static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i w, struct pair x);

static CPU_EXPAND void multiply(const uint32_t panels, const uint32_t rows,
                                const struct backend_weight *weight, uint32_t panel,
                                const struct cpu_tile *tile, float *out, uint32_t stride)
{
    const uint8_t *pairs[PANELS_MAX];
    __m512 acc[PANELS_MAX][CPU_TILE_ROWS_MAX];

    CPU_UNROLL(4)
    for (uint32_t p = 0; p < panels; p++) {
        pairs[p] = cpu_weight_panel(weight, panel + p);
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < rows; r++) {
            acc[p][r] = _mm512_setzero_ps();
        }
    }
    for (uint32_t k = 0; k < tile->cols; k += 2) {
        __m512i w[PANELS_MAX];

        CPU_UNROLL(4)
        for (uint32_t p = 0; p < panels; p++) {
            w[p] = _mm512_load_si512(pairs[p]);
            /* The panels after these: see matmul_codes.c. */
            _mm_prefetch((const char *)pairs[p] + panels * weight->panel_bytes, _MM_HINT_T1);
            pairs[p] += PAIR_BYTES;
        }
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < rows; r++) {
            const struct pair x = load_pair(tile, k, rows, r);

            CPU_UNROLL(4)
            for (uint32_t p = 0; p < panels; p++) {
                acc[p][r] = add_pair(acc[p][r], w[p], x);
            }
        }
    }
    CPU_UNROLL(12)
    for (uint32_t r = 0; r < rows; r++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < panels; p++) {
            _mm512_storeu_ps(out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS, acc[p][r]);
        }
    }
}

#define ROWS(panels, rows)                                        \
    case rows:                                                    \
        multiply(panels, rows, weight, panel, tile, out, stride); \
        break;

#define LOW_ROWS(panels) \
    ROWS(panels, 1) ROWS(panels, 2) ROWS(panels, 3) ROWS(panels, 4) ROWS(panels, 5) ROWS(panels, 6)

#define ALL_ROWS(panels) \
    LOW_ROWS(panels)     \
    ROWS(panels, 7)      \
    ROWS(panels, 8) ROWS(panels, 9) ROWS(panels, 10) ROWS(panels, 11) ROWS(panels, 12)

#define FUNCTION(name, rows)                                                   \
    static void name(const struct backend_weight *weight, uint32_t panel,      \
                     const struct cpu_tile *tile, float *out, uint32_t stride) \
    {                                                                          \
        switch (tile->height) {                                                \
            rows                                                               \
        }                                                                      \
    }

FUNCTION(four_panels, LOW_ROWS(4))
FUNCTION(two_panels, ALL_ROWS(2))
FUNCTION(one_panel, ALL_ROWS(1))

void MATMUL_PAIRS(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                  const struct cpu_tile *tile, float *out)
{
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    uint32_t p = 0;

    if (tile->height <= LOW_ROWS_MAX) {
        for (; p + PANELS_MAX <= panel_count; p += PANELS_MAX) {
            four_panels(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
        }
    }
    for (; p + TALL_PANELS <= panel_count; p += TALL_PANELS) {
        two_panels(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
    }
    for (; p < panel_count; p++) {
        one_panel(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
    }
}

#endif
