#include "session/import_make.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/casting.h"
#include "session/catalog.h"
#include "session/import_settle.h"
#include "session/load_trial.h"
#include "session/open.h"

enum stage { SETTLING, TRYING, DROPPING };

struct import_making {
    struct store *store;
    struct transfer *transfer; /* borrowed: it owns this */
    struct portable *portable;
    struct error *error; /* of the slice */
    enum stage stage;
    bool is_foreign;
    struct session *session; /* owned; the one that is tried */
    struct import_settling settling;
    struct load_trial *trial;                         /* owned; NULL: it is not there */
    struct persona *personas[SESSION_CAST_COUNT_MAX]; /* of each member; humans have none */
    struct persona *fresh[SESSION_CAST_COUNT_MAX];    /* owned: in no catalogue yet */
};

/* ---- defaults and limits ---- */

static enum status settle_session(struct import_making *making)
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
    return portable->has_seed ? STATUS_OK : open_draw_seed(making->error, &portable->seed);
}

static enum status check_room(const struct import_making *making)
{
    const struct store *store = making->store;

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
    return STATUS_OK;
}

/* ---- personas ---- */

/* One that the user may play with the same content. */
static struct persona *find_card(const struct import_making *making, const struct card *card)
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

static enum status find_persona(struct import_making *making, uint32_t at)
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

static enum status find_personas(struct import_making *making)
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

static void forget_personas(struct import_making *making)
{
    for (uint32_t i = 0; i < SESSION_CAST_COUNT_MAX; i++) {
        persona_destroy(making->fresh[i]);
        making->fresh[i] = NULL;
        making->personas[i] = NULL;
    }
}

/* Now they are wanted for good. */
static enum status put_personas(struct import_making *making)
{
    uint64_t ticket = 0;

    for (uint32_t i = 0; i < making->portable->member_count; i++) {
        const struct catalog_put put = {.card = making->portable->members[i].card,
                                        .owner_uid = making->transfer->uid,
                                        .visibility = VISIBILITY_PRIVATE};

        if (making->fresh[i] != NULL) {
            TRY(catalog_put(making->store, &put, making->error, &ticket, &making->personas[i]));
        }
    }
    return STATUS_OK;
}

/* ---- the session ---- */

/* As it was recorded. One that no session has yet gets a name by which contexts find it until it is
 * recorded; one that is there keeps its digest, by which other sessions' contexts name it. */
static enum status restore(struct import_making *making, const struct persona *persona,
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

static enum status make_prompt(struct import_making *making, struct session *session, uint32_t at,
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

static enum status add_member(struct import_making *making, struct session *session, uint32_t at)
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

static enum status add_joint(struct import_making *making, struct session *session, uint32_t at)
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
static enum status join_anew(struct import_making *making, struct session *session)
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

static enum status add_members(struct import_making *making, struct session *session)
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

static enum status make_session(struct import_making *making, uint64_t id, struct session **out)
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

/* ---- the trial ---- */

const struct prompt *import_prompt(const struct session *session, uint32_t at)
{
    return at >= PORTABLE_JOINT ? session->cast.joints[at - PORTABLE_JOINT].prompt
                                : session->cast.members[at].prompt;
}

static void name_prompts(const struct import_making *making)
{
    struct rows_tree *tree = making->portable->tree;

    for (uint32_t i = 0; i < tree->context_count; i++) {
        const uint32_t at = making->portable->context_prompts[i];

        memcpy(tree->contexts[i].prompt_digest, import_prompt(making->session, at)->digest,
               JOURNAL_DIGEST_BYTES);
    }
}

/* All is settled: the rows get ids that nobody has. */
static enum status begin_trial(struct import_making *making)
{
    struct store *store = making->store;
    const struct rows_tree *tree = making->portable->tree;

    portable_renumber(making->portable, making->session->id, store->last_node_id + 1);
    store->last_node_id += tree->node_count;
    making->session->stored_head = making->portable->head;
    name_prompts(making);
    return load_trial_create(store, making->session, tree, &making->trial) == STATUS_OK
               ? STATUS_OK
               : error_set(making->error, STATUS_MEMORY, "out of memory for an import");
}

/* The tree is made as the journal's would be, which checks all that a tree has to be. */
static enum status try_tree(struct import_making *making)
{
    const struct rows_tree *tree = making->portable->tree;
    struct error error = {0};
    const enum status status = load_trial_go_on(making->trial, IMPORT_SLICE_WORK, &error);

    if (status == STATUS_OK || status == STATUS_AGAIN) {
        return status;
    }
    if (status == STATUS_MEMORY) {
        return error_set(making->error, status, "out of memory for an import");
    }
    return error_set(
        making->error, STATUS_BAD_INPUT, "the file makes no tree (its node 1 is %llu here): %s",
        (unsigned long long)(tree->node_count > 0 ? tree->nodes[0].node.id : 0), error.text);
}

/* ---- slices ---- */

/* Others were served meanwhile: who is played and whether there is room is looked at once more, and
 * new personas are there only now. */
static enum status end(struct import_making *making, struct session **out)
{
    const struct position head = making->session->stored_head;
    const uint32_t head_count = making->session->stored_head_count;
    const uint32_t node_count = making->session->node_count;
    const uint64_t id = making->session->id;

    open_session_destroy(making->store, making->session); /* its prompts name personas */
    making->session = NULL;
    forget_personas(making);
    TRY(check_room(making));
    TRY(find_personas(making));
    TRY(put_personas(making));
    TRY(make_session(making, id, out));
    (*out)->stored_head = head;
    (*out)->stored_head_count = head_count;
    (*out)->node_count = node_count;
    return STATUS_OK;
}

static enum status go_on(struct import_making *making, struct session **out)
{
    enum status status = STATUS_AGAIN;

    switch (making->stage) {
    case SETTLING:
        status = import_settle(&making->settling, IMPORT_SLICE_WORK, making->error);
        if (status == STATUS_OK) {
            making->stage = TRYING;
            status = begin_trial(making);
        }
        break;
    case TRYING:
        status = try_tree(making);
        making->stage = status == STATUS_OK ? DROPPING : TRYING;
        break;
    default:
        if (load_trial_drop(making->trial, IMPORT_SLICE_WORK)) {
            making->trial = NULL;
            return end(making, out);
        }
        break;
    }
    return status == STATUS_OK ? STATUS_AGAIN : status;
}

enum status import_make_go_on(struct import_making *making, struct error *error,
                              struct session **out)
{
    making->error = error;
    return go_on(making, out);
}

/* What failed is taken down in slices, too. */
bool import_make_drop(struct import_making *making)
{
    if (making->trial != NULL && !load_trial_drop(making->trial, IMPORT_SLICE_WORK)) {
        return false;
    }
    making->trial = NULL;
    import_making_destroy(making);
    return true;
}

void import_making_destroy(struct import_making *making)
{
    if (making == NULL) {
        return;
    }
    load_trial_destroy(making->trial);
    import_settling_finish(&making->settling);
    open_session_destroy(making->store, making->session);
    forget_personas(making);
    memory_free(making);
}

static enum status begin(struct import_making *making)
{
    TRY(settle_session(making));
    TRY(check_room(making));
    TRY(find_personas(making));
    TRY(make_session(making, ++making->store->last_session_id, &making->session));
    return import_settling_init(&making->settling, making->store, making->portable,
                                making->session) == STATUS_OK
               ? STATUS_OK
               : error_set(making->error, STATUS_MEMORY, "out of memory for an import");
}

enum status import_make_begin(struct store *store, struct transfer *transfer, struct error *error,
                              struct import_making **out)
{
    struct import_making *making = memory_alloc(1, sizeof(*making));
    enum status status;

    if (making == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for an import");
    }
    making->store = store;
    making->transfer = transfer;
    making->portable = &transfer->portable;
    making->error = error;
    status = begin(making);
    if (status != STATUS_OK) {
        import_making_destroy(making);
        return status;
    }
    *out = making;
    return STATUS_OK;
}
