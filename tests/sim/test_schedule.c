/* Goal: whatever is submitted, cancelled, forked, doubled, preempted, evicted, parked or forgotten,
 * in any order and in any company, each node gets the bytes that it gets alone, nobody finds KV of
 * another lineage, no page is lost, and whatever is drafted changes nothing of it.
 * Method: seeded runs over the fake backend with a small pool and tiny alphabets, so that sharing,
 * forks in the middle of pages and preemption happen all the time; each node is run alone first
 * and compared by memcmp; drafts come from what it gave there, with some tokens changed; pool and
 * tree are counted anew after each step. Four planted faults (a value that depends on the batch, a
 * page that is given away too early, a scope that is not one's own, drafts that are kept though
 * another token was drawn) must be caught by the same checks.
 * Usage: sim_test_schedule [first seed [count]]; a failure prints its seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "schedule/engine_state.h"
#include "support/engine_rig.h"

enum {
    SEED_COUNT = 300,
    PLANT_SEED_COUNT = 60,
    NODE_COUNT_MAX_SIM = 48,
    CONTEXT_MAX = 160,
    PERSONA_COUNT = 3,
    STUCK_STEP_COUNT = 20000,
    KEPT_COUNT = 12, /* branches of a sim whose backend keeps wrong drafts */
};

enum plant { PLANT_NONE, PLANT_BATCH, PLANT_EARLY_REUSE, PLANT_WRONG_SCOPE, PLANT_KEPT_DRAFTS };

/* What the simulator knows of a node: the request with its true scopes, and its ids for ever. */
struct sim_node {
    struct engine_rig_request request;
    uint32_t ids[CONTEXT_MAX];
    uint32_t branch;            /* in the rig */
    uint32_t truth;             /* what it gives alone: in sim.alone */
    uint32_t text[CONTEXT_MAX]; /* where drafts may come from: more or less the truth */
    struct branch_run text_run;
    bool is_parked;
};

struct sim {
    struct engine_rig rig;
    struct engine_rig alone; /* one node after the other, nothing shared, nothing drafted */
    struct sim_node *nodes;
    uint32_t node_count;
    uint32_t session_count;
    uint64_t group;
    uint64_t random;
    enum plant plant;
    uint32_t prompts[PERSONA_COUNT][64];
    uint32_t prompt_counts[PERSONA_COUNT];
    bool releases_scopes;
};

static uint32_t draw(struct sim *sim, uint32_t bound)
{
    sim->random ^= sim->random << 13;
    sim->random ^= sim->random >> 7;
    sim->random ^= sim->random << 17;
    return (uint32_t)((sim->random >> 16) % bound);
}

/* A step that answers as if every draft had been drawn. */
static enum status keep_drafts(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    static struct sample_result kept[KEPT_COUNT];
    const enum status status = fake_ops()->step_wait(backend, ticket, out);

    if (status == STATUS_OK) {
        memcpy(kept, out->samples, sizeof(kept));
        for (uint32_t i = 0; i < KEPT_COUNT; i++) {
            kept[i].flags &= ~(uint32_t)SAMPLE_FLAG_DROPPED;
        }
        out->samples = kept;
    }
    return status;
}

static void sim_open(struct sim *sim, uint64_t seed, enum plant plant)
{
    static struct backend_ops ops;
    struct engine_rig_settings settings = engine_rig_defaults();

    memset(sim, 0, sizeof(*sim));
    sim->random = seed * 0x9e3779b97f4a7c15u + 0x1234567;
    sim->plant = plant;
    for (int i = 0; i < 8; i++) {
        draw(sim, 2);
    }
    settings.context_token_count_max = CONTEXT_MAX;
    settings.page_count = 10 + draw(sim, 30);
    settings.running_count_max = 1 + draw(sim, 12);
    settings.row_count_max = settings.running_count_max + draw(sim, 40);
    settings.step_slot_count = plant == PLANT_EARLY_REUSE ? 2 : 1 + draw(sim, 2);
    if (plant == PLANT_BATCH && settings.running_count_max == 1) {
        settings.running_count_max = 4;
        settings.row_count_max += 4;
    }
    sim->releases_scopes = draw(sim, 2) == 0;
    sim->nodes = memory_alloc(NODE_COUNT_MAX_SIM, sizeof(*sim->nodes));
    CHECK(sim->nodes != NULL);
    for (uint32_t p = 0; p < PERSONA_COUNT; p++) {
        sim->prompt_counts[p] = draw(sim, 50);
        for (uint32_t i = 0; i < sim->prompt_counts[p]; i++) {
            sim->prompts[p][i] = RIG_TOKEN_A + draw(sim, 2);
        }
    }
    settings.speculates = plant == PLANT_KEPT_DRAFTS || draw(sim, 3) > 0;
    ops = *fake_ops();
    if (plant == PLANT_KEPT_DRAFTS) {
        settings.running_count_max = KEPT_COUNT;
        settings.row_count_max = 2 * KEPT_COUNT;
        settings.step_slot_count = 1;
        ops.step_wait = keep_drafts;
    }
    engine_rig_open_changed(&sim->rig, &settings, &ops, NODE_COUNT_MAX_SIM);
    settings = engine_rig_defaults();
    settings.context_token_count_max = CONTEXT_MAX;
    engine_rig_open(&sim->alone, &settings, NODE_COUNT_MAX_SIM);
    fake_behaviour(sim->rig.fake)->depends_on_batch = plant == PLANT_BATCH;
}

static void sim_close(struct sim *sim)
{
    engine_rig_close(&sim->rig);
    engine_rig_close(&sim->alone);
    memory_free(sim->nodes);
}

/* ---- what happens ---- */

static struct engine_rig_branch *branch_of(struct sim *sim, const struct sim_node *node)
{
    return &sim->rig.branches[node->branch];
}

static void find_truth(struct sim *sim, struct sim_node *node)
{
    struct engine_rig_request request = node->request;

    request.group = 0;
    request.session_scope = 0;
    request.prompt_scope = 0;
    request.text_count = 0;
    node->truth = engine_rig_submit(&sim->alone, &request, NULL);
    CHECK(engine_rig_run(&sim->alone, STUCK_STEP_COUNT));
}

/* A text that the reply follows for a while, so that drafts are right and wrong. */
static void make_text(struct sim *sim, struct sim_node *node)
{
    const struct engine_rig_branch *truth = &sim->alone.branches[node->truth];

    node->text_run = (struct branch_run){.ids = node->text, .count = truth->event.sampled_count};
    for (uint32_t i = 0; i < node->text_run.count; i++) {
        const bool is_right = draw(sim, 10) > 0;
        node->text[i] = is_right ? truth->output.tokens[i] : draw(sim, RIG_TOKEN_COUNT);
    }
    node->request.texts = &node->text_run;
    node->request.text_count = draw(sim, 4) > 0;
}

static void submit(struct sim *sim, struct sim_node *node)
{
    struct engine_rig_request request;

    node->request.ids = node->ids;
    find_truth(sim, node);
    make_text(sim, node);
    request = node->request;
    if (sim->plant == PLANT_WRONG_SCOPE && request.session_scope != 0) {
        request.session_scope = 1000;
        request.prompt_scope = request.prompt_scope != 0 ? 1 : 0;
    }
    node->branch = engine_rig_submit(&sim->rig, &request, NULL);
    CHECK(node->branch != UINT32_MAX);
    sim->node_count++;
}

static void add_tokens(struct sim *sim, struct sim_node *node, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        node->ids[node->request.count++] = RIG_TOKEN_A + draw(sim, 2);
    }
}

/* How it is sampled: of no influence on what may be shared. */
static void add_wishes(struct sim *sim, struct sim_node *node)
{
    static const char *const cues[] = {NULL, "ab", "\na", "ca", "User:"};
    struct engine_rig_request *request = &node->request;

    request->seed = draw(sim, 4);
    request->cue = cues[draw(sim, 5)];
    request->max_tokens = 1 + draw(sim, 40);
    if (request->count + request->max_tokens > CONTEXT_MAX) {
        request->max_tokens = CONTEXT_MAX - request->count;
    }
    request->ignore_end = draw(sim, 2) == 0;
    request->priority = draw(sim, 4) == 0 ? BRANCH_BATCH : BRANCH_INTERACTIVE;
    request->frame_first = draw(sim, request->count);
    request->frame_count = draw(sim, 6);
    request->top_count = draw(sim, 3);
}

/* Submits the node, maybe with siblings of one group. */
static void start(struct sim *sim, struct sim_node *node)
{
    uint32_t sibling_count = draw(sim, 3) == 0 ? draw(sim, 4) : 0;

    add_wishes(sim, node);
    node->request.group = sibling_count > 0 ? ++sim->group : 0;
    submit(sim, node);
    while (sibling_count > 0 && sim->node_count < NODE_COUNT_MAX_SIM) {
        struct sim_node *sibling = &sim->nodes[sim->node_count];
        *sibling = *node;
        sibling->request.seed = draw(sim, 4);
        submit(sim, sibling);
        sibling_count--;
    }
}

static void start_session(struct sim *sim)
{
    struct sim_node *node = &sim->nodes[sim->node_count];
    struct engine_rig_request *request = &node->request;
    const uint32_t persona = draw(sim, PERSONA_COUNT);

    memset(node, 0, sizeof(*node));
    request->prompt_count = sim->prompt_counts[persona];
    request->prompt_scope = persona; /* the first persona's prompt is shared with nobody */
    request->session = ++sim->session_count;
    request->session_scope = draw(sim, 8) == 0 ? 0 : 100 + request->session;
    request->user = draw(sim, 3);
    request->count = request->prompt_count;
    memcpy(node->ids, sim->prompts[persona], request->count * sizeof(uint32_t));
    add_tokens(sim, node, 1 + draw(sim, 20));
    start(sim, node);
}

/* A child of any node, also of one that is being generated, at any released position. */
static void start_fork(struct sim *sim)
{
    const struct sim_node *parent = &sim->nodes[draw(sim, sim->node_count)];
    const struct engine_rig_branch *branch = branch_of(sim, parent);
    struct sim_node *node = &sim->nodes[sim->node_count];
    const uint32_t offset = draw(sim, branch->event.released_count + 1);

    if (parent->request.count + offset + 12 + 2 > CONTEXT_MAX) {
        return;
    }
    *node = *parent;
    memcpy(&node->ids[node->request.count], branch->output.tokens, offset * sizeof(uint32_t));
    node->request.count += offset;
    add_tokens(sim, node, draw(sim, 12));
    node->is_parked = false;
    start(sim, node);
}

static void disturb(struct sim *sim)
{
    struct sim_node *node = &sim->nodes[draw(sim, sim->node_count)];
    const struct engine_rig_branch *branch = branch_of(sim, node);

    switch (draw(sim, 6)) {
    case 0:
        if (!branch->has_ended) {
            CHECK(engine_cancel(sim->rig.engine, branch->slot) == STATUS_OK);
        }
        break;
    case 1:
    case 2:
        if (!branch->has_ended) {
            node->is_parked = !node->is_parked;
            CHECK(engine_park(sim->rig.engine, branch->slot, node->is_parked) == STATUS_OK);
        }
        break;
    case 3:
        if (sim->releases_scopes) {
            const uint64_t scope =
                draw(sim, 4) == 0 ? 1 + draw(sim, 2) : 100 + draw(sim, sim->session_count) + 1;
            CHECK(engine_release_scope(sim->rig.engine, scope) == STATUS_OK);
        }
        break;
    default:
        fake_behaviour(sim->rig.fake)->row_ns = 1 + (uint64_t)draw(sim, 20) * 500000;
        fake_behaviour(sim->rig.fake)->base_ns = (uint64_t)draw(sim, 3) * 5000000;
        break;
    }
}

static void step(struct sim *sim)
{
    struct engine *engine = sim->rig.engine;

    if (sim->plant == PLANT_EARLY_REUSE) {
        /* As if all that was submitted had ended. */
        kv_pages_complete(engine->pages, engine->step_number);
    }
    (void)engine_rig_step(&sim->rig);
    kv_pages_check(engine->pages);
    kv_tree_check(engine->tree);
}

/* ---- what must hold ---- */

/* Positions that `node` may have found in what `other` left. */
static uint32_t lineage_count(struct sim *sim, const struct sim_node *node,
                              const struct sim_node *other)
{
    const struct engine_rig_request *a = &node->request;
    const struct engine_rig_request *b = &other->request;
    const struct engine_rig_branch *branch = branch_of(sim, other);
    uint32_t bound = a->count;
    uint32_t shared = 0;

    if (a->session_scope == 0 || a->session_scope != b->session_scope ||
        (a->prompt_scope == 0 && a->prompt_count > 0)) {
        bound = a->prompt_scope != 0 && a->prompt_scope == b->prompt_scope ? a->prompt_count : 0;
    }
    while (shared < bound && shared < b->count + branch->event.sampled_count &&
           a->ids[shared] ==
               (shared < b->count ? b->ids[shared] : branch->output.tokens[shared - b->count])) {
        shared++;
    }
    return shared;
}

static const char *check_lineage(struct sim *sim, const struct sim_node *node)
{
    uint32_t allowed = 0;

    for (uint32_t i = 0; i < sim->node_count; i++) {
        if (&sim->nodes[i] != node) {
            const uint32_t count = lineage_count(sim, node, &sim->nodes[i]);
            allowed = count > allowed ? count : allowed;
        }
        if (node->request.group != 0 && sim->nodes[i].request.group == node->request.group) {
            allowed = node->request.count; /* siblings of one request */
        }
    }
    return branch_of(sim, node)->event.context_cached_count <= allowed
               ? NULL
               : "KV of another lineage was found";
}

static const char *check_nodes(struct sim *sim)
{
    const char *problem = NULL;

    for (uint32_t i = 0; i < sim->node_count && problem == NULL; i++) {
        const struct engine_rig_branch *branch = branch_of(sim, &sim->nodes[i]);
        const struct engine_rig_branch *truth = &sim->alone.branches[sim->nodes[i].truth];
        if (branch->event.finish == FINISH_CANCELLED) {
            if (!engine_rig_leads(branch, truth)) {
                problem = "a cancelled node differs from the same node alone";
            }
        } else if (!engine_rig_equal(branch, truth)) {
            problem = "a node differs from the same node alone";
        }
        if (problem == NULL) {
            problem = check_lineage(sim, &sim->nodes[i]);
        }
    }
    return problem;
}

static const char *check_pool(struct sim *sim)
{
    const struct kv_pages_counts counts = kv_pages_counts(sim->rig.engine->pages);

    if (counts.held_count != 0 || counts.limbo_count != 0) {
        return "a page is held though nobody is left";
    }
    while (kv_tree_evict(sim->rig.engine->tree)) {
    }
    if (kv_pages_counts(sim->rig.engine->pages).free_count != counts.page_count ||
        kv_tree_node_count(sim->rig.engine->tree) != 0) {
        return "a page or node is lost";
    }
    return NULL;
}

/* Lets everything end, unparked. */
static bool run_out(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->node_count; i++) {
        const struct engine_rig_branch *branch = branch_of(sim, &sim->nodes[i]);
        if (!branch->has_ended && sim->nodes[i].is_parked) {
            CHECK(engine_park(sim->rig.engine, branch->slot, false) == STATUS_OK);
        }
    }
    for (uint32_t i = 0; i < STUCK_STEP_COUNT && sim->rig.alive_count > 0; i++) {
        step(sim);
    }
    /* Steps still on their way hold nothing that anybody reads. */
    for (int i = 0; i < 3; i++) {
        step(sim);
    }
    return sim->rig.alive_count == 0;
}

/* NULL, or what was wrong. */
static const char *run(uint64_t seed, enum plant plant, struct engine_stats *stats)
{
    const char *problem;
    struct sim sim;

    sim_open(&sim, seed, plant);
    start_session(&sim);
    while (sim.node_count < NODE_COUNT_MAX_SIM - 8) {
        const uint32_t what = draw(&sim, 10);
        if (what == 0) {
            start_session(&sim);
        } else if (what < 3) {
            start_fork(&sim);
        } else if (what < 5) {
            disturb(&sim);
        } else {
            step(&sim);
        }
    }
    problem = run_out(&sim) ? NULL : "a branch never ends";
    if (problem == NULL) {
        problem = check_nodes(&sim);
    }
    if (problem == NULL) {
        problem = check_pool(&sim);
    }
    engine_stats(sim.rig.engine, stats);
    sim_close(&sim);
    return problem;
}

static int run_seeds(uint64_t first, uint64_t count)
{
    struct engine_stats sum = {0};

    for (uint64_t seed = first; seed < first + count; seed++) {
        struct engine_stats stats = {0};
        const char *problem = run(seed, PLANT_NONE, &stats);
        if (problem != NULL) {
            fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, problem);
            return 1;
        }
        sum.step_count += stats.step_count;
        sum.preemption_count += stats.preemption_count;
        sum.cancelled_count += stats.cancelled_count;
        sum.context_token_count += stats.context_token_count;
        sum.context_cached_count += stats.context_cached_count;
        sum.drafted_count += stats.drafted_count;
        sum.accepted_count += stats.accepted_count;
    }
    printf("%llu seeds from %llu: %llu steps, %llu preemptions, %llu cancelled, %llu of %llu "
           "context tokens shared, %llu of %llu drafts drawn\n",
           (unsigned long long)count, (unsigned long long)first, (unsigned long long)sum.step_count,
           (unsigned long long)sum.preemption_count, (unsigned long long)sum.cancelled_count,
           (unsigned long long)sum.context_cached_count,
           (unsigned long long)sum.context_token_count, (unsigned long long)sum.accepted_count,
           (unsigned long long)sum.drafted_count);
    /* A simulation in which nothing happened has shown nothing. */
    return count >= SEED_COUNT &&
           (sum.preemption_count < count || sum.cancelled_count < count ||
            sum.context_cached_count * 4 < sum.context_token_count ||
            sum.accepted_count < 10 * count || sum.drafted_count - sum.accepted_count < count);
}

/* The planted fault must be noticed in some run. */
static int run_planted(enum plant plant, const char *name)
{
    uint32_t caught = 0;

    for (uint64_t seed = 1; seed <= PLANT_SEED_COUNT; seed++) {
        struct engine_stats stats;
        caught += run(seed, plant, &stats) != NULL;
    }
    printf("planted %s: noticed in %u of %u runs\n", name, caught, (unsigned)PLANT_SEED_COUNT);
    return caught == 0;
}

int main(int argc, char **argv)
{
    const uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED_COUNT;
    int failures = run_seeds(first, count);

    if (argc == 1) {
        failures += run_planted(PLANT_BATCH, "value that depends on the batch");
        failures += run_planted(PLANT_EARLY_REUSE, "page that is given away too early");
        failures += run_planted(PLANT_WRONG_SCOPE, "scope of another");
        failures += run_planted(PLANT_KEPT_DRAFTS, "drafts that were not drawn");
    }
    return failures == 0 ? 0 : 1;
}
