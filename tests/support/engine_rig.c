#include "support/engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"

enum { ALONE_STEP_COUNT_MAX = 20000, TEXT_BYTES_PER_TOKEN = 64 };

/* In the byte alphabet of byte-level BPE: U+010A is a newline, U+0120 a space, and the last two
 * show the bytes c3 and a9, which are one character together. */
static const char *const token_names[RIG_TOKEN_COUNT] = {
    "<|im_end|>", "a",    "b", "c",  "d",  "e",       "f",      "g",      "h",      "i",
    "j",          "k",    "l", "m",  "n",  "o",       "p",      "q",      "r",      "s",
    "t",          "u",    "v", "w",  "x",  "y",       "z",      "\u010a", "\u0120", "ab",
    "ca",         "User", ":", "Us", "er", "\u010ab", "\u00c3", "\u00a9", "!",      "?",
};

static struct bytes token_bytes[RIG_TOKEN_COUNT];
static uint8_t token_types[RIG_TOKEN_COUNT];

struct engine_rig_settings engine_rig_defaults(void)
{
    const struct engine_rig_settings settings = {
        .page_count = 256,
        .row_count_max = 64,
        .running_count_max = 16,
        .context_token_count_max = 1024,
        .step_slot_count = 1,
    };

    return settings;
}

static void vocabulary_fill(struct vocabulary *vocabulary)
{
    for (uint32_t i = 0; i < RIG_TOKEN_COUNT; i++) {
        token_bytes[i] = bytes_of_text(token_names[i]);
        token_types[i] = i == RIG_TOKEN_END ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    vocabulary->kind = VOCABULARY_BPE;
    vocabulary->token_count = RIG_TOKEN_COUNT;
    vocabulary->tokens = token_bytes;
    vocabulary->types = token_types;
    vocabulary->pre = bytes_of_text("");
    vocabulary->bos = TOKEN_NONE;
    vocabulary->eos = RIG_TOKEN_END;
    vocabulary->eot = TOKEN_NONE;
    vocabulary->eom = TOKEN_NONE;
    vocabulary->unknown = TOKEN_NONE;
    vocabulary->pad = TOKEN_NONE;
    vocabulary->chat_template = bytes_of_text("");
}

static uint32_t partial_count_max(const struct engine_rig_settings *settings)
{
    const uint32_t block_count = settings->context_token_count_max / ATTENTION_BLOCK_TOKENS + 1;

    return settings->partial_count_max != 0 ? settings->partial_count_max
                                            : settings->row_count_max * block_count;
}

static void fake_open(struct engine_rig *rig, const struct fake_behaviour *behaviour)
{
    const struct engine_rig_settings *settings = &rig->settings;
    const struct backend_settings backend = {
        .row_count_max = settings->row_count_max,
        .sample_count_max = settings->running_count_max,
        .slot_count = settings->running_count_max,
        .history_tokens_max = settings->context_token_count_max + 1,
        .vocabulary_count = RIG_TOKEN_COUNT,
        .partial_count_max = partial_count_max(settings),
    };

    CHECK(fake_create(&backend, behaviour, &rig->fake) == STATUS_OK);
    CHECK(forward_create_program(rig->ops, fake_backend(rig->fake), fake_program(rig->fake),
                                 &rig->forward) == STATUS_OK);
}

/* A new fake knows nothing of the old one's KV. */
static enum status restart(void *context, struct error *error, struct forward **out)
{
    struct engine_rig *rig = context;

    rig->restart_count++;
    if (rig->restart_refuse_count > 0) {
        rig->restart_refuse_count--;
        return error_set(error, STATUS_DEVICE, "the test keeps the device down");
    }
    forward_destroy(rig->forward);
    fake_destroy(rig->fake);
    fake_open(rig, &rig->restart_behaviour);
    *out = rig->forward;
    return STATUS_OK;
}

static void open_engine(struct engine_rig *rig, uint32_t branch_count_max)
{
    const struct engine_settings engine = {
        .forward = rig->forward,
        .tokenizer = rig->tokenizer,
        .page_count = rig->settings.page_count,
        .row_count_max = rig->settings.row_count_max,
        .running_count_max = rig->settings.running_count_max,
        .partial_count_max = partial_count_max(&rig->settings),
        .step_budget_ms = STEP_BUDGET_MS,
        .rest_ms = rig->settings.rest_ms,
        .context_token_count_max = rig->settings.context_token_count_max,
        .speculates = rig->settings.speculates,
        .restart = rig->settings.restarts ? restart : NULL,
        .restart_context = rig,
    };

    CHECK(engine_create(&engine, NULL, &rig->engine) == STATUS_OK);
    rig->branch_count_max = branch_count_max;
    rig->branches = memory_alloc(branch_count_max, sizeof(*rig->branches));
    rig->slot_branches = memory_alloc(BRANCH_COUNT_MAX, sizeof(uint32_t));
    CHECK(rig->branches != NULL);
    CHECK(rig->slot_branches != NULL);
    memset(rig->slot_branches, 0xff, BRANCH_COUNT_MAX * sizeof(uint32_t));
}

void engine_rig_open(struct engine_rig *rig, const struct engine_rig_settings *settings,
                     uint32_t branch_count_max)
{
    engine_rig_open_changed(rig, settings, fake_ops(), branch_count_max);
}

void engine_rig_open_changed(struct engine_rig *rig, const struct engine_rig_settings *settings,
                             const struct backend_ops *changed, uint32_t branch_count_max)
{
    const struct fake_behaviour behaviour = {
        .page_count = settings->page_count,
        .step_slot_count = settings->step_slot_count,
        .token_count = RIG_TOKEN_COUNT,
        .row_ns = 100000,
        .nan_token = TOKEN_NONE,
        .fault_token = TOKEN_NONE,
    };

    memset(rig, 0, sizeof(*rig));
    rig->settings = *settings;
    rig->ops = changed;
    vocabulary_fill(&rig->vocabulary);
    CHECK(tokenizer_create(&rig->vocabulary, NULL, &rig->tokenizer) == STATUS_OK);
    fake_open(rig, &behaviour);
    rig->restart_behaviour = behaviour;
    open_engine(rig, branch_count_max);
}

void engine_rig_open_over(struct engine_rig *rig, const struct engine_rig_settings *settings,
                          struct forward *forward, struct tokenizer *tokenizer,
                          uint32_t branch_count_max)
{
    memset(rig, 0, sizeof(*rig));
    rig->settings = *settings;
    rig->forward = forward;
    rig->tokenizer = tokenizer;
    open_engine(rig, branch_count_max);
}

static void lent_free(struct engine_rig_branch *branch)
{
    memory_free(branch->spec);
    memory_free(branch->runs);
    memory_free(branch->lent_ids);
    memory_free(branch->sampler);
    cue_set_destroy(branch->cues);
    branch->spec = NULL;
    branch->runs = NULL;
    branch->lent_ids = NULL;
    branch->sampler = NULL;
    branch->cues = NULL;
}

static void output_free(struct branch_output *output)
{
    memory_free(output->tokens);
    memory_free(output->logprobs);
    memory_free(output->logprobs_sampler);
    memory_free(output->entropies);
    memory_free(output->tops);
    memory_free(output->text_ends);
    memory_free(output->text);
}

void engine_rig_close(struct engine_rig *rig)
{
    engine_destroy(rig->engine);
    if (rig->fake != NULL) {
        forward_destroy(rig->forward);
        tokenizer_destroy(rig->tokenizer);
        fake_destroy(rig->fake);
    }
    for (uint32_t i = 0; i < rig->branch_count; i++) {
        lent_free(&rig->branches[i]);
        output_free(&rig->branches[i].output);
        memory_free(rig->branches[i].ids);
    }
    memory_free(rig->branches);
    memory_free(rig->slot_branches);
    memset(rig, 0, sizeof(*rig));
}

/* ---- lending ---- */

static void output_make(struct branch_output *output, uint32_t count_max, uint32_t top_count)
{
    output->token_count_max = count_max;
    output->text_bytes_max = count_max * TEXT_BYTES_PER_TOKEN;
    output->top_count = top_count;
    output->tokens = memory_alloc(count_max, sizeof(uint32_t));
    output->logprobs = memory_alloc(count_max, sizeof(float));
    output->logprobs_sampler = memory_alloc(count_max, sizeof(float));
    output->entropies = memory_alloc(count_max, sizeof(float));
    output->tops = top_count > 0
                       ? memory_alloc((size_t)count_max * top_count, sizeof(struct sample_top))
                       : NULL;
    output->text_ends = memory_alloc(count_max, sizeof(uint32_t));
    output->text = memory_alloc(output->text_bytes_max, 1);
    CHECK(output->text != NULL);
}

/* Cuts the context into runs: prompt, frame, and the rest. */
static uint32_t runs_make(const struct engine_rig_request *request, const uint32_t *ids,
                          struct branch_run *runs)
{
    uint32_t run_count = 0;

    for (uint32_t i = 0; i < request->count; i++) {
        uint32_t flags = i < request->prompt_count ? BRANCH_RUN_PROMPT : 0;
        if (i >= request->frame_first && i - request->frame_first < request->frame_count) {
            flags |= BRANCH_RUN_FRAME;
        }
        if (run_count == 0 || runs[run_count - 1].flags != flags) {
            runs[run_count].ids = &ids[i];
            runs[run_count].count = 0;
            runs[run_count].flags = flags;
            run_count++;
        }
        runs[run_count - 1].count++;
    }
    return run_count;
}

static uint32_t token_count_max(const struct engine_rig_request *request)
{
    if (request->marks != NULL) {
        return request->mark_count;
    }
    if (request->sampler != NULL) {
        return request->sampler->settings.max_tokens;
    }
    return request->max_tokens != 0 ? request->max_tokens : 16;
}

static struct sampler *sampler_make(const struct engine_rig_request *request)
{
    struct sampler *sampler = memory_alloc(1, sizeof(*sampler));

    CHECK(sampler != NULL);
    sampler->version = SAMPLER_VERSION;
    sampler->settings.max_tokens = token_count_max(request);
    sampler->settings.ignore_end = request->ignore_end;
    return sampler;
}

static struct cue_set *cues_make(const char *cue)
{
    const struct cue_pattern pattern = {CUE_TEXT, bytes_of_text(cue != NULL ? cue : "x")};
    struct cue_set *cues = NULL;

    CHECK(cue_set_create(&pattern, cue != NULL ? 1 : 0, NULL, &cues) == STATUS_OK);
    return cues;
}

static void spec_make(struct engine_rig *rig, const struct engine_rig_request *request,
                      struct engine_rig_branch *branch)
{
    struct branch_spec *spec = branch->spec;

    spec->slot = branch->slot;
    spec->node = rig->branch_count + 1;
    spec->user = request->user;
    spec->session = request->session;
    spec->group = request->group;
    spec->priority = request->priority;
    spec->runs = branch->runs;
    spec->run_count = runs_make(request, branch->lent_ids, branch->runs);
    spec->context_token_count = request->count;
    spec->context_room = request->room != 0 ? request->room : rig->settings.context_token_count_max;
    spec->scope.prompt = request->prompt_scope;
    spec->scope.prompt_token_count = request->prompt_count;
    spec->scope.session = request->session_scope;
    spec->sampler = request->sampler != NULL ? request->sampler : branch->sampler;
    spec->seed = request->seed;
    spec->cues = branch->cues;
    spec->marks = request->marks;
    spec->mark_count = request->mark_count;
    spec->marks_draw = request->marks_draw;
    spec->texts = request->texts;
    spec->text_count = request->text_count;
    spec->resume_count = request->resume_count;
    spec->output = &branch->output;
}

static uint32_t slot_take(struct engine_rig *rig)
{
    for (uint32_t i = 0; i < BRANCH_COUNT_MAX; i++) {
        const uint32_t slot = (rig->slot_next + i) % 64;
        if (rig->slot_branches[slot] == UINT32_MAX) {
            rig->slot_next = slot + 1;
            return slot;
        }
        if (i >= 64 && rig->slot_branches[i] == UINT32_MAX) {
            return i;
        }
    }
    CHECK(false);
    return 0;
}

uint32_t engine_rig_submit(struct engine_rig *rig, const struct engine_rig_request *request,
                           struct error *error)
{
    const uint32_t index = rig->branch_count;
    struct engine_rig_branch *branch = &rig->branches[index];

    CHECK(index < rig->branch_count_max);
    memset(branch, 0, sizeof(*branch));
    branch->slot = slot_take(rig);
    branch->count = request->count;
    branch->ids = memory_alloc(request->count, sizeof(uint32_t));
    branch->lent_ids = memory_alloc(request->count, sizeof(uint32_t));
    branch->runs = memory_alloc(request->count, sizeof(*branch->runs));
    branch->spec = memory_alloc(1, sizeof(*branch->spec));
    memcpy(branch->ids, request->ids, request->count * sizeof(uint32_t));
    memcpy(branch->lent_ids, request->ids, request->count * sizeof(uint32_t));
    branch->sampler = request->sampler == NULL ? sampler_make(request) : NULL;
    branch->cues = cues_make(request->cue);
    output_make(&branch->output, token_count_max(request), request->top_count);
    if (request->resume_count > 0) {
        memcpy(branch->output.tokens, request->resume, request->resume_count * sizeof(uint32_t));
    }
    spec_make(rig, request, branch);
    rig->branch_count++;
    if (engine_submit(rig->engine, branch->spec, error) != STATUS_OK) {
        lent_free(branch);
        branch->has_ended = true;
        return UINT32_MAX;
    }
    rig->slot_branches[branch->slot] = index;
    rig->alive_count++;
    return index;
}

/* ---- stepping ---- */

static void event_check(const struct engine_rig_branch *branch, const struct branch_event *event)
{
    const struct branch_event *before = &branch->event;

    CHECK(!branch->has_ended);
    CHECK(event->sampled_count >= before->sampled_count);
    CHECK(event->released_count >= before->released_count);
    CHECK(event->released_bytes >= before->released_bytes);
    CHECK(event->released_count <= event->sampled_count);
    CHECK(event->sampled_count <= branch->output.token_count_max);
    if (event->released_count > 0) {
        CHECK(branch->output.text_ends[event->released_count - 1] <= event->released_bytes);
    }
    if (event->finish != FINISH_NONE) {
        CHECK(event->kept <= event->sampled_count);
        CHECK(event->kept >= before->released_count);
        CHECK(event->content_bytes >= before->released_bytes);
        CHECK(event->content_bytes == event->released_bytes);
    }
}

void engine_rig_take(struct engine_rig *rig)
{
    struct branch_event event;
    uint32_t slot;

    while (engine_event_take(rig->engine, &slot, &event) == STATUS_OK) {
        CHECK(rig->slot_branches[slot] != UINT32_MAX);
        struct engine_rig_branch *branch = &rig->branches[rig->slot_branches[slot]];
        event_check(branch, &event);
        branch->event = event;
        if (event.finish != FINISH_NONE) {
            branch->has_ended = true;
            lent_free(branch);
            rig->slot_branches[slot] = UINT32_MAX;
            rig->alive_count--;
        }
    }
}

enum status engine_rig_step(struct engine_rig *rig)
{
    const enum status status = engine_step(rig->engine);

    engine_rig_take(rig);
    return status;
}

bool engine_rig_run(struct engine_rig *rig, uint32_t step_count_max)
{
    for (uint32_t i = 0; i < step_count_max && rig->alive_count > 0; i++) {
        (void)engine_rig_step(rig);
    }
    return rig->alive_count == 0;
}

/* ---- for tests with cmocka ---- */

void engine_rig_fill(uint32_t *ids, uint32_t count, uint32_t salt)
{
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = RIG_TOKEN_A + (i * 7 + salt * 13 + i * i * salt) % 26;
    }
}

uint32_t engine_rig_lend(struct engine_rig *rig, const struct engine_rig_request *request)
{
    const uint32_t index = engine_rig_submit(rig, request, NULL);

    assert_int_not_equal(index, UINT32_MAX);
    return index;
}

const struct engine_rig_branch *engine_rig_alone(struct engine_rig *rig,
                                                 const struct engine_rig_request *request)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig_request alone = *request;

    settings.page_count = 1024;
    alone.group = 0;
    engine_rig_open(rig, &settings, 1);
    engine_rig_lend(rig, &alone);
    assert_true(engine_rig_run(rig, ALONE_STEP_COUNT_MAX));
    return &rig->branches[0];
}

void engine_rig_assert_as_alone(const struct engine_rig_branch *branch,
                                const struct engine_rig_request *request)
{
    struct engine_rig rig;

    assert_true(engine_rig_equal(branch, engine_rig_alone(&rig, request)));
    engine_rig_close(&rig);
}

/* ---- comparing ---- */

static bool outputs_lead(const struct engine_rig_branch *a, const struct engine_rig_branch *b,
                         uint32_t count)
{
    const struct branch_output *x = &a->output;
    const struct branch_output *y = &b->output;
    const uint32_t text_bytes = count > 0 ? x->text_ends[count - 1] : 0;

    return memcmp(x->tokens, y->tokens, count * sizeof(uint32_t)) == 0 &&
           memcmp(x->logprobs, y->logprobs, count * sizeof(float)) == 0 &&
           memcmp(x->logprobs_sampler, y->logprobs_sampler, count * sizeof(float)) == 0 &&
           memcmp(x->entropies, y->entropies, count * sizeof(float)) == 0 &&
           memcmp(x->text_ends, y->text_ends, count * sizeof(uint32_t)) == 0 &&
           memcmp(x->text, y->text, text_bytes) == 0 &&
           (x->top_count == 0 ||
            memcmp(x->tops, y->tops, (size_t)count * x->top_count * sizeof(*x->tops)) == 0);
}

bool engine_rig_equal(const struct engine_rig_branch *a, const struct engine_rig_branch *b)
{
    return a->has_ended && b->has_ended && a->event.sampled_count == b->event.sampled_count &&
           a->event.kept == b->event.kept && a->event.content_bytes == b->event.content_bytes &&
           a->event.finish == b->event.finish && a->event.status == b->event.status &&
           outputs_lead(a, b, a->event.sampled_count);
}

bool engine_rig_leads(const struct engine_rig_branch *part, const struct engine_rig_branch *whole)
{
    return part->event.sampled_count <= whole->event.sampled_count &&
           part->event.content_bytes <= whole->event.content_bytes &&
           outputs_lead(part, whole, part->event.sampled_count);
}
