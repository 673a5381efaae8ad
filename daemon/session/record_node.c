#include "base/log.h"
#include "session/record.h"

/* Tokens [from, to) of a sampled node. */
static struct journal_chunk chunk_of(const struct node_sampled *sampled, uint32_t from, uint32_t to)
{
    const struct branch_output *output = &sampled->output;
    const uint32_t count = to - from;
    const uint32_t text_from = from == 0 ? 0 : output->text_ends[from - 1];
    const uint32_t text_to = to == 0 ? 0 : output->text_ends[to - 1];
    struct journal_chunk chunk = {.first = from, .count = count};

    if (count == 0) {
        return chunk;
    }
    chunk.tokens = bytes_of(output->tokens + from, count * sizeof(uint32_t));
    chunk.logprobs = bytes_of(output->logprobs + from, count * sizeof(float));
    chunk.logprobs_sampler = bytes_of(output->logprobs_sampler + from, count * sizeof(float));
    chunk.entropies = bytes_of(output->entropies + from, count * sizeof(float));
    chunk.text_ends = bytes_of(output->text_ends + from, count * sizeof(uint32_t));
    chunk.text = bytes_of(output->text + text_from, text_to - text_from);
    if (output->tops != NULL) {
        chunk.tops = bytes_of(output->tops + (size_t)from * output->top_count,
                              (size_t)count * output->top_count * sizeof(struct sample_top));
    }
    return chunk;
}

static enum status add_checkpoint(struct journal_batch *batch, const struct node *node)
{
    const struct node_sampled *sampled = node->sampled;
    const struct branch_event *event = &sampled->event;
    const struct journal_record record = {
        .kind = JOURNAL_CHECKPOINT,
        .u.checkpoint =
            {
                .node_id = node->id,
                .chunk = chunk_of(sampled, sampled->stored_count, event->sampled_count),
                .released_count = event->released_count,
                .released_bytes = event->released_bytes,
            },
    };

    return journal_batch_add(batch, &record);
}

/* Whether a sampled node has tokens that the journal has not taken. */
static bool has_news(const struct node *node)
{
    const struct node_sampled *sampled = node->sampled;

    return !sampled->is_finish_given &&
           (sampled->event.sampled_count > sampled->stored_count ||
            sampled->event.released_count > sampled->stored_released_count);
}

static void note_stored(struct node *node)
{
    node->sampled->stored_count = node->sampled->event.sampled_count;
    node->sampled->stored_released_count = node->sampled->event.released_count;
}

enum status record_checkpoint(struct store *store, struct node *node)
{
    struct journal_batch *batch = NULL;
    enum status status;

    if (!has_news(node)) {
        return STATUS_OK;
    }
    status = journal_batch_create(&batch);
    if (status == STATUS_OK) {
        status = add_checkpoint(batch, node);
    }
    if (status == STATUS_OK) {
        status = journal_submit(store->settings.journal, batch);
    }
    if (status == STATUS_OK) {
        note_stored(node);
        return STATUS_OK;
    }
    journal_batch_destroy(batch);
    if (status != STATUS_STORAGE) { /* that was told once */
        log_line(LOG_DEBUG, "session", "node %llu has no checkpoint now: %s",
                 (unsigned long long)node->id, status_text(status));
    }
    return status;
}

enum status record_finish(struct store *store, struct node *node)
{
    const struct node_sampled *sampled = node->sampled;
    const struct branch_event *event = &sampled->event;
    struct journal_record record = {
        .kind = JOURNAL_FINISH,
        .u.finish =
            {
                .node_id = node->id,
                .finished_us = node->finished_us,
                .chunk = chunk_of(sampled, sampled->stored_count, event->sampled_count),
                .finish = (uint32_t)node->finish,
                .kept = event->kept,
                .content_bytes = event->content_bytes,
                .cue_pattern = event->cue_pattern,
                .cached_count = event->context_cached_count,
                .computed_count = event->context_computed_count,
                .queued_ns = event->queued_ns,
                .first_token_ns = event->first_token_ns,
                .last_token_ns = event->last_token_ns,
                .tail = bytes_of(node->ids, node->id_count * sizeof(uint32_t)),
            },
    };
    struct journal_batch *batch = NULL;
    enum status status = journal_batch_create(&batch);

    if (node->error != NULL) {
        record.u.finish.error_status = (uint32_t)node->error->status;
        record.u.finish.error_text = bytes_of_text(node->error->text);
    }
    if (status == STATUS_OK) {
        status = journal_batch_add(batch, &record);
    }
    if (status == STATUS_OK) {
        status = journal_submit(store->settings.journal, batch);
    }
    if (status == STATUS_OK) {
        node->sampled->is_finish_given = true;
        note_stored(node);
        return STATUS_OK;
    }
    journal_batch_destroy(batch);
    return status;
}
