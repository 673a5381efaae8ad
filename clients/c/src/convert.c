#include <string.h>

#include "client.h"

struct personad_text text_of(bool has, ProtobufCBinaryData data)
{
    if (!has) {
        return (struct personad_text){NULL, 0};
    }
    return (struct personad_text){(const char *)data.data, data.len};
}

ProtobufCBinaryData data_of(struct personad_text text)
{
    return (ProtobufCBinaryData){text.size, (uint8_t *)text.data};
}

ProtobufCBinaryData data_of_string(const char *text)
{
    return data_of((struct personad_text){text, strlen(text)});
}

Personad__V1__Position *client_position(const struct personad_position *position,
                                        Personad__V1__Position *room)
{
    if (position == NULL) {
        return NULL;
    }
    personad__v1__position__init(room);
    room->has_node = true;
    room->node = position->node;
    room->has_offset = position->offset != PERSONAD_END;
    room->offset = position->offset;
    return room;
}

struct personad_position position_of(const Personad__V1__Position *position)
{
    if (position == NULL) {
        return (struct personad_position){0, 0};
    }
    return (struct personad_position){position->node,
                                      position->has_offset ? position->offset : PERSONAD_END};
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Parallel arrays: a peer that sends them with different lengths is read as far as all go. */
struct personad_numbers numbers_of(const Personad__V1__Numbers *numbers)
{
    struct personad_numbers made = {0};
    if (numbers == NULL) {
        return made;
    }
    size_t count = least(numbers->n_tokens, numbers->n_logprobs);
    count = least(count, numbers->n_sampler_logprobs);
    count = least(count, numbers->n_entropies);
    made.first = numbers->first;
    made.count = count;
    made.tokens = numbers->tokens;
    made.logprobs = numbers->logprobs;
    made.sampler_logprobs = numbers->sampler_logprobs;
    made.entropies = numbers->entropies;
    const size_t top_count = least(numbers->n_top_tokens, numbers->n_top_logprobs);
    if (numbers->top_count > 0 && top_count >= count * numbers->top_count) {
        made.top_count = numbers->top_count;
        made.top_tokens = numbers->top_tokens;
        made.top_logprobs = numbers->top_logprobs;
    }
    return made;
}

struct personad_node node_of(const Personad__V1__NodeInfo *node)
{
    struct personad_node made = {
        .id = node->id,
        .session = node->session,
        .seed = node->seed,
        .original = node->original,
        .created_us = node->created_us,
        .finished_us = node->finished_us,
        .parent = position_of(node->parent),
        .ordinal = node->ordinal,
        .speaker = node->speaker,
        .content_tokens = node->content_tokens,
        .child_count = node->child_count,
        .context_tokens = node->context_tokens,
        .turns_left_out = node->turns_left_out,
        .origin = (int)node->origin,
        .finish = (int)node->finish,
        .opens_turn = node->opens_turn,
        .deleted = node->deleted,
        .text = text_of(node->has_text, node->text),
        .label = text_of(node->has_label, node->label),
        .content = node->content,
        .content_count = node->n_content,
        .numbers = numbers_of(node->numbers),
    };
    if (node->error != NULL) {
        made.error_text = text_of(node->error->has_text, node->error->text);
    }
    return made;
}

const struct personad_node *nodes_of(struct message *message, Personad__V1__NodeInfo *const *nodes,
                                     size_t count)
{
    struct personad_node *made = message_alloc(message, count, sizeof *made);
    for (size_t i = 0; made != NULL && i < count; i++) {
        made[i] = node_of(nodes[i]);
    }
    return made;
}

struct personad_persona persona_of(const Personad__V1__PersonaInfo *persona)
{
    return (struct personad_persona){
        .id = persona->id,
        .name = text_of(persona->has_name, persona->name),
        .description = text_of(persona->has_description, persona->description),
        .play = text_of(persona->has_play, persona->play),
        .version = persona->version,
        .owner_uid = persona->owner_uid,
        .greeting_count = persona->greeting_count,
        .is_public = persona->visibility == PERSONAD__V1__VISIBILITY__PUBLIC,
        .built_in = persona->built_in,
        .created_us = persona->created_us,
    };
}

bool session_of(struct message *message, const Personad__V1__SessionInfo *session,
                struct personad_session *out)
{
    struct personad_cast_member *cast = message_alloc(message, session->n_cast, sizeof *cast);
    if (cast == NULL) {
        return false;
    }
    for (size_t i = 0; i < session->n_cast; i++) {
        const Personad__V1__CastMember *member = session->cast[i];
        cast[i] = (struct personad_cast_member){
            member->speaker, text_of(member->has_name, member->name), member->persona};
    }
    *out = (struct personad_session){
        .id = session->id,
        .seed = session->seed,
        .node_count = session->node_count,
        .created_us = session->created_us,
        .owner_uid = session->owner_uid,
        .context_tokens = session->context_tokens,
        .label = text_of(session->has_label, session->label),
        .cast = cast,
        .cast_count = session->n_cast,
        .group_mode = (int)session->group_mode,
        .head = position_of(session->head),
    };
    return true;
}
