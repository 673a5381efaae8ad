#include "sim/tree_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "schedule/engine_state.h"
#include "sim/tree_words.h"
#include "unit/journal/power_disk.h"

enum { STUCK_COUNT = 200000, CONTEXT_MAX = 192 };

static const uint8_t own_model[32] = {1, 2, 3};

void world_fail(struct tree_world *world, const char *format, ...)
{
    va_list arguments;

    if (world->problem[0] == '\0') {
        va_start(arguments, format);
        (void)vsnprintf(world->problem, sizeof(world->problem), format, arguments);
        va_end(arguments);
    }
}

static uint32_t draw(struct tree_world *world, uint32_t below)
{
    world->random = world->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(world->random >> 33) % below;
}

/* ---- what the store tells ---- */

static void on_reply(void *context, struct reply_to to, const struct reply *reply, bool more)
{
    struct tree_world *world = context;

    if (to.request == 0) {
        return; /* nobody waits for it */
    }
    world->type = reply->type;
    world->more = more;
    world->is_answered = !more || reply->type == REPLY_CREATED;
    switch (reply->type) {
    case REPLY_ERROR:
        world->has_error = true;
        world->status = reply->error.status;
        (void)snprintf(world->error_text, sizeof(world->error_text), "%.190s", reply->error.text);
        break;
    case REPLY_CREATED:
        CHECK(reply->u.created.count <= WORLD_NODE_COUNT_MAX);
        world->created_count = reply->u.created.count;
        for (uint32_t i = 0; i < reply->u.created.count; i++) {
            world->created[i] = reply->u.created.nodes[i].id;
        }
        break;
    case REPLY_PERSONA:
        world->id = reply->u.persona.persona.id;
        break;
    case REPLY_SESSION:
        world->id = reply->u.session.session.id;
        world->created_count = reply->u.session.greeting_count;
        for (uint32_t i = 0; i < reply->u.session.greeting_count; i++) {
            world->created[i] = reply->u.session.greetings[i].id;
        }
        break;
    case REPLY_IMPORT:
        world->transfer = reply->u.imported.transfer;
        world->id = reply->u.imported.has_session ? reply->u.imported.session.id : 0;
        break;
    case REPLY_HEAD:
        world->head = reply->u.head;
        break;
    case REPLY_VERIFY:
        world->differing_count =
            (uint32_t)(reply->u.verify.different_count + reply->u.verify.failed_count);
        break;
    case REPLY_DISTRIBUTION:
        CHECK(reply->u.distribution.logprob_count == 2);
        world->entropy = reply->u.distribution.entropy;
        memcpy(world->logprobs, reply->u.distribution.logprobs, sizeof(world->logprobs));
        break;
    default:
        break;
    }
    if (world->look != NULL) {
        world->look(world->look_context, reply);
    }
}

static void on_follow(void *context, struct reply_to to, const struct follow *follow)
{
    struct tree_world *world = context;

    if (to.request == 0 || !world->is_following) {
        return; /* its connection is lost already */
    }
    for (uint32_t i = 0; i < follow->node_count; i++) {
        CHECK(world->followed_count < 4096);
        world->followed[world->followed_count++] = follow->nodes[i];
        store_node_follow(world->store, follow->nodes[i]);
    }
}

static void on_progress(void *context, uint64_t node)
{
    (void)context;
    CHECK(node != 0);
}

static bool is_awaited(void *context, struct reply_to to)
{
    (void)context;
    (void)to;
    return true;
}

/* ---- life ---- */

static void make_fake(const struct tree_world *world, struct fake **out)
{
    const struct backend_settings backend = {
        .row_count_max = world->row_count,
        .sample_count_max = world->running_count,
        .slot_count = world->running_count,
        .history_tokens_max = CONTEXT_MAX + 1,
        .vocabulary_count = tokenizer_vocabulary(world->tokenizer)->token_count,
        .partial_count_max = world->row_count,
    };
    const struct fake_behaviour behaviour = {
        .page_count = world->page_count,
        .step_slot_count = world->step_slot_count,
        .token_count = TREE_SAMPLED_COUNT,
        .row_ns = 2000000, /* so that contexts come in chunks */
        .nan_token = TOKEN_NONE,
        .fault_token = TOKEN_NONE,
    };

    CHECK(fake_create(&backend, &behaviour, out) == STATUS_OK);
}

void world_open(struct tree_world *world, uint64_t seed)
{
    memset(world, 0, sizeof(*world));
    world->random = seed;
    world->page_count = CONTEXT_MAX / KV_PAGE_TOKEN_COUNT + 2 + draw(world, 40);
    world->running_count = 1 + draw(world, 6);
    world->row_count = world->running_count + draw(world, 30);
    world->step_slot_count = 1 + draw(world, 2);
    world->resident_bytes_max = draw(world, 2) == 0 ? 1 : 0;
    world->now_ns = 1000000;
    clock_fake_set(&world->now_ns);
    power_disk_install();
    world->tokenizer = tree_words_tokenizer();
    make_fake(world, &world->definition);
}

void world_close(struct tree_world *world)
{
    fake_destroy(world->definition);
    tokenizer_destroy(world->tokenizer);
    power_disk_remove();
    clock_fake_set(NULL);
}

static void open_device(struct tree_world *world)
{
    make_fake(world, &world->fake);
    CHECK(forward_create_program(fake_ops(), fake_backend(world->fake), fake_program(world->fake),
                                 &world->forward) == STATUS_OK);
}

/* A new one knows nothing of the old one's KV. */
static enum status restart_device(void *context, struct error *error, struct forward **out)
{
    struct tree_world *world = context;

    (void)error;
    forward_destroy(world->forward);
    fake_destroy(world->fake);
    open_device(world);
    world->device_restart_count++;
    *out = world->forward;
    return STATUS_OK;
}

void world_fail_device(struct tree_world *world)
{
    const uint64_t step = fake_step_count(world->fake) + world->step_slot_count + draw(world, 6);

    if (draw(world, 2) == 0) {
        fake_behaviour(world->fake)->fail_wait = step;
    } else {
        fake_behaviour(world->fake)->fail_submit = step;
    }
}

void world_fail_disk(struct tree_world *world, uint32_t after, bool is_full)
{
    (void)world;
    power_disk_fail_at(power_disk_operation_count() + 1 + after, false, is_full);
}

static void start_engine(struct tree_world *world)
{
    open_device(world);
    const struct engine_settings settings = {
        .forward = world->forward,
        .tokenizer = world->tokenizer,
        .page_count = world->page_count,
        .row_count_max = world->row_count,
        .running_count_max = world->running_count,
        .partial_count_max = world->row_count,
        .step_budget_ms = STEP_BUDGET_MS,
        .context_token_count_max = CONTEXT_MAX,
        .restart = restart_device,
        .restart_context = world,
    };
    CHECK(engine_create(&settings, NULL, &world->engine) == STATUS_OK);
}

void world_start(struct tree_world *world)
{
    struct error error = {0};
    struct store_settings settings = {
        .tokenizer = world->tokenizer,
        .model_hash = own_model,
        .numerics_id = "test/1",
        .chat_format = "chatml",
        .context_token_count_max = CONTEXT_MAX,
        .resident_bytes_max = world->resident_bytes_max,
        .events = {world, on_reply, on_follow, on_progress, is_awaited, NULL},
    };

    start_engine(world);
    settings.engine = world->engine;
    if (journal_open("tree.db", &error, &world->journal) != STATUS_OK) {
        world_fail(world, "the journal does not open: %s", error.text);
        return;
    }
    settings.journal = world->journal;
    CHECK(store_create(&settings, &error, &world->store) == STATUS_OK);
    if (store_load(world->store, &error) != STATUS_OK) {
        world_fail(world, "the journal does not load: %s", error.text);
    }
}

static void end(struct tree_world *world)
{
    struct engine_stats stats;

    engine_stats(world->engine, &stats);
    world->preemption_count += stats.preemption_count;
    world->context_count += stats.context_token_count;
    world->context_cached_count += stats.context_cached_count;
    store_destroy(world->store);
    engine_destroy(world->engine);
    forward_destroy(world->forward);
    fake_destroy(world->fake);
    world->store = NULL;
    world->engine = NULL;
    world->forward = NULL;
    world->fake = NULL;
    world->followed_count = 0;
}

void world_stop(struct tree_world *world)
{
    store_stop(world->store);
    engine_stop(world->engine);
    for (int i = 0; !store_is_idle(world->store); i++) {
        store_pump(world->store);
        (void)journal_step(world->journal);
        if (i == STUCK_COUNT) {
            world_fail(world, "the daemon does not stop");
            break;
        }
    }
    end(world);
    journal_close(world->journal);
    world->journal = NULL;
}

void world_kill(struct tree_world *world)
{
    end(world);
    journal_close(world->journal);
    world->journal = NULL;
    power_disk_fail_at(0, false, false); /* a disk that failed is repaired */
}

void world_cut_power(struct tree_world *world, uint64_t seed)
{
    power_disk_fail_at(1, false, false); /* nothing reaches the disk any more */
    world_kill(world);
    power_disk_cut(seed);
}

/* ---- turning ---- */

static void step_engine(struct tree_world *world)
{
    const enum status status = engine_step(world->engine);

    if (status != STATUS_OK && status != STATUS_AGAIN) {
        world_fail(world, "a step of the engine failed: %s", status_name(status));
    }
    kv_pages_check(world->engine->pages);
    kv_tree_check(world->engine->tree);
}

void world_step(struct tree_world *world)
{
    world->now_ns += 1000 + draw(world, 1000000);
    switch (draw(world, 4)) {
    case 0:
        (void)journal_step(world->journal);
        break;
    case 1:
        store_pump(world->store);
        break;
    default:
        step_engine(world);
        break;
    }
}

static void execute(struct tree_world *world, const struct request *request, uint64_t number)
{
    const struct reply_to to = {1, number};
    struct error error = {0};
    enum status status = store_prepare(world->store, request, &error);

    world->is_answered = world->has_error = false;
    world->created_count = 0;
    for (int i = 0; status == STATUS_AGAIN && i < STUCK_COUNT; i++) {
        world_step(world);
        status = store_prepare(world->store, request, &error);
    }
    if (status != STATUS_OK) {
        world_fail(world, "request %d cannot be prepared: %s", (int)request->type, error.text);
        world->is_answered = true;
        return;
    }
    store_execute(world->store, request, to);
}

void world_begin(struct tree_world *world, const struct request *request)
{
    execute(world, request, 0);
}

void world_ask(struct tree_world *world, const struct request *request)
{
    execute(world, request, 1);
    world_wait(world, request);
}

void world_wait(struct tree_world *world, const struct request *request)
{
    for (int i = 0; !world->is_answered; i++) {
        world_step(world);
        if (i == STUCK_COUNT) {
            world_fail(world, "request %d is never answered", (int)request->type);
            return;
        }
    }
}

/* A branch that was parked goes on when it is followed. */
static void wake_all(struct tree_world *world)
{
    for (uint64_t node = 1; node <= 4096; node++) {
        store_node_follow(world->store, node);
        store_node_unfollow(world->store, node);
    }
}

void world_settle(struct tree_world *world)
{
    wake_all(world);
    for (int i = 0; !store_is_idle(world->store); i++) {
        world_step(world);
        if (i == STUCK_COUNT) {
            world_fail(world, "a reply never ends");
            return;
        }
    }
    for (int i = 0; i < 3; i++) {
        step_engine(world); /* steps on their way name pages still */
    }
    const struct kv_pages_counts counts = kv_pages_counts(world->engine->pages);
    if (counts.held_count != 0 || counts.limbo_count != 0) {
        world_fail(world, "%u pages are held though nobody is left", counts.held_count);
    }
}

void world_unfollow(struct tree_world *world)
{
    while (world->followed_count > 0) {
        store_node_unfollow(world->store, world->followed[--world->followed_count]);
    }
}
