/* Goal: frames are found wherever their bytes are cut, and a length past the bound is refused from
 * the header alone.
 * Method: frames of many sizes, parsed from every prefix; the bound and its two neighbours; a twin
 * that flips one bit of a length and must be noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "limits.h"
#include "wire/frame.h"

enum { STREAM_BYTES = 4096 };

static uint8_t stream[STREAM_BYTES];

static size_t frame_put(size_t at, size_t body_bytes)
{
    frame_format_header(body_bytes, stream + at);
    memset(stream + at + FRAME_HEADER_BYTES, (int)body_bytes, body_bytes);
    return at + FRAME_HEADER_BYTES + body_bytes;
}

static void a_frame_is_found_once_its_last_byte_is_there(void **state)
{
    static const size_t sizes[] = {0, 1, 3, 4, 5, 255, 256, 1000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t end = frame_put(0, sizes[i]);
        struct frame frame;
        for (size_t size = 0; size < end; size++) {
            assert_int_equal(frame_parse(bytes_of(stream, size), &frame), STATUS_AGAIN);
        }
        assert_int_equal(frame_parse(bytes_of(stream, end), &frame), STATUS_OK);
        assert_int_equal(frame.size_bytes, end);
        assert_int_equal(frame.body.size, sizes[i]);
        assert_ptr_equal(frame.body.data, stream + FRAME_HEADER_BYTES);
    }
}

static void frames_follow_each_other(void **state)
{
    size_t end = 0;
    size_t at = 0;
    (void)state;
    for (size_t size = 0; size < 60; size++) {
        end = frame_put(end, size);
    }
    for (size_t size = 0; size < 60; size++) {
        struct frame frame;
        assert_int_equal(frame_parse(bytes_of(stream + at, end - at), &frame), STATUS_OK);
        assert_int_equal(frame.body.size, size);
        at += frame.size_bytes;
    }
    assert_int_equal(at, end);
}

static void a_flipped_bit_of_a_length_is_noticed(void **state)
{
    const size_t end = frame_put(0, 100);
    struct frame frame;
    (void)state;
    for (int bit = 0; bit < 32; bit++) {
        stream[bit / 8] ^= (uint8_t)(1 << bit % 8);
        const enum status status = frame_parse(bytes_of(stream, end), &frame);
        assert_true(status != STATUS_OK || frame.size_bytes != end);
        stream[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void the_bound_holds_before_the_body_comes(void **state)
{
    struct frame frame;
    (void)state;
    bytes_store_u32(stream, FRAME_BODY_BYTES_MAX);
    assert_int_equal(frame_parse(bytes_of(stream, FRAME_HEADER_BYTES), &frame), STATUS_AGAIN);
    bytes_store_u32(stream, FRAME_BODY_BYTES_MAX + 1);
    assert_int_equal(frame_parse(bytes_of(stream, FRAME_HEADER_BYTES), &frame), STATUS_LIMIT);
    bytes_store_u32(stream, UINT32_MAX);
    assert_int_equal(frame_parse(bytes_of(stream, FRAME_HEADER_BYTES), &frame), STATUS_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_found_once_its_last_byte_is_there),
        cmocka_unit_test(frames_follow_each_other),
        cmocka_unit_test(a_flipped_bit_of_a_length_is_noticed),
        cmocka_unit_test(the_bound_holds_before_the_body_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
