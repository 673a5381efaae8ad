/* Goal: NFC, also where marks come in any number and order, in linear time.
 * Method: known pairs; utf8proc's own composition of whole texts as reference for random ones with
 * short and long runs of marks; a megabyte of marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "limits.h"
#include "text/normalizer.h"

static void expect_nfc(const char *text, const char *expected)
{
    struct buffer room;
    struct bytes out = {NULL, 0};

    buffer_init(&room, 4096);
    assert_int_equal(normalizer_compose(bytes_of_text(text), &room, &out), STATUS_OK);
    assert_int_equal(out.size, strlen(expected));
    assert_memory_equal(out.data, expected, out.size);
    buffer_finish(&room);
}

static void test_known_texts_are_composed(void **state)
{
    (void)state;
    expect_nfc("plain", "plain");
    expect_nfc("e\xcc\x81", "\xc3\xa9");
    expect_nfc("e\xcc\x81\xcc\xa3", "\xe1\xba\xb9\xcc\x81"); /* marks are ordered, then joined */
    expect_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul */
    expect_nfc("\xe2\x84\xa6", "\xce\xa9");                             /* ohm sign */
    expect_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* excluded from composition */
    expect_nfc("\xcc\x81x", "\xcc\x81x");
}

static uint64_t random_state = 3;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static size_t make_text(uint8_t *text, uint32_t run_max)
{
    static const uint32_t bases[] = {'a',    'e',   'o',   0x3b3,  0x1100,
                                     0xac00, 0x915, 0x5d9, 0x30ab, ' '};
    static const uint32_t marks[] = {0x301, 0x323, 0x327, 0x345, 0x93c,  0x3099, 0x5b4,
                                     0xf71, 0x344, 0x308, 0x304, 0x1161, 0x11a8, 0x340};
    size_t size = 0;

    for (uint32_t bases_left = 1 + draw(4); bases_left > 0; bases_left--) {
        size += utf8_encode(bases[draw(sizeof bases / sizeof *bases)], text + size);
        for (uint32_t left = draw(run_max); left > 0; left--) {
            size += utf8_encode(marks[draw(sizeof marks / sizeof *marks)], text + size);
        }
    }
    return size;
}

static void test_runs_of_marks_short_and_long_are_as_utf8proc_has_them(void **state)
{
    struct buffer room;
    uint8_t text[4096];

    (void)state;
    buffer_init(&room, 1 << 20);
    for (int round = 0; round < 3000; round++) {
        const size_t size = make_text(text, round % 2 == 0 ? 6 : 90);
        struct bytes out = {NULL, 0};
        utf8proc_uint8_t *expected = NULL;
        const utf8proc_ssize_t expected_size = utf8proc_map(text, (utf8proc_ssize_t)size, &expected,
                                                            UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        assert_true(expected_size >= 0);
        assert_int_equal(normalizer_compose(bytes_of(text, size), &room, &out), STATUS_OK);
        assert_int_equal(out.size, (size_t)expected_size);
        assert_memory_equal(out.data, expected, out.size);
        free(expected);
    }
    buffer_finish(&room);
}

static void test_a_megabyte_of_marks_takes_linear_time(void **state)
{
    uint8_t *text = malloc(TEXT_BYTES_MAX);
    const clock_t start = clock();
    struct buffer room;
    struct bytes out = {NULL, 0};

    (void)state;
    buffer_init(&room, 4 * (size_t)TEXT_BYTES_MAX);
    for (size_t i = 0; i < TEXT_BYTES_MAX; i += 2) {
        text[i] = 0xcc;
        text[i + 1] = i % 4 == 0 ? 0x81 : 0xa3; /* the order that costs most */
    }
    assert_int_equal(normalizer_compose(bytes_of(text, TEXT_BYTES_MAX), &room, &out), STATUS_OK);
    assert_int_equal(out.size, TEXT_BYTES_MAX);
    assert_int_equal(out.data[1], 0xa3);
    assert_int_equal(out.data[TEXT_BYTES_MAX - 1], 0x81);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 10); /* hours, if each swap were one step */
    buffer_finish(&room);
    free(text);
}

static void test_failures_of_memory_and_room_are_reported(void **state)
{
    char text[200];
    struct bytes out = {NULL, 0};
    enum status status = STATUS_MEMORY;
    struct buffer room;

    (void)state;
    for (size_t i = 0; i < sizeof text; i += 2) {
        memcpy(text + i, i % 4 == 0 ? "\xcc\x81" : "\xcc\xa3", 2);
    }
    buffer_init(&room, 10);
    assert_int_equal(normalizer_compose(bytes_of(text, sizeof text), &room, &out), STATUS_LIMIT);
    buffer_finish(&room);
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        buffer_init(&room, 1000);
        memory_fault_set(survivors);
        status = normalizer_compose(bytes_of(text, sizeof text), &room, &out);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        buffer_finish(&room);
    }
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_texts_are_composed),
        cmocka_unit_test(test_runs_of_marks_short_and_long_are_as_utf8proc_has_them),
        cmocka_unit_test(test_a_megabyte_of_marks_takes_linear_time),
        cmocka_unit_test(test_failures_of_memory_and_room_are_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
