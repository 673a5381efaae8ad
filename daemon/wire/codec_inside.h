/* What the files of the codec share: views of protobuf's bytes, checks that name the field, the
 * decoders and builders of each family.
 *
 * Thread: loop. Decoders get the unpacked message of their family and fill one part of a request;
 * builders fill a reply message whose parts lie in the arena and borrow the session's views. All
 * answer MEMORY when the arena is full.
 */
#ifndef PERSONAD_WIRE_CODEC_INSIDE_H
#define PERSONAD_WIRE_CODEC_INSIDE_H

#include "base/arena.h"
#include "base/error.h"
#include "limits.h"
#include "personad.pb-c.h"
#include "session/request.h"
#include "wire/codec.h"

enum {
    CODEC_LIST_BYTES_MAX = FRAME_BODY_BYTES_MAX - 4096, /* the rest is for ids and tags */
    CODEC_ITEM_BYTES = 8,                               /* tag and length of an item, at most */
};

static inline struct bytes codec_view(ProtobufCBinaryData data)
{
    return bytes_of(data.data, data.len);
}

/* protobuf-c has no const; packing does not write. */
static inline ProtobufCBinaryData codec_data(struct bytes bytes)
{
    ProtobufCBinaryData data = {bytes.size, (uint8_t *)(uintptr_t)bytes.data};
    return data;
}

/* Sets an optional field of the message and its has-bit. */
#define CODEC_SET(message, field, value) \
    do {                                 \
        (message)->has_##field = 1;      \
        (message)->field = (value);      \
    } while (0)

/* Sets optional bytes unless they are empty. */
#define CODEC_SET_BYTES(message, field, value)          \
    do {                                                \
        const struct bytes codec_value = (value);       \
        if (codec_value.size > 0) {                     \
            (message)->has_##field = 1;                 \
            (message)->field = codec_data(codec_value); \
        }                                               \
    } while (0)

/* LIMIT names the field, its size and the bound. */
MUST_USE enum status codec_check_count(size_t count, size_t count_max, const char *limit_name,
                                       const char *field, struct error *error);

/* Valid UTF-8 of at most bytes_max bytes. */
MUST_USE enum status codec_check_text(ProtobufCBinaryData text, size_t bytes_max,
                                      const char *limit_name, const char *field,
                                      struct error *error, struct bytes *out);

/* One message of that kind, initialised; NULL when the arena is full. */
void *codec_new(struct arena *arena, const ProtobufCMessageDescriptor *kind);

/* `count` of them and the array of pointers that protobuf-c wants. */
void *codec_new_list(struct arena *arena, const ProtobufCMessageDescriptor *kind, size_t count);

struct request_page codec_page(bool has_after, uint64_t after, bool has_count, uint32_t count);
void codec_position(const Personad__V1__Position *from, bool *has, struct position *out);
Personad__V1__Error *codec_build_error(const struct error *error, struct arena *arena);
Personad__V1__Position *codec_build_position(struct position position, struct arena *arena);

/* codec_persona.c */
MUST_USE enum status codec_decode_persona_put(const Personad__V1__PersonaPutRequest *from,
                                              struct error *error, struct request *out);
MUST_USE enum status codec_decode_persona_get(const Personad__V1__PersonaGetRequest *from,
                                              struct error *error, struct request *out);
MUST_USE enum status codec_build_persona(const struct reply *reply, struct arena *arena,
                                         Personad__V1__Reply *out);
MUST_USE enum status codec_build_personas(const struct reply *reply, struct arena *arena,
                                          Personad__V1__Reply *out);

/* codec_session.c */
MUST_USE enum status codec_decode_session_open(const Personad__V1__SessionOpenRequest *from,
                                               struct arena *arena, struct error *error,
                                               struct request *out);
/* Further speakers of a cast. */
MUST_USE enum status codec_decode_members(Personad__V1__CastEntry *const *from, size_t count,
                                          struct arena *arena, struct error *error,
                                          const struct request_member **out, uint32_t *out_count);
MUST_USE enum status codec_build_session(const struct reply *reply, struct arena *arena,
                                         Personad__V1__Reply *out);
MUST_USE enum status codec_build_sessions(const struct reply *reply, struct arena *arena,
                                          Personad__V1__Reply *out);

MUST_USE enum status codec_fill_session(const struct session_view *view, struct arena *arena,
                                        Personad__V1__SessionInfo *out);

/* codec_transfer.c */
MUST_USE enum status codec_decode_transfer(const Personad__V1__Request *from, struct error *error,
                                           struct request *out);
MUST_USE enum status codec_build_transfer(const struct reply *reply, struct arena *arena,
                                          Personad__V1__Reply *out);

/* codec_generate.c */
MUST_USE enum status codec_decode_say(const Personad__V1__SayRequest *from, struct arena *arena,
                                      struct error *error, struct request *out);
MUST_USE enum status codec_decode_generate(const Personad__V1__GenerateRequest *from,
                                           struct arena *arena, struct error *error,
                                           struct request *out);
MUST_USE enum status codec_decode_append(const Personad__V1__AppendRequest *from,
                                         struct error *error, struct request *out);
MUST_USE enum status codec_decode_follow(const Personad__V1__FollowRequest *from,
                                         struct error *error, struct request *out);
MUST_USE enum status codec_decode_cancel(const Personad__V1__CancelRequest *from,
                                         struct error *error, struct request *out);
MUST_USE enum status codec_build_created(const struct reply *reply, struct arena *arena,
                                         Personad__V1__Reply *out);

/* codec_walk.c: the part of a node that was asked for. */
struct codec_parts {
    bool text, content, numbers;
};

void codec_decode_walk(const Personad__V1__WalkRequest *from, struct request *out);
MUST_USE enum status codec_build_walk(const struct reply *reply, struct arena *arena,
                                      Personad__V1__Reply *out);
MUST_USE enum status codec_fill_node(const struct node_view *view, struct codec_parts parts,
                                     struct arena *arena, Personad__V1__NodeInfo *out);
MUST_USE enum status codec_fill_numbers(const struct node_view *view, uint32_t first,
                                        uint32_t count, struct arena *arena,
                                        Personad__V1__Numbers *out);

/* codec_tree.c: UNSUPPORTED when it is none of its family. */
MUST_USE enum status codec_decode_tree(const Personad__V1__Request *from, struct arena *arena,
                                       struct error *error, struct request *out);
MUST_USE enum status codec_build_bookmarks(const struct reply *reply, struct arena *arena,
                                           Personad__V1__Reply *out);
MUST_USE enum status codec_build_note(const struct reply *reply, struct arena *arena,
                                      Personad__V1__Reply *out);
MUST_USE enum status codec_build_context(const struct reply *reply, struct arena *arena,
                                         Personad__V1__Reply *out);

/* codec_text.c */
MUST_USE enum status codec_decode_tokenize(const Personad__V1__TokenizeRequest *from,
                                           struct error *error, struct request *out);
MUST_USE enum status codec_decode_backup(const Personad__V1__BackupRequest *from,
                                         struct error *error, struct request *out);
MUST_USE enum status codec_decode_detokenize(const Personad__V1__DetokenizeRequest *from,
                                             struct error *error, struct request *out);
MUST_USE enum status codec_build_tokenize(const struct reply *reply, struct arena *arena,
                                          Personad__V1__Reply *out);
MUST_USE enum status codec_build_detokenize(const struct reply *reply, struct arena *arena,
                                            Personad__V1__Reply *out);

/* Where one looks: the fields are the same in all messages that have them. */
#define CODEC_LOOK_PLACE(from, out)                                               \
    do {                                                                          \
        codec_position((from)->position, &(out)->has_position, &(out)->position); \
        (out)->has_speaker = (from)->has_speaker;                                 \
        (out)->speaker = (from)->speaker;                                         \
        (out)->continuing = (from)->has_continuing && (from)->continuing;         \
    } while (0)

/* codec_look.c: the whole family. */
enum branch_priority codec_priority(bool has, Personad__V1__Priority from);
MUST_USE enum status codec_decode_look(const Personad__V1__Request *from, struct arena *arena,
                                       struct error *error, struct request *out);
MUST_USE enum status codec_build_look(const struct reply *reply, struct arena *arena,
                                      Personad__V1__Reply *out);

/* codec_expand.c */
MUST_USE enum status codec_decode_expand(const Personad__V1__ExpandRequest *from,
                                         struct error *error, struct request *out);
void codec_decode_keep(const Personad__V1__KeepRequest *from, struct request *out);
MUST_USE enum status codec_build_expand(const struct reply *reply, struct arena *arena,
                                        Personad__V1__Reply *out);

/* codec_daemon.c */
MUST_USE enum status codec_build_info(const struct reply *reply, const struct codec_daemon *daemon,
                                      struct arena *arena, Personad__V1__Reply *out);
MUST_USE enum status codec_build_stats(const struct reply *reply, const struct codec_daemon *daemon,
                                       struct arena *arena, Personad__V1__Reply *out);

/* codec.c: one frame. */
MUST_USE enum status codec_pack(const Personad__V1__Reply *reply, struct buffer *out);

#endif
