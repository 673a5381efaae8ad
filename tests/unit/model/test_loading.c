/* Goal: loading a model tells how far it is, gives everything back when memory runs out at any
 * point, names what the device cannot hold, and leaves nothing to allocate for steps.
 *
 * Method: tiny models; the fault switch and the counters of base/memory.h; a backend whose
 * weight_load refuses one tensor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"

static const struct backend_settings backend_settings = {
    .thread_count = 1,
    .row_count_max = 8,
    .sample_count_max = 2,
    .slot_count = 1,
    .history_tokens_max = 64,
    .vocabulary_count = 512,
    .partial_count_max = 8,
};

static struct bytes small_file(void)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_0, VOCABULARY_BPE, 2);

    spec.layer_count = 1;
    spec.width = 64;
    spec.hidden = 64;
    spec.head_count = 2;
    spec.kv_head_count = 1;
    spec.head_size = 32;
    return tiny_model_create(&spec);
}

struct watch {
    uint64_t done, total;
    uint32_t count;
};

static void watch_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    struct watch *watch = context;

    assert_true(done_bytes > watch->done);
    assert_true(done_bytes <= total_bytes);
    watch->done = done_bytes;
    watch->total = total_bytes;
    watch->count++;
}

static void progress_ends_at_the_whole(void **state)
{
    const struct bytes file = small_file();
    struct model *model = rig_model_of(file);
    struct watch watch = {0};
    const struct forward_settings settings = {
        .row_count_max = 8,
        .sample_count_max = 2,
        .page_count = 4,
        .on_progress = watch_progress,
        .context = &watch,
    };
    struct backend *backend = NULL;
    struct forward *forward = NULL;

    (void)state;
    assert_int_equal(backend_cpu_ops.create(&backend_settings, NULL, &backend), STATUS_OK);
    assert_int_equal(forward_create(model, &backend_cpu_ops, backend, &settings, NULL, &forward),
                     STATUS_OK);
    assert_int_equal(watch.done, watch.total);
    assert_int_equal(watch.total, model_config(model)->weight_bytes);
    assert_int_equal(watch.count, 12);
    assert_ptr_equal(forward_model(forward), model);
    /* Two of K and V, half precision, one layer, one head of 32, 16 positions. */
    assert_int_equal(forward_kv_page_bytes(model, &backend_cpu_ops, backend), 2 * 2 * 32 * 16);
    forward_destroy(forward);
    backend_cpu_ops.destroy(backend);
    model_close(model);
    memory_free((void *)(uintptr_t)file.data);
}

/* Creates everything with so many allocations allowed; frees all that came to be. */
static enum status load_with(struct model *model, int64_t survivors)
{
    const struct forward_settings settings = {
        .row_count_max = 8, .sample_count_max = 2, .page_count = 4};
    struct error error = {0};
    struct backend *backend = NULL;
    struct forward *forward = NULL;

    memory_fault_set(survivors);
    enum status status = backend_cpu_ops.create(&backend_settings, &error, &backend);
    if (status == STATUS_OK) {
        status = forward_create(model, &backend_cpu_ops, backend, &settings, &error, &forward);
    }
    memory_fault_set(-1);
    forward_destroy(forward);
    backend_cpu_ops.destroy(backend);
    return status;
}

static void running_out_of_memory_gives_all_back(void **state)
{
    const struct bytes file = small_file();
    struct model *model = rig_model_of(file);
    const int64_t before = memory_live_count();
    enum status status = STATUS_MEMORY;

    (void)state;
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        status = load_with(model, survivors);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        assert_int_equal(memory_live_count(), before);
    }
    model_close(model);
    memory_free((void *)(uintptr_t)file.data);
}

static enum status refuse_one(struct backend *backend, const struct weight_source *source,
                              struct error *error, struct backend_weight **out)
{
    if (strcmp(source->name, "blk.0.ffn_up.weight") == 0) {
        return error_set(error, STATUS_UNSUPPORTED, "%s: too odd for this device", source->name);
    }
    return backend_cpu_ops.weight_load(backend, source, error, out);
}

static void what_the_device_refuses_is_named(void **state)
{
    const struct bytes file = small_file();
    struct model *model = rig_model_of(file);
    const struct forward_settings settings = {
        .row_count_max = 8, .sample_count_max = 2, .page_count = 4};
    struct backend_ops picky = backend_cpu_ops;
    struct error error = {0};
    struct backend *backend = NULL;
    struct forward *forward = NULL;

    (void)state;
    picky.weight_load = refuse_one;
    assert_int_equal(picky.create(&backend_settings, &error, &backend), STATUS_OK);
    assert_int_equal(forward_create(model, &picky, backend, &settings, &error, &forward),
                     STATUS_UNSUPPORTED);
    assert_string_equal(error.text, "blk.0.ffn_up.weight: too odd for this device");
    assert_null(forward);
    picky.destroy(backend);
    model_close(model);
    memory_free((void *)(uintptr_t)file.data);
}

static void steps_allocate_nothing(void **state)
{
    const struct bytes file = small_file();
    const struct rig_settings settings = {
        .thread_count = 2,
        .row_count_max = 8,
        .sample_count_max = 2,
        .position_max = 63,
        .page_count = 4,
    };
    const struct plan_sample greedy = rig_greedy();
    const uint32_t pages[] = {3, 1, 0, 2};
    const uint32_t ids[] = {5, 6, 7, 8};
    struct rig rig;

    (void)state;
    rig_open(&rig, rig_model_of(file), &settings);
    const uint64_t before = memory_thread_allocation_count();
    for (uint32_t at = 0; at + 4 <= 64; at += 4) {
        simple_plan_begin(rig.plan);
        const uint32_t row = simple_plan_add(rig.plan, pages, at, ids, 4);
        (void)simple_plan_sample(rig.plan, row + 3, &greedy);
        const struct step_result result = rig_run(&rig);
        assert_int_equal(result.samples[0].flags, 0);
    }
    assert_int_equal(memory_thread_allocation_count(), before);
    rig_close(&rig);
    memory_free((void *)(uintptr_t)file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_ends_at_the_whole),
        cmocka_unit_test(running_out_of_memory_gives_all_back),
        cmocka_unit_test(what_the_device_refuses_is_named),
        cmocka_unit_test(steps_allocate_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
