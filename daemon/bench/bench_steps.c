/* Contexts are prefilled once and spread by KV copies: every branch reads true keys and values, and
 * no case waits for a quarter of a million tokens to be prefilled. */
#include "bench/bench.h"

#include <string.h>

#include "base/check.h"
#include "bench/bench_run.h"
#include "bench/bench_table.h"
#include "kernels/dtype.h"

enum {
    RUN_COUNT_MAX = 32,
    STEPS_EACH = 8,
    CHUNK_ROWS_MAX = 512,
    BATCH_COUNT = 4,
    SHARED_BATCH = 64
};

static const uint32_t batches[BATCH_COUNT] = {1, 16, 64, 256};

/* What most people have: a temperature and two cuts. */
static const struct step_list usual_steps = {
    .count = 3,
    .steps = {{.type = STEP_TOP_K, .count = 40},
              {.type = STEP_TOP_P, .values = {0.95f}},
              {.type = STEP_TEMPERATURE, .values = {0.8f}}},
};

struct decode_case {
    uint32_t count, context, shared;
    const struct step_list *steps;
    uint32_t step_count;
};

static const struct plan *make_decode(void *context, struct bench_plan *plan, uint32_t index)
{
    const struct decode_case *decode = context;

    return index >= decode->step_count ? NULL
                                       : bench_plan_decode(plan, decode->count, decode->context,
                                                           decode->shared, decode->steps);
}

struct prefill_case {
    uint32_t token_count, chunk;
};

static const struct plan *make_prefill(void *context, struct bench_plan *plan, uint32_t index)
{
    const struct prefill_case *prefill = context;
    const uint32_t at = index * prefill->chunk;

    if (at >= prefill->token_count) {
        return NULL;
    }
    const uint32_t left = prefill->token_count - at;
    const uint32_t count = left < prefill->chunk ? left : prefill->chunk;
    return bench_plan_prefill(plan, at, count, count == left);
}

struct spread_case {
    uint32_t from, to, done;
};

static const struct plan *make_spread(void *context, struct bench_plan *plan, uint32_t index)
{
    struct spread_case *spread = context;

    (void)index;
    return bench_plan_spread(plan, spread->from, spread->to, &spread->done);
}

/* ---- what must move and be done ---- */

static double matrix_count(const struct model_config *config)
{
    const double query = (double)config->head_count * config->head_size;
    const double kv = (double)config->kv_head_count * config->head_size;
    const double layer = config->width * (2 * query + 2 * kv + 3.0 * config->hidden);

    return config->layer_count * layer;
}

static double output_count(const struct model_config *config)
{
    return (double)config->width * config->vocabulary_count;
}

/* Of all matrices that a step reads once. */
static double weight_bytes(const struct bench_settings *settings, const struct model_config *config)
{
    const double all = matrix_count(config) + output_count(config) * (config->tied ? 1 : 2);

    return bench_element_bytes(settings, (double)config->weight_bytes / all) *
           (matrix_count(config) + output_count(config));
}

static double kv_token_bytes(const struct model_config *config)
{
    return 2.0 * 2.0 * config->layer_count * config->kv_head_count * config->head_size;
}

/* ---- cases ---- */

static enum status time_median(struct bench_run *run, const struct bench_source *source,
                               uint32_t per_run, struct error *error, double *ms)
{
    double values[RUN_COUNT_MAX];
    double total = 0;
    double one = 0;
    uint32_t count = 0;

    TRY(bench_run_all(run, source, error, &one)); /* the warm-up */
    while (count < RUN_COUNT_MAX && (count < 3 || total < run->settings->seconds * 1e3)) {
        TRY(bench_run_all(run, source, error, &one));
        values[count++] = one / per_run;
        total += one;
    }
    *ms = bench_table_median(values, count);
    return STATUS_OK;
}

static enum status run_prefill(struct bench_run *run, struct error *error)
{
    const struct bench_settings *settings = run->settings;
    const struct model_config *config = model_config(run->model);
    const uint32_t count = settings->prefill;
    struct prefill_case prefill = {count, run->row_count_max};
    const struct bench_source source = {make_prefill, &prefill};
    struct bench_line line = {.name = "prefill", .rows = count, .tokens = count};

    if (count / KV_PAGE_TOKEN_COUNT + 1 > run->page_count) {
        bench_table_skip(settings->out, line.name, "its KV does not fit the memory");
        return STATUS_OK;
    }
    TRY(time_median(run, &source, 1, error, &line.ms));
    line.flops = 2 * matrix_count(config) * count + 2 * output_count(config) +
                 2.0 * count * count * config->layer_count * config->head_count * config->head_size;
    bench_table_line(settings, &line);
    return STATUS_OK;
}

/* Fills pages [0, page_count) with the keys and values of a text of `context` tokens. */
static enum status fill_pages(struct bench_run *run, uint32_t context, uint32_t page_count,
                              struct error *error)
{
    struct prefill_case prefill = {context, run->row_count_max};
    const uint32_t from = context / KV_PAGE_TOKEN_COUNT;
    struct spread_case spread = {from, page_count, 0};
    double ms = 0;

    TRY(bench_run_all(run, &(struct bench_source){make_prefill, &prefill}, error, &ms));
    return bench_run_all(run, &(struct bench_source){make_spread, &spread}, error, &ms);
}

static enum status run_decode(struct bench_run *run, const char *name, struct decode_case decode,
                              struct error *error, double *ms)
{
    const struct bench_settings *settings = run->settings;
    const struct model_config *config = model_config(run->model);
    const uint32_t pages = bench_plan_page_count(decode.count, decode.context, decode.shared);
    const double positions =
        decode.shared + (double)decode.count * (decode.context + 1 - decode.shared);
    struct bench_line line = {.name = name, .rows = decode.count, .tokens = decode.count};

    *ms = 0;
    if (pages > run->page_count) {
        bench_table_skip(settings->out, name, "its KV does not fit the memory");
        return STATUS_OK;
    }
    TRY(fill_pages(run, decode.context, pages, error));
    TRY(time_median(run, &(struct bench_source){make_decode, &decode}, decode.step_count, error,
                    &line.ms));
    line.bytes = weight_bytes(settings, config) + positions * kv_token_bytes(config);
    line.flops = 2 * (matrix_count(config) + output_count(config)) * decode.count;
    bench_table_line(settings, &line);
    *ms = line.ms;
    return STATUS_OK;
}

static enum status run_batches(struct bench_run *run, struct error *error)
{
    const struct bench_settings *settings = run->settings;
    double ms = 0;

    for (uint32_t i = 0; i < BATCH_COUNT && batches[i] <= settings->batch_max; i++) {
        struct decode_case decode = {batches[i], settings->context, 0, &usual_steps, STEPS_EACH};
        char name[64];
        (void)snprintf(name, sizeof name, "decode, %u contexts of %u", batches[i],
                       settings->context);
        TRY(run_decode(run, name, decode, error, &ms));
        if (batches[i] == SHARED_BATCH) {
            const double with = ms;
            decode.steps = NULL;
            TRY(run_decode(run, "the same without draws", decode, error, &ms));
            if (with > 0 && ms > 0) {
                (void)fprintf(settings->out, "| draws of that step | %.1f %% of it | | | | | | |\n",
                              100 * (with - ms) / with);
            }
        }
    }
    return STATUS_OK;
}

static enum status run_shared(struct bench_run *run, struct error *error)
{
    const struct bench_settings *settings = run->settings;
    const uint32_t count = settings->batch_max < SHARED_BATCH ? settings->batch_max : SHARED_BATCH;
    const uint32_t context = settings->shared + ATTENTION_CHUNK_TOKENS;
    char name[96];
    double shared_ms = 0;
    double private_ms = 0;

    (void)snprintf(name, sizeof name, "decode, %u branches of a shared prefix of %u", count,
                   settings->shared);
    TRY(run_decode(run, name,
                   (struct decode_case){count, context, settings->shared, &usual_steps, STEPS_EACH},
                   error, &shared_ms));
    (void)snprintf(name, sizeof name, "decode, %u private contexts of %u", count, context);
    TRY(run_decode(run, name, (struct decode_case){count, context, 0, &usual_steps, STEPS_EACH},
                   error, &private_ms));
    if (shared_ms > 0 && private_ms > 0) {
        (void)fprintf(settings->out,
                      "| shared against private | %.2f times as fast | | | | | | |\n",
                      private_ms / shared_ms);
    }
    return STATUS_OK;
}

static uint32_t largest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static enum status run_all(struct bench_run *run, struct error *error)
{
    TRY(run_prefill(run, error));
    TRY(run_batches(run, error));
    return run_shared(run, error);
}

enum status bench_steps(const struct bench_settings *settings, const struct model *model,
                        struct error *error)
{
    const struct model_config *config = model_config(model);
    const uint32_t shared_context = settings->shared + ATTENTION_CHUNK_TOKENS;
    const uint32_t position_max =
        largest(largest(settings->context, shared_context), settings->prefill) + 1;
    const uint32_t branches =
        settings->batch_max < SHARED_BATCH ? settings->batch_max : SHARED_BATCH;
    const uint32_t pages =
        largest(largest(bench_plan_page_count(settings->batch_max, settings->context, 0),
                        bench_plan_page_count(branches, shared_context, 0)),
                settings->prefill / KV_PAGE_TOKEN_COUNT + 1);
    struct bench_run run = {.settings = settings};
    char title[256];

    CHECK(settings->batch_max > 0);
    enum status status = bench_run_open(&run, settings, model, CHUNK_ROWS_MAX, settings->batch_max,
                                        position_max, pages, error);
    if (status == STATUS_OK) {
        (void)snprintf(title, sizeof title, "%.*s, %u layers, %.*s, %s, %s", (int)config->name.size,
                       (const char *)config->name.data, config->layer_count,
                       (int)config->weights.size, (const char *)config->weights.data,
                       settings->ops->describe(run.backend), forward_numerics_id(run.forward));
        bench_table_head(settings->out, title);
        status = run_all(&run, error);
    }
    bench_run_close(&run);
    return status;
}
