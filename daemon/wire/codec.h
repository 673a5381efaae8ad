/* Messages of the protocol to the session's plain structs and back: the only door to protobuf.
 *
 * Thread: loop. Nothing is owned: what is decoded lies in the caller's arena (unpacking copies the
 * body's bytes), what is encoded is appended to the caller's buffer as a whole frame. Field
 * meanings, units and limits: proto/personad.proto.
 *
 * codec.c unpacks, dispatches and packs; codec_FAMILY.c hold the messages of one family each.
 */
#ifndef PERSONAD_WIRE_CODEC_H
#define PERSONAD_WIRE_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "session/request.h"

/* The one protocol version there is. */
enum { CODEC_PROTOCOL = 1 };

enum codec_kind { CODEC_HELLO, CODEC_REQUEST, CODEC_UNKNOWN };

struct codec_hello {
    uint32_t protocol;
    struct bytes client; /* valid UTF-8, at most CLIENT_NAME_BYTES_MAX */
};

/* A request as far as it could be unpacked: whom to answer, but not yet whether it is sound. */
struct codec_message {
    uint64_t id;
    enum codec_kind kind;
    const void *unpacked; /* codec's own, in the arena */
};

/* What the daemon says of itself in Hello, Info and Stats beside what the session knows. */
struct codec_daemon {
    const char *version;
    const char *socket_path;
    uint32_t connection_count; /* now */
    uint32_t connection_count_max;
    uint64_t memory_bytes; /* resident */
};

/* The arena is bounded by MESSAGE_UNPACK_BYTES_MAX. BAD_INPUT: not a Request; LIMIT: it takes more
 * memory than that. Neither can be answered by id. */
MUST_USE enum status codec_unpack(struct bytes body, struct arena *arena, struct error *error,
                                  struct codec_message *out);

/* kind CODEC_HELLO. BAD_INPUT, LIMIT or UNSUPPORTED (a protocol below ours). */
MUST_USE enum status codec_decode_hello(const struct codec_message *message, struct error *error,
                                        struct codec_hello *out);

/* kind CODEC_REQUEST: a request that keeps all that session/request.h promises. cancel_request is
 * set where u.cancel.has_request is. BAD_INPUT, LIMIT or MEMORY names the field. */
MUST_USE enum status codec_decode(const struct codec_message *message, uint32_t uid,
                                  struct arena *arena, struct error *error, struct request *out,
                                  uint64_t *cancel_request);

/* Encoders append one frame. MEMORY, or LIMIT where the buffer's bound is reached; a reply that
 * could never fit a frame is answered by an error in its place. id 0: the connection itself. */
MUST_USE enum status codec_encode_error(uint64_t id, const struct error *error, struct buffer *out);
MUST_USE enum status codec_encode_hello(uint64_t id, const struct codec_daemon *daemon,
                                        struct buffer *out);
MUST_USE enum status codec_encode_done(uint64_t id, struct buffer *out);

/* Lists and walks that do not fit a frame are cut to what fits, with end = false. */
MUST_USE enum status codec_encode_reply(uint64_t id, const struct reply *reply, bool more,
                                        const struct codec_daemon *daemon, struct buffer *out);

/* A stretch of what a node shows. The ranges lie inside the view and in one frame. */
struct codec_piece {
    uint32_t first_token, token_count;
    uint32_t first_byte, byte_count;
    bool numbers;
    uint32_t first_number, number_count;
};

MUST_USE enum status codec_encode_tokens(uint64_t id, const struct node_view *view,
                                         const struct codec_piece *piece, struct buffer *out);

/* Leaves out numbers, then ids, then text where they would not fit; codec_finished_fits() tells
 * whether they do. */
MUST_USE enum status codec_encode_finished(uint64_t id, const struct node_view *view, bool numbers,
                                           struct buffer *out);
bool codec_finished_fits(const struct node_view *view, bool numbers);

/* Bytes of one entry of Numbers at most. */
uint32_t codec_number_bytes(uint32_t top_count);

#endif
