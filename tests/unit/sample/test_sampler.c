/* Goal: settings become the documented steps, every range is held with the field's name in the
 * sentence, and the stored form gives back the very same sampler.
 * Method: one table of fields at and past their bounds; stored forms compared by memcmp, cut at
 * every byte, and changed at every bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "limits.h"
#include "sample/sampler.h"

enum { VOCABULARY_COUNT = 1000, END_COUNT = 2 };

static const uint32_t end_ids[END_COUNT] = {2, 7};

static enum status create(const struct sampler_settings *settings, struct error *error,
                          struct sampler **out)
{
    return sampler_create(settings, end_ids, END_COUNT, VOCABULARY_COUNT, error, out);
}

static const struct step_bias some_biases[] = {{40, 1.5f}, {3, -INFINITY}, {900, -100.0f}};

static struct bytes some_stops[2];

/* Everything is set, so that every step is there. */
static struct sampler_settings make_full(void)
{
    struct sampler_settings settings = sampler_settings_default();

    some_stops[0] = bytes_of_text("\nUser:");
    some_stops[1] = bytes_of("a\0b", 3);
    settings.temperature = 0.7f;
    settings.repetition_penalty = 1.1f;
    settings.presence_penalty = -0.5f;
    settings.frequency_penalty = 0.25f;
    settings.penalize_prompt = true;
    settings.min_tokens = 3;
    settings.top_count = 5;
    settings.bias_count = 3;
    settings.biases = some_biases;
    settings.stop_count = 2;
    settings.stops = some_stops;
    return settings;
}

static void test_nothing_set_means_the_documented_defaults(void **state)
{
    static const uint32_t types[] = {STEP_TOP_K, STEP_TOP_P, STEP_MIN_P, STEP_TEMPERATURE};
    const struct sampler_settings nothing = {0};
    struct sampler *sampler = NULL;

    (void)state;
    assert_int_equal(create(&nothing, NULL, &sampler), STATUS_OK);
    assert_true(sampler->settings.temperature == 0.8f && sampler->settings.top_k == 40);
    assert_true(sampler->settings.top_p == 0.95f && sampler->settings.min_p == 0.05f);
    assert_int_equal(sampler->settings.max_tokens, REPLY_TOKEN_COUNT_DEFAULT);
    assert_true(sampler->settings.has_ignore_end && !sampler->settings.ignore_end);
    assert_int_equal(sampler->steps.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(sampler->steps.steps[i].type, types[i]);
    }
    sampler_release(sampler);
}

static void test_steps_come_in_the_documented_order_with_their_values(void **state)
{
    const struct sampler_settings settings = make_full();
    struct sampler *sampler = NULL;
    const struct step *steps;

    (void)state;
    assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
    steps = sampler->steps.steps;
    assert_int_equal(sampler->steps.count, 7);
    assert_int_equal(steps[0].type, STEP_MIN_TOKENS);
    assert_int_equal(steps[0].count, 3);
    assert_int_equal(steps[0].list_count, END_COUNT);
    assert_memory_equal(steps[0].ids, end_ids, sizeof end_ids);
    assert_int_equal(steps[1].type, STEP_BIAS);
    assert_int_equal(steps[1].biases[0].token, 3);
    assert_int_equal(steps[1].biases[2].token, 900);
    assert_int_equal(steps[2].type, STEP_PENALTIES);
    assert_int_equal(steps[2].count, 64);
    assert_int_equal(steps[2].flags, STEP_FLAG_PROMPT);
    assert_true(steps[2].values[0] == 1.1f && steps[2].values[1] == 0.25f &&
                steps[2].values[2] == -0.5f);
    assert_memory_equal(steps[2].ids, end_ids, sizeof end_ids);
    assert_true(steps[3].type == STEP_TOP_K && steps[3].count == 40);
    assert_true(steps[4].type == STEP_TOP_P && steps[4].values[0] == 0.95f);
    assert_true(steps[5].type == STEP_MIN_P && steps[5].values[0] == 0.05f);
    assert_true(steps[6].type == STEP_TEMPERATURE && steps[6].values[0] == 0.7f);
    sampler_release(sampler);
}

static void test_steps_that_change_nothing_are_left_out(void **state)
{
    struct sampler_settings settings = sampler_settings_default();
    struct sampler *sampler = NULL;

    (void)state;
    settings.temperature = 1.0f;
    settings.top_k = VOCABULARY_COUNT;
    settings.top_p = 1.0f;
    settings.min_p = 0.0f;
    assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
    assert_int_equal(sampler->steps.count, 0);
    sampler_release(sampler);
    settings = sampler_settings_default();
    settings.temperature = 0.0f;
    assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
    assert_int_equal(sampler->steps.count, 1);
    assert_int_equal(sampler->steps.steps[0].type, STEP_TEMPERATURE);
    sampler_release(sampler);
}

static void test_ignoring_the_end_masks_end_ids_throughout(void **state)
{
    struct sampler_settings settings = sampler_settings_default();
    struct sampler *sampler = NULL;

    (void)state;
    settings.ignore_end = true;
    assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
    assert_int_equal(sampler->steps.steps[0].type, STEP_MIN_TOKENS);
    assert_int_equal(sampler->steps.steps[0].count, 0xffffffffu);
    sampler_release(sampler);
}

static void test_a_layer_wins_only_with_what_it_sets(void **state)
{
    struct sampler_settings base = sampler_settings_default();
    const struct sampler_settings full = make_full();
    struct sampler_settings over = {0};

    (void)state;
    over.has_top_k = true; /* and is 0: off */
    over.temperature = 9.0f;
    over.stop_count = 1;
    over.stops = full.stops;
    sampler_settings_merge(&base, &over);
    assert_int_equal(base.top_k, 0);
    assert_true(base.temperature == 0.8f);
    assert_int_equal(base.stop_count, 1);
    sampler_settings_merge(&base, &full);
    assert_int_equal(base.top_k, 40);
    assert_int_equal(base.bias_count, 3);
    assert_int_equal(base.stop_count, 2);
}

static void expect_refusal(const struct sampler_settings *settings, enum status status,
                           const char *field)
{
    struct sampler *sampler = NULL;
    struct error error = {0};

    assert_int_equal(create(settings, &error, &sampler), status);
    assert_int_equal(error.status, status);
    if (strstr(error.text, field) == NULL) {
        fail_msg("'%s' does not name %s", error.text, field);
    }
    assert_true(status != STATUS_LIMIT || error.limit_name != NULL);
    assert_null(sampler);
}

static void test_every_float_is_held_to_its_range_by_name(void **state)
{
    static const struct {
        const char *name;
        size_t offset;
        float good[2];
        float bad[3];
    } fields[] = {
#define FIELD(name) #name, offsetof(struct sampler_settings, name)
        {FIELD(temperature), {0.0f, 100.0f}, {-0.01f, 0.00001f, NAN}},
        {FIELD(top_p), {0.001f, 1.0f}, {0.0f, 1.01f, NAN}},
        {FIELD(min_p), {0.0f, 0.999f}, {-0.01f, 1.0f, NAN}},
        {FIELD(repetition_penalty), {0.01f, 100.0f}, {0.0099f, INFINITY, NAN}},
        {FIELD(presence_penalty), {-10.0f, 10.0f}, {-10.1f, 10.1f, NAN}},
        {FIELD(frequency_penalty), {-10.0f, 10.0f}, {-INFINITY, 10.1f, NAN}},
#undef FIELD
    };

    (void)state;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        for (size_t k = 0; k < 5; k++) {
            struct sampler_settings settings = sampler_settings_default();
            struct sampler *sampler = NULL;
            const float value = k < 2 ? fields[i].good[k] : fields[i].bad[k - 2];
            memcpy((char *)&settings + fields[i].offset, &value, sizeof value);
            if (k < 2) {
                assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
                sampler_release(sampler);
            } else {
                expect_refusal(&settings, STATUS_BAD_INPUT, fields[i].name);
            }
        }
    }
}

static void test_every_count_is_held_to_its_range_by_name(void **state)
{
    static struct bytes stops[CUE_COUNT_MAX + 1];
    static char long_stop[CUE_BYTES_MAX + 2];
    static struct step_bias biases[LOGIT_BIAS_COUNT_MAX + 1];
    struct sampler_settings settings;

    (void)state;
#define REFUSED(status, field, ...)        \
    settings = sampler_settings_default(); \
    __VA_ARGS__;                           \
    expect_refusal(&settings, status, field)
    REFUSED(STATUS_BAD_INPUT, "max_tokens", settings.max_tokens = 0);
    REFUSED(STATUS_LIMIT, "max_tokens", settings.max_tokens = REPLY_TOKEN_COUNT_MAX + 1);
    REFUSED(STATUS_BAD_INPUT, "min_tokens", settings.min_tokens = REPLY_TOKEN_COUNT_DEFAULT + 1);
    REFUSED(STATUS_LIMIT, "top_count", settings.top_count = TOP_COUNT_MAX + 1);
    REFUSED(STATUS_LIMIT, "biases", settings.bias_count = LOGIT_BIAS_COUNT_MAX + 1;
            settings.biases = biases);
    REFUSED(STATUS_LIMIT, "stop strings", settings.stop_count = CUE_COUNT_MAX + 1;
            settings.stops = stops);
    REFUSED(STATUS_BAD_INPUT, "stop string 0", settings.stop_count = 1; settings.stops = stops);
    memset(long_stop, 'x', CUE_BYTES_MAX + 1);
    stops[0] = bytes_of_text(long_stop);
    REFUSED(STATUS_LIMIT, "stop string 0", settings.stop_count = 1; settings.stops = stops);
#undef REFUSED
}

static void test_biases_name_the_token_that_is_wrong(void **state)
{
    static const struct step_bias wrong[][2] = {{{5, 1.0f}, {VOCABULARY_COUNT, 0.0f}},
                                                {{77, 1.0f}, {77, 2.0f}},
                                                {{5, 0.0f}, {8, 100.5f}},
                                                {{5, 0.0f}, {9, NAN}},
                                                {{5, 0.0f}, {11, INFINITY}}};
    static const char *const names[] = {"1000", "77", "token 8", "token 9", "token 11"};

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct sampler_settings settings = sampler_settings_default();
        settings.bias_count = 2;
        settings.biases = wrong[i];
        expect_refusal(&settings, STATUS_BAD_INPUT, names[i]);
    }
}

static void test_settings_that_leave_no_token_are_refused(void **state)
{
    static const struct step_bias ban[] = {{0, -INFINITY}, {1, -INFINITY}};
    static const uint32_t ends[] = {2};
    struct sampler_settings settings = sampler_settings_default();
    struct sampler *sampler = NULL;
    struct error error = {0};

    (void)state;
    settings.bias_count = 2;
    settings.biases = ban;
    assert_int_equal(sampler_create(&settings, ends, 1, 3, &error, &sampler), STATUS_OK);
    sampler_release(sampler);
    sampler = NULL;
    settings.ignore_end = true;
    assert_int_equal(sampler_create(&settings, ends, 1, 3, &error, &sampler), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "no token"));
    assert_null(sampler);
}

static struct buffer store(const struct sampler_settings *settings)
{
    struct sampler *sampler = NULL;
    struct buffer stored;

    buffer_init(&stored, 1 << 20);
    assert_int_equal(create(settings, NULL, &sampler), STATUS_OK);
    assert_int_equal(sampler_format(sampler, &stored), STATUS_OK);
    sampler_release(sampler);
    return stored;
}

static void test_the_stored_form_comes_back_byte_for_byte(void **state)
{
    const struct sampler_settings settings = make_full();
    struct buffer stored = store(&settings);
    struct buffer again;
    struct sampler *sampler = NULL;

    (void)state;
    buffer_init(&again, 1 << 20);
    assert_int_equal(sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &sampler),
                     STATUS_OK);
    assert_int_equal(sampler_format(sampler, &again), STATUS_OK);
    assert_int_equal(again.size, stored.size);
    assert_memory_equal(again.data, stored.data, stored.size);
    assert_int_equal(sampler->settings.stop_count, 2);
    assert_true(bytes_equal(sampler->settings.stops[1], bytes_of("a\0b", 3)));
    assert_int_equal(sampler->settings.biases[1].token, 40);
    assert_int_equal(sampler->steps.count, 7);
    assert_int_equal(sampler->steps.steps[0].ids[1], 7);
    sampler_release(sampler);
    buffer_finish(&stored);
    buffer_finish(&again);
}

static void test_equal_settings_are_stored_alike_and_others_are_not(void **state)
{
    static const struct step_bias turned[] = {{900, -100.0f}, {40, 1.5f}, {3, -INFINITY}};
    struct sampler_settings settings = make_full();
    struct buffer first = store(&settings), second;

    (void)state;
    settings.biases = turned;
    second = store(&settings);
    assert_int_equal(first.size, second.size);
    assert_memory_equal(first.data, second.data, first.size);
    buffer_finish(&second);
    settings.presence_penalty = nextafterf(settings.presence_penalty, 1.0f);
    second = store(&settings); /* the twin: one bit of one value shows */
    assert_true(second.size == first.size && memcmp(first.data, second.data, first.size) != 0);
    buffer_finish(&first);
    buffer_finish(&second);
    settings = sampler_settings_default();
    settings.min_p = 0.0f;
    first = store(&settings);
    settings.min_p = -0.0f;
    second = store(&settings);
    assert_memory_equal(first.data, second.data, first.size);
    buffer_finish(&first);
    buffer_finish(&second);
}

/* Never accepted cut or longer; with a bit changed, refused or a sampler in range. */
static void test_a_damaged_stored_form_is_refused_or_sound(void **state)
{
    const struct sampler_settings settings = make_full();
    struct buffer stored = store(&settings);
    struct sampler *sampler = NULL;
    uint32_t refused = 0;

    (void)state;
    for (size_t size = 0; size < stored.size; size++) {
        assert_int_not_equal(
            sampler_parse(bytes_of(stored.data, size), VOCABULARY_COUNT, NULL, &sampler),
            STATUS_OK);
    }
    assert_int_equal(buffer_append_text(&stored, "x"), STATUS_OK);
    assert_int_equal(sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &sampler),
                     STATUS_BAD_INPUT);
    stored.size--;
    for (size_t bit = 0; bit < 8 * stored.size; bit++) {
        stored.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &sampler) == STATUS_OK) {
            assert_true(sampler->steps.count <= STEP_COUNT_MAX);
            assert_true(sampler->settings.temperature <= 100.0f);
            sampler_release(sampler);
        } else {
            refused++;
        }
        stored.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(refused > 100);
    /* Ids of another, smaller vocabulary. */
    assert_int_equal(sampler_parse(buffer_bytes(&stored), 900, NULL, &sampler), STATUS_BAD_INPUT);
    bytes_store_u32(stored.data, SAMPLER_VERSION + 1);
    assert_int_equal(sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &sampler),
                     STATUS_UNSUPPORTED);
    buffer_finish(&stored);
}

static void test_the_last_reference_frees(void **state)
{
    const int64_t live = memory_live_count();
    const struct sampler_settings settings = make_full();
    struct sampler *sampler = NULL;

    (void)state;
    assert_int_equal(create(&settings, NULL, &sampler), STATUS_OK);
    assert_ptr_equal(sampler_acquire(sampler), sampler);
    sampler_release(sampler);
    assert_true(memory_live_count() > live);
    sampler_release(sampler);
    sampler_release(NULL);
    assert_int_equal(memory_live_count(), live);
}

static enum status create_store_and_parse(void)
{
    const struct sampler_settings settings = make_full();
    struct sampler *first = NULL, *second = NULL;
    struct buffer stored;
    enum status status = create(&settings, NULL, &first);

    buffer_init(&stored, 1 << 20);
    if (status == STATUS_OK) {
        status = sampler_format(first, &stored);
        assert_true(status == STATUS_OK || stored.size == 0);
    }
    if (status == STATUS_OK) {
        status = sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &second);
    }
    sampler_release(first);
    sampler_release(second);
    buffer_finish(&stored);
    return status;
}

static void test_every_allocation_may_fail(void **state)
{
    const int64_t live = memory_live_count();
    enum status status = STATUS_MEMORY;

    (void)state;
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        memory_fault_set(survivors);
        status = create_store_and_parse();
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        assert_int_equal(memory_live_count(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_set_means_the_documented_defaults),
        cmocka_unit_test(test_steps_come_in_the_documented_order_with_their_values),
        cmocka_unit_test(test_steps_that_change_nothing_are_left_out),
        cmocka_unit_test(test_ignoring_the_end_masks_end_ids_throughout),
        cmocka_unit_test(test_a_layer_wins_only_with_what_it_sets),
        cmocka_unit_test(test_every_float_is_held_to_its_range_by_name),
        cmocka_unit_test(test_every_count_is_held_to_its_range_by_name),
        cmocka_unit_test(test_biases_name_the_token_that_is_wrong),
        cmocka_unit_test(test_settings_that_leave_no_token_are_refused),
        cmocka_unit_test(test_the_stored_form_comes_back_byte_for_byte),
        cmocka_unit_test(test_equal_settings_are_stored_alike_and_others_are_not),
        cmocka_unit_test(test_a_damaged_stored_form_is_refused_or_sound),
        cmocka_unit_test(test_the_last_reference_frees),
        cmocka_unit_test(test_every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
