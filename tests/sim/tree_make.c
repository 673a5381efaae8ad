/* Operations that make nodes. */
#include <string.h>

#include "sim/tree_playing.h"

enum { PATH_TOKEN_MAX = 1200 };

bool make_is_short(struct model_place place)
{
    const struct model_path path = model_path_of(&playing.model, place);
    uint32_t count = 0;

    for (uint32_t i = 0; i < path.count; i++) {
        count += path.counts[i];
    }
    return count <= PATH_TOKEN_MAX;
}

/* ---- what is made ---- */

/* The nodes that the request has made, in its order, get their ids. */
void make_learn(int first)
{
    const uint32_t made = (uint32_t)(playing.model.count - first);

    if (playing.world.created_count != made) {
        world_fail(&playing.world, "%u nodes were made, it should be %u",
                   playing.world.created_count, made);
        return;
    }
    for (uint32_t i = 0; i < made; i++) {
        if (model_find(&playing.model, playing.world.created[i]) != MODEL_ROOT) {
            world_fail(&playing.world, "node %llu is made a second time",
                       (unsigned long long)playing.world.created[i]);
        }
        playing.model.nodes[first + (int)i].id = playing.world.created[i];
        play_tell("    node %llu\n", (unsigned long long)playing.world.created[i]);
    }
}

void make_move_head(int session, int node)
{
    playing.model.sessions[session].head = node;
    playing.model.sessions[session].head_offset = OFFSET_END;
}

/* ---- replies ---- */

static struct model_reply draw_reply(struct model_place place, uint32_t speaker, bool opens_turn,
                                     uint32_t n)
{
    struct model_reply reply = {
        .place = place,
        .speaker = speaker,
        .opens_turn = opens_turn,
        .is_greedy = play_draw(3) == 0,
        .ignores_end = play_draw(3) == 0,
        .has_raw_seed = play_draw(6) == 0,
        .raw_seed = play_draw(1000),
        .max_tokens = play_draw(3) == 0 ? 1 + play_draw(4) : 1 + play_draw(MODEL_SAMPLED_MAX),
        .choice_count = play_draw(6) == 0 ? 1 + play_draw(MODEL_CHOICE_COUNT) : 0,
        .is_distinct = n > 1 && play_draw(4) == 0,
    };

    for (uint32_t i = 0; i < reply.choice_count; i++) {
        reply.choices[i] = tree_words_choice(play_draw(8));
    }
    if (play_draw(2) == 0) {
        reply.stop = tree_words_stop(play_draw(8));
    }
    return reply;
}

static struct request_generation generation_of(const struct model_reply *reply, uint32_t n)
{
    struct request_generation generation = {
        .n = n,
        .has_raw_seed = reply->has_raw_seed,
        .raw_seed = reply->raw_seed,
        .delivery = play_draw(4) == 0 ? DELIVERY_NO_FOLLOW : DELIVERY_EACH_TOKEN,
        .priority = play_draw(3) == 0 ? BRANCH_BATCH : BRANCH_INTERACTIVE,
    };

    generation.sampler.has_temperature = reply->is_greedy;
    generation.sampler.has_ignore_end = true;
    generation.sampler.ignore_end = reply->ignores_end;
    generation.sampler.has_max_tokens = true;
    generation.sampler.max_tokens = reply->max_tokens;
    generation.distinct_first = reply->is_distinct;
    generation.sampler.rule.choices = reply->choices;
    generation.sampler.rule.choice_count = reply->choice_count;
    if (reply->stop.size > 0) {
        generation.sampler.stops = &reply->stop;
        generation.sampler.stop_count = 1;
    }
    return generation;
}

/* Given nodes in front of the replies: texts, by whom, and what they open. */
struct preface {
    struct bytes text;
    uint32_t speaker;
    bool opens_turn;
};

/* A text that enters as that speaker's. */
static struct model_node *give_text(struct model_place place, const struct preface *preface)
{
    struct tree_model *model = &playing.model;
    char text[MODEL_TEXT_MAX] = "";
    uint32_t ids[MODEL_CONTENT_MAX];
    uint32_t count, size = 0;

    if (preface->opens_turn) {
        model_render(&model->sessions[place.session],
                     model_lead(&model->sessions[place.session], preface->speaker), text);
        size = (uint32_t)strlen(text);
    }
    memcpy(text + size, preface->text.data, preface->text.size);
    count = model_encode(model, bytes_of(text, size + preface->text.size), true, ids);
    return model_give(model, place, preface->speaker, preface->opens_turn, ids, count);
}

/* Asks for n replies behind the prefaces, and says what must come of it. */
static void reply_behind(struct request *request, struct model_reply reply, uint32_t n,
                         const struct preface *prefaces, uint32_t count, enum status refused)
{
    struct tree_model *model = &playing.model;
    const int first = model->count;
    const bool may_die = play_has_ended(reply.place);

    for (uint32_t i = 0; i < count && refused == STATUS_OK; i++) {
        const struct model_node *given = give_text(reply.place, &prefaces[i]);

        reply.place.node = model->count - 1;
        reply.place.offset = given->count;
    }
    if (refused == STATUS_OK && model_context(model, &reply)->count == 0) {
        refused = STATUS_LIMIT;
    }
    const int given_end = model->count;
    model->count = first; /* not there before the answer */
    play_ask(request, may_die);
    play_expect(refused);
    if (refused != STATUS_OK || playing.world.problem[0] != '\0') {
        return;
    }
    model->count = given_end;
    for (uint32_t i = 0; i < n; i++) {
        model_generate(model, &reply, i);
    }
    playing.counts.chosen += reply.choice_count > 0 ? n : 0;
    playing.counts.distinct += reply.is_distinct ? n : 0;
    make_learn(first);
    make_move_head(reply.place.session, given_end);
}

static void tell_reply(const char *how, struct position position, const struct model_reply *reply,
                       uint32_t n, bool has_prefix)
{
    play_tell("%s at (%llu, %u) in session %llu by speaker %u, %u replies of %u tokens, stop "
              "'%.*s', %u choices%s%s",
              how, (unsigned long long)position.node, reply->place.offset,
              (unsigned long long)playing.model.sessions[reply->place.session].id, reply->speaker,
              n, reply->max_tokens, (int)reply->stop.size, (const char *)reply->stop.data,
              reply->choice_count, reply->is_distinct ? ", distinct" : "",
              has_prefix ? ", with a prefix" : "");
}

void make_say(void)
{
    struct model_place place = play_pick_place();
    struct preface prefaces[2] = {{tree_words_text(play_draw(8)), 0, true}};
    struct request request = play_request(REQUEST_SAY);
    const uint32_t n = 1 + play_draw(3);
    const bool has_prefix = play_draw(4) == 0;
    const uint32_t speaker = play_draw(2) == 0 ? 1 : play_draw_speaker(place);

    play_look_at(&place);
    play_as(&request, place.session);
    if (!make_is_short(place)) {
        return;
    }
    prefaces[0].speaker = play_draw(2) == 0 ? 0 : play_draw_speaker(place);
    const struct model_reply reply = draw_reply(place, speaker, !has_prefix, n);
    request.u.say.session = playing.model.sessions[place.session].id;
    request.u.say.has_position = true;
    request.u.say.position = play_position(place);
    request.u.say.speaker = prefaces[0].speaker;
    request.u.say.text = prefaces[0].text;
    request.u.say.has_reply_speaker = speaker != 1;
    request.u.say.reply_speaker = speaker;
    request.u.say.generation = generation_of(&reply, n);
    if (has_prefix) {
        prefaces[1] = (struct preface){tree_words_text(play_draw(8)), speaker, true};
        request.u.say.generation.prefix = prefaces[1].text;
    }
    play_tell("speaker %u says ", prefaces[0].speaker);
    tell_reply("a text", request.u.say.position, &reply, n, has_prefix);
    reply_behind(&request, reply, n, prefaces, 1 + has_prefix, play_check_place(place));
}

void make_generate(void)
{
    struct model_place place = play_pick_place();
    struct preface prefix = {.opens_turn = true};
    struct request request = play_request(REQUEST_GENERATE);
    const uint32_t n = 1 + play_draw(3);
    const bool continues = play_draw(3) == 0;
    const bool has_prefix = play_draw(5) == 0;
    uint32_t speaker = play_draw(3) > 0 ? 1 : play_draw_speaker(place);
    enum status refused;

    play_look_at(&place);
    play_as(&request, place.session);
    if (!make_is_short(place)) {
        return;
    }
    refused = play_check_turn(place, continues, &speaker);
    const struct model_reply reply = draw_reply(place, speaker, !continues && !has_prefix, n);
    request.u.generate.session = playing.model.sessions[place.session].id;
    request.u.generate.has_position = true;
    request.u.generate.position = play_position(place);
    request.u.generate.has_speaker = !continues;
    request.u.generate.speaker = speaker;
    request.u.generate.continuing = continues;
    request.u.generate.generation = generation_of(&reply, n);
    if (has_prefix) {
        prefix = (struct preface){tree_words_text(play_draw(8)), speaker, !continues};
        request.u.generate.generation.prefix = prefix.text;
    }
    tell_reply(continues ? "continue" : "generate", request.u.generate.position, &reply, n,
               has_prefix);
    reply_behind(&request, reply, n, &prefix, has_prefix, refused);
}

void make_append(void)
{
    struct tree_model *model = &playing.model;
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_APPEND);
    const bool continues = play_draw(3) == 0;
    uint32_t speaker = play_draw_speaker(place);
    const int first = model->count;
    enum status refused;

    play_look_at(&place);
    play_as(&request, place.session);
    if (!make_is_short(place)) {
        return;
    }
    refused = play_check_turn(place, continues, &speaker);
    request.u.append.session = model->sessions[place.session].id;
    request.u.append.has_position = true;
    request.u.append.position = play_position(place);
    request.u.append.speaker = speaker;
    request.u.append.continuing = continues;
    request.u.append.text = tree_words_text(play_draw(8));
    play_tell("append at (%llu, %u) in session %llu by speaker %u%s",
              (unsigned long long)request.u.append.position.node, place.offset,
              (unsigned long long)request.u.append.session, speaker,
              continues ? ", continuing" : "");
    play_ask(&request, play_has_ended(place));
    play_expect(refused);
    if (refused == STATUS_OK && playing.world.problem[0] == '\0') {
        const struct preface preface = {request.u.append.text, speaker, !continues};

        give_text(place, &preface);
        make_learn(first);
        make_move_head(place.session, first);
    }
}

/* ---- edits ---- */

/* The copies of what lies on the path below the edited node. False: it leaves before the edit. */
static bool carry(const struct model_edit *edit, int edited, struct model_place until)
{
    struct tree_model *model = &playing.model;
    const struct model_path path = model_path_of(model, until);
    struct model_place place = {until.session, model->count - 1, 0};
    uint32_t at = 0;

    while (at < path.count && path.nodes[at] != edited) {
        at++;
    }
    for (uint32_t i = at + 1; i < path.count; i++) {
        const struct model_node *from = &model->nodes[path.nodes[i]];
        const uint32_t end = edit->prefix_count + edit->middle_count;

        place.offset = model->nodes[place.node].count;
        if (i == at + 1 && from->parent_offset >= edit->suffix_first) {
            place.offset = end + from->parent_offset - edit->suffix_first;
        } else if (i == at + 1 && from->parent_offset > edit->prefix_count) {
            place.offset = end;
        } else if (i == at + 1) {
            return false;
        }
        struct model_node *made =
            model_give(model, place, from->speaker, from->opens_turn, from->ids, path.counts[i]);
        made->origin = ORIGIN_EDITED;
        made->original = path.nodes[i];
        place.node = model->count - 1;
    }
    return true;
}

/* The most that a carried path may have, so that the model has room. */
static bool has_room_for(struct model_place place)
{
    return model_path_of(&playing.model, place).count + 8 <
           (uint32_t)(MODEL_NODE_COUNT - playing.model.count);
}

void make_edit(void)
{
    struct tree_model *model = &playing.model;
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_EDIT);
    const int first = model->count;
    uint8_t shown[4 * MODEL_CONTENT_MAX];
    struct model_edit made;
    enum status refused;

    play_look_at(&place);
    play_as(&request, place.session);
    if (place.node == MODEL_ROOT) {
        return;
    }
    const struct model_node *node = &model->nodes[place.node];
    const struct model_session *session = &model->sessions[place.session];
    const struct model_place head = {place.session, session->head,
                                     session->head == MODEL_ROOT ? 0
                                     : session->head_offset < model->nodes[session->head].seen
                                         ? session->head_offset
                                         : model->nodes[session->head].seen};
    const uint32_t size = model_show(model, node->ids, node->seen, shown);
    request.u.edit.node = node->id;
    request.u.edit.from_byte = play_draw(size + 1);
    request.u.edit.to_byte =
        request.u.edit.from_byte + play_draw(size - request.u.edit.from_byte + 1);
    request.u.edit.text = play_draw(3) == 0 ? bytes_of_text("") : tree_words_text(play_draw(8));
    request.u.edit.carry = play_draw(2) == 0;
    refused = play_check_place(place);
    if (!has_room_for(head)) {
        return;
    }
    if (!model_edit(model, node, request.u.edit.from_byte, request.u.edit.to_byte,
                    request.u.edit.text, &made)) {
        if (made.count > 0) {
            return; /* longer than the model's nodes */
        }
        refused = refused != STATUS_OK ? refused : STATUS_BAD_INPUT;
    }
    if (refused == STATUS_OK) {
        struct model_node *copy = model_give(
            model, (struct model_place){place.session, node->parent, node->parent_offset},
            node->speaker, node->opens_turn, made.ids, made.count);

        copy->origin = ORIGIN_EDITED;
        copy->original = place.node;
        if (request.u.edit.carry && !carry(&made, place.node, head)) {
            refused = STATUS_CONFLICT;
        }
    }
    play_tell("edit node %llu, bytes %u to %u%s", (unsigned long long)request.u.edit.node,
              request.u.edit.from_byte, request.u.edit.to_byte,
              request.u.edit.carry ? ", carry" : "");
    const bool may_die = play_has_ended(place) && play_has_ended(head);
    const int count = model->count;
    model->count = first; /* not there before the answer */
    play_ask(&request, may_die);
    play_expect(refused);
    if (refused == STATUS_OK && playing.world.problem[0] == '\0') {
        model->count = count;
        make_learn(first);
        make_move_head(place.session, model->count - 1);
    }
}
