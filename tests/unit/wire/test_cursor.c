/* Goal: the pieces of a stream add up to the node, each inside a frame and cut between characters,
 * whatever the node's size and however it grows.
 * Method: nodes made of arrays, read by a cursor to the end; the frames are unpacked with the
 * library that clients use and put together again. A twin loses one piece and must be noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "limits.h"
#include "personad.pb-c.h"
#include "wire/cursor.h"
#include "wire/frame.h"

enum { TOKEN_COUNT_MAX = 32768, TEXT_BYTES = 409600, TOP_COUNT = 32, REQUEST_ID = 9 };

/* A node, and what a reader has put together of it. */
struct node {
    struct node_view view;
    uint32_t *ids;
    float *values;
    struct sample_top *tops;
    uint8_t *text;
};

struct reader {
    uint8_t *text;
    size_t text_bytes;
    uint32_t *ids;
    uint32_t token_count, number_count, frame_count;
    bool ended, numbers_in_end;
    uint32_t skip; /* this frame is lost, 0: none */
};

static struct node *node_create(uint32_t token_count, uint32_t text_bytes, uint32_t top_count)
{
    static const char snowman[] = "\xe2\x98\x83";
    struct node *node = memory_alloc(1, sizeof *node);
    node->ids = memory_alloc(token_count + 1, sizeof(uint32_t));
    node->values = memory_alloc(token_count + 1, sizeof(float));
    node->tops = memory_alloc((size_t)token_count * top_count + 1, sizeof(struct sample_top));
    node->text = memory_alloc(text_bytes + 1, 1);
    for (uint32_t i = 0; i < token_count; i++) {
        node->ids[i] = i * 7919;
        node->values[i] = -(float)i;
    }
    for (uint32_t i = 0; i < text_bytes; i++) {
        node->text[i] = (uint8_t)snowman[i % 3];
    }
    node->view = (struct node_view){
        .id = 5,
        .session = 1,
        .origin = ORIGIN_SAMPLED,
        .finish = NODE_LENGTH,
        .content = node->ids,
        .content_count = token_count,
        .text = node->text,
        .text_bytes = text_bytes,
        .sampled_count = token_count,
        .sampled = node->ids,
        .logprobs = node->values,
        .logprobs_sampler = node->values,
        .entropies = node->values,
        .top_count = top_count,
        .tops = top_count > 0 ? node->tops : NULL,
    };
    return node;
}

static void node_destroy(struct node *node)
{
    memory_free(node->ids);
    memory_free(node->values);
    memory_free(node->tops);
    memory_free(node->text);
    memory_free(node);
}

static struct cursor *cursor_make(struct cursor_index *index, enum delivery delivery, bool numbers)
{
    static const uint64_t id = 5;
    const struct follow follow = {
        .nodes = &id, .node_count = 1, .delivery = delivery, .numbers = numbers};
    struct cursor *cursor = NULL;
    assert_int_equal(cursor_create(index, &follow, 0, &cursor), STATUS_OK);
    return cursor;
}

static void numbers_take(struct reader *reader, const Personad__V1__Numbers *numbers)
{
    assert_int_equal(numbers->first, reader->number_count);
    assert_int_equal(numbers->n_logprobs, numbers->n_tokens);
    assert_int_equal(numbers->n_top_tokens, numbers->n_tokens * numbers->top_count);
    memcpy(reader->ids + reader->number_count, numbers->tokens,
           numbers->n_tokens * sizeof(uint32_t));
    reader->number_count += (uint32_t)numbers->n_tokens;
}

static void tokens_take(struct reader *reader, const Personad__V1__TokensReply *tokens)
{
    assert_int_equal(tokens->node, 5);
    assert_int_equal(tokens->first_token, reader->token_count);
    assert_int_equal(tokens->first_byte, reader->text_bytes);
    assert_true(utf8_is_valid(bytes_of(tokens->text.data, tokens->text.len)));
    if (tokens->text.len > 0) {
        memcpy(reader->text + reader->text_bytes, tokens->text.data, tokens->text.len);
        reader->text_bytes += tokens->text.len;
    }
    reader->token_count += tokens->token_count;
    if (tokens->numbers != NULL) {
        numbers_take(reader, tokens->numbers);
    }
}

/* One frame of the stream. */
static void reader_take(struct reader *reader, struct bytes bytes)
{
    struct frame frame;
    assert_int_equal(frame_parse(bytes, &frame), STATUS_OK);
    assert_int_equal(frame.size_bytes, bytes.size);
    if (++reader->frame_count == reader->skip) {
        return;
    }
    Personad__V1__Reply *reply =
        personad__v1__reply__unpack(NULL, frame.body.size, frame.body.data);
    assert_non_null(reply);
    assert_int_equal(reply->id, REQUEST_ID);
    assert_true(reply->more);
    if (reply->result_case == PERSONAD__V1__REPLY__RESULT_TOKENS) {
        tokens_take(reader, reply->tokens);
    } else {
        assert_int_equal(reply->result_case, PERSONAD__V1__REPLY__RESULT_FINISHED);
        reader->numbers_in_end = reply->finished->node->numbers != NULL;
        reader->ended = true;
    }
    personad__v1__reply__free_unpacked(reply, NULL);
}

static void read_all(struct cursor *cursor, const struct node_view *view, struct reader *reader)
{
    struct buffer out;
    bool ended = false;
    while (!ended) {
        buffer_init(&out, (size_t)2 * FRAME_BODY_BYTES_MAX);
        const enum status status = cursor_write(cursor, view, REQUEST_ID, &out, &ended);
        if (status == STATUS_AGAIN) {
            buffer_finish(&out);
            return;
        }
        assert_int_equal(status, STATUS_OK);
        reader_take(reader, buffer_bytes(&out));
        buffer_finish(&out);
    }
}

static struct reader reader_make(void)
{
    struct reader reader = {0};
    reader.text = memory_alloc(TEXT_BYTES, 1);
    reader.ids = memory_alloc(TOKEN_COUNT_MAX, sizeof(uint32_t));
    return reader;
}

static void reader_finish(struct reader *reader)
{
    memory_free(reader->text);
    memory_free(reader->ids);
}

static bool is_whole(const struct reader *reader, const struct node *node)
{
    return reader->ended && reader->text_bytes == node->view.text_bytes &&
           memcmp(reader->text, node->text, node->view.text_bytes) == 0 &&
           reader->token_count == node->view.content_count &&
           reader->number_count == node->view.sampled_count &&
           memcmp(reader->ids, node->ids, reader->number_count * sizeof(uint32_t)) == 0;
}

static void read_node(uint32_t tokens, uint32_t text_bytes, uint32_t tops, uint32_t skip,
                      bool expect_whole)
{
    struct cursor_index index;
    struct reader reader = reader_make();
    struct node *node = node_create(tokens, text_bytes, tops);
    cursor_index_init(&index);
    struct cursor *cursor = cursor_make(&index, DELIVERY_EACH_TOKEN, true);
    reader.skip = skip;
    read_all(cursor, &node->view, &reader);
    assert_int_equal(is_whole(&reader, node), expect_whole);
    cursor_destroy(&index, cursor);
    cursor_index_finish(&index);
    node_destroy(node);
    reader_finish(&reader);
}

static void a_stream_adds_up_to_its_node(void **state)
{
    (void)state;
    read_node(1, 3, 0, 0, true);
    read_node(0, 0, 0, 0, true);
    read_node(100, 300, 4, 0, true);
    read_node(TOKEN_COUNT_MAX, TEXT_BYTES - 1, 0, 0, true);
    read_node(TOKEN_COUNT_MAX, 3 * 70000, TOP_COUNT, 0, true);
}

static void a_lost_piece_is_noticed(void **state)
{
    (void)state;
    read_node(100, 300, 4, 1, false);
}

static void a_node_that_grows_is_read_as_far_as_it_is(void **state)
{
    struct cursor_index index;
    struct reader reader = reader_make();
    struct node *node = node_create(200, 600, 2);
    (void)state;
    cursor_index_init(&index);
    struct cursor *cursor = cursor_make(&index, DELIVERY_EACH_TOKEN, true);
    struct node_view view = node->view;
    for (uint32_t i = 0; i <= 200; i += 25) {
        view.finish = NODE_GOING;
        view.content_count = view.sampled_count = i;
        view.text_bytes = 3 * i;
        read_all(cursor, &view, &reader);
        assert_int_equal(reader.token_count, i);
        assert_int_equal(reader.text_bytes, 3 * i);
        assert_false(reader.ended);
    }
    read_all(cursor, &node->view, &reader);
    assert_true(is_whole(&reader, node));
    cursor_destroy(&index, cursor);
    cursor_index_finish(&index);
    node_destroy(node);
    reader_finish(&reader);
}

static void final_only_is_one_frame_unless_it_does_not_fit(void **state)
{
    static const struct {
        uint32_t tokens, tops;
        bool one;
    } cases[] = {{1000, 4, true}, {TOKEN_COUNT_MAX, TOP_COUNT, false}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct cursor_index index;
        struct reader reader = reader_make();
        struct node *node = node_create(cases[i].tokens, 3000, cases[i].tops);
        cursor_index_init(&index);
        struct cursor *cursor = cursor_make(&index, DELIVERY_FINAL_ONLY, true);
        read_all(cursor, &node->view, &reader);
        assert_true(reader.ended);
        assert_int_equal(reader.frame_count == 1, cases[i].one);
        assert_int_equal(reader.numbers_in_end, cases[i].one);
        assert_int_equal(reader.number_count, cases[i].one ? 0 : cases[i].tokens);
        cursor_destroy(&index, cursor);
        cursor_index_finish(&index);
        node_destroy(node);
        reader_finish(&reader);
    }
}

static void the_index_forgets_a_node_with_its_last_cursor(void **state)
{
    struct cursor_index index;
    (void)state;
    cursor_index_init(&index);
    struct cursor *one = cursor_make(&index, DELIVERY_EACH_TOKEN, false);
    struct cursor *other = cursor_make(&index, DELIVERY_FINAL_ONLY, false);
    assert_ptr_equal(one->node, other->node);
    cursor_destroy(&index, one);
    assert_ptr_equal(cursor_index_find(&index, 5), other->node);
    cursor_destroy(&index, other);
    assert_null(cursor_index_find(&index, 5));
    cursor_index_finish(&index);
}

static void a_failed_allocation_leaves_nothing(void **state)
{
    static const uint64_t id = 5;
    const struct follow follow = {.nodes = &id, .node_count = 1};
    const int64_t before = memory_live_count();
    (void)state;
    for (int64_t survivors = 0; survivors < 8; survivors++) {
        struct cursor_index index;
        struct cursor *cursor = NULL;
        cursor_index_init(&index);
        memory_fault_set(survivors);
        const enum status status = cursor_create(&index, &follow, 0, &cursor);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        cursor_destroy(&index, cursor);
        cursor_index_finish(&index);
        assert_int_equal(memory_live_count(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_adds_up_to_its_node),
        cmocka_unit_test(a_lost_piece_is_noticed),
        cmocka_unit_test(a_node_that_grows_is_read_as_far_as_it_is),
        cmocka_unit_test(final_only_is_one_frame_unless_it_does_not_fit),
        cmocka_unit_test(the_index_forgets_a_node_with_its_last_cursor),
        cmocka_unit_test(a_failed_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
