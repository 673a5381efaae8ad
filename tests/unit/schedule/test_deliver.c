/* Goal: what is released, kept and cut is what the contract of branch.h says, token by token.
 * Method: tokens are handed to deliver_token() one after another; the vocabulary has cues that
 * begin in the middle of a token, a character of two tokens and an end token.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "schedule/deliver.h"
#include "support/engine_rig.h"

enum { A = RIG_TOKEN_A, B = A + 1, AB = 29, USER = 31, COLON = 32, US = 33, NEWLINE_B = 35 };

static const uint32_t context[4] = {A, A, A, A};

struct fixture {
    struct engine_rig rig;
    struct branch branch;
    const struct branch_output *output;
};

/* A branch of the rig that the engine never sees a step of. */
static void open(struct fixture *fixture, const char *cue, uint32_t max_tokens, uint32_t room)
{
    const struct engine_rig_settings settings = engine_rig_defaults();
    const struct engine_rig_request request = {
        .ids = context, .count = 4, .cue = cue, .max_tokens = max_tokens, .room = room};

    memset(&fixture->branch, 0, sizeof(fixture->branch));
    engine_rig_open(&fixture->rig, &settings, 1);
    engine_rig_lend(&fixture->rig, &request);
    fixture->branch.spec = fixture->rig.branches[0].spec;
    fixture->output = fixture->branch.spec->output;
    deliver_start(fixture->rig.tokenizer, &fixture->branch);
}

static void give(struct fixture *fixture, uint32_t token)
{
    const struct sample_result result = {.token = token, .logprob = -1.5f};

    deliver_token(fixture->rig.tokenizer, &fixture->branch, &result, 100);
}

static void expect_release(const struct fixture *fixture, uint32_t count, uint32_t bytes)
{
    assert_int_equal(fixture->branch.finish, FINISH_NONE);
    assert_int_equal(fixture->branch.event.released_count, count);
    assert_int_equal(fixture->branch.event.released_bytes, bytes);
}

static void expect_end(const struct fixture *fixture, enum branch_finish finish, uint32_t sampled,
                       uint32_t kept, uint32_t content_bytes)
{
    assert_int_equal(fixture->branch.finish, finish);
    assert_int_equal(fixture->branch.event.sampled_count, sampled);
    assert_int_equal(fixture->branch.event.kept, kept);
    assert_int_equal(fixture->branch.event.content_bytes, content_bytes);
}

static void test_a_cue_over_tokens_cuts_before_its_first_token(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "User:", 16, 0);
    give(&fixture, A);
    expect_release(&fixture, 1, 1);
    give(&fixture, US);
    expect_release(&fixture, 1, 1);
    give(&fixture, 34); /* "er" */
    expect_release(&fixture, 1, 1);
    give(&fixture, COLON);
    expect_end(&fixture, FINISH_CUE, 4, 1, 1);
    engine_rig_close(&fixture.rig);
}

static void test_a_cue_that_begins_inside_a_token_leaves_a_tail(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "bUser", 16, 0);
    give(&fixture, A);
    give(&fixture, AB);
    expect_release(&fixture, 1, 2); /* the "a" of "ab" may be shown, its "b" may be a cue's */
    give(&fixture, USER);
    expect_end(&fixture, FINISH_CUE, 3, 1, 2);
    assert_memory_equal(fixture.output->text, "aabUser", 7);
    engine_rig_close(&fixture.rig);
}

static void test_held_bytes_are_released_when_they_turn_out_harmless(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "User:", 16, 0);
    give(&fixture, USER);
    expect_release(&fixture, 0, 0);
    give(&fixture, A);
    expect_release(&fixture, 2, 5);
    engine_rig_close(&fixture.rig);
}

static void test_a_character_is_shown_when_it_is_whole(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, NULL, 16, 0);
    give(&fixture, RIG_TOKEN_FIRST_UTF8);
    expect_release(&fixture, 0, 0);
    give(&fixture, RIG_TOKEN_FIRST_UTF8 + 1);
    expect_release(&fixture, 2, 2);
    engine_rig_close(&fixture.rig);
}

static void test_an_end_token_is_stored_and_neither_shown_nor_kept(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "User:", 16, 0);
    give(&fixture, A);
    give(&fixture, US);
    give(&fixture, RIG_TOKEN_END);
    expect_end(&fixture, FINISH_END, 3, 2, 3);
    assert_int_equal(fixture.output->text_ends[2], 3);
    assert_int_equal(fixture.output->tokens[2], RIG_TOKEN_END);
    engine_rig_close(&fixture.rig);
}

static void test_an_end_token_at_the_very_start_gives_empty_content(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, NULL, 16, 0);
    give(&fixture, RIG_TOKEN_END);
    expect_end(&fixture, FINISH_END, 1, 0, 0);
    engine_rig_close(&fixture.rig);
}

static void test_the_last_token_allowed_ends_by_length_unless_it_ends_a_cue(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "User:", 2, 0);
    give(&fixture, A);
    give(&fixture, USER);
    expect_end(&fixture, FINISH_LENGTH, 2, 2, 5);
    engine_rig_close(&fixture.rig);
    open(&fixture, "User:", 2, 0);
    give(&fixture, USER);
    give(&fixture, COLON);
    expect_end(&fixture, FINISH_CUE, 2, 0, 0);
    engine_rig_close(&fixture.rig);
}

static void test_a_full_room_ends_by_context(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, NULL, 16, 6);
    give(&fixture, A);
    expect_release(&fixture, 1, 1);
    give(&fixture, NEWLINE_B);
    expect_end(&fixture, FINISH_CONTEXT, 2, 2, 3);
    engine_rig_close(&fixture.rig);
}

static void test_no_room_at_all_ends_at_once(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, NULL, 16, 4);
    expect_end(&fixture, FINISH_CONTEXT, 0, 0, 0);
    engine_rig_close(&fixture.rig);
}

static void test_a_cut_from_outside_keeps_what_was_shown(void **state)
{
    struct fixture fixture;

    (void)state;
    open(&fixture, "bUser", 16, 0);
    give(&fixture, A);
    give(&fixture, AB);
    deliver_cut(&fixture.branch, FINISH_CANCELLED, STATUS_OK);
    expect_end(&fixture, FINISH_CANCELLED, 2, 1, 2);
    engine_rig_close(&fixture.rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cue_over_tokens_cuts_before_its_first_token),
        cmocka_unit_test(test_a_cue_that_begins_inside_a_token_leaves_a_tail),
        cmocka_unit_test(test_held_bytes_are_released_when_they_turn_out_harmless),
        cmocka_unit_test(test_a_character_is_shown_when_it_is_whole),
        cmocka_unit_test(test_an_end_token_is_stored_and_neither_shown_nor_kept),
        cmocka_unit_test(test_an_end_token_at_the_very_start_gives_empty_content),
        cmocka_unit_test(test_the_last_token_allowed_ends_by_length_unless_it_ends_a_cue),
        cmocka_unit_test(test_a_full_room_ends_by_context),
        cmocka_unit_test(test_no_room_at_all_ends_at_once),
        cmocka_unit_test(test_a_cut_from_outside_keeps_what_was_shown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
