#include "support/fake_backend.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "support/fake_draw.h"

enum { PAGE = KV_PAGE_TOKEN_COUNT };

/* K and V of one position. */
struct fake_slot {
    uint64_t value;
    uint32_t position;
    bool has_nan; /* it, or something it saw, is the NaN token */
};

struct fake_history {
    uint32_t *ids;
    uint32_t count;
    uint32_t prompt_count;
    uint32_t last;
};

struct fake_step {
    const struct plan *plan;
    uint64_t number;
    bool is_failing;
    struct sample_result *samples;
    uint8_t *row_faults;
};

/* What a row of the running step has become. */
struct fake_row {
    uint64_t value;
    bool has_nan;
};

struct fake {
    struct backend_settings settings;
    struct fake_behaviour behaviour;
    struct fake_slot *slots; /* [page_count][16] */
    struct fake_history *histories;
    struct fake_row *rows;
    uint32_t *partial_items; /* item of a partial */
    struct fake_step steps[BACKEND_STEP_SLOT_COUNT];
    uint32_t step_first, step_count;
    uint64_t submitted_count, row_count;
    uint32_t last_row_count;
};

static const uint64_t spoilt = 0xdeaddeaddeaddeadu;

static struct fake *fake_of(const struct backend *backend)
{
    return (struct fake *)(void *)backend;
}

enum status fake_create(const struct backend_settings *settings,
                        const struct fake_behaviour *behaviour, struct fake **out)
{
    struct fake *fake = memory_alloc(1, sizeof(*fake));

    CHECK(fake != NULL);
    fake->settings = *settings;
    fake->behaviour = *behaviour;
    fake->slots = memory_alloc((size_t)behaviour->page_count * PAGE, sizeof(*fake->slots));
    fake->histories = memory_alloc(settings->slot_count, sizeof(*fake->histories));
    fake->rows = memory_alloc(settings->row_count_max, sizeof(*fake->rows));
    fake->partial_items = memory_alloc(settings->partial_count_max, sizeof(uint32_t));
    for (uint32_t i = 0; i < settings->slot_count; i++) {
        fake->histories[i].ids = memory_alloc(settings->history_tokens_max, sizeof(uint32_t));
    }
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        fake->steps[i].samples =
            memory_alloc(settings->sample_count_max, sizeof(struct sample_result));
        fake->steps[i].row_faults = memory_alloc(settings->row_count_max, 1);
    }
    for (uint32_t i = 0; i < behaviour->page_count * PAGE; i++) {
        fake->slots[i].value = spoilt;
    }
    *out = fake;
    return STATUS_OK;
}

void fake_destroy(struct fake *fake)
{
    if (fake == NULL) {
        return;
    }
    for (uint32_t i = 0; i < fake->settings.slot_count; i++) {
        memory_free(fake->histories[i].ids);
    }
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        memory_free(fake->steps[i].samples);
        memory_free(fake->steps[i].row_faults);
    }
    memory_free(fake->slots);
    memory_free(fake->histories);
    memory_free(fake->rows);
    memory_free(fake->partial_items);
    memory_free(fake);
}

/* ---- a step ---- */

static struct fake_slot *slot_at(struct fake *fake, const struct plan *plan, uint32_t entry,
                                 uint32_t position)
{
    CHECK(entry < plan->page_entry_count);
    CHECK(plan->pages[entry] < fake->behaviour.page_count);
    return &fake->slots[plan->pages[entry] * PAGE + position % PAGE];
}

/* Whatever the step will write is worthless from now on, for older steps too. */
static void spoil_writes(struct fake *fake, const struct plan *plan)
{
    for (uint32_t r = 0; r < plan->row_count; r++) {
        const struct plan_row *row = &plan->rows[r];
        if (row->writes_kv != 0) {
            slot_at(fake, plan, row->page_first + row->position / PAGE, row->position)->value =
                spoilt;
        }
    }
    for (uint32_t i = 0; i < plan->kv_copy_count; i++) {
        for (uint32_t s = 0; s < plan->kv_copies[i].slot_count; s++) {
            fake->slots[plan->kv_copies[i].to * PAGE + s].value = spoilt;
        }
    }
}

static void check_plan(const struct fake *fake, const struct plan *plan)
{
    CHECK(plan->row_count > 0);
    CHECK(plan->row_count <= fake->settings.row_count_max);
    CHECK(plan->sample_count <= fake->settings.sample_count_max);
    CHECK(plan->logits_row_count <= fake->settings.sample_count_max);
    CHECK(plan->partial_count <= fake->settings.partial_count_max);
    CHECK(plan->item_row_count == plan->partial_count);
    CHECK(plan->row_partial_count == plan->partial_count);
    for (uint32_t i = 0; i < plan->kv_copy_count; i++) {
        CHECK(plan->kv_copies[i].from < fake->behaviour.page_count);
        CHECK(plan->kv_copies[i].to < fake->behaviour.page_count);
    }
}

static void run_histories(struct fake *fake, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->history_count; i++) {
        const struct plan_history *from = &plan->histories[i];
        CHECK(from->slot < fake->settings.slot_count);
        struct fake_history *history = &fake->histories[from->slot];
        if (from->reset != 0) {
            history->count = 0;
            history->prompt_count = from->prompt_count;
        }
        CHECK(history->count + from->count <= fake->settings.history_tokens_max);
        if (from->count > 0) {
            memcpy(history->ids + history->count, from->ids, from->count * sizeof(uint32_t));
        }
        history->count += from->count;
    }
}

static void map_partials(struct fake *fake, const struct plan *plan)
{
    uint32_t covered = 0;

    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *item = &plan->items[i];
        CHECK(item->begin % ATTENTION_BLOCK_TOKENS == 0);
        CHECK(item->end > item->begin);
        CHECK(item->end - item->begin <= ATTENTION_BLOCK_TOKENS);
        CHECK(item->row_count > 0);
        for (uint32_t j = 0; j < item->row_count; j++) {
            CHECK(item->partial_first + j < plan->partial_count);
            fake->partial_items[item->partial_first + j] = i;
            covered++;
        }
    }
    CHECK(covered == plan->partial_count);
}

/* Everything that the row attends to, block by block as the items say. Its own slot is written
 * before, so it is seen last. */
static void run_row(struct fake *fake, const struct plan *plan, uint32_t r, uint32_t token)
{
    const struct plan_row *row = &plan->rows[r];
    struct fake_row *out = &fake->rows[r];
    struct fake_slot *own =
        slot_at(fake, plan, row->page_first + row->position / PAGE, row->position);
    uint64_t seen = fake_mix(row->position, 1);
    bool has_nan = token == fake->behaviour.nan_token;
    uint32_t position = 0;

    CHECK(row->partial_count == row->position / ATTENTION_BLOCK_TOKENS + 1);
    for (uint32_t b = 0; b < row->partial_count; b++) {
        const uint32_t partial = plan->row_partials[row->partial_first + b];
        CHECK(partial < plan->partial_count);
        const struct plan_item *item = &plan->items[fake->partial_items[partial]];
        CHECK(plan->item_rows[item->row_first + partial - item->partial_first] == r);
        CHECK(item->begin == position);
        const uint32_t end = item->end < row->position + 1 ? item->end : row->position + 1;
        for (; position < end; position++) {
            const struct fake_slot *slot =
                slot_at(fake, plan, item->page_first + (position - item->begin) / PAGE, position);
            if (position < row->position) {
                seen = fake_mix(seen, slot->value ^ slot->position);
                has_nan = has_nan || slot->has_nan;
            }
        }
    }
    CHECK(position == row->position + 1);
    if (fake->behaviour.depends_on_batch) {
        seen = fake_mix(seen, plan->row_count);
    }
    if (row->writes_kv != 0) {
        own->value = fake_mix(seen, token);
        own->position = row->position;
        own->has_nan = has_nan;
    }
    out->value = fake_mix(fake_mix(seen, own->value ^ own->position), token);
    out->has_nan = has_nan || own->has_nan;
}

static void run_rows(struct fake *fake, const struct plan *plan, struct fake_step *step)
{
    map_partials(fake, plan);
    for (uint32_t r = 0; r < plan->row_count; r++) {
        uint32_t token = plan->rows[r].token;
        if ((token & PLAN_TOKEN_LAST) != 0) {
            token = fake->histories[token & ~PLAN_TOKEN_LAST].last;
        }
        run_row(fake, plan, r, token);
        step->row_faults[r] = token == fake->behaviour.fault_token;
    }
}

static void run_sample(struct fake *fake, const struct plan *plan, const struct plan_sample *sample,
                       struct sample_result *result)
{
    struct fake_history *history = &fake->histories[sample->slot];
    const struct fake_row *row = &fake->rows[plan->logits_rows[sample->logits_row]];

    CHECK(sample->slot < fake->settings.slot_count);
    if ((sample->flags & PLAN_SAMPLE_DRAFT) != 0) {
        /* One after the other: the history holds what was drawn before, which is what was drafted.
         */
        CHECK(sample > plan->samples);
        CHECK(sample[-1].slot == sample->slot);
        if (result[-1].flags != 0 || result[-1].token != sample->given) {
            memset(result, 0, sizeof(*result));
            result->flags = SAMPLE_FLAG_DROPPED;
            return;
        }
    }
    const struct fake_place place = {.value = row->value,
                                     .has_nan = row->has_nan,
                                     .history = history->ids,
                                     .history_count = history->count,
                                     .prompt_count = history->prompt_count};
    fake_draw(&place, fake->behaviour.token_count, fake->settings.vocabulary_count, sample, result);
    if ((sample->flags & PLAN_SAMPLE_GIVEN) != 0) {
        return;
    }
    CHECK(history->count < fake->settings.history_tokens_max);
    history->ids[history->count++] = result->token;
    history->last = result->token;
}

void fake_expect(const struct fake *fake, const struct fake_expectation *of,
                 const struct plan_sample *sample, struct sample_result *result)
{
    struct fake_place place = {.history = of->history,
                               .history_count = of->history_count,
                               .prompt_count = of->prompt_count};
    uint64_t *values = memory_alloc(of->count, sizeof(*values));
    uint64_t seen = 0;

    CHECK(values != NULL);
    for (uint32_t p = 0; p < of->count; p++) {
        seen = fake_mix(p, 1);
        for (uint32_t q = 0; q < p; q++) {
            seen = fake_mix(seen, values[q] ^ q);
        }
        values[p] = fake_mix(seen, of->ids[p]);
        place.has_nan = place.has_nan || of->ids[p] == fake->behaviour.nan_token;
    }
    place.value =
        fake_mix(fake_mix(seen, values[of->count - 1] ^ (of->count - 1)), of->ids[of->count - 1]);
    fake_draw(&place, fake->behaviour.token_count, fake->settings.vocabulary_count, sample, result);
    memory_free(values);
}

static void run_step(struct fake *fake, struct fake_step *step)
{
    const struct plan *plan = step->plan;

    run_histories(fake, plan);
    for (uint32_t i = 0; i < plan->kv_copy_count; i++) {
        const struct plan_kv_copy *copy = &plan->kv_copies[i];
        memcpy(&fake->slots[(size_t)copy->to * PAGE], &fake->slots[(size_t)copy->from * PAGE],
               copy->slot_count * sizeof(struct fake_slot));
    }
    run_rows(fake, plan, step);
    for (uint32_t i = 0; i < plan->sample_count; i++) {
        CHECK(plan->samples[i].logits_row < plan->logits_row_count);
        run_sample(fake, plan, &plan->samples[i], &step->samples[i]);
    }
    fake->row_count += plan->row_count;
    fake->last_row_count = plan->row_count;
}

static enum status step_submit(struct backend_program *program, const struct plan *plan,
                               uint32_t *ticket)
{
    struct fake *fake = (struct fake *)(void *)program;
    struct fake_step *step;
    uint32_t index;

    if (fake->step_count == fake->behaviour.step_slot_count) {
        return STATUS_AGAIN;
    }
    fake->submitted_count++;
    if (fake->submitted_count == fake->behaviour.fail_submit) {
        return STATUS_DEVICE;
    }
    check_plan(fake, plan);
    spoil_writes(fake, plan);
    index = (fake->step_first + fake->step_count) % fake->behaviour.step_slot_count;
    step = &fake->steps[index];
    step->plan = plan;
    step->number = fake->submitted_count;
    step->is_failing = fake->submitted_count == fake->behaviour.fail_wait;
    fake->step_count++;
    *ticket = (uint32_t)step->number;
    return STATUS_OK;
}

static enum status step_wait(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    struct fake *fake = fake_of(backend);
    struct fake_step *step = &fake->steps[fake->step_first];

    CHECK(fake->step_count > 0);
    CHECK(ticket == (uint32_t)step->number);
    fake->step_first = (fake->step_first + 1) % fake->behaviour.step_slot_count;
    fake->step_count--;
    if (step->is_failing) {
        return STATUS_DEVICE;
    }
    run_step(fake, step);
    out->samples = step->samples;
    out->row_faults = step->row_faults;
    out->elapsed_ns = fake->behaviour.base_ns + fake->behaviour.row_ns * step->plan->row_count;
    return STATUS_OK;
}

/* ---- the table ---- */

static enum status create(const struct backend_settings *settings, struct error *error,
                          struct backend **out)
{
    (void)settings;
    (void)out;
    return error_set(error, STATUS_UNSUPPORTED, "the fake backend is made by fake_create");
}

static void destroy(struct backend *backend)
{
    (void)backend;
}

static const char *describe(const struct backend *backend)
{
    (void)backend;
    return "fake: hashes";
}

static const char *numerics_id(const struct backend *backend)
{
    (void)backend;
    return "fake/1";
}

static uint32_t step_slot_count(const struct backend *backend)
{
    return fake_of(backend)->behaviour.step_slot_count;
}

static enum status weight_load(struct backend *backend, const struct weight_source *source,
                               struct error *error, struct backend_weight **out)
{
    (void)backend;
    (void)out;
    return error_set(error, STATUS_UNSUPPORTED, "no weight %s", source->name);
}

static enum status buffer_create(struct backend *backend, uint64_t float_count, struct error *error,
                                 struct backend_buffer **out)
{
    (void)backend;
    (void)float_count;
    (void)out;
    return error_set(error, STATUS_UNSUPPORTED, "no buffers");
}

static enum status buffer_write(struct backend_buffer *buffer, const float *from,
                                uint64_t float_count)
{
    (void)buffer;
    (void)from;
    (void)float_count;
    return STATUS_UNSUPPORTED;
}

static enum status buffer_read(const struct backend_buffer *buffer, uint64_t from, float *to,
                               uint64_t float_count)
{
    (void)buffer;
    (void)from;
    (void)to;
    (void)float_count;
    return STATUS_UNSUPPORTED;
}

static enum status kv_create(struct backend *backend, const struct kv_shape *shape,
                             struct error *error, struct backend_kv **out)
{
    (void)backend;
    (void)shape;
    (void)out;
    return error_set(error, STATUS_UNSUPPORTED, "KV is made with the fake");
}

static const char *fault_text(const struct backend *backend)
{
    (void)backend;
    return "as the test wants it";
}

static uint64_t memory_left(const struct backend *backend)
{
    (void)backend;
    return BACKEND_MEMORY_SHARED;
}

static uint64_t kv_page_bytes(const struct backend *backend, const struct kv_shape *shape)
{
    (void)backend;
    (void)shape;
    return PAGE * sizeof(struct fake_slot);
}

static enum status program_create(struct backend *backend, uint32_t row_count_max,
                                  struct error *error, struct backend_program **out)
{
    (void)backend;
    (void)row_count_max;
    (void)out;
    return error_set(error, STATUS_UNSUPPORTED, "the program is made with the fake");
}

static enum status program_finish(struct backend_program *program, struct error *error)
{
    (void)program;
    (void)error;
    return STATUS_OK;
}

#define X(name)                                                                                   \
    static enum status op_##name(struct backend_program *program, const struct name##_args *args, \
                                 struct error *error)                                             \
    {                                                                                             \
        (void)program;                                                                            \
        (void)args;                                                                               \
        return error_set(error, STATUS_UNSUPPORTED, "the fake records nothing");                  \
    }
BACKEND_OP_MAP(X)
#undef X

#define X(name) .name = op_##name,
static const struct backend_ops ops = {
    .name = "fake",
    .create = create,
    .destroy = destroy,
    .describe = describe,
    .numerics_id = numerics_id,
    .step_slot_count = step_slot_count,
    .fault_text = fault_text,
    .weight_load = weight_load,
    .buffer_create = buffer_create,
    .buffer_write = buffer_write,
    .buffer_read = buffer_read,
    .kv_create = kv_create,
    .kv_page_bytes = kv_page_bytes,
    .memory_left = memory_left,
    .program_create = program_create,
    .op = {BACKEND_OP_MAP(X)},
    .program_finish = program_finish,
    .step_submit = step_submit,
    .step_wait = step_wait,
    .checks_drafts = true,
};
#undef X

const struct backend_ops *fake_ops(void)
{
    return &ops;
}

struct backend *fake_backend(struct fake *fake)
{
    return (struct backend *)(void *)fake;
}

struct backend_program *fake_program(struct fake *fake)
{
    return (struct backend_program *)(void *)fake;
}

struct fake_behaviour *fake_behaviour(struct fake *fake)
{
    return &fake->behaviour;
}

uint64_t fake_step_count(const struct fake *fake)
{
    return fake->submitted_count;
}

uint64_t fake_row_count(const struct fake *fake)
{
    return fake->row_count;
}

uint32_t fake_last_row_count(const struct fake *fake)
{
    return fake->last_row_count;
}
