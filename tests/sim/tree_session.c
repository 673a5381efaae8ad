/* Operations on whole sessions and their casts. */
#include <stdio.h>
#include <string.h>

#include "sim/tree_playing.h"

/* ---- casts ---- */

/* What becomes of a cast when somebody joins. is_repeatable: who is there already stays as it is.
 */
static enum status join(struct model_session *session, struct model_member member,
                        bool is_repeatable)
{
    const bool is_human = member.card == CAST_NOBODY;

    for (uint32_t i = 0; i < session->speaker_count; i++) {
        const struct model_member *other = &session->members[i];
        const bool is_same = strcmp(other->name, member.name) == 0;

        if (is_repeatable && other->card == member.card && is_same) {
            return STATUS_OK;
        }
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        const struct model_member *other = &session->members[i];

        if (strcmp(other->name, member.name) == 0 && (is_human || other->card == CAST_NOBODY)) {
            return STATUS_CONFLICT;
        }
    }
    session->members[session->speaker_count++] = member;
    return STATUS_OK;
}

/* Once all have joined: the prompt that a joint cast shares, where a persona is new. */
static enum status share_prompt(struct model_session *session)
{
    const uint32_t known = session->joint_count;

    if (!session->is_joint) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        if (session->members[i].card == CAST_NOBODY) {
            continue;
        }
        if (model_play(session, i) == CAST_PLAIN ||
            model_play(session, i) != model_play(session, 1)) {
            return STATUS_CONFLICT;
        }
        session->joint_count = i >= known ? session->speaker_count : session->joint_count;
    }
    return session->joint_count == known || model_prompt_fits(&playing.model, session)
               ? STATUS_OK
               : STATUS_LIMIT;
}

/* A human, or a persona that this user has. */
static struct model_member draw_member(uint32_t uid)
{
    struct model_member member = {.card = CAST_NOBODY};
    const uint32_t card = play_draw(CAST_CARD_COUNT);
    const char *name = cast_human(play_draw(6));

    if (play_draw(3) > 0 && playing.personas[uid - WORLD_UID][card] != 0) {
        member.card = (int)card;
        name = cast_cards[card].name;
    }
    memcpy(member.name, name, strlen(name) + 1);
    return member;
}

static struct request_member ask_member(uint32_t uid, const struct model_member *member)
{
    struct request_member asked = {0};

    if (member->card == CAST_NOBODY) {
        asked.name = bytes_of_text(member->name);
    } else {
        asked.persona = playing.personas[uid - WORLD_UID][member->card];
    }
    return asked;
}

/* Who has not spoken yet gets another name. */
static enum status rename_member(int at, struct model_session *session, uint32_t speaker,
                                 const char *name)
{
    if (session->members[speaker].card != CAST_NOBODY) {
        return STATUS_CONFLICT;
    }
    if (strcmp(session->members[speaker].name, name) == 0) {
        return STATUS_OK;
    }
    for (int i = 0; i < playing.model.count; i++) {
        if (playing.model.nodes[i].session == at && playing.model.nodes[i].speaker == speaker) {
            return STATUS_CONFLICT;
        }
    }
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        if (strcmp(session->members[i].name, name) == 0) {
            return STATUS_CONFLICT;
        }
    }
    if (speaker == 0) {
        return STATUS_CONFLICT;
    }
    memcpy(session->members[speaker].name, name, strlen(name) + 1);
    return STATUS_OK;
}

void session_join(void)
{
    struct request request = play_request(REQUEST_SESSION_SET);
    const int at = play_pick_session();
    struct model_session after = playing.model.sessions[at];
    const struct model_member member = draw_member(after.uid);
    const struct request_member asked = ask_member(after.uid, &member);
    const uint32_t speaker = play_draw(after.speaker_count);
    const char *name = cast_human(play_draw(6));
    enum status refused = STATUS_OK;

    play_as(&request, at);
    request.u.session_set.session = after.id;
    request.u.session_set.has_name = play_draw(3) == 0;
    if (after.speaker_count == MODEL_MEMBER_COUNT && !request.u.session_set.has_name) {
        return;
    }
    if (request.u.session_set.has_name) {
        request.u.session_set.speaker = speaker;
        request.u.session_set.name = bytes_of_text(name);
        refused = rename_member(at, &after, speaker, name);
        play_tell("speaker %u of session %llu is called %s", speaker, (unsigned long long)after.id,
                  name);
    } else {
        request.u.session_set.members = &asked;
        request.u.session_set.member_count = 1;
        refused = join(&after, member, true);
        refused = refused == STATUS_OK ? share_prompt(&after) : refused;
        play_tell("%s (card %d) joins session %llu", member.name, member.card,
                  (unsigned long long)after.id);
    }
    refused = after.is_deleted ? STATUS_NOT_FOUND : refused;
    world_ask(&playing.world, &request);
    play_expect(refused);
    if (refused == STATUS_OK) {
        playing.model.sessions[at] = after;
    }
}

/* ---- opening ---- */

/* Siblings of each other, given by speaker 1. */
static void greet(int at)
{
    struct tree_model *model = &playing.model;
    const struct model_session *session = &model->sessions[at];
    const struct cast_card *card = &cast_cards[session->members[1].card];
    const int first = model->count;

    for (uint32_t i = 0; i < CAST_GREETING_COUNT && card->greetings[i] != NULL; i++) {
        char text[MODEL_TEXT_MAX] = "";
        uint32_t ids[MODEL_CONTENT_MAX];
        uint32_t count;

        model_render(session, model_lead(session, 1), text);
        model_render(session, card->greetings[i], text);
        count = model_encode(model, bytes_of_text(text), true, ids);
        model_give(model, (struct model_place){at, MODEL_ROOT, 0}, 1, true, ids, count);
    }
    if (model->count > first) {
        make_move_head(at, first);
    }
    make_learn(first);
}

void session_open(void)
{
    struct tree_model *model = &playing.model;
    struct model_session session = {.head = MODEL_ROOT, .speaker_count = 2, .uid = WORLD_UID};
    struct request request = play_request(REQUEST_SESSION_OPEN);
    const uint32_t card = play_draw(CAST_CARD_COUNT);
    const char *user = cast_human(play_draw(2));
    struct model_member members[2];
    struct request_member asked[2];
    enum status refused = STATUS_OK;

    if (model->session_count == MODEL_SESSION_COUNT) {
        return;
    }
    session.seed = play_draw(3); /* sessions share seeds, and not their noise */
    session.context_tokens = 64 + play_draw(129);
    session.is_joint = play_draw(3) == 0;
    session.members[0].card = CAST_NOBODY;
    memcpy(session.members[0].name, user, strlen(user) + 1);
    session.members[1].card = (int)card;
    memcpy(session.members[1].name, cast_cards[card].name, strlen(cast_cards[card].name) + 1);
    request.u.session_open.persona = playing.personas[0][card];
    request.u.session_open.user_name = bytes_of_text(user);
    request.u.session_open.has_seed = true;
    request.u.session_open.seed = session.seed;
    request.u.session_open.context_tokens = session.context_tokens;
    request.u.session_open.no_greeting = play_draw(4) == 0;
    request.u.session_open.group_mode = session.is_joint ? GROUP_JOINT : GROUP_SEPARATE;
    request.u.session_open.members = asked;
    request.u.session_open.member_count = play_draw(3);
    for (uint32_t i = 0; i < request.u.session_open.member_count; i++) {
        members[i] = draw_member(WORLD_UID);
        asked[i] = ask_member(WORLD_UID, &members[i]);
        refused = refused == STATUS_OK ? join(&session, members[i], false) : refused;
    }
    refused = refused == STATUS_OK ? share_prompt(&session) : refused;
    play_tell("open a session, %s, card %u, %u speakers%s, seed %llu, %u tokens", user, card,
              session.speaker_count, session.is_joint ? " in one view" : "",
              (unsigned long long)session.seed, session.context_tokens);
    play_ask(&request, true);
    play_expect(refused);
    if (refused != STATUS_OK || playing.world.problem[0] != '\0') {
        return;
    }
    playing.counts.joint += session.is_joint;
    session.id = playing.world.id;
    model->sessions[model->session_count++] = session;
    if (!request.u.session_open.no_greeting) {
        greet(model->session_count - 1);
    }
}

/* ---- labels and marks ---- */

static enum status check_session_purge(int at)
{
    const struct tree_model *model = &playing.model;

    if (!model->sessions[at].is_deleted) {
        return STATUS_CONFLICT;
    }
    for (int i = 0; i < model->count; i++) {
        if (model->nodes[i].session == at && !model->nodes[i].is_purged &&
            !model->nodes[i].has_ended) {
            return STATUS_AGAIN; /* nobody can see whether they have ended */
        }
    }
    return STATUS_OK;
}

static void purge_session(int at)
{
    struct tree_model *model = &playing.model;

    model->sessions[at].is_purged = model->sessions[at].is_deleted = true;
    for (int i = 0; i < model->count; i++) {
        if (model->nodes[i].session == at) {
            model->nodes[i].is_purged = model->nodes[i].has_ended = true;
        }
    }
}

static void set_label(struct model_session *session)
{
    struct request request = play_request(REQUEST_SESSION_SET);
    char text[8] = {0};

    request.uid = session->uid;
    (void)snprintf(text, sizeof(text), "tree%u", play_draw(100));
    request.u.session_set.session = session->id;
    request.u.session_set.has_label = true;
    request.u.session_set.label = bytes_of_text(text);
    play_tell("label session %llu '%s'", (unsigned long long)session->id, text);
    world_ask(&playing.world, &request);
    play_expect(session->is_deleted ? STATUS_NOT_FOUND : STATUS_OK);
    if (!session->is_deleted) {
        memcpy(session->label, text, sizeof(text));
    }
}

void session_change(void)
{
    struct tree_model *model = &playing.model;
    struct request request = play_request(REQUEST_SESSION_DELETE);
    const int at = play_pick_session();
    struct model_session *session = &model->sessions[at];
    const uint32_t what = play_draw(8);
    enum status refused = session->is_purged ? STATUS_NOT_FOUND : STATUS_OK;

    if (what < 4) {
        set_label(session);
        return;
    }
    play_as(&request, at);
    check_session(&playing.world, model, at);
    request.u.session_delete.session = session->id;
    request.u.session_delete.undo = session->is_deleted && what != 7;
    request.u.session_delete.purge = what == 7;
    if (what == 7 && refused == STATUS_OK) {
        refused = check_session_purge(at);
    }
    play_tell("%s session %llu",
              what == 7                       ? "purge"
              : request.u.session_delete.undo ? "undelete"
                                              : "delete",
              (unsigned long long)session->id);
    world_ask(&playing.world, &request);
    if (refused == STATUS_AGAIN) {
        refused = playing.world.has_error ? STATUS_CONFLICT : STATUS_OK;
    }
    play_expect(refused);
    if (refused != STATUS_OK) {
        return;
    }
    if (what == 7) {
        purge_session(at);
    } else {
        session->is_deleted = !request.u.session_delete.undo;
    }
    for (int i = 0; i < model->count && session->is_deleted; i++) {
        if (model->nodes[i].session == at && !model->nodes[i].has_ended) {
            model->nodes[i].may_be_cut = true;
        }
    }
}
