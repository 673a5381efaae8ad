/* Goal: a trial sees which ways give a row the bits that it has alone, and offers those that a
 * table may name.
 * Method: trials of random matrices of every type, and of floats kept as fp8, over the emulator and
 * the tests' own cuBLASLt: mma and wgmma against mma's rows alone; other cuts of K, and the
 * library's sums, must differ from them; the library's algorithm that minds the number of rows must
 * differ from itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "support/random_weight.h"
}
#include "kernels/cuda/cuda.cuh"
#include "tests/emulator/emulator.h"
#include "tests/emulator/fake_cublaslt.h"

enum { ROWS = 20, OUTPUTS = 48, COLS = 320 };

static struct product_trial *trial_of(uint32_t dtype, uint32_t architecture, bool fp8 = false)
{
    struct product_trial_settings settings = {};
    struct emulator_settings card = {};
    struct product_trial *trial = NULL;
    struct error error = {};
    uint64_t state = 5;
    const struct weight_source source =
        random_weight(&state, dtype, OUTPUTS, dtype_block_elements(dtype) == 256 ? 512 : COLS);

    card.architecture = architecture;
    card.work_comes_late = true;
    emulator_configure(&card);
    settings.source = &source;
    settings.row_count_max = ROWS;
    settings.weights_fp8 = fp8;
    if (cuda_trial_ops.open(&settings, &error, &trial) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    memory_free(const_cast<void *>(source.data));
    return trial;
}

static uint64_t different(struct product_trial *trial, const struct product_way *kept,
                          const struct product_way *way)
{
    uint64_t sum = 0, found = 0;

    assert_int_equal(cuda_trial_ops.keep(trial, kept, ROWS), STATUS_OK);
    for (uint32_t rows : {1u, 7u, 9u, 17u, (uint32_t)ROWS}) {
        assert_int_equal(cuda_trial_ops.compare(trial, way, rows, &found), STATUS_OK);
        sum += found;
    }
    return sum;
}

static struct product_way way_of(struct product_trial *trial, enum provider provider)
{
    struct product_way way = {};
    uint32_t count = 0;

    assert_int_equal(cuda_trial_ops.ways(trial, provider, 0, 1, &way, &count), STATUS_OK);
    assert_int_equal(count, 1);
    return way;
}

/* Each type as a card holds it: as a file has it, and FP8, which is floats kept so. */
static void mma_and_wgmma_have_the_same_rows(void **state)
{
    static const uint32_t kept[] = {DTYPE_BF16, DTYPE_F16,  DTYPE_Q4_0, DTYPE_Q4_1,
                                    DTYPE_Q8_0, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};

    (void)state;
    for (uint32_t i = 0; i <= sizeof kept / sizeof kept[0]; i++) {
        const bool fp8 = i == sizeof kept / sizeof kept[0];
        const uint32_t dtype = fp8 ? (uint32_t)DTYPE_BF16 : kept[i];
        struct product_trial *trial = trial_of(dtype, 90, fp8);
        const struct product_way mma = way_of(trial, PROVIDER_MMA);
        struct product_way other = mma;
        struct provider_rule rule;
        uint64_t ns = 0;
        uint32_t count = 0;

        assert_int_equal(cuda_trial_ops.describe(trial, &rule), 90);
        assert_int_equal(rule.outputs, OUTPUTS);
        assert_string_equal(provider_type_name(rule.type), fp8 ? "FP8" : dtype_name(dtype));
        assert_int_equal(different(trial, &mma, &mma), 0);
        const struct product_way wgmma = way_of(trial, PROVIDER_WGMMA);
        assert_int_equal(different(trial, &mma, &wgmma), 0);
        assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_UNPACKED, 0, 1, &other, &count),
                         STATUS_OK);
        assert_int_equal(count, dtype != DTYPE_F16 && (fp8 || dtype != DTYPE_BF16));
        if (count > 0) {
            assert_int_equal(other.provider, PROVIDER_UNPACKED);
            assert_int_equal(different(trial, &mma, &other), 0);
            assert_int_equal(cuda_trial_ops.time(trial, &other, 20, &ns), STATUS_OK);
        }
        other = mma;
        other.tiles_min = 8;
        assert_int_equal(different(trial, &mma, &other), 0);
        other.segment_count = 1; /* such few outputs are a step's two or four segments */
        assert_int_not_equal(different(trial, &mma, &other), 0);
        assert_int_equal(different(trial, &other, &other), 0);
        assert_int_equal(cuda_trial_ops.time(trial, &mma, 9, &ns), STATUS_OK);
        assert_true(ns > 0);
        cuda_trial_ops.close(trial);
    }
}

static void cards_without_clusters_meet_in_memory(void **state)
{
    struct product_trial *trial = trial_of(DTYPE_BF16, 80);
    const struct product_way mma = way_of(trial, PROVIDER_MMA);
    struct product_way way;
    uint32_t count = 7;

    (void)state;
    assert_int_equal(different(trial, &mma, &mma), 0);
    assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_WGMMA, 0, 1, &way, &count), STATUS_OK);
    assert_int_equal(count, 0);
    cuda_trial_ops.close(trial);
    trial = trial_of(DTYPE_Q4_0, 80);
    assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_UNPACKED, 0, 1, &way, &count), STATUS_OK);
    assert_int_equal(count, 0);
    cuda_trial_ops.close(trial);
}

static void the_librarys_ways_are_its_own(void **state)
{
    struct product_trial *trial = trial_of(DTYPE_BF16, 90);
    const struct product_way mma = way_of(trial, PROVIDER_MMA);
    struct product_way ways[4];
    uint32_t count = 0;
    uint64_t ns = 0;

    (void)state;
    assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_CUBLASLT, 0, 4, ways, &count), STATUS_OK);
    assert_int_equal(count, 2); /* no splits, and none that serves few rows only */
    assert_int_equal(ways[0].algorithm.words[1], FAKE_MOODY);
    assert_int_equal(ways[1].algorithm.words[1], FAKE_CHAIN);
    assert_int_equal(ways[1].version, FAKE_VERSION);
    assert_int_not_equal(different(trial, &mma, &ways[1]), 0);
    assert_int_equal(different(trial, &ways[1], &ways[1]), 0);
    assert_int_not_equal(different(trial, &ways[0], &ways[0]), 0);
    assert_int_equal(cuda_trial_ops.time(trial, &ways[1], 20, &ns), STATUS_OK);
    assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_CUBLASLT, 8, 4, ways, &count), STATUS_OK);
    assert_int_equal(count, 4);
    cuda_trial_ops.close(trial);
    trial = trial_of(DTYPE_Q4_0, 90);
    assert_int_equal(cuda_trial_ops.ways(trial, PROVIDER_CUBLASLT, 0, 4, ways, &count), STATUS_OK);
    assert_int_equal(count, 0);
    cuda_trial_ops.close(trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mma_and_wgmma_have_the_same_rows),
        cmocka_unit_test(cards_without_clusters_meet_in_memory),
        cmocka_unit_test(the_librarys_ways_are_its_own),
    };

    setenv("PERSONAD_CUBLASLT", FAKE_CUBLASLT, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
