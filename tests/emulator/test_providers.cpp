/* Goal: what a table of providers says decides what multiplies, in each matrix operation of a
 * model, and changes the numerics id; without a table nothing changes.
 * Method: a whole tiny model over the emulator, with tables that name all of its shapes, some, or
 * none. The emulator counts the products of warpgroups: a rule that is followed makes as many as
 * its shape has, one of another shape, type or number of rows makes none. By their bit model they
 * sum as mma does: so the logits are the same by memcmp, and a card that sums otherwise must be
 * caught.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"
}
#include "kernels/cuda/matmul.cuh"
#include "tests/emulator/emulator.h"

enum { TEXT_COUNT = 20, PAGE_COUNT = 2, HIDDEN = 320 };

static const char *const head = "personad gpu providers 1\ncard sm_90\n";

struct answer {
    std::vector<float> logits;
    std::string numerics, text;
    uint64_t wgmma_count, memory_left;
};

static bool equal(const struct answer &a, const struct answer &b)
{
    return memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) == 0;
}

static struct provider_table parsed(const std::string &rules)
{
    const std::string text = head + rules;
    struct provider_table table;
    struct error error = {};

    if (provider_table_parse(text.data(), text.size(), &error, &table) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    return table;
}

/* The logits behind a text of TEXT_COUNT tokens; rules NULL: no table. wgmma_sums_as 0: as mma. */
static struct answer answer_by(const char *rules, uint32_t wgmma_sums_as, bool fp8 = false)
{
    static const uint32_t pages[PAGE_COUNT] = {1, 0};
    struct tiny_spec spec = tiny_spec_of(fp8 ? DTYPE_BF16 : DTYPE_Q8_0, VOCABULARY_BPE, 3);
    struct provider_table table = parsed(rules == NULL ? "" : rules);
    struct emulator_settings card = {};
    struct rig_settings settings = {};
    uint32_t ids[TEXT_COUNT];
    struct answer answer;
    struct rig rig;

    card.architecture = 90;
    card.wgmma_sums_as = wgmma_sums_as;
    emulator_configure(&card);
    spec.layer_count = 1;
    spec.hidden = HIDDEN;
    settings.thread_count = 1;
    settings.row_count_max = TEXT_COUNT;
    settings.sample_count_max = 1;
    settings.position_max = PAGE_COUNT * KV_PAGE_TOKEN_COUNT - 1;
    settings.page_count = PAGE_COUNT;
    settings.ops = &backend_cuda_ops;
    settings.providers = rules == NULL ? NULL : &table;
    settings.weights_fp8 = fp8;
    const struct bytes file = tiny_model_create(&spec);
    rig_open(&rig, rig_model_of(file), &settings);
    for (uint32_t i = 0; i < TEXT_COUNT; i++) {
        ids[i] = (i * 37 + 5) % 400;
    }
    answer.logits.resize(model_config(rig.model)->vocabulary_count);
    answer.numerics = backend_cuda_ops.numerics_id(rig.backend);
    answer.text = backend_cuda_ops.describe(rig.backend);
    rig_feed(&rig, pages, 0, ids, TEXT_COUNT, TEXT_COUNT, answer.logits.data());
    answer.wgmma_count = emulator_wgmma_count();
    answer.memory_left = backend_cuda_ops.memory_left(rig.backend);
    rig_close(&rig);
    memory_free(const_cast<uint8_t *>(file.data));
    return answer;
}

/* 256 wide, 4 heads and 2 KV heads of 64, gate and up of HIDDEN, 512 tokens. A product of a warp is
 * 16 columns of 16 outputs, of all 20 rows in the launches that have as many. */
static const struct {
    const char *rule;
    uint64_t panels, steps;
} shapes[] = {
    {"Q8_0 512 256 wgmma 1\n", 2 * 512 / 16, 256 / 16}, /* q, k, v; the logits are as large */
    {"Q8_0 256 256 wgmma 1\n", 256 / 16, 256 / 16},     /* attention's output */
    {"Q8_0 640 256 wgmma 1\n", 640 / 16, 256 / 16},     /* gate and up */
    {"Q8_0 256 320 wgmma 1\n", 256 / 16, 320 / 16},     /* down */
};

static void every_operation_follows_the_table(void **state)
{
    const struct answer mma = answer_by(NULL, 80);
    uint64_t count = 0;
    std::string all;

    (void)state;
    assert_int_equal(mma.wgmma_count, 0);
    for (const auto &shape : shapes) {
        const struct answer one = answer_by(shape.rule, 0);

        assert_true(equal(mma, one));
        assert_true(one.wgmma_count >= shape.panels * shape.steps);
        count += one.wgmma_count;
        all += shape.rule;
    }
    const struct answer wgmma = answer_by(all.c_str(), 0);
    assert_true(equal(mma, wgmma));
    assert_int_equal(wgmma.wgmma_count, count);
    assert_false(equal(mma, answer_by(all.c_str(), 80))); /* planted */
    assert_true(mma.text + ", providers for 4 shapes" == wgmma.text);
}

/* From a number of rows on matrices may be unpacked first, in room that all shapes share. */
static void matrices_that_are_unpacked_first_give_the_same_logits(void **state)
{
    static const char *const all = "Q8_0 512 256 unpacked 17\nQ8_0 256 256 unpacked 17\n"
                                   "Q8_0 640 256 unpacked 17\nQ8_0 256 320 unpacked 17\n";
    const struct answer mma = answer_by(NULL, 80);
    const struct answer unpacked = answer_by(all, 0);

    (void)state;
    assert_true(equal(mma, unpacked));
    assert_true(unpacked.wgmma_count > 0);
    /* Room for the largest, gate and up, taken once; in whole pages here. */
    assert_in_range(mma.memory_left - unpacked.memory_left, 2 * 640 * 256, 2 * 640 * 256 + 16384);
    assert_int_equal(answer_by("Q8_0 512 256 unpacked 33\n", 0).wgmma_count, 0);
    assert_false(equal(mma, answer_by("Q8_0 512 256 unpacked 1\n", 80))); /* planted: the logits */
}

/* Floats that are kept as fp8 go by the rules of FP8, and by no others. */
static void weights_kept_as_fp8_follow_rules_of_their_own(void **state)
{
    static const char *const rules = "FP8 512 256 wgmma 1\nFP8 256 256 wgmma 1\n"
                                     "FP8 640 256 wgmma 1\nFP8 256 320 wgmma 1\n";
    static const char *const others = "BF16 512 256 wgmma 1\nBF16 256 256 wgmma 1\n";
    const struct answer mma = answer_by(NULL, 80, true);
    const struct answer wgmma = answer_by(rules, 0, true);
    uint64_t least = 0;

    (void)state;
    for (const auto &shape : shapes) {
        least += shape.panels * shape.steps;
    }
    assert_int_equal(mma.wgmma_count, 0);
    assert_true(wgmma.wgmma_count >= least);
    assert_true(equal(mma, wgmma));
    assert_int_equal(answer_by(others, 0, true).wgmma_count, 0);
    assert_false(equal(mma, answer_by(rules, 80, true))); /* planted */
}

static void what_no_rule_names_is_mma(void **state)
{
    static const char *const others[] = {
        "",
        "Q4_0 512 256 wgmma 1\n",  /* another type */
        "Q8_0 256 128 wgmma 1\n",  /* other columns */
        "Q8_0 320 256 wgmma 1\n",  /* gate alone */
        "Q8_0 256 256 wgmma 33\n", /* more rows than any launch has */
    };

    (void)state;
    for (const char *rules : others) {
        assert_int_equal(answer_by(rules, 0).wgmma_count, 0);
    }
    assert_int_not_equal(answer_by("Q8_0 256 256 wgmma 20\n", 0).wgmma_count, 0);
}

static void a_table_is_part_of_the_numerics_id(void **state)
{
    const std::string none = answer_by(NULL, 0).numerics;
    char digest[32];

    (void)state;
    assert_true(none == "cuda/3/sm_90/kv-f16");
    for (const char *rules : {"", shapes[0].rule, shapes[1].rule}) {
        snprintf(digest, sizeof digest, "/p-%016llx", (unsigned long long)parsed(rules).digest);
        assert_true(answer_by(rules, 0).numerics == none + digest);
    }
}

static void the_table_of_another_card_is_refused(void **state)
{
    const struct provider_table table = parsed("");
    struct emulator_settings card = {};
    struct backend_settings settings = {};
    struct backend *backend = NULL;
    struct error error = {};

    (void)state;
    card.architecture = 80;
    emulator_configure(&card);
    settings.row_count_max = settings.sample_count_max = settings.slot_count = 1;
    settings.history_tokens_max = settings.vocabulary_count = settings.partial_count_max = 1;
    settings.providers = &table;
    assert_int_equal(backend_cuda_ops.create(&settings, &error, &backend), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "is for sm_90 and emulator is sm_80"));
}

/* Bits of launches with several types hang on all of them: no rule is asked for. */
static void parts_of_several_types_are_mma(void **state)
{
    const struct provider_table table = parsed("Q8_0 64 64 wgmma 1\nQ4_0 64 64 wgmma 1\n");
    struct cuda_matmul_args args = {};

    (void)state;
    args.part_count = 2;
    args.row_count = 8;
    for (uint32_t i = 0; i < 2; i++) {
        args.parts[i].weight.format = CUDA_Q8_0;
        args.parts[i].weight.rows = 32;
        args.parts[i].weight.cols = 64;
    }
    assert_non_null(cuda_matmul_rule(&table, &args));
    args.parts[1].weight.format = CUDA_Q4_0;
    assert_null(cuda_matmul_rule(&table, &args));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_follows_the_table),
        cmocka_unit_test(matrices_that_are_unpacked_first_give_the_same_logits),
        cmocka_unit_test(weights_kept_as_fp8_follow_rules_of_their_own),
        cmocka_unit_test(what_no_rule_names_is_mma),
        cmocka_unit_test(a_table_is_part_of_the_numerics_id),
        cmocka_unit_test(the_table_of_another_card_is_refused),
        cmocka_unit_test(parts_of_several_types_are_mma),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
