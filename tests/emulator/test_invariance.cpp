/* Goal: on the CUDA backend too a reply's bits are a function of its context, sampler and seed
 * alone: alone or among strangers, prefilled in chunks or decoded over the edges of pages, chunks
 * and blocks, gone on with after a restart, with shared pages, after eviction and preemption, and
 * behind a prompt from which a window has slid.
 * Method: one reply through the real engine and the kernels over the emulator, computed in each of
 * these ways, two steps in flight, and compared by memcmp with itself computed alone. For each way
 * the same over a backend that is bent on its way (support/bent_ops.h) must fail. A few steps of
 * each, since a step takes tens of milliseconds; tests/unit/schedule/test_invariance.c has the
 * whole sweeps on the CPU's kernels.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "schedule/engine_state.h"
#include "support/bent_ops.h"
#include "support/engine_rig.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"
}
#include "tests/emulator/emulator_rig.h"

extern "C" {
extern const struct backend_ops backend_cuda_ops;
}

enum {
    CONTEXT_MAX = 528,
    REPLY_TOKENS = 5,
    RUNNING_MAX = 5,
    ROWS_MAX = 128,
    PAGES = 48,
    STEPS = 5000,
    OFTEN_MAX = 8, /* runs of the subject on one engine */
};

struct world {
    struct bytes file;
    struct model *model;
    struct tokenizer *tokenizer;
    struct backend_ops ops;
    struct backend *backend;
    struct forward *forward;
};

static uint32_t ids[CONTEXT_MAX];

/* What is bent is copied for one step at a time. */
static uint32_t one_step(const struct backend *backend)
{
    (void)backend;
    return 1;
}

static void world_open(struct world *world, enum bent bent)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 23);
    struct backend_settings backend = {};
    struct forward_settings forward = {};

    /* As narrow as the kernels take it: the emulator pays for every lane. */
    spec.width = 64;
    spec.head_count = spec.kv_head_count = 1;
    spec.hidden = 128;
    memset(world, 0, sizeof(*world));
    world->file = tiny_model_create(&spec);
    world->model = rig_model_of(world->file);
    assert_int_equal(tokenizer_create(model_vocabulary(world->model), NULL, &world->tokenizer),
                     STATUS_OK);
    world->ops = bent_ops(&backend_cuda_ops, bent, 1);
    if (bent != BENT_NOTHING) {
        world->ops.step_slot_count = one_step;
    }
    backend.row_count_max = forward.row_count_max = ROWS_MAX;
    backend.sample_count_max = forward.sample_count_max = backend.slot_count = RUNNING_MAX;
    backend.history_tokens_max = CONTEXT_MAX + 1;
    backend.vocabulary_count = model_vocabulary(world->model)->token_count;
    backend.partial_count_max = ROWS_MAX * 2;
    forward.page_count = PAGES;
    assert_int_equal(world->ops.create(&backend, NULL, &world->backend), STATUS_OK);
    assert_int_equal(
        forward_create(world->model, &world->ops, world->backend, &forward, NULL, &world->forward),
        STATUS_OK);
}

static void world_close(struct world *world)
{
    forward_destroy(world->forward);
    world->ops.destroy(world->backend);
    tokenizer_destroy(world->tokenizer);
    model_close(world->model);
    memory_free((void *)(uintptr_t)world->file.data);
}

static void engine_open(struct engine_rig *rig, const struct world *world, uint32_t rows,
                        uint32_t running, uint32_t pages)
{
    struct engine_rig_settings settings = {};

    settings.page_count = pages;
    settings.row_count_max = rows;
    settings.running_count_max = running;
    settings.context_token_count_max = CONTEXT_MAX;
    settings.partial_count_max = rows * 2;
    engine_rig_open_over(rig, &settings, world->forward, world->tokenizer, OFTEN_MAX);
}

/* The reply under test, private, behind a context of `count` ids. */
static struct engine_rig_request subject(uint32_t count)
{
    struct engine_rig_request request = {};

    for (uint32_t i = 0; i < CONTEXT_MAX; i++) {
        ids[i] = (i * 2654435761u + (i + 7) * i * 40503u) % 400;
    }
    request.ids = ids;
    request.count = count;
    request.prompt_count = count / 2;
    request.seed = 77;
    request.max_tokens = REPLY_TOKENS;
    request.ignore_end = true;
    request.top_count = 2;
    return request;
}

/* ---- the reply alone ---- */

static struct {
    struct world world;
    struct engine_rig rig;
    uint32_t counts[OFTEN_MAX]; /* 0: another reply */
} reference;

static int reference_open(void **state)
{
    (void)state;
    configure(0);
    world_open(&reference.world, BENT_NOTHING);
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
    const struct engine_rig_request request = subject(count);

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

static bool is_invariant_in_company(enum bent bent)
{
    static uint32_t other[RUNNING_MAX][CONTEXT_MAX];
    struct engine_rig rig;
    struct world world;
    uint32_t index = 0;

    world_open(&world, bent);
    engine_open(&rig, &world, ROWS_MAX, RUNNING_MAX, PAGES);
    for (uint32_t i = 0; i < RUNNING_MAX; i++) {
        struct engine_rig_request request = subject(i == 3 ? 33 : 3 + 5 * i);

        if (i == 3) {
            index = engine_rig_lend(&rig, &request);
            continue;
        }
        for (uint32_t p = 0; p < request.count; p++) {
            other[i][p] = (p * 31 + i * 17 + p * i) % 400;
        }
        request.ids = other[i];
        request.seed = i;
        engine_rig_lend(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    const bool is_equal = engine_rig_equal(&rig.branches[index], reference_of(33));
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void a_reply_among_strangers_has_the_bits_that_it_has_alone(void **state)
{
    (void)state;
    assert_true(is_invariant_in_company(BENT_NOTHING));
    assert_false(is_invariant_in_company(BENT_BY_COMPANY));
}

/* ---- chunks and edges ---- */

static bool is_invariant_in_chunks(enum bent bent, uint32_t rows, uint32_t count)
{
    const struct engine_rig_request request = subject(count);
    struct engine_rig rig;
    struct world world;

    world_open(&world, bent);
    engine_open(&rig, &world, rows, 1, PAGES);
    const bool is_equal = runs_as_reference(&rig, &request);
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

/* Contexts that end in front of an edge, so that the reply is decoded over it. */
static void chunks_and_edges_change_no_bit(void **state)
{
    (void)state;
    assert_true(is_invariant_in_chunks(BENT_NOTHING, 1, KV_PAGE_TOKEN_COUNT - 2));
    assert_true(is_invariant_in_chunks(BENT_NOTHING, 7, 62));
    assert_true(is_invariant_in_chunks(BENT_NOTHING, 33, 62));
    assert_true(is_invariant_in_chunks(BENT_NOTHING, 65, ATTENTION_BLOCK_TOKENS - 2));
    assert_false(is_invariant_in_chunks(BENT_CHUNK_END, 7, 62));
}

/* ---- decoded or prefilled; a restart ---- */

/* The first `done` tokens are there already: they are prefilled with the context. */
static bool is_invariant_when_resumed(enum bent bent, uint32_t done)
{
    const struct engine_rig_branch *whole = reference_of(62);
    struct engine_rig_request request = subject(62);
    struct engine_rig rig;
    struct world world;

    world_open(&world, bent);
    engine_open(&rig, &world, 40, 1, PAGES);
    request.resume = whole->output.tokens;
    request.resume_count = done;
    const uint32_t index = engine_rig_submit(&rig, &request, NULL);
    struct branch_output *output = &rig.branches[index].output;
    memcpy(output->logprobs, whole->output.logprobs, done * sizeof(float));
    memcpy(output->logprobs_sampler, whole->output.logprobs_sampler, done * sizeof(float));
    memcpy(output->entropies, whole->output.entropies, done * sizeof(float));
    memcpy(output->tops, whole->output.tops, 2 * done * sizeof(struct sample_top));
    assert_true(engine_rig_run(&rig, STEPS));
    const bool is_equal = engine_rig_equal(&rig.branches[index], whole);
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void a_reply_that_goes_on_after_a_restart_has_the_same_bits(void **state)
{
    (void)state;
    assert_true(is_invariant_when_resumed(BENT_NOTHING, 1));
    assert_true(is_invariant_when_resumed(BENT_NOTHING, 4));
    assert_false(is_invariant_when_resumed(BENT_PAGE, 4));
}

/* ---- shared, evicted, preempted ---- */

/* The prompt of 48 tokens is shared by two sessions; behind it the second one goes on in its own
 * pages; or all pages go in between. A window that slid leaves out what stood behind the prompt. */
static bool is_invariant_when_shared(enum bent bent, bool is_evicted)
{
    struct engine_rig_request request;
    struct engine_rig rig;
    struct world world;
    bool is_equal = true;

    world_open(&world, bent);
    engine_open(&rig, &world, ROWS_MAX, 2, PAGES);
    for (uint32_t session = 1; session <= 2; session++) {
        request = subject(96);
        request.prompt_scope = 3;
        request.prompt_count = 48;
        request.session = session;
        request.session_scope = 10 + session;
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

static void shared_and_evicted_pages_change_no_bit(void **state)
{
    (void)state;
    assert_true(is_invariant_when_shared(BENT_NOTHING, false));
    assert_false(is_invariant_when_shared(BENT_SHARED, false));
    assert_true(is_invariant_when_shared(BENT_NOTHING, true));
    assert_false(is_invariant_when_shared(BENT_PAGE, true));
}

/* A prompt of 32 tokens, and of what followed it the end alone: in a session that holds the pages
 * of all of it, and where nothing was before. */
static void a_slid_window_has_the_bits_of_what_is_left(void **state)
{
    static uint32_t left[64];
    struct engine_rig_request request = subject(96), slid = subject(64);
    struct engine_rig rig;
    struct world world;

    (void)state;
    memcpy(left, ids, 32 * sizeof(*ids));
    memcpy(left + 32, ids + 64, 32 * sizeof(*ids));
    request.prompt_scope = slid.prompt_scope = 3;
    request.prompt_count = slid.prompt_count = 32;
    request.session = slid.session = 1;
    request.session_scope = slid.session_scope = 11;
    slid.ids = left;
    world_open(&world, BENT_NOTHING);
    engine_open(&rig, &world, ROWS_MAX, 1, PAGES);
    assert_true(runs_as_reference(&rig, &request));
    const uint32_t shared = engine_rig_lend(&rig, &slid);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[shared].event.context_cached_count, 32);
    slid.prompt_scope = slid.session_scope = 0;
    const uint32_t alone = engine_rig_lend(&rig, &slid);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[alone].event.context_cached_count, 0);
    assert_true(engine_rig_equal(&rig.branches[shared], &rig.branches[alone]));
    /* Twin: with a token of what was left out they differ. */
    left[32] = ids[63];
    const uint32_t other = engine_rig_lend(&rig, &slid);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_false(engine_rig_equal(&rig.branches[shared], &rig.branches[other]));
    engine_rig_close(&rig);
    world_close(&world);
}

/* Three of the same, longer ones, in a pool with room for the contexts of all and the replies of
 * fewer: they are preempted. */
static bool is_invariant_under_pressure(enum bent bent)
{
    struct engine_rig_request request = subject(62);
    struct engine_stats stats;
    struct engine_rig rig;
    struct world world;
    bool is_equal = true;

    request.max_tokens = 24;
    const uint32_t alone = engine_rig_lend(&reference.rig, &request);
    assert_true(engine_rig_run(&reference.rig, STEPS));
    world_open(&world, bent);
    engine_open(&rig, &world, 40, 3, 15);
    for (uint32_t i = 0; i < 3; i++) {
        engine_rig_lend(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    engine_stats(rig.engine, &stats);
    assert_true(stats.preemption_count > 0);
    for (uint32_t i = 0; i < 3; i++) {
        is_equal = engine_rig_equal(&rig.branches[i], &reference.rig.branches[alone]) && is_equal;
    }
    engine_rig_close(&rig);
    world_close(&world);
    return is_equal;
}

static void preempted_replies_have_the_same_bits(void **state)
{
    (void)state;
    assert_true(is_invariant_under_pressure(BENT_NOTHING));
    assert_false(is_invariant_under_pressure(BENT_PAGE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_among_strangers_has_the_bits_that_it_has_alone),
        cmocka_unit_test(chunks_and_edges_change_no_bit),
        cmocka_unit_test(a_reply_that_goes_on_after_a_restart_has_the_same_bits),
        cmocka_unit_test(shared_and_evicted_pages_change_no_bit),
        cmocka_unit_test(a_slid_window_has_the_bits_of_what_is_left),
        cmocka_unit_test(preempted_replies_have_the_same_bits),
    };

    return cmocka_run_group_tests(tests, reference_open, reference_close);
}
