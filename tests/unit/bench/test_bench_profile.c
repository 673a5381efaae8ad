/* Goal: the profile of steps has every case, its parts add up to the step, and asking for it
 * changes no bit; a backend that keeps no times is refused by name. Method: a model of noise on the
 * CPU backend, the printed JSON read back; logits of a step with and without times by memcmp; a
 * table of entries without the optional one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench.h"
#include "bench/bench_run.h"
#include "bench/random_model.h"
#include "kernels/dtype.h"

enum { TEXT_BYTES = 65536, CASES = 5, VOCABULARY = 1024 };

static struct model *open_noise(void)
{
    struct model *model = NULL;

    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_Q4_1, 2, NULL, &model),
                     STATUS_OK);
    return model;
}

static enum status profile_text(const struct backend_ops *ops, uint32_t thread_count, bool is_json,
                                bool is_best, struct error *error, char *text)
{
    struct model *model = open_noise();
    struct bench_settings settings = {
        .ops = ops,
        .thread_count = thread_count,
        .memory_bytes = 1u << 28,
        .batch_max = 256,
        .context = 64,
        .is_json = is_json,
        .is_best = is_best,
    };

    settings.out = fmemopen(text, TEXT_BYTES, "w");
    assert_non_null(settings.out);
    const enum status status = bench_profile(&settings, model, error);
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

/* The parts' milliseconds of one line. */
static double parts_sum(const char *line, const char *end)
{
    double sum = 0;

    for (const char *at = strstr(line, "{\"ms\": "); at != NULL && at < end;
         at = strstr(at + 1, "{\"ms\": ")) {
        sum += number_after(at, "{\"ms\": ");
    }
    return sum;
}

static void test_every_case_is_there_and_its_parts_add_up(void **state)
{
    static char text[TEXT_BYTES];
    struct error error = {.text = ""};
    uint32_t count = 0;

    (void)state;
    assert_int_equal(profile_text(&backend_cpu_ops, 2, true, false, &error, text), STATUS_OK);
    for (char *line = text; strchr(line, '\n') != NULL; line = strchr(line, '\n') + 1) {
        const double all = number_after(line, "\"step_ms\": ");
        const double sum = parts_sum(line, strchr(line, '\n'));
        assert_true(all > 0);
        assert_true(sum > 0.99 * all - 0.01);
        assert_true(sum < 1.01 * all + 0.01);
        assert_true(number_after(line, "\"steps\": ") >= 5);
        assert_true(number_after(line, "\"barriers\": ") > 0);
        count++;
    }
    assert_int_equal(count, CASES);
    assert_non_null(strstr(text, "\"rows\": 512"));
    assert_int_equal(profile_text(&backend_cpu_ops, 1, false, false, &error, text), STATUS_OK);
    assert_non_null(strstr(text, "| planning and delivery |"));
}

/* The sum over all cases of a step's time. */
static double steps_sum(const char *text)
{
    double sum = 0;

    for (const char *at = strstr(text, "\"step_ms\": "); at != NULL;
         at = strstr(at + 1, "\"step_ms\": ")) {
        sum += number_after(at, "\"step_ms\": ");
    }
    return sum;
}

static void test_the_best_of_each_part_adds_up_and_is_near_the_mean_or_below(void **state)
{
    static char mean[TEXT_BYTES], best[TEXT_BYTES];
    struct error error = {.text = ""};

    (void)state;
    assert_int_equal(profile_text(&backend_cpu_ops, 1, true, false, &error, mean), STATUS_OK);
    assert_int_equal(profile_text(&backend_cpu_ops, 1, true, true, &error, best), STATUS_OK);
    assert_non_null(strstr(mean, "\"best\": false"));
    for (char *line = best; strchr(line, '\n') != NULL; line = strchr(line, '\n') + 1) {
        const double all = number_after(line, "\"step_ms\": ");
        const double sum = parts_sum(line, strchr(line, '\n'));

        assert_true(strstr(line, "\"best\": true") != NULL);
        assert_true(sum > 0.99 * all - 0.01);
        assert_true(sum < 1.01 * all + 0.01);
        assert_true(number_after(line, "\"steps\": ") >= 5);
    }
    assert_true(steps_sum(best) > 0);
    assert_true(steps_sum(best) < 2 * steps_sum(mean));
}

static void test_a_backend_without_times_is_refused_by_name(void **state)
{
    static char text[TEXT_BYTES];
    struct backend_ops ops = backend_cpu_ops;
    struct error error = {.text = ""};

    (void)state;
    ops.name = "other";
    ops.profile = NULL;
    assert_int_equal(profile_text(&ops, 1, false, false, &error, text), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "the other backend keeps no times"));
}

static void run_step(struct bench_run *run, struct backend_profile *profile, float *logits)
{
    struct step_result result;
    uint32_t ticket = 0;

    backend_cpu_ops.profile(run->backend, profile);
    assert_int_equal(
        forward_submit(run->forward, bench_plan_prefill(run->plans[0], 0, 40, true), &ticket),
        STATUS_OK);
    assert_int_equal(forward_wait(run->forward, ticket, &result), STATUS_OK);
    assert_int_equal(forward_logits_read(run->forward, 0, logits), STATUS_OK);
}

static void test_times_change_no_bit_and_end_when_they_are_told_to(void **state)
{
    static float plain[VOCABULARY], timed[VOCABULARY];
    const struct bench_settings settings = {
        .ops = &backend_cpu_ops, .thread_count = 2, .memory_bytes = 1u << 28};
    struct backend_profile profile = {.step_count = 0};
    struct model *model = open_noise();
    struct bench_run run;

    (void)state;
    assert_int_equal(model_config(model)->vocabulary_count, VOCABULARY);
    assert_int_equal(bench_run_open(&run, &settings, model, 64, 4, 511, 64, NULL), STATUS_OK);
    run_step(&run, NULL, plain);
    run_step(&run, &profile, timed);
    assert_memory_equal(plain, timed, sizeof plain);
    assert_int_equal(profile.step_count, 1);
    assert_int_equal(profile.thread_count, 2);
    for (uint32_t i = 0; i < BACKEND_OP_COUNT; i++) {
        assert_true(profile.ops[i].run_count > 0);
        assert_true(profile.ops[i].wait_ns + profile.ops[i].alone_ns <= profile.ops[i].ns);
    }
    run_step(&run, NULL, plain);
    assert_int_equal(profile.step_count, 1);
    bench_run_close(&run);
    model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_case_is_there_and_its_parts_add_up),
        cmocka_unit_test(test_the_best_of_each_part_adds_up_and_is_near_the_mean_or_below),
        cmocka_unit_test(test_a_backend_without_times_is_refused_by_name),
        cmocka_unit_test(test_times_change_no_bit_and_end_when_they_are_told_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
