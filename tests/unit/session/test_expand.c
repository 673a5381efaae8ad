/* Goal: an expansion grows as its request says, a level at a time, all looks of a level at once; it
 * is remembered as long as its contract says and no longer; what is kept has exactly its tokens.
 * Method: the rig of test_store.c: the engine answers looks with the alternatives that the test
 * dictates. Failures, refusals, memory, cancels, readers that leave, time and purges follow.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "limits.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

static struct rig rig;

static const char plain_card[] =
    "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";

enum { WIDTH = 3, CONNECTION = 1 };

static int restart(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    rig.is_deserted = false;
    return 0;
}

static uint64_t talk(void)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    rig_execute(&rig, rig_append(session, "Hello"));
    return session;
}

static struct request expand_of(uint64_t session)
{
    struct request request = rig_request(REQUEST_EXPAND);

    request.u.expand = (struct request_expand){
        .place = {.session = session},
        .depth = 2,
        .width = WIDTH,
        .node_count_max = 100,
    };
    return request;
}

static struct request keep_of(uint64_t expansion, uint32_t node)
{
    struct request request = rig_request(REQUEST_KEEP);

    request.u.keep = (struct request_keep){expansion, node};
    return request;
}

/* Alternatives of the look that was lent as that one: tokens first.., each half as likely as the
 * one before. TOKEN_NONE ends them, as where the vocabulary has no more. */
static void answer(uint32_t index, uint32_t first)
{
    const uint32_t count = rig.engine->branches[index].spec->output->top_count;
    struct sample_top tops[TOP_COUNT_MAX];
    uint32_t token = PLAN_GIVEN_NONE;
    float logprob = 0, entropy = (float)first / 16;
    const struct branch_output as = {
        .tokens = &token,
        .logprobs = &logprob,
        .logprobs_sampler = &logprob,
        .entropies = &entropy,
        .tops = tops,
    };

    for (uint32_t i = 0; i < count; i++) {
        tops[i] = (struct sample_top){first + i, -0.75f * (float)(i + 1)};
    }
    fake_engine_answer(rig.engine, index, &as, 1);
}

/* All that is lent and not answered; the same alternatives everywhere. */
static void answer_all(uint32_t first)
{
    const uint32_t count = rig.engine->branch_count;

    for (uint32_t i = 0; i < count; i++) {
        if (!rig.engine->branches[i].is_ended) {
            answer(i, first);
        }
    }
    rig_settle(&rig);
}

/* An expansion of two levels that is complete; its id. */
static uint64_t grow(uint64_t session)
{
    rig_execute(&rig, expand_of(session));
    answer_all(40);
    answer_all(50);
    assert_int_equal(rig.reply.type, REPLY_EXPAND);
    assert_true(rig.reply.expanded.has_end && !rig.reply.more);
    return rig.reply.expanded.expansion;
}

static enum status status_of(struct request request)
{
    rig_execute(&rig, request);
    return rig.reply.type == REPLY_ERROR ? rig.reply.error.status : STATUS_OK;
}

static void test_a_level_is_lent_at_once_along_the_paths(void **state)
{
    const uint64_t session = talk();

    (void)state;
    rig_execute(&rig, expand_of(session));
    assert_int_equal(rig.engine->branch_count, 1);
    const struct fake_branch *place = &rig.engine->branches[0];
    const struct branch_spec *spec = place->spec;
    assert_true(spec->mark_count == 1 && spec->marks[0].token == PLAN_GIVEN_NONE);
    assert_true(spec->output->top_count == WIDTH && spec->group == 0);
    assert_int_equal(spec->scope.session, session);
    answer(0, 40);
    rig_settle(&rig);
    assert_true(rig.reply.more && rig.reply.expanded.growing_count == WIDTH);
    assert_true(rig.reply.expanded.level == 1 && rig.reply.expanded.first == 1);
    assert_true(rig.reply.expanded.new_count == WIDTH && rig.reply.expanded.node_count == WIDTH);
    for (uint32_t i = 0; i < WIDTH; i++) {
        const struct expanded_node_view *node = &rig.reply.expanded_nodes[i];

        assert_true(node->parent == 0 && node->token == 40 + i && !node->is_end);
        assert_true(node->logprob == -0.75f * (float)(i + 1) && node->entropy == 40.0f / 16);
        assert_true(node->joint_logprob == (double)node->logprob);
    }
    /* The level: all of it lent, in one batch, each along the context and its own token. */
    assert_true(!rig.engine->is_held && rig.engine->held_submit_count == WIDTH);
    assert_int_equal(rig.engine->branch_count, 1 + WIDTH);
    for (uint32_t i = 0; i < WIDTH; i++) {
        const struct fake_branch *look = &rig.engine->branches[1 + i];

        assert_int_equal(look->context_count, place->context_count + 1);
        assert_memory_equal(look->context, place->context, place->context_count * 4);
        assert_int_equal(look->context[place->context_count], 40 + i);
        assert_true(fake_engine_is_intact(rig.engine, 1 + i));
    }
    /* In whatever order they end, the nodes come in one order. */
    answer(3, 70);
    answer(1, 50);
    rig_settle(&rig);
    const uint32_t before = rig.reply_count;
    answer(2, 60);
    rig_settle(&rig);
    assert_int_equal(rig.reply_count, before + 1);
    assert_false(rig.reply.more);
    assert_true(rig.reply.expanded.has_end && rig.reply.expanded.end == EXPAND_END_DEPTH);
    assert_true(rig.reply.expanded.first == 4 && rig.reply.expanded.new_count == WIDTH * WIDTH);
    for (uint32_t i = 0; i < WIDTH * WIDTH; i++) {
        const struct expanded_node_view *node = &rig.reply.expanded_nodes[i];

        assert_int_equal(node->parent, 1 + i / WIDTH);
        assert_int_equal(node->token, 50 + 10 * (i / WIDTH) + i % WIDTH);
        const uint32_t ranks = i / WIDTH + 1 + i % WIDTH + 1; /* of the parent, and behind it */
        assert_true(node->joint_logprob == -0.75 * ranks);
    }
    assert_true(store_is_idle(rig.store));
}

static void test_why_it_ends(void **state)
{
    static const struct {
        double probability_min;
        uint32_t node_count_max, depth;
        uint32_t node_count;
        enum expand_end end;
    } cases[] = {
        {0, 100, 1, 3, EXPAND_END_DEPTH},         {0, 3, 1, 3, EXPAND_END_DEPTH},
        {0, 3, 2, 3, EXPAND_END_NODES},           {0, 2, 2, 2, EXPAND_END_NODES},
        {0, 7, 9, 7, EXPAND_END_NODES},           {0.4, 100, 9, 1, EXPAND_END_PROBABILITY},
        {0.2, 100, 9, 3, EXPAND_END_PROBABILITY}, /* e^-.75, e^-1.5 twice */
        {1, 100, 9, 0, EXPAND_END_PROBABILITY},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct request request = expand_of(talk());

        request.u.expand.probability_min = cases[i].probability_min;
        request.u.expand.node_count_max = cases[i].node_count_max;
        request.u.expand.depth = cases[i].depth;
        rig_execute(&rig, request);
        do {
            answer_all(40);
        } while (rig.reply.more);
        assert_int_equal(rig.reply.type, REPLY_EXPAND);
        assert_int_equal(rig.reply.expanded.node_count, cases[i].node_count);
        assert_int_equal(rig.reply.expanded.end, cases[i].end);
        assert_true(store_is_idle(rig.store));
    }
}

/* Of a level that has too many the likeliest stay, and of equals the first. */
static void test_the_likeliest_of_a_level_stay(void **state)
{
    struct request request = expand_of(talk());
    static const uint32_t parents[] = {1, 1, 2}, ranks[] = {0, 1, 0};

    (void)state;
    request.u.expand.node_count_max = 6;
    rig_execute(&rig, request);
    answer_all(40);
    answer_all(50);
    assert_int_equal(rig.reply.expanded.new_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(rig.reply.expanded_nodes[i].parent, parents[i]);
        assert_int_equal(rig.reply.expanded_nodes[i].token, 50 + ranks[i]);
    }
}

static void test_an_end_of_the_turn_does_not_grow_and_is_not_kept(void **state)
{
    const uint64_t session = talk();
    uint32_t count = 0;
    const uint32_t end = tokenizer_end_ids(rig.tokenizer, &count)[0];

    (void)state;
    rig_execute(&rig, expand_of(session));
    answer_all(end);
    assert_true(count > 0 && rig.reply.expanded_nodes[0].is_end);
    const uint32_t growing = rig.reply.expanded.growing_count;
    assert_true(growing < WIDTH);
    assert_int_equal(rig.engine->branch_count, 1 + growing);
    answer_all(end);
    const uint64_t expansion = rig.reply.expanded.expansion;
    uint32_t at = 0;
    while (!rig.reply.expanded_nodes[at].is_end) {
        at++;
    }
    const uint32_t number = rig.reply.expanded.first + at;
    const uint32_t parent = rig.reply.expanded_nodes[at].parent;
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_BAD_INPUT);
    assert_int_equal(status_of(keep_of(expansion, number)), STATUS_OK);
    const struct node_view cut = rig_view(&rig, rig.reply.nodes[0].id);
    assert_int_equal(status_of(keep_of(expansion, parent)), STATUS_OK);
    const struct node_view whole = rig_view(&rig, rig.reply.nodes[0].id);
    assert_true(cut.content_count == 1 && whole.content_count == 1);
    assert_int_equal(cut.content[0], whole.content[0]);
}

static void test_what_is_kept_is_a_node_with_those_tokens(void **state)
{
    const uint64_t session = talk();
    const uint64_t expansion = grow(session);
    struct request request = keep_of(expansion, 4 + WIDTH + 1); /* behind node 2 the second */

    (void)state;
    request.client_key = bytes_of_text("keep");
    assert_int_equal(status_of(request), STATUS_OK);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    const uint64_t id = rig.reply.nodes[0].id;
    const struct node_view node = rig_view(&rig, id);
    assert_true(node.content_count == 2 && node.content[0] == 41 && node.content[1] == 51);
    assert_true(node.origin == ORIGIN_EXPANDED && node.finish == NODE_WHOLE && node.opens_turn);
    assert_int_equal(status_of(request), STATUS_OK); /* the key */
    assert_int_equal(rig.reply.nodes[0].id, id);
    request = rig_request(REQUEST_HEAD);
    request.u.head.session = session;
    rig_execute(&rig, request);
    assert_true(rig.reply.head.node == id && rig.reply.head.offset == 2);
    assert_int_equal(status_of(keep_of(expansion, 0)), STATUS_BAD_INPUT);
    assert_int_equal(status_of(keep_of(expansion, 13)), STATUS_BAD_INPUT);
    assert_int_equal(status_of(keep_of(expansion + 1, 1)), STATUS_NOT_FOUND);
    request = keep_of(expansion, 1);
    request.uid = RIG_UID + 1;
    assert_int_equal(status_of(request), STATUS_DENIED);
}

/* ---- how long it is remembered ---- */

static void test_it_goes_with_its_connection(void **state)
{
    const uint64_t session = talk();
    const uint64_t expansion = grow(session);

    (void)state;
    store_connection_closed(rig.store, CONNECTION + 1);
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_OK);
    store_connection_closed(rig.store, CONNECTION);
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_NOT_FOUND);
    assert_int_equal(rig.store->expansions.count, 0);
    /* In the middle: it ends with the look at hand, and nothing stays. */
    rig_execute(&rig, expand_of(session));
    store_connection_closed(rig.store, CONNECTION);
    rig.is_deserted = true;
    answer_all(40);
    assert_int_equal(rig.store->expansions.count, 0);
    assert_true(store_is_idle(rig.store));
}

static void test_it_goes_when_nobody_names_it(void **state)
{
    const uint64_t idle_ns = (uint64_t)EXPANSION_IDLE_MS_MAX * 1000000;
    uint64_t now_ns = 1000 * idle_ns;

    (void)state;
    clock_fake_set(&now_ns);
    const uint64_t session = talk();
    const uint64_t expansion = grow(session);
    now_ns += idle_ns;
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_OK); /* names it */
    now_ns += idle_ns;
    store_pump(rig.store);
    assert_int_equal(rig.store->expansions.count, 1);
    now_ns += idle_ns / 32;
    store_pump(rig.store);
    assert_int_equal(rig.store->expansions.count, 0);
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_NOT_FOUND);
    rig_execute(&rig, expand_of(session));
    now_ns += 2 * idle_ns; /* one that is going stays */
    answer_all(40);
    answer_all(50);
    assert_int_equal(status_of(keep_of(rig.reply.expanded.expansion, 1)), STATUS_OK);
    clock_fake_set(NULL);
}

static void test_a_user_has_so_many_and_the_oldest_goes(void **state)
{
    const uint64_t session = talk();
    const uint64_t first = grow(session);

    (void)state;
    for (uint32_t i = 1; i < EXPANSION_PER_USER_COUNT_MAX; i++) {
        grow(session);
    }
    assert_int_equal(rig.store->expansions.count, EXPANSION_PER_USER_COUNT_MAX);
    assert_int_equal(status_of(keep_of(first, 1)), STATUS_OK);
    grow(session);
    assert_int_equal(status_of(keep_of(first, 1)), STATUS_OK);
    assert_int_equal(status_of(keep_of(first + 1, 1)), STATUS_NOT_FOUND);
    /* Those that are going do not go: then there is no room. */
    for (uint32_t i = 0; i < EXPANSION_PER_USER_COUNT_MAX; i++) {
        rig_execute(&rig, expand_of(session));
    }
    assert_int_equal(status_of(expand_of(session)), STATUS_LIMIT);
    assert_string_equal(rig.reply.error.limit_name, "EXPANSION_PER_USER_COUNT_MAX");
    answer_all(40);
    answer_all(50);
    grow(session);
    assert_true(store_is_idle(rig.store));
}

static void test_a_purge_forgets_it_and_waits_for_it(void **state)
{
    const uint64_t session = talk();
    struct request nodes = rig_request(REQUEST_DELETE);
    uint64_t node = rig.reply.nodes[0].id;

    (void)state;
    const uint64_t expansion = grow(session);
    nodes.u.nodes.nodes = &node;
    nodes.u.nodes.count = 1;
    rig_execute(&rig, expand_of(session));
    assert_int_equal(status_of(nodes), STATUS_OK);
    assert_int_equal(status_of(keep_of(expansion, 1)), STATUS_NOT_FOUND); /* its place is deleted */
    nodes.type = REQUEST_PURGE;
    assert_int_equal(status_of(nodes), STATUS_CONFLICT);
    answer_all(40);
    answer_all(50);
    assert_int_equal(rig.store->expansions.count, 2);
    assert_int_equal(status_of(nodes), STATUS_OK);
    assert_int_equal(rig.store->expansions.count, 0);
}

/* ---- ending early ---- */

static void test_a_cancel_ends_its_looks_at_once_and_keeps_whole_levels(void **state)
{
    const uint64_t session = talk();

    (void)state;
    rig_execute(&rig, expand_of(session));
    const struct reply_to to = {CONNECTION, rig.next_request};
    answer_all(40);
    const struct reply_to other = {CONNECTION + 1, to.request};
    store_cancel_request(rig.store, other);
    assert_false(rig.engine->branches[1].is_ended);
    answer(2, 50);
    store_cancel_request(rig.store, to);
    for (uint32_t i = 1; i <= WIDTH; i++) {
        assert_true(rig.engine->branches[i].is_ended);
    }
    rig_settle(&rig);
    assert_false(rig.reply.more);
    assert_int_equal(rig.reply.type, REPLY_EXPAND);
    assert_int_equal(rig.reply.expanded.end, EXPAND_END_CANCELLED);
    assert_true(rig.reply.expanded.node_count == WIDTH && rig.reply.expanded.new_count == 0);
    assert_int_equal(rig.engine->branch_count, 1 + WIDTH);
    assert_int_equal(status_of(keep_of(rig.reply.expanded.expansion, WIDTH)), STATUS_OK);
    store_cancel_request(rig.store, to); /* long over */
    assert_true(store_is_idle(rig.store));
}

/* The others of the level end, one error comes, and nothing of it stays. */
static void test_a_failed_or_refused_look_ends_it(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 4; at++) {
        restart(NULL);
        const uint64_t session = talk();

        rig.engine->refused_after = at == 0 ? 0 : rig.engine->refused_after;
        rig_execute(&rig, expand_of(session));
        if (at > 0) {
            rig.engine->refused_after = at == 1 ? 1 : rig.engine->refused_after;
            answer_all(40);
        }
        if (at == 2) {
            fake_engine_end(rig.engine, 2, FINISH_FAILED, STATUS_NUMERIC);
        } else if (at == 3) {
            fake_engine_end(rig.engine, 1, FINISH_FAILED, STATUS_STOPPING);
        }
        rig_settle(&rig);
        assert_int_equal(rig.reply.type, REPLY_ERROR);
        assert_int_equal(rig.reply.error.status, at < 2    ? STATUS_LIMIT
                                                 : at == 2 ? STATUS_NUMERIC
                                                           : STATUS_STOPPING);
        assert_int_equal(rig.store->expansions.count, 0);
        assert_true(store_is_idle(rig.store));
    }
}

/* Where some are lent already a full engine makes the rest wait, not fail. */
static void test_a_level_goes_on_as_places_get_free(void **state)
{
    const uint64_t session = talk();

    (void)state;
    rig_execute(&rig, expand_of(session));
    rig.engine->refused_after = 3; /* the place, and two of three */
    answer_all(40);
    assert_int_equal(rig.engine->branch_count, 3);
    assert_true(rig.reply.more);
    rig.engine->refused_after = FAKE_BRANCH_COUNT_MAX;
    answer_all(50);
    assert_int_equal(rig.engine->branch_count, 4);
    answer_all(50);
    assert_int_equal(rig.reply.expanded.node_count, WIDTH + WIDTH * WIDTH);
    assert_true(store_is_idle(rig.store));
}

static void test_it_goes_with_the_store(void **state)
{
    const uint64_t session = talk();

    (void)state;
    grow(session);
    rig_execute(&rig, expand_of(session));
    restart(NULL); /* the leak checker looks */
}

/* At whatever allocation memory is short, an error comes and nothing stays. */
static void test_every_failed_allocation_is_an_error(void **state)
{
    uint32_t failed = 0;

    (void)state;
    for (int64_t n = 0;; n++) {
        restart(NULL);
        const uint64_t session = talk();
        struct request request = expand_of(session);

        memory_fault_set(n);
        store_execute(rig.store, &request, (struct reply_to){CONNECTION, ++rig.next_request});
        if (rig.engine->branch_count > 0) {
            answer(0, 40);
            store_pump(rig.store);
        }
        memory_fault_set(-1);
        answer_all(50);
        if (rig.reply.type == REPLY_EXPAND && rig.reply.expanded.has_end) {
            break;
        }
        assert_int_equal(rig.reply.type, REPLY_ERROR);
        assert_int_equal(rig.reply.error.status, STATUS_MEMORY);
        assert_int_equal(rig.store->expansions.count, 0);
        assert_true(store_is_idle(rig.store));
        failed++;
    }
    assert_true(failed > 15);
}

static int open_rig(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup(name, restart)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_level_is_lent_at_once_along_the_paths),
        TEST(test_why_it_ends),
        TEST(test_the_likeliest_of_a_level_stay),
        TEST(test_an_end_of_the_turn_does_not_grow_and_is_not_kept),
        TEST(test_what_is_kept_is_a_node_with_those_tokens),
        TEST(test_it_goes_with_its_connection),
        TEST(test_it_goes_when_nobody_names_it),
        TEST(test_a_user_has_so_many_and_the_oldest_goes),
        TEST(test_a_purge_forgets_it_and_waits_for_it),
        TEST(test_a_cancel_ends_its_looks_at_once_and_keeps_whole_levels),
        TEST(test_a_failed_or_refused_look_ends_it),
        TEST(test_a_level_goes_on_as_places_get_free),
        TEST(test_it_goes_with_the_store),
        TEST(test_every_failed_allocation_is_an_error),
    };

    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
