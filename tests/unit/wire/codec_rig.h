/* Messages there and back for tests of the codec: a request is packed as clients do and decoded, a
 * reply encoded and unpacked.
 *
 * Thread: one. setup() and teardown() belong around each test; decoded requests live in between.
 */
#ifndef PERSONAD_TESTS_UNIT_WIRE_CODEC_RIG_H
#define PERSONAD_TESTS_UNIT_WIRE_CODEC_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "limits.h"
#include "personad.pb-c.h"
#include "wire/codec.h"
#include "wire/frame.h"

static const struct codec_daemon daemon_facts = {
    .version = "1.2.3", .socket_path = "/run/s", .connection_count = 4, .connection_count_max = 9};

static struct arena arena;
static uint64_t cancel_request;

static inline ProtobufCBinaryData data_of(const char *text)
{
    ProtobufCBinaryData data = {strlen(text), (uint8_t *)(uintptr_t)text};
    return data;
}

static inline int setup(void **state)
{
    (void)state;
    arena_init(&arena, MESSAGE_UNPACK_BYTES_MAX);
    cancel_request = 0;
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    arena_finish(&arena);
    return 0;
}

/* Packs, unpacks, decodes. */
static inline enum status decode(const Personad__V1__Request *message, struct error *error,
                                 struct request *out)
{
    const size_t size = personad__v1__request__get_packed_size(message);
    uint8_t *bytes = arena_alloc(&arena, size + 1, 1);
    struct codec_message unpacked;
    assert_non_null(bytes);
    assert_int_equal(personad__v1__request__pack(message, bytes), size);
    assert_int_equal(codec_unpack(bytes_of(bytes, size), &arena, error, &unpacked), STATUS_OK);
    assert_int_equal(unpacked.id, message->id);
    assert_int_equal(unpacked.kind, CODEC_REQUEST);
    return codec_decode(&unpacked, 7, &arena, error, out, &cancel_request);
}

static inline Personad__V1__Reply *unpack(const struct buffer *out)
{
    struct frame frame;
    assert_int_equal(frame_parse(buffer_bytes(out), &frame), STATUS_OK);
    assert_int_equal(frame.size_bytes, out->size);
    Personad__V1__Reply *reply =
        personad__v1__reply__unpack(NULL, frame.body.size, frame.body.data);
    assert_non_null(reply);
    return reply;
}

static inline Personad__V1__Reply *encode(const struct reply *reply, bool more)
{
    struct buffer out;
    buffer_init(&out, FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX);
    assert_int_equal(codec_encode_reply(42, reply, more, &daemon_facts, &out), STATUS_OK);
    Personad__V1__Reply *message = unpack(&out);
    assert_int_equal(message->id, 42);
    assert_int_equal(message->has_more && message->more, more);
    buffer_finish(&out);
    return message;
}

#endif
