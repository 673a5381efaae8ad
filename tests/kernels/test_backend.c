/* Goal: the CPU backend's life: what cannot be is refused with a sentence, what is promised about
 * steps, histories and memory holds, and nothing leaks.
 * Method: settings, types and shapes that must be refused; a small layer whose rows take the token
 * that their branch sampled last; a second step before the first was waited for; every allocation
 * failing once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/isa_names.h"
#include "support/layer.h"
#include "support/random_weight.h"

static const struct layer_shape shape = {DTYPE_Q4_1,    4,     2,    16, 64, 40, 8,
                                         ROPE_ADJACENT, false, false};
static const struct backend_settings settings = {
    .thread_count = 2,
    .row_count_max = 8,
    .sample_count_max = 4,
    .slot_count = 2,
    .history_tokens_max = 4,
    .vocabulary_count = 40,
    .partial_count_max = 8,
};

static void test_an_unknown_instruction_set_is_refused(void **state)
{
    struct backend_settings wrong = settings;
    struct backend *backend = NULL;
    struct error error = {0};

    (void)state;
    wrong.isa = "mmx";
    assert_int_equal(backend_cpu_ops.create(&wrong, &error, &backend), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "mmx"));
    wrong = settings;
    wrong.thread_count = CPU_THREAD_COUNT_MAX + 1;
    assert_int_equal(backend_cpu_ops.create(&wrong, &error, &backend), STATUS_LIMIT);
    assert_null(backend);
}

static void test_the_arithmetic_has_one_name_on_every_instruction_set(void **state)
{
    (void)state;
    for (size_t i = 0; i <= ISA_NAME_COUNT; i++) {
        struct backend_settings with = settings;
        struct backend *backend;

        with.isa = i == 0 ? "auto" : isa_names[i - 1];
        if (backend_cpu_ops.create(&with, NULL, &backend) != STATUS_OK) {
            continue;
        }
        assert_string_equal(backend_cpu_ops.numerics_id(backend), "cpu/1/kv-f16");
        assert_non_null(strstr(backend_cpu_ops.describe(backend), "2 threads"));
        assert_int_equal(backend_cpu_ops.step_slot_count(backend), 1);
        backend_cpu_ops.destroy(backend);
    }
}

static void test_rows_of_bf16_are_in_the_name(void **state)
{
    (void)state;
    for (uint32_t precise = 0; precise < 2; precise++) {
        struct backend_settings with = settings;
        uint64_t seed = 1;
        const struct weight_source source = random_weight(&seed, DTYPE_BF16, 16, 32);
        struct backend_weight *weight;
        struct backend *backend;

        with.precise = precise != 0;
        assert_int_equal(backend_cpu_ops.create(&with, NULL, &backend), STATUS_OK);
        assert_int_equal(backend_cpu_ops.weight_load(backend, &source, NULL, &weight), STATUS_OK);
        assert_string_equal(backend_cpu_ops.numerics_id(backend),
                            with.precise ? "cpu/1/kv-f16/x-i16" : "cpu/1/kv-f16/x-bf16");
        backend_cpu_ops.destroy(backend);
        memory_free((void *)(uintptr_t)source.data);
    }
}

static void test_a_matrix_of_the_wrong_shape_is_refused(void **state)
{
    uint64_t seed = 1;
    struct weight_source source = random_weight(&seed, DTYPE_Q4_0, 39, 64);
    struct logits_args logits = {0};
    struct backend_program *program;
    struct backend_weight *weight;
    struct backend_buffer *buffer, *norm;
    struct backend *backend;
    struct error error = {0};

    (void)state;
    assert_int_equal(backend_cpu_ops.create(&settings, NULL, &backend), STATUS_OK);
    assert_int_equal(backend_cpu_ops.program_create(backend, 8, NULL, &program), STATUS_OK);
    assert_int_equal(backend_cpu_ops.weight_load(backend, &source, NULL, &weight), STATUS_OK);
    assert_int_equal(backend_cpu_ops.buffer_create(backend, 8 * 64, NULL, &buffer), STATUS_OK);
    assert_int_equal(backend_cpu_ops.buffer_create(backend, 64, NULL, &norm), STATUS_OK);
    logits.x = buffer;
    logits.logits = buffer;
    logits.norm = norm;
    logits.table = weight;
    assert_int_equal(backend_cpu_ops.op.logits(program, &logits, &error), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "39 rows"));
    logits.soft_cap = 30.0f;
    assert_int_equal(backend_cpu_ops.op.logits(program, &logits, &error), STATUS_UNSUPPORTED);
    backend_cpu_ops.destroy(backend);
    memory_free((void *)(uintptr_t)source.data);
}

static void test_a_second_step_waits_for_the_first(void **state)
{
    const struct plan nothing = {0};
    struct step_result result;
    struct layer layer;
    uint32_t first, second = 77;

    (void)state;
    assert_int_equal(layer_init(&layer, &shape, NULL, 2, 1), STATUS_OK);
    assert_int_equal(layer.ops->step_submit(layer.program, &nothing, &first), STATUS_OK);
    assert_int_equal(layer.ops->step_submit(layer.program, &nothing, &second), STATUS_AGAIN);
    assert_int_equal(second, 77);
    assert_int_equal(layer.ops->step_wait(layer.backend, first, &result), STATUS_OK);
    assert_int_equal(layer.ops->step_submit(layer.program, &nothing, &second), STATUS_OK);
    assert_int_not_equal(second, first);
    assert_int_equal(layer.ops->step_wait(layer.backend, second, &result), STATUS_OK);
    layer_finish(&layer);
}

/* One row at position 0; returns its first value of x. */
static void run_token(struct layer *layer, uint32_t token, const struct plan_history *history,
                      uint8_t writes_kv, float *x)
{
    const uint32_t page = 0;
    const struct plan_row row = {.token = token, .writes_kv = writes_kv};
    const struct plan plan = {
        .row_count = 1,
        .page_entry_count = 1,
        .history_count = history == NULL ? 0 : 1,
        .rows = &row,
        .pages = &page,
        .histories = history,
    };
    struct step_result result;
    uint32_t ticket;

    assert_int_equal(layer->ops->step_submit(layer->program, &plan, &ticket), STATUS_OK);
    assert_int_equal(layer->ops->step_wait(layer->backend, ticket, &result), STATUS_OK);
    assert_int_equal(layer->ops->buffer_read(layer->x, 0, x, 64), STATUS_OK);
}

static void test_a_row_takes_the_token_that_its_branch_has_last(void **state)
{
    const uint32_t ids[] = {5, 9, 23};
    struct plan_history history = {.slot = 3, .reset = 1, .count = 3, .ids = ids};
    float by_id[64], by_slot[64];
    struct layer layer;

    (void)state;
    assert_int_equal(layer_init(&layer, &shape, NULL, 1, 1), STATUS_OK);
    run_token(&layer, 23, NULL, 1, by_id);
    run_token(&layer, PLAN_TOKEN_LAST | 3, &history, 1, by_slot);
    assert_memory_equal(by_slot, by_id, sizeof(by_id));
    history.reset = 0;
    history.count = 1;
    run_token(&layer, 5, NULL, 1, by_id);
    run_token(&layer, PLAN_TOKEN_LAST | 3, &history, 1, by_slot);
    assert_memory_equal(by_slot, by_id, sizeof(by_id));
    assert_int_equal(layer.backend->histories[3].count, 4);
    layer_finish(&layer);
}

/* Weights, norms and pages stay; results of steps go; the next step has its bits. */
static void test_a_backend_that_has_rested_computes_the_same_bits(void **state)
{
    float before[4 * 40], after[4 * 40];
    struct layer layer;

    (void)state;
    assert_int_equal(layer_init(&layer, &shape, NULL, 2, 1), STATUS_OK);
    layer_run(&layer, 0, 4, NULL);
    assert_int_equal(layer.ops->buffer_read(layer.logits, 0, before, 4 * 40), STATUS_OK);
    layer.ops->rest(layer.backend);
    assert_int_equal(layer.ops->buffer_read(layer.logits, 0, after, 4 * 40), STATUS_OK);
    for (uint32_t i = 0; i < 4 * 40; i++) {
        assert_true(after[i] == 0.0f);
    }
    layer.ops->rest(layer.backend);
    layer_run(&layer, 0, 4, NULL);
    assert_int_equal(layer.ops->buffer_read(layer.logits, 0, after, 4 * 40), STATUS_OK);
    assert_memory_equal(before, after, sizeof(after));
    layer_finish(&layer);
}

/* A rest that also took what the host has written. */
static void test_twin_a_rest_that_forgets_the_norms_is_caught(void **state)
{
    float before[4 * 40], after[4 * 40];
    struct layer layer;

    (void)state;
    assert_int_equal(layer_init(&layer, &shape, NULL, 2, 1), STATUS_OK);
    layer_run(&layer, 0, 4, NULL);
    assert_int_equal(layer.ops->buffer_read(layer.logits, 0, before, 4 * 40), STATUS_OK);
    for (struct backend_buffer *buffer = layer.backend->buffers; buffer != NULL;
         buffer = buffer->next) {
        buffer->is_given = false;
    }
    layer.ops->rest(layer.backend);
    layer_run(&layer, 0, 4, NULL);
    assert_int_equal(layer.ops->buffer_read(layer.logits, 0, after, 4 * 40), STATUS_OK);
    assert_memory_not_equal(before, after, sizeof(after));
    layer_finish(&layer);
}

static void test_a_row_that_writes_no_kv_leaves_the_pages_alone(void **state)
{
    struct layer layer;
    float x[64];

    (void)state;
    assert_int_equal(layer_init(&layer, &shape, NULL, 1, 1), STATUS_OK);
    run_token(&layer, 7, NULL, 0, x);
    for (uint32_t d = 0; d < shape.head_size * KV_PAGE_TOKEN_COUNT; d++) {
        assert_int_equal(cpu_kv_k(layer.kv, 1, 0, 0)[d], 0);
        assert_int_equal(cpu_kv_v(layer.kv, 1, 0, 0)[d], 0);
    }
    run_token(&layer, 7, NULL, 1, x);
    assert_int_not_equal(cpu_kv_v(layer.kv, 1, 0, 0)[0], 0);
    layer_finish(&layer);
}

static void test_a_finished_program_takes_no_more_operations(void **state)
{
    const struct kv_shape kv_shape = {2, 1, 16, 4};
    struct backend_program *program;
    struct kv_copy_args copy = {0};
    struct backend *backend;
    struct error error = {0};

    (void)state;
    assert_int_equal(backend_cpu_ops.create(&settings, NULL, &backend), STATUS_OK);
    assert_int_equal(backend_cpu_ops.kv_create(backend, &kv_shape, NULL, &copy.kv), STATUS_OK);
    assert_int_equal(backend_cpu_ops.program_create(backend, 8, NULL, &program), STATUS_OK);
    assert_int_equal(backend_cpu_ops.op.kv_copy(program, &copy, &error), STATUS_OK);
    assert_int_equal(backend_cpu_ops.program_finish(program, &error), STATUS_OK);
    assert_int_equal(backend_cpu_ops.op.kv_copy(program, &copy, &error), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "finished program"));
    /* Another of the same backend does. */
    assert_int_equal(backend_cpu_ops.program_create(backend, 8, NULL, &program), STATUS_OK);
    assert_int_equal(backend_cpu_ops.op.kv_copy(program, &copy, &error), STATUS_OK);
    backend_cpu_ops.destroy(backend);
}

static enum status make_everything(struct backend **out)
{
    const struct kv_shape kv_shape = {2, 1, 16, 4};
    struct backend_program *program;
    struct backend_buffer *buffer;
    struct backend_kv *kv;

    TRY(backend_cpu_ops.create(&settings, NULL, out));
    TRY(backend_cpu_ops.buffer_create(*out, 100, NULL, &buffer));
    TRY(backend_cpu_ops.kv_create(*out, &kv_shape, NULL, &kv));
    assert_int_equal(backend_cpu_ops.kv_page_bytes(*out, &kv_shape), 2 * 16 * 16 * 2 * 2);
    return backend_cpu_ops.program_create(*out, 8, NULL, &program);
}

static void test_a_failing_allocation_leaves_nothing_behind(void **state)
{
    const int64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        struct backend *backend = NULL;
        enum status status;

        memory_fault_set(survivors);
        status = make_everything(&backend);
        memory_fault_set(-1);
        backend_cpu_ops.destroy(backend);
        assert_int_equal(memory_live_count(), live);
        if (status == STATUS_OK) {
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_unknown_instruction_set_is_refused),
        cmocka_unit_test(test_the_arithmetic_has_one_name_on_every_instruction_set),
        cmocka_unit_test(test_rows_of_bf16_are_in_the_name),
        cmocka_unit_test(test_a_matrix_of_the_wrong_shape_is_refused),
        cmocka_unit_test(test_a_second_step_waits_for_the_first),
        cmocka_unit_test(test_a_row_takes_the_token_that_its_branch_has_last),
        cmocka_unit_test(test_a_backend_that_has_rested_computes_the_same_bits),
        cmocka_unit_test(test_twin_a_rest_that_forgets_the_norms_is_caught),
        cmocka_unit_test(test_a_row_that_writes_no_kv_leaves_the_pages_alone),
        cmocka_unit_test(test_a_finished_program_takes_no_more_operations),
        cmocka_unit_test(test_a_failing_allocation_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
