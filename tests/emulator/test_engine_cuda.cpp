/* Goal: the engine keeps two steps in flight on the CUDA backend, rows taking what a branch sampled
 * last from the card, and that changes no bit.
 * Method: a tiny model and the daemon's own engine over the emulator; the table of calls is counted
 * on its way, and told to allow one step or two. Branches together, two in flight, against each
 * alone, one at a time, by memcmp. Twin: one context token changed must show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "support/engine_rig.h"
#include "support/model_rig.h"
#include "support/tiny_model.h"
}
#include "tests/emulator/emulator_rig.h"

extern "C" {
extern const struct backend_ops backend_cuda_ops;
}

enum { CONTEXT_MAX = 64, BRANCHES = 3, ROWS = 24, RUNNING = 4, PAGES = 24, STEPS = 2000 };

/* What passed the seam. */
static struct {
    uint32_t slot_count; /* that the engine is told */
    uint32_t in_flight, in_flight_max;
    uint32_t last_count;           /* rows that took what was sampled last */
    uint32_t last_in_flight_count; /* of them, while that step was not waited for yet */
} seen;

static uint32_t told_slot_count(const struct backend *backend)
{
    (void)backend;
    return seen.slot_count;
}

static enum status counted_submit(struct backend_program *program, const struct plan *plan,
                                  uint32_t *ticket)
{
    const enum status status = backend_cuda_ops.step_submit(program, plan, ticket);

    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < plan->row_count; i++) {
        const bool is_last = (plan->rows[i].token & PLAN_TOKEN_LAST) != 0;
        seen.last_count += is_last;
        seen.last_in_flight_count += is_last && seen.in_flight > 0;
    }
    seen.in_flight++;
    seen.in_flight_max = seen.in_flight > seen.in_flight_max ? seen.in_flight : seen.in_flight_max;
    return STATUS_OK;
}

static enum status counted_wait(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    seen.in_flight--;
    return backend_cuda_ops.step_wait(backend, ticket, out);
}

struct world {
    struct bytes file;
    struct backend_ops ops;
    struct model *model;
    struct tokenizer *tokenizer;
    struct backend *backend;
    struct forward *forward;
};

static void world_open(struct world *world)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 11);
    struct backend_settings backend = {};
    struct forward_settings forward = {};

    world->file = tiny_model_create(&spec);
    world->model = rig_model_of(world->file);
    world->ops = backend_cuda_ops;
    world->ops.step_slot_count = told_slot_count;
    world->ops.step_submit = counted_submit;
    world->ops.step_wait = counted_wait;
    assert_int_equal(tokenizer_create(model_vocabulary(world->model), NULL, &world->tokenizer),
                     STATUS_OK);
    backend.row_count_max = forward.row_count_max = ROWS;
    backend.sample_count_max = forward.sample_count_max = backend.slot_count = RUNNING;
    backend.history_tokens_max = CONTEXT_MAX + 1;
    backend.vocabulary_count = model_vocabulary(world->model)->token_count;
    backend.partial_count_max = ROWS;
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

static uint32_t ids[BRANCHES][CONTEXT_MAX];

static struct engine_rig_request request_of(uint32_t branch)
{
    struct engine_rig_request request = {};

    for (uint32_t p = 0; p < CONTEXT_MAX; p++) {
        ids[branch][p] = (p * 2654435761u + branch * 40503u * (p + 3)) % 400;
    }
    request.ids = ids[branch];
    request.count = 17 + 2 * branch;
    request.session = branch + 1;
    request.session_scope = 10 + branch;
    request.seed = 5 + branch;
    request.max_tokens = 7;
    request.ignore_end = true;
    request.top_count = 2;
    return request;
}

static void engine_open(struct engine_rig *rig, struct world *world, uint32_t slot_count)
{
    struct engine_rig_settings settings = {};

    memset(&seen, 0, sizeof seen);
    seen.slot_count = slot_count;
    settings.page_count = PAGES;
    settings.row_count_max = ROWS;
    settings.running_count_max = RUNNING;
    settings.context_token_count_max = CONTEXT_MAX;
    settings.partial_count_max = ROWS;
    engine_rig_open_over(rig, &settings, world->forward, world->tokenizer, BRANCHES + 1);
}

static bool is_as_alone(struct world *world, const struct engine_rig_branch *branch,
                        const struct engine_rig_request *request)
{
    struct engine_rig rig;

    engine_open(&rig, world, 1);
    engine_rig_lend(&rig, request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(seen.in_flight_max, 1);
    const bool is_equal = engine_rig_equal(branch, &rig.branches[0]);
    engine_rig_close(&rig);
    return is_equal;
}

static void two_steps_in_flight_change_no_bit(void **state)
{
    const uint32_t config_step = emulator_runs_long() ? 1 : (uint32_t)CONFIG_COUNT;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i += config_step) {
        struct engine_rig_request requests[BRANCHES];
        struct engine_rig rig;
        struct world world;

        configure(i);
        world_open(&world);
        engine_open(&rig, &world, 2);
        for (uint32_t j = 0; j < BRANCHES; j++) {
            requests[j] = request_of(j);
            engine_rig_lend(&rig, &requests[j]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        assert_int_equal(seen.in_flight_max, 2);
        assert_true(seen.last_in_flight_count >= BRANCHES);
        for (uint32_t j = 0; j < BRANCHES; j++) {
            assert_int_equal(rig.branches[j].event.sampled_count, 7);
            assert_true(is_as_alone(&world, &rig.branches[j], &requests[j]));
        }
        ids[1][4] ^= 1;
        assert_false(is_as_alone(&world, &rig.branches[1], &requests[1]));
        engine_rig_close(&rig);
        world_close(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_steps_in_flight_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
