/* Goal: the cost of equal bits is what is served against the fastest of all ways, for each product
 * and number of rows, and its largest is named.
 * Method: a card whose times are scripted by way; the printed figures against those by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench.h"
#include "bench/random_model.h"
#include "kernels/dtype.h"

static bool library_is_fast, weights_fp8;
static struct provider_rule rule;

static enum status fake_open(const struct product_trial_settings *settings, struct error *error,
                             struct product_trial **out)
{
    (void)error;
    assert_int_equal(settings->row_count_max, 16);
    assert_int_equal(settings->launch_count, 0);
    assert_int_equal(settings->weights_fp8, weights_fp8);
    rule =
        (struct provider_rule){.outputs = settings->source->rows, .cols = settings->source->cols};
    *out = (struct product_trial *)&rule;
    return STATUS_OK;
}

static void fake_close(struct product_trial *trial)
{
    (void)trial;
}

static uint32_t fake_describe(const struct product_trial *trial, struct provider_rule *out)
{
    (void)trial;
    *out = rule;
    return 90;
}

static enum status fake_ways(struct product_trial *trial, enum provider provider,
                             uint32_t row_count, uint32_t most, struct product_way *out,
                             uint32_t *count)
{
    (void)trial;
    (void)row_count;
    *count = provider != PROVIDER_WGMMA && most > 0;
    *out = (struct product_way){.provider = provider};
    return STATUS_OK;
}

static enum status fake_time(struct product_trial *trial, const struct product_way *way,
                             uint32_t row_count, uint64_t *ns)
{
    (void)trial;
    *ns = 1000;
    if (way->provider == PROVIDER_CUBLASLT && library_is_fast) {
        *ns = 500;
    } else if (way->segment_count == 4 && row_count == 1 && rule.cols == 512) {
        *ns = 800;
    }
    return STATUS_OK;
}

static const char *fake_fault_text(const struct product_trial *trial)
{
    (void)trial;
    return "";
}

static const struct product_trial_ops ops = {.open = fake_open,
                                             .close = fake_close,
                                             .describe = fake_describe,
                                             .ways = fake_ways,
                                             .time = fake_time,
                                             .fault_text = fake_fault_text};

/* The caller frees. */
static char *printed(void)
{
    struct error error = {.text = ""};
    struct model *model = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    const struct bench_settings settings = {
        .trial = &ops, .prefill = 16, .seconds = 1, .weights_fp8 = weights_fp8, .out = file};

    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_BF16, 1, &error, &model),
                     STATUS_OK);
    if (bench_variants(&settings, model, &error) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    model_close(model);
    assert_int_equal(fclose(file), 0);
    return text;
}

static void test_the_fastest_way_is_found_and_the_worst_cost_named(void **state)
{
    char *text = printed();

    (void)state;
    assert_non_null(strstr(text, "| down, BF16 256 x 512 | 1 | mma | 1.00 | mma, S = 4, tiles 1 | "
                                 "0.80 | 25.0 |"));
    assert_non_null(
        strstr(text, "| down, BF16 256 x 512 | 16 | mma | 1.00 | the same | 1.00 | 0.0"));
    assert_non_null(strstr(text, "| q, k, v, BF16 512 x 256 | 1 | mma | 1.00 | the same | 1.00 |"));
    assert_non_null(strstr(text, "costs more: 25.0 %"));
    free(text);
}

static void test_the_library_takes_part(void **state)
{
    (void)state;
    library_is_fast = true;
    weights_fp8 = true; /* as the trial is told */
    char *text = printed();
    weights_fp8 = false;
    assert_non_null(strstr(text, "| mma | 1.00 | cublaslt | 0.50 | 100.0 |"));
    assert_non_null(strstr(text, "costs more: 100.0 %"));
    free(text);
}

static void test_the_cpu_has_no_variants(void **state)
{
    const struct bench_settings settings = {.prefill = 16};
    struct error error = {.text = ""};

    (void)state;
    assert_int_equal(bench_variants(&settings, NULL, &error), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "--variants is for a card"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_fastest_way_is_found_and_the_worst_cost_named),
        cmocka_unit_test(test_the_library_takes_part),
        cmocka_unit_test(test_the_cpu_has_no_variants),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
