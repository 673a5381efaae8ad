/* Goal: a whole model through the CUDA backend gives the CPU backend's answers within a stated
 * tolerance, and the same bits however its text was cut into steps.
 * Method: tiny random models of the types that the card keeps in different ways, run by the
 * daemon's own forward pass over the emulator; logits against the CPU backend's and against double.
 * The CUDA backend rounds activations to 8 bits of mantissa where the CPU's takes int8 or floats:
 * logits may differ from double by TOLERANCE of their spread, and by twice that from the CPU's.
 * Another past must be beyond both.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "support/model_rig.h"
#include "support/reference_forward.h"
#include "support/tiny_model.h"
}
#include "tests/emulator/emulator.h"

extern "C" {
extern const struct backend_ops backend_cuda_ops;
}

enum { TEXT_COUNT = 70, PAGE_COUNT = 8 };

static const double TOLERANCE = 0.03; /* rms of the difference, by the logits' own */

struct trial {
    struct bytes file; /* owned */
    struct rig rig;
};

static void trial_open(struct trial *trial, uint32_t dtype, const struct backend_ops *ops)
{
    struct tiny_spec spec = tiny_spec_of(dtype, VOCABULARY_BPE, 40 + dtype);
    struct rig_settings settings = {};

    spec.biases = dtype == DTYPE_F16;
    spec.tied = dtype == DTYPE_Q4_1;
    settings.thread_count = 1;
    settings.row_count_max = 96;
    settings.sample_count_max = 4;
    settings.position_max = PAGE_COUNT * KV_PAGE_TOKEN_COUNT - 1;
    settings.page_count = PAGE_COUNT;
    settings.ops = ops;
    trial->file = tiny_model_create(&spec);
    rig_open(&trial->rig, rig_model_of(trial->file), &settings);
}

static void trial_close(struct trial *trial)
{
    rig_close(&trial->rig);
    memory_free(const_cast<uint8_t *>(trial->file.data));
}

static std::vector<uint32_t> text_of(uint32_t seed)
{
    std::vector<uint32_t> ids(TEXT_COUNT);
    uint32_t state = seed;

    for (uint32_t &id : ids) {
        state = state * 1664525u + 1013904223u;
        id = (state >> 8) % 400;
    }
    return ids;
}

static std::vector<float> logits_after(struct trial *trial, const std::vector<uint32_t> &ids,
                                       uint32_t chunk)
{
    static const uint32_t pages[PAGE_COUNT] = {5, 0, 7, 2, 1, 6, 3, 4};
    std::vector<float> logits(model_config(trial->rig.model)->vocabulary_count);

    rig_feed(&trial->rig, pages, 0, ids.data(), (uint32_t)ids.size(), chunk, logits.data());
    return logits;
}

template <typename A, typename B>
static double distance(const std::vector<A> &a, const std::vector<B> &b)
{
    double difference = 0.0, mean = 0.0, spread = 0.0;

    for (size_t i = 0; i < b.size(); i++) {
        mean += (double)b[i] / (double)b.size();
    }
    for (size_t i = 0; i < b.size(); i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        spread += ((double)b[i] - mean) * ((double)b[i] - mean);
    }
    return sqrt(difference / spread);
}

static void use_architecture(uint32_t architecture)
{
    struct emulator_settings settings = {};

    settings.schedule = EMULATOR_SHUFFLED;
    settings.seed = architecture;
    settings.copies_land_early = architecture == 80;
    settings.architecture = architecture;
    emulator_configure(&settings);
}

static void check_type(uint32_t dtype, uint32_t architecture)
{
    const std::vector<uint32_t> ids = text_of(dtype + 1);
    std::vector<uint32_t> other = ids;
    std::vector<float> cpu, cuda, changed;
    struct reference *reference;
    struct trial trial;

    use_architecture(architecture);
    trial_open(&trial, dtype, &backend_cpu_ops);
    cpu = logits_after(&trial, ids, TEXT_COUNT);
    std::vector<double> exact(cpu.size());
    reference = reference_create(trial.rig.model, false);
    reference_logits(reference, ids.data(), TEXT_COUNT, exact.data());
    reference_destroy(reference);
    trial_close(&trial);

    trial_open(&trial, dtype, &backend_cuda_ops);
    cuda = logits_after(&trial, ids, TEXT_COUNT);
    for (uint32_t i = 0; i + 1 < TEXT_COUNT; i++) {
        other[i] ^= 1;
    }
    changed = logits_after(&trial, other, TEXT_COUNT);
    trial_close(&trial);
    print_message("%s sm_%u: cuda to cpu %.4f, to double %.4f, cpu %.4f, another past %.4f\n",
                  dtype_name(dtype), architecture, distance(cuda, cpu), distance(cuda, exact),
                  distance(cpu, exact), distance(changed, exact));
    assert_true(distance(cuda, cpu) < 2 * TOLERANCE);
    assert_true(distance(cuda, exact) < TOLERANCE);
    assert_false(distance(changed, exact) < 2 * TOLERANCE);
}

static void every_type_is_near_the_cpu_backend(void **state)
{
    (void)state;
    check_type(DTYPE_F16, 90);
    check_type(DTYPE_Q4_1, 80);
    check_type(DTYPE_Q6_K, 90);
    if (emulator_runs_long()) {
        check_type(DTYPE_Q8_0, 90);
        check_type(DTYPE_Q4_K, 80);
    }
}

static void bits_do_not_depend_on_the_cut_into_steps(void **state)
{
    std::vector<uint32_t> ids = text_of(9);
    std::vector<float> whole, cut;
    struct trial trial;

    (void)state;
    use_architecture(90);
    trial_open(&trial, DTYPE_Q4_0, &backend_cuda_ops);
    whole = logits_after(&trial, ids, TEXT_COUNT);
    cut = logits_after(&trial, ids, 23);
    assert_memory_equal(cut.data(), whole.data(), whole.size() * sizeof(float));
    if (!emulator_runs_long()) {
        ids.resize(12); /* token by token is slow */
        whole = logits_after(&trial, ids, TEXT_COUNT);
    }
    cut = logits_after(&trial, ids, 1);
    assert_memory_equal(cut.data(), whole.data(), whole.size() * sizeof(float));
    ids[3] ^= 1;
    cut = logits_after(&trial, ids, 7);
    assert_memory_not_equal(cut.data(), whole.data(), whole.size() * sizeof(float));
    trial_close(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_near_the_cpu_backend),
        cmocka_unit_test(bits_do_not_depend_on_the_cut_into_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
