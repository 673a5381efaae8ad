#include "session/record.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/branching.h"
#include "session/context.h"

/* ---- parts ---- */

static struct journal_origin origin_of(const struct store *store)
{
    struct journal_origin origin = {.numerics_id = bytes_of_text(store->settings.numerics_id)};

    memcpy(origin.model_hash, store->settings.model_hash, sizeof(origin.model_hash));
    return origin;
}

static struct bytes ids_of(const uint32_t *ids, uint32_t count)
{
    return bytes_of(ids, count * sizeof(uint32_t));
}

static enum status append_u32(struct buffer *out, uint32_t value)
{
    uint8_t number[4];

    bytes_store_u32(number, value);
    return buffer_append(out, bytes_of(number, sizeof(number)));
}

static enum status append_u64(struct buffer *out, uint64_t value)
{
    uint8_t number[8];

    bytes_store_u64(number, value);
    return buffer_append(out, bytes_of(number, sizeof(number)));
}

/* ---- sessions ---- */

static void hash_part(struct sha256 *hash, struct bytes part)
{
    uint8_t size[8];

    bytes_store_u64(size, part.size);
    sha256_update(hash, bytes_of(size, sizeof(size)));
    sha256_update(hash, part);
}

static void digest_prompt(struct journal_prompt *row)
{
    struct sha256 hash;
    uint8_t numbers[32];

    bytes_store_u64(numbers, row->persona_id);
    bytes_store_u64(numbers + 8, row->scope);
    bytes_store_u32(numbers + 16, row->format);
    bytes_store_u32(numbers + 20, row->end_side);
    bytes_store_u64(numbers + 24, row->is_open);
    sha256_init(&hash);
    sha256_update(&hash, bytes_of(numbers, sizeof(numbers)));
    hash_part(&hash, row->character);
    hash_part(&hash, row->user);
    hash_part(&hash, row->post_history);
    hash_part(&hash, row->ids);
    hash_part(&hash, row->greetings);
    if (row->inserts.size > 0) { /* so that prompts of version 1 keep their digest */
        hash_part(&hash, row->inserts);
    }
    sha256_finish(&hash, row->digest);
}

static enum status list_greetings(const struct prompt *prompt, struct buffer *out)
{
    for (uint32_t i = 0; i < prompt->persona->card->greeting_count; i++) {
        TRY(append_u32(out, prompt->greetings[i].count));
        TRY(buffer_append(out, ids_of(prompt->greetings[i].ids, prompt->greetings[i].count)));
    }
    return STATUS_OK;
}

enum status record_fill_prompt(const struct prompt *prompt, struct buffer *greetings,
                               struct journal_prompt *out)
{
    TRY(list_greetings(prompt, greetings));
    *out = (struct journal_prompt){
        .persona_id = prompt->persona->id,
        .scope = prompt->scope,
        .format = (uint32_t)prompt->template.format,
        .end_side = (uint32_t)prompt->end.side,
        .is_open = prompt->is_open,
        .character = prompt->character,
        .user = prompt->user,
        .post_history = buffer_bytes(&prompt->post_history),
        .ids = ids_of(prompt->ids.ids, prompt->ids.count),
        .greetings = buffer_bytes(greetings),
        .inserts = buffer_bytes(&prompt->inserts.stored),
    };
    return STATUS_OK;
}

/* Also remembers the digest, by which contexts name their prompt. */
static enum status add_prompt(struct journal_batch *batch, struct prompt *prompt)
{
    struct journal_record record = {.kind = JOURNAL_PROMPT};
    struct buffer greetings;
    enum status status;

    buffer_init(&greetings, FRAME_BODY_BYTES_MAX);
    status = record_fill_prompt(prompt, &greetings, &record.u.prompt);
    if (status == STATUS_OK) {
        digest_prompt(&record.u.prompt);
        memcpy(prompt->digest, record.u.prompt.digest, sizeof(prompt->digest));
        status = journal_batch_add(batch, &record);
    }
    buffer_finish(&greetings);
    return status;
}

enum status record_add_member(struct journal_batch *batch, const struct session *session,
                              uint32_t speaker)
{
    const struct cast_member *member = &session->cast.members[speaker];
    struct journal_record record = {
        .kind = JOURNAL_MEMBER,
        .u.member = {.session_id = session->id, .speaker = speaker, .name = member->name},
    };

    if (member->prompt != NULL) {
        TRY(add_prompt(batch, member->prompt));
        record.u.member.prompt_digest =
            bytes_of(member->prompt->digest, sizeof(member->prompt->digest));
    }
    TRY(journal_batch_add(batch, &record));
    if (member->prompt == NULL || session->cast.mode != GROUP_JOINT) {
        return STATUS_OK;
    }
    record = (struct journal_record){
        .kind = JOURNAL_PREAMBLE,
        .u.preamble = {.session_id = session->id,
                       .speaker = speaker,
                       .system = member->system,
                       .examples = member->examples},
    };
    return journal_batch_add(batch, &record);
}

enum status record_add_joint(struct journal_batch *batch, const struct session *session,
                             uint32_t index)
{
    const struct cast_joint *joint = &session->cast.joints[index];
    struct journal_record record = {
        .kind = JOURNAL_JOINT,
        .u.joint = {.session_id = session->id, .member_count = joint->member_count},
    };

    TRY(add_prompt(batch, joint->prompt));
    memcpy(record.u.joint.prompt_digest, joint->prompt->digest, JOURNAL_DIGEST_BYTES);
    return journal_batch_add(batch, &record);
}

enum status record_add_session(struct journal_batch *batch, const struct session *session,
                               const struct journal_origin *origin)
{
    const struct journal_record record = {
        .kind = JOURNAL_SESSION,
        .u.session =
            {
                .id = session->id,
                .owner_uid = session->owner_uid,
                .seed = session->seed,
                .created_us = session->created_us,
                .context_tokens = session->context_tokens,
                .head_node = session->head->id,
                .head_offset = session->head_offset,
                .group_mode = (uint32_t)session->cast.mode,
                .label = bytes_of(session->label, session->label_bytes),
                .origin = *origin,
            },
    };

    TRY(journal_batch_add(batch, &record));
    for (uint32_t i = 0; i < session->cast.count; i++) {
        TRY(record_add_member(batch, session, i));
    }
    for (uint32_t i = 0; i < session->cast.joint_count; i++) {
        TRY(record_add_joint(batch, session, i));
    }
    return STATUS_OK;
}

static enum status add_head(struct journal_batch *batch, uint64_t session_id,
                            const struct node *head, uint32_t offset)
{
    const struct journal_record record = {
        .kind = JOURNAL_HEAD,
        .u.head = {.session_id = session_id, .node_id = head->id, .offset = offset},
    };

    return journal_batch_add(batch, &record);
}

/* ---- a change ---- */

static struct journal_node skeleton_of(const struct node *node)
{
    return (struct journal_node){
        .id = node->id,
        .session_id = node->session->id,
        .parent_id = node->parent->id,
        .created_us = node->created_us,
        .parent_offset = node->parent_offset,
        .ordinal = node->ordinal,
        .speaker = node->speaker,
        .origin = (uint32_t)node->origin,
        .flags = (node->opens_turn ? JOURNAL_NODE_OPENS_TURN : 0u) |
                 (node->is_greeting ? JOURNAL_NODE_GREETING : 0u),
    };
}

static enum status add_given(struct journal_batch *batch, const struct node *node)
{
    const struct journal_record record = {
        .kind = JOURNAL_GIVEN,
        .u.given =
            {
                .node = skeleton_of(node),
                .finish = (uint32_t)node->finish,
                .original = node->original,
                .ids = ids_of(node->ids, node->id_count),
                .text = bytes_of(node->text, node->text_bytes),
            },
    };

    return journal_batch_add(batch, &record);
}

static enum status append_segment(struct buffer *out, const struct segment *segment)
{
    TRY(append_u32(out, (uint32_t)segment->kind));
    TRY(append_u32(out, segment->count));
    switch (segment->kind) {
    case SEGMENT_PROMPT:
        return STATUS_OK;
    case SEGMENT_NODE:
        TRY(append_u64(out, segment->node->id));
        return append_u32(out, segment->from);
    default:
        return buffer_append(out, ids_of(segment->ids, segment->count));
    }
}

static enum status add_context(struct journal_batch *batch, const struct session *session,
                               struct context *context)
{
    struct journal_record record = {
        .kind = JOURNAL_CONTEXT,
        .u.context =
            {
                .id = context->id,
                .session_id = session->id,
                .base_id = context->base != NULL ? context->base->id : 0,
                .base_count = context->base_count,
                .speaker = context->speaker,
                .token_count = context->token_count,
                .first_turn = context->first_turn,
                .scope_token_count = context->scope_token_count,
            },
    };
    struct buffer segments;
    enum status status = STATUS_OK;

    memcpy(record.u.context.prompt_digest, context->prompt->digest, JOURNAL_DIGEST_BYTES);
    buffer_init(&segments, SIZE_MAX / 2); /* as long as the context, which has its own bound */
    for (uint32_t i = 0; i < context->own_count && status == STATUS_OK; i++) {
        status = append_segment(&segments, &context->own[i]);
    }
    if (status == STATUS_OK) {
        record.u.context.segments = buffer_bytes(&segments);
        status = journal_batch_add(batch, &record);
    }
    buffer_finish(&segments);
    return status;
}

void record_digest_steps(struct bytes sampler, struct bytes cues,
                         uint8_t digest[JOURNAL_DIGEST_BYTES])
{
    struct sha256 hash;

    sha256_init(&hash);
    hash_part(&hash, sampler);
    hash_part(&hash, cues);
    sha256_finish(&hash, digest);
}

static enum status add_steps(struct journal_batch *batch, const struct node_sampled *sampled,
                             uint8_t digest[JOURNAL_DIGEST_BYTES])
{
    struct journal_record record = {.kind = JOURNAL_STEPS};
    struct buffer sampler;
    enum status status;

    buffer_init(&sampler, FRAME_BODY_BYTES_MAX);
    status = sampler_format(sampled->sampler, &sampler);
    if (status == STATUS_OK) {
        record.u.steps.sampler = buffer_bytes(&sampler);
        record.u.steps.cues = cue_list_bytes(sampled->cue_list);
        record_digest_steps(record.u.steps.sampler, record.u.steps.cues, digest);
        memcpy(record.u.steps.digest, digest, JOURNAL_DIGEST_BYTES);
        status = journal_batch_add(batch, &record);
    }
    buffer_finish(&sampler);
    return status;
}

static enum status add_intent(const struct store *store, struct journal_batch *batch,
                              const struct node *node, const uint8_t steps[JOURNAL_DIGEST_BYTES])
{
    const struct node_sampled *sampled = node->sampled;
    struct journal_record record = {
        .kind = JOURNAL_INTENT,
        .u.intent =
            {
                .node = skeleton_of(node),
                .seed = sampled->seed,
                .context_id = sampled->context->id,
                .room = sampled->room,
                .top_count = sampled->output.top_count,
                .origin = origin_of(store),
            },
    };

    memcpy(record.u.intent.steps_digest, steps, JOURNAL_DIGEST_BYTES);
    return journal_batch_add(batch, &record);
}

static enum status add_sampled(const struct change *change, struct journal_batch *batch)
{
    const struct generation *generation = change->generation;
    const struct sampler *stored = NULL; /* siblings share one, unless each is to be distinct */
    uint8_t steps[JOURNAL_DIGEST_BYTES];

    generation->context->id = change->nodes[change->given_count]->id;
    TRY(add_context(batch, change->session, generation->context));
    for (uint32_t i = change->given_count; i < change->count; i++) {
        const struct node_sampled *sampled = change->nodes[i]->sampled;

        if (sampled->sampler != stored) {
            TRY(add_steps(batch, sampled, steps));
            stored = sampled->sampler;
        }
        TRY(add_intent(change->store, batch, change->nodes[i], steps));
    }
    return STATUS_OK;
}

/* A node that grows still is stored as far as the new nodes hang on it, before they are: batches
 * are committed in the order in which they are submitted. */
static enum status store_parents(const struct change *change)
{
    for (uint32_t i = 0; i < change->count; i++) {
        const struct node *parent = change->nodes[i]->parent;

        if (parent->sampled != NULL &&
            change->nodes[i]->parent_offset > parent->sampled->stored_released_count) {
            TRY(record_checkpoint(change->store, change->nodes[i]->parent));
        }
    }
    return STATUS_OK;
}

static enum status add_key(const struct change *change, const struct change_answer *answer,
                           struct journal_batch *batch)
{
    struct journal_record record = {
        .kind = JOURNAL_KEY,
        .u.key =
            {
                .uid = answer->uid,
                .request = (uint32_t)answer->type,
                .session_id = change->session->id,
                .key = answer->key,
            },
    };
    struct buffer nodes;
    enum status status = STATUS_OK;

    if (answer->key.size == 0) {
        return STATUS_OK;
    }
    buffer_init(&nodes, (size_t)change->count * sizeof(uint64_t));
    for (uint32_t i = 0; i < change->count && status == STATUS_OK; i++) {
        status = append_u64(&nodes, change->nodes[i]->id);
    }
    if (status == STATUS_OK) {
        record.u.key.nodes = buffer_bytes(&nodes);
        status = journal_batch_add(batch, &record);
    }
    buffer_finish(&nodes);
    return status;
}

static enum status fill(const struct change *change, const struct change_answer *answer,
                        struct journal_batch *batch)
{
    if (answer->type == REQUEST_SESSION_OPEN) {
        const struct journal_origin origin = origin_of(change->store);

        TRY(record_add_session(batch, change->session, &origin));
    }
    TRY(store_parents(change));
    for (uint32_t i = 0; i < change->given_count; i++) {
        TRY(add_given(batch, change->nodes[i]));
    }
    if (change->generation != NULL) {
        TRY(add_sampled(change, batch));
    }
    TRY(add_key(change, answer, batch));
    if (answer->head != NULL) {
        TRY(add_head(batch, change->session->id, answer->head, OFFSET_END));
    }
    return STATUS_OK;
}

enum status record_change(const struct change *change, const struct change_answer *answer,
                          struct journal_batch **out)
{
    struct journal_batch *batch = NULL;
    enum status status;

    TRY(journal_batch_create(&batch));
    status = fill(change, answer, batch);
    if (status != STATUS_OK) {
        journal_batch_destroy(batch);
        return status;
    }
    *out = batch;
    return STATUS_OK;
}

/* ---- small ones ---- */

enum status record_submit(struct store *store, struct journal_batch *batch, struct error *error,
                          uint64_t *ticket)
{
    enum status status =
        journal_check(store->settings.journal, batch->told_count, batch->intent_count, error);

    if (status == STATUS_OK) {
        batch->ticket = store->last_ticket + 1;
        status = journal_submit(store->settings.journal, batch);
        if (status != STATUS_OK) {
            error_set(error, status, "%s", status_text(status));
        }
    }
    if (status != STATUS_OK) {
        journal_batch_destroy(batch);
        return status;
    }
    *ticket = ++store->last_ticket;
    return STATUS_OK;
}

static enum status submit_one(struct store *store, const struct journal_record *record,
                              struct error *error, uint64_t *ticket)
{
    struct journal_batch *batch = NULL;
    enum status status = journal_batch_create(&batch);

    if (status == STATUS_OK && record != NULL) {
        status = journal_batch_add(batch, record);
    }
    if (status != STATUS_OK) {
        journal_batch_destroy(batch);
        return error_set(error, status, "out of memory while something was stored");
    }
    return record_submit(store, batch, error, ticket);
}

enum status record_persona(struct store *store, const struct persona *persona, struct error *error,
                           uint64_t *ticket)
{
    const struct journal_record record = {
        .kind = JOURNAL_PERSONA,
        .u.persona =
            {
                .id = persona->id,
                .created_us = persona->created_us,
                .version = persona->version,
                .owner_uid = persona->owner_uid,
                .visibility = (uint32_t)persona->visibility,
                .card = persona->card->json,
            },
    };

    return submit_one(store, &record, error, ticket);
}

enum status record_barrier(struct store *store, struct error *error, uint64_t *ticket)
{
    return submit_one(store, NULL, error, ticket);
}

enum status record_add_mark(struct journal_batch *batch, const struct node *node, bool is_deleted,
                            bool is_purged)
{
    const struct journal_record record = {
        .kind = JOURNAL_NODE_MARK,
        .u.node_mark =
            {
                .node_id = node->id,
                .flags = (is_deleted ? JOURNAL_NODE_DELETED : 0u) |
                         (is_purged ? JOURNAL_NODE_PURGED : 0u),
            },
    };

    return journal_batch_add(batch, &record);
}

enum status record_add_note(struct journal_batch *batch, const struct journal_note *note)
{
    const struct journal_record record = {.kind = JOURNAL_NOTE, .u.note = *note};

    return journal_batch_add(batch, &record);
}

enum status record_add_head(struct journal_batch *batch, const struct session *session,
                            const struct node *head, uint32_t offset)
{
    const struct journal_record record = {
        .kind = JOURNAL_HEAD,
        .u.head = {.session_id = session->id, .node_id = head->id, .offset = offset},
    };

    return journal_batch_add(batch, &record);
}

enum status record_head(struct store *store, const struct session *session, struct error *error,
                        uint64_t *ticket)
{
    struct journal_record record = {
        .kind = JOURNAL_HEAD,
        .u.head =
            {
                .session_id = session->id,
                .node_id = session->head->id,
                .offset = session->head_offset,
            },
    };

    return submit_one(store, &record, error, ticket);
}
