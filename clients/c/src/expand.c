/* Blocking calls that grow continuations and keep one of them. */
#include <stdlib.h>
#include <string.h>

#include "client.h"

static const char *const end_names[] = {"depth", "probability", "nodes", "context", "cancelled"};

const char *personad_expand_end_name(int end)
{
    const bool known = end >= 0 && (size_t)end < sizeof end_names / sizeof end_names[0];
    return known ? end_names[end] : "unknown";
}

/* What the replies brought so far. A reply dies with the next, so the bytes of pieces are copied;
 * texts get their pointers last, since the block moves while it grows. */
struct grown {
    struct personad_expanded *nodes; /* owned */
    size_t count, capacity;
    char *bytes; /* owned */
    size_t byte_count, byte_capacity;
};

static void grown_finish(struct grown *grown)
{
    free(grown->nodes);
    free(grown->bytes);
}

static bool reserve(void **block, size_t item_bytes, size_t *capacity, size_t wanted)
{
    size_t wider = *capacity == 0 ? 1024 : *capacity;
    while (wider < wanted) {
        wider *= 2;
    }
    void *moved = wider == *capacity ? *block : realloc(*block, wider * item_bytes);
    if (moved == NULL) {
        return false;
    }
    *block = moved;
    *capacity = wider;
    return true;
}

static bool grown_reserve(struct grown *grown, const Personad__V1__ExpandReply *from)
{
    size_t byte_count = grown->byte_count;
    for (size_t i = 0; i < from->n_pieces; i++) {
        byte_count += from->pieces[i].len;
    }
    return reserve((void **)&grown->nodes, sizeof *grown->nodes, &grown->capacity,
                   grown->count + from->n_tokens) &&
           reserve((void **)&grown->bytes, 1, &grown->byte_capacity, byte_count);
}

static bool is_sound(const struct grown *grown, const Personad__V1__ExpandReply *from)
{
    const size_t count = from->n_tokens;
    bool sound = from->n_parents == count && from->n_pieces == count && from->n_logprobs == count &&
                 from->n_entropies == count && from->n_joint_logprobs == count &&
                 (count == 0 || from->first == grown->count + 1);
    for (size_t i = 0; sound && i < count; i++) {
        sound = from->parents[i] <= grown->count + i;
    }
    for (size_t i = 0; sound && i < from->n_end_nodes; i++) {
        sound = from->end_nodes[i] > grown->count && from->end_nodes[i] <= grown->count + count;
    }
    return sound;
}

static int grown_add(struct personad_client *client, struct grown *grown,
                     const Personad__V1__ExpandReply *from)
{
    if (!is_sound(grown, from)) {
        return client_fail(client, PERSONAD_PROTOCOL,
                           "the daemon's expansion does not fit "
                           "together");
    }
    if (!grown_reserve(grown, from)) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_tokens; i++) {
        const ProtobufCBinaryData piece = from->pieces[i];
        grown->nodes[grown->count + i] = (struct personad_expanded){
            .parent = from->parents[i],
            .level = from->level,
            .token = from->tokens[i],
            .logprob = from->logprobs[i],
            .entropy = from->entropies[i],
            .joint_logprob = from->joint_logprobs[i],
            .piece = {NULL, piece.len},
        };
        if (piece.len > 0) {
            memcpy(grown->bytes + grown->byte_count, piece.data, piece.len);
        }
        grown->byte_count += piece.len;
    }
    for (size_t i = 0; i < from->n_end_nodes; i++) {
        grown->nodes[from->end_nodes[i] - 1].is_end = true;
    }
    grown->count += from->n_tokens;
    return PERSONAD_OK;
}

/* A view of what is there, in memory that dies with the current message. */
static int grown_show(struct personad_client *client, const struct grown *grown,
                      const Personad__V1__ExpandReply *from, struct personad_expansion *out)
{
    struct personad_expanded *nodes = message_alloc(client->current, grown->count, sizeof *nodes);
    char *bytes = message_alloc(client->current, grown->byte_count, 1);
    size_t at = 0;
    if (nodes == NULL || bytes == NULL) {
        return client_no_memory(client);
    }
    if (grown->byte_count > 0) {
        memcpy(bytes, grown->bytes, grown->byte_count);
    }
    for (size_t i = 0; i < grown->count; i++) {
        nodes[i] = grown->nodes[i];
        nodes[i].piece.data = bytes + at;
        at += nodes[i].piece.size;
    }
    *out = (struct personad_expansion){
        .id = from->expansion,
        .nodes = nodes,
        .count = grown->count,
        .context_tokens = from->context_tokens,
        .growing_count = from->growing_count,
        .end = (int)from->end,
    };
    return PERSONAD_OK;
}

static int expand_read(struct personad_client *client, const Personad__V1__Reply *reply,
                       struct grown *grown,
                       void (*on_progress)(void *context, const struct personad_expansion *seen),
                       void *context, struct personad_expansion *out)
{
    for (;;) {
        const bool more = reply->has_more && reply->more;
        int code = grown_add(client, grown, reply->expand);
        if (code == PERSONAD_OK && (!more || on_progress != NULL)) {
            code = grown_show(client, grown, reply->expand, out);
        }
        if (code == PERSONAD_OK && on_progress != NULL) {
            on_progress(context, out);
        }
        if (code != PERSONAD_OK || !more) {
            return code;
        }
        code = client_more(client, reply->id, PERSONAD__V1__REPLY__RESULT_EXPAND, &reply);
        if (code != PERSONAD_OK) {
            return code;
        }
    }
}

int personad_expand(personad_client *client, const struct personad_expand_options *options,
                    void (*on_progress)(void *context, const struct personad_expansion *seen),
                    void *context, struct personad_expansion *out)
{
    Personad__V1__ExpandRequest body = PERSONAD__V1__EXPAND_REQUEST__INIT;
    Personad__V1__Position position;
    const struct personad_place *place = &options->place;
    body.has_session = body.has_continuing = true;
    body.session = place->session;
    body.has_speaker = place->has_speaker;
    body.speaker = place->speaker;
    body.continuing = place->continuing;
    body.position = client_position(place->position, &position);
    body.has_depth = options->depth != 0;
    body.depth = options->depth;
    body.has_width = options->width != 0;
    body.width = options->width;
    body.has_nodes = options->node_count != 0;
    body.nodes = options->node_count;
    body.has_probability_min = options->has_probability_min;
    body.probability_min = options->probability_min;
    const Personad__V1__Reply *reply = NULL;
    struct grown grown = {0};
    int code = client_ask(client, PERSONAD__V1__REQUEST__OP_EXPAND, &body,
                          PERSONAD__V1__REPLY__RESULT_EXPAND, &reply);
    if (code == PERSONAD_OK) {
        code = expand_read(client, reply, &grown, on_progress, context, out);
    }
    grown_finish(&grown);
    return code;
}

int personad_keep(personad_client *client, uint64_t expansion, uint32_t node,
                  const struct personad_node **out)
{
    Personad__V1__KeepRequest body = PERSONAD__V1__KEEP_REQUEST__INIT;
    body.has_expansion = body.has_node = true;
    body.expansion = expansion;
    body.node = node;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_KEEP, &body,
                                PERSONAD__V1__REPLY__RESULT_CREATED, &reply);
    return code == PERSONAD_OK ? client_one_node(client, reply, out) : code;
}
