/* Goal: every operation is timed, on backends that make room once for all programs too.
 * Method: a model of noise on the CPU backend, behind a table that refuses to record after a
 * program was finished, as a backend may (kernels/backend.h); the table itself must be seen to
 * refuse.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench.h"
#include "bench/random_model.h"
#include "kernels/dtype.h"

enum { TEXT_BYTES = 16384 };

static bool is_any_finished;

#define X(name)                                                                           \
    static enum status strict_##name(struct backend_program *program,                     \
                                     const struct name##_args *args, struct error *error) \
    {                                                                                     \
        if (is_any_finished) {                                                            \
            return error_set(error, STATUS_UNSUPPORTED, "another program is finished");   \
        }                                                                                 \
        return backend_cpu_ops.op.name(program, args, error);                             \
    }
BACKEND_OP_MAP(X)
#undef X

static enum status strict_finish(struct backend_program *program, struct error *error)
{
    is_any_finished = true;
    return backend_cpu_ops.program_finish(program, error);
}

static struct backend_ops strict_ops(void)
{
    struct backend_ops ops = backend_cpu_ops;

    is_any_finished = false;
    ops.program_finish = strict_finish;
#define X(name) ops.op.name = strict_##name;
    BACKEND_OP_MAP(X)
#undef X
    return ops;
}

static void test_every_operation_is_timed(void **state)
{
    static char text[TEXT_BYTES];
    static const char *const lines[] = {
        "| kv_copy | ", "| attn_in (norm, QKV, rotation, append) | 1 |", "| attn_out | 4 |",
        "| ffn_in (norm, gate, up, activation) | 1 |", "| ffn_out | 64 |"};
    const struct backend_ops ops = strict_ops();
    const struct bench_settings settings = {
        .ops = &ops,
        .thread_count = 2,
        .memory_bytes = 1u << 21,
        .out = fmemopen(text, TEXT_BYTES, "w"),
    };
    struct error error = {.text = ""};
    struct model *model = NULL;

    (void)state;
    assert_non_null(settings.out);
    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_Q8_0, 2, NULL, &model),
                     STATUS_OK);
    const enum status status = bench_operations(&settings, model, &error);
    (void)fclose(settings.out);
    model_close(model);
    assert_string_equal(error.text, "");
    assert_int_equal(status, STATUS_OK);
    assert_true(is_any_finished);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_non_null(strstr(text, lines[i]));
    }
}

static void test_the_table_refuses_what_comes_late(void **state)
{
    const struct backend_ops ops = strict_ops();
    const struct backend_settings settings = {.thread_count = 1,
                                              .row_count_max = 1,
                                              .sample_count_max = 1,
                                              .slot_count = 1,
                                              .history_tokens_max = 1,
                                              .vocabulary_count = 8,
                                              .partial_count_max = 1};
    const struct kv_shape shape = {1, 1, 64, 1};
    struct backend_program *programs[2];
    struct kv_copy_args copy = {.kv = NULL};
    struct backend *backend = NULL;
    struct error error = {.text = ""};

    (void)state;
    assert_int_equal(ops.create(&settings, &error, &backend), STATUS_OK);
    assert_int_equal(ops.kv_create(backend, &shape, &error, &copy.kv), STATUS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(ops.program_create(backend, 1, &error, &programs[i]), STATUS_OK);
    }
    assert_int_equal(ops.op.kv_copy(programs[0], &copy, &error), STATUS_OK);
    assert_int_equal(ops.program_finish(programs[0], &error), STATUS_OK);
    assert_int_equal(ops.op.kv_copy(programs[1], &copy, &error), STATUS_UNSUPPORTED);
    ops.destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_is_timed),
        cmocka_unit_test(test_the_table_refuses_what_comes_late),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
