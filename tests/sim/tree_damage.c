#include "sim/tree_damage.h"

#include <string.h>

#include "base/check.h"
#include "sim/tree_playing.h"
#include "unit/journal/damage.h"

enum { TURN_COUNT_MAX = 50000, ASKED_NODE_COUNT_MAX = 12 };

static struct tree_damage *exploring;

/* Reads every byte that a view shows, so that a sanitizer sees what is not there. */
static void touch(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        exploring->touched += ((const uint8_t *)bytes)[i];
    }
}

static void look_at_nodes(void *context, const struct reply *reply)
{
    (void)context;
    for (uint32_t i = 0; reply->type == REPLY_WALK && i < reply->u.walk.count; i++) {
        const struct node_view *view = &reply->u.walk.nodes[i];

        touch(view->content, view->content_count * sizeof(uint32_t));
        touch(view->text, view->text_bytes);
        touch(view->label.data, view->label.size);
        touch(view->sampled, view->sampled_count * sizeof(uint32_t));
        touch(view->logprobs, view->sampled_count * sizeof(float));
        touch(view->text_ends, view->sampled_count * sizeof(uint32_t));
    }
    for (uint32_t i = 0; reply->type == REPLY_CONTEXT && i < reply->u.context.count; i++) {
        const struct segment_view *segment = &reply->u.context.segments[i];

        touch(segment->ids, segment->ids != NULL ? segment->count * sizeof(uint32_t) : 0);
        touch(segment->text.data, segment->text.size);
    }
}

/* Errors are as good as answers; only silence is not. */
static bool ask(struct request request)
{
    struct tree_world *world = &playing.world;
    struct error error = {0};
    enum status status = store_prepare(world->store, &request, &error);

    for (int i = 0; status == STATUS_AGAIN && i < TURN_COUNT_MAX; i++) {
        world_step(world);
        status = store_prepare(world->store, &request, &error);
    }
    world->is_answered = world->has_error = false;
    if (status == STATUS_OK) {
        store_execute(world->store, &request, (struct reply_to){1, 1});
        for (int i = 0; !world->is_answered && i < TURN_COUNT_MAX; i++) {
            world_step(world);
        }
    }
    if (status == STATUS_AGAIN || (status == STATUS_OK && !world->is_answered)) {
        world_fail(world, "request %d is never answered", (int)request.type);
    }
    exploring->answers += status == STATUS_OK && !world->has_error;
    exploring->errors += status != STATUS_OK || world->has_error;
    return status == STATUS_OK && !world->has_error;
}

/* ---- one node, one session ---- */

static void ask_about_node(const struct model_node *node)
{
    struct request request = play_request(REQUEST_CONTEXT);
    const uint64_t session = playing.model.sessions[node->session].id;
    static const enum request_type marks[] = {REQUEST_DELETE, REQUEST_UNDELETE};

    request.u.context =
        (struct request_context){.node = node->id, .tokens = true, .text = true, .count = 100};
    (void)ask(request);
    request = play_request(REQUEST_GENERATE);
    request.u.generate.session = session;
    request.u.generate.has_position = true;
    request.u.generate.position = (struct position){node->id, OFFSET_END};
    request.u.generate.continuing = node->id % 2 == 0;
    request.u.generate.generation.n = 1;
    request.u.generate.generation.sampler.has_max_tokens = true;
    request.u.generate.generation.sampler.max_tokens = 3;
    (void)ask(request);
    request = play_request(REQUEST_EDIT);
    request.u.edit = (struct request_edit){
        .node = node->id, .to_byte = OFFSET_END, .text = bytes_of_text("abc"), .carry = true};
    (void)ask(request);
    for (uint32_t i = 0; i < 2; i++) {
        request = play_request(marks[i]);
        request.u.nodes.nodes = &node->id;
        request.u.nodes.count = 1;
        (void)ask(request);
    }
}

static void ask_about_session(uint64_t session)
{
    struct request request = play_request(REQUEST_WALK);

    request.u.walk = (struct request_walk){.session = session,
                                           .has_position = true,
                                           .what = WALK_SUBTREE,
                                           .count = 500,
                                           .text = true,
                                           .content = true,
                                           .numbers = true,
                                           .deleted = true};
    (void)ask(request);
    request = play_request(REQUEST_HEAD);
    request.u.head.session = session;
    (void)ask(request);
    request = play_request(REQUEST_BOOKMARK_LIST);
    request.u.bookmark_list.session = session;
    request.u.bookmark_list.count = 100;
    (void)ask(request);
    request = play_request(REQUEST_SAY);
    request.u.say.session = session;
    request.u.say.text = bytes_of_text("abc");
    request.u.say.generation.n = 2;
    (void)ask(request);
    request = play_request(REQUEST_VERIFY);
    request.u.verify.session = session;
    (void)ask(request);
    request = play_request(REQUEST_COMPARE);
    request.u.compare.session = session;
    (void)ask(request);
}

static void ask_everything(void)
{
    const struct tree_model *model = &playing.model;
    struct request request = play_request(REQUEST_SESSION_LIST);

    playing.world.look = look_at_nodes;
    request.u.page.count = 100;
    request.u.page.deleted = true;
    (void)ask(request);
    for (int i = 0; i < model->session_count; i++) {
        ask_about_session(model->sessions[i].id);
    }
    for (int i = 0; i < model->count && i < ASKED_NODE_COUNT_MAX; i++) {
        ask_about_node(&model->nodes[i]);
    }
    for (int i = 0; i < model->session_count; i++) {
        request = play_request(REQUEST_CANCEL);
        request.u.cancel.session = model->sessions[i].id;
        (void)ask(request);
    }
}

void tree_build(uint64_t seed, const struct tree_op *ops, uint32_t count)
{
    struct tree_progress progress;

    play_open(seed);
    play_all(ops, count, &progress);
    CHECK(playing.world.problem[0] == '\0');
    world_stop(&playing.world);
}

void tree_explore(uint64_t seed, struct tree_damage *damage)
{
    struct tree_world *world = &playing.world;
    struct error error = {0};

    exploring = damage;
    CHECK(journal_open("tree.db", &error, &world->journal) == STATUS_OK);
    damage->is_done = journal_damage(world->journal, seed, damage->what, sizeof(damage->what));
    journal_close(world->journal);
    world_start(world);
    if (world->problem[0] != '\0') {
        damage->is_refused = true; /* with a sentence, and the daemon ends */
        return;
    }
    ask_everything();
    if (world->problem[0] == '\0') {
        world_settle(world);
        world_stop(world);
    }
    memcpy(damage->problem, world->problem, sizeof(damage->problem));
}
