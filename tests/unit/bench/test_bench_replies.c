/* Goal: replies by an engine alone are as many and as long as was asked for, a line a round, and
 * the rates are those of their own times. Method: a model of noise on the CPU backend, the printed
 * JSON read back; a context that does not fit the pages is refused, which must not look like a
 * rate.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench.h"
#include "bench/random_model.h"
#include "kernels/dtype.h"

enum { TEXT_BYTES = 4096, USERS = 5, TOKENS = 12, CONTEXT = 7, ROUNDS = 2 };

static enum status replies_text(uint64_t memory_bytes, bool is_json, struct error *error,
                                char *text)
{
    struct model *model = NULL;
    struct bench_settings settings = {
        .ops = &backend_cpu_ops,
        .thread_count = 2,
        .memory_bytes = memory_bytes,
        .context = CONTEXT,
        .is_json = is_json,
        .users = USERS,
        .tokens = TOKENS,
        .temperature = 0.8,
        .rounds = ROUNDS,
        .step_ms = 50,
    };

    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_Q4_1, 2, NULL, &model),
                     STATUS_OK);
    settings.out = fmemopen(text, TEXT_BYTES, "w");
    assert_non_null(settings.out);
    const enum status status = bench_replies(&settings, model, error);
    (void)fclose(settings.out);
    model_close(model);
    return status;
}

static double number_after(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    assert_non_null(at);
    return strtod(at + strlen(key), NULL);
}

static void test_a_line_a_round_with_all_that_was_asked_for(void **state)
{
    static char text[TEXT_BYTES];
    struct error error = {.text = ""};
    uint32_t count = 0;

    (void)state;
    assert_int_equal(replies_text(1u << 28, true, &error, text), STATUS_OK);
    for (char *line = text; strchr(line, '\n') != NULL; line = strchr(line, '\n') + 1) {
        const double seconds = number_after(line, "\"seconds\": ");
        const double rate = number_after(line, "\"tokens_per_second\": ");
        assert_true(number_after(line, "\"users\": ") == USERS);
        assert_true(number_after(line, "\"tokens\": ") == USERS * TOKENS);
        assert_true(number_after(line, "\"context\": ") == CONTEXT);
        /* A step gives a branch one token, and the first comes with its context. */
        assert_true(number_after(line, "\"steps\": ") >= TOKENS);
        assert_true(number_after(line, "\"steps\": ") <= TOKENS + USERS);
        /* Four decimals of the seconds are printed. */
        assert_true(rate >= USERS * TOKENS / (seconds + 1e-4));
        assert_true(seconds < 1e-3 || rate <= USERS * TOKENS / (seconds - 1e-4));
        assert_true(number_after(line, "\"steady_tokens_per_second\": ") > 0);
        count++;
    }
    assert_int_equal(count, ROUNDS);
    assert_int_equal(replies_text(1u << 28, false, &error, text), STATUS_OK);
    assert_non_null(strstr(text, "5 replies of 12 tokens after 7: "));
}

static void test_a_pool_without_room_is_refused(void **state)
{
    static char text[TEXT_BYTES];
    struct error error = {.text = ""};

    (void)state;
    assert_int_not_equal(replies_text(1u << 14, true, &error, text), STATUS_OK);
    assert_string_not_equal(error.text, "");
    assert_null(strstr(text, "tokens_per_second"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_a_round_with_all_that_was_asked_for),
        cmocka_unit_test(test_a_pool_without_room_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
