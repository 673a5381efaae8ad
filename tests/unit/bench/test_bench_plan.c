/* Goal: the plans that are measured are plans of the work that they claim to be: the numbers that a
 * measured step computes are those of the plain plan maker's, and branches of a shared prefix get
 * what the same branches get from contexts of their own.
 *
 * Method: a model of noise on the CPU backend; logits by memcmp after a prefill in chunks against
 * support/simple_plan.h, and of shared against private contexts after the pages were spread by
 * copies. Twin: one page left out of the copies must be seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench_plan.h"
#include "bench/bench_run.h"
#include "bench/random_model.h"
#include "kernels/dtype.h"
#include "support/model_rig.h"

enum { VOCABULARY = 1024, CONTEXT = 576, SHARED = 512, COUNT = 3, POSITION_MAX = 1023 };

static const struct bench_settings settings = {
    .ops = &backend_cpu_ops, .thread_count = 1, .memory_bytes = 1u << 30};

static struct model *open_noise(uint32_t dtype)
{
    struct error error = {.text = ""};
    struct model *model = NULL;

    if (random_model_open(random_shape_find("tiny"), dtype, 1, &error, &model) != STATUS_OK) {
        print_message("%s\n", error.text);
    }
    assert_non_null(model);
    return model;
}

static void open_run(struct bench_run *run, const struct model *model)
{
    struct error error = {.text = ""};

    assert_int_equal(bench_run_open(run, &settings, model, 128, COUNT, POSITION_MAX, 256, &error),
                     STATUS_OK);
}

static void step(struct bench_run *run, const struct plan *plan)
{
    struct step_result result;
    uint32_t ticket = 0;

    assert_int_equal(forward_submit(run->forward, plan, &ticket), STATUS_OK);
    assert_int_equal(forward_wait(run->forward, ticket, &result), STATUS_OK);
}

static void prefill(struct bench_run *run, uint32_t count)
{
    for (uint32_t at = 0; at < count; at += 128) {
        const uint32_t size = count - at < 128 ? count - at : 128;
        step(run, bench_plan_prefill(run->plans[0], at, size, at + size == count));
    }
}

static void a_prefill_is_the_plain_one(void **state)
{
    struct model *model = open_noise(DTYPE_BF16);
    static float got[VOCABULARY];
    static float wanted[VOCABULARY];
    uint32_t ids[200];
    uint32_t pages[16];
    struct bench_run run;
    struct rig rig;
    const struct rig_settings plain = {.thread_count = 1,
                                       .row_count_max = 128,
                                       .sample_count_max = 1,
                                       .position_max = 255,
                                       .page_count = 16,
                                       .kv_type = forward_kv_type(model, &backend_cpu_ops, false)};

    (void)state;
    open_run(&run, model);
    prefill(&run, 200);
    assert_int_equal(forward_logits_read(run.forward, 0, got), STATUS_OK);
    /* The same text, from the plan that holds its first chunk. */
    const struct plan *first = bench_plan_prefill(run.plans[0], 0, 128, false);
    for (uint32_t i = 0; i < 128; i++) {
        ids[i] = first->rows[i].token;
    }
    const struct plan *second = bench_plan_prefill(run.plans[0], 128, 72, true);
    for (uint32_t i = 0; i < 72; i++) {
        ids[128 + i] = second->rows[i].token;
    }
    for (uint32_t i = 0; i < 16; i++) {
        pages[i] = 15 - i;
    }
    bench_run_close(&run);
    rig_open(&rig, model, &plain);
    rig_feed(&rig, pages, 0, ids, 200, 50, wanted);
    rig_close(&rig);
    assert_memory_equal(got, wanted, sizeof got);
}

/* Logits of all branches after a decode. `leave`: that page is spoilt by another's content. */
static void decode(struct bench_run *run, uint32_t shared, uint32_t leave,
                   float logits[COUNT][VOCABULARY])
{
    const uint32_t from = CONTEXT / KV_PAGE_TOKEN_COUNT;
    const uint32_t to = bench_plan_page_count(COUNT, CONTEXT, shared);
    const struct plan *plan = NULL;
    uint32_t done = 0;

    prefill(run, CONTEXT);
    while ((plan = bench_plan_spread(run->plans[0], from, to, &done)) != NULL) {
        struct plan changed = *plan;
        struct plan_kv_copy copies[128];
        memcpy(copies, plan->kv_copies, plan->kv_copy_count * sizeof *copies);
        for (uint32_t i = 0; i < plan->kv_copy_count; i++) {
            copies[i].from = copies[i].to == leave ? copies[i].from ^ 1 : copies[i].from;
        }
        changed.kv_copies = copies;
        step(run, &changed);
    }
    step(run, bench_plan_decode(run->plans[0], COUNT, CONTEXT, shared, NULL));
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(forward_logits_read(run->forward, i, logits[i]), STATUS_OK);
    }
}

/* Private contexts are 37 pages each and the text's 36 are spread over all, so only the shared
 * blocks of sequence 0 and what follows are compared: pages of the same text at the same place. */
static void branches_of_a_shared_prefix_agree(void **state)
{
    static float first[COUNT][VOCABULARY];
    static float second[COUNT][VOCABULARY];
    static float spoilt[COUNT][VOCABULARY];
    struct model *model = open_noise(DTYPE_Q8_0);
    struct bench_run run;

    (void)state;
    open_run(&run, model);
    decode(&run, SHARED, UINT32_MAX, first);
    decode(&run, 0, UINT32_MAX, second);
    assert_memory_equal(first[0], second[0], sizeof first[0]);
    assert_memory_not_equal(first[0], first[1], sizeof first[0]); /* another token */
    decode(&run, 0, 40, spoilt);
    assert_memory_equal(second[0], spoilt[0], sizeof second[0]);
    assert_memory_not_equal(second[1], spoilt[1], sizeof second[1]);
    bench_run_close(&run);
    model_close(model);
}

static void noise_is_refused_where_there_is_none(void **state)
{
    struct error error = {.text = ""};
    struct model *model = NULL;

    (void)state;
    assert_null(random_shape_find("9b"));
    assert_int_equal(random_model_open(random_shape_find("tiny"), DTYPE_Q6_K, 1, &error, &model),
                     STATUS_UNSUPPORTED);
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefill_is_the_plain_one),
        cmocka_unit_test(branches_of_a_shared_prefix_agree),
        cmocka_unit_test(noise_is_refused_where_there_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
