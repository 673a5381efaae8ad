/* The plan as flat data, and the kernel that begins a step.
 *
 * Maths and shapes: struct plan in backend.h; histories, then tokens, then everything else.
 * Bound by: the latency of one launch; a few ids a step.
 * Launch:   one block of BEGIN_THREADS: a slot may have several histories, applied in order. It is
 *           the first of a graph: the upload before it has ended.
 * Order:    no arithmetic.
 * Checked:  tests/emulator/test_backend_cuda.cpp
 */
#include "kernels/cuda/plan.cuh"

#include <string.h>

#include "base/check.h"
#include "kernels/cuda/prim.cuh"

enum { BEGIN_THREADS = 256, ALIGNMENT = 16 };

/* ---- packing ---- */

struct packing {
    uint8_t *host;
    const uint8_t *device;
    uint64_t room_bytes;
    uint64_t used_bytes;
    bool full;
};

static uint64_t aligned(uint64_t size_bytes)
{
    return (size_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Room for an array: host memory to fill, and where the card will have it. NULL when full. */
static void *take(struct packing *packing, uint64_t count, uint64_t bytes, const void **device)
{
    const uint64_t at = packing->used_bytes;

    if (packing->full || count * bytes > packing->room_bytes - at) {
        packing->full = true;
        *device = NULL;
        return NULL;
    }
    packing->used_bytes = aligned(at + count * bytes);
    *device = packing->device + at;
    return packing->host + at;
}

static const void *put(struct packing *packing, const void *from, uint64_t count, uint64_t bytes)
{
    const void *device;
    void *to = take(packing, count, bytes, &device);

    if (to != NULL && count > 0) {
        memcpy(to, from, count * bytes);
    }
    return device;
}

/* Lists of 32-bit words, one after another: the last array of a plan. */
struct words {
    uint32_t *data;
    uint64_t count;
    uint64_t count_max;
    bool full;
};

static uint32_t put_words(struct words *words, const void *from, uint64_t count)
{
    const uint64_t at = words->count;

    if (words->full || count > words->count_max - at) {
        words->full = true;
        return 0;
    }
    if (count > 0) {
        memcpy(words->data + at, from, count * sizeof(words->data[0]));
    }
    words->count += count;
    return (uint32_t)at;
}

static struct cuda_plan_step packed_step(struct words *words, const struct step *from)
{
    struct cuda_plan_step step = {};

    static_assert(sizeof(struct step_bias) == 2 * sizeof(uint32_t), "a bias is two words");
    step.type = from->type;
    step.count = from->count;
    step.flags = from->flags;
    memcpy(step.values, from->values, sizeof(step.values));
    step.list_count = from->list_count;
    if (from->type == STEP_BIAS) {
        step.list_first = put_words(words, from->biases, 2 * (uint64_t)from->list_count);
    } else {
        step.list_first = put_words(words, from->ids, from->list_count);
    }
    return step;
}

static uint32_t listed_step_count(const struct plan_sample *sample)
{
    return sample->steps != NULL ? sample->steps->count : 0;
}

static void pack_steps(const struct plan_sample *from, struct cuda_plan_step *steps,
                       struct words *words)
{
    const uint32_t count = listed_step_count(from);

    CHECK(count <= STEP_COUNT_MAX);
    for (uint32_t j = 0; j < count; j++) {
        CHECK(from->steps->steps[j].type != STEP_MASK || from->mask != NULL);
        steps[j] = packed_step(words, &from->steps->steps[j]);
    }
}

/* Siblings name the same step list: it is packed once for a run of them. */
static void pack_samples(const struct backend *backend, const struct plan *plan,
                         struct cuda_plan_sample *samples, struct cuda_plan_step *steps,
                         struct words *words)
{
    const uint64_t mask_words = (backend->settings.vocabulary_count + 31) / 32;
    uint32_t step_count = 0;

    for (uint32_t i = 0; i < plan->sample_count; i++) {
        const struct plan_sample *from = &plan->samples[i];
        struct cuda_plan_sample *to = &samples[i];

        CHECK(from->logits_row < plan->logits_row_count);
        CHECK(from->slot < backend->settings.slot_count);
        CHECK(from->steps != NULL || (from->flags & PLAN_SAMPLE_GIVEN) != 0);
        CHECK((from->flags & PLAN_SAMPLE_GIVEN) == 0 || from->given == PLAN_GIVEN_NONE ||
              from->given < backend->settings.vocabulary_count);
        memset(to, 0, sizeof(*to));
        to->seed = from->seed;
        to->logits_row = from->logits_row;
        to->slot = from->slot;
        to->index = from->index;
        to->top_count = from->top_count;
        to->flags = from->flags;
        to->given = from->given;
        to->history_count = from->history_count;
        to->has_steps = from->steps != NULL ? 1 : 0;
        to->step_count = listed_step_count(from);
        if (i > 0 && from->steps == plan->samples[i - 1].steps) {
            to->step_first = samples[i - 1].step_first;
        } else {
            to->step_first = step_count;
            pack_steps(from, steps + step_count, words);
            step_count += to->step_count;
        }
        if (i > 0 && from->mask == plan->samples[i - 1].mask) {
            to->mask_first = samples[i - 1].mask_first;
        } else if (from->mask != NULL) {
            to->mask_first = put_words(words, from->mask, mask_words);
        }
    }
}

static void pack_histories(const struct backend *backend, const struct plan *plan,
                           struct cuda_plan_history *histories, struct words *words)
{
    for (uint32_t i = 0; i < plan->history_count; i++) {
        const struct plan_history *from = &plan->histories[i];
        struct cuda_plan_history *to = &histories[i];

        CHECK(from->slot < backend->settings.slot_count);
        CHECK(from->count <= backend->settings.history_tokens_max);
        to->slot = from->slot;
        to->reset = from->reset;
        to->prompt_count = from->prompt_count;
        to->count = from->count;
        to->id_first = put_words(words, from->ids, from->count);
    }
}

static void check_rows(const struct backend *backend, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->row_count; i++) {
        const uint32_t token = plan->rows[i].token;

        if ((token & PLAN_TOKEN_LAST) != 0) {
            CHECK((token & ~PLAN_TOKEN_LAST) < backend->settings.slot_count);
        } else {
            CHECK(token < backend->settings.vocabulary_count);
        }
    }
}

uint64_t cuda_plan_bytes(const struct backend_settings *settings)
{
    const uint64_t rows = settings->row_count_max, samples = settings->sample_count_max;
    const uint64_t page_count = settings->history_tokens_max / KV_PAGE_TOKEN_COUNT + 2;
    const uint64_t mask_words = (settings->vocabulary_count + 31) / 32;
    const uint64_t word_count = samples * (CUDA_PLAN_WORDS_SAMPLE + mask_words) +
                                settings->history_tokens_max + CUDA_PLAN_WORDS_HISTORY;

    return aligned(sizeof(struct cuda_plan_view)) +
           rows * (sizeof(struct plan_row) + page_count * sizeof(uint32_t)) +
           settings->partial_count_max * (sizeof(struct plan_item) + 2 * sizeof(uint32_t)) +
           samples * (sizeof(uint32_t) + sizeof(struct cuda_plan_sample) +
                      STEP_COUNT_MAX * sizeof(struct cuda_plan_step)) +
           (rows + samples) * sizeof(struct plan_kv_copy) +
           (settings->slot_count + samples) * sizeof(struct cuda_plan_history) +
           word_count * sizeof(uint32_t) + UINT64_C(16) * ALIGNMENT;
}

static uint64_t count_steps(const struct plan *plan)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < plan->sample_count; i++) {
        count += listed_step_count(&plan->samples[i]);
    }
    return count;
}

static void view_counts(const struct plan *plan, struct cuda_plan_view *view)
{
    view->row_count = plan->row_count;
    view->page_entry_count = plan->page_entry_count;
    view->item_count = plan->item_count;
    view->item_row_count = plan->item_row_count;
    view->row_partial_count = plan->row_partial_count;
    view->partial_count = plan->partial_count;
    view->logits_row_count = plan->logits_row_count;
    view->sample_count = plan->sample_count;
    view->history_count = plan->history_count;
    view->kv_copy_count = plan->kv_copy_count;
}

#define PUT(type, packing, plan, name, count) \
    (const type *)put((packing), (plan)->name, (plan)->count, sizeof(type))

static enum status pack(const struct backend *backend, const struct plan *plan,
                        struct packing *packing, struct cuda_plan_view *view)
{
    const void *samples_at, *steps_at, *histories_at;

    view_counts(plan, view);
    view->rows = PUT(struct plan_row, packing, plan, rows, row_count);
    view->pages = PUT(uint32_t, packing, plan, pages, page_entry_count);
    view->items = PUT(struct plan_item, packing, plan, items, item_count);
    view->item_rows = PUT(uint32_t, packing, plan, item_rows, item_row_count);
    view->row_partials = PUT(uint32_t, packing, plan, row_partials, row_partial_count);
    view->logits_rows = PUT(uint32_t, packing, plan, logits_rows, logits_row_count);
    view->kv_copies = PUT(struct plan_kv_copy, packing, plan, kv_copies, kv_copy_count);
    void *samples = take(packing, plan->sample_count, sizeof(struct cuda_plan_sample), &samples_at);
    void *steps = take(packing, count_steps(plan), sizeof(struct cuda_plan_step), &steps_at);
    void *histories =
        take(packing, plan->history_count, sizeof(struct cuda_plan_history), &histories_at);
    if (packing->full) {
        return STATUS_LIMIT;
    }
    struct words words = {(uint32_t *)(packing->host + packing->used_bytes), 0,
                          (packing->room_bytes - packing->used_bytes) / sizeof(uint32_t), false};
    view->words = (const uint32_t *)(packing->device + packing->used_bytes);
    view->samples = (const struct cuda_plan_sample *)samples_at;
    view->steps = (const struct cuda_plan_step *)steps_at;
    view->histories = (const struct cuda_plan_history *)histories_at;
    pack_samples(backend, plan, (struct cuda_plan_sample *)samples, (struct cuda_plan_step *)steps,
                 &words);
    pack_histories(backend, plan, (struct cuda_plan_history *)histories, &words);
    packing->used_bytes += words.count * sizeof(uint32_t);
    return words.full ? STATUS_LIMIT : STATUS_OK;
}

/* ---- the beginning of a step ---- */

/* [slot_count] and [slot_count][id_count_max] */
struct history_table {
    struct cuda_history *histories;
    uint32_t *ids;
    uint32_t id_count_max;
};

/* Block. A history that is full takes no more ids, only the last. */
DEVICE_INLINE void apply_history(struct history_table table, const struct cuda_plan_history *from,
                                 const uint32_t *words)
{
    struct cuda_history *history = &table.histories[from->slot];
    uint32_t *ids = table.ids + (uint64_t)from->slot * table.id_count_max;
    const uint32_t *added = words + from->id_first;
    const uint32_t first = from->reset != 0 ? 0 : history->count;
    const uint32_t room = table.id_count_max - first;
    const uint32_t count = from->count < room ? from->count : room;

    for (uint32_t i = PRIM_THREAD; i < count; i += PRIM_THREADS) {
        ids[first + i] = added[i];
    }
    prim_sync(); /* all have read the old count */
    if (PRIM_THREAD == 0) {
        history->count = first + count;
        if (from->reset != 0) {
            history->prompt_count = from->prompt_count;
            history->last = 0;
        }
        if (from->count > 0) {
            history->last = added[from->count - 1];
        }
    }
    prim_sync();
}

static KERNEL void PRIM_BOUNDS(BEGIN_THREADS, 1)
    begin_kernel(const struct cuda_plan_view *plan, struct history_table table, uint32_t *tokens,
                 uint32_t *logits_rows)
{
    prim_depend_wait();
    const struct cuda_plan_view view = *plan;

    for (uint32_t i = 0; i < view.history_count; i++) {
        apply_history(table, &view.histories[i], view.words);
    }
    for (uint32_t row = PRIM_THREAD; row < view.row_count; row += PRIM_THREADS) {
        const uint32_t token = view.rows[row].token;
        const bool is_last = (token & PLAN_TOKEN_LAST) != 0;

        tokens[row] = is_last ? table.histories[token & ~PLAN_TOKEN_LAST].last : token;
        view.row_faults[row] = 0;
    }
    for (uint32_t i = PRIM_THREAD; i < view.logits_row_count; i += PRIM_THREADS) {
        logits_rows[i] = view.logits_rows[i];
    }
    prim_depend_launch();
}

enum status cuda_plan_pack(const struct backend *backend, const struct cuda_slot *slot,
                           const struct plan *plan, uint32_t chain_count, uint64_t *out_bytes)
{
    struct packing packing = {(uint8_t *)slot->plan_host, (const uint8_t *)slot->plan,
                              backend->plan_bytes, 0, false};
    struct cuda_plan_view view = {};
    const void *at;

    check_rows(backend, plan);
    void *first = take(&packing, 1, sizeof(view), &at);
    CHECK(first == slot->plan_host);
    TRY(pack(backend, plan, &packing, &view));
    view.chain_count = chain_count;
    view.results = (struct sample_result *)slot->answers;
    view.row_faults = (uint8_t *)slot->answers + cuda_row_faults_at(backend);
    memcpy(first, &view, sizeof(view));
    *out_bytes = packing.used_bytes;
    return STATUS_OK;
}

enum status cuda_plan_begin(const struct cuda_step *step)
{
    struct backend *backend = step->backend;
    const struct history_table table = {backend->histories, backend->history_ids,
                                        backend->settings.history_tokens_max};

    return device_launch<begin_kernel>(backend->device, 1, 1, BEGIN_THREADS, 0, step->view, table,
                                       backend->tokens, backend->logits_rows);
}
