#include "session/casting.h"

#include "session/catalog.h"

/* A prompt that leaves less than this for a conversation is refused. */
enum { CONVERSATION_TOKEN_COUNT_MIN = 16 };

static enum status check_size(const struct casting *casting, const struct prompt *prompt)
{
    const uint32_t most = casting->session->context_tokens;

    if (prompt->ids.count + CONVERSATION_TOKEN_COUNT_MIN > most) {
        return error_set_limit(casting->error, "context_tokens", most,
                               "the persona's prompt of %u tokens does not fit a session of %u "
                               "tokens, which needs %u more for a conversation",
                               prompt->ids.count, most, (unsigned)CONVERSATION_TOKEN_COUNT_MIN);
    }
    return STATUS_OK;
}

/* A new persona's prompt, a share of the caller's, and its texts. */
static enum status make_prompt(const struct casting *casting, const struct persona *persona,
                               const struct variable *variables, uint32_t variable_count,
                               struct prompt_texts *texts, struct prompt **out)
{
    struct store *store = casting->store;
    const struct session *session = casting->session;
    const struct prompt_values values = {
        .user = session->cast.members[CAST_HUMAN].name,
        .variables = variables,
        .variable_count = variable_count,
        .seed = session->seed,
        .now_us = session->created_us,
    };
    struct prompt *prompt = NULL;
    enum status status;

    TRY(prompt_create(persona, &store->template, &store->encoder, &values, casting->error, texts,
                      &prompt));
    status = check_size(casting, prompt);
    if (status == STATUS_OK) {
        status = state_prompt_share(store, prompt, casting->error, out);
    } else {
        prompt_destroy(prompt);
    }
    if (status != STATUS_OK) {
        buffer_finish(&texts->system);
        buffer_finish(&texts->examples);
    }
    return status;
}

/* Takes the share over. */
static enum status add_prompt(const struct casting *casting, struct prompt *prompt,
                              struct bytes system, struct bytes examples)
{
    struct cast *cast = &casting->session->cast;
    const enum status status = cast_add(cast, prompt->character, prompt, casting->error);

    if (status != STATUS_OK) {
        state_prompt_release(casting->store, prompt);
        return status;
    }
    return cast->mode == GROUP_JOINT
               ? cast_keep_texts(&cast->members[cast->count - 1], system, examples, casting->error)
               : STATUS_OK;
}

static bool has_prompt(const struct cast *cast, const struct prompt *prompt)
{
    for (uint32_t i = 0; i < cast->count; i++) {
        if (cast->members[i].prompt == prompt) {
            return true;
        }
    }
    return false;
}

static enum status add_persona(const struct casting *casting, const struct persona *persona,
                               const struct variable *variables, uint32_t variable_count,
                               bool is_repeatable)
{
    struct cast *cast = &casting->session->cast;
    struct prompt_texts texts;
    struct prompt *prompt = NULL;
    enum status status;

    TRY(make_prompt(casting, persona, variables, variable_count, &texts, &prompt));
    if (is_repeatable && has_prompt(cast, prompt)) {
        state_prompt_release(casting->store, prompt);
        status = STATUS_OK;
    } else {
        status = cast_check_name(cast, prompt->character, false, casting->error);
        if (status != STATUS_OK) {
            state_prompt_release(casting->store, prompt);
        } else {
            status = add_prompt(casting, prompt, buffer_bytes(&texts.system),
                                buffer_bytes(&texts.examples));
        }
    }
    buffer_finish(&texts.system);
    buffer_finish(&texts.examples);
    return status;
}

enum status casting_make_prompt(const struct casting *casting, const struct persona *persona,
                                struct prompt **out)
{
    struct prompt_texts texts;

    TRY(make_prompt(casting, persona, NULL, 0, &texts, out));
    buffer_finish(&texts.system);
    buffer_finish(&texts.examples);
    return STATUS_OK;
}

enum status casting_add_persona(const struct casting *casting, const struct persona *persona,
                                const struct variable *variables, uint32_t variable_count)
{
    return add_persona(casting, persona, variables, variable_count, false);
}

enum status casting_add_copy(const struct casting *casting, const struct cast_member *member)
{
    if (member->prompt == NULL) {
        return cast_add(&casting->session->cast, member->name, NULL, casting->error);
    }
    member->prompt->reference_count++;
    return add_prompt(casting, member->prompt, member->system, member->examples);
}

enum status casting_first(const struct casting *casting, const struct request_session_open *open,
                          const struct persona *persona)
{
    struct bytes user = open->user_name;

    if (user.size == 0) {
        user = persona->card->user.size > 0 ? persona->card->user : bytes_of_text("User");
    }
    TRY(card_check_name("user_name", user, casting->error));
    TRY(cast_add(&casting->session->cast, user, NULL, casting->error));
    return add_persona(casting, persona, open->variables, open->variable_count, true);
}

static bool has_human(const struct cast *cast, struct bytes name)
{
    for (uint32_t i = 0; i < cast->count; i++) {
        if (cast->members[i].prompt == NULL && bytes_equal(cast->members[i].name, name)) {
            return true;
        }
    }
    return false;
}

static enum status add_human(const struct casting *casting, const struct request_member *member,
                             bool is_repeatable)
{
    struct cast *cast = &casting->session->cast;

    if (is_repeatable && has_human(cast, member->name)) {
        return STATUS_OK;
    }
    TRY(card_check_name("cast.name", member->name, casting->error));
    TRY(cast_check_name(cast, member->name, true, casting->error));
    return cast_add(cast, member->name, NULL, casting->error);
}

static enum status add_played(const struct casting *casting, const struct request_member *member,
                              bool is_repeatable)
{
    struct persona *persona = NULL;

    TRY(catalog_find(casting->store, member->persona, member->persona_name,
                     casting->session->owner_uid, casting->error, &persona));
    return add_persona(casting, persona, member->variables, member->variable_count, is_repeatable);
}

enum status casting_add(const struct casting *casting, const struct request_member *members,
                        uint32_t count, bool is_repeatable)
{
    const struct session *session = casting->session;

    if (count > 0 && session->is_foreign) {
        return error_set(casting->error, STATUS_CONFLICT,
                         "session %llu was made with another model: nobody can join it",
                         (unsigned long long)session->id);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (members[i].name.size > 0) {
            TRY(add_human(casting, &members[i], is_repeatable));
        } else {
            TRY(add_played(casting, &members[i], is_repeatable));
        }
    }
    return STATUS_OK;
}

/* ---- joint prompts ---- */

static enum status check_play(const struct casting *casting, const struct prompt *first,
                              const struct prompt *prompt)
{
    const enum template_format format = prompt->template.format;

    if (format == TEMPLATE_PLAIN || format != first->template.format) {
        return error_set(casting->error, STATUS_CONFLICT,
                         "%.*s plays as %s and %.*s as %s: a joint group plays all its personas "
                         "alike, and none of them plainly; open it as separate",
                         (int)first->character.size, (const char *)first->character.data,
                         template_format_name(first->template.format), (int)prompt->character.size,
                         (const char *)prompt->character.data, template_format_name(format));
    }
    return STATUS_OK;
}

/* The personas of the cast as parts; *is_new: one of them is in no joint prompt yet. */
static enum status list_parts(const struct casting *casting, struct prompt_part *parts,
                              uint32_t *count, bool *is_new)
{
    const struct cast *cast = &casting->session->cast;
    const uint32_t known =
        cast->joint_count > 0 ? cast->joints[cast->joint_count - 1].member_count : 0;

    for (uint32_t i = 0; i < cast->count; i++) {
        const struct cast_member *member = &cast->members[i];

        if (member->prompt != NULL) {
            parts[(*count)++] =
                (struct prompt_part){member->prompt, member->system, member->examples};
            TRY(check_play(casting, parts[0].prompt, member->prompt));
            *is_new = *is_new || i >= known;
        }
    }
    return STATUS_OK;
}

enum status casting_join(const struct casting *casting)
{
    struct prompt_part parts[SESSION_CAST_COUNT_MAX];
    struct session *session = casting->session;
    struct cast *cast = &session->cast;
    struct prompt *prompt = NULL;
    uint32_t count = 0;
    bool is_new = false;
    enum status status;

    if (cast->mode != GROUP_JOINT) {
        return STATUS_OK;
    }
    TRY(list_parts(casting, parts, &count, &is_new));
    if (!is_new) {
        return STATUS_OK;
    }
    TRY(prompt_join(parts, count, cast->is_group, session->owner_uid, &casting->store->encoder,
                    casting->error, &prompt));
    status = check_size(casting, prompt);
    if (status != STATUS_OK) {
        prompt_destroy(prompt);
        return status;
    }
    TRY(state_prompt_share(casting->store, prompt, casting->error, &prompt));
    status = cast_add_joint(cast, prompt, cast->count, casting->error);
    if (status != STATUS_OK) {
        state_prompt_release(casting->store, prompt);
    }
    return status;
}

void casting_cut(const struct casting *casting, uint32_t count)
{
    cast_cut(&casting->session->cast, count, state_prompt_release, casting->store);
}

static bool has_spoken(struct session *session, uint32_t speaker)
{
    struct node *node = tree_next_of_all(&session->root, &session->root);

    while (node != NULL && node->speaker != speaker) {
        node = tree_next_of_all(&session->root, node);
    }
    return node != NULL;
}

enum status casting_check_rename(const struct casting *casting, uint32_t speaker, struct bytes name)
{
    struct session *session = casting->session;
    const struct cast *cast = &session->cast;

    if (speaker >= cast->count) {
        return error_set(casting->error, STATUS_BAD_INPUT,
                         "there is no speaker %u: the cast has %u", speaker, cast->count);
    }
    if (cast->members[speaker].prompt != NULL) {
        return error_set(casting->error, STATUS_CONFLICT,
                         "speaker %u is a persona: its name comes from its card", speaker);
    }
    if (bytes_equal(cast->members[speaker].name, name)) {
        return STATUS_OK;
    }
    if (speaker == CAST_HUMAN) {
        return error_set(casting->error, STATUS_CONFLICT,
                         "the name of speaker 0 stands in the personas' prompts; open a session "
                         "with the other name");
    }
    if (has_spoken(session, speaker)) {
        return error_set(casting->error, STATUS_CONFLICT,
                         "speaker %u has spoken, so the name stays; add a speaker of the other "
                         "name",
                         speaker);
    }
    TRY(card_check_name("session_set.rename.name", name, casting->error));
    return cast_check_name(cast, name, true, casting->error);
}
