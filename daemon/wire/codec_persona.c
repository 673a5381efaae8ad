/* PersonaPut, PersonaGet, PersonaList. */
#include "limits.h"
#include "wire/codec_inside.h"

enum status codec_decode_persona_put(const Personad__V1__PersonaPutRequest *from,
                                     struct error *error, struct request *out)
{
    const struct bytes card = codec_view(from->card);
    TRY(codec_check_count(card.size, PERSONA_CARD_BYTES_MAX, "PERSONA_CARD_BYTES_MAX",
                          "persona_put.card, in bytes", error));
    if (card.size == 0) {
        return error_set(error, STATUS_BAD_INPUT, "persona_put.card: the card is missing");
    }
    out->type = REQUEST_PERSONA_PUT;
    out->u.persona_put.card = card;
    /* A visibility that is not known must not open anything. */
    out->u.persona_put.visibility =
        from->has_visibility && from->visibility == PERSONAD__V1__VISIBILITY__PUBLIC
            ? VISIBILITY_PUBLIC
            : VISIBILITY_PRIVATE;
    return STATUS_OK;
}

enum status codec_decode_persona_get(const Personad__V1__PersonaGetRequest *from,
                                     struct error *error, struct request *out)
{
    out->type = REQUEST_PERSONA_GET;
    out->u.persona_get.id = from->has_id ? from->id : 0;
    TRY(codec_check_text(from->name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                         "persona_get.name", error, &out->u.persona_get.name));
    if (out->u.persona_get.id == 0 && out->u.persona_get.name.size == 0) {
        return error_set(error, STATUS_BAD_INPUT, "persona_get: name a persona by id or name");
    }
    return STATUS_OK;
}

static enum status persona_fill(const struct persona_view *view, struct arena *arena,
                                Personad__V1__PersonaInfo *out)
{
    CODEC_SET(out, id, view->id);
    CODEC_SET_BYTES(out, name, view->name);
    CODEC_SET(out, version, view->version);
    CODEC_SET(out, owner_uid, view->owner_uid);
    CODEC_SET(out, visibility, (Personad__V1__Visibility)view->visibility);
    CODEC_SET(out, created_us, view->created_us);
    CODEC_SET_BYTES(out, description, view->description);
    CODEC_SET(out, greeting_count, view->greeting_count);
    CODEC_SET_BYTES(out, play, view->play);
    CODEC_SET(out, built_in, view->built_in);
    out->variables = arena_alloc(arena, view->variable_count, sizeof *out->variables);
    if (out->variables == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->variable_count; i++) {
        out->variables[i] = codec_data(view->variables[i]);
    }
    out->n_variables = view->variable_count;
    return STATUS_OK;
}

enum status codec_build_persona(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    Personad__V1__PersonaInfo *persona = codec_new(arena, &personad__v1__persona_info__descriptor);
    if (persona == NULL) {
        return STATUS_MEMORY;
    }
    TRY(persona_fill(&reply->u.persona.persona, arena, persona));
    if (reply->request == REQUEST_PERSONA_PUT) {
        Personad__V1__PersonaPutReply *body =
            codec_new(arena, &personad__v1__persona_put_reply__descriptor);
        if (body == NULL) {
            return STATUS_MEMORY;
        }
        body->persona = persona;
        out->result_case = PERSONAD__V1__REPLY__RESULT_PERSONA_PUT;
        out->persona_put = body;
        return STATUS_OK;
    }
    Personad__V1__PersonaGetReply *body =
        codec_new(arena, &personad__v1__persona_get_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->persona = persona;
    CODEC_SET_BYTES(body, card, reply->u.persona.card);
    out->result_case = PERSONAD__V1__REPLY__RESULT_PERSONA_GET;
    out->persona_get = body;
    return STATUS_OK;
}

enum status codec_build_personas(const struct reply *reply, struct arena *arena,
                                 Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.personas.count;
    Personad__V1__PersonaListReply *body =
        codec_new(arena, &personad__v1__persona_list_reply__descriptor);
    Personad__V1__PersonaInfo **list =
        codec_new_list(arena, &personad__v1__persona_info__descriptor, count);
    if (body == NULL || list == NULL) {
        return STATUS_MEMORY;
    }
    size_t size = 0;
    uint32_t taken = 0;
    while (taken < count) {
        TRY(persona_fill(&reply->u.personas.items[taken], arena, list[taken]));
        size += personad__v1__persona_info__get_packed_size(list[taken]) + CODEC_ITEM_BYTES;
        if (size > CODEC_LIST_BYTES_MAX && taken > 0) {
            break;
        }
        taken++;
    }
    body->n_personas = taken;
    body->personas = list;
    CODEC_SET(body, end, reply->u.personas.end && taken == count);
    out->result_case = PERSONAD__V1__REPLY__RESULT_PERSONA_LIST;
    out->persona_list = body;
    return STATUS_OK;
}
