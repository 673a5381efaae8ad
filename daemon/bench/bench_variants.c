/* What it costs that a row has the bits that it has alone: each product of the model as a step does
 * it, against the fastest of all ways that there are to do it, whatever their bits: other cuts of
 * K, other tiles, warpgroups, matrices unpacked before, and what cuBLASLt thinks best for that
 * number of rows. */
#include <string.h>

#include "base/memory.h"
#include "bench/bench.h"
#include "bench/bench_products.h"

enum { SAMPLES_MAX = 256, LIBRARY_WAYS_MAX = 4, NAME_BYTES_MAX = 48 };

static const double rated_seconds = 0.1;
static const uint32_t row_counts[] = {1, 16, 64, 256, 2048};
static const uint32_t segment_counts[] = {1, 2, 4};
static const uint32_t tile_counts[] = {1, 2, 4, 8, 16, 32};

struct race {
    const struct bench_settings *settings;
    struct product_trial *trial;
    const struct product_trial_ops *ops;
    struct provider_rule rule; /* without a provider */
    uint32_t row_count;
    uint64_t served_ns, best_ns;
    char best[NAME_BYTES_MAX];
};

static void name_way(const struct product_way *way, char name[NAME_BYTES_MAX])
{
    const int size = snprintf(name, NAME_BYTES_MAX, "%s", provider_name(way->provider));

    if (way->provider != PROVIDER_CUBLASLT) {
        (void)snprintf(name + size, NAME_BYTES_MAX - (size_t)size, ", S = %u, tiles %u",
                       way->segment_count, way->tiles_min);
    }
}

static enum status run_way(struct race *race, const struct product_way *way)
{
    uint64_t ns = 0;

    TRY(race->ops->time(race->trial, way, race->row_count, &ns));
    if (ns < race->best_ns) {
        race->best_ns = ns;
        name_way(way, race->best);
    }
    return STATUS_OK;
}

/* Cuts that come to the same launch are run twice: it costs little, and is a second chance. */
static enum status run_cuts(struct race *race, enum provider provider)
{
    struct product_way way;
    uint32_t count = 0;

    TRY(race->ops->ways(race->trial, provider, 0, 1, &way, &count));
    for (size_t s = 0; count > 0 && s < sizeof segment_counts / sizeof segment_counts[0]; s++) {
        for (size_t t = 0; t < sizeof tile_counts / sizeof tile_counts[0]; t++) {
            way.segment_count = segment_counts[s];
            way.tiles_min = tile_counts[t];
            if (t == 0 || way.tiles_min * 8 > race->row_count) {
                TRY(run_way(race, &way));
            }
        }
    }
    return STATUS_OK;
}

static enum status run_library(struct race *race)
{
    struct product_way ways[LIBRARY_WAYS_MAX];
    uint32_t count = 0;

    TRY(race->ops->ways(race->trial, PROVIDER_CUBLASLT, race->row_count, LIBRARY_WAYS_MAX, ways,
                        &count));
    for (uint32_t i = 0; i < count; i++) {
        TRY(run_way(race, &ways[i]));
    }
    return STATUS_OK;
}

/* By the table, or else mma. It takes part itself: what is served is never the faster. */
static enum status run_served(struct race *race, char name[NAME_BYTES_MAX])
{
    struct product_way way = {.provider = PROVIDER_MMA};
    const struct provider_rule *rule =
        provider_table_find(race->settings->providers, race->rule.type, race->rule.outputs,
                            race->rule.cols, race->row_count);

    if (rule != NULL) {
        way.provider = rule->provider;
        way.version = rule->version;
        way.algorithm = rule->algorithm;
    }
    TRY(race->ops->time(race->trial, &way, race->row_count, &race->served_ns));
    race->best_ns = race->served_ns;
    (void)snprintf(name, NAME_BYTES_MAX, "%s", provider_name(way.provider));
    (void)snprintf(race->best, NAME_BYTES_MAX, "the same");
    return STATUS_OK;
}

static enum status run_rows(struct race *race, const char *what, double *worst)
{
    char served[NAME_BYTES_MAX];

    TRY(run_served(race, served));
    TRY(run_cuts(race, PROVIDER_MMA));
    TRY(run_cuts(race, PROVIDER_WGMMA));
    TRY(run_cuts(race, PROVIDER_UNPACKED));
    TRY(run_library(race));
    const double percent = 100 * ((double)race->served_ns / (double)race->best_ns - 1);
    *worst = percent > *worst ? percent : *worst;
    (void)fprintf(race->settings->out, "| %s, %s %u x %u | %u | %s | %.2f | %s | %.2f | %.1f |\n",
                  what, provider_type_name(race->rule.type), race->rule.outputs, race->rule.cols,
                  race->row_count, served, (double)race->served_ns / 1e3, race->best,
                  (double)race->best_ns / 1e3, percent);
    (void)fflush(race->settings->out);
    return STATUS_OK;
}

/* cuBLASLt is opened by asking for its ways, whether they are run or not. */
static enum status run_product(const struct bench_settings *settings, const struct model *model,
                               const struct bench_product *product, double *worst,
                               struct error *error)
{
    const uint32_t most = row_counts[sizeof row_counts / sizeof row_counts[0] - 1];
    struct product_trial_settings wanted = {
        .row_count_max = product->of_samples && SAMPLES_MAX < most ? SAMPLES_MAX : most,
        .weights_fp8 = settings->weights_fp8,
        .launch_count = settings->seconds < rated_seconds ? 1 : 0, /* no figure is wanted then */
    };
    struct race race = {.settings = settings, .ops = settings->trial};
    struct product_way way;
    struct weight_source source;
    uint32_t count = 0;

    wanted.row_count_max =
        wanted.row_count_max < settings->prefill ? wanted.row_count_max : settings->prefill;
    TRY(bench_product_read(model, product, error, &source));
    wanted.source = &source;
    enum status status = race.ops->open(&wanted, error, &race.trial);
    memory_free((void *)source.data);
    TRY(status);
    (void)race.ops->describe(race.trial, &race.rule);
    status = race.ops->ways(race.trial, PROVIDER_CUBLASLT, 0, 1, &way, &count);
    for (size_t i = 0; status == STATUS_OK && i < sizeof row_counts / sizeof row_counts[0]; i++) {
        race.row_count = row_counts[i];
        if (race.row_count <= wanted.row_count_max) {
            status = run_rows(&race, product->name, worst);
        }
    }
    if (status != STATUS_OK) {
        (void)error_set(error, status, "%s: the card failed: %s", product->name,
                        race.ops->fault_text(race.trial));
    }
    race.ops->close(race.trial);
    return status;
}

enum status bench_variants(const struct bench_settings *settings, const struct model *model,
                           struct error *error)
{
    struct bench_product products[BENCH_PRODUCT_COUNT_MAX];
    double worst = 0;

    if (settings->trial == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "--variants is for a card: the CPU has one way to multiply");
    }
    const uint32_t count = bench_products_find(model, products);
    (void)fprintf(settings->out,
                  "\n## What equal bits cost\n\n"
                  "| product | rows | served by | us | fastest of all | us | cost, %% |\n"
                  "|---|---:|---|---:|---|---:|---:|\n");
    for (uint32_t i = 0; i < count; i++) {
        TRY(run_product(settings, model, &products[i], &worst, error));
    }
    (void)fprintf(settings->out, "\nThe most that a product costs more: %.1f %%\n", worst);
    return STATUS_OK;
}
