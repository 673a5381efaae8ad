/* Goal: a reply's bits are a function of its context, sampler and seed alone, through the real
 * engine and the real kernels of the CPU: alone or among 1 to 255 strangers, decoded or prefilled
 * in chunks of any size, at the edges of pages, chunks and blocks, private or shared, before and
 * after eviction, preemption and a restart, on 1, 2, 3 and 8 threads.
 * Method: one reply computed in all these ways, compared by memcmp with itself computed alone in
 * steps as wide as they go. For each way there is a twin: the same comparison over a backend whose
 * plans or results are bent on their way so that just this property is broken must fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/model.h"
#include "schedule/engine_state.h"
#include "support/bent_ops.h"
#include "support/engine_rig.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"

enum {
    CONTEXT_MAX = 640,
    REPLY_TOKENS = 20,
    STRANGERS_MAX = 255,
    RUNNING_MAX = STRANGERS_MAX + 1,
    ROWS_MAX = 512,
    PAGES = 1200,
    STEPS = 100000,
    OFTEN_MAX = 24, /* runs of the subject on one engine */
};

/* A model, and a backend for one number of threads. */
struct world {
    struct bytes file;
    struct model *model;
    struct tokenizer *tokenizer;
    struct sampler *sampler;
    struct backend_ops ops;
    struct backend *backend;
    struct forward *forward;
};

static uint32_t ids[CONTEXT_MAX];

static void sampler_make(struct world *world)
{
    struct sampler_settings sampling = sampler_settings_default();
    uint32_t end_count;
    const uint32_t *end_ids = tokenizer_end_ids(world->tokenizer, &end_count);

    sampling.repetition_penalty = 1.2f;
    sampling.max_tokens = REPLY_TOKENS;
    sampling.ignore_end = true;
    sampling.top_count = 2;
    assert_int_equal(sampler_create(&sampling, end_ids, end_count,
                                    model_vocabulary(world->model)->token_count, NULL,
                                    &world->sampler),
                     STATUS_OK);
}

static void world_open(struct world *world, uint32_t thread_count, enum bent bent)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 23);

    spec.width = 64;
    spec.head_count = 2;
    spec.kv_head_count = 1;
    spec.head_size = 32;
    spec.hidden = 128;
    memset(world, 0, sizeof(*world));
    world->file = tiny_model_create(&spec);
    world->model = rig_model_of(world->file);
    assert_int_equal(tokenizer_create(model_vocabulary(world->model), NULL, &world->tokenizer),
                     STATUS_OK);
    sampler_make(world);
    const struct backend_settings backend = {
        .thread_count = thread_count,
        .row_count_max = ROWS_MAX,
        .sample_count_max = RUNNING_MAX,
        .slot_count = RUNNING_MAX,
        .history_tokens_max = CONTEXT_MAX + 1,
        .vocabulary_count = model_vocabulary(world->model)->token_count,
        .partial_count_max = ROWS_MAX * 2,
        .kv_type = forward_kv_type(world->model, &backend_cpu_ops, false),
    };
    const struct forward_settings forward = {
        .row_count_max = ROWS_MAX, .sample_count_max = RUNNING_MAX, .page_count = PAGES};
    world->ops = bent_ops(&backend_cpu_ops, bent, thread_count);
    assert_int_equal(world->ops.create(&backend, NULL, &world->backend), STATUS_OK);
    assert_int_equal(
        forward_create(world->model, &world->ops, world->backend, &forward, NULL, &world->forward),
        STATUS_OK);
}

static void world_close(struct world *world)
{
    forward_destroy(world->forward);
    world->ops.destroy(world->backend);
    sampler_release(world->sampler);
    tokenizer_destroy(world->tokenizer);
    model_close(world->model);
    memory_free((void *)(uintptr_t)world->file.data);
}

static void engine_open(struct engine_rig *rig, const struct world *world, uint32_t rows,
                        uint32_t running, uint32_t pages)
{
    const struct engine_rig_settings settings = {
        .page_count = pages,
        .row_count_max = rows,
        .running_count_max = running,
        .context_token_count_max = CONTEXT_MAX,
        .partial_count_max = rows * 2,
    };

    engine_rig_open_over(rig, &settings, world->forward, world->tokenizer,
                         STRANGERS_MAX + 1 + OFTEN_MAX);
}

/* The reply under test, private, behind a context of `count` ids. */
static struct engine_rig_request subject(const struct world *world, uint32_t count)
{
    for (uint32_t i = 0; i < CONTEXT_MAX; i++) {
        ids[i] = (i * 2654435761u + (i + 7) * i * 40503u) % 400;
    }
    return (struct engine_rig_request){.ids = ids,
                                       .count = count,
                                       .prompt_count = count / 2,
                                       .seed = 77,
                                       .sampler = world->sampler,
                                       .top_count = 2};
}

/* Alone, in wide steps, by a backend that nobody has bent. */
struct reference {
    struct world world;
    struct engine_rig rig;
    uint32_t counts[OFTEN_MAX];
};

static struct reference reference;

static int reference_open(void **state)
{
    (void)state;
    world_open(&reference.world, 1, BENT_NOTHING);
    engine_open(&reference.rig, &reference.world, ROWS_MAX, 1, PAGES);
    return 0;
}

static int reference_close(void **state)
{
    (void)state;
    engine_rig_close(&reference.rig);
    world_close(&reference.world);
    return memory_live_count() == 0 ? 0 : -1;
}

static const struct engine_rig_branch *reference_of(uint32_t count)
{
    const struct engine_rig_request request = subject(&reference.world, count);

    for (uint32_t i = 0; i < reference.rig.branch_count; i++) {
        if (reference.counts[i] == count) {
            return &reference.rig.branches[i];
        }
    }
    reference.counts[reference.rig.branch_count] = count;
    const uint32_t index = engine_rig_lend(&reference.rig, &request);
    assert_true(engine_rig_run(&reference.rig, STEPS));
    assert_int_equal(reference.rig.branches[index].event.sampled_count, REPLY_TOKENS);
    return &reference.rig.branches[index];
}

static bool runs_as_reference(struct engine_rig *rig, const struct engine_rig_request *request)
{
    const uint32_t index = engine_rig_lend(rig, request);

    assert_true(engine_rig_run(rig, STEPS));
    return engine_rig_equal(&rig->branches[index], reference_of(request->count));
}

/* ---- company ---- */

static void add_strangers(struct engine_rig *rig, const struct world *world, uint32_t count)
{
    static uint32_t other[40];

    for (uint32_t i = 0; i < count; i++) {
        struct engine_rig_request request = subject(world, 3 + i % 29);

        for (uint32_t p = 0; p < request.count; p++) {
            other[p] = (p * 31 + i * 17 + p * i) % 400;
        }
        request.ids = other;
        request.seed = i;
        engine_rig_lend(rig, &request);
    }
}

static bool is_invariant_in_company(enum bent bent, uint32_t strangers)
{
    struct engine_rig rig;
    struct world world;
    bool is_equal;

    world_open(&world, 2, bent);
    engine_open(&rig, &world, ROWS_MAX, RUNNING_MAX, PAGES);
    const struct engine_rig_request request = subject(&world, 141);
    add_strangers(&rig, &world, strangers / 2);
    const uint32_t index = engine_rig_lend(&rig, &request);
    add_strangers(&rig, &world, strangers - strangers / 2);
    assert_true(engine_rig_run(&rig, STEPS));
    is_equal = engine_rig_equal(&rig.branches[index], reference_of(141));
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void test_a_reply_among_strangers_has_the_bits_that_it_has_alone(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 31, 100, 255};

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        assert_true(is_invariant_in_company(BENT_NOTHING, counts[i]));
        assert_false(is_invariant_in_company(BENT_BY_COMPANY, counts[i]));
    }
}

/* ---- chunks and edges ---- */

/* Prefilled in chunks of so many rows. The pages of the world hold what earlier runs have left. */
static bool is_invariant_in(const struct world *world, uint32_t rows, uint32_t count)
{
    const struct engine_rig_request request = subject(world, count);
    struct engine_rig rig;
    bool is_equal;

    engine_open(&rig, world, rows, 1, PAGES);
    is_equal = runs_as_reference(&rig, &request);
    engine_rig_close(&rig);
    return is_equal;
}

static bool is_invariant_in_chunks(enum bent bent, uint32_t rows, uint32_t count)
{
    struct world world;
    bool is_equal;

    world_open(&world, 2, bent);
    is_equal = is_invariant_in(&world, rows, count);
    world_close(&world);
    return is_equal;
}

static void test_chunks_of_1_to_40_rows_have_the_same_bits(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, 2, BENT_NOTHING);
    for (uint32_t rows = 1; rows <= 40; rows++) {
        assert_true(is_invariant_in(&world, rows, 141));
        assert_false(is_invariant_in_chunks(BENT_CHUNK_END, rows, 141));
    }
    world_close(&world);
}

/* A context that ends around an edge, and a reply that is decoded over it. */
static void test_edges_of_pages_chunks_and_blocks_change_no_bit(void **state)
{
    static const uint32_t edges[] = {KV_PAGE_TOKEN_COUNT, 64, ATTENTION_BLOCK_TOKENS};
    static const uint32_t rows[] = {1, 5, 16, 17, 64, 65};
    struct world world;

    (void)state;
    world_open(&world, 2, BENT_NOTHING);
    for (size_t e = 0; e < sizeof(edges) / sizeof(edges[0]); e++) {
        for (uint32_t count = edges[e] - 2; count <= edges[e] + 1; count++) {
            for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
                assert_true(is_invariant_in(&world, rows[r], count));
            }
        }
        assert_false(is_invariant_in_chunks(BENT_CHUNK_END, 5, edges[e] + 1));
    }
    world_close(&world);
}

/* ---- decoded or prefilled; a restart ---- */

/* The first `done` tokens are there already, as after a restart: they are prefilled with the
 * context, and the reply goes on behind them. */
static bool is_invariant_when_resumed(enum bent bent, uint32_t rows, uint32_t count, uint32_t done)
{
    const struct engine_rig_branch *whole = reference_of(count);
    struct engine_rig_request request;
    struct engine_rig rig;
    struct world world;
    bool is_equal;

    world_open(&world, 2, bent);
    engine_open(&rig, &world, rows, 1, PAGES);
    request = subject(&world, count);
    request.resume = whole->output.tokens;
    request.resume_count = done;
    const uint32_t index = engine_rig_submit(&rig, &request, NULL);
    struct branch_output *output = &rig.branches[index].output;
    memcpy(output->logprobs, whole->output.logprobs, done * sizeof(float));
    memcpy(output->logprobs_sampler, whole->output.logprobs_sampler, done * sizeof(float));
    memcpy(output->entropies, whole->output.entropies, done * sizeof(float));
    memcpy(output->tops, whole->output.tops, 2 * done * sizeof(struct sample_top));
    assert_true(engine_rig_run(&rig, STEPS));
    is_equal = engine_rig_equal(&rig.branches[index], whole);
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void test_a_reply_that_goes_on_after_a_restart_has_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t done = 0; done < REPLY_TOKENS; done += 3) {
        assert_true(is_invariant_when_resumed(BENT_NOTHING, 1 + done, 55, done));
        assert_true(is_invariant_when_resumed(BENT_NOTHING, 64, 500, done));
        assert_false(is_invariant_when_resumed(BENT_PAGE, 64, 500, done));
    }
}

/* ---- shared, evicted, preempted ---- */

static bool is_invariant_when_shared(enum bent bent, bool is_evicted)
{
    struct engine_rig_request request;
    struct engine_rig rig;
    struct world world;
    bool is_equal = true;

    world_open(&world, 2, bent);
    engine_open(&rig, &world, ROWS_MAX, 4, PAGES);
    request = subject(&world, 141);
    request.prompt_scope = 3;
    for (uint64_t session = 1; session <= 6; session++) {
        /* Its prompt is shared; then, in the same session, all of its context. */
        request.session_scope = 10 + session / 2;
        request.session = session / 2;
        is_equal = runs_as_reference(&rig, &request) && is_equal;
        const uint32_t cached = rig.branches[rig.branch_count - 1].event.context_cached_count;
        assert_int_equal(cached > 0, session > 1 && !is_evicted);
        while (is_evicted && kv_tree_evict(rig.engine->tree)) {
        }
    }
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void test_shared_and_evicted_pages_change_no_bit(void **state)
{
    (void)state;
    assert_true(is_invariant_when_shared(BENT_NOTHING, false));
    assert_false(is_invariant_when_shared(BENT_SHARED, false));
    assert_true(is_invariant_when_shared(BENT_NOTHING, true));
    assert_false(is_invariant_when_shared(BENT_PAGE, true));
}

/* Six of the same in a pool with room for two or three: each is preempted and computed again. */
static bool is_invariant_under_pressure(enum bent bent)
{
    struct engine_rig_request request;
    struct engine_stats stats;
    struct engine_rig rig;
    struct world world;
    bool is_equal = true;

    world_open(&world, 2, bent);
    engine_open(&rig, &world, 64, 6, 28);
    request = subject(&world, 141);
    for (uint32_t i = 0; i < 6; i++) {
        engine_rig_lend(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    engine_stats(rig.engine, &stats);
    assert_true(stats.preemption_count > 0);
    for (uint32_t i = 0; i < 6; i++) {
        is_equal = engine_rig_equal(&rig.branches[i], reference_of(141)) && is_equal;
    }
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void test_preempted_replies_have_the_same_bits(void **state)
{
    (void)state;
    assert_true(is_invariant_under_pressure(BENT_NOTHING));
    assert_false(is_invariant_under_pressure(BENT_PAGE));
}

/* ---- threads ---- */

static void test_the_number_of_threads_changes_no_bit(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 8};

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        for (enum bent bent = BENT_NOTHING; bent <= BENT_BY_THREADS; bent += BENT_BY_THREADS) {
            struct world world;

            world_open(&world, counts[i], bent);
            assert_int_equal(is_invariant_in(&world, 40, 530),
                             bent == BENT_NOTHING || counts[i] == 1);
            world_close(&world);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reply_among_strangers_has_the_bits_that_it_has_alone),
        cmocka_unit_test(test_chunks_of_1_to_40_rows_have_the_same_bits),
        cmocka_unit_test(test_edges_of_pages_chunks_and_blocks_change_no_bit),
        cmocka_unit_test(test_a_reply_that_goes_on_after_a_restart_has_the_same_bits),
        cmocka_unit_test(test_shared_and_evicted_pages_change_no_bit),
        cmocka_unit_test(test_preempted_replies_have_the_same_bits),
        cmocka_unit_test(test_the_number_of_threads_changes_no_bit),
    };

    return cmocka_run_group_tests(tests, reference_open, reference_close);
}
