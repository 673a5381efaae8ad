/* Goal: queues keep order, bound and visibility between threads; boards keep the last value of
 * every slot; waits end when they should.
 * Method: rules are checked one by one on one thread, then two threads run against each other with
 * numbers that show a lost, doubled, reordered or half-written value (and the thread sanitizer
 * watches in its build). A checker that has seen only good runs proves nothing, so it is also fed a
 * reordered and a lossy stream.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/queue.h"

enum { ITEM_COUNT = 20000, SLOT_COUNT = 13 };

struct item {
    uint32_t producer;
    uint32_t number;
    uint32_t *note; /* written before the push, read after the pop */
};

/* Sees the numbers of each producer come as 0, 1, 2, ... */
struct order_check {
    uint32_t next[2];
    bool is_broken;
};

static void order_check_see(struct order_check *check, uint32_t producer, uint32_t number)
{
    if (number != check->next[producer]) {
        check->is_broken = true;
    }
    check->next[producer] = number + 1;
}

static void test_a_queue_is_first_in_first_out_and_bounded(void **state)
{
    struct queue *queue = NULL;
    uint64_t item = 0;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 3, &queue), STATUS_OK);
    item = 99;
    assert_int_equal(queue_pop(queue, &item), STATUS_AGAIN);
    assert_true(item == 99);
    for (uint64_t round = 0; round < 10; round++) {
        for (uint64_t i = 0; i < 3; i++) {
            item = round * 10 + i;
            assert_int_equal(queue_count(queue), i);
            assert_int_equal(queue_push(queue, &item), STATUS_OK);
        }
        assert_int_equal(queue_push(queue, &item), STATUS_LIMIT);
        for (uint64_t i = 0; i < 3; i++) {
            assert_int_equal(queue_pop(queue, &item), STATUS_OK);
            assert_true(item == round * 10 + i);
        }
        /* The ring starts elsewhere in the next round. */
        assert_int_equal(queue_push(queue, &item), STATUS_OK);
        assert_int_equal(queue_pop(queue, &item), STATUS_OK);
    }
    assert_int_equal(queue_pop(queue, &item), STATUS_AGAIN);
    queue_destroy(queue);
    queue_destroy(NULL);
}

static void count_call(void *context)
{
    ++*(uint32_t *)context;
}

static void test_the_hook_runs_after_every_entry_that_got_in(void **state)
{
    struct queue *queue = NULL;
    struct board *board = NULL;
    uint32_t count = 0;
    const uint32_t item = 5;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 2, &queue), STATUS_OK);
    queue_on_ready(queue, count_call, &count);
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    assert_int_equal(queue_push(queue, &item), STATUS_LIMIT);
    assert_int_equal(count, 2);
    queue_on_ready(queue, NULL, NULL);
    queue_destroy(queue);

    assert_int_equal(board_create(sizeof(item), 2, &board), STATUS_OK);
    board_on_ready(board, count_call, &count);
    board_post(board, 0, &item);
    board_post(board, 0, &item);
    assert_int_equal(count, 4);
    board_destroy(board);
}

static void test_a_wait_ends_with_an_item_a_wake_or_the_time(void **state)
{
    struct queue *queue = NULL;
    const uint32_t item = 5;
    uint64_t start;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 2, &queue), STATUS_OK);
    start = clock_monotonic_ns();
    queue_wait(queue, 20);
    assert_true(clock_monotonic_ns() - start >= 20000000u);
    queue_wake(queue);
    queue_wait(queue, -1); /* a lost wake would hang here */
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    queue_wait(queue, -1);
    queue_wait(queue, -1);
    queue_destroy(queue);
}

static void test_one_wake_ends_one_wait(void **state)
{
    struct queue *queue = NULL;
    uint64_t start;

    (void)state;
    assert_int_equal(queue_create(1, 1, &queue), STATUS_OK);
    queue_wake(queue);
    queue_wake(queue);
    queue_wait(queue, -1);
    start = clock_monotonic_ns();
    queue_wait(queue, 20);
    assert_true(clock_monotonic_ns() - start >= 20000000u);
    queue_destroy(queue);
}

static void test_what_is_pushed_while_it_is_held_comes_out_together(void **state)
{
    struct queue *queue = NULL;
    uint32_t item = 5;
    uint64_t start;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 2, &queue), STATUS_OK);
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    queue_hold(queue, true);
    assert_int_equal(queue_pop(queue, &item), STATUS_AGAIN);
    item = 6;
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    assert_int_equal(queue_push(queue, &item), STATUS_LIMIT);
    start = clock_monotonic_ns();
    queue_wait(queue, 20);
    assert_true(clock_monotonic_ns() - start >= 20000000u);
    queue_wake(queue);
    queue_wait(queue, -1); /* a wake ends a wait all the same */
    queue_hold(queue, false);
    queue_wait(queue, -1);
    for (uint32_t wanted = 5; wanted <= 6; wanted++) {
        assert_int_equal(queue_pop(queue, &item), STATUS_OK);
        assert_int_equal(item, wanted);
    }
    queue_destroy(queue);
}

static void *let_go(void *context)
{
    queue_hold(context, false);
    return NULL;
}

static void test_letting_go_ends_a_sleep(void **state)
{
    struct queue *queue = NULL;
    const uint32_t item = 5;
    pthread_t thread;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 2, &queue), STATUS_OK);
    queue_hold(queue, true);
    assert_int_equal(queue_push(queue, &item), STATUS_OK);
    assert_int_equal(pthread_create(&thread, NULL, let_go, queue), 0);
    queue_wait(queue, -1); /* would hang */
    assert_int_equal(pthread_join(thread, NULL), 0);
    queue_destroy(queue);
}

static void test_a_board_keeps_the_last_value_in_the_order_of_the_first(void **state)
{
    struct board *board = NULL;
    uint64_t value;
    uint32_t slot = 77;

    (void)state;
    assert_int_equal(board_create(sizeof(value), 4, &board), STATUS_OK);
    value = 99;
    assert_int_equal(board_take(board, &slot, &value), STATUS_AGAIN);
    assert_true(slot == 77 && value == 99);
    for (int round = 0; round < 7; round++) {
        const uint32_t posts[] = {2, 0, 2, 3, 0, 2};

        for (uint32_t i = 0; i < 6; i++) {
            value = i;
            board_post(board, posts[i], &value);
        }
        assert_int_equal(board_take(board, &slot, &value), STATUS_OK);
        assert_true(slot == 2 && value == 5);
        assert_int_equal(board_take(board, &slot, &value), STATUS_OK);
        assert_true(slot == 0 && value == 4);
        board_post(board, 2, &value);
        assert_int_equal(board_take(board, &slot, &value), STATUS_OK);
        assert_true(slot == 3 && value == 3);
        assert_int_equal(board_take(board, &slot, &value), STATUS_OK);
        assert_true(slot == 2 && value == 4);
        assert_int_equal(board_take(board, &slot, &value), STATUS_AGAIN);
    }
    board_destroy(board);
    board_destroy(NULL);
}

struct producer {
    struct queue *queue;
    uint32_t index;
    uint32_t notes[ITEM_COUNT];
};

static void *produce(void *context)
{
    struct producer *producer = context;

    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        const struct item item = {producer->index, i, &producer->notes[i]};

        producer->notes[i] = i ^ 0x5A5A;
        while (queue_push(producer->queue, &item) == STATUS_LIMIT) {
            sched_yield();
        }
    }
    return NULL;
}

static void test_two_producers_lose_double_and_reorder_nothing(void **state)
{
    static struct producer producers[2];
    struct order_check check = {0};
    struct queue *queue = NULL;
    pthread_t threads[2];
    uint32_t count = 0;

    (void)state;
    assert_int_equal(queue_create(sizeof(struct item), 64, &queue), STATUS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        producers[i].queue = queue;
        producers[i].index = i;
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    while (count < 2 * ITEM_COUNT) {
        struct item item;

        queue_wait(queue, -1);
        while (queue_pop(queue, &item) == STATUS_OK) {
            order_check_see(&check, item.producer, item.number);
            if (*item.note != (item.number ^ 0x5A5A)) {
                fail_msg("item %u came before what it points to", (unsigned)item.number);
            }
            count++;
        }
    }
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    assert_false(check.is_broken);
    assert_int_equal(check.next[0], ITEM_COUNT);
    assert_int_equal(check.next[1], ITEM_COUNT);
    assert_int_equal(queue_count(queue), 0);
    queue_destroy(queue);
}

static void test_the_order_check_sees_a_swap_and_a_loss(void **state)
{
    struct order_check swapped = {0};
    struct order_check lossy = {0};

    (void)state;
    order_check_see(&swapped, 0, 0);
    order_check_see(&swapped, 1, 0);
    assert_false(swapped.is_broken);
    order_check_see(&swapped, 0, 2);
    order_check_see(&swapped, 0, 1);
    assert_true(swapped.is_broken);
    order_check_see(&lossy, 1, 0);
    order_check_see(&lossy, 1, 2);
    assert_true(lossy.is_broken);
}

/* Both halves carry the number: a torn value shows. */
struct board_value {
    uint64_t number;
    uint8_t filler[48];
    uint64_t number_again;
};

struct poster {
    struct board *board;
    struct flag *is_done;
};

static void *post(void *context)
{
    struct poster *poster = context;

    for (uint64_t i = 1; i <= ITEM_COUNT; i++) {
        const struct board_value value = {.number = i, .number_again = i};

        board_post(poster->board, (uint32_t)(i * 7 % SLOT_COUNT), &value);
    }
    flag_raise(poster->is_done);
    return NULL;
}

static void test_a_board_between_threads_ends_with_every_last_value(void **state)
{
    uint64_t last[SLOT_COUNT] = {0};
    struct poster poster = {0};
    pthread_t thread;
    bool was_done = false;

    (void)state;
    assert_int_equal(board_create(sizeof(struct board_value), SLOT_COUNT, &poster.board),
                     STATUS_OK);
    assert_int_equal(flag_create(&poster.is_done), STATUS_OK);
    assert_int_equal(pthread_create(&thread, NULL, post, &poster), 0);
    while (!was_done) {
        struct board_value value;
        uint32_t slot;

        was_done = flag_is_raised(poster.is_done); /* before the drain: nothing comes after it */
        while (board_take(poster.board, &slot, &value) == STATUS_OK) {
            if (value.number != value.number_again || value.number <= last[slot] ||
                value.number * 7 % SLOT_COUNT != slot) {
                fail_msg("slot %u went wrong at %u", (unsigned)slot, (unsigned)value.number);
            }
            last[slot] = value.number;
        }
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        assert_true(last[slot] > ITEM_COUNT - SLOT_COUNT);
    }
    flag_destroy(poster.is_done);
    board_destroy(poster.board);
}

static void *wake_later(void *queue)
{
    const struct timespec pause = {.tv_nsec = 5000000};

    nanosleep(&pause, NULL);
    queue_wake(queue);
    return NULL;
}

static void test_a_wake_from_another_thread_ends_a_sleep(void **state)
{
    struct queue *queue = NULL;
    pthread_t thread;

    (void)state;
    assert_int_equal(queue_create(1, 1, &queue), STATUS_OK);
    assert_int_equal(pthread_create(&thread, NULL, wake_later, queue), 0);
    queue_wait(queue, -1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    queue_destroy(queue);
}

static void test_a_flag_starts_down_and_stays_up(void **state)
{
    struct flag *flag = NULL;

    (void)state;
    assert_int_equal(flag_create(&flag), STATUS_OK);
    assert_false(flag_is_raised(flag));
    flag_raise(flag);
    flag_raise(flag);
    assert_true(flag_is_raised(flag));
    flag_destroy(flag);
    flag_destroy(NULL);
}

static void test_only_create_allocates(void **state)
{
    struct queue *queue = NULL;
    struct board *board = NULL;
    uint32_t item = 1;
    uint32_t slot;
    uint64_t made;

    (void)state;
    assert_int_equal(queue_create(sizeof(item), 8, &queue), STATUS_OK);
    assert_int_equal(board_create(sizeof(item), 8, &board), STATUS_OK);
    made = memory_thread_allocation_count();
    for (int i = 0; i < 100; i++) {
        assert_int_equal(queue_push(queue, &item), STATUS_OK);
        queue_wait(queue, 0);
        assert_int_equal(queue_pop(queue, &item), STATUS_OK);
        board_post(board, (uint32_t)i % 8, &item);
        assert_int_equal(board_take(board, &slot, &item), STATUS_OK);
    }
    assert_true(memory_thread_allocation_count() == made);
    queue_destroy(queue);
    board_destroy(board);
}

/* The out parameter starts as an address that nobody returns, to see that it is left alone. */
static void test_creation_survives_every_failed_allocation(void **state)
{
    const int64_t live = memory_live_count();
    int failures = 0;

    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        for (int64_t survivors = 0;; survivors++) {
            void *untouched = &failures;
            struct queue *queue = untouched;
            struct board *board = untouched;
            struct flag *flag = untouched;
            enum status status;

            memory_fault_set(survivors);
            status = kind == 0   ? queue_create(8, 8, &queue)
                     : kind == 1 ? board_create(8, 8, &board)
                                 : flag_create(&flag);
            memory_fault_set(-1);
            if (status == STATUS_OK) {
                queue_destroy(kind == 0 ? queue : NULL);
                board_destroy(kind == 1 ? board : NULL);
                flag_destroy(kind == 2 ? flag : NULL);
                break;
            }
            assert_int_equal(status, STATUS_MEMORY);
            assert_ptr_equal(queue, untouched);
            assert_ptr_equal(board, untouched);
            assert_ptr_equal(flag, untouched);
            assert_true(memory_live_count() == live);
            failures++;
        }
    }
    assert_int_equal(failures, 2 + 4 + 1);
    assert_true(memory_live_count() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_queue_is_first_in_first_out_and_bounded),
        cmocka_unit_test(test_the_hook_runs_after_every_entry_that_got_in),
        cmocka_unit_test(test_a_wait_ends_with_an_item_a_wake_or_the_time),
        cmocka_unit_test(test_one_wake_ends_one_wait),
        cmocka_unit_test(test_what_is_pushed_while_it_is_held_comes_out_together),
        cmocka_unit_test(test_letting_go_ends_a_sleep),
        cmocka_unit_test(test_a_board_keeps_the_last_value_in_the_order_of_the_first),
        cmocka_unit_test(test_two_producers_lose_double_and_reorder_nothing),
        cmocka_unit_test(test_the_order_check_sees_a_swap_and_a_loss),
        cmocka_unit_test(test_a_board_between_threads_ends_with_every_last_value),
        cmocka_unit_test(test_a_wake_from_another_thread_ends_a_sleep),
        cmocka_unit_test(test_a_flag_starts_down_and_stays_up),
        cmocka_unit_test(test_only_create_allocates),
        cmocka_unit_test(test_creation_survives_every_failed_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
