/* Blocking calls about who is in a session's cast. */
#include "client.h"

int client_cast(struct personad_client *client, const struct personad_cast_entry *entries,
                size_t count, struct client_cast *out)
{
    if (count > PERSONAD_CAST_COUNT_MAX) {
        return client_fail(client, PERSONAD_USAGE, "a session has at most %d speakers",
                           PERSONAD_CAST_COUNT_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        Personad__V1__CastEntry *entry = &out->entries[i];
        personad__v1__cast_entry__init(entry);
        out->list[i] = entry;
        entry->has_persona = entries[i].persona != 0;
        entry->persona = entries[i].persona;
        if (entries[i].persona_name != NULL) {
            entry->has_persona_name = true;
            entry->persona_name = data_of_string(entries[i].persona_name);
        }
        if (entries[i].human != NULL) {
            entry->has_name = true;
            entry->name = data_of_string(entries[i].human);
        }
    }
    return PERSONAD_OK;
}

static int set(personad_client *client, Personad__V1__SessionSetRequest *body,
               const struct personad_session **out)
{
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_SET, body,
                                PERSONAD__V1__REPLY__RESULT_SESSION_SET, &reply);
    if (code != PERSONAD_OK || out == NULL) {
        return code;
    }
    if (reply->session_set->session == NULL) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered without a session");
    }
    struct personad_session *session = message_alloc(client->current, 1, sizeof *session);
    if (session == NULL || !session_of(client->current, reply->session_set->session, session)) {
        return client_no_memory(client);
    }
    *out = session;
    return PERSONAD_OK;
}

int personad_session_add(personad_client *client, uint64_t session,
                         const struct personad_cast_entry *entries, size_t count,
                         const struct personad_session **out)
{
    Personad__V1__SessionSetRequest body = PERSONAD__V1__SESSION_SET_REQUEST__INIT;
    struct client_cast cast;
    const int code = client_cast(client, entries, count, &cast);
    body.has_session = true;
    body.session = session;
    body.n_add = count;
    body.add = cast.list;
    return code != PERSONAD_OK ? code : set(client, &body, out);
}

int personad_session_rename(personad_client *client, uint64_t session, uint32_t speaker,
                            const char *name, const struct personad_session **out)
{
    Personad__V1__SessionSetRequest body = PERSONAD__V1__SESSION_SET_REQUEST__INIT;
    Personad__V1__SpeakerName rename = PERSONAD__V1__SPEAKER_NAME__INIT;
    rename.has_speaker = true;
    rename.speaker = speaker;
    rename.has_name = true;
    rename.name = data_of_string(name);
    body.has_session = true;
    body.session = session;
    body.rename = &rename;
    return set(client, &body, out);
}
