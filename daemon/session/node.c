#include "session/node.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/context.h"
#include "session/cue_list.h"

static const uint32_t no_ids[1];

const uint32_t *node_content(const struct node *node, uint32_t *count)
{
    const struct node_sampled *sampled = node->sampled;

    if (sampled != NULL && !node->is_finish_visible) {
        *count = sampled->shown.released_count;
        return sampled->output.tokens;
    }
    if (sampled != NULL && node->ids == NULL) {
        *count = sampled->event.kept;
        return sampled->output.tokens;
    }
    *count = node->id_count;
    return node->ids != NULL ? node->ids : no_ids;
}

static uint32_t shown_bytes(const struct node *node)
{
    if (node->sampled == NULL) {
        return node->text_bytes;
    }
    return node->is_finish_visible ? node->sampled->event.content_bytes
                                   : node->sampled->shown.released_bytes;
}

static const uint8_t *text_of(const struct node *node)
{
    return node->sampled != NULL ? node->sampled->output.text : node->text;
}

struct bytes node_text_until(const struct node *node, uint32_t offset,
                             const struct tokenizer *tokenizer)
{
    const struct node_sampled *sampled = node->sampled;
    uint32_t count = 0;
    const uint32_t *ids = node_content(node, &count);
    size_t bytes = 0;
    /* Of the token behind what is released some bytes may be shown already: they are no content. */
    const bool is_whole = sampled == NULL || node->is_finish_visible;

    if (offset == OFFSET_END || (is_whole && offset >= count)) {
        return bytes_of(text_of(node), shown_bytes(node));
    }
    if (sampled != NULL && offset > 0 && offset <= sampled->event.released_count) {
        return bytes_of(text_of(node), sampled->output.text_ends[offset - 1]);
    }
    CHECK(offset <= count);
    for (uint32_t i = 0; i < offset; i++) {
        bytes += tokenizer_token_bytes(tokenizer, ids[i]).size;
    }
    CHECK(bytes <= shown_bytes(node));
    return bytes_of(text_of(node), bytes);
}

uint32_t node_child_count(const struct node *node)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < node->children.count; i++) {
        count += node->children.items[i]->is_visible && !node->children.items[i]->is_deleted;
    }
    return count;
}

static void view_sampled(const struct node *node, struct node_view *view)
{
    const struct node_sampled *sampled = node->sampled;
    const struct branch_event *event = node->is_finish_visible ? &sampled->event : &sampled->shown;

    view->seed = sampled->seed;
    view->context_token_count = context_token_count(sampled->context);
    view->turns_left_out = context_turns_left_out(sampled->context);
    /* A token that may still be part of a cue is not shown before the end. */
    view->sampled_count = node->is_finish_visible ? event->sampled_count : event->released_count;
    view->top_count = sampled->output.top_count;
    view->sampled = sampled->output.tokens;
    view->logprobs = sampled->output.logprobs;
    view->logprobs_sampler = sampled->output.logprobs_sampler;
    view->entropies = sampled->output.entropies;
    view->tops = sampled->output.tops;
    view->text_ends = sampled->output.text_ends;
    view->queued_us = event->queued_ns / 1000;
    view->first_token_us = event->first_token_ns / 1000;
    view->total_us = event->last_token_ns / 1000;
    view->context_cached_count = event->context_cached_count;
    view->context_computed_count = event->context_computed_count;
}

struct node_view node_view_of(const struct node *node)
{
    struct node_view view = {
        .id = node->id,
        .session = context_session_id(node),
        .created_us = node->created_us,
        .finished_us = node->is_finish_visible ? node->finished_us : 0,
        .parent = {node->parent != NULL ? node->parent->id : 0, node->parent_offset},
        .ordinal = node->ordinal,
        .speaker = node->speaker,
        .child_count = node_child_count(node),
        .origin = node->origin,
        .finish = node->is_finish_visible ? node->finish : NODE_GOING,
        .opens_turn = node->opens_turn,
        .is_deleted = node->is_deleted,
        .original = node->original,
        .label = bytes_of(node->label, node->label_bytes),
        .text = text_of(node),
        .text_bytes = shown_bytes(node),
    };

    CHECK(node->is_visible);
    view.content = node_content(node, &view.content_count);
    if (node->sampled != NULL) {
        view_sampled(node, &view);
    }
    if (node->error != NULL && node->is_finish_visible) {
        view.error = *node->error;
    }
    return view;
}

/* ---- the output block ---- */

struct block_layout {
    uint64_t tops, tokens, logprobs, logprobs_sampler, entropies, text_ends, text, bytes;
};

static struct block_layout layout_of(uint32_t token_count, uint64_t text_bytes, uint32_t top_count)
{
    const uint64_t row = (uint64_t)token_count * 4;
    struct block_layout at = {0};

    at.tops = 0;
    at.tokens = (uint64_t)token_count * top_count * sizeof(struct sample_top);
    at.logprobs = at.tokens + row;
    at.logprobs_sampler = at.logprobs + row;
    at.entropies = at.logprobs_sampler + row;
    at.text_ends = at.entropies + row;
    at.text = at.text_ends + row;
    at.bytes = at.text + text_bytes;
    return at;
}

static void carve(struct branch_output *output, void *block, uint32_t token_count,
                  uint32_t text_bytes, uint32_t top_count)
{
    const struct block_layout at = layout_of(token_count, text_bytes, top_count);
    uint8_t *base = block;

    *output = (struct branch_output){
        .token_count_max = token_count,
        .text_bytes_max = text_bytes,
        .top_count = top_count,
        .tokens = (uint32_t *)(void *)(base + at.tokens),
        .logprobs = (float *)(void *)(base + at.logprobs),
        .logprobs_sampler = (float *)(void *)(base + at.logprobs_sampler),
        .entropies = (float *)(void *)(base + at.entropies),
        .tops = top_count > 0 ? (struct sample_top *)(void *)(base + at.tops) : NULL,
        .text_ends = (uint32_t *)(void *)(base + at.text_ends),
        .text = base + at.text,
    };
}

uint64_t node_block_bytes(uint32_t token_count_max, uint32_t token_bytes_max, uint32_t top_count)
{
    return layout_of(token_count_max, (uint64_t)token_count_max * token_bytes_max, top_count).bytes;
}

enum status node_sampled_create_sized(uint32_t token_count_max, uint32_t text_bytes_max,
                                      uint32_t top_count, struct node_sampled **out)
{
    struct node_sampled *sampled = memory_alloc(1, sizeof(*sampled));

    if (sampled == NULL) {
        return STATUS_MEMORY;
    }
    sampled->block_bytes = layout_of(token_count_max, text_bytes_max, top_count).bytes;
    sampled->block =
        memory_alloc_aligned(64, 1, sampled->block_bytes > 0 ? sampled->block_bytes : 1);
    if (sampled->block == NULL) {
        memory_free(sampled);
        return STATUS_MEMORY;
    }
    carve(&sampled->output, sampled->block, token_count_max, text_bytes_max, top_count);
    *out = sampled;
    return STATUS_OK;
}

enum status node_sampled_create(uint32_t token_count_max, uint32_t token_bytes_max,
                                uint32_t top_count, struct node_sampled **out)
{
    const uint64_t text_bytes = (uint64_t)token_count_max * token_bytes_max;

    if (text_bytes > UINT32_MAX) {
        return STATUS_MEMORY;
    }
    return node_sampled_create_sized(token_count_max, (uint32_t)text_bytes, top_count, out);
}

static void copy_output(struct branch_output *to, const struct branch_output *from, uint32_t count,
                        uint32_t text_bytes)
{
    memcpy(to->tokens, from->tokens, (size_t)count * 4);
    memcpy(to->logprobs, from->logprobs, (size_t)count * 4);
    memcpy(to->logprobs_sampler, from->logprobs_sampler, (size_t)count * 4);
    memcpy(to->entropies, from->entropies, (size_t)count * 4);
    memcpy(to->text_ends, from->text_ends, (size_t)count * 4);
    memcpy(to->text, from->text, text_bytes);
    if (to->tops != NULL) {
        memcpy(to->tops, from->tops, (size_t)count * to->top_count * sizeof(*to->tops));
    }
}

void node_settle(struct node *node)
{
    struct node_sampled *sampled = node->sampled;
    const uint32_t count = sampled->event.sampled_count;
    const uint32_t text_bytes = count > 0 ? sampled->output.text_ends[count - 1] : 0;
    const uint32_t top_count = sampled->output.top_count;
    const uint64_t bytes = layout_of(count, text_bytes, top_count).bytes;
    struct branch_output output;
    void *block;

    CHECK(!sampled->is_settled);
    sampled->is_settled = true;
    block = memory_alloc_aligned(64, 1, bytes > 0 ? bytes : 1);
    if (block == NULL) {
        return; /* the large block serves as well */
    }
    carve(&output, block, count, text_bytes, top_count);
    copy_output(&output, &sampled->output, count, text_bytes);
    memory_free(sampled->block);
    sampled->block = block;
    sampled->block_bytes = bytes;
    sampled->output = output;
}

uint64_t node_stored_bytes(const struct node *node)
{
    uint64_t bytes = sizeof(*node) + node->text_bytes + node->id_count * sizeof(uint32_t);

    if (node->sampled != NULL) {
        bytes += sizeof(*node->sampled) + node->sampled->block_bytes;
    }
    return bytes;
}

static void free_parts(struct node *node)
{
    if (node->sampled != NULL) {
        if (node->sampled->sampler != NULL) {
            sampler_release(node->sampled->sampler);
        }
        context_release(node->sampled->context);
        cue_list_release(node->sampled->cue_list);
        memory_free(node->sampled->block);
        memory_free(node->sampled);
    }
    memory_free(node->ids);
    memory_free(node->text);
    memory_free(node->error);
    memory_free(node->label);
}

void node_purge(struct node *node)
{
    CHECK(node->waiters == NULL && (node->sampled == NULL || node->sampled->generation == NULL));
    free_parts(node);
    node->sampled = NULL;
    node->ids = NULL;
    node->id_count = 0;
    node->text = NULL;
    node->text_bytes = 0;
    node->error = NULL;
    node->label = NULL;
    node->label_bytes = 0;
    node->is_purged = true;
}

void node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    free_parts(node);
    memory_free(node->children.items);
    memory_free(node);
}
