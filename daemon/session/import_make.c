#include "session/import_make.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/casting.h"
#include "session/catalog.h"
#include "session/load_tree.h"
#include "session/open.h"
#include "session/residence.h"

struct making {
    struct store *store;
    struct transfer *transfer;
    struct portable *portable;
    struct error *error;
    bool is_foreign;
    struct persona *personas[SESSION_CAST_COUNT_MAX]; /* of each member; humans have none */
    struct persona *fresh[SESSION_CAST_COUNT_MAX];    /* owned: in no catalogue yet */
};

/* ---- defaults and limits ---- */

static enum status settle_session(struct making *making)
{
    struct store *store = making->store;
    struct portable *portable = making->portable;
    const uint32_t most = store->settings.context_token_count_max;

    if (portable->tree->model_hash.size == 0) {
        portable->tree->model_hash = bytes_of(store->settings.model_hash, JOURNAL_DIGEST_BYTES);
        portable->tree->numerics_id = bytes_of_text(store->settings.numerics_id);
    }
    making->is_foreign = memcmp(portable->tree->model_hash.data, store->settings.model_hash,
                                JOURNAL_DIGEST_BYTES) != 0;
    if (!making->is_foreign) {
        /* It goes on as this daemon computes; nodes keep what made them. */
        portable->tree->numerics_id = bytes_of_text(store->settings.numerics_id);
    }
    portable->context_tokens = portable->context_tokens == 0 ? most : portable->context_tokens;
    if (!making->is_foreign && portable->context_tokens > most) {
        return error_set_limit(making->error, "context_tokens_max", most,
                               "the session has a context of %u tokens, at most %u are served",
                               portable->context_tokens, most);
    }
    portable->created_us = portable->created_us == 0 ? clock_wall_us() : portable->created_us;
    if (store->sessions.count >= SESSION_COUNT_MAX) {
        return error_set_limit(making->error, "SESSION_COUNT_MAX", SESSION_COUNT_MAX,
                               "the daemon holds %u sessions, which is the most",
                               store->sessions.count);
    }
    if (making->transfer->user->session_count >= SESSION_PER_USER_COUNT_MAX) {
        return error_set_limit(
            making->error, "SESSION_PER_USER_COUNT_MAX", SESSION_PER_USER_COUNT_MAX,
            "you have %u sessions, which is the most", making->transfer->user->session_count);
    }
    return portable->has_seed ? STATUS_OK : open_draw_seed(making->error, &portable->seed);
}

/* ---- personas ---- */

/* One that the user may play with the same content. */
static struct persona *find_card(const struct making *making, const struct card *card)
{
    const struct id_array *all = &making->store->personas;

    for (uint32_t i = 0; i < all->count; i++) {
        struct persona *persona = all->items[i];

        if (persona_is_playable(persona, making->transfer->uid) &&
            memcmp(persona->card->hash, card->hash, sizeof(card->hash)) == 0) {
            return persona;
        }
    }
    return NULL;
}

static enum status find_persona(struct making *making, uint32_t at)
{
    const struct portable_member *member = &making->portable->members[at];
    struct card *card = NULL;

    if (member->card.size == 0) {
        return catalog_find(making->store, 0, member->persona_name, making->transfer->uid,
                            making->error, &making->personas[at]);
    }
    TRY(card_parse(member->card, making->error, &card));
    making->personas[at] = find_card(making, card);
    if (making->personas[at] != NULL) {
        card_destroy(card);
        return STATUS_OK;
    }
    if (persona_create(card, &making->fresh[at]) != STATUS_OK) {
        card_destroy(card);
        return error_set(making->error, STATUS_MEMORY, "out of memory for a persona");
    }
    making->fresh[at]->owner_uid = making->transfer->uid;
    making->personas[at] = making->fresh[at];
    return STATUS_OK;
}

static enum status find_personas(struct making *making)
{
    const struct portable *portable = making->portable;
    uint32_t count = 0;

    for (uint32_t i = 0; i < portable->member_count; i++) {
        TRY(card_check_name("name", portable->members[i].name, making->error));
        if (portable->members[i].is_persona) {
            TRY(find_persona(making, i));
            count++;
        }
    }
    if (portable->member_count == 0 || portable->members[0].is_persona || count == 0) {
        return error_set(making->error, STATUS_BAD_INPUT,
                         "the file's members are not a human and then at least one persona");
    }
    return STATUS_OK;
}

/* Now they are wanted for good. */
static enum status put_personas(struct making *making, bool *has_news)
{
    uint64_t ticket = 0;

    for (uint32_t i = 0; i < making->portable->member_count; i++) {
        const struct catalog_put put = {.card = making->portable->members[i].card,
                                        .owner_uid = making->transfer->uid,
                                        .visibility = VISIBILITY_PRIVATE};

        if (making->fresh[i] != NULL) {
            TRY(catalog_put(making->store, &put, making->error, &ticket, &making->personas[i]));
            *has_news = true;
        }
    }
    return STATUS_OK;
}

/* ---- the session ---- */

/* As it was recorded. One that no session has yet gets a name by which contexts find it until it is
 * recorded; one that is there keeps its digest, by which other sessions' contexts name it. */
static enum status restore(struct making *making, const struct persona *persona,
                           const struct journal_prompt *row, bool is_joint, struct prompt **out)
{
    static const uint8_t unrecorded[JOURNAL_DIGEST_BYTES];
    struct prompt *prompt = NULL;

    TRY(prompt_restore(persona, &making->store->template, row, making->error, &prompt));
    if (is_joint) {
        prompt_set_joint_scope(prompt, making->transfer->uid);
    } else {
        prompt_set_scope(prompt);
    }
    TRY(state_prompt_share(making->store, prompt, making->error, out));
    if (memcmp((*out)->digest, unrecorded, sizeof(unrecorded)) == 0) {
        bytes_store_u64((*out)->digest, (*out)->scope);
    }
    return STATUS_OK;
}

static enum status make_prompt(struct making *making, struct session *session, uint32_t at,
                               struct prompt **out)
{
    const struct portable_member *member = &making->portable->members[at];
    const struct casting casting = {making->store, session, making->error};

    if (!member->has_prompt && making->is_foreign) {
        return error_set(
            making->error, STATUS_UNSUPPORTED,
            "the file hides the prompt of persona \"%.*s\", and another model made it: "
            "import it under that model",
            (int)member->persona_name.size, (const char *)member->persona_name.data);
    }
    if (!member->has_prompt) {
        return casting_make_prompt(&casting, making->personas[at], out);
    }
    return restore(making, making->personas[at], &member->prompt, false, out);
}

static enum status add_member(struct making *making, struct session *session, uint32_t at)
{
    const struct portable_member *member = &making->portable->members[at];
    struct cast *cast = &session->cast;
    struct prompt *prompt = NULL;
    enum status status;

    if (making->personas[at] != NULL) {
        TRY(make_prompt(making, session, at, &prompt));
    }
    status = cast_check_name(cast, member->name, prompt == NULL, making->error);
    if (status == STATUS_OK) {
        status = cast_add(cast, member->name, prompt, making->error);
    }
    if (status != STATUS_OK && prompt != NULL) {
        state_prompt_release(making->store, prompt);
    }
    TRY(status);
    return prompt == NULL || cast->mode != GROUP_JOINT
               ? STATUS_OK
               : cast_keep_texts(&cast->members[at], member->system, member->examples,
                                 making->error);
}

static enum status add_joint(struct making *making, struct session *session, uint32_t at)
{
    const struct portable_joint *joint = &making->portable->joints[at];
    const uint32_t first = cast_first_persona(&session->cast);
    struct prompt *prompt = NULL;
    enum status status;

    TRY(restore(making, making->personas[first], &joint->prompt, true, &prompt));
    status = prompt->template.format != TEMPLATE_PLAIN
                 ? cast_add_joint(&session->cast, prompt, joint->member_count, making->error)
                 : error_set(making->error, STATUS_BAD_INPUT,
                             "a joint prompt of the file plays plainly, which none does");
    if (status != STATUS_OK) {
        state_prompt_release(making->store, prompt);
    }
    return status;
}

/* What others own hides the prompts of a whole joint cast: they are made anew, with their texts. */
static enum status join_anew(struct making *making, struct session *session)
{
    const struct casting casting = {making->store, session, making->error};

    for (uint32_t i = 0; i < making->portable->member_count; i++) {
        const struct bytes name = making->portable->members[i].name;

        if (making->is_foreign || making->portable->members[i].has_prompt) {
            return error_set(making->error, STATUS_UNSUPPORTED,
                             "the file has a joint cast without its prompts");
        }
        if (making->personas[i] != NULL) {
            TRY(casting_add_persona(&casting, making->personas[i], NULL, 0));
        } else {
            TRY(cast_check_name(&session->cast, name, true, making->error));
            TRY(cast_add(&session->cast, name, NULL, making->error));
        }
    }
    return casting_join(&casting);
}

static enum status add_members(struct making *making, struct session *session)
{
    const struct portable *portable = making->portable;

    session->cast.mode = portable->is_joint ? GROUP_JOINT : GROUP_SEPARATE;
    if (portable->is_joint && portable->joint_count == 0) {
        return join_anew(making, session);
    }
    for (uint32_t i = 0; i < portable->member_count; i++) {
        TRY(add_member(making, session, i));
    }
    for (uint32_t i = 0; i < portable->joint_count; i++) {
        TRY(add_joint(making, session, i));
    }
    return STATUS_OK;
}

static enum status make_session(struct making *making, uint64_t id, struct session **out)
{
    const struct portable *portable = making->portable;
    struct session *session = memory_alloc(1, sizeof(*session));
    enum status status;

    if (session == NULL) {
        return error_set(making->error, STATUS_MEMORY, "out of memory for a session");
    }
    session->id = id;
    session->owner_uid = making->transfer->uid;
    session->seed = portable->seed;
    session->created_us = portable->created_us;
    session->context_tokens = portable->context_tokens;
    session->is_foreign = making->is_foreign;
    session->root.session = session;
    session->root.is_visible = true;
    session->head = &session->root;
    session->stored_head = portable->head;
    session->residence = SESSION_ABSENT;
    session->label = memory_copy_text((const char *)portable->label.data, portable->label.size);
    session->label_bytes = (uint32_t)portable->label.size;
    status = session->label != NULL
                 ? add_members(making, session)
                 : error_set(making->error, STATUS_MEMORY, "out of memory for a session");
    if (status != STATUS_OK) {
        open_session_destroy(making->store, session);
        return status;
    }
    *out = session;
    return STATUS_OK;
}

/* ---- text that comes without tokens, offsets that are left to us ---- */

static uint32_t content_count(const struct rows_node *row)
{
    if (!row->is_sampled) {
        return (uint32_t)(row->ids.size / 4);
    }
    return row->tail.size > 0 ? (uint32_t)(row->tail.size / 4) : row->kept;
}

static enum status encode(struct making *making, const struct session *session,
                          struct rows_node *row, uint32_t before)
{
    struct store *store = making->store;
    struct arena *arena = &making->portable->tree->arena;
    const uint32_t viewpoint = cast_viewpoint(&session->cast, row->node.speaker);
    const struct prompt *prompt = session->cast.members[viewpoint].prompt;
    const bool at_start = row->node.parent_id == 0 && prompt->ids.count <= 1 &&
                          prompt->template.format == TEMPLATE_PLAIN;
    struct id_list ids = {0};
    struct buffer text;
    enum status status = STATUS_OK;

    if (making->is_foreign) {
        return error_set(making->error, STATUS_UNSUPPORTED,
                         "a text comes without its tokens, and the file names another model");
    }
    buffer_init(&text, 8 * (size_t)TEXT_BYTES_MAX);
    if ((row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0) {
        status = buffer_append(&text, cast_lead(&session->cast, before, row->node.speaker));
    }
    if (status == STATUS_OK) {
        status = buffer_append(&text, row->text);
    }
    if (status == STATUS_OK) {
        status = encoder_text(&store->encoder, buffer_bytes(&text), at_start, making->error, &ids);
    }
    text.size = 0;
    if (status == STATUS_OK) {
        status = encoder_show(&store->encoder, ids.ids, ids.count, &text);
    }
    if (status == STATUS_OK && ids.count > 0) {
        row->ids =
            bytes_of(arena_copy(arena, ids.ids, (size_t)ids.count * 4), (size_t)ids.count * 4);
        row->text = bytes_of(arena_copy(arena, text.data, text.size), text.size);
        status = row->ids.data != NULL && row->text.data != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    buffer_finish(&text);
    id_list_finish(&ids);
    return status == STATUS_OK || making->error->status == status
               ? status
               : error_set(making->error, status, "out of memory for an import");
}

/* A greeting may be shared between sessions only if it is one; of one that is purged nothing is. */
static bool is_greeting(const struct session *session, const struct rows_node *row)
{
    const struct prompt *prompt = session->cast.members[row->node.speaker].prompt;

    if ((row->node.flags & JOURNAL_NODE_PURGED) != 0) {
        return true;
    }
    for (uint32_t i = 0; prompt != NULL && row->node.parent_id == 0 && !row->is_sampled &&
                         i < prompt->persona->card->greeting_count;
         i++) {
        if (bytes_equal(row->ids, bytes_of(prompt->greetings[i].ids,
                                           prompt->greetings[i].count * sizeof(uint32_t)))) {
            return true;
        }
    }
    return false;
}

static enum status check_bookmarks(const struct making *making)
{
    const struct rows_tree *tree = making->portable->tree;
    uint32_t count = 0;

    for (uint32_t i = 0; i < tree->note_count; i++) {
        const struct journal_note *note = &tree->notes[i];
        const uint32_t most = note->node_id == 0 || note->kind != JOURNAL_NOTE_BOOKMARK
                                  ? 0
                                  : content_count(&tree->nodes[note->node_id - 1]);

        if (note->kind == JOURNAL_NOTE_BOOKMARK && note->node_offset > most &&
            note->node_offset != OFFSET_END) {
            return error_set(making->error, STATUS_BAD_INPUT,
                             "bookmark \"%.*s\" lies behind the end of its node",
                             (int)note->name.size, (const char *)note->name.data);
        }
        count += note->kind == JOURNAL_NOTE_BOOKMARK;
    }
    for (uint32_t i = 0; i < tree->author_note_count; i++) {
        const struct journal_author_note *note = &tree->author_notes[i];

        if (note->node_offset >
            (note->node_id == 0 ? 0 : content_count(&tree->nodes[note->node_id - 1]))) {
            return error_set(making->error, STATUS_BAD_INPUT,
                             "a note at node %llu lies behind its end",
                             (unsigned long long)note->node_id);
        }
    }
    if (count > BOOKMARK_COUNT_MAX) {
        return error_set_limit(making->error, "BOOKMARK_COUNT_MAX", BOOKMARK_COUNT_MAX,
                               "the session has %u bookmarks, at most %u are kept", count,
                               (unsigned)BOOKMARK_COUNT_MAX);
    }
    return STATUS_OK;
}

/* In the numbers of the file. */
static enum status settle_nodes(struct making *making, const struct session *session)
{
    struct rows_tree *tree = making->portable->tree;
    uint32_t *turns = memory_alloc(tree->node_count + 1, sizeof(*turns)); /* whose the turn is */
    enum status status = STATUS_OK;

    if (turns == NULL) {
        return error_set(making->error, STATUS_MEMORY, "out of memory for an import");
    }
    turns[0] = CAST_START;
    for (uint32_t i = 0; i < tree->node_count && status == STATUS_OK; i++) {
        struct rows_node *row = &tree->nodes[i];
        const uint32_t parent = (uint32_t)row->node.parent_id;
        const bool opens = parent == 0 || (row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0;

        turns[i + 1] = opens ? row->node.speaker : turns[parent];
        if (row->node.parent_offset == OFFSET_END) {
            row->node.parent_offset = content_count(&tree->nodes[parent - 1]);
        }
        if (!row->is_sampled && row->ids.size == 0 && row->text.size > 0) {
            status = encode(making, session, row, turns[parent]);
        }
        if (!is_greeting(session, row)) {
            row->node.flags &= ~(uint32_t)JOURNAL_NODE_GREETING;
        }
    }
    memory_free(turns);
    return status == STATUS_OK ? check_bookmarks(making) : status;
}

/* ---- the trial ---- */

const struct prompt *import_prompt(const struct session *session, uint32_t at)
{
    return at >= PORTABLE_JOINT ? session->cast.joints[at - PORTABLE_JOINT].prompt
                                : session->cast.members[at].prompt;
}

static void name_prompts(const struct making *making, const struct session *session)
{
    struct rows_tree *tree = making->portable->tree;

    for (uint32_t i = 0; i < tree->context_count; i++) {
        const uint32_t at = making->portable->context_prompts[i];

        memcpy(tree->contexts[i].prompt_digest, import_prompt(session, at)->digest,
               JOURNAL_DIGEST_BYTES);
    }
}

/* The tree is made as the journal's would be, which checks all that a tree has to be. */
static enum status try_tree(const struct making *making, struct session *session)
{
    const struct rows_tree *tree = making->portable->tree;
    struct error error = {0};
    enum status status;

    name_prompts(making, session);
    status = load_tree(making->store, session, tree, &error);
    if (status == STATUS_OK) {
        residence_let_go(making->store, session);
        return STATUS_OK;
    }
    if (status == STATUS_MEMORY) {
        return error_set(making->error, status, "out of memory for an import");
    }
    return error_set(
        making->error, STATUS_BAD_INPUT, "the file makes no tree (its node 1 is %llu here): %s",
        (unsigned long long)(tree->node_count > 0 ? tree->nodes[0].node.id : 0), error.text);
}

static enum status make(struct making *making, struct session **out)
{
    struct store *store = making->store;
    struct session *session = NULL;
    bool has_news = false;
    enum status status;

    TRY(settle_session(making));
    TRY(find_personas(making));
    TRY(make_session(making, store->last_session_id + 1, &session));
    status = settle_nodes(making, session);
    if (status == STATUS_OK) {
        portable_renumber(making->portable, ++store->last_session_id, store->last_node_id + 1);
        store->last_node_id += making->portable->tree->node_count;
        session->id = store->last_session_id;
        session->stored_head = making->portable->head;
        status = try_tree(making, session);
    }
    if (status == STATUS_OK) {
        status = put_personas(making, &has_news);
    }
    if (status == STATUS_OK && has_news) {
        const struct position head = session->stored_head;
        const uint32_t head_count = session->stored_head_count;
        const uint32_t node_count = session->node_count;
        const uint64_t id = session->id;

        open_session_destroy(store, session);
        session = NULL;
        status = make_session(making, id, &session);
        if (status == STATUS_OK) {
            session->stored_head = head;
            session->stored_head_count = head_count;
            session->node_count = node_count;
        }
    }
    if (status != STATUS_OK) {
        open_session_destroy(store, session);
        return status;
    }
    *out = session;
    return STATUS_OK;
}

enum status import_make(struct store *store, struct transfer *transfer, struct error *error,
                        struct session **out)
{
    struct making making = {
        .store = store, .transfer = transfer, .portable = &transfer->portable, .error = error};
    const enum status status = make(&making, out);

    for (uint32_t i = 0; i < SESSION_CAST_COUNT_MAX; i++) {
        persona_destroy(making.fresh[i]);
    }
    return status;
}
