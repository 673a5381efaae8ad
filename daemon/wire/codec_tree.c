/* What is done to a tree beside growing it: Delete, Undelete, Purge, Label, Bookmark, Context, and
 * the deletion of sessions and personas. */
#include "limits.h"
#include "wire/codec_inside.h"

_Static_assert((int)PERSONAD__V1__SEGMENT_KIND__SEGMENT_START == (int)CONTEXT_START, "segments");

/* ---------------------------------------------------------------- requests */

static enum status nodes_decode(const uint64_t *nodes, size_t count, const char *field,
                                enum request_type type, struct error *error, struct request *out)
{
    out->type = type;
    TRY(codec_check_count(count, MARK_NODE_COUNT_MAX, "MARK_NODE_COUNT_MAX", field, error));
    if (count == 0) {
        return error_set(error, STATUS_BAD_INPUT, "%s: name at least one node", field);
    }
    out->u.nodes = (struct request_nodes){nodes, (uint32_t)count};
    return STATUS_OK;
}

static enum status session_delete_decode(const Personad__V1__SessionDeleteRequest *from,
                                         struct error *error, struct request *out)
{
    struct request_session_delete *asked = &out->u.session_delete;
    out->type = REQUEST_SESSION_DELETE;
    asked->session = from->session;
    asked->undo = from->has_undo && from->undo;
    asked->purge = from->has_purge && from->purge;
    if (asked->undo && asked->purge) {
        return error_set(error, STATUS_BAD_INPUT, "session_delete: either undo or purge, not both");
    }
    return STATUS_OK;
}

static enum status session_set_decode(const Personad__V1__SessionSetRequest *from,
                                      struct arena *arena, struct error *error, struct request *out)
{
    struct request_session_set *asked = &out->u.session_set;
    out->type = REQUEST_SESSION_SET;
    asked->session = from->session;
    asked->has_label = from->has_label;
    TRY(codec_decode_members(from->add, from->n_add, arena, error, &asked->members,
                             &asked->member_count));
    if (from->rename != NULL) {
        asked->has_name = true;
        asked->speaker = from->rename->speaker;
        TRY(codec_check_text(from->rename->name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                             "session_set.rename.name", error, &asked->name));
        if (asked->name.size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "session_set.rename: the name is empty");
        }
    }
    return codec_check_text(from->label, LABEL_BYTES_MAX, "LABEL_BYTES_MAX", "session_set.label",
                            error, &asked->label);
}

_Static_assert((int)PERSONAD__V1__INSERT_ROLE__INSERT_ASSISTANT == 2, "roles");

enum { NOTE_DEPTH_DEFAULT = 4 };

static enum status note_decode(const Personad__V1__NoteRequest *from, struct error *error,
                               struct request *out)
{
    struct request_note *asked = &out->u.note;
    out->type = REQUEST_NOTE;
    asked->session = from->session;
    codec_position(from->position, &asked->has_position, &asked->position);
    asked->has_text = from->has_text;
    asked->clear = from->has_clear && from->clear;
    asked->depth = from->has_depth ? from->depth : NOTE_DEPTH_DEFAULT;
    /* Unknown numbers stand for what a later version adds. */
    asked->role = from->has_role && from->role <= PERSONAD__V1__INSERT_ROLE__INSERT_ASSISTANT
                      ? (uint32_t)from->role
                      : 0;
    if (asked->has_text && asked->clear) {
        return error_set(error, STATUS_BAD_INPUT, "note: either a text or clear, not both");
    }
    TRY(codec_check_count(asked->depth, INSERT_DEPTH_MAX, "INSERT_DEPTH_MAX", "note.depth", error));
    return codec_check_text(from->text, NOTE_BYTES_MAX, "NOTE_BYTES_MAX", "note.text", error,
                            &asked->text);
}

static enum status bookmark_decode(const Personad__V1__BookmarkRequest *from, struct error *error,
                                   struct request *out)
{
    struct request_bookmark *asked = &out->u.bookmark;
    out->type = REQUEST_BOOKMARK;
    asked->session = from->session;
    asked->remove = from->has_remove && from->remove;
    codec_position(from->position, &asked->has_position, &asked->position);
    TRY(codec_check_text(from->name, LABEL_BYTES_MAX, "LABEL_BYTES_MAX", "bookmark.name", error,
                         &asked->name));
    if (asked->name.size == 0) {
        return error_set(error, STATUS_BAD_INPUT, "bookmark.name: a bookmark needs a name");
    }
    return STATUS_OK;
}

static uint32_t page_count(bool has, uint32_t count)
{
    return has && count > 0 && count < LIST_PAGE_COUNT_MAX ? count : LIST_PAGE_COUNT_MAX;
}

static enum status edit_decode(const Personad__V1__EditRequest *from, struct error *error,
                               struct request *out)
{
    struct request_edit *asked = &out->u.edit;
    out->type = REQUEST_EDIT;
    asked->node = from->node;
    asked->from_byte = from->from_byte;
    asked->to_byte = from->has_to_byte ? from->to_byte : OFFSET_END;
    asked->carry = from->has_carry && from->carry;
    codec_position(from->until, &asked->has_until, &asked->until);
    return codec_check_text(from->text, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "edit.text", error,
                            &asked->text);
}

static enum status label_decode(const Personad__V1__LabelRequest *from, struct error *error,
                                struct request *out)
{
    out->type = REQUEST_LABEL;
    out->u.label.node = from->node;
    return codec_check_text(from->label, LABEL_BYTES_MAX, "LABEL_BYTES_MAX", "label.label", error,
                            &out->u.label.label);
}

static void context_decode(const Personad__V1__ContextRequest *from, struct request *out)
{
    out->type = REQUEST_CONTEXT;
    out->u.context = (struct request_context){
        .node = from->node,
        .tokens = from->has_tokens && from->tokens,
        .text = from->has_text && from->text,
        .skip = from->skip,
        .count = page_count(from->has_count, from->count),
    };
}

enum status codec_decode_tree(const Personad__V1__Request *from, struct arena *arena,
                              struct error *error, struct request *out)
{
    switch (from->op_case) {
    case PERSONAD__V1__REQUEST__OP_PERSONA_DELETE:
        out->type = REQUEST_PERSONA_DELETE;
        out->u.persona_delete = from->persona_delete->id;
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_SESSION_DELETE:
        return session_delete_decode(from->session_delete, error, out);
    case PERSONAD__V1__REQUEST__OP_SESSION_SET:
        return session_set_decode(from->session_set, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_NOTE:
        return note_decode(from->note, error, out);
    case PERSONAD__V1__REQUEST__OP_BOOKMARK:
        return bookmark_decode(from->bookmark, error, out);
    case PERSONAD__V1__REQUEST__OP_BOOKMARK_LIST:
        out->type = REQUEST_BOOKMARK_LIST;
        out->u.bookmark_list = (struct request_bookmark_list){
            .session = from->bookmark_list->session,
            .skip = from->bookmark_list->skip,
            .count = page_count(from->bookmark_list->has_count, from->bookmark_list->count),
        };
        return STATUS_OK;
    case PERSONAD__V1__REQUEST__OP_DELETE:
        return nodes_decode(from->delete_->nodes, from->delete_->n_nodes, "delete.nodes",
                            REQUEST_DELETE, error, out);
    case PERSONAD__V1__REQUEST__OP_UNDELETE:
        return nodes_decode(from->undelete->nodes, from->undelete->n_nodes, "undelete.nodes",
                            REQUEST_UNDELETE, error, out);
    case PERSONAD__V1__REQUEST__OP_PURGE:
        return nodes_decode(from->purge->nodes, from->purge->n_nodes, "purge.nodes", REQUEST_PURGE,
                            error, out);
    case PERSONAD__V1__REQUEST__OP_EDIT:
        return edit_decode(from->edit, error, out);
    case PERSONAD__V1__REQUEST__OP_LABEL:
        return label_decode(from->label, error, out);
    case PERSONAD__V1__REQUEST__OP_CONTEXT:
        context_decode(from->context, out);
        return STATUS_OK;
    default:
        return STATUS_UNSUPPORTED;
    }
}

/* ---------------------------------------------------------------- replies */

static enum status bookmark_fill(const struct bookmark_view *view, struct arena *arena,
                                 Personad__V1__Bookmark *out)
{
    CODEC_SET_BYTES(out, name, view->name);
    CODEC_SET(out, created_us, view->created_us);
    out->position = codec_build_position(view->position, arena);
    return out->position != NULL ? STATUS_OK : STATUS_MEMORY;
}

enum status codec_build_bookmarks(const struct reply *reply, struct arena *arena,
                                  Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.bookmarks.count;
    Personad__V1__BookmarkListReply *body =
        codec_new(arena, &personad__v1__bookmark_list_reply__descriptor);
    Personad__V1__Bookmark **list =
        codec_new_list(arena, &personad__v1__bookmark__descriptor, count);
    if (body == NULL || list == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        TRY(bookmark_fill(&reply->u.bookmarks.items[i], arena, list[i]));
    }
    body->n_bookmarks = count;
    body->bookmarks = list;
    CODEC_SET(body, end, reply->u.bookmarks.end);
    out->result_case = PERSONAD__V1__REPLY__RESULT_BOOKMARK_LIST;
    out->bookmark_list = body;
    return STATUS_OK;
}

enum status codec_build_note(const struct reply *reply, struct arena *arena,
                             Personad__V1__Reply *out)
{
    const struct note_view *view = &reply->u.note;
    Personad__V1__NoteReply *body = codec_new(arena, &personad__v1__note_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_NOTE;
    out->note = body;
    if (!view->is_there) {
        return STATUS_OK;
    }
    body->note = codec_new(arena, &personad__v1__note__descriptor);
    if (body->note == NULL) {
        return STATUS_MEMORY;
    }
    CODEC_SET(body->note, depth, view->depth);
    CODEC_SET(body->note, role, (Personad__V1__InsertRole)view->role);
    CODEC_SET(body->note, created_us, view->created_us);
    CODEC_SET_BYTES(body->note, text, view->text);
    body->note->position = codec_build_position(view->position, arena);
    return body->note->position != NULL ? STATUS_OK : STATUS_MEMORY;
}

static void segment_fill(const struct segment_view *view, Personad__V1__ContextSegment *out)
{
    CODEC_SET(out, kind, (Personad__V1__SegmentKind)view->kind);
    CODEC_SET(out, count, view->count);
    if (view->kind == CONTEXT_NODE) {
        CODEC_SET(out, node, view->node);
        CODEC_SET(out, from, view->from);
    }
    if (view->is_hidden) {
        CODEC_SET(out, hidden, true);
    }
    if (view->ids != NULL) {
        out->n_tokens = view->count;
        out->tokens = (uint32_t *)(uintptr_t)view->ids;
    }
    CODEC_SET_BYTES(out, text, view->text);
}

enum status codec_build_context(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    const struct context_view *view = &reply->u.context;
    Personad__V1__ContextReply *body = codec_new(arena, &personad__v1__context_reply__descriptor);
    Personad__V1__ContextSegment **segments =
        codec_new_list(arena, &personad__v1__context_segment__descriptor, view->count);
    Personad__V1__NodeRange **omitted =
        codec_new_list(arena, &personad__v1__node_range__descriptor, view->omitted_count);
    if (body == NULL || segments == NULL || omitted == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        segment_fill(&view->segments[i], segments[i]);
    }
    for (uint32_t i = 0; i < view->omitted_count; i++) {
        CODEC_SET(omitted[i], node, view->omitted[i].node);
        CODEC_SET(omitted[i], from, view->omitted[i].from);
        CODEC_SET(omitted[i], count, view->omitted[i].count);
    }
    body->n_segments = view->count;
    body->segments = segments;
    body->n_omitted = view->omitted_count;
    body->omitted = omitted;
    CODEC_SET(body, end, view->end);
    CODEC_SET(body, token_count, view->token_count);
    CODEC_SET(body, segment_count, view->segment_count);
    CODEC_SET(body, speaker, view->speaker);
    CODEC_SET(body, persona, view->persona);
    CODEC_SET(body, turns_left_out, view->turns_left_out);
    out->result_case = PERSONAD__V1__REPLY__RESULT_CONTEXT;
    out->context = body;
    return STATUS_OK;
}
