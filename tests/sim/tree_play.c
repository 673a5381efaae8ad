#include "sim/tree_play.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "schedule/engine_state.h"
#include "sim/tree_playing.h"

struct playing playing;

uint32_t play_draw(uint32_t below)
{
    playing.random = playing.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(playing.random >> 33) % below;
}

void play_tell(const char *format, ...)
{
    va_list arguments;

    if (playing.is_told) {
        va_start(arguments, format);
        (void)vfprintf(stderr, format, arguments);
        va_end(arguments);
    }
}

/* ---- asking ---- */

struct request play_request(enum request_type type)
{
    return (struct request){.type = type, .uid = WORLD_UID};
}

void play_as(struct request *request, int session)
{
    request->uid = playing.model.sessions[session].uid;
}

void play_expect(enum status status)
{
    const enum status got = playing.world.has_error ? playing.world.status : STATUS_OK;

    play_tell(" -> %s\n", status_name(got));
    playing.counts.refusals += got != STATUS_OK;
    if (got != status) {
        world_fail(&playing.world, "the answer is %s (%.120s), it should be %s", status_name(got),
                   playing.world.has_error ? playing.world.error_text : "", status_name(status));
    }
}

void play_restart(enum tree_kind kind)
{
    if (kind == TREE_STOP) {
        playing.counts.stops++;
        world_stop(&playing.world);
    } else if (kind == TREE_KILL) {
        playing.counts.kills++;
        world_kill(&playing.world);
    } else {
        playing.counts.power_cuts++;
        world_cut_power(&playing.world, playing.random);
    }
    check_restarted(&playing.model);
    world_start(&playing.world);
}

/* The daemon dies some steps after it was asked. */
static void die_under(struct request *request, enum tree_kind kind)
{
    const uint32_t steps = play_draw(12);

    world_begin(&playing.world, request);
    for (uint32_t i = 0; i < steps; i++) {
        world_step(&playing.world);
    }
    play_tell(", %s after %u steps", kind == TREE_KILL ? "killed" : "without power", steps);
    playing.counts.repeats++;
    play_restart(kind);
}

/* The disk fails under it; if it was answered all the same, what it made is there. */
static void ask_on_failing_disk(struct request *request)
{
    uint64_t made[WORLD_NODE_COUNT_MAX];
    const uint32_t after = play_draw(24);
    uint32_t count;

    world_fail_disk(&playing.world, after, play_draw(2) == 0);
    world_ask(&playing.world, request);
    count = playing.world.has_error ? 0 : playing.world.created_count;
    memcpy(made, playing.world.created, count * sizeof(*made));
    play_tell(", on a disk that fails after %u operations (%s)", after,
              playing.world.has_error ? status_name(playing.world.status) : "OK");
    playing.counts.disk_faults++;
    play_restart(TREE_KILL);
    if (playing.world.problem[0] == '\0') {
        world_ask(&playing.world, request);
    }
    if (count > 0 && (playing.world.created_count != count ||
                      memcmp(made, playing.world.created, count * sizeof(*made)) != 0)) {
        world_fail(&playing.world, "what was answered before the disk failed is another thing now");
    }
}

/* True when it went through though an allocation was to fail; else it was refused for that, and
 * nothing has happened. */
static bool goes_without_memory(const struct request *request)
{
    const struct reply_to to = {1, 1};
    struct error error = {0};

    if (store_prepare(playing.world.store, request, &error) != STATUS_OK) {
        return false;
    }
    playing.world.has_error = playing.world.is_answered = false;
    memory_fault_set(play_draw(60));
    store_execute(playing.world.store, request, to);
    memory_fault_set(-1);
    if (playing.world.has_error && playing.world.status == STATUS_MEMORY) {
        playing.counts.memory_faults++;
        return false;
    }
    world_wait(&playing.world, request);
    return true;
}

void play_ask(struct request *request, bool may_die)
{
    const uint32_t fate = play_draw(24);

    if (play_draw(2) == 0 || may_die) {
        (void)snprintf(playing.key_text, sizeof(playing.key_text), "key %u", ++playing.key);
        request->client_key = bytes_of_text(playing.key_text);
    }
    playing.world.is_following = play_draw(4) > 0;
    if (may_die && fate == 0) {
        ask_on_failing_disk(request);
        return;
    }
    if (may_die && fate < 4) {
        die_under(request, fate == 1 ? TREE_POWER : TREE_KILL);
    }
    if (playing.world.problem[0] == '\0' &&
        !(fate >= 4 && fate < 6 && goes_without_memory(request))) {
        world_ask(&playing.world, request);
    }
}

/* ---- picking ---- */

int play_pick_session(void)
{
    return playing.model.session_count == 0 ? -1
                                            : (int)play_draw((uint32_t)playing.model.session_count);
}

int play_pick_node(void)
{
    return playing.model.count == 0 ? MODEL_ROOT : (int)play_draw((uint32_t)playing.model.count);
}

struct model_place play_pick_place(void)
{
    struct model_place place = {.session = play_pick_session(), .node = MODEL_ROOT};
    const int count = playing.model.count;

    if (count > 0 && play_draw(10) > 0) {
        place.node = play_draw(2) == 0
                         ? play_pick_node()
                         : count - 1 - (int)play_draw(count < 12 ? (uint32_t)count : 12);
        place.session = playing.model.nodes[place.node].session;
    }
    return place;
}

void play_look_at(struct model_place *place)
{
    check_session(&playing.world, &playing.model, place->session);
    if (place->node != MODEL_ROOT) {
        const struct model_node *node = &playing.model.nodes[place->node];

        place->offset = play_draw(3) == 0 ? node->seen : play_draw(node->seen + 1);
    }
}

uint32_t play_draw_speaker(struct model_place place)
{
    return play_draw(playing.model.sessions[place.session].speaker_count);
}

struct position play_position(struct model_place place)
{
    const struct tree_model *model = &playing.model;
    const bool is_end = place.node != MODEL_ROOT && place.offset == model->nodes[place.node].seen &&
                        model->nodes[place.node].has_ended;

    return (struct position){place.node == MODEL_ROOT ? 0 : model->nodes[place.node].id,
                             is_end && place.offset % 2 == 0 ? OFFSET_END : place.offset};
}

enum status play_check_place(struct model_place place)
{
    const struct tree_model *model = &playing.model;

    if (model->sessions[place.session].is_deleted || model->sessions[place.session].is_purged ||
        (place.node != MODEL_ROOT && (model->nodes[place.node].is_purged ||
                                      model_hidden_by(model, place.node) != MODEL_ROOT))) {
        return STATUS_NOT_FOUND;
    }
    return STATUS_OK;
}

enum status play_check_turn(struct model_place place, bool continues, uint32_t *speaker)
{
    const enum status refused = play_check_place(place);

    if (continues && place.node != MODEL_ROOT) {
        *speaker = playing.model.nodes[place.node].speaker;
    } else if (continues && refused == STATUS_OK) {
        return STATUS_CONFLICT;
    }
    return refused;
}

bool play_has_ended(struct model_place place)
{
    return place.node == MODEL_ROOT || playing.model.nodes[place.node].has_ended;
}

/* ---- the rest ---- */

static void verify(void)
{
    struct request request = play_request(REQUEST_VERIFY);
    const int at = play_pick_session();

    play_as(&request, at);
    request.u.verify.session = playing.model.sessions[at].id;
    play_tell("verify session %llu", (unsigned long long)request.u.verify.session);
    world_ask(&playing.world, &request);
    play_expect(playing.model.sessions[at].is_deleted ? STATUS_NOT_FOUND : STATUS_OK);
    if (!playing.world.has_error && playing.world.differing_count > 0) {
        world_fail(&playing.world, "%u nodes are not what they are when computed again",
                   playing.world.differing_count);
    }
}

/* What could come next, by the definition of the fake model. */
static void look(void)
{
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_DISTRIBUTION);
    struct model_reply reply = {.speaker = play_draw_speaker(place), .max_tokens = 1};
    const uint32_t tokens[2] = {play_draw(12), play_draw(12)};
    const struct model_context *context;
    enum status refused;

    reply.opens_turn = play_draw(3) > 0;
    play_look_at(&place);
    refused = play_check_turn(place, !reply.opens_turn, &reply.speaker);
    reply.place = place;
    play_as(&request, place.session);
    request.u.distribution.place.session = playing.model.sessions[place.session].id;
    request.u.distribution.place.has_position = true;
    request.u.distribution.place.position = play_position(place);
    request.u.distribution.place.continuing = !reply.opens_turn;
    request.u.distribution.place.has_speaker = reply.opens_turn;
    request.u.distribution.place.speaker = reply.speaker;
    request.u.distribution.tokens = tokens;
    request.u.distribution.token_count = 2;
    play_tell("look at (%llu, %u) in session %llu by speaker %u%s",
              (unsigned long long)request.u.distribution.place.position.node, place.offset,
              (unsigned long long)request.u.distribution.place.session, reply.speaker,
              reply.opens_turn ? "" : ", continuing");
    context = refused == STATUS_OK ? model_context(&playing.model, &reply) : NULL;
    if (context != NULL && context->count == 0) {
        refused = STATUS_LIMIT;
    }
    world_ask(&playing.world, &request);
    play_expect(refused);
    for (uint32_t i = 0; i < 2 && refused == STATUS_OK; i++) {
        float logprob, entropy;

        model_look(&playing.model, context->ids, context->count, tokens[i], &logprob, &entropy);
        if (memcmp(&playing.world.logprobs[i], &logprob, sizeof(logprob)) != 0 ||
            memcmp(&playing.world.entropy, &entropy, sizeof(entropy)) != 0) {
            world_fail(&playing.world, "a distribution is not what it must be");
        }
    }
}

static void wait(void)
{
    const uint32_t steps = play_draw(play_draw(4) == 0 ? 200 : 30);

    play_tell("%u steps\n", steps);
    if (play_draw(6) == 0) {
        play_tell("    and two minutes\n"); /* who is not followed is parked */
        playing.world.now_ns += UINT64_C(120000000000);
    }
    if (play_draw(6) == 0) {
        world_unfollow(&playing.world);
    }
    for (uint32_t i = 0; i < steps; i++) {
        world_step(&playing.world);
    }
    if (play_draw(8) == 0) {
        world_settle(&playing.world);
    }
}

static void play(const struct tree_op *op)
{
    static void (*const simple[])(void) = {
        [TREE_OPEN] = session_open,  [TREE_APPEND] = make_append,
        [TREE_SAY] = make_say,       [TREE_GENERATE] = make_generate,
        [TREE_EDIT] = make_edit,     [TREE_CANCEL] = change_cancel,
        [TREE_HEAD] = change_head,   [TREE_BOOKMARK] = change_bookmark,
        [TREE_LABEL] = change_label, [TREE_SESSION] = session_change,
        [TREE_VERIFY] = verify,      [TREE_WAIT] = wait,
        [TREE_LOOK] = look,          [TREE_JOIN] = session_join,
        [TREE_NOTE] = change_note,   [TREE_EXPAND] = make_expansion,
        [TREE_COPY] = make_copy,     [TREE_POWER] = NULL,
    };

    playing.random = op->seed;
    if (playing.model.session_count == 0 || playing.model.count + 16 > MODEL_NODE_COUNT) {
        session_open();
    } else if (simple[op->kind] != NULL) {
        simple[op->kind]();
    } else if (op->kind >= TREE_DELETE && op->kind <= TREE_PURGE) {
        change_mark(op->kind);
    } else if (op->kind == TREE_DEVICE) {
        play_tell("the device will fail\n");
        world_fail_device(&playing.world);
    } else if (op->kind == TREE_EVICT) {
        play_tell("drop the KV tree\n");
        while (kv_tree_evict(playing.world.engine->tree)) {
        }
    } else {
        play_tell("%s\n", op->kind == TREE_STOP   ? "stop"
                          : op->kind == TREE_KILL ? "kill"
                                                  : "cut the power");
        play_restart(op->kind);
    }
}

void tree_play_draw(uint64_t seed, struct tree_op *out, uint32_t count)
{
    static const uint8_t weights[TREE_KIND_COUNT] = {
        [TREE_OPEN] = 2,    [TREE_APPEND] = 8, [TREE_SAY] = 10,     [TREE_GENERATE] = 16,
        [TREE_EDIT] = 6,    [TREE_CANCEL] = 6, [TREE_HEAD] = 4,     [TREE_BOOKMARK] = 4,
        [TREE_LABEL] = 3,   [TREE_DELETE] = 5, [TREE_UNDELETE] = 4, [TREE_PURGE] = 3,
        [TREE_SESSION] = 3, [TREE_VERIFY] = 1, [TREE_EVICT] = 2,    [TREE_WAIT] = 16,
        [TREE_STOP] = 2,    [TREE_KILL] = 2,   [TREE_POWER] = 2,    [TREE_LOOK] = 4,
        [TREE_JOIN] = 3,    [TREE_DEVICE] = 1, [TREE_NOTE] = 5,     [TREE_EXPAND] = 3,
        [TREE_COPY] = 3,
    };
    uint32_t sum = 0;

    for (uint32_t k = 0; k < TREE_KIND_COUNT; k++) {
        sum += weights[k];
    }
    playing.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 12345;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = play_draw(sum), kind = 0;

        for (; at >= weights[kind]; kind++) {
            at -= weights[kind];
        }
        out[i].kind = (enum tree_kind)kind;
        out[i].seed = (uint64_t)play_draw(1U << 31) << 31 | play_draw(1U << 31);
    }
}

/* The second user lacks some: she gets them with what she imports. */
static void put_personas(void)
{
    for (uint32_t i = 0; i < USER_COUNT * CAST_CARD_COUNT; i++) {
        const uint32_t user = i % USER_COUNT, card = i / USER_COUNT;
        struct request request = play_request(REQUEST_PERSONA_PUT);

        if (user > 0 && card % 2 == 0) {
            continue;
        }
        request.uid = WORLD_UID + user;
        request.u.persona_put.card = bytes_of_text(cast_cards[card].json);
        world_ask(&playing.world, &request);
        CHECK(!playing.world.has_error);
        playing.personas[user][card] = playing.world.id;
    }
}

void play_all(const struct tree_op *ops, uint32_t count, struct tree_progress *progress)
{
    struct tree_world *world = &playing.world;

    for (uint32_t i = 0; i < count && world->problem[0] == '\0'; i++) {
        progress->at = i;
        playing.counts.operations++;
        play(&ops[i]);
        if (i % 16 == 15 && world->problem[0] == '\0') {
            check_all(world, &playing.model);
        }
    }
    if (world->problem[0] == '\0') {
        world_settle(world);
        check_all(world, &playing.model);
    }
    if (world->problem[0] == '\0') {
        play_restart(TREE_STOP);
        check_all(world, &playing.model);
    }
    for (int i = 0; i < playing.model.count && world->problem[0] == '\0'; i++) {
        if (!playing.model.nodes[i].has_ended &&
            !playing.model.sessions[playing.model.nodes[i].session].is_deleted) {
            world_fail(world, "node %llu has no end",
                       (unsigned long long)playing.model.nodes[i].id);
        }
    }
}

static void count_nodes(struct tree_counts *counts)
{
    for (int i = 0; i < playing.model.count; i++) {
        const struct model_node *node = &playing.model.nodes[i];

        counts->nodes++;
        counts->sampled_tokens += node->sampled_count;
        counts->cuts += node->finish == NODE_CUT;
        counts->purged += node->is_purged;
        counts->slid += node->first_turn > 0;
        counts->interrupted += node->finish == NODE_INTERRUPTED;
    }
    for (int i = 0; i < playing.model.session_count; i++) {
        counts->crowds += playing.model.sessions[i].speaker_count > 2;
    }
    counts->preemptions = playing.world.preemption_count;
    counts->device_restarts = playing.world.device_restart_count;
    counts->context_tokens = playing.world.context_count;
    counts->context_cached = playing.world.context_cached_count;
}

void play_open(uint64_t seed)
{
    memset(&playing, 0, sizeof(playing));
    world_open(&playing.world, seed);
    model_init(&playing.model, playing.world.tokenizer);
    playing.model.fake = playing.world.definition;
    world_start(&playing.world);
    put_personas();
}

void tree_play(uint64_t seed, const struct tree_op *ops, uint32_t count, bool is_told,
               struct tree_progress *progress)
{
    const int64_t before = memory_live_count();

    play_open(seed);
    playing.is_told = is_told;
    play_all(ops, count, progress);
    if (playing.world.store != NULL) {
        world_kill(&playing.world);
    }
    model_finish(&playing.model);
    world_close(&playing.world);
    if (memory_live_count() != before) {
        world_fail(&playing.world, "%lld blocks of memory were not returned",
                   (long long)(memory_live_count() - before));
    }
    count_nodes(&playing.counts);
    memcpy(progress->problem, playing.world.problem, sizeof(progress->problem));
    progress->counts = playing.counts;
}
