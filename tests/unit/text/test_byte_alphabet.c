/* Goal: each byte has one letter and each letter one byte.
 * Method: all 256 bytes there and back, all code points back, and the letters that everyone knows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "text/byte_alphabet.h"

static void test_every_byte_has_one_letter_of_its_own(void **state)
{
    (void)state;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint8_t back = 0;
        const uint32_t code_point = byte_alphabet_code_point((uint8_t)byte);
        assert_true(code_point > 0x20 && code_point < 0x144);
        assert_true(byte_alphabet_byte(code_point, &back));
        assert_int_equal(back, byte);
    }
}

static void test_no_other_code_point_writes_a_byte(void **state)
{
    uint32_t count = 0;
    uint8_t byte;

    (void)state;
    for (uint32_t code_point = 0; code_point <= 0x10ffff; code_point++) {
        count += byte_alphabet_byte(code_point, &byte);
    }
    assert_int_equal(count, 256);
}

static void test_letters_are_the_ones_that_vocabularies_use(void **state)
{
    (void)state;
    assert_int_equal(byte_alphabet_code_point(' '), 0x120);
    assert_int_equal(byte_alphabet_code_point('\n'), 0x10a);
    assert_int_equal(byte_alphabet_code_point('a'), 'a');
    assert_int_equal(byte_alphabet_code_point(0x7f), 0x121);
    assert_int_equal(byte_alphabet_code_point(0xa0), 0x142);
    assert_int_equal(byte_alphabet_code_point(0xad), 0x143);
    assert_int_equal(byte_alphabet_code_point(0xff), 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_has_one_letter_of_its_own),
        cmocka_unit_test(test_no_other_code_point_writes_a_byte),
        cmocka_unit_test(test_letters_are_the_ones_that_vocabularies_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
