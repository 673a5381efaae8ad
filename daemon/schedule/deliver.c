#include "schedule/deliver.h"

#include <string.h>

#include "base/check.h"
#include "text/byte_mask.h"

/* Tokens every byte of which lies before `bytes`. */
static uint32_t tokens_before(const struct branch *branch, uint64_t bytes, uint32_t count)
{
    while (count < branch->sampled_count && branch->spec->output->text_ends[count] <= bytes) {
        count++;
    }
    return count;
}

static void release_text(struct branch *branch)
{
    struct branch_event *event = &branch->event;

    CHECK(branch->reader.released_bytes >= event->released_bytes);
    event->released_bytes = (uint32_t)branch->reader.released_bytes;
    event->released_count = tokens_before(branch, event->released_bytes, event->released_count);
}

static void end_at(struct branch *branch, enum branch_finish finish, uint32_t kept,
                   uint32_t content_bytes)
{
    struct branch_event *event = &branch->event;

    branch->finish = finish;
    event->kept = kept;
    event->content_bytes = content_bytes;
    event->released_bytes = content_bytes;
    event->released_count = kept;
}

/* kept_max: an end token is no content though it shows nothing. */
static void end_by_text(struct branch *branch, enum branch_finish finish, uint32_t kept_max)
{
    struct branch_event *event = &branch->event;
    uint32_t kept;

    if (!branch->reader.stopped) {
        cue_reader_end(&branch->reader);
    }
    if (!branch->reader.stopped) {
        end_at(branch, finish, kept_max, branch->text_bytes);
        return;
    }
    CHECK(branch->reader.cut_bytes <= branch->text_bytes);
    CHECK(branch->reader.cut_bytes >= event->released_bytes);
    kept = tokens_before(branch, branch->reader.cut_bytes, event->released_count);
    event->cue_pattern = branch->reader.pattern;
    end_at(branch, FINISH_CUE, kept < kept_max ? kept : kept_max,
           (uint32_t)branch->reader.cut_bytes);
}

/* Reads the token that stands at the end of the output block. */
static void read_token(const struct tokenizer *tokenizer, struct branch *branch)
{
    const struct branch_spec *spec = branch->spec;
    struct branch_output *output = spec->output;
    const uint32_t index = branch->sampled_count;
    const uint32_t token = output->tokens[index];
    const bool is_end = tokenizer_is_end(tokenizer, token) && !spec->sampler->settings.ignore_end;
    struct bytes bytes = tokenizer_token_bytes(tokenizer, token);

    if (is_end) {
        bytes.size = 0;
    }
    CHECK(bytes.size <= output->text_bytes_max - branch->text_bytes);
    if (bytes.size > 0) {
        memcpy(output->text + branch->text_bytes, bytes.data, bytes.size);
    }
    branch->text_bytes += (uint32_t)bytes.size;
    output->text_ends[index] = branch->text_bytes;
    branch->sampled_count++;
    branch->event.sampled_count = branch->sampled_count;
    if (is_end) {
        end_by_text(branch, FINISH_END, index);
        return;
    }
    cue_reader_feed(&branch->reader, bytes);
    if (branch->reader.stopped) {
        end_by_text(branch, FINISH_CUE, branch->sampled_count);
    } else if (byte_rule_is_done(&spec->sampler->settings.rule,
                                 bytes_of(output->text, branch->text_bytes))) {
        end_by_text(branch, FINISH_END, branch->sampled_count);
    } else if (branch->sampled_count >= spec->sampler->settings.max_tokens) {
        end_by_text(branch, FINISH_LENGTH, branch->sampled_count);
    } else if (branch->sampled_count >= branch_sample_count_max(spec)) {
        end_by_text(branch, FINISH_CONTEXT, branch->sampled_count);
    } else {
        release_text(branch);
    }
}

void deliver_start(const struct tokenizer *tokenizer, struct branch *branch)
{
    const struct branch_spec *spec = branch->spec;

    if (spec->marks != NULL) {
        return;
    }
    cue_reader_init(&branch->reader, spec->cues, bytes_of(spec->lead_in, spec->lead_in_bytes));
    while (branch->sampled_count < spec->resume_count && branch->finish == FINISH_NONE) {
        read_token(tokenizer, branch);
    }
    branch->planned_count = branch->sampled_count;
    if (branch->finish == FINISH_NONE && branch_sample_count_max(spec) == 0) {
        end_by_text(branch, FINISH_CONTEXT, 0);
    }
}

/* The next entry of the output block. */
static void write_numbers(struct branch *branch, const struct sample_result *result)
{
    struct branch_output *output = branch->spec->output;
    const uint32_t index = branch->sampled_count;

    CHECK(branch->finish == FINISH_NONE);
    CHECK(index < output->token_count_max);
    output->tokens[index] = result->token;
    output->logprobs[index] = result->logprob;
    output->logprobs_sampler[index] = result->logprob_sampler;
    output->entropies[index] = result->entropy;
    for (uint32_t i = 0; i < output->top_count; i++) {
        const struct sample_top none = {TOKEN_NONE, 0};
        output->tops[(size_t)index * output->top_count + i] =
            i < result->top_count ? result->top[i] : none;
    }
}

static void note_time(struct branch *branch, uint64_t now_ns)
{
    branch->event.last_token_ns = now_ns - branch->submit_ns;
    if (branch->event.first_token_ns == 0) {
        branch->event.first_token_ns = branch->event.last_token_ns;
    }
}

void deliver_token(const struct tokenizer *tokenizer, struct branch *branch,
                   const struct sample_result *result, uint64_t now_ns)
{
    write_numbers(branch, result);
    read_token(tokenizer, branch);
    note_time(branch, now_ns);
}

void deliver_mark(struct branch *branch, const struct sample_result *result, uint64_t now_ns)
{
    CHECK(branch->sampled_count < branch->spec->mark_count);
    write_numbers(branch, result);
    branch->sampled_count++;
    branch->event.sampled_count = branch->sampled_count;
    note_time(branch, now_ns);
    if (branch->sampled_count == branch->spec->mark_count) {
        end_at(branch, FINISH_LENGTH, 0, 0);
    }
}

void deliver_cut(struct branch *branch, enum branch_finish finish, enum status status)
{
    CHECK(branch->finish == FINISH_NONE);
    branch->event.status = status;
    end_at(branch, finish, branch->event.released_count, branch->event.released_bytes);
}
