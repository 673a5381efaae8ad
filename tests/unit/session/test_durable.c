/* Goal: durable before visible. Whenever a reader can learn of something, the journal holds it: a
 * shown token the intent of its node, a finished node its finish row and content, a child the part
 * of its parent that it hangs on, an answered Cancel its cut. Method: at every answer and every
 * piece of news all trees are compared with what the database holds at that moment. The twins turn
 * each order round on purpose, and the comparison must see it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "journal/rows.h"
#include "session/change.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

static struct rig rig;
static uint32_t fault_count; /* what the comparison has seen */
static uint32_t watch_count;

static const char plain_card[] =
    "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";

static const struct rows_node *find_row(const struct rows_tree *rows, uint64_t node)
{
    for (uint32_t i = 0; i < rows->node_count; i++) {
        if (rows->nodes[i].node.id == node) {
            return &rows->nodes[i];
        }
    }
    return NULL;
}

static uint32_t stored_content_count(const struct rows_node *row)
{
    if (!row->is_sampled) {
        return (uint32_t)(row->ids.size / sizeof(uint32_t));
    }
    return row->tail.size > 0 ? (uint32_t)(row->tail.size / sizeof(uint32_t)) : row->kept;
}

static void compare_node(const struct rows_tree *rows, const struct node *node)
{
    const struct rows_node *row = find_row(rows, node->id);
    const struct rows_node *parent =
        node->parent->parent != NULL ? find_row(rows, node->parent->id) : NULL;

    if (!node->is_visible) {
        return;
    }
    if (row == NULL) {
        fault_count++;
        return;
    }
    if (node->parent->parent != NULL &&
        (parent == NULL || stored_content_count(parent) < node->parent_offset)) {
        fault_count++;
    }
    if (node->is_finish_visible) {
        uint32_t count = 0;

        (void)node_content(node, &count);
        fault_count += row->finish != (uint32_t)node->finish || stored_content_count(row) != count;
    }
}

static void watch(struct rig *at)
{
    watch_count++;
    for (uint32_t i = 0; i < at->store->sessions.count; i++) {
        struct session *session = at->store->sessions.items[i];
        struct rows_tree *rows = NULL;

        assert_int_equal(rows_read_tree(journal_database(at->journal), session->id, NULL, &rows),
                         STATUS_OK);
        for (struct node *node = tree_next_of_all(&session->root, &session->root); node != NULL;
             node = tree_next_of_all(&session->root, node)) {
            compare_node(rows, node);
        }
        rows_tree_destroy(rows);
    }
}

static int restart(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    rig.watch = watch;
    fault_count = 0;
    watch_count = 0;
    return 0;
}

static void execute_unsettled(struct request request)
{
    const struct reply_to to = {1, ++rig.next_request};

    store_execute(rig.store, &request, to);
}

static struct node *last_node(void)
{
    return table_find(&rig.store->nodes, rig.store->last_node_id);
}

/* The engine is ahead of the journal, then the journal of the engine; a fork; a cancel. */
static void test_nothing_is_shown_before_it_is_stored(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request cancel = rig_request(REQUEST_CANCEL);
    struct request fork = rig_append(session, "and so on");
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_append(session, "Once upon a time"));
    execute_unsettled(rig_generate(session, 1));
    fake_engine_emit_text(rig.engine, 0, "the tokens come before the commit");
    store_pump(rig.store);
    assert_false(last_node()->is_visible);
    rig_settle(&rig);
    node = last_node()->id;
    fake_engine_emit_text(rig.engine, 0, " and go on");
    rig_settle(&rig);
    fork.u.append.has_position = true;
    fork.u.append.position = (struct position){node, 3};
    rig_execute(&rig, fork);
    fork.u.append.position = (struct position){node, OFFSET_END};
    rig_execute(&rig, fork);
    cancel.u.cancel.nodes = &node;
    cancel.u.cancel.node_count = 1;
    execute_unsettled(cancel);
    store_pump(rig.store);
    assert_int_not_equal(rig.reply.type, REPLY_DONE);
    rig_settle(&rig);
    assert_int_equal(rig.reply.type, REPLY_DONE);
    rig_execute(&rig, rig_say(session, "More."));
    fake_engine_emit_text(rig.engine, 1, "x");
    fake_engine_end(rig.engine, 1, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    assert_true(watch_count > 8);
    assert_int_equal(fault_count, 0);
}

static uint32_t ended_count(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < rig.engine->branch_count; i++) {
        count += rig.engine->branches[i].event.finish == FINISH_CANCELLED;
    }
    return count;
}

/* The first answer to the cancel, and to whom. */
static uint64_t cancel_request;
static uint32_t unfinished_at_done;

static void watch_cancel(struct rig *at)
{
    watch(at);
    if (at->reply.request == cancel_request && at->reply.type == REPLY_DONE) {
        struct session *session = at->store->sessions.items[0];

        for (struct node *node = tree_next_of_all(&session->root, &session->root); node != NULL;
             node = tree_next_of_all(&session->root, node)) {
            unfinished_at_done += !node->is_finish_visible;
        }
        cancel_request = 0;
    }
}

/* The engine stops before the journal has moved; the answer waits for it. */
static void test_a_cancel_stops_at_once_what_is_not_stored_yet(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request cancel = rig_request(REQUEST_CANCEL);

    (void)state;
    rig.watch = watch_cancel;
    unfinished_at_done = 0;
    rig_execute(&rig, rig_append(session, "Once upon a time"));
    execute_unsettled(rig_generate(session, 3));
    fake_engine_emit_text(rig.engine, 1, "some tokens");
    cancel.u.cancel.session = session;
    const uint32_t replies = rig.reply_count;
    execute_unsettled(cancel);
    cancel_request = rig.next_request;
    assert_int_equal(ended_count(), 3);
    store_pump(rig.store);
    assert_int_equal(rig.reply_count, replies); /* neither Created nor Done */
    rig_settle(&rig);
    assert_int_equal(rig.reply_count, replies + 2);
    assert_int_equal(cancel_request, 0);
    assert_int_equal(unfinished_at_done, 0);
    assert_int_equal(last_node()->finish, NODE_CUT);
    assert_int_equal(fault_count, 0);
    assert_true(store_is_idle(rig.store));
}

/* The same of one request, whose nodes nobody could name yet. */
static void test_a_cancel_by_request_stops_at_once_what_is_not_stored_yet(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    rig_execute(&rig, rig_append(session, "Once upon a time"));
    execute_unsettled(rig_generate(session, 2));
    execute_unsettled(rig_generate(session, 3));
    store_cancel_request(rig.store, (struct reply_to){2, rig.next_request});
    assert_int_equal(ended_count(), 0); /* another connection */
    store_cancel_request(rig.store, (struct reply_to){1, rig.next_request});
    assert_int_equal(ended_count(), 3);
    rig_settle(&rig);
    assert_int_equal(last_node()->finish, NODE_CUT);
    assert_int_equal(fault_count, 0);
    for (uint32_t i = 0; i < 2; i++) {
        fake_engine_end(rig.engine, i, FINISH_END, STATUS_OK);
    }
    rig_settle(&rig);
    assert_true(store_is_idle(rig.store));
    store_cancel_request(rig.store, (struct reply_to){1, rig.next_request});
}

/* The same below a node that is deleted. */
static void test_a_delete_stops_at_once_what_is_not_stored_yet(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request delete = rig_request(REQUEST_DELETE);
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_append(session, "Once upon a time"));
    node = rig.reply.nodes[0].id;
    execute_unsettled(rig_generate(session, 2));
    delete.u.nodes.nodes = &node;
    delete.u.nodes.count = 1;
    execute_unsettled(delete);
    assert_int_equal(ended_count(), 2);
    rig_settle(&rig);
    assert_int_equal(fault_count, 0);
    assert_true(store_is_idle(rig.store));
}

static void test_tokens_shown_before_their_intent_are_caught(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    execute_unsettled(rig_generate(session, 1));
    generate_commit(rig.store, last_node(), JOURNAL_TOLD_NODE, STATUS_OK); /* planted */
    assert_true(fault_count > 0);
    rig_settle(&rig);
}

static void test_given_text_shown_before_it_is_stored_is_caught(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    execute_unsettled(rig_append(session, "x"));
    change_given_committed(rig.store, last_node(), STATUS_OK); /* planted */
    assert_true(fault_count > 0);
    rig_settle(&rig);
}

static void test_an_end_told_before_it_is_stored_is_caught(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    fake_engine_emit_text(rig.engine, 0, "x");
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    store_pump(rig.store);
    assert_int_equal(fault_count, 0);
    generate_commit(rig.store, last_node(), JOURNAL_TOLD_FINISH, STATUS_OK); /* planted */
    assert_true(fault_count > 0);
    rig_settle(&rig);
}

static void test_a_child_stored_before_its_parents_part_is_caught(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    fake_engine_emit_text(rig.engine, 0, "the parent grows");
    rig_settle(&rig);
    last_node()->sampled->stored_released_count = UINT32_MAX; /* planted: as if it were stored */
    rig_execute(&rig, rig_append(session, "x"));
    assert_true(fault_count > 0);
}

static int set_up(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup(name, restart)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_shown_before_it_is_stored),
        TEST(test_a_cancel_stops_at_once_what_is_not_stored_yet),
        TEST(test_a_cancel_by_request_stops_at_once_what_is_not_stored_yet),
        TEST(test_a_delete_stops_at_once_what_is_not_stored_yet),
        TEST(test_tokens_shown_before_their_intent_are_caught),
        TEST(test_given_text_shown_before_it_is_stored_is_caught),
        TEST(test_an_end_told_before_it_is_stored_is_caught),
        TEST(test_a_child_stored_before_its_parents_part_is_caught),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
