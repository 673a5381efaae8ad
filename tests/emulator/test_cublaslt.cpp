/* Goal: products by cuBLASLt come through the same path as on a card: the library opened by name,
 * weights copied row by row, rows in their order, one algorithm for all numbers of rows; and what
 * cannot serve is refused with a sentence before a step runs.
 * Method: a library of our own (fake_cublaslt.c) that refuses arguments that no caller should give,
 * and whose sums this test makes too: products of each epilogue by memcmp. Whole tiny models: cut
 * into steps in two ways by memcmp; an algorithm whose sums hang on the number of rows must be
 * caught by that, and one that the library does not have, or not for all rows, refused.
 */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"
}
#include "kernels/cuda/cublaslt.cuh"
#include "kernels/cuda/fragment.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/fake_cublaslt.h"
#include "tests/emulator/product_rig.h"

enum { TEXT_COUNT = 40, PAGE_COUNT = 3, PARTS_MAX = 3 };

static void use_card(uint32_t which)
{
    static const enum emulator_schedule schedules[] = {EMULATOR_ASCENDING, EMULATOR_DESCENDING,
                                                       EMULATOR_SHUFFLED};
    struct emulator_settings card = {};

    card.schedule = schedules[which % 3];
    card.seed = which;
    card.architecture = 90;
    card.copies_land_early = card.work_comes_late = which % 2 == 1;
    emulator_configure(&card);
}

/* ---- products ---- */

typedef enum status (*multiply)(struct device *device, struct cuda_matmul_args *args);

/* What the library's chain gives for x[row] and an output, as fake_cublaslt.c says. */
static float chain_of(const struct product_rig *rig, const std::vector<float> &row, uint32_t output)
{
    double sum = 0.0;

    for (uint32_t c = 0; c < rig->cols; c++) {
        sum += (double)rig->values[(size_t)output * rig->cols + c] * (double)row[c];
    }
    return (float)sum;
}

struct products {
    struct product_rig parts[PARTS_MAX];
    uint32_t part_count, outputs, cols;
    std::vector<uint16_t> plain, activations;
    std::vector<float> sums, scales, out, bias;
    std::vector<struct cuda_words> workspace; /* aligned */
};

static void products_init(struct products *products, uint32_t dtype, const uint32_t *rows,
                          uint32_t part_count, uint32_t cols, uint32_t count)
{
    const uint32_t units = (cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS;
    const size_t padded = (size_t)units * CUDA_UNIT_COLS;

    products->part_count = part_count;
    products->outputs = 0;
    products->cols = cols;
    for (uint32_t i = 0; i < part_count; i++) {
        product_rig_init(&products->parts[i], 7 + i, dtype, rows[i], cols, i == 0 ? count : 1);
        products->outputs += rows[i];
    }
    products->plain.assign(products->outputs * padded, 0xffff);
    products->activations.assign(count * padded + CUDA_TILE_ROWS * padded, 0xffff);
    products->sums.assign((size_t)count * products->outputs, NAN);
    products->scales.assign(count, NAN);
    products->out.assign((size_t)count * products->outputs, 0.25f);
    products->bias.resize(products->outputs);
    products->workspace.resize(CUBLASLT_WORKSPACE_BYTES / sizeof(struct cuda_words));
    for (uint32_t i = 0; i < products->outputs; i++) {
        products->bias[i] = (float)i / 32.0f;
    }
}

/* The first `count` of `room` rows. */
static void products_run(struct products *products, multiply function, uint32_t count,
                         uint32_t room)
{
    static const struct provider_algorithm chain = {{FAKE_MAGIC, FAKE_CHAIN}};
    struct device *device = products->parts[0].backend.device;
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};
    struct cublaslt *library = NULL;
    struct error error = {};
    struct card card;
    uint32_t first = 0;
    size_t at = 0;

    card_borrow(&card, device);
    float *out_there = card_give(&card, products->out.data(), products->out.size());
    const float *bias_there =
        card_give<const float>(&card, products->bias.data(), products->bias.size());
    uint16_t *plain_there = card_give(&card, products->plain.data(), products->plain.size());
    uint16_t *rounded =
        card_give(&card, products->activations.data(), products->activations.size());
    if (cublaslt_open(device, &error, &library) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    args.part_count = products->part_count;
    for (uint32_t i = 0; i < products->part_count; i++) {
        args.parts[i].weight = products->parts[i].weight->view;
        args.parts[i].out = out_there + first;
        args.parts[i].stride = products->outputs;
        args.parts[i].bias = bias_there;
        assert_int_equal(cuda_weight_copy_plain(device, &args.parts[i].weight, plain_there + at),
                         STATUS_OK);
        at += products->plain.size() / products->outputs * products->parts[i].rows;
        first += function == cuda_matmul_swiglu ? 0 : products->parts[i].rows;
    }
    source.x =
        card_give<const float>(&card, products->parts[0].x.data(), products->parts[0].x.size());
    source.cols = products->cols;
    source.row_count = room;
    source.row_count_at = card_give<const uint32_t>(&card, &count, 1);
    source.row_scales = cuda_matmul_is_half(&args)
                            ? card_give(&card, products->scales.data(), products->scales.size())
                            : NULL;
    source.is_plain = true;
    args.activations = rounded;
    args.row_scales = source.row_scales;
    args.row_count = room;
    args.row_count_at = source.row_count_at;
    args.provider = PROVIDER_CUBLASLT;
    args.library.library = library;
    args.library.algorithm = &chain;
    args.library.weights = plain_there;
    args.library.sums = card_give(&card, products->sums.data(), products->sums.size());
    args.library.workspace =
        card_give(&card, products->workspace.data(), products->workspace.size());
    args.library.outputs = products->outputs;
    assert_int_equal(cuda_activations_fill(device, &source, rounded), STATUS_OK);
    if (function(device, &args) != STATUS_OK) {
        fail_msg("%s", device_fault_text(device));
    }
    card_take(&card);
    card_finish(&card);
    cublaslt_close(library);
}

static void products_finish(struct products *products)
{
    for (uint32_t i = 0; i < products->part_count; i++) {
        product_rig_finish(&products->parts[i]);
    }
}

/* What is left of x / (1 + exp(-x)) times up is kernels' own: only sums are foretold here. */
static void check_products(uint32_t dtype, multiply function, const uint32_t *rows,
                           uint32_t part_count, uint32_t cols, uint32_t which)
{
    const uint32_t count = 5, room = 11;
    struct products products;

    use_card(which);
    products_init(&products, dtype, rows, part_count, cols, room);
    products_run(&products, function, count, room);
    for (uint32_t r = 0; r < room; r++) {
        const std::vector<float> row =
            product_rounded(&products.parts[0], products.parts[0].x.data() + (size_t)r * cols);
        uint32_t at = 0;

        for (uint32_t p = 0; p < part_count; p++) {
            for (uint32_t o = 0; o < rows[p]; o++, at++) {
                const float sum = chain_of(&products.parts[p], row, o);
                const float expected = r >= count ? 0.25f
                                       : function == cuda_matmul_add
                                           ? 0.25f + (sum + products.bias[o])
                                           : sum;

                assert_memory_equal(&products.out[(size_t)r * products.outputs + at], &expected,
                                    sizeof expected);
            }
        }
    }
    products_finish(&products);
}

static void sums_are_the_librarys(void **state)
{
    static const uint32_t one[] = {150}, three[] = {70, 17, 130};

    (void)state;
    check_products(DTYPE_BF16, cuda_matmul_store, one, 1, 64, 0);
    check_products(DTYPE_F16, cuda_matmul_store, one, 1, 96, 1);
    check_products(DTYPE_BF16, cuda_matmul_store, three, 3, 100, 2);
    check_products(DTYPE_F16, cuda_matmul_store, three, 3, 64, 3);
    check_products(DTYPE_BF16, cuda_matmul_add, one, 1, 128, 4);
    check_products(DTYPE_F16, cuda_matmul_add, one, 1, 32, 5);
}

/* Gate and up, of which the sums are known: equal sums give equal outputs by either provider. */
static void gate_and_up_are_folded_as_by_mma(void **state)
{
    static const uint32_t rows[] = {40, 40};
    struct products products;

    (void)state;
    use_card(1);
    products_init(&products, DTYPE_BF16, rows, 2, 64, 3);
    products_run(&products, cuda_matmul_swiglu, 3, 3);
    for (uint32_t r = 0; r < 3; r++) {
        const std::vector<float> row =
            product_rounded(&products.parts[0], products.parts[0].x.data() + (size_t)r * 64);

        for (uint32_t o = 0; o < 40; o++) {
            const double gate = chain_of(&products.parts[0], row, o);
            const double up = chain_of(&products.parts[1], row, o);
            const double expected = gate / (1.0 + exp(-gate)) * up;

            assert_true(fabs(products.out[r * 80 + o] - expected) <=
                        1e-5 * fabs(gate * up) + 1e-30);
        }
        for (uint32_t o = 40; o < 80; o++) {
            assert_true(products.out[r * 80 + o] == 0.25f);
        }
    }
    products_finish(&products);
}

static void one_chain_is_what_is_chosen(void **state)
{
    const struct cublaslt_product product = {128, 64, 2048, false}, few = {128, 64, 8, false};
    struct provider_algorithm found[CUBLASLT_CHOICE_COUNT_MAX];
    struct cublaslt *library = NULL;
    struct device *device = NULL;
    uint32_t count = 0;

    (void)state;
    use_card(0);
    assert_int_equal(device_open(0, NULL, &device), STATUS_OK);
    assert_int_equal(cublaslt_open(device, NULL, &library), STATUS_OK);
    assert_int_equal(cublaslt_version(library), FAKE_VERSION);
    assert_int_equal(cublaslt_choose(library, &product, false, 8, found, &count), STATUS_OK);
    assert_int_equal(count, 3);
    assert_int_equal(found[0].words[1], FAKE_SPLIT);
    assert_int_equal(cublaslt_choose(library, &product, true, 8, found, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_int_equal(found[0].words[1], FAKE_MOODY);
    assert_int_equal(found[1].words[1], FAKE_CHAIN);
    assert_int_equal(cublaslt_choose(library, &few, true, 2, found, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_int_equal(found[1].words[1], FAKE_SMALL);
    assert_int_equal(cublaslt_check(library, &few, &found[1]), STATUS_OK);
    assert_int_equal(cublaslt_check(library, &product, &found[1]), STATUS_UNSUPPORTED);
    cublaslt_close(library);
    device_close(device);
}

/* ---- whole models ---- */

struct trial {
    struct bytes file; /* owned */
    struct rig rig;
};

static std::string rule_of(const char *shape, uint32_t rows_min, uint32_t version, uint64_t kind)
{
    char text[PROVIDER_LINE_BYTES_MAX];

    snprintf(text, sizeof text, "%s cublaslt %u %u %016x%016llx%096d\n", shape, rows_min, version,
             FAKE_MAGIC, (unsigned long long)kind, 0);
    return text;
}

static struct provider_table table_of(const std::string &rules)
{
    const std::string text = "personad gpu providers 1\ncard sm_90\n" + rules;
    struct provider_table table;
    struct error error = {};

    if (provider_table_parse(text.data(), text.size(), &error, &table) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    return table;
}

static std::string rules_of(const char *type, uint32_t rows_min, uint64_t kind)
{
    std::string rules;

    for (const char *shape : {" 512 256", " 256 256", " 640 256", " 256 320"}) {
        rules += rule_of((type + std::string(shape)).c_str(), rows_min, FAKE_VERSION, kind);
    }
    return rules;
}

static void trial_open(struct trial *trial, uint32_t dtype, const struct provider_table *table)
{
    struct tiny_spec spec = tiny_spec_of(dtype, VOCABULARY_BPE, 3);
    struct rig_settings settings = {};

    spec.layer_count = 1;
    spec.hidden = 320;
    spec.biases = true;
    settings.thread_count = 1;
    settings.row_count_max = TEXT_COUNT;
    settings.sample_count_max = 2;
    settings.position_max = PAGE_COUNT * KV_PAGE_TOKEN_COUNT - 1;
    settings.page_count = PAGE_COUNT;
    settings.ops = &backend_cuda_ops;
    settings.providers = table;
    trial->file = tiny_model_create(&spec);
    rig_open(&trial->rig, rig_model_of(trial->file), &settings);
}

static void trial_close(struct trial *trial)
{
    rig_close(&trial->rig);
    memory_free(const_cast<uint8_t *>(trial->file.data));
}

static std::vector<float> logits_of(struct trial *trial, uint32_t chunk)
{
    static const uint32_t pages[PAGE_COUNT] = {1, 0, 2};
    std::vector<float> logits(model_config(trial->rig.model)->vocabulary_count);
    uint32_t ids[TEXT_COUNT];

    for (uint32_t i = 0; i < TEXT_COUNT; i++) {
        ids[i] = (i * 37 + 5) % 400;
    }
    rig_feed(&trial->rig, pages, 0, ids, TEXT_COUNT, chunk, logits.data());
    return logits;
}

static bool equal(const std::vector<float> &a, const std::vector<float> &b)
{
    return memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

static uint64_t products_so_far(void)
{
    void *library = dlopen(FAKE_CUBLASLT, RTLD_NOW | RTLD_LOCAL);
    const uint64_t count = *static_cast<uint64_t *>(dlsym(library, "fake_cublaslt_count"));

    dlclose(library);
    return count;
}

static void a_model_by_the_library_is_the_same_in_any_cuts(void **state)
{
    (void)state;
    for (uint32_t dtype : {DTYPE_BF16, DTYPE_F16}) {
        const char *type = dtype == DTYPE_BF16 ? "BF16" : "F16";
        const struct provider_table table = table_of(rules_of(type, 1, FAKE_CHAIN));
        struct trial trial;

        use_card(dtype);
        trial_open(&trial, dtype, NULL);
        const std::vector<float> mma = logits_of(&trial, TEXT_COUNT);
        trial_close(&trial);
        trial_open(&trial, dtype, &table);
        const uint64_t before = products_so_far();
        const std::vector<float> whole = logits_of(&trial, TEXT_COUNT);
        assert_int_equal(products_so_far() - before, 5);
        assert_true(equal(whole, logits_of(&trial, 17)));
        assert_true(equal(whole, logits_of(&trial, 7)));
        assert_false(equal(whole, mma)); /* rounded once, not at each step */
        double difference = 0.0, magnitude = 0.0;
        for (size_t i = 0; i < mma.size(); i++) {
            difference = fmax(difference, fabs((double)mma[i] - whole[i]));
            magnitude = fmax(magnitude, fabs((double)mma[i]));
        }
        assert_true(difference < 0.02 * magnitude);
        trial_close(&trial);
    }
}

static void an_algorithm_that_minds_the_rows_is_seen(void **state)
{
    const struct provider_table table = table_of(rules_of("BF16", 1, FAKE_MOODY));
    struct trial trial;

    (void)state;
    use_card(0);
    trial_open(&trial, DTYPE_BF16, &table);
    assert_false(equal(logits_of(&trial, TEXT_COUNT), logits_of(&trial, 7)));
    trial_close(&trial);
}

/* Launches below a rule's rows are mma's: of 40, 16 and 8 rows one has the library, the logits
 * none.
 */
static void few_rows_are_left_to_mma(void **state)
{
    const struct provider_table table = table_of(rules_of("BF16", 17, FAKE_CHAIN));
    struct trial trial;

    (void)state;
    use_card(2);
    trial_open(&trial, DTYPE_BF16, &table);
    uint64_t before = products_so_far();
    (void)logits_of(&trial, 16);
    assert_int_equal(products_so_far() - before, 0);
    before = products_so_far();
    (void)logits_of(&trial, TEXT_COUNT);
    assert_int_equal(products_so_far() - before, 4);
    trial_close(&trial);
}

/* ---- refusals ---- */

static std::string create_refusal(const struct provider_table *table)
{
    struct backend_settings settings = {};
    struct backend *backend = NULL;
    struct error error = {};

    settings.row_count_max = settings.sample_count_max = settings.slot_count = 1;
    settings.history_tokens_max = settings.vocabulary_count = settings.partial_count_max = 1;
    settings.providers = table;
    assert_int_equal(backend_cuda_ops.create(&settings, &error, &backend), STATUS_UNSUPPORTED);
    return error.text;
}

static void a_library_that_does_not_fit_is_refused(void **state)
{
    const struct provider_table good = table_of(rule_of("BF16 64 64", 1, FAKE_VERSION, FAKE_CHAIN));
    const struct provider_table old = table_of(rule_of("BF16 64 64", 1, 120901, FAKE_CHAIN));

    (void)state;
    use_card(0);
    assert_true(create_refusal(&old).find("is for version 120901 of cuBLASLt, and this machine has "
                                          "130101") != std::string::npos);
    setenv("PERSONAD_CUBLASLT", "/nowhere/libcublasLt.so", 1);
    assert_true(create_refusal(&good).find("PERSONAD_CUBLASLT: /nowhere") != std::string::npos);
    setenv("PERSONAD_CUBLASLT", "libm.so.6", 1);
    assert_true(create_refusal(&good).find("has no cublasLtGetVersion") != std::string::npos);
    setenv("PERSONAD_CUBLASLT", FAKE_CUBLASLT, 1);
}

static void a_machine_without_it_is_told_so(void **state)
{
    const struct provider_table table =
        table_of(rule_of("BF16 64 64", 1, FAKE_VERSION, FAKE_CHAIN));
    void *present = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    present = present == NULL ? dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL) : present;
    if (present != NULL) {
        print_message("this machine has cuBLASLt: what one without says is not seen here\n");
        skip();
    }
    use_card(0);
    unsetenv("PERSONAD_CUBLASLT");
    assert_true(create_refusal(&table).find("there is neither libcublasLt.so.13 nor") !=
                std::string::npos);
    setenv("PERSONAD_CUBLASLT", FAKE_CUBLASLT, 1);
}

static std::string record_refusal(const struct provider_table *table)
{
    static const char *const none = "";
    struct tiny_spec spec = tiny_spec_of(DTYPE_BF16, VOCABULARY_BPE, 3);
    struct backend_settings settings = {};
    struct forward_settings wanted = {};
    struct forward *forward = NULL;
    struct backend *backend = NULL;
    struct error error = {};
    const struct bytes file = tiny_model_create(&spec);
    struct model *model = rig_model_of(file);

    settings.row_count_max = TEXT_COUNT;
    settings.sample_count_max = settings.slot_count = settings.history_tokens_max = 1;
    settings.vocabulary_count = model_config(model)->vocabulary_count;
    settings.partial_count_max = TEXT_COUNT;
    settings.providers = table;
    assert_int_equal(backend_cuda_ops.create(&settings, &error, &backend), STATUS_OK);
    wanted.row_count_max = TEXT_COUNT;
    wanted.sample_count_max = 1;
    wanted.page_count = PAGE_COUNT;
    const enum status status =
        forward_create(model, &backend_cuda_ops, backend, &wanted, &error, &forward);
    if (status == STATUS_OK) {
        forward_destroy(forward);
    }
    backend_cuda_ops.destroy(backend);
    model_close(model);
    memory_free(const_cast<uint8_t *>(file.data));
    return status == STATUS_OK ? none : error.text;
}

static void an_algorithm_that_cannot_serve_is_refused(void **state)
{
    const struct provider_table small =
        table_of(rule_of("BF16 256 256", 1, FAKE_VERSION, FAKE_SMALL));
    const struct provider_table unknown =
        table_of(rule_of("BF16 256 256", 1, FAKE_VERSION, FAKE_KIND_COUNT));
    const struct provider_table good =
        table_of(rule_of("BF16 256 256", 1, FAKE_VERSION, FAKE_CHAIN));

    (void)state;
    use_card(0);
    assert_true(record_refusal(&small).find("no such algorithm for BF16 256 256 by 32 rows") !=
                std::string::npos);
    assert_true(record_refusal(&unknown).find("no such algorithm for BF16 256 256 by 8 rows") !=
                std::string::npos);
    assert_true(record_refusal(&good).empty());
}

/* The workspace alone is 32 MiB. */
static void no_room_for_it_is_a_sentence(void **state)
{
    const struct provider_table table =
        table_of(rule_of("BF16 256 256", 1, FAKE_VERSION, FAKE_CHAIN));

    (void)state;
    use_card(0);
    setenv("PERSONAD_EMULATED_MEMORY_MIB", "30", 1);
    assert_true(record_refusal(&table).find("no room for the workspace of cuBLASLt (33 MiB)") !=
                std::string::npos);
    assert_true(record_refusal(NULL).empty());
    unsetenv("PERSONAD_EMULATED_MEMORY_MIB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_librarys),
        cmocka_unit_test(gate_and_up_are_folded_as_by_mma),
        cmocka_unit_test(one_chain_is_what_is_chosen),
        cmocka_unit_test(a_model_by_the_library_is_the_same_in_any_cuts),
        cmocka_unit_test(an_algorithm_that_minds_the_rows_is_seen),
        cmocka_unit_test(few_rows_are_left_to_mma),
        cmocka_unit_test(a_library_that_does_not_fit_is_refused),
        cmocka_unit_test(a_machine_without_it_is_told_so),
        cmocka_unit_test(an_algorithm_that_cannot_serve_is_refused),
        cmocka_unit_test(no_room_for_it_is_a_sentence),
    };

    setenv("PERSONAD_CUBLASLT", FAKE_CUBLASLT, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
