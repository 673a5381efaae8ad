/* Goal: a request says after decoding what was set in it, with the documented defaults where
 * nothing was; a reply carries every value and every bit, and no reply exceeds a frame.
 * Method: messages packed and unpacked with the library that clients use. What leaves and what
 * comes back is compared field by field, floats bit by bit; lists larger than a frame are read page
 * by page. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "limits.h"
#include "unit/wire/codec_rig.h"

static void an_empty_generate_has_the_documented_defaults(void **state)
{
    Personad__V1__Request message = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__GenerateRequest body = PERSONAD__V1__GENERATE_REQUEST__INIT;
    struct request request;
    (void)state;
    message.has_id = 1;
    message.id = 3;
    message.op_case = PERSONAD__V1__REQUEST__OP_GENERATE;
    message.generate = &body;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_int_equal(request.type, REQUEST_GENERATE);
    assert_int_equal(request.uid, 7);
    assert_int_equal(request.client_key.size, 0);
    assert_false(request.u.generate.has_position);
    assert_false(request.u.generate.has_speaker);
    assert_false(request.u.generate.continuing);
    assert_int_equal(request.u.generate.generation.n, 1);
    assert_int_equal(request.u.generate.generation.delivery, DELIVERY_EACH_TOKEN);
    assert_int_equal(request.u.generate.generation.priority, BRANCH_INTERACTIVE);
    assert_false(request.u.generate.generation.sampler.has_temperature);
    assert_false(request.u.generate.generation.has_seed);
}

static void what_was_set_arrives(void **state)
{
    Personad__V1__Request message = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__SayRequest body = PERSONAD__V1__SAY_REQUEST__INIT;
    Personad__V1__Position position = PERSONAD__V1__POSITION__INIT;
    Personad__V1__Sampler sampler = PERSONAD__V1__SAMPLER__INIT;
    Personad__V1__LogitBias bias = PERSONAD__V1__LOGIT_BIAS__INIT;
    Personad__V1__LogitBias *biases[] = {&bias};
    ProtobufCBinaryData stops[] = {data_of("\nUser:"), data_of("end")};
    struct request request;
    (void)state;
    message.has_client_key = 1;
    message.client_key = data_of("key");
    message.op_case = PERSONAD__V1__REQUEST__OP_SAY;
    message.say = &body;
    body.has_session = body.has_text = body.has_n = body.has_raw_seed = body.has_delivery = 1;
    body.session = 1ull << 60;
    body.text = data_of("Gr\xc3\xbc\xc3\x9f"
                        "e");
    body.n = 1024;
    body.raw_seed = UINT64_MAX;
    body.delivery = PERSONAD__V1__DELIVERY__NO_FOLLOW;
    body.position = &position;
    position.has_node = 1;
    position.node = 9;
    body.sampler = &sampler;
    sampler.has_temperature = sampler.has_top_k = 1;
    sampler.temperature = 0.1f;
    sampler.top_k = 0;
    sampler.n_bias = 1;
    sampler.bias = biases;
    bias.has_token = bias.has_value = 1;
    bias.token = 5;
    bias.value = -INFINITY;
    sampler.n_stop = 2;
    sampler.stop = stops;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    const struct request_say *say = &request.u.say;
    assert_true(bytes_equal(request.client_key, bytes_of_text("key")));
    assert_true(say->session == 1ull << 60);
    assert_int_equal(say->text.size, 7);
    assert_true(say->has_position && say->position.node == 9);
    assert_true(say->position.offset == OFFSET_END);
    assert_int_equal(say->generation.n, 1024);
    assert_true(say->generation.has_raw_seed && say->generation.raw_seed == UINT64_MAX);
    assert_int_equal(say->generation.delivery, DELIVERY_NO_FOLLOW);
    assert_true(say->generation.sampler.has_top_k && !say->generation.sampler.has_top_p);
    assert_true(say->generation.sampler.temperature == 0.1f);
    assert_true(say->generation.sampler.biases[0].value == -INFINITY);
    assert_true(bytes_equal(say->generation.sampler.stops[1], bytes_of_text("end")));
}

static void numbers_that_nobody_knows_count_as_absent(void **state)
{
    Personad__V1__Request message = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__WalkRequest body = PERSONAD__V1__WALK_REQUEST__INIT;
    struct request request;
    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_WALK;
    message.walk = &body;
    body.has_what = body.has_count = 1;
    body.what = (Personad__V1__WalkWhat)77;
    body.count = 1000000;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_int_equal(request.u.walk.what, WALK_PATH);
    assert_int_equal(request.u.walk.count, WALK_PAGE_NODE_COUNT_MAX);
}

static void a_cancel_names_one_thing(void **state)
{
    Personad__V1__Request message = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__CancelRequest body = PERSONAD__V1__CANCEL_REQUEST__INIT;
    struct error error = {STATUS_OK, "", NULL, 0};
    struct request request;
    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_CANCEL;
    message.cancel = &body;
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT);
    body.has_request = 1;
    body.request = 31;
    assert_int_equal(decode(&message, &error, &request), STATUS_OK);
    assert_true(request.u.cancel.has_request && cancel_request == 31);
    body.has_session = 1;
    body.session = 2;
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT);
}

static void unpacking_stays_inside_its_memory(void **state)
{
    struct error error = {STATUS_OK, "", NULL, 0};
    struct codec_message message;
    struct arena small;
    Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__TokenizeRequest body = PERSONAD__V1__TOKENIZE_REQUEST__INIT;
    static char text[8192];
    uint8_t bytes[9000];
    (void)state;
    memset(text, 'a', sizeof text - 1);
    request.op_case = PERSONAD__V1__REQUEST__OP_TOKENIZE;
    request.tokenize = &body;
    body.has_text = 1;
    body.text = data_of(text);
    const size_t size = personad__v1__request__pack(&request, bytes);
    for (size_t bytes_max = 0; bytes_max < 12000; bytes_max += 500) {
        arena_init(&small, bytes_max);
        const enum status status = codec_unpack(bytes_of(bytes, size), &small, &error, &message);
        assert_int_equal(status, bytes_max < 8192 ? STATUS_LIMIT : status);
        assert_true(status == STATUS_OK ||
                    strcmp(error.limit_name, "MESSAGE_UNPACK_BYTES_MAX") == 0);
        assert_true(small.used_bytes <= bytes_max);
        arena_finish(&small);
    }
    assert_int_equal(codec_unpack(bytes_of("\xff\xff\xff", 3), &arena, &error, &message),
                     STATUS_BAD_INPUT);
}

static void an_error_carries_code_text_and_limit(void **state)
{
    struct reply reply = {.type = REPLY_ERROR};
    (void)state;
    (void)error_set_limit(&reply.error, "A_LIMIT", 12, "too many");
    Personad__V1__Reply *message = encode(&reply, false);
    assert_int_equal(message->result_case, PERSONAD__V1__REPLY__RESULT_ERROR);
    assert_int_equal(message->error->code, STATUS_LIMIT);
    assert_memory_equal(message->error->text.data, "too many", 8);
    assert_memory_equal(message->error->limit_name.data, "A_LIMIT", 7);
    assert_int_equal(message->error->limit_value, 12);
    personad__v1__reply__free_unpacked(message, NULL);
}

static void every_bit_of_a_number_arrives(void **state)
{
    static const uint32_t patterns[] = {0, 0x80000000, 1, 0x3f800001, 0xff800000, 0x7fc00001};
    float values[6];
    uint32_t ids[6] = {0, 1, 2, 3, 4, UINT32_MAX};
    struct sample_top tops[12];
    memcpy(values, patterns, sizeof values);
    for (int i = 0; i < 12; i++) {
        tops[i] = (struct sample_top){(uint32_t)i, values[i % 6]};
    }
    const struct node_view view = {.id = 1,
                                   .origin = ORIGIN_SAMPLED,
                                   .sampled_count = 6,
                                   .top_count = 2,
                                   .sampled = ids,
                                   .logprobs = values,
                                   .logprobs_sampler = values,
                                   .entropies = values,
                                   .tops = tops};
    struct reply reply = {.type = REPLY_WALK};
    (void)state;
    reply.u.walk.nodes = &view;
    reply.u.walk.count = 1;
    reply.u.walk.end = true;
    reply.u.walk.numbers = true;
    Personad__V1__Reply *message = encode(&reply, false);
    const Personad__V1__Numbers *numbers = message->walk->nodes[0]->numbers;
    assert_true(message->walk->end);
    assert_int_equal(numbers->n_logprobs, 6);
    assert_memory_equal(numbers->logprobs, patterns, sizeof patterns);
    assert_memory_equal(numbers->sampler_logprobs, patterns, sizeof patterns);
    assert_memory_equal(numbers->entropies, patterns, sizeof patterns);
    assert_memory_equal(numbers->tokens, ids, sizeof ids);
    assert_int_equal(numbers->n_top_tokens, 12);
    assert_memory_equal(numbers->top_logprobs + 6, patterns, sizeof patterns);
    personad__v1__reply__free_unpacked(message, NULL);
}

static void a_walk_past_a_frame_is_cut_to_whole_nodes(void **state)
{
    enum { NODE_COUNT = 100, TEXT_SIZE = 100 * 1000 };
    struct node_view views[NODE_COUNT];
    uint8_t *text = memory_alloc(TEXT_SIZE, 1);
    uint32_t seen = 0;
    int page_count = 0;
    bool end = false;
    (void)state;
    for (uint32_t i = 0; i < NODE_COUNT; i++) {
        views[i] = (struct node_view){.id = i + 1, .text = text, .text_bytes = TEXT_SIZE};
    }
    while (!end) {
        struct reply reply = {.type = REPLY_WALK};
        reply.u.walk.nodes = views + seen;
        reply.u.walk.count = NODE_COUNT - seen;
        reply.u.walk.end = true;
        reply.u.walk.text = true;
        Personad__V1__Reply *message = encode(&reply, false);
        assert_int_equal(message->result_case, PERSONAD__V1__REPLY__RESULT_WALK);
        assert_true(message->walk->n_nodes > 0);
        for (size_t i = 0; i < message->walk->n_nodes; i++) {
            assert_int_equal(message->walk->nodes[i]->id, ++seen);
            assert_int_equal(message->walk->nodes[i]->text.len, TEXT_SIZE);
        }
        end = message->walk->end;
        page_count++;
        personad__v1__reply__free_unpacked(message, NULL);
    }
    assert_int_equal(seen, NODE_COUNT);
    assert_true(page_count > 2);
    memory_free(text);
}

static void a_list_of_long_personas_is_cut_to_a_frame(void **state)
{
    enum { COUNT = 20, TEXT_SIZE = 900 * 1000 };
    struct persona_view views[COUNT];
    uint8_t *text = memory_alloc(TEXT_SIZE, 1);
    struct reply reply = {.type = REPLY_PERSONA_LIST};
    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        views[i] = (struct persona_view){.id = i + 1, .description = bytes_of(text, TEXT_SIZE)};
    }
    reply.u.personas.items = views;
    reply.u.personas.count = COUNT;
    reply.u.personas.end = true;
    Personad__V1__Reply *message = encode(&reply, false);
    assert_int_equal(message->result_case, PERSONAD__V1__REPLY__RESULT_PERSONA_LIST);
    assert_int_equal(message->persona_list->n_personas, 4);
    assert_false(message->persona_list->end);
    personad__v1__reply__free_unpacked(message, NULL);
    memory_free(text);
}

static void a_reply_that_fits_no_frame_becomes_an_error(void **state)
{
    struct reply reply = {.type = REPLY_TEXT};
    uint8_t *text = memory_alloc(FRAME_BODY_BYTES_MAX, 1);
    (void)state;
    reply.u.text = bytes_of(text, FRAME_BODY_BYTES_MAX);
    Personad__V1__Reply *message = encode(&reply, false);
    assert_int_equal(message->result_case, PERSONAD__V1__REPLY__RESULT_ERROR);
    assert_int_equal(message->error->code, STATUS_LIMIT);
    personad__v1__reply__free_unpacked(message, NULL);
    memory_free(text);
}

static void stats_and_info_carry_the_daemon_s_own_facts(void **state)
{
    struct reply reply = {.type = REPLY_STATS, .request = REQUEST_STATS};
    (void)state;
    reply.u.stats.kv_page_free_count = 77;
    Personad__V1__Reply *message = encode(&reply, false);
    assert_int_equal(message->stats->connection_count, 4);
    assert_int_equal(message->stats->kv_page_free_count, 77);
    personad__v1__reply__free_unpacked(message, NULL);
    reply = (struct reply){.type = REPLY_INFO, .request = REQUEST_INFO};
    message = encode(&reply, true);
    assert_int_equal(message->info->model_hash.len, 32);
    assert_memory_equal(message->info->socket_path.data, "/run/s", 6);
    assert_true(message->info->n_limits > 20);
    personad__v1__reply__free_unpacked(message, NULL);
}

static void memory_that_fails_is_told_and_nothing_is_half_written(void **state)
{
    struct cast_view cast[] = {{0, bytes_of_text("User"), 0}, {1, bytes_of_text("A"), 3}};
    struct node_view greeting = {.id = 4, .text = (const uint8_t *)"Hi", .text_bytes = 2};
    struct reply reply = {.type = REPLY_SESSION, .request = REQUEST_SESSION_OPEN};
    int failure_count = 0;
    (void)state;
    reply.u.session.session = (struct session_view){.id = 2, .cast = cast, .cast_count = 2};
    reply.u.session.greetings = &greeting;
    reply.u.session.greeting_count = 1;
    for (int64_t survivors = 0; survivors < 20; survivors++) {
        struct buffer out;
        buffer_init(&out, FRAME_BODY_BYTES_MAX);
        memory_fault_set(survivors);
        const enum status status = codec_encode_reply(1, &reply, false, &daemon_facts, &out);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        assert_int_equal(out.size > 0, status == STATUS_OK);
        failure_count += status != STATUS_OK;
        buffer_finish(&out);
    }
    assert_true(failure_count > 0 && failure_count < 20);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_generate_has_the_documented_defaults),
        TEST(what_was_set_arrives),
        TEST(numbers_that_nobody_knows_count_as_absent),
        TEST(a_cancel_names_one_thing),
        TEST(unpacking_stays_inside_its_memory),
        TEST(an_error_carries_code_text_and_limit),
        TEST(every_bit_of_a_number_arrives),
        TEST(a_walk_past_a_frame_is_cut_to_whole_nodes),
        TEST(a_list_of_long_personas_is_cut_to_a_frame),
        TEST(a_reply_that_fits_no_frame_becomes_an_error),
        TEST(stats_and_info_carry_the_daemon_s_own_facts),
        TEST(memory_that_fails_is_told_and_nothing_is_half_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
