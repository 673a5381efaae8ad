/* Blocking calls that do something to a tree beside growing it. */
#include "client.h"

static int ask_done(struct personad_client *client, Personad__V1__Request__OpCase op, void *body)
{
    const Personad__V1__Reply *reply = NULL;
    return client_ask(client, op, body, PERSONAD__V1__REPLY__RESULT_DONE, &reply);
}

int personad_delete(personad_client *client, const uint64_t *nodes, size_t node_count)
{
    Personad__V1__DeleteRequest body = PERSONAD__V1__DELETE_REQUEST__INIT;
    body.n_nodes = node_count;
    body.nodes = (uint64_t *)nodes;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_DELETE, &body);
}

int personad_undelete(personad_client *client, const uint64_t *nodes, size_t node_count)
{
    Personad__V1__UndeleteRequest body = PERSONAD__V1__UNDELETE_REQUEST__INIT;
    body.n_nodes = node_count;
    body.nodes = (uint64_t *)nodes;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_UNDELETE, &body);
}

int personad_purge(personad_client *client, const uint64_t *nodes, size_t node_count)
{
    Personad__V1__PurgeRequest body = PERSONAD__V1__PURGE_REQUEST__INIT;
    body.n_nodes = node_count;
    body.nodes = (uint64_t *)nodes;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_PURGE, &body);
}

int personad_session_delete(personad_client *client, uint64_t session, bool undo, bool purge)
{
    Personad__V1__SessionDeleteRequest body = PERSONAD__V1__SESSION_DELETE_REQUEST__INIT;
    body.has_session = true;
    body.session = session;
    body.has_undo = undo;
    body.undo = undo;
    body.has_purge = purge;
    body.purge = purge;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_SESSION_DELETE, &body);
}

int personad_backup(personad_client *client, struct personad_text path)
{
    Personad__V1__BackupRequest body = PERSONAD__V1__BACKUP_REQUEST__INIT;
    body.has_path = true;
    body.path = data_of(path);
    return ask_done(client, PERSONAD__V1__REQUEST__OP_BACKUP, &body);
}

int personad_persona_delete(personad_client *client, uint64_t persona)
{
    Personad__V1__PersonaDeleteRequest body = PERSONAD__V1__PERSONA_DELETE_REQUEST__INIT;
    body.has_id = true;
    body.id = persona;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_PERSONA_DELETE, &body);
}

int personad_edit(personad_client *client, const struct personad_edit_options *options,
                  const struct personad_node **out, size_t *count)
{
    Personad__V1__EditRequest body = PERSONAD__V1__EDIT_REQUEST__INIT;
    Personad__V1__Position until;
    body.has_node = true;
    body.node = options->node;
    body.has_from_byte = true;
    body.from_byte = options->from_byte;
    body.has_to_byte = options->to_byte != PERSONAD_END;
    body.to_byte = options->to_byte;
    body.has_text = true;
    body.text = data_of(options->text);
    body.has_carry = true;
    body.carry = options->carry;
    body.until = client_position(options->until, &until);
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_EDIT, &body,
                                PERSONAD__V1__REPLY__RESULT_CREATED, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    *out = nodes_of(client->current, reply->created->nodes, reply->created->n_nodes);
    *count = reply->created->n_nodes;
    return *out != NULL ? PERSONAD_OK : client_no_memory(client);
}

int personad_label(personad_client *client, uint64_t node, struct personad_text label)
{
    Personad__V1__LabelRequest body = PERSONAD__V1__LABEL_REQUEST__INIT;
    body.has_node = true;
    body.node = node;
    body.has_label = true;
    body.label = data_of(label);
    return ask_done(client, PERSONAD__V1__REQUEST__OP_LABEL, &body);
}

int personad_session_label(personad_client *client, uint64_t session, struct personad_text label)
{
    Personad__V1__SessionSetRequest body = PERSONAD__V1__SESSION_SET_REQUEST__INIT;
    body.has_session = true;
    body.session = session;
    body.has_label = true;
    body.label = data_of(label);
    const Personad__V1__Reply *reply = NULL;
    return client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_SET, &body,
                      PERSONAD__V1__REPLY__RESULT_SESSION_SET, &reply);
}

/* ---------------------------------------------------------------- bookmarks */

static int bookmark(struct personad_client *client, uint64_t session, struct personad_text name,
                    const struct personad_position *position, bool remove)
{
    Personad__V1__BookmarkRequest body = PERSONAD__V1__BOOKMARK_REQUEST__INIT;
    Personad__V1__Position place;
    body.has_session = true;
    body.session = session;
    body.has_name = true;
    body.name = data_of(name);
    body.has_remove = remove;
    body.remove = remove;
    body.position = client_position(position, &place);
    return ask_done(client, PERSONAD__V1__REQUEST__OP_BOOKMARK, &body);
}

int personad_bookmark(personad_client *client, uint64_t session, struct personad_text name,
                      const struct personad_position *position)
{
    return bookmark(client, session, name, position, false);
}

int personad_bookmark_remove(personad_client *client, uint64_t session, struct personad_text name)
{
    return bookmark(client, session, name, NULL, true);
}

int personad_bookmark_list(personad_client *client, uint64_t session, uint32_t skip,
                           const struct personad_bookmark **out, size_t *count, bool *end)
{
    Personad__V1__BookmarkListRequest body = PERSONAD__V1__BOOKMARK_LIST_REQUEST__INIT;
    body.has_session = true;
    body.session = session;
    body.has_skip = true;
    body.skip = skip;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_BOOKMARK_LIST, &body,
                                PERSONAD__V1__REPLY__RESULT_BOOKMARK_LIST, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__BookmarkListReply *from = reply->bookmark_list;
    struct personad_bookmark *made =
        message_alloc(client->current, from->n_bookmarks, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_bookmarks; i++) {
        made[i] = (struct personad_bookmark){
            .name = text_of(from->bookmarks[i]->has_name, from->bookmarks[i]->name),
            .position = position_of(from->bookmarks[i]->position),
            .created_us = from->bookmarks[i]->created_us,
        };
    }
    *out = made;
    *count = from->n_bookmarks;
    *end = from->end || from->n_bookmarks == 0;
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- contexts */

static struct personad_segment segment_of(const Personad__V1__ContextSegment *segment)
{
    return (struct personad_segment){
        .kind = (int)segment->kind,
        .node = segment->node,
        .from = segment->from,
        .count = segment->count,
        .tokens = segment->n_tokens == segment->count ? segment->tokens : NULL,
        .text = text_of(segment->has_text, segment->text),
        .hidden = segment->hidden,
    };
}

int personad_context(personad_client *client, uint64_t node, uint32_t skip,
                     struct personad_context *out)
{
    Personad__V1__ContextRequest body = PERSONAD__V1__CONTEXT_REQUEST__INIT;
    body.has_node = true;
    body.node = node;
    body.has_skip = true;
    body.skip = skip;
    body.has_tokens = body.has_text = true;
    body.tokens = body.text = true;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_CONTEXT, &body,
                                PERSONAD__V1__REPLY__RESULT_CONTEXT, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__ContextReply *from = reply->context;
    struct personad_segment *made = message_alloc(client->current, from->n_segments, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_segments; i++) {
        made[i] = segment_of(from->segments[i]);
    }
    *out = (struct personad_context){
        .segments = made,
        .count = from->n_segments,
        .end = from->end || from->n_segments == 0,
        .token_count = from->token_count,
        .segment_count = from->segment_count,
        .speaker = from->speaker,
        .turns_left_out = from->turns_left_out,
        .persona = from->persona,
    };
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- notes */

static Personad__V1__NoteRequest note_request(uint64_t session,
                                              const struct personad_position *position,
                                              Personad__V1__Position *place)
{
    Personad__V1__NoteRequest body = PERSONAD__V1__NOTE_REQUEST__INIT;
    body.has_session = true;
    body.session = session;
    body.position = client_position(position, place);
    return body;
}

int personad_note(personad_client *client, uint64_t session,
                  const struct personad_position *position, struct personad_note *out)
{
    Personad__V1__Position place;
    Personad__V1__NoteRequest body = note_request(session, position, &place);
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_NOTE, &body,
                                PERSONAD__V1__REPLY__RESULT_NOTE, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    *out = (struct personad_note){0};
    const Personad__V1__Note *note = reply->note->note;
    if (note != NULL) {
        *out = (struct personad_note){
            .is_there = true,
            .position = position_of(note->position),
            .depth = note->depth,
            .role = (int)note->role,
            .created_us = note->created_us,
            .text = text_of(note->has_text, note->text),
        };
    }
    return PERSONAD_OK;
}

int personad_note_set(personad_client *client, uint64_t session,
                      const struct personad_position *position, struct personad_text text,
                      uint32_t depth, int role)
{
    Personad__V1__Position place;
    Personad__V1__NoteRequest body = note_request(session, position, &place);
    body.has_text = true;
    body.text = data_of(text);
    body.has_depth = true;
    body.depth = depth;
    body.has_role = true;
    body.role = (Personad__V1__InsertRole)role;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_NOTE, &body);
}

int personad_note_clear(personad_client *client, uint64_t session,
                        const struct personad_position *position)
{
    Personad__V1__Position place;
    Personad__V1__NoteRequest body = note_request(session, position, &place);
    body.has_clear = true;
    body.clear = true;
    return ask_done(client, PERSONAD__V1__REQUEST__OP_NOTE, &body);
}
