#include "session/catalog.h"

#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/record.h"

/* Also finds out how many versions of the name the owner has. */
static struct persona *find_equal(const struct store *store, const struct card *card,
                                  const struct catalog_put *put, uint32_t *version_count)
{
    for (uint32_t i = 0; i < store->personas.count; i++) {
        struct persona *persona = store->personas.items[i];

        if (persona->owner_uid != put->owner_uid || !bytes_equal(persona->card->name, card->name)) {
            continue;
        }
        (*version_count)++;
        if (persona->visibility == put->visibility &&
            memcmp(persona->card->hash, card->hash, SHA256_BYTES) == 0) {
            return persona;
        }
    }
    return NULL;
}

/* A card whose settings no sampler can run is refused when it is put, not when it is played. */
static enum status check_sampler(const struct store *store, const struct card *card,
                                 struct error *error)
{
    struct sampler_settings settings = sampler_settings_default();
    struct sampler *sampler = NULL;
    uint32_t end_count = 0;
    enum status status;
    const uint32_t *ends = tokenizer_end_ids(store->settings.tokenizer, &end_count);

    sampler_settings_merge(&settings, &card->sampler);
    status = sampler_create(&settings, ends, end_count,
                            tokenizer_vocabulary(store->settings.tokenizer)->token_count, error,
                            &sampler);
    if (status == STATUS_MEMORY) {
        return error_set(error, status, "out of memory for a sampler");
    }
    TRY(status);
    sampler_release(sampler);
    return STATUS_OK;
}

static enum status add(struct store *store, struct card *card, const struct catalog_put *put,
                       uint32_t version, struct error *error, struct persona **out)
{
    struct persona *persona = NULL;

    if (store->personas.count >= PERSONA_COUNT_MAX) {
        return error_set_limit(error, "PERSONA_COUNT_MAX", PERSONA_COUNT_MAX,
                               "the daemon holds %u personas, which is the most",
                               store->personas.count);
    }
    if (persona_create(card, &persona) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory for another persona");
    }
    if (state_push(&store->personas, persona) != STATUS_OK) {
        persona->card = NULL; /* stays with the caller */
        persona_destroy(persona);
        return error_set(error, STATUS_MEMORY, "out of memory for another persona");
    }
    persona->id = ++store->last_persona_id;
    persona->version = version;
    persona->owner_uid = put->owner_uid;
    persona->visibility = put->visibility;
    persona->is_built_in = put->is_built_in;
    persona->created_us = clock_wall_us();
    *out = persona;
    return STATUS_OK;
}

enum status catalog_put(struct store *store, const struct catalog_put *asked, struct error *error,
                        uint64_t *ticket, struct persona **out)
{
    struct catalog_put put = *asked;
    struct user *user = NULL;
    struct card *card = NULL;
    uint32_t version_count = 0;
    struct persona *found;
    struct persona *made = NULL;
    enum status status;

    *ticket = 0;
    TRY(state_user(store, put.owner_uid, error, &user));
    TRY(card_parse(put.card, error, &card));
    if (put.is_built_in && card->has_public) {
        put.visibility = card->is_public ? VISIBILITY_PUBLIC : VISIBILITY_PRIVATE;
    }
    found = find_equal(store, card, &put, &version_count);
    if (found != NULL) {
        card_destroy(card);
        found->is_built_in = found->is_built_in || put.is_built_in;
        *out = found;
        return STATUS_OK;
    }
    status = check_sampler(store, card, error);
    if (status == STATUS_OK) {
        status = state_content_check(user, card->arena.used_bytes, error);
    }
    if (status == STATUS_OK) {
        status = add(store, card, &put, version_count + 1, error, &made);
    }
    if (status != STATUS_OK) {
        card_destroy(card);
        return status;
    }
    status = record_persona(store, made, error, ticket);
    if (status != STATUS_OK) {
        store->personas.count--;
        persona_destroy(made);
        return status;
    }
    *out = made;
    user->content_bytes += card->arena.used_bytes;
    return STATUS_OK;
}

/* A version that is put again is not deleted any more, and belongs to who put it last: a file of
 * the folder or a user. */
static enum status claim(struct store *store, struct persona *persona, bool is_from_file,
                         struct error *error, uint64_t *ticket)
{
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_PERSONA,
        .id = persona->id,
        .flags = is_from_file ? JOURNAL_NOTE_FROM_FILE : 0,
    };
    struct journal_batch *batch = NULL;
    enum status status = journal_batch_create(&batch);

    if (status == STATUS_OK) {
        status = record_add_note(batch, &note);
    }
    if (status != STATUS_OK) {
        journal_batch_destroy(batch);
        return error_set(error, status, "out of memory while a persona was noted");
    }
    TRY(record_submit(store, batch, error, ticket));
    persona->is_deleted = false;
    persona->is_from_file = is_from_file;
    return STATUS_OK;
}

enum status catalog_put_built_in(struct store *store, struct bytes card, struct error *error)
{
    const struct catalog_put put = {
        .card = card,
        .owner_uid = (uint32_t)geteuid(),
        .visibility = VISIBILITY_PUBLIC,
        .is_built_in = true,
    };
    struct persona *persona = NULL;
    uint64_t ticket = 0;

    TRY(catalog_put(store, &put, error, &ticket, &persona));
    if (persona->is_deleted || !persona->is_from_file) {
        TRY(claim(store, persona, true, error, &ticket));
    }
    return state_push(&store->built_in, persona) == STATUS_OK
               ? STATUS_OK
               : error_set(error, STATUS_MEMORY, "out of memory for another persona");
}

/* ---- finding ---- */

/* What a file said before it changed is no version of the daemon's user's own. */
static int rank_of(const struct persona *persona, uint32_t uid)
{
    if (persona->owner_uid == uid && !persona->is_from_file && !persona->is_built_in) {
        return 3;
    }
    return persona->is_built_in ? 2 : 1;
}

static struct persona *find_name(const struct store *store, struct bytes name, uint32_t uid)
{
    struct persona *best = NULL;

    for (uint32_t i = 0; i < store->personas.count; i++) {
        struct persona *persona = store->personas.items[i];

        if (bytes_equal(persona->card->name, name) && persona_is_playable(persona, uid) &&
            (best == NULL || rank_of(persona, uid) >= rank_of(best, uid))) {
            best = persona;
        }
    }
    return best;
}

static enum status find_default(const struct store *store, uint32_t uid, struct error *error,
                                struct persona **out)
{
    const char *name = store->settings.default_persona;

    if (name != NULL && name[0] != '\0') {
        return catalog_find(store, 0, bytes_of_text(name), uid, error, out);
    }
    /* Ids tell which content was stored first, in whatever folder: the order of this one counts. */
    for (uint32_t i = 0; i < store->built_in.count; i++) {
        struct persona *persona = store->built_in.items[i];

        if (persona_is_playable(persona, uid)) {
            *out = persona;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_NOT_FOUND,
                     "the daemon has no default persona; name one that `persona personas` lists");
}

enum status catalog_find(const struct store *store, uint64_t id, struct bytes name, uint32_t uid,
                         struct error *error, struct persona **out)
{
    struct persona *persona;

    if (id == 0 && name.size == 0) {
        return find_default(store, uid, error, out);
    }
    persona = id != 0 ? state_persona_find(store, id) : find_name(store, name, uid);
    if (persona == NULL && id != 0) {
        return error_set(error, STATUS_NOT_FOUND, "there is no persona %llu",
                         (unsigned long long)id);
    }
    if (persona == NULL) {
        return error_set(
            error, STATUS_NOT_FOUND, "there is no persona \"%.*s\" that you may play",
            (int)(name.size < PERSONA_NAME_BYTES_MAX ? name.size : PERSONA_NAME_BYTES_MAX),
            (const char *)name.data);
    }
    if (persona->is_deleted && persona->owner_uid == uid) {
        return error_set(error, STATUS_NOT_FOUND,
                         "persona %llu is deleted; putting its card again brings it back",
                         (unsigned long long)id);
    }
    if (!persona_is_playable(persona, uid)) {
        return error_set(error, STATUS_DENIED, "persona %llu belongs to another user",
                         (unsigned long long)id);
    }
    *out = persona;
    return STATUS_OK;
}

/* ---- answers ---- */

/* Deleted, or left over from a file that has gone or changed. */
static bool is_unclaimed(const struct persona *persona)
{
    return persona->is_deleted || (persona->is_from_file && !persona->is_built_in);
}

void catalog_answer_put(struct store *store, const struct request *request, struct reply_to to)
{
    const struct catalog_put put = {
        .card = request->u.persona_put.card,
        .owner_uid = request->uid,
        .visibility = request->u.persona_put.visibility,
    };
    struct pending *pending = NULL;
    struct error error = {0};
    uint64_t ticket = 0;
    enum status status = pending_create(0, bytes_of(NULL, 0), &error, &pending);

    if (status == STATUS_OK) {
        status = catalog_put(store, &put, &error, &ticket, &pending->persona);
    }
    if (status == STATUS_OK && ticket == 0 && is_unclaimed(pending->persona)) {
        status = claim(store, pending->persona, false, &error, &ticket);
    } else if (status == STATUS_OK && ticket == 0) {
        /* It is there, but maybe not on disk yet: whatever was given before is in this ticket. */
        status = record_barrier(store, &error, &ticket);
    }
    if (status != STATUS_OK) {
        pending_destroy(pending);
        answer_error(store, to, request->type, &error);
        return;
    }
    pending->to = to;
    pending->type = request->type;
    pending->uid = request->uid;
    pending_start_ticket(store, pending, ticket);
}

void catalog_answer_get(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_persona_get *get = &request->u.persona_get;
    struct error error = {0};
    struct persona *persona = NULL;

    if (catalog_find(store, get->id, get->name, request->uid, &error, &persona) != STATUS_OK) {
        answer_error(store, to, request->type, &error);
        return;
    }
    answer_persona(store, to, request->type, request->uid, persona);
}

void catalog_answer_list(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_page *page = &request->u.page;
    struct persona_view *views = memory_alloc(page->count, sizeof(*views));
    struct reply reply = {.type = REPLY_PERSONA_LIST, .request = request->type};
    uint32_t at = state_persona_index(store, page->after);
    struct error error = {0};

    if (views == NULL) {
        error_set(&error, STATUS_MEMORY, "out of memory while personas were listed");
        answer_error(store, to, request->type, &error);
        return;
    }
    while (at < store->personas.count && reply.u.personas.count < page->count) {
        const struct persona *persona = store->personas.items[at++];

        if (persona_is_playable(persona, request->uid)) {
            views[reply.u.personas.count++] = persona_view_of(persona);
        }
    }
    reply.u.personas.items = views;
    reply.u.personas.end = at == store->personas.count;
    store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
    memory_free(views);
}
