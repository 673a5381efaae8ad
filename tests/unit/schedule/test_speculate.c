/* Goal: drafts change how many steps a reply takes and nothing else, wherever they are right,
 * wrong, or past the end; they are made only where they may be, and give up where they fail.
 * Method: the lookup against texts written out; the engine over the fake backend with texts that
 * are what the reply gives alone, whole or with tokens changed, compared by memcmp with the same
 * branch without drafts; ends of every kind inside a draft; numbers that are none behind a wrong
 * and a right draft; steps counted. Twin: a backend that keeps what followed a wrong draft.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "limits.h"
#include "schedule/speculate.h"
#include "support/engine_rig.h"

enum { CONTEXT = 40, TOKENS = 200, STEPS = 5000 };

/* ---- the lookup ---- */

static uint32_t find(const char *path, uint32_t reply_count, const char *text, uint32_t count_max,
                     char *out)
{
    uint32_t ids[64], text_ids[64], drafts[16];
    bool is_long;
    struct branch_run run = {.ids = text_ids, .count = text == NULL ? 0 : (uint32_t)strlen(text)};
    const struct draft_query query = {
        .ids = ids,
        .count = (uint32_t)strlen(path),
        .reply_count = reply_count,
        .texts = &run,
        .text_count = text != NULL,
    };

    for (uint32_t i = 0; i < query.count; i++) {
        ids[i] = (uint8_t)path[i];
    }
    for (uint32_t i = 0; i < run.count; i++) {
        text_ids[i] = (uint8_t)text[i];
    }
    const uint32_t count = speculate_find(&query, count_max, drafts, &is_long);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (char)drafts[i];
    }
    out[count] = '\0';
    return count;
}

static void test_what_followed_the_longest_match_is_drafted(void **state)
{
    char out[17];

    (void)state;
    find("the cat sat. the c", 2, NULL, 7, out);
    assert_string_equal(out, "at sat.");
    find("1abX 2abY ab", 2, NULL, 1, out); /* of equal ones the last */
    assert_string_equal(out, "Y");
    find("1abX 2abY 1ab", 2, NULL, 1, out); /* a longer one wins */
    assert_string_equal(out, "X");
    find("..abcabc", 2, NULL, 3, out);
    assert_string_equal(out, "abc");
    find("abab", 2, NULL, 7, out); /* a path that repeats itself goes on so */
    assert_string_equal(out, "abababa");
    find("abcdabcdabcdabcd", 2, NULL, 7, out);
    assert_string_equal(out, "abcdabc");
}

static void test_nothing_in_common_gives_no_drafts(void **state)
{
    char out[17];

    (void)state;
    assert_int_equal(find("abcdefg", 2, NULL, 7, out), 0);
    assert_int_equal(find("a", 1, NULL, 7, out), 0);
    assert_int_equal(find("xa ya", 1, NULL, 7, out), 0); /* one token is none */
    assert_int_equal(find("ab", 1, "", 7, out), 0);
    assert_int_equal(find("abcab", 2, NULL, 0, out), 0);
}

static void test_a_text_that_the_reply_follows_wins(void **state)
{
    char out[17];

    (void)state;
    find("say better. bet", 3, "beta me now", 4, out);
    assert_string_equal(out, "a me");
    find("say better. bet", 3, "more bets", 4, out); /* not from its start: as any other place */
    assert_string_equal(out, "ter.");
    find("so. bet", 3, "more bets", 4, out);
    assert_string_equal(out, "s");                          /* and no further */
    assert_int_equal(find("so. bet", 3, "bet", 4, out), 0); /* it ends there */
    find("h", 1, "hey", 4, out);
    assert_string_equal(out, "ey");
}

/* ---- the engine ---- */

static uint32_t ids[CONTEXT];
static uint32_t text[TOKENS];
static struct branch_run text_run = {.ids = text};

static struct engine_rig_request request_make(uint64_t seed)
{
    engine_rig_fill(ids, CONTEXT, 3);
    const struct engine_rig_request request = {
        .ids = ids,
        .count = CONTEXT,
        .seed = seed,
        .max_tokens = TOKENS,
        .ignore_end = true,
        .top_count = 2,
        .session_scope = 5,
    };
    return request;
}

/* The text becomes what the request gives alone, every `wrong_each`-th token changed (0: none). */
static void text_make(const struct engine_rig_request *request, uint32_t wrong_each)
{
    struct engine_rig rig;
    const struct engine_rig_branch *branch = engine_rig_alone(&rig, request);

    text_run.count = branch->event.sampled_count;
    for (uint32_t i = 0; i < text_run.count; i++) {
        const bool is_wrong = wrong_each != 0 && i % wrong_each == wrong_each - 1;
        text[i] = (branch->output.tokens[i] + is_wrong) % RIG_TOKEN_COUNT;
    }
    engine_rig_close(&rig);
}

static struct engine_rig_settings settings_make(uint32_t slot_count)
{
    struct engine_rig_settings settings = engine_rig_defaults();

    settings.speculates = true;
    settings.step_slot_count = slot_count;
    return settings;
}

struct outcome {
    uint64_t step_count;
    struct engine_stats stats;
    bool is_equal; /* to the same alone */
};

/* change: what the fake shall do, or NULL. */
static struct outcome run_with(const struct engine_rig_request *request,
                               const struct engine_rig_settings *settings,
                               const struct backend_ops *ops, const struct fake_behaviour *change)
{
    struct engine_rig_request plain = *request;
    struct engine_rig_request drafted = *request;
    struct outcome outcome = {0};
    struct engine_rig rig, alone;

    drafted.texts = &text_run;
    drafted.text_count = 1;
    engine_rig_open_changed(&rig, settings, ops, 1);
    struct engine_rig_settings defaults = engine_rig_defaults();
    engine_rig_open(&alone, &defaults, 1);
    if (change != NULL) {
        fake_behaviour(rig.fake)->nan_token = change->nan_token;
        fake_behaviour(rig.fake)->fault_token = change->fault_token;
        *fake_behaviour(alone.fake) = *fake_behaviour(rig.fake);
        fake_behaviour(alone.fake)->step_slot_count = 1;
    }
    engine_rig_lend(&rig, &drafted);
    engine_rig_lend(&alone, &plain);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_true(engine_rig_run(&alone, STEPS));
    outcome.step_count = fake_step_count(rig.fake);
    engine_stats(rig.engine, &outcome.stats);
    outcome.is_equal = engine_rig_equal(&rig.branches[0], &alone.branches[0]);
    engine_rig_close(&rig);
    engine_rig_close(&alone);
    return outcome;
}

static struct outcome run(const struct engine_rig_request *request, uint32_t slot_count)
{
    const struct engine_rig_settings settings = settings_make(slot_count);

    return run_with(request, &settings, fake_ops(), NULL);
}

static void test_a_right_text_takes_a_fraction_of_the_steps(void **state)
{
    const struct engine_rig_request request = request_make(1);

    (void)state;
    text_make(&request, 0);
    const struct outcome outcome = run(&request, 1);
    assert_true(outcome.is_equal);
    assert_true(outcome.step_count < TOKENS / 5);
    assert_int_equal(outcome.stats.drafted_count, outcome.stats.accepted_count);
    assert_int_equal(outcome.stats.sample_count, TOKENS);
    assert_true(run(&request, 2).is_equal);
}

static void test_wrong_tokens_anywhere_change_no_bit(void **state)
{
    (void)state;
    for (uint32_t wrong_each = 1; wrong_each < 40; wrong_each++) {
        const struct engine_rig_request request = request_make(wrong_each);
        text_make(&request, wrong_each);
        for (uint32_t slot_count = 1; slot_count <= 2; slot_count++) {
            assert_true(run(&request, slot_count).is_equal);
        }
    }
}

static enum status keep_drafts(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    static struct sample_result kept[16];
    const enum status status = fake_ops()->step_wait(backend, ticket, out);

    memcpy(kept, out->samples, sizeof kept);
    for (uint32_t i = 0; i < 16; i++) {
        kept[i].flags &= ~(uint32_t)SAMPLE_FLAG_DROPPED;
    }
    out->samples = kept;
    return status;
}

static void test_drafts_that_are_kept_though_not_drawn_are_caught(void **state)
{
    const struct engine_rig_request request = request_make(7);
    const struct engine_rig_settings settings = settings_make(1);
    struct backend_ops ops = *fake_ops();

    (void)state;
    ops.step_wait = keep_drafts;
    text_make(&request, 9);
    assert_false(run_with(&request, &settings, &ops, NULL).is_equal);
}

static void test_ends_inside_a_draft_are_those_of_one_token_after_the_other(void **state)
{
    static const char *const cues[] = {NULL, "a", "ab", "b", "ca", "\n", "e"};

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        for (uint32_t i = 0; i < sizeof cues / sizeof cues[0]; i++) {
            struct engine_rig_request request = request_make(seed);
            text_make(&request, seed % 3 == 0 ? 11 : 0); /* as it goes on without an end */
            request.cue = cues[i];
            request.ignore_end = i % 2 == 0;
            request.max_tokens = TOKENS - (uint32_t)seed * 13;
            request.room = i == 6 ? CONTEXT + 30 + (uint32_t)seed : 0;
            assert_true(run(&request, 1).is_equal);
        }
    }
}

static void test_numbers_that_are_none_count_only_where_their_token_was_drawn(void **state)
{
    const struct engine_rig_settings settings = settings_make(1);
    const struct engine_rig_request request = request_make(5);

    (void)state;
    for (uint32_t token = 1; token < RIG_TOKEN_COUNT; token++) {
        struct fake_behaviour change = {.nan_token = TOKEN_NONE, .fault_token = token};
        text_make(&request, 6);
        assert_true(run_with(&request, &settings, fake_ops(), &change).is_equal);
        change = (struct fake_behaviour){.nan_token = token, .fault_token = TOKEN_NONE};
        assert_true(run_with(&request, &settings, fake_ops(), &change).is_equal);
    }
}

static void test_drafts_that_fail_are_given_up(void **state)
{
    const struct engine_rig_request request = request_make(2);

    (void)state;
    text_make(&request, 1);
    const struct outcome outcome = run(&request, 1);
    assert_true(outcome.is_equal);
    /* Only letters that stand twice on the path by chance are tried, and less and less often. */
    assert_true(outcome.stats.drafted_count < TOKENS / 4);
}

static void test_there_are_no_drafts_where_they_may_not_be(void **state)
{
    const struct engine_rig_request request = request_make(4);
    struct engine_rig_settings settings = settings_make(1);
    struct backend_ops ops = *fake_ops();

    (void)state;
    text_make(&request, 0);
    ops.checks_drafts = false; /* the backend cannot */
    struct outcome outcome = run_with(&request, &settings, &ops, NULL);
    assert_true(outcome.is_equal);
    assert_int_equal(outcome.stats.drafted_count, 0);
    settings.speculates = false; /* nobody wants them */
    assert_int_equal(run_with(&request, &settings, fake_ops(), NULL).stats.drafted_count, 0);
    settings = settings_make(1);
    settings.running_count_max = 1; /* no sample to spare */
    assert_int_equal(run_with(&request, &settings, fake_ops(), NULL).stats.drafted_count, 0);
}

/* So many branches that a step is full without drafts. */
static void test_a_crowd_makes_none(void **state)
{
    struct engine_rig_settings settings = settings_make(1);
    struct engine_rig_request request = request_make(4);
    struct engine_stats stats;
    struct engine_rig rig;

    (void)state;
    text_make(&request, 0);
    request.texts = &text_run;
    request.text_count = 1;
    request.session_scope = 0;
    settings.running_count_max = 2 * DRAFT_STEP_ROWS;
    settings.page_count = 1024;
    engine_rig_open(&rig, &settings, DRAFT_STEP_ROWS);
    for (uint32_t i = 0; i < DRAFT_STEP_ROWS; i++) {
        engine_rig_lend(&rig, &request);
    }
    /* The prompts come one step after the other, so the first ones are alone for a while. */
    while (rig.branches[DRAFT_STEP_ROWS - 1].event.sampled_count == 0) {
        (void)engine_rig_step(&rig);
    }
    engine_stats(rig.engine, &stats);
    const uint64_t before = stats.drafted_count;
    for (uint32_t i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    engine_stats(rig.engine, &stats);
    assert_int_equal(stats.drafted_count, before);
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 1; i < DRAFT_STEP_ROWS; i++) {
        assert_true(engine_rig_equal(&rig.branches[i], &rig.branches[0]));
    }
    engine_rig_close(&rig);
}

int main(void)
{
    log_level_set(LOG_ERROR); /* branches that fail on purpose are told of one by one */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed_the_longest_match_is_drafted),
        cmocka_unit_test(test_nothing_in_common_gives_no_drafts),
        cmocka_unit_test(test_a_text_that_the_reply_follows_wins),
        cmocka_unit_test(test_a_right_text_takes_a_fraction_of_the_steps),
        cmocka_unit_test(test_wrong_tokens_anywhere_change_no_bit),
        cmocka_unit_test(test_drafts_that_are_kept_though_not_drawn_are_caught),
        cmocka_unit_test(test_ends_inside_a_draft_are_those_of_one_token_after_the_other),
        cmocka_unit_test(test_numbers_that_are_none_count_only_where_their_token_was_drawn),
        cmocka_unit_test(test_drafts_that_fail_are_given_up),
        cmocka_unit_test(test_there_are_no_drafts_where_they_may_not_be),
        cmocka_unit_test(test_a_crowd_makes_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
