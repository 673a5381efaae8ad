/* Goal: over real kernels, too, a branch's bits do not depend on its company, on chunks, on shared
 * or copied pages, on preemption, on drafts or on the number of threads.
 * Method: a tiny model on the CPU backend; branches of one persona with a prompt longer than an
 * attention block, siblings, a stranger and a fork run together in a small pool; each is run again
 * alone in an engine of its own and compared by memcmp; drafts come from what a branch gives alone,
 * with some tokens changed. Twins: one context token changed, drafts kept that were not drawn.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/model.h"
#include "support/engine_rig.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"

enum {
    CONTEXT_MAX = 1024,
    PROMPT = 530,
    BRANCHES = 8,
    ROWS = 96,
    RUNNING = 8,
    STEPS = 20000,
};

struct world {
    struct bytes file;
    struct model *model;
    struct tokenizer *tokenizer;
    struct sampler *sampler;
    struct backend *backend;
    struct forward *forward;
    bool speculates;
};

static void world_open_with(struct world *world, uint32_t thread_count,
                            const struct backend_ops *ops)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 11);
    struct sampler_settings sampling = sampler_settings_default();
    uint32_t end_count;

    world->speculates = false;
    world->file = tiny_model_create(&spec);
    world->model = rig_model_of(world->file);
    assert_int_equal(tokenizer_create(model_vocabulary(world->model), NULL, &world->tokenizer),
                     STATUS_OK);
    const uint32_t *end_ids = tokenizer_end_ids(world->tokenizer, &end_count);
    sampling.repetition_penalty = 1.3f;
    sampling.max_tokens = 40;
    assert_int_equal(sampler_create(&sampling, end_ids, end_count,
                                    model_vocabulary(world->model)->token_count, NULL,
                                    &world->sampler),
                     STATUS_OK);
    const struct backend_settings backend = {
        .thread_count = thread_count,
        .row_count_max = ROWS,
        .sample_count_max = RUNNING,
        .slot_count = RUNNING,
        .history_tokens_max = CONTEXT_MAX + 1,
        .vocabulary_count = model_vocabulary(world->model)->token_count,
        .partial_count_max = ROWS * 3,
        .kv_type = forward_kv_type(world->model, &backend_cpu_ops, false),
    };
    const struct forward_settings forward = {
        .row_count_max = ROWS, .sample_count_max = RUNNING, .page_count = 128};
    assert_int_equal(backend_cpu_ops.create(&backend, NULL, &world->backend), STATUS_OK);
    assert_int_equal(
        forward_create(world->model, ops, world->backend, &forward, NULL, &world->forward),
        STATUS_OK);
}

static void world_open(struct world *world, uint32_t thread_count)
{
    world_open_with(world, thread_count, &backend_cpu_ops);
}

static void world_close(struct world *world)
{
    forward_destroy(world->forward);
    backend_cpu_ops.destroy(world->backend);
    sampler_release(world->sampler);
    tokenizer_destroy(world->tokenizer);
    model_close(world->model);
    memory_free((void *)(uintptr_t)world->file.data);
}

static void engine_open(struct engine_rig *rig, struct world *world, uint32_t page_count)
{
    const struct engine_rig_settings settings = {
        .page_count = page_count,
        .row_count_max = ROWS,
        .running_count_max = RUNNING,
        .context_token_count_max = CONTEXT_MAX,
        .partial_count_max = ROWS * 3,
        .speculates = world->speculates,
    };

    engine_rig_open_over(rig, &settings, world->forward, world->tokenizer, BRANCHES + 1);
}

static uint32_t ids[BRANCHES][CONTEXT_MAX];

/* Five sessions of one persona, two siblings of the last, and a stranger. */
static void requests_make(struct world *world, struct engine_rig_request *requests)
{
    for (uint32_t i = 0; i < BRANCHES; i++) {
        const bool is_sibling = i == 5 || i == 6;
        const uint32_t session = is_sibling ? 4 : i;
        for (uint32_t p = 0; p < CONTEXT_MAX; p++) {
            const uint32_t salt = p < PROMPT && i < 7 ? 0 : session + 1;
            ids[i][p] = (p * 2654435761u + salt * 40503u * (p + 3)) % 400;
        }
        const struct engine_rig_request request = {
            .ids = ids[i],
            .count = PROMPT + 9 + 6 * session,
            .prompt_count = PROMPT,
            .prompt_scope = i < 7 ? 1 : 2,
            .session = session,
            .session_scope = 10 + session,
            .group = session == 4 ? 77 : 0,
            .seed = 1000 + i,
            .sampler = world->sampler,
            .top_count = 4,
        };
        requests[i] = request;
    }
}

static bool is_as_alone(struct world *world, const struct engine_rig_branch *branch,
                        const struct engine_rig_request *request)
{
    struct engine_rig_request alone = *request;
    struct engine_rig rig;
    bool is_equal;

    alone.group = 0;
    engine_open(&rig, world, 128);
    engine_rig_lend(&rig, &alone);
    assert_true(engine_rig_run(&rig, STEPS));
    is_equal = engine_rig_equal(branch, &rig.branches[0]);
    engine_rig_close(&rig);
    return is_equal;
}

static void test_a_crowd_of_branches_has_the_bits_of_each_alone(void **state)
{
    (void)state;
    for (uint32_t thread_count = 1; thread_count <= 2; thread_count++) {
        struct engine_rig_request requests[BRANCHES];
        struct engine_stats stats;
        struct engine_rig rig;
        struct world world;
        struct world other;
        world_open(&world, thread_count);
        world_open(&other, 3 - thread_count);
        requests_make(&world, requests);
        /* 34 pages are the prompt's; the rest is too little for all, so that some are preempted. */
        engine_open(&rig, &world, thread_count == 1 ? 58 : 110);
        for (uint32_t i = 0; i < BRANCHES; i++) {
            engine_rig_lend(&rig, &requests[i]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        engine_stats(rig.engine, &stats);
        assert_true(thread_count == 2 || stats.preemption_count > 0);
        assert_true(stats.context_cached_count > stats.context_computed_count);
        for (uint32_t i = 0; i < BRANCHES; i++) {
            requests[i].sampler = other.sampler;
            assert_true(is_as_alone(&other, &rig.branches[i], &requests[i]));
        }
        ids[0][PROMPT / 2] ^= 1;
        assert_false(is_as_alone(&other, &rig.branches[0], &requests[0]));
        engine_rig_close(&rig);
        world_close(&world);
        world_close(&other);
    }
}

static void test_a_fork_in_the_middle_of_a_page_has_the_bits_of_the_path(void **state)
{
    struct engine_rig_request requests[BRANCHES];
    struct engine_rig rig;
    struct world world;

    (void)state;
    world_open(&world, 2);
    requests_make(&world, requests);
    engine_open(&rig, &world, 128);
    engine_rig_lend(&rig, &requests[0]);
    assert_true(engine_rig_run(&rig, STEPS));
    const uint32_t kept = rig.branches[0].event.kept;
    const uint32_t offset = kept < 11 ? kept : 11;
    struct engine_rig_request fork = requests[0];
    memcpy(&ids[0][fork.count], rig.branches[0].output.tokens, offset * sizeof(uint32_t));
    fork.count += offset + 5;
    fork.seed = 9;
    engine_rig_lend(&rig, &fork);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, fork.count - 5);
    assert_true(is_as_alone(&world, &rig.branches[1], &fork));
    engine_rig_close(&rig);
    world_close(&world);
}

static void test_a_look_over_a_reply_has_the_bits_of_the_reply(void **state)
{
    static struct branch_mark marks[CONTEXT_MAX];
    struct engine_rig_request requests[BRANCHES];
    struct engine_rig rig;
    struct world world;

    (void)state;
    world_open(&world, 2);
    requests_make(&world, requests);
    engine_open(&rig, &world, 128);
    engine_rig_lend(&rig, &requests[0]);
    assert_true(engine_rig_run(&rig, STEPS));
    const struct engine_rig_branch *reply = &rig.branches[0];
    const uint32_t count = reply->event.sampled_count;
    struct engine_rig_request look = requests[0];
    memcpy(&ids[0][look.count], reply->output.tokens, count * sizeof(uint32_t));
    for (uint32_t i = 0; i < count; i++) {
        marks[i] = (struct branch_mark){look.count - 1 + i, reply->output.tokens[i]};
    }
    look.count += count - 1;
    look.marks = marks;
    look.mark_count = count;
    look.marks_draw = true;
    for (uint32_t secret = 0; secret < 2; secret++) {
        look.prompt_scope = secret != 0 ? 0 : look.prompt_scope;
        look.session_scope = secret != 0 ? 0 : look.session_scope;
        const struct branch_output *got = &rig.branches[engine_rig_lend(&rig, &look)].output;
        assert_true(engine_rig_run(&rig, STEPS));
        assert_memory_equal(got->tokens, reply->output.tokens, count * sizeof(uint32_t));
        assert_memory_equal(got->logprobs, reply->output.logprobs, count * sizeof(float));
        assert_memory_equal(got->logprobs_sampler, reply->output.logprobs_sampler,
                            count * sizeof(float));
        assert_memory_equal(got->entropies, reply->output.entropies, count * sizeof(float));
        assert_memory_equal(got->tops, reply->output.tops, 4 * count * sizeof(struct sample_top));
    }
    /* Twin: one token of the persona's prompt is another one. */
    ids[0][PROMPT / 2] ^= 1;
    const struct branch_output *other = &rig.branches[engine_rig_lend(&rig, &look)].output;
    assert_true(engine_rig_run(&rig, STEPS));
    assert_memory_not_equal(other->logprobs, reply->output.logprobs, count * sizeof(float));
    engine_rig_close(&rig);
    world_close(&world);
}

/* As if every draft had been drawn. */
static enum status keep_drafts(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    static struct sample_result kept[RUNNING];
    const enum status status = backend_cpu_ops.step_wait(backend, ticket, out);

    memcpy(kept, out->samples, sizeof kept);
    for (uint32_t i = 0; i < RUNNING; i++) {
        kept[i].flags &= ~(uint32_t)SAMPLE_FLAG_DROPPED;
    }
    out->samples = kept;
    return status;
}

enum { DRAFTING = 3 };

/* Runs the first requests together with drafts; how many are as alone. */
static uint32_t count_drafting_as_alone(uint32_t thread_count, const struct backend_ops *ops,
                                        struct engine_stats *stats)
{
    static uint32_t texts[DRAFTING][CONTEXT_MAX];
    struct engine_rig_request requests[BRANCHES];
    struct branch_run runs[DRAFTING];
    struct world plain, drafting;
    struct engine_rig rig;
    uint32_t count = 0;

    world_open(&plain, 3 - thread_count);
    world_open_with(&drafting, thread_count, ops);
    drafting.speculates = true;
    requests_make(&plain, requests);
    for (uint32_t i = 0; i < DRAFTING; i++) {
        engine_open(&rig, &plain, 128);
        engine_rig_lend(&rig, &requests[i]);
        assert_true(engine_rig_run(&rig, STEPS));
        runs[i] = (struct branch_run){texts[i], rig.branches[0].event.sampled_count, 0};
        for (uint32_t t = 0; t < runs[i].count; t++) {
            texts[i][t] = rig.branches[0].output.tokens[t] + (t % 13 == 12);
        }
        engine_rig_close(&rig);
    }
    engine_open(&rig, &drafting, 128);
    for (uint32_t i = 0; i < DRAFTING; i++) {
        struct engine_rig_request request = requests[i];
        request.sampler = drafting.sampler;
        request.texts = &runs[i];
        request.text_count = 1;
        engine_rig_lend(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    engine_stats(rig.engine, stats);
    for (uint32_t i = 0; i < DRAFTING; i++) {
        count += is_as_alone(&plain, &rig.branches[i], &requests[i]);
    }
    engine_rig_close(&rig);
    world_close(&plain);
    world_close(&drafting);
    return count;
}

static void test_drafts_leave_every_bit_as_it_was(void **state)
{
    struct backend_ops ops = backend_cpu_ops;
    struct engine_stats stats;

    (void)state;
    for (uint32_t thread_count = 1; thread_count <= 2; thread_count++) {
        assert_int_equal(count_drafting_as_alone(thread_count, &backend_cpu_ops, &stats), DRAFTING);
        assert_true(stats.accepted_count > 20);
        assert_true(stats.accepted_count < stats.drafted_count);
    }
    ops.step_wait = keep_drafts;
    assert_true(count_drafting_as_alone(1, &ops, &stats) < DRAFTING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crowd_of_branches_has_the_bits_of_each_alone),
        cmocka_unit_test(test_a_fork_in_the_middle_of_a_page_has_the_bits_of_the_path),
        cmocka_unit_test(test_a_look_over_a_reply_has_the_bits_of_the_reply),
        cmocka_unit_test(test_drafts_leave_every_bit_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
