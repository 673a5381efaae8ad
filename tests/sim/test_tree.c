/* Goal: a tree is what was done to it, and stays so through restarts: nothing that was seen
 * changes. Method: seeded operations on a real store and a real journal on disk over a fake engine;
 * a naive model says what Walk must give, compared after each operation and each restart. Two
 * planted faults of the model (a lost last node, an ordinal that moved) must be caught. Usage:
 * sim_test_tree [first seed [count [operations]]]; a failure prints seed and operation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "unit/session/store_rig.h"

enum { SEED_COUNT = 60, OPERATION_COUNT = 60, NODES_MAX = 1024, CONTENT_MAX = 64 };

enum plant { PLANT_NONE, PLANT_LOST_NODE, PLANT_ORDINAL };

struct model_node {
    uint64_t id;
    struct position parent;
    uint32_t ordinal, count;
    enum node_origin origin;
    uint32_t content[CONTENT_MAX];
    bool is_deleted;
    char label[16];
};

struct sim {
    struct rig rig;
    uint64_t session, random;
    struct model_node nodes[NODES_MAX];
    uint32_t count, walked, faults;
    enum reply_type type;
    uint64_t created[8];
    uint32_t created_count;
    bool is_told; /* faults are printed */
    char path[64];
    char error[256];
};

static struct sim sim;

static uint32_t draw(uint32_t below)
{
    sim.random = sim.random * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(sim.random >> 33) % below;
}

static struct model_node *find(uint64_t id)
{
    for (uint32_t i = 0; i < sim.count; i++) {
        if (sim.nodes[i].id == id) {
            return &sim.nodes[i];
        }
    }
    return NULL;
}

static void compare(const struct node_view *view)
{
    const struct model_node *node = find(view->id);

    sim.walked++;
    if (node == NULL || view->parent.node != node->parent.node ||
        view->parent.offset != node->parent.offset || view->ordinal != node->ordinal ||
        view->origin != node->origin || view->is_deleted != node->is_deleted ||
        view->content_count != node->count || view->label.size != strlen(node->label) ||
        (view->label.size > 0 && memcmp(view->label.data, node->label, view->label.size) != 0) ||
        (node->count > 0 && memcmp(view->content, node->content, node->count * 4) != 0)) {
        sim.faults++;
        if (node != NULL && sim.is_told) {
            fprintf(stderr,
                    "node %llu: parent %llu:%u for %llu:%u, ordinal %u for %u, origin %d for %d, "
                    "deleted %d for %d, %u ids for %u\n",
                    (unsigned long long)view->id, (unsigned long long)view->parent.node,
                    view->parent.offset, (unsigned long long)node->parent.node, node->parent.offset,
                    view->ordinal, node->ordinal, (int)view->origin, (int)node->origin,
                    view->is_deleted, node->is_deleted, view->content_count, node->count);
        }
    }
}

static void on_reply(void *context, struct reply_to to, const struct reply *reply, bool more)
{
    (void)context, (void)to, (void)more;
    sim.type = reply->type;
    memcpy(sim.error, reply->error.text, 100);
    if (reply->type == REPLY_PERSONA) {
        sim.session = reply->u.persona.persona.id;
    } else if (reply->type == REPLY_SESSION) {
        sim.session = reply->u.session.session.id;
    } else if (reply->type == REPLY_CREATED) {
        CHECK(reply->u.created.count <= 8);
        sim.created_count = reply->u.created.count;
        for (uint32_t i = 0; i < sim.created_count; i++) {
            sim.created[i] = reply->u.created.nodes[i].id;
        }
    } else if (reply->type == REPLY_WALK) {
        for (uint32_t i = 0; i < reply->u.walk.count; i++) {
            compare(&reply->u.walk.nodes[i]);
        }
    }
}

static void on_follow(void *context, struct reply_to to, const struct follow *follow)
{
    (void)context, (void)to;
    for (uint32_t i = 0; i < follow->node_count; i++) {
        store_node_follow(sim.rig.store, follow->nodes[i]);
    }
}

static void on_progress(void *context, uint64_t node)
{
    (void)context, (void)node;
}

static bool is_awaited(void *context, struct reply_to to)
{
    (void)context, (void)to;
    return true;
}

static void close_store(void)
{
    store_destroy(sim.rig.store);
    fake_engine_destroy(sim.rig.engine);
    journal_close(sim.rig.journal);
}

static void open_store(void)
{
    struct error error = {0};
    struct store_settings settings = {
        .tokenizer = sim.rig.tokenizer,
        .model_hash = sim.rig.model_hash,
        .numerics_id = "test/1",
        .chat_format = "chatml",
        .context_token_count_max = 2048,
        .events = {&sim, on_reply, on_follow, on_progress, is_awaited, NULL},
    };

    sim.rig.engine = fake_engine_create(sim.rig.tokenizer);
    CHECK(journal_open(sim.path, &error, &sim.rig.journal) == STATUS_OK);
    settings.engine = sim.rig.engine;
    settings.journal = sim.rig.journal;
    CHECK(store_create(&settings, &error, &sim.rig.store) == STATUS_OK);
    CHECK(store_load(sim.rig.store, &error) == STATUS_OK);
}

static void execute(struct request request)
{
    struct error error = {0};

    for (int i = 0; store_prepare(sim.rig.store, &request, &error) == STATUS_AGAIN; i++) {
        CHECK(i < 100);
        rig_settle(&sim.rig);
    }
    sim.created_count = 0;
    rig_execute(&sim.rig, request);
    if (sim.type == REPLY_ERROR) {
        fprintf(stderr, "request %d: %.200s\n", (int)request.type, sim.error);
        sim.faults++;
    }
}

static void learn(struct position parent, enum node_origin origin)
{
    for (uint32_t i = 0; i < sim.created_count; i++) {
        struct model_node *node = &sim.nodes[sim.count];
        const struct node_view view = rig_view(&sim.rig, sim.created[i]);

        CHECK(sim.count < NODES_MAX && view.content_count <= CONTENT_MAX);
        *node = (struct model_node){.id = view.id, .parent = parent, .origin = origin};
        for (uint32_t j = 0; j < sim.count; j++) {
            node->ordinal += sim.nodes[j].parent.node == parent.node &&
                             sim.nodes[j].parent.offset == parent.offset;
        }
        node->count = view.content_count;
        memcpy(node->content, view.content, view.content_count * 4);
        sim.count++;
    }
}

static void check_all(void)
{
    struct request walk = rig_request(REQUEST_WALK);
    uint32_t before;

    sim.walked = 0;
    walk.u.walk.session = sim.session;
    walk.u.walk.has_position = true;
    walk.u.walk.what = WALK_SUBTREE;
    walk.u.walk.count = 64;
    walk.u.walk.content = walk.u.walk.deleted = true;
    do {
        before = sim.walked;
        walk.u.walk.skip = before;
        execute(walk);
    } while (sim.walked - before == 64);
    sim.faults += sim.walked != sim.count;
}

static void grow(struct position at)
{
    const uint32_t first = sim.rig.engine->branch_count;
    struct request request;

    if (draw(2) == 0) {
        request = rig_append(sim.session, "and so on, for ever");
        request.u.append.has_position = true;
        request.u.append.position = at;
        execute(request);
        learn(at, ORIGIN_GIVEN);
        return;
    }
    request = rig_generate(sim.session, 1 + draw(3));
    request.u.generate.has_position = true;
    request.u.generate.position = at;
    execute(request);
    for (uint32_t i = first; i < sim.rig.engine->branch_count; i++) {
        fake_engine_emit_text(sim.rig.engine, i, draw(2) == 0 ? "so it went" : "no");
        fake_engine_end(sim.rig.engine, i, FINISH_LENGTH, STATUS_OK);
    }
    rig_settle(&sim.rig);
    learn(at, ORIGIN_SAMPLED);
}

static void operate(void)
{
    struct model_node *node = sim.count > 0 ? &sim.nodes[draw(sim.count)] : NULL;
    const uint32_t what = draw(8);
    struct request request;

    if (node == NULL) {
        grow((struct position){0, 0});
    } else if (what == 0) {
        close_store();
        open_store();
    } else if (what == 1) {
        request = rig_request(REQUEST_LABEL);
        snprintf(node->label, sizeof(node->label), "label %u", draw(100));
        request.u.label.node = node->id;
        request.u.label.label = bytes_of_text(node->label);
        execute(request);
    } else if (what == 2) {
        request = rig_request(node->is_deleted ? REQUEST_UNDELETE : REQUEST_DELETE);
        request.u.nodes.nodes = &node->id;
        request.u.nodes.count = 1;
        node->is_deleted = !node->is_deleted;
        execute(request);
    } else {
        bool is_live = true;

        for (const struct model_node *up = node; up != NULL; up = find(up->parent.node)) {
            is_live = is_live && !up->is_deleted;
        }
        if (is_live) {
            grow((struct position){node->id, draw(node->count + 1)});
        }
    }
}

/* True when the checks found nothing. */
static bool run(uint64_t seed, uint32_t operations, enum plant plant)
{
    struct request request = rig_request(REQUEST_PERSONA_PUT);
    char folder[] = "/tmp/sim_tree_XXXXXX", command[96];

    memset(&sim, 0, sizeof(sim));
    rig_init(&sim.rig, "smollm", "chatml");
    close_store();
    CHECK(mkdtemp(folder) != NULL);
    snprintf(sim.path, sizeof(sim.path), "%s/journal", folder);
    sim.random = seed;
    sim.is_told = plant == PLANT_NONE;
    open_store();
    request.u.persona_put.card =
        bytes_of_text("{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}");
    execute(request);
    request = rig_request(REQUEST_SESSION_OPEN);
    request.u.session_open.persona = sim.session;
    execute(request);
    for (uint32_t i = 0; i < operations && sim.faults == 0; i++) {
        operate();
        if (i == operations / 2 && plant == PLANT_LOST_NODE) {
            sim.count--;
        } else if (i == operations / 2 && plant == PLANT_ORDINAL) {
            sim.nodes[sim.count - 1].ordinal++;
        }
        check_all();
        if (sim.faults > 0 && plant == PLANT_NONE) {
            fprintf(stderr, "seed %llu: fault after operation %u\n", (unsigned long long)seed, i);
        }
    }
    rig_finish(&sim.rig);
    snprintf(command, sizeof(command), "%s-wal", sim.path);
    (void)unlink(command);
    snprintf(command, sizeof(command), "%s-shm", sim.path);
    (void)unlink(command);
    (void)unlink(sim.path);
    (void)rmdir(folder);
    return sim.faults == 0;
}

int main(int argc, char **argv)
{
    log_level_set(LOG_WARN);
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED_COUNT;
    const uint32_t operations = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : OPERATION_COUNT;
    int failures = 0;

    for (uint64_t i = 0; i < count; i++) {
        failures += !run(first + i, operations, PLANT_NONE);
    }
    if (argc == 1) {
        for (enum plant plant = PLANT_LOST_NODE; plant <= PLANT_ORDINAL; plant++) {
            if (run(1, operations, plant)) {
                fprintf(stderr, "planted fault %d was not caught\n", (int)plant);
                failures++;
            }
        }
    }
    return failures == 0 ? 0 : 1;
}
