#include "session/open.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/casting.h"
#include "session/catalog.h"
#include "session/change.h"

enum status open_draw_seed(struct error *error, uint64_t *out)
{
    uint64_t seed = 0;
    ssize_t size;

    do {
        size = getrandom(&seed, sizeof(seed), 0);
    } while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof(seed)) {
        return error_set(error, STATUS_IO, "the system gives no random bytes");
    }
    *out = seed;
    return STATUS_OK;
}

static enum status check_open(struct store *store, const struct request_session_open *open,
                              const struct user *user, struct error *error)
{
    if (open->context_tokens > store->settings.context_token_count_max) {
        return error_set_limit(error, "context_tokens_max", store->settings.context_token_count_max,
                               "a session of %u tokens is asked for, at most %u are served",
                               open->context_tokens, store->settings.context_token_count_max);
    }
    if (store->sessions.count >= SESSION_COUNT_MAX) {
        return error_set_limit(error, "SESSION_COUNT_MAX", SESSION_COUNT_MAX,
                               "the daemon holds %u sessions, which is the most",
                               store->sessions.count);
    }
    if (user->session_count >= SESSION_PER_USER_COUNT_MAX) {
        return error_set_limit(error, "SESSION_PER_USER_COUNT_MAX", SESSION_PER_USER_COUNT_MAX,
                               "you have %u sessions, which is the most", user->session_count);
    }
    return STATUS_OK;
}

/* ---- making ---- */

static enum status init_session(struct store *store, const struct request *request,
                                struct session *session, struct error *error)
{
    const struct request_session_open *open = &request->u.session_open;

    session->owner_uid = request->uid;
    session->created_us = clock_wall_us();
    session->context_tokens =
        open->context_tokens != 0 ? open->context_tokens : store->settings.context_token_count_max;
    session->cast.mode = open->group_mode;
    session->root.session = session;
    session->root.is_visible = true;
    session->head = &session->root;
    session->label = memory_copy_text((const char *)open->label.data, open->label.size);
    if (session->label == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a session was opened");
    }
    session->label_bytes = (uint32_t)open->label.size;
    if (open->has_seed) {
        session->seed = open->seed;
        return STATUS_OK;
    }
    return open_draw_seed(error, &session->seed);
}

static enum status give_greetings(const struct session *session, struct change *change)
{
    const struct prompt *prompt = session->cast.members[CAST_PERSONA].prompt;
    const uint32_t count = change->count_max;

    for (uint32_t i = 0; i < count; i++) {
        const struct change_given given = {
            .place = {&change->session->root, 0},
            .speaker = CAST_PERSONA,
            .opens_turn = true,
            .is_greeting = true,
            .ids = prompt->greetings[i].ids,
            .count = prompt->greetings[i].count,
        };
        struct place place;

        TRY(change_give(change, &given, &place));
        change->nodes[i]->ordinal = i; /* none of them is linked yet */
    }
    return STATUS_OK;
}

/* Into the list of sessions, and its greetings into the journal. */
static enum status commit(struct store *store, const struct request *request, struct reply_to to,
                          struct session *session, struct error *error)
{
    const struct request_session_open *open = &request->u.session_open;
    const struct persona *persona = session->cast.members[CAST_PERSONA].prompt->persona;
    const uint32_t count = open->no_greeting ? 0 : persona->card->greeting_count;
    const struct change_answer answer = {
        .to = to, .type = request->type, .uid = request->uid, .key = request->client_key};
    struct change change = {0};
    struct node *first;
    enum status status;

    if (state_push(&store->sessions, session) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a session was opened");
    }
    session->id = ++store->last_session_id;
    status = change_init(&change, store, session, count, error);
    if (status == STATUS_OK) {
        status = give_greetings(session, &change);
    }
    if (status == STATUS_OK) {
        first = count > 0 ? change.nodes[0] : &session->root;
        session->head = first;
        session->head_offset = OFFSET_END;
        status = change_commit(&change, &answer);
    }
    if (status != STATUS_OK) {
        session->head = &session->root;
        store->sessions.count--;
    }
    change_finish(&change);
    return status;
}

void open_session(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_session_open *open = &request->u.session_open;
    struct session *session = NULL;
    struct persona *persona = NULL;
    struct user *user = NULL;
    struct error error = {0};
    enum status status = state_user(store, request->uid, &error, &user);

    if (status == STATUS_OK) {
        status = check_open(store, open, user, &error);
    }
    if (status == STATUS_OK) {
        status =
            catalog_find(store, open->persona, open->persona_name, request->uid, &error, &persona);
    }
    if (status == STATUS_OK) {
        session = memory_alloc(1, sizeof(*session));
        status = session != NULL
                     ? init_session(store, request, session, &error)
                     : error_set(&error, STATUS_MEMORY, "out of memory while a session was opened");
    }
    if (status == STATUS_OK) {
        const struct casting casting = {store, session, &error};

        status = casting_first(&casting, open, persona);
        if (status == STATUS_OK) {
            status = casting_add(&casting, open->members, open->member_count, false);
        }
        if (status == STATUS_OK) {
            status = casting_join(&casting);
        }
    }
    if (status == STATUS_OK) {
        user->session_count++;
        status = commit(store, request, to, session, &error);
        if (status != STATUS_OK) {
            user->session_count--;
        }
    }
    if (status != STATUS_OK) {
        open_session_destroy(store, session);
        answer_error(store, to, request->type, &error);
    }
}

void open_session_destroy(struct store *store, struct session *session)
{
    if (session == NULL) {
        return;
    }
    bookmark_finish(session);
    author_note_finish(session);
    tree_finish(session);
    cast_finish(&session->cast, state_prompt_release, store);
    memory_free(session->label);
    memory_free(session);
}

/* ---- listing ---- */

static bool is_listed(const struct session *session, const struct request *request)
{
    return session->owner_uid == request->uid && session->is_open &&
           (request->u.page.deleted || !session->is_deleted);
}

void open_answer_list(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_page *page = &request->u.page;
    struct reply reply = {.type = REPLY_SESSION_LIST, .request = request->type};
    struct session_view *views = memory_alloc(page->count, sizeof(*views));
    struct cast_view *casts = NULL;
    uint32_t at = state_session_index(store, page->after);
    uint32_t cast_count = 0;
    struct error error = {0};

    for (uint32_t i = at, count = 0; i < store->sessions.count && count < page->count; i++) {
        const struct session *session = store->sessions.items[i];

        if (is_listed(session, request)) {
            cast_count += session->cast.count;
            count++;
        }
    }
    casts = memory_alloc(cast_count, sizeof(*casts));
    if (views == NULL || casts == NULL) {
        error_set(&error, STATUS_MEMORY, "out of memory while sessions were listed");
        answer_error(store, to, request->type, &error);
        goto done;
    }
    cast_count = 0;
    while (at < store->sessions.count && reply.u.sessions.count < page->count) {
        const struct session *session = store->sessions.items[at++];

        if (is_listed(session, request)) {
            answer_fill_session(session, casts + cast_count, &views[reply.u.sessions.count++]);
            cast_count += session->cast.count;
        }
    }
    reply.u.sessions.items = views;
    reply.u.sessions.end = at == store->sessions.count;
    store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
done:
    memory_free(casts);
    memory_free(views);
}
