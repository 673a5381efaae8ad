/* Goal: UTF-8 is judged exactly as the standard's table of well-formed sequences says, numbers are
 * little endian, and a buffer keeps its bound and its content.
 * Method: every code point is encoded and decoded; every string of up to three bytes, and four-byte
 * strings at all the edges, are compared with an oracle that is that table and nothing else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/memory.h"

/* The standard's table: ranges of the first and the second byte; later ones are 80..BF. */
struct utf8_range {
    uint8_t first_low, first_high, second_low, second_high;
    size_t length;
};

static const struct utf8_range ranges[] = {
    {0x00, 0x7F, 0x00, 0x00, 1}, {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
    {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
    {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4},
};

static size_t oracle_length(const uint8_t *text, size_t size)
{
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const struct utf8_range *range = &ranges[i];

        if (text[0] < range->first_low || text[0] > range->first_high) {
            continue;
        }
        if (range->length == 1) {
            return 1;
        }
        if (size < range->length || text[1] < range->second_low || text[1] > range->second_high) {
            return 0;
        }
        for (size_t k = 2; k < range->length; k++) {
            if (text[k] < 0x80 || text[k] > 0xBF) {
                return 0;
            }
        }
        return range->length;
    }
    return 0;
}

static size_t oracle_prefix(const uint8_t *text, size_t size)
{
    size_t offset = 0;

    while (offset < size) {
        const size_t length = oracle_length(text + offset, size - offset);

        if (length == 0) {
            break;
        }
        offset += length;
    }
    return offset;
}

/* assert_* per string would cost more than the work. */
static bool agrees(const uint8_t *text, size_t size)
{
    const size_t prefix = oracle_prefix(text, size);

    return utf8_valid_prefix_bytes(bytes_of(text, size)) == prefix &&
           utf8_is_valid(bytes_of(text, size)) == (prefix == size);
}

static void test_every_code_point_survives_the_way_out_and_back(void **state)
{
    uint32_t count = 0;

    (void)state;
    for (uint32_t code_point = 0; code_point <= 0x10FFFF; code_point++) {
        uint8_t text[5] = {0, 0, 0, 0, 0xEE};
        uint32_t back = UINT32_MAX;
        size_t length;

        if (code_point >= 0xD800 && code_point <= 0xDFFF) {
            continue;
        }
        length = utf8_encode(code_point, text);
        if (length == 0 || length > 4 || text[4] != 0xEE || oracle_length(text, length) != length ||
            utf8_decode(bytes_of(text, length), &back) != length || back != code_point) {
            fail_msg("code point U+%04X", (unsigned)code_point);
        }
        for (size_t cut = 0; cut < length; cut++) {
            if (utf8_decode(bytes_of(text, cut), &back) != 0 || back != code_point) {
                fail_msg("code point U+%04X cut to %zu bytes", (unsigned)code_point, cut);
            }
        }
        count++;
    }
    assert_int_equal(count, 0x110000 - 0x800);
}

static void test_known_characters_have_their_known_bytes(void **state)
{
    const struct {
        uint32_t code_point;
        const char *text;
    } known[] = {{0x24, "$"},
                 {0xA3, "\xC2\xA3"},
                 {0x20AC, "\xE2\x82\xAC"},
                 {0x10348, "\xF0\x90\x8D\x88"},
                 {0x10FFFF, "\xF4\x8F\xBF\xBF"}};

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint8_t text[4];
        const size_t length = utf8_encode(known[i].code_point, text);

        assert_int_equal(length, strlen(known[i].text));
        assert_memory_equal(text, known[i].text, length);
    }
}

static void test_every_short_string_is_judged_like_the_standard(void **state)
{
    (void)state;
    assert_true(utf8_is_valid(bytes_of(NULL, 0)));
    for (uint32_t i = 0; i < 1u << 24; i++) {
        const uint8_t text[3] = {(uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};

        if (!agrees(text, 3) || (text[2] == 0 && !agrees(text, 2))) {
            fail_msg("bytes %02x %02x %02x", text[0], text[1], text[2]);
        }
    }
}

static void test_four_bytes_are_judged_like_the_standard_at_the_edges(void **state)
{
    const uint8_t edges[] = {0x00, 0x41, 0x7F, 0x80, 0x81, 0x8F, 0x90, 0x9F, 0xA0,
                             0xBE, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
    const size_t edge_count = sizeof(edges);

    (void)state;
    for (uint32_t first = 0xE0; first <= 0xFF; first++) {
        for (uint32_t second = 0; second <= 0xFF; second++) {
            for (size_t i = 0; i < edge_count * edge_count; i++) {
                const uint8_t text[4] = {(uint8_t)first, (uint8_t)second, edges[i / edge_count],
                                         edges[i % edge_count]};

                if (!agrees(text, 4)) {
                    fail_msg("bytes %02x %02x %02x %02x", text[0], text[1], text[2], text[3]);
                }
            }
        }
    }
}

/* The twin: strings that lenient decoders take, and a good one, so that neither answer is idle. */
static void test_the_comparison_tells_good_strings_from_lenient_ones(void **state)
{
    const char *lenient[] = {
        "\xC0\x80", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80",
        "\x80",     "a\xFE"};

    (void)state;
    for (size_t i = 0; i < sizeof(lenient) / sizeof(lenient[0]); i++) {
        assert_false(utf8_is_valid(bytes_of_text(lenient[i])));
    }
    assert_true(utf8_is_valid(bytes_of_text("na\xC3\xAFve \xF0\x9F\x90\xA6")));
}

static void test_a_prefix_stops_before_a_character_that_is_cut(void **state)
{
    const char *text = "ab\xE2\x82\xAC";

    (void)state;
    assert_int_equal(utf8_valid_prefix_bytes(bytes_of(text, 5)), 5);
    assert_int_equal(utf8_valid_prefix_bytes(bytes_of(text, 4)), 2);
    assert_int_equal(utf8_valid_prefix_bytes(bytes_of(text, 3)), 2);
    assert_int_equal(utf8_valid_prefix_bytes(bytes_of("\0x\xFFy", 4)), 2);
}

static void test_numbers_are_little_endian_at_any_address(void **state)
{
    uint8_t memory[17] = {0xEE, 0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88};

    (void)state;
    assert_int_equal(bytes_load_u16(memory + 1), 0x8201);
    assert_true(bytes_load_u32(memory + 1) == 0x84038201u);
    assert_true(bytes_load_u64(memory + 1) == UINT64_C(0x8807860584038201));
    bytes_store_u64(memory + 9, UINT64_C(0x8807860584038201));
    assert_memory_equal(memory + 9, memory + 1, 8);
    bytes_store_u32(memory + 9, 0xFFEEDDCCu);
    assert_memory_equal(memory + 9, "\xCC\xDD\xEE\xFF\x05", 5);
}

static void test_views_are_equal_by_content(void **state)
{
    (void)state;
    assert_true(bytes_equal(bytes_of(NULL, 0), bytes_of("x", 0)));
    assert_true(bytes_equal(bytes_of("a\0b", 3), bytes_of("a\0b", 3)));
    assert_false(bytes_equal(bytes_of("a\0b", 3), bytes_of("a\0c", 3)));
    assert_false(bytes_equal(bytes_of_text("ab"), bytes_of_text("a")));
}

static void test_the_hash_is_fnv_1a(void **state)
{
    (void)state;
    assert_true(bytes_hash(bytes_of(NULL, 0)) == UINT64_C(0xCBF29CE484222325));
    assert_true(bytes_hash(bytes_of_text("a")) == UINT64_C(0xAF63DC4C8601EC8C));
    assert_true(bytes_hash(bytes_of_text("foobar")) == UINT64_C(0x85944171F73967E8));
}

static void test_a_buffer_behaves_like_a_plain_array(void **state)
{
    static uint8_t model[70000];
    struct buffer buffer;
    size_t size = 0;
    uint32_t seed = 7;

    (void)state;
    buffer_init(&buffer, 65536);
    for (int i = 0; i < 5000; i++) {
        uint8_t piece[300];
        size_t count;

        seed = seed * 1664525u + 1013904223u;
        count = (seed >> 16) % sizeof(piece);
        if (seed >> 30 == 0) {
            count = count < size ? count : size;
            buffer_consume(&buffer, count);
            memmove(model, model + count, size - count);
            size -= count;
        } else {
            memset(piece, (int)(seed >> 8 & 0xFF), count);
            if (buffer_append(&buffer, bytes_of(piece, count)) == STATUS_OK) {
                memcpy(model + size, piece, count);
                size += count;
            } else {
                assert_true(size + count > 65536);
                buffer_consume(&buffer, size);
                size = 0;
            }
        }
        assert_true(bytes_equal(buffer_bytes(&buffer), bytes_of(model, size)));
        assert_true(buffer.capacity <= 65536);
    }
    buffer_finish(&buffer);
}

static void test_a_full_buffer_answers_limit_and_keeps_its_content(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 10);
    assert_int_equal(buffer_append_text(&buffer, "0123456789"), STATUS_OK);
    assert_int_equal(buffer_append_text(&buffer, "x"), STATUS_LIMIT);
    assert_int_equal(buffer_append_text(&buffer, ""), STATUS_OK);
    assert_int_equal(buffer_reserve(&buffer, SIZE_MAX), STATUS_LIMIT);
    assert_true(bytes_equal(buffer_bytes(&buffer), bytes_of_text("0123456789")));
    buffer_finish(&buffer);
    assert_int_equal(buffer.size, 0);
    buffer_finish(&buffer);
}

static void test_a_buffer_survives_a_failed_allocation(void **state)
{
    const int64_t live = memory_live_count();
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 1 << 20);
    memory_fault_set(1);
    assert_int_equal(buffer_append_text(&buffer, "kept"), STATUS_OK);
    assert_int_equal(buffer_reserve(&buffer, 1 << 16), STATUS_MEMORY);
    memory_fault_set(-1);
    assert_true(bytes_equal(buffer_bytes(&buffer), bytes_of_text("kept")));
    assert_int_equal(buffer_reserve(&buffer, 1 << 16), STATUS_OK);
    assert_true(bytes_equal(buffer_bytes(&buffer), bytes_of_text("kept")));
    buffer_finish(&buffer);
    assert_true(memory_live_count() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point_survives_the_way_out_and_back),
        cmocka_unit_test(test_known_characters_have_their_known_bytes),
        cmocka_unit_test(test_every_short_string_is_judged_like_the_standard),
        cmocka_unit_test(test_four_bytes_are_judged_like_the_standard_at_the_edges),
        cmocka_unit_test(test_the_comparison_tells_good_strings_from_lenient_ones),
        cmocka_unit_test(test_a_prefix_stops_before_a_character_that_is_cut),
        cmocka_unit_test(test_numbers_are_little_endian_at_any_address),
        cmocka_unit_test(test_views_are_equal_by_content),
        cmocka_unit_test(test_the_hash_is_fnv_1a),
        cmocka_unit_test(test_a_buffer_behaves_like_a_plain_array),
        cmocka_unit_test(test_a_full_buffer_answers_limit_and_keeps_its_content),
        cmocka_unit_test(test_a_buffer_survives_a_failed_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
