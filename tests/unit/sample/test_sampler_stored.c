/* Goal: what a reply is held to (bytes in front, choices, distinct siblings) is stored with its
 * sampler and comes back as it was; samplers without it are stored as before it existed; what is
 * damaged is refused or in range.
 * Method: stored forms compared by memcmp, cut at every byte, changed at every bit. test_sampler.c
 * does this for the rest of the form.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "limits.h"
#include "sample/sampler.h"

enum { VOCABULARY_COUNT = 1000, DISTINCT_INDEX = 5 };

static const uint32_t end_ids[] = {2, 7};
static const uint64_t group_seed = UINT64_C(0xfedcba9876543210);

static struct bytes choices[3];

/* kinds: bit 0 bytes in front, 1 choices, 2 distinct. */
static struct sampler_settings settings_of(uint32_t kinds)
{
    struct sampler_settings settings = sampler_settings_default();

    choices[0] = bytes_of_text("yes");
    choices[1] = bytes_of("\xc3", 1); /* half a character: healed text may be that */
    choices[2] = bytes_of("n\0o", 3);
    if ((kinds & 1) != 0) {
        settings.rule.forced = bytes_of("\xa4 in front", 10);
    }
    if ((kinds & 2) != 0) {
        settings.rule.choices = choices;
        settings.rule.choice_count = 3;
    }
    if ((kinds & 4) != 0) {
        settings.has_distinct = true;
        settings.distinct_seed = group_seed;
        settings.distinct_index = DISTINCT_INDEX;
    }
    return settings;
}

static struct sampler *create(uint32_t kinds)
{
    const struct sampler_settings settings = settings_of(kinds);
    struct sampler *sampler = NULL;
    struct error error = {0};

    assert_int_equal(sampler_create(&settings, end_ids, 2, VOCABULARY_COUNT, &error, &sampler),
                     STATUS_OK);
    return sampler;
}

static struct buffer store(const struct sampler *sampler)
{
    struct buffer stored;

    buffer_init(&stored, 1 << 20);
    assert_int_equal(sampler_format(sampler, &stored), STATUS_OK);
    return stored;
}

static void test_every_kind_comes_back_byte_for_byte(void **state)
{
    (void)state;
    for (uint32_t kinds = 0; kinds < 8; kinds++) {
        struct sampler *made = create(kinds), *read = NULL;
        struct buffer stored = store(made), again;

        assert_int_equal(bytes_load_u32(stored.data),
                         kinds == 0 ? SAMPLER_VERSION_PLAIN : SAMPLER_VERSION);
        assert_int_equal(sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &read),
                         STATUS_OK);
        again = store(read);
        assert_int_equal(again.size, stored.size);
        assert_memory_equal(again.data, stored.data, stored.size);
        const struct sampler_settings *settings = &read->settings;
        assert_true(bytes_equal(settings->rule.forced, settings_of(kinds).rule.forced));
        assert_int_equal(settings->rule.choice_count, (kinds & 2) != 0 ? 3 : 0);
        for (uint32_t i = 0; i < settings->rule.choice_count; i++) {
            assert_true(bytes_equal(settings->rule.choices[i], choices[i]));
        }
        assert_int_equal(settings->has_distinct, (kinds & 4) != 0);
        assert_int_equal(settings->distinct_index, (kinds & 4) != 0 ? DISTINCT_INDEX : 0);
        assert_true(settings->distinct_seed == ((kinds & 4) != 0 ? group_seed : 0));
        assert_int_equal(read->steps.count, made->steps.count);
        buffer_finish(&stored);
        buffer_finish(&again);
        sampler_release(made);
        sampler_release(read);
    }
}

/* The steps themselves: which of them there are, and what the distinct one is told. */
static void test_a_distinct_sibling_has_its_step(void **state)
{
    (void)state;
    for (uint32_t kinds = 0; kinds < 8; kinds++) {
        struct sampler *sampler = create(kinds);
        uint32_t found = 0;

        for (uint32_t i = 0; i < sampler->steps.count; i++) {
            const struct step *step = &sampler->steps.steps[i];

            if (step->type == STEP_DISTINCT) {
                assert_int_equal(step->count, DISTINCT_INDEX);
                found++;
            }
        }
        assert_int_equal(found, (kinds & 4) != 0);
        sampler_release(sampler);
    }
}

/* A twin for the comparison above: one byte of one choice, one bit of the seed, the index. */
static void test_twin_what_differs_is_stored_differently(void **state)
{
    struct sampler *sampler = create(7);
    struct buffer first = store(sampler);

    (void)state;
    sampler_release(sampler);
    for (uint32_t change = 0; change < 3; change++) {
        struct sampler_settings settings = settings_of(7);
        struct buffer second;

        if (change == 0) {
            choices[2] = bytes_of("n\0p", 3);
        } else if (change == 1) {
            settings.distinct_seed ^= UINT64_C(1) << 40;
        } else {
            settings.distinct_index++;
        }
        assert_int_equal(sampler_create(&settings, end_ids, 2, VOCABULARY_COUNT, NULL, &sampler),
                         STATUS_OK);
        second = store(sampler);
        assert_true(second.size == first.size && memcmp(second.data, first.data, first.size) != 0);
        sampler_release(sampler);
        buffer_finish(&second);
    }
    buffer_finish(&first);
}

static void test_a_damaged_form_is_refused_or_in_range(void **state)
{
    struct sampler *sampler = create(7), *read = NULL;
    struct buffer stored = store(sampler);
    uint32_t refused = 0;

    (void)state;
    sampler_release(sampler);
    for (size_t size = 0; size < stored.size; size++) {
        assert_int_not_equal(
            sampler_parse(bytes_of(stored.data, size), VOCABULARY_COUNT, NULL, &read), STATUS_OK);
    }
    for (size_t bit = 0; bit < 8 * stored.size; bit++) {
        stored.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &read) == STATUS_OK) {
            assert_true(read->settings.rule.choice_count <= CHOICE_COUNT_MAX);
            assert_true(read->settings.rule.forced.size <= CHOICE_BYTES_MAX);
            for (uint32_t i = 0; i < read->settings.rule.choice_count; i++) {
                assert_in_range(read->settings.rule.choices[i].size, 1, CHOICE_BYTES_MAX);
            }
            sampler_release(read);
        } else {
            refused++;
        }
        stored.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(refused > 100);
    buffer_finish(&stored);
}

static void test_every_failed_allocation_is_told(void **state)
{
    struct sampler *sampler = create(7), *read = NULL;
    struct buffer stored = store(sampler);
    int64_t n = 0;

    (void)state;
    sampler_release(sampler);
    for (;; n++) {
        memory_fault_set(n);
        const enum status status =
            sampler_parse(buffer_bytes(&stored), VOCABULARY_COUNT, NULL, &read);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
    assert_true(n > 0);
    sampler_release(read);
    buffer_finish(&stored);
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_comes_back_byte_for_byte),
        cmocka_unit_test(test_a_distinct_sibling_has_its_step),
        cmocka_unit_test(test_twin_what_differs_is_stored_differently),
        cmocka_unit_test(test_a_damaged_form_is_refused_or_in_range),
        cmocka_unit_test(test_every_failed_allocation_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
