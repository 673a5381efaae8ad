/* What could be said, level by level, and what of it is kept. */
#include <math.h>
#include <string.h>

#include "sim/tree_playing.h"

enum { NODE_MAX = 24, WIDTH_MAX = 3, FOUND_MAX = NODE_MAX * WIDTH_MAX };

struct grown {
    uint32_t parent, token; /* parent: its number, from 1; 0: the place */
    float logprob, entropy;
    double joint;
    bool is_left_out;
};

/* One expansion as it must be, and how far the daemon's was compared. */
struct growing {
    struct model_reply reply;
    uint32_t depth, width, node_count_max;
    double least; /* logarithm of the least joint probability */
    struct grown nodes[NODE_MAX];
    uint32_t count;
    enum expand_end end;
    uint64_t expansion;
    uint32_t seen;
    bool has_ended, is_gone; /* gone: with a daemon that died */
};

/* The tokens from the place to a node. */
static uint32_t list_path(const struct growing *growing, uint32_t number, uint32_t *ids)
{
    uint32_t count = 0;

    if (number > 0) {
        const struct grown *node = &growing->nodes[number - 1];

        count = list_path(growing, node->parent, ids); /* at most three levels */
        ids[count++] = node->token;
    }
    return count;
}

static bool is_end(const struct grown *node)
{
    return tokenizer_is_end(playing.model.tokenizer, node->token);
}

/* The likeliest behind each node that grows, where they are likely enough. */
static uint32_t find_level(const struct growing *growing, uint32_t from, uint32_t to,
                           struct grown *found, bool *has_unlikely)
{
    static struct model_context context;
    uint32_t count = 0;

    for (uint32_t number = from; number <= to; number++) {
        const struct grown *parent = number > 0 ? &growing->nodes[number - 1] : NULL;
        struct sample_result result;

        if (parent != NULL && is_end(parent)) {
            continue;
        }
        context = *model_context(&playing.model, &growing->reply);
        context.count += list_path(growing, number, context.ids + context.count);
        model_tops(&playing.model, context.ids, context.count, growing->width, &result);
        for (uint32_t i = 0; i < result.top_count; i++) {
            const double joint = (parent != NULL ? parent->joint : 0.0) + result.top[i].logprob;

            if (joint < growing->least) {
                *has_unlikely = true;
                continue;
            }
            found[count++] = (struct grown){
                number, result.top[i].token, result.top[i].logprob, result.entropy, joint, false};
        }
    }
    return count;
}

/* Of more than there is room for the least likely go, of equally likely ones the later. */
static uint32_t leave_out(struct grown *found, uint32_t count, uint32_t room)
{
    uint32_t left = count;

    for (; left > room; left--) {
        struct grown *least = NULL;

        for (uint32_t i = 0; i < count; i++) {
            if (!found[i].is_left_out && (least == NULL || found[i].joint <= least->joint)) {
                least = &found[i];
            }
        }
        least->is_left_out = true;
    }
    return left;
}

static void grow(struct growing *growing)
{
    const struct model_context *context = model_context(&playing.model, &growing->reply);
    const uint32_t room =
        playing.model.sessions[growing->reply.place.session].context_tokens - context->count;
    const uint32_t depth = growing->depth < room ? growing->depth : room;
    uint32_t from = 0, to = 0;

    for (uint32_t level = 1;; level++) {
        struct grown found[FOUND_MAX];
        bool has_unlikely = false;
        const uint32_t count = find_level(growing, from, to, found, &has_unlikely);
        const uint32_t left = leave_out(found, count, growing->node_count_max - growing->count);
        uint32_t open = 0;

        from = growing->count + 1;
        for (uint32_t i = 0; i < count; i++) {
            if (!found[i].is_left_out) {
                growing->nodes[growing->count++] = found[i];
                open += !is_end(&found[i]);
            }
        }
        to = growing->count;
        if (left < count || (open > 0 && level < depth && to == growing->node_count_max)) {
            growing->end = EXPAND_END_NODES;
            return;
        }
        if (open == 0) {
            growing->end = has_unlikely ? EXPAND_END_PROBABILITY : EXPAND_END_DEPTH;
            return;
        }
        if (level == depth) {
            growing->end = depth < growing->depth ? EXPAND_END_CONTEXT : EXPAND_END_DEPTH;
            return;
        }
    }
}

static void look_at_level(void *context, const struct reply *reply)
{
    struct growing *growing = context;
    const struct expand_view *view = &reply->u.expand;

    if (reply->type != REPLY_EXPAND) {
        return;
    }
    growing->expansion = view->expansion;
    for (uint32_t i = 0; i < view->new_count; i++) {
        const struct expanded_node_view *node = &view->nodes[i];
        const struct grown *must = &growing->nodes[growing->seen];

        if (growing->seen == growing->count || node->parent != must->parent ||
            node->token != must->token || node->is_end != is_end(must) ||
            memcmp(&node->logprob, &must->logprob, sizeof(must->logprob)) != 0 ||
            memcmp(&node->entropy, &must->entropy, sizeof(must->entropy)) != 0 ||
            memcmp(&node->joint_logprob, &must->joint, sizeof(must->joint)) != 0) {
            world_fail(&playing.world, "node %u of an expansion is not what it must be",
                       growing->seen + 1);
            return;
        }
        growing->seen++;
    }
    if (view->has_end) {
        growing->has_ended = true;
        if (view->end != growing->end || growing->seen != growing->count) {
            world_fail(&playing.world,
                       "an expansion ends for %d with %u nodes, it should for %d "
                       "with %u",
                       (int)view->end, growing->seen, (int)growing->end, growing->count);
        }
    }
}

/* Its path becomes a node, without what ends the turn. The expansion does not outlive the daemon,
 * what was kept of it does. */
static void keep(struct growing *growing)
{
    struct tree_model *model = &playing.model;
    struct request request = play_request(REQUEST_KEEP);
    const uint32_t number = play_draw(growing->count + 2);
    const uint64_t deaths = playing.counts.repeats + playing.counts.disk_faults;
    const int first = model->count;
    uint32_t ids[8];
    uint32_t count = 0;

    play_as(&request, growing->reply.place.session);
    request.u.keep.expansion = growing->expansion;
    request.u.keep.node = number;
    if (number > 0 && number <= growing->count) {
        count = list_path(growing, number, ids) - is_end(&growing->nodes[number - 1]);
    }
    play_tell("keep node %u of expansion %llu", number, (unsigned long long)growing->expansion);
    const bool was_gone = growing->is_gone;
    play_ask(&request, play_has_ended(growing->reply.place));
    growing->is_gone = was_gone || playing.counts.repeats + playing.counts.disk_faults > deaths;
    if (growing->is_gone && !was_gone && playing.world.has_error &&
        playing.world.status == STATUS_NOT_FOUND) {
        play_tell(" -> gone\n");
        return; /* it died before anything was stored */
    }
    if (was_gone) {
        count = 0;
    }
    play_expect(count > 0 ? STATUS_OK : was_gone ? STATUS_NOT_FOUND : STATUS_BAD_INPUT);
    if (count > 0 && playing.world.problem[0] == '\0') {
        playing.counts.kept++;
        model_give(model, growing->reply.place, growing->reply.speaker, growing->reply.opens_turn,
                   ids, count)
            ->origin = ORIGIN_EXPANDED;
        make_learn(first);
        make_move_head(growing->reply.place.session, first);
    }
}

static void fill(struct request_expand *asked, const struct growing *growing)
{
    const struct model_reply *reply = &growing->reply;

    *asked = (struct request_expand){
        .place = {.session = playing.model.sessions[reply->place.session].id,
                  .has_position = true,
                  .position = play_position(reply->place),
                  .has_speaker = reply->opens_turn,
                  .speaker = reply->speaker,
                  .continuing = !reply->opens_turn},
        .depth = growing->depth,
        .width = growing->width,
        .node_count_max = growing->node_count_max,
    };
}

void make_expansion(void)
{
    static const double least[] = {0, 0, 0.05, 0.25};
    static struct growing growing;
    struct request request = play_request(REQUEST_EXPAND);
    struct model_place place = play_pick_place();
    const uint32_t choice = play_draw(4);
    enum status refused;

    memset(&growing, 0, sizeof(growing));
    growing.reply = (struct model_reply){.speaker = play_draw_speaker(place), .max_tokens = 1};
    growing.reply.opens_turn = play_draw(2) == 0;
    play_look_at(&place);
    if (!make_is_short(place)) {
        return;
    }
    refused = play_check_turn(place, !growing.reply.opens_turn, &growing.reply.speaker);
    growing.reply.place = place;
    growing.depth = 1 + play_draw(3);
    growing.width = 1 + play_draw(WIDTH_MAX);
    growing.node_count_max = 1 + play_draw(NODE_MAX);
    growing.least = log(least[choice]);
    fill(&request.u.expand, &growing);
    request.u.expand.probability_min = least[choice];
    play_as(&request, place.session);
    if (refused == STATUS_OK && model_context(&playing.model, &growing.reply)->count == 0) {
        refused = STATUS_LIMIT;
    }
    if (refused == STATUS_OK) {
        grow(&growing);
    }
    play_tell("expand at (%llu, %u) in session %llu by speaker %u, %u levels of %u, %u nodes",
              (unsigned long long)request.u.expand.place.position.node, place.offset,
              (unsigned long long)request.u.expand.place.session, growing.reply.speaker,
              growing.depth, growing.width, growing.node_count_max);
    playing.world.look = look_at_level;
    playing.world.look_context = &growing;
    world_ask(&playing.world, &request);
    playing.world.look = NULL;
    play_expect(refused);
    playing.counts.expanded += growing.seen;
    for (uint32_t i = play_draw(3); i > 0 && growing.has_ended; i--) {
        if (playing.world.problem[0] == '\0' && playing.world.followed_count < 4000) {
            keep(&growing);
        }
    }
}
