#include "wire/codec.h"

#include "base/check.h"
#include "limits.h"
#include "wire/codec_inside.h"
#include "wire/frame.h"

/* The protocol's numbers are ours; where one moves, a cast below would lie. */
_Static_assert((int)PERSONAD__V1__FINISH__WHOLE == (int)NODE_WHOLE, "finish numbers");
_Static_assert((int)PERSONAD__V1__FINISH__CUT == (int)NODE_CUT, "finish numbers");
_Static_assert((int)PERSONAD__V1__ORIGIN__IMPORTED == (int)ORIGIN_IMPORTED, "origin numbers");
_Static_assert((int)PERSONAD__V1__DELIVERY__NO_FOLLOW == (int)DELIVERY_NO_FOLLOW, "deliveries");
_Static_assert((int)PERSONAD__V1__WALK_WHAT__NODE == (int)WALK_NODE, "walks");
_Static_assert((int)PERSONAD__V1__VISIBILITY__PUBLIC == (int)VISIBILITY_PUBLIC, "visibilities");
_Static_assert((int)PERSONAD__V1__ERROR_CODE__NUMERIC == (int)STATUS_NUMERIC, "error codes");

/* What one reply may take beside the session's own memory: its lists are cut to a frame. */
enum { BUILD_BYTES_MAX = 64 * 1024 * 1024 };

/* ---------------------------------------------------------------- shared by the families */

enum status codec_check_count(size_t count, size_t count_max, const char *limit_name,
                              const char *field, struct error *error)
{
    if (count <= count_max) {
        return STATUS_OK;
    }
    return error_set_limit(error, limit_name, count_max, "%s: %zu is more than %zu", field, count,
                           count_max);
}

enum status codec_check_text(ProtobufCBinaryData text, size_t bytes_max, const char *limit_name,
                             const char *field, struct error *error, struct bytes *out)
{
    const struct bytes view = codec_view(text);
    if (view.size > bytes_max) {
        return error_set_limit(error, limit_name, bytes_max, "%s: %zu bytes are more than %zu",
                               field, view.size, bytes_max);
    }
    if (!utf8_is_valid(view)) {
        return error_set(error, STATUS_BAD_INPUT, "%s: not valid UTF-8 after byte %zu", field,
                         utf8_valid_prefix_bytes(view));
    }
    *out = view;
    return STATUS_OK;
}

void *codec_new(struct arena *arena, const ProtobufCMessageDescriptor *kind)
{
    void *message = arena_alloc(arena, 1, kind->sizeof_message);
    if (message != NULL) {
        protobuf_c_message_init(kind, message);
    }
    return message;
}

void *codec_new_list(struct arena *arena, const ProtobufCMessageDescriptor *kind, size_t count)
{
    void **list = arena_alloc(arena, count + 1, sizeof *list);
    char *messages = arena_alloc(arena, count + 1, kind->sizeof_message);
    if (list == NULL || messages == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        list[i] = messages + i * kind->sizeof_message;
        protobuf_c_message_init(kind, list[i]);
    }
    return list;
}

/* A page is bounded rather than refused: `end` tells the reader to go on. */
struct request_page codec_page(bool has_after, uint64_t after, bool has_count, uint32_t count)
{
    const struct request_page page = {
        .after = has_after ? after : 0,
        .count =
            has_count && count > 0 && count < LIST_PAGE_COUNT_MAX ? count : LIST_PAGE_COUNT_MAX,
    };
    return page;
}

void codec_position(const Personad__V1__Position *from, bool *has, struct position *out)
{
    *has = from != NULL;
    if (from != NULL) {
        out->node = from->has_node ? from->node : 0;
        out->offset = from->has_offset ? from->offset : OFFSET_END;
    }
}

Personad__V1__Position *codec_build_position(struct position position, struct arena *arena)
{
    Personad__V1__Position *message = codec_new(arena, &personad__v1__position__descriptor);
    if (message != NULL) {
        CODEC_SET(message, node, position.node);
        CODEC_SET(message, offset, position.offset);
    }
    return message;
}

static void error_fill(const struct error *error, Personad__V1__Error *out)
{
    CODEC_SET(out, code, (Personad__V1__ErrorCode)error->status);
    CODEC_SET_BYTES(
        out, text,
        bytes_of_text(error->text[0] != '\0' ? error->text : status_text(error->status)));
    if (error->status == STATUS_LIMIT && error->limit_name != NULL) {
        CODEC_SET_BYTES(out, limit_name, bytes_of_text(error->limit_name));
        CODEC_SET(out, limit_value, error->limit_value);
    }
}

Personad__V1__Error *codec_build_error(const struct error *error, struct arena *arena)
{
    Personad__V1__Error *message = codec_new(arena, &personad__v1__error__descriptor);
    if (message != NULL) {
        error_fill(error, message);
    }
    return message;
}

/* ---------------------------------------------------------------- bytes in */

struct budget {
    struct arena *arena;
    bool is_spent;
};

static void *budget_alloc(void *context, size_t size)
{
    struct budget *budget = context;
    void *memory = arena_alloc(budget->arena, 1, size);
    budget->is_spent |= memory == NULL;
    return memory;
}

/* The arena frees all at once. */
static void budget_free(void *context, void *memory)
{
    (void)context;
    (void)memory;
}

static enum codec_kind kind_of(const Personad__V1__Request *request)
{
    switch (request->op_case) {
    case PERSONAD__V1__REQUEST__OP_HELLO:
        return CODEC_HELLO;
    case PERSONAD__V1__REQUEST__OP__NOT_SET:
        return CODEC_UNKNOWN;
    default:
        return CODEC_REQUEST;
    }
}

enum status codec_unpack(struct bytes body, struct arena *arena, struct error *error,
                         struct codec_message *out)
{
    struct budget budget = {arena, false};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    Personad__V1__Request *request =
        personad__v1__request__unpack(&allocator, body.size, body.data);
    if (request == NULL && budget.is_spent) {
        return error_set_limit(error, "MESSAGE_UNPACK_BYTES_MAX", MESSAGE_UNPACK_BYTES_MAX,
                               "the message has too many parts: unpacked it would take more than "
                               "%d bytes",
                               MESSAGE_UNPACK_BYTES_MAX);
    }
    if (request == NULL) {
        return error_set(error, STATUS_BAD_INPUT,
                         "a frame of %zu bytes does not hold a Request message", body.size);
    }
    out->id = request->has_id ? request->id : 0;
    out->kind = kind_of(request);
    out->unpacked = request;
    return STATUS_OK;
}

enum status codec_decode_hello(const struct codec_message *message, struct error *error,
                               struct codec_hello *out)
{
    const Personad__V1__Request *request = message->unpacked;
    CHECK(message->kind == CODEC_HELLO);
    const Personad__V1__HelloRequest *hello = request->hello;
    struct codec_hello made = {.protocol = hello->has_protocol ? hello->protocol : CODEC_PROTOCOL};
    if (made.protocol < CODEC_PROTOCOL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "hello: this daemon speaks protocol %d and none below it", CODEC_PROTOCOL);
    }
    TRY(codec_check_text(hello->client, CLIENT_NAME_BYTES_MAX, "CLIENT_NAME_BYTES_MAX",
                         "hello.client", error, &made.client));
    *out = made;
    return STATUS_OK;
}

/* Those without fields, or with a page only, need no decoder of their own. */
static enum status plain_decode(const Personad__V1__Request *from, struct arena *arena,
                                struct error *error, struct request *out)
{
    switch (from->op_case) {
    case PERSONAD__V1__REQUEST__OP_INFO:
        out->type = REQUEST_INFO;
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_STATS:
        out->type = REQUEST_STATS;
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_PERSONA_LIST:
        out->type = REQUEST_PERSONA_LIST;
        out->u.page = codec_page(from->persona_list->has_after, from->persona_list->after,
                                 from->persona_list->has_count, from->persona_list->count);
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_SESSION_LIST:
        out->type = REQUEST_SESSION_LIST;
        out->u.page = codec_page(from->session_list->has_after, from->session_list->after,
                                 from->session_list->has_count, from->session_list->count);
        out->u.page.deleted = from->session_list->has_deleted && from->session_list->deleted;
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_WALK:
        codec_decode_walk(from->walk, out);
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_HEAD:
        out->type = REQUEST_HEAD;
        out->u.head.session = from->head->session;
        codec_position(from->head->position, &out->u.head.has_position, &out->u.head.position);
        return STATUS_OK;
    default:
        return codec_decode_tree(from, arena, error, out);
    }
}

static enum status op_decode(const Personad__V1__Request *from, struct arena *arena,
                             struct error *error, struct request *out)
{
    switch (from->op_case) {
    case PERSONAD__V1__REQUEST__OP_PERSONA_PUT:
        return codec_decode_persona_put(from->persona_put, error, out);
    case PERSONAD__V1__REQUEST__OP_PERSONA_GET:
        return codec_decode_persona_get(from->persona_get, error, out);
    case PERSONAD__V1__REQUEST__OP_SESSION_OPEN:
        return codec_decode_session_open(from->session_open, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_SAY:
        return codec_decode_say(from->say, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_GENERATE:
        return codec_decode_generate(from->generate, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_APPEND:
        return codec_decode_append(from->append, error, out);
    case PERSONAD__V1__REQUEST__OP_FOLLOW:
        return codec_decode_follow(from->follow, error, out);
    case PERSONAD__V1__REQUEST__OP_CANCEL:
        return codec_decode_cancel(from->cancel, error, out);
    case PERSONAD__V1__REQUEST__OP_TOKENIZE:
        return codec_decode_tokenize(from->tokenize, error, out);
    case PERSONAD__V1__REQUEST__OP_BACKUP:
        return codec_decode_backup(from->backup, error, out);
    case PERSONAD__V1__REQUEST__OP_DETOKENIZE:
        return codec_decode_detokenize(from->detokenize, error, out);
    case PERSONAD__V1__REQUEST__OP_SESSION_EXPORT:
    case PERSONAD__V1__REQUEST__OP_SESSION_IMPORT:
        return codec_decode_transfer(from, error, out);
    case PERSONAD__V1__REQUEST__OP_DISTRIBUTION:
    case PERSONAD__V1__REQUEST__OP_SCORE:
    case PERSONAD__V1__REQUEST__OP_COMPARE:
    case PERSONAD__V1__REQUEST__OP_GROUP:
    case PERSONAD__V1__REQUEST__OP_VERIFY:
        return codec_decode_look(from, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_EXPAND:
        return codec_decode_expand(from->expand, error, out);
    case PERSONAD__V1__REQUEST__OP_KEEP:
        codec_decode_keep(from->keep, out);
        return STATUS_OK;
    default:
        return plain_decode(from, arena, error, out);
    }
}

enum status codec_decode(const struct codec_message *message, uint32_t uid, struct arena *arena,
                         struct error *error, struct request *out, uint64_t *cancel_request)
{
    const Personad__V1__Request *from = message->unpacked;
    CHECK(message->kind == CODEC_REQUEST);
    struct request made = {.uid = uid, .client_key = codec_view(from->client_key)};
    TRY(codec_check_count(made.client_key.size, CLIENT_KEY_BYTES_MAX, "CLIENT_KEY_BYTES_MAX",
                          "client_key", error));
    TRY(op_decode(from, arena, error, &made));
    if (made.type == REQUEST_CANCEL && made.u.cancel.has_request) {
        *cancel_request = from->cancel->request;
    }
    *out = made;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- bytes out */

enum status codec_pack(const Personad__V1__Reply *reply, struct buffer *out)
{
    const size_t body_bytes = personad__v1__reply__get_packed_size(reply);
    if (body_bytes > FRAME_BODY_BYTES_MAX) {
        struct error error = {STATUS_OK, "", NULL, 0};
        (void)error_set_limit(&error, "FRAME_BODY_BYTES_MAX", FRAME_BODY_BYTES_MAX,
                              "the reply would take %zu bytes, more than one frame", body_bytes);
        return codec_encode_error(reply->id, &error, out);
    }
    TRY(buffer_reserve(out, FRAME_HEADER_BYTES + body_bytes));
    frame_format_header(body_bytes, out->data + out->size);
    const size_t written =
        personad__v1__reply__pack(reply, out->data + out->size + FRAME_HEADER_BYTES);
    CHECK(written == body_bytes);
    out->size += FRAME_HEADER_BYTES + body_bytes;
    return STATUS_OK;
}

static Personad__V1__Reply reply_to_id(uint64_t id)
{
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    CODEC_SET(&reply, id, id);
    return reply;
}

enum status codec_encode_error(uint64_t id, const struct error *error, struct buffer *out)
{
    Personad__V1__Reply reply = reply_to_id(id);
    Personad__V1__Error body = PERSONAD__V1__ERROR__INIT;
    error_fill(error, &body);
    reply.result_case = PERSONAD__V1__REPLY__RESULT_ERROR;
    reply.error = &body;
    return codec_pack(&reply, out);
}

enum status codec_encode_hello(uint64_t id, const struct codec_daemon *daemon, struct buffer *out)
{
    Personad__V1__Reply reply = reply_to_id(id);
    Personad__V1__HelloReply body = PERSONAD__V1__HELLO_REPLY__INIT;
    CODEC_SET(&body, protocol, CODEC_PROTOCOL);
    CODEC_SET_BYTES(&body, daemon_version, bytes_of_text(daemon->version));
    CODEC_SET(&body, request_credits, REQUEST_PER_CONNECTION_COUNT_MAX);
    CODEC_SET(&body, frame_bytes_max, FRAME_BODY_BYTES_MAX);
    reply.result_case = PERSONAD__V1__REPLY__RESULT_HELLO;
    reply.hello = &body;
    return codec_pack(&reply, out);
}

enum status codec_encode_done(uint64_t id, struct buffer *out)
{
    Personad__V1__Reply reply = reply_to_id(id);
    Personad__V1__DoneReply body = PERSONAD__V1__DONE_REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_DONE;
    reply.done = &body;
    return codec_pack(&reply, out);
}

static enum status head_build(const struct reply *reply, struct arena *arena,
                              Personad__V1__Reply *out)
{
    Personad__V1__HeadReply *body = codec_new(arena, &personad__v1__head_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->position = codec_build_position(reply->u.head, arena);
    out->result_case = PERSONAD__V1__REPLY__RESULT_HEAD;
    out->head = body;
    return body->position != NULL ? STATUS_OK : STATUS_MEMORY;
}

static enum status reply_build(const struct reply *reply, const struct codec_daemon *daemon,
                               struct arena *arena, Personad__V1__Reply *out)
{
    switch (reply->type) {
    case REPLY_ERROR:
        out->result_case = PERSONAD__V1__REPLY__RESULT_ERROR;
        out->error = codec_build_error(&reply->error, arena);
        return out->error != NULL ? STATUS_OK : STATUS_MEMORY;
    case REPLY_INFO:
        return codec_build_info(reply, daemon, arena, out);
    case REPLY_STATS:
        return codec_build_stats(reply, daemon, arena, out);
    case REPLY_PERSONA:
        return codec_build_persona(reply, arena, out);
    case REPLY_PERSONA_LIST:
        return codec_build_personas(reply, arena, out);
    case REPLY_SESSION:
        return codec_build_session(reply, arena, out);
    case REPLY_SESSION_LIST:
        return codec_build_sessions(reply, arena, out);
    case REPLY_CREATED:
        return codec_build_created(reply, arena, out);
    case REPLY_WALK:
        return codec_build_walk(reply, arena, out);
    case REPLY_HEAD:
        return head_build(reply, arena, out);
    case REPLY_TOKENS:
        return codec_build_tokenize(reply, arena, out);
    case REPLY_TEXT:
        return codec_build_detokenize(reply, arena, out);
    case REPLY_NOTE:
        return codec_build_note(reply, arena, out);
    case REPLY_BOOKMARK_LIST:
        return codec_build_bookmarks(reply, arena, out);
    case REPLY_CONTEXT:
        return codec_build_context(reply, arena, out);
    case REPLY_EXPORT:
    case REPLY_IMPORT:
        return codec_build_transfer(reply, arena, out);
    case REPLY_DISTRIBUTION:
    case REPLY_SCORE:
    case REPLY_COMPARE:
    case REPLY_GROUP:
    case REPLY_VERIFY:
        return codec_build_look(reply, arena, out);
    case REPLY_EXPAND:
        return codec_build_expand(reply, arena, out);
    case REPLY_DONE:
        out->result_case = PERSONAD__V1__REPLY__RESULT_DONE;
        out->done = codec_new(arena, &personad__v1__done_reply__descriptor);
        return out->done != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    CHECK(false);
    return STATUS_MEMORY;
}

enum status codec_encode_reply(uint64_t id, const struct reply *reply, bool more,
                               const struct codec_daemon *daemon, struct buffer *out)
{
    Personad__V1__Reply message = reply_to_id(id);
    struct arena arena;
    arena_init(&arena, BUILD_BYTES_MAX);
    if (more) {
        CODEC_SET(&message, more, true);
    }
    enum status status = reply_build(reply, daemon, &arena, &message);
    if (status == STATUS_OK) {
        status = codec_pack(&message, out);
    }
    arena_finish(&arena);
    return status;
}
