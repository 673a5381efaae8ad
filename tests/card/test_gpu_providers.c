/* Goal: of the providers that a card is tried with, the table names those that may serve, from the
 * right number of rows on, and the fastest of them; what gives a row other bits is never named.
 * Method: gpu_providers.c over a card of ours, whose ways have scripted bits and times, on a tiny
 * model of noise; the file that it writes is parsed again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/random_model.h"
#include "card/gpu_providers.h"
#include "kernels/dtype.h"

enum { ROWS = 64 };

/* What a provider does: rows of the same bits are those with the same number. */
struct scripted {
    bool is_there;
    int bits;             /* 0: mma's */
    uint32_t varies_from; /* rows from which on its bits are others; 0: never */
    uint64_t few_ns, many_ns;
    uint32_t many_from;
};

static struct scripted script[PROVIDER_COUNT];
static int kept_bits;
static uint32_t open_count;
static bool weights_fp8;

static enum status fake_open(const struct product_trial_settings *settings, struct error *error,
                             struct product_trial **out)
{
    static struct provider_rule rule;

    (void)error;
    assert_int_equal(settings->row_count_max, ROWS);
    assert_int_equal(settings->weights_fp8, weights_fp8);
    rule =
        (struct provider_rule){.outputs = settings->source->rows, .cols = settings->source->cols};
    assert_int_equal(settings->source->dtype, DTYPE_BF16);
    open_count++;
    *out = (struct product_trial *)&rule;
    return STATUS_OK;
}

static void fake_close(struct product_trial *trial)
{
    open_count -= trial != NULL;
}

static uint32_t fake_describe(const struct product_trial *trial, struct provider_rule *out)
{
    *out = *(const struct provider_rule *)trial;
    return 90;
}

static enum status fake_ways(struct product_trial *trial, enum provider provider,
                             uint32_t row_count, uint32_t most, struct product_way *out,
                             uint32_t *count)
{
    (void)trial;
    assert_int_equal(row_count, 0);
    *count = script[provider].is_there && most > 0;
    if (*count > 0) {
        *out = (struct product_way){.provider = provider};
        out->version = provider == PROVIDER_CUBLASLT ? 130100 : 0;
        out->algorithm.words[3] = provider == PROVIDER_CUBLASLT ? 77 : 0;
    }
    return STATUS_OK;
}

static enum status fake_keep(struct product_trial *trial, const struct product_way *way,
                             uint32_t row_count)
{
    (void)trial;
    assert_int_equal(row_count, ROWS);
    kept_bits = script[way->provider].bits;
    return STATUS_OK;
}

static enum status fake_compare(struct product_trial *trial, const struct product_way *way,
                                uint32_t row_count, uint64_t *different)
{
    const struct scripted *scripted = &script[way->provider];

    (void)trial;
    assert_true(row_count > 0 && row_count <= ROWS);
    *different = scripted->bits != kept_bits ||
                 (scripted->varies_from != 0 && row_count >= scripted->varies_from);
    return STATUS_OK;
}

static enum status fake_time(struct product_trial *trial, const struct product_way *way,
                             uint32_t row_count, uint64_t *ns)
{
    const struct scripted *scripted = &script[way->provider];

    (void)trial;
    *ns = row_count >= scripted->many_from ? scripted->many_ns : scripted->few_ns;
    return STATUS_OK;
}

static const char *fake_fault_text(const struct product_trial *trial)
{
    (void)trial;
    return "";
}

static const struct product_trial_ops ops = {fake_open, fake_close,     fake_describe,
                                             fake_ways, fake_keep,      fake_compare,
                                             fake_time, fake_fault_text};

/* The table of a card with these, beside mma with 1000 ns at any number of rows. */
static struct provider_table table_of(struct scripted mma, struct scripted wgmma,
                                      struct scripted library, bool *fine)
{
    struct gpu_providers providers = {.ops = &ops,
                                      .row_count_max = ROWS,
                                      .stride = 7,
                                      .faster_percent = 2,
                                      .weights_fp8 = weights_fp8};
    struct provider_table table;
    struct error error = {.text = ""};
    struct model *model = NULL;
    char *text = NULL;
    size_t size = 0;

    script[PROVIDER_MMA] = mma;
    script[PROVIDER_WGMMA] = wgmma;
    script[PROVIDER_CUBLASLT] = library;
    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_BF16, 2, &error, &model),
                     STATUS_OK);
    *fine = gpu_providers_try(&providers, model);
    model_close(model);
    assert_int_equal(open_count, 0);
    FILE *file = open_memstream(&text, &size);
    assert_non_null(file);
    gpu_providers_write(&providers, file);
    assert_int_equal(fclose(file), 0);
    if (provider_table_parse(text, size, &error, &table) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    free(text);
    return table;
}

static const struct scripted mma = {true, 0, 0, 1000, 1000, 0};
static const struct scripted absent = {0};

/* All rules are alike: each shape was tried with the same script. */
static void check(struct scripted wgmma, struct scripted library, enum provider provider,
                  uint32_t rows_min)
{
    bool fine = false;
    const struct provider_table table = table_of(mma, wgmma, library, &fine);

    assert_true(fine);
    if (provider == PROVIDER_MMA) {
        assert_int_equal(table.rule_count, 0);
        return;
    }
    assert_true(table.rule_count >= 4);
    for (uint32_t i = 0; i < table.rule_count; i++) {
        assert_int_equal(table.rules[i].provider, provider);
        assert_int_equal(table.rules[i].rows_min, rows_min);
        assert_int_equal(table.rules[i].algorithm.words[3], provider == PROVIDER_CUBLASLT ? 77 : 0);
    }
}

static void test_the_bits_of_mma_take_over_where_they_are_faster(void **state)
{
    (void)state;
    check((struct scripted){true, 0, 0, 1500, 500, 32}, absent, PROVIDER_WGMMA, 17);
    check((struct scripted){true, 0, 0, 500, 500, 0}, absent, PROVIDER_WGMMA, 1);
    check((struct scripted){true, 0, 0, 500, 1500, 32}, absent, PROVIDER_MMA, 0);
    check((struct scripted){true, 0, 0, 990, 990, 0}, absent, PROVIDER_MMA, 0); /* by 1 percent */
    weights_fp8 = true; /* as the trial is told */
    check((struct scripted){true, 0, 0, 500, 500, 0}, absent, PROVIDER_WGMMA, 1);
    weights_fp8 = false;
}

static void test_other_bits_serve_all_rows_or_none(void **state)
{
    (void)state;
    check(absent, (struct scripted){true, 1, 0, 500, 500, 0}, PROVIDER_CUBLASLT, 1);
    check(absent, (struct scripted){true, 1, 0, 1500, 500, 16}, PROVIDER_MMA, 0);
}

static void test_rows_that_mind_others_are_never_named(void **state)
{
    (void)state;
    check((struct scripted){true, 0, ROWS, 500, 500, 0}, absent, PROVIDER_MMA, 0);
    check(absent, (struct scripted){true, 1, 50, 500, 500, 0}, PROVIDER_MMA, 0);
    check(absent, (struct scripted){true, 1, 2, 500, 500, 0}, PROVIDER_MMA, 0);
}

static void test_the_fastest_is_taken(void **state)
{
    (void)state;
    check((struct scripted){true, 0, 0, 600, 600, 0}, (struct scripted){true, 1, 0, 500, 500, 0},
          PROVIDER_CUBLASLT, 1);
    check((struct scripted){true, 0, 0, 400, 400, 0}, (struct scripted){true, 1, 0, 500, 500, 0},
          PROVIDER_WGMMA, 1);
}

static void test_mma_that_minds_others_fails(void **state)
{
    bool fine = true;

    (void)state;
    (void)table_of((struct scripted){true, 0, 33, 1000, 1000, 0}, absent, absent, &fine);
    assert_false(fine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bits_of_mma_take_over_where_they_are_faster),
        cmocka_unit_test(test_other_bits_serve_all_rows_or_none),
        cmocka_unit_test(test_rows_that_mind_others_are_never_named),
        cmocka_unit_test(test_the_fastest_is_taken),
        cmocka_unit_test(test_mma_that_minds_others_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
