/* Goal: the window moves as documented: not before it must, then to half of the room, in whole
 * turns, never past what stays, and never back.
 * Method: conversations of counted turns; a naive search states the rule again for random ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "session/window.h"

enum { TURN_COUNT_MAX = 64 };

struct turns {
    uint32_t tokens[TURN_COUNT_MAX];
    uint32_t count;
};

static uint64_t tokens_from(void *context, uint32_t first)
{
    const struct turns *turns = context;
    uint64_t sum = 0;

    for (uint32_t i = first; i < turns->count; i++) {
        sum += turns->tokens[i];
    }
    return sum;
}

static enum status place(struct turns *turns, uint32_t room, uint32_t reply, uint32_t kept,
                         uint32_t inherited, uint32_t *first)
{
    const struct window window = {.room = room,
                                  .reply_tokens = reply,
                                  .turn_count = turns->count,
                                  .kept_turn_count = kept,
                                  .inherited_first = inherited};
    const struct window_lengths lengths = {tokens_from, turns};

    return window_place(&window, &lengths, first);
}

static void test_nothing_moves_while_turns_and_reserve_fit(void **state)
{
    struct turns turns = {{10, 10, 10, 10, 10}, 5};
    uint32_t first = 99;

    (void)state;
    assert_int_equal(place(&turns, 100, 50, 1, 0, &first), STATUS_OK);
    assert_int_equal(first, 0);
    assert_int_equal(place(&turns, 99, 49, 1, 0, &first), STATUS_OK);
    assert_int_equal(first, 0);
    assert_int_equal(place(&turns, 98, 49, 1, 0, &first), STATUS_OK);
    assert_int_equal(first, 1);
}

static void test_it_goes_to_half_and_then_rests_for_many_turns(void **state)
{
    struct turns turns = {{0}, 0};
    uint32_t first = 0;
    uint32_t moves = 0;

    (void)state;
    for (uint32_t i = 0; i < TURN_COUNT_MAX; i++) {
        const uint32_t before = first;

        turns.tokens[turns.count++] = 10;
        assert_int_equal(place(&turns, 200, 20, 1, first, &first), STATUS_OK);
        assert_true(first >= before);
        if (first != before) {
            moves++;
            assert_true(tokens_from(&turns, first) <= 100);
            assert_true(tokens_from(&turns, first - 1) > 100);
        }
    }
    /* One move a turn would be about 46. */
    assert_int_equal(moves, 6);
}

static void test_the_reserve_is_at_most_half_of_the_room(void **state)
{
    struct turns turns = {{40, 10}, 2};
    uint32_t first = 0;

    (void)state;
    assert_int_equal(place(&turns, 100, 100000, 1, 0, &first), STATUS_OK);
    assert_int_equal(first, 0);
}

static void test_what_stays_and_does_not_fit_is_a_limit(void **state)
{
    struct turns turns = {{10, 60, 60}, 3};
    uint32_t first = 77;

    (void)state;
    assert_int_equal(place(&turns, 100, 10, 2, 0, &first), STATUS_LIMIT);
    assert_int_equal(first, 77);
    assert_int_equal(place(&turns, 100, 10, 1, 0, &first), STATUS_OK);
    assert_int_equal(first, 2);
    assert_int_equal(place(&turns, 60, 10, 1, 0, &first), STATUS_LIMIT);
    assert_int_equal(place(&turns, 61, 10, 1, 0, &first), STATUS_OK);
    assert_int_equal(place(&turns, 0, 10, 1, 0, &first), STATUS_LIMIT);
}

static void test_a_cut_is_inherited_but_not_past_what_stays(void **state)
{
    struct turns turns = {{1, 1, 1, 1}, 4};
    uint32_t first = 0;

    (void)state;
    assert_int_equal(place(&turns, 100, 10, 1, 2, &first), STATUS_OK);
    assert_int_equal(first, 2);
    assert_int_equal(place(&turns, 100, 10, 2, 4, &first), STATUS_OK);
    assert_int_equal(first, 2);
}

static void test_random_conversations_agree_with_the_rule_stated_again(void **state)
{
    uint64_t random = 1;
    uint32_t cut_count = 0;

    (void)state;
    for (uint32_t round = 0; round < 20000; round++) {
        struct turns turns = {{0}, 1 + (uint32_t)(random >> 60)};
        const uint32_t room = 1 + (uint32_t)(random >> 20) % 300;
        const uint32_t reply = 1 + (uint32_t)(random >> 30) % 300;
        const uint32_t reserve = reply < room / 2 ? reply : room / 2;
        uint32_t first = 0;
        uint32_t wanted = 0;

        for (uint32_t i = 0; i < turns.count; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            turns.tokens[i] = (uint32_t)(random >> 40) % 60;
        }
        random = random * 6364136223846793005u + 1442695040888963407u;
        /* From the last turn back, as long as half of the room stays free. */
        if (tokens_from(&turns, 0) + reserve > room) {
            wanted = turns.count - 1;
            while (wanted > 0 && tokens_from(&turns, wanted - 1) <= room - room / 2) {
                wanted--;
            }
        }
        if (tokens_from(&turns, wanted) + 1 > room) {
            assert_int_equal(place(&turns, room, reply, 1, 0, &first), STATUS_LIMIT);
        } else {
            assert_int_equal(place(&turns, room, reply, 1, 0, &first), STATUS_OK);
            assert_int_equal(first, wanted);
            cut_count += first > 0;
        }
    }
    assert_true(cut_count > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_moves_while_turns_and_reserve_fit),
        cmocka_unit_test(test_it_goes_to_half_and_then_rests_for_many_turns),
        cmocka_unit_test(test_the_reserve_is_at_most_half_of_the_room),
        cmocka_unit_test(test_what_stays_and_does_not_fit_is_a_limit),
        cmocka_unit_test(test_a_cut_is_inherited_but_not_past_what_stays),
        cmocka_unit_test(test_random_conversations_agree_with_the_rule_stated_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
