/* Goal: no bytes break the decoder, it stays inside its memory, and a request that it lets through
 * keeps every promise of session/request.h.
 * Method: unpack and decode the input as one frame's body; check texts, counts and choices of what
 * came out against limits.h. */
#include <stddef.h>
#include <stdint.h>

#include "base/check.h"
#include "limits.h"
#include "wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static void check_text(struct bytes text, size_t bytes_max)
{
    CHECK(text.size <= bytes_max);
    CHECK(utf8_is_valid(text));
}

static void check_generation(const struct request_generation *generation)
{
    const struct sampler_settings *sampler = &generation->sampler;
    CHECK(generation->n >= 1 && generation->n <= GENERATE_SIBLING_COUNT_MAX);
    CHECK(generation->delivery <= DELIVERY_NO_FOLLOW);
    CHECK(generation->priority <= BRANCH_BATCH);
    check_text(generation->prefix, TEXT_BYTES_MAX);
    CHECK(sampler->bias_count <= LOGIT_BIAS_COUNT_MAX);
    CHECK(sampler->stop_count <= CUE_COUNT_MAX);
    for (uint32_t i = 0; i < sampler->stop_count; i++) {
        CHECK(sampler->stops[i].size > 0);
        check_text(sampler->stops[i], CUE_BYTES_MAX);
    }
    for (uint32_t i = 0; i < sampler->bias_count; i++) {
        CHECK(sampler->biases[i].token <= UINT32_MAX);
    }
    CHECK(sampler->rule.choice_count <= CHOICE_COUNT_MAX);
    for (uint32_t i = 0; i < sampler->rule.choice_count; i++) {
        CHECK(sampler->rule.choices[i].size > 0);
        check_text(sampler->rule.choices[i], CHOICE_BYTES_MAX);
    }
}

static void check_members(const struct request_member *members, uint32_t count)
{
    CHECK(count <= SESSION_CAST_COUNT_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const bool is_persona = members[i].persona != 0 || members[i].persona_name.size > 0;

        CHECK(is_persona == (members[i].name.size == 0));
        check_text(members[i].name, PERSONA_NAME_BYTES_MAX);
        check_text(members[i].persona_name, PERSONA_NAME_BYTES_MAX);
        CHECK(members[i].variable_count <= PERSONA_VARIABLE_COUNT_MAX);
    }
}

static void check_open(const struct request_session_open *open)
{
    check_text(open->persona_name, PERSONA_NAME_BYTES_MAX);
    check_text(open->user_name, PERSONA_NAME_BYTES_MAX);
    check_text(open->label, LABEL_BYTES_MAX);
    check_members(open->members, open->member_count);
    CHECK(open->group_mode <= GROUP_JOINT);
    CHECK(open->variable_count <= PERSONA_VARIABLE_COUNT_MAX);
    for (uint32_t i = 0; i < open->variable_count; i++) {
        CHECK(open->variables[i].name.size > 0);
        check_text(open->variables[i].name, PERSONA_NAME_BYTES_MAX);
        check_text(open->variables[i].value, TEXT_BYTES_MAX);
    }
}

static void check_score(const struct request_score *score)
{
    uint32_t option_count = 0;
    CHECK(score->item_count >= 1 && score->option_count <= SCORE_OPTION_COUNT_MAX);
    for (uint32_t i = 0; i < score->item_count; i++) {
        CHECK(score->items[i].option_count >= 1);
        for (uint32_t k = 0; k < score->items[i].option_count; k++) {
            const struct score_option *option = &score->items[i].options[k];
            check_text(option->text, TEXT_BYTES_MAX);
            CHECK((option->text.size > 0) != (option->token_count > 0));
        }
        option_count += score->items[i].option_count;
    }
    CHECK(option_count == score->option_count);
}

static void check_look(const struct request *request)
{
    const struct request_expand *expand = &request->u.expand;
    switch (request->type) {
    case REQUEST_DISTRIBUTION:
        CHECK(request->u.distribution.top_count <= TOP_COUNT_MAX);
        CHECK(request->u.distribution.token_count <= DISTRIBUTION_TOKEN_COUNT_MAX);
        break;
    case REQUEST_SCORE:
        check_score(&request->u.score);
        break;
    case REQUEST_COMPARE:
        CHECK(request->u.compare.persona_count <= COMPARE_PERSONA_COUNT_MAX);
        break;
    case REQUEST_GROUP:
        CHECK(request->u.group.node_count <= GROUP_NODE_COUNT_MAX);
        break;
    case REQUEST_EXPAND:
        CHECK(expand->depth >= 1 && expand->depth <= EXPAND_DEPTH_MAX);
        CHECK(expand->width >= 1 && expand->width <= TOP_COUNT_MAX);
        CHECK(expand->node_count_max >= 1 && expand->node_count_max <= EXPAND_NODE_COUNT_MAX);
        CHECK(expand->probability_min >= 0 && expand->probability_min <= 1);
        CHECK(expand->priority <= BRANCH_BATCH);
        break;
    default:
        break;
    }
}

static void check_tree(const struct request *request)
{
    switch (request->type) {
    case REQUEST_SESSION_DELETE:
        CHECK(!(request->u.session_delete.undo && request->u.session_delete.purge));
        break;
    case REQUEST_SESSION_SET:
        check_text(request->u.session_set.label, LABEL_BYTES_MAX);
        check_text(request->u.session_set.name, PERSONA_NAME_BYTES_MAX);
        check_members(request->u.session_set.members, request->u.session_set.member_count);
        break;
    case REQUEST_NOTE:
        check_text(request->u.note.text, NOTE_BYTES_MAX);
        CHECK(request->u.note.depth <= INSERT_DEPTH_MAX && request->u.note.role <= 2);
        CHECK(!(request->u.note.has_text && request->u.note.clear));
        break;
    case REQUEST_BOOKMARK:
        CHECK(request->u.bookmark.name.size > 0);
        check_text(request->u.bookmark.name, LABEL_BYTES_MAX);
        break;
    case REQUEST_BOOKMARK_LIST:
        CHECK(request->u.bookmark_list.count >= 1);
        CHECK(request->u.bookmark_list.count <= LIST_PAGE_COUNT_MAX);
        break;
    case REQUEST_DELETE:
    case REQUEST_UNDELETE:
    case REQUEST_PURGE:
        CHECK(request->u.nodes.count >= 1 && request->u.nodes.count <= MARK_NODE_COUNT_MAX);
        break;
    case REQUEST_EDIT:
        check_text(request->u.edit.text, TEXT_BYTES_MAX);
        break;
    case REQUEST_LABEL:
        check_text(request->u.label.label, LABEL_BYTES_MAX);
        break;
    case REQUEST_CONTEXT:
        CHECK(request->u.context.count >= 1 && request->u.context.count <= LIST_PAGE_COUNT_MAX);
        break;
    default:
        check_look(request);
    }
}

static void check_small(const struct request *request)
{
    switch (request->type) {
    case REQUEST_PERSONA_PUT:
        CHECK(request->u.persona_put.card.size > 0);
        CHECK(request->u.persona_put.card.size <= PERSONA_CARD_BYTES_MAX);
        break;
    case REQUEST_PERSONA_GET:
        check_text(request->u.persona_get.name, PERSONA_NAME_BYTES_MAX);
        break;
    case REQUEST_PERSONA_LIST:
    case REQUEST_SESSION_LIST:
        CHECK(request->u.page.count >= 1 && request->u.page.count <= LIST_PAGE_COUNT_MAX);
        break;
    case REQUEST_WALK:
        CHECK(request->u.walk.count >= 1 && request->u.walk.count <= WALK_PAGE_NODE_COUNT_MAX);
        CHECK(request->u.walk.what <= WALK_NODE);
        break;
    case REQUEST_FOLLOW:
        CHECK(request->u.follow.delivery < DELIVERY_NO_FOLLOW);
        break;
    case REQUEST_CANCEL:
        CHECK(request->u.cancel.node_count <= BRANCH_COUNT_MAX);
        break;
    case REQUEST_TOKENIZE:
        check_text(request->u.tokenize.text, TEXT_BYTES_MAX);
        break;
    case REQUEST_DETOKENIZE:
        CHECK(request->u.detokenize.token_count <= TEXT_TOKEN_COUNT_MAX);
        break;
    default:
        check_tree(request);
    }
}

static void check_request(const struct request *request)
{
    CHECK(request->client_key.size <= CLIENT_KEY_BYTES_MAX);
    switch (request->type) {
    case REQUEST_SESSION_OPEN:
        check_open(&request->u.session_open);
        break;
    case REQUEST_SAY:
        check_text(request->u.say.text, TEXT_BYTES_MAX);
        check_generation(&request->u.say.generation);
        break;
    case REQUEST_GENERATE:
        check_generation(&request->u.generate.generation);
        break;
    case REQUEST_APPEND:
        check_text(request->u.append.text, TEXT_BYTES_MAX);
        break;
    default:
        check_small(request);
    }
}

static void check_failure(enum status status, const struct error *error)
{
    CHECK(status == STATUS_BAD_INPUT || status == STATUS_LIMIT || status == STATUS_UNSUPPORTED ||
          status == STATUS_MEMORY);
    CHECK(error->status == status);
    CHECK(error->text[0] != '\0');
    CHECK(status != STATUS_LIMIT || error->limit_name != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct error error = {STATUS_OK, "", NULL, 0};
    struct codec_message message;
    struct codec_hello hello;
    struct request request;
    struct arena arena;
    uint64_t cancel_request = 0;
    if (byte_count > FRAME_BODY_BYTES_MAX) {
        return 0;
    }
    arena_init(&arena, MESSAGE_UNPACK_BYTES_MAX);
    enum status status = codec_unpack(bytes_of(bytes, byte_count), &arena, &error, &message);
    if (status == STATUS_OK && message.kind == CODEC_HELLO) {
        status = codec_decode_hello(&message, &error, &hello);
        if (status == STATUS_OK) {
            check_text(hello.client, CLIENT_NAME_BYTES_MAX);
        }
    } else if (status == STATUS_OK && message.kind == CODEC_REQUEST) {
        status = codec_decode(&message, 1000, &arena, &error, &request, &cancel_request);
        if (status == STATUS_OK) {
            CHECK(request.uid == 1000);
            check_request(&request);
        }
    }
    if (status != STATUS_OK) {
        check_failure(status, &error);
    }
    CHECK(arena.used_bytes <= MESSAGE_UNPACK_BYTES_MAX);
    arena_finish(&arena);
    return 0;
}
