/* Expand, Keep. */
#include "limits.h"
#include "wire/codec_inside.h"

_Static_assert((int)PERSONAD__V1__EXPAND_END__EXPAND_CANCELLED == (int)EXPAND_END_CANCELLED,
               "ends of an expansion");
_Static_assert((int)PERSONAD__V1__ORIGIN__EXPANDED == (int)ORIGIN_EXPANDED, "origins");

static const double probability_default = 0.01;

enum { DEPTH_DEFAULT = 4, WIDTH_DEFAULT = 4, NODE_COUNT_DEFAULT = 256 };

/* ---------------------------------------------------------------- requests */

/* Zero would ask for nothing. */
static enum status count_decode(bool has, uint32_t from, uint32_t missing, uint32_t count_max,
                                const char *limit_name, const char *field, struct error *error,
                                uint32_t *out)
{
    *out = has ? from : missing;
    TRY(codec_check_count(*out, count_max, limit_name, field, error));
    return *out > 0 ? STATUS_OK
                    : error_set(error, STATUS_BAD_INPUT, "%s: 1 to %u", field, count_max);
}

enum status codec_decode_expand(const Personad__V1__ExpandRequest *from, struct error *error,
                                struct request *out)
{
    struct request_expand *asked = &out->u.expand;
    out->type = REQUEST_EXPAND;
    asked->place.session = from->session;
    CODEC_LOOK_PLACE(from, &asked->place);
    asked->priority = codec_priority(from->has_priority, from->priority);
    asked->probability_min =
        from->has_probability_min ? from->probability_min : probability_default;
    /* Written so that a NaN is refused. */
    if (!(asked->probability_min >= 0 && asked->probability_min <= 1)) {
        return error_set(error, STATUS_BAD_INPUT, "expand.probability_min: a number from 0 to 1");
    }
    TRY(count_decode(from->has_depth, from->depth, DEPTH_DEFAULT, EXPAND_DEPTH_MAX,
                     "EXPAND_DEPTH_MAX", "expand.depth", error, &asked->depth));
    TRY(count_decode(from->has_width, from->width, WIDTH_DEFAULT, TOP_COUNT_MAX, "TOP_COUNT_MAX",
                     "expand.width", error, &asked->width));
    return count_decode(from->has_nodes, from->nodes, NODE_COUNT_DEFAULT, EXPAND_NODE_COUNT_MAX,
                        "EXPAND_NODE_COUNT_MAX", "expand.nodes", error, &asked->node_count_max);
}

void codec_decode_keep(const Personad__V1__KeepRequest *from, struct request *out)
{
    out->type = REQUEST_KEEP;
    out->u.keep.expansion = from->expansion;
    out->u.keep.node = from->node;
}

/* ---------------------------------------------------------------- replies */

static enum status columns_alloc(Personad__V1__ExpandReply *body, uint32_t count,
                                 struct arena *arena)
{
    body->parents = arena_alloc(arena, count, sizeof *body->parents);
    body->tokens = arena_alloc(arena, count, sizeof *body->tokens);
    body->pieces = arena_alloc(arena, count, sizeof *body->pieces);
    body->logprobs = arena_alloc(arena, count, sizeof *body->logprobs);
    body->entropies = arena_alloc(arena, count, sizeof *body->entropies);
    body->joint_logprobs = arena_alloc(arena, count, sizeof *body->joint_logprobs);
    body->end_nodes = arena_alloc(arena, count, sizeof *body->end_nodes);
    return body->parents != NULL && body->tokens != NULL && body->pieces != NULL &&
                   body->logprobs != NULL && body->entropies != NULL &&
                   body->joint_logprobs != NULL && body->end_nodes != NULL
               ? STATUS_OK
               : STATUS_MEMORY;
}

static void columns_fill(const struct expand_view *view, Personad__V1__ExpandReply *body)
{
    for (uint32_t i = 0; i < view->new_count; i++) {
        const struct expanded_node_view *node = &view->nodes[i];
        body->parents[i] = node->parent;
        body->tokens[i] = node->token;
        body->pieces[i] = codec_data(node->piece);
        body->logprobs[i] = node->logprob;
        body->entropies[i] = node->entropy;
        body->joint_logprobs[i] = node->joint_logprob;
        if (node->is_end) {
            body->end_nodes[body->n_end_nodes++] = view->first + i;
        }
    }
    body->n_parents = view->new_count;
    body->n_tokens = view->new_count;
    body->n_pieces = view->new_count;
    body->n_logprobs = view->new_count;
    body->n_entropies = view->new_count;
    body->n_joint_logprobs = view->new_count;
}

enum status codec_build_expand(const struct reply *reply, struct arena *arena,
                               Personad__V1__Reply *out)
{
    const struct expand_view *view = &reply->u.expand;
    Personad__V1__ExpandReply *body = codec_new(arena, &personad__v1__expand_reply__descriptor);
    if (body == NULL || columns_alloc(body, view->new_count, arena) != STATUS_OK) {
        return STATUS_MEMORY;
    }
    columns_fill(view, body);
    CODEC_SET(body, expansion, view->expansion);
    CODEC_SET(body, level, view->level);
    CODEC_SET(body, first, view->first);
    CODEC_SET(body, node_count, view->node_count);
    CODEC_SET(body, growing_count, view->growing_count);
    CODEC_SET(body, context_tokens, view->context_token_count);
    if (view->has_end) {
        CODEC_SET(body, end, (Personad__V1__ExpandEnd)view->end);
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_EXPAND;
    out->expand = body;
    return STATUS_OK;
}
