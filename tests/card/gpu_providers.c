/* Every provider over 1 to row_count_max rows: each row must have the bits that it has alone. One
 * whose bits are mma's may take over from some number of rows on; one with bits of its own serves
 * all rows or none, for a row must never change its provider with the load. Of those that may, the
 * fastest at the most rows is taken. */
#include "card/gpu_providers.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "bench/bench_products.h"

enum { WAYS_MAX = 3, COUNTS_MAX = 16, SAMPLES_MAX = 256 };

/* One way to multiply by one matrix, measured. */
struct tried {
    struct product_way way;
    bool is_invariant;
    bool is_mma; /* its bits are */
    uint64_t wrong;
    uint64_t ns[COUNTS_MAX]; /* by numbers of rows */
};

struct shape {
    struct gpu_providers *providers;
    const struct product_trial_ops *ops;
    struct product_trial *trial;
    struct provider_rule rule; /* without a provider */
    uint32_t row_count_max;
    uint32_t counts[COUNTS_MAX], count_count; /* 1, 8, 16, 32 .. row_count_max */
    struct tried mma;
};

void gpu_providers_head(void)
{
    (void)printf("| matrices | provider | rows with other bits | bits | us at 1, 16, 64, 256, most "
                 "| serves |\n|---|---|---:|---|---|---|\n");
}

static const char *serves_text(bool serves, uint32_t rows_min, char text[32])
{
    (void)snprintf(text, 32, serves ? "from %u rows" : "-", rows_min);
    return text;
}

static void print_line(const struct shape *shape, const struct tried *tried, bool serves,
                       uint32_t rows_min)
{
    static const uint32_t shown[] = {1, 16, 64, 256};
    char text[32];

    (void)printf("| %s %u x %u | %s | %llu | %s | ", provider_type_name(shape->rule.type),
                 shape->rule.outputs, shape->rule.cols, provider_name(tried->way.provider),
                 (unsigned long long)tried->wrong, tried->is_mma ? "of mma" : "its own");
    for (uint32_t i = 0; i < shape->count_count; i++) {
        for (uint32_t j = 0; j < sizeof shown / sizeof shown[0]; j++) {
            if (shape->counts[i] == shown[j]) {
                (void)printf("%.2f, ", (double)tried->ns[i] / 1e3);
            }
        }
    }
    (void)printf("%.2f | %s |\n", (double)tried->ns[shape->count_count - 1] / 1e3,
                 serves_text(serves, rows_min, text));
    (void)fflush(stdout);
}

/* Outputs that differ from what is kept, over all numbers of rows. */
static enum status count_wrong(const struct shape *shape, const struct product_way *way,
                               uint64_t *out)
{
    uint64_t wrong = 0, different = 0;

    for (uint32_t rows = 1; rows < shape->row_count_max; rows += shape->providers->stride) {
        TRY(shape->ops->compare(shape->trial, way, rows, &different));
        wrong += different;
    }
    TRY(shape->ops->compare(shape->trial, way, shape->row_count_max, &different));
    *out = wrong + different;
    return STATUS_OK;
}

static enum status time_all(const struct shape *shape, struct tried *tried)
{
    for (uint32_t i = 0; i < shape->count_count; i++) {
        TRY(shape->ops->time(shape->trial, &tried->way, shape->counts[i], &tried->ns[i]));
    }
    return STATUS_OK;
}

/* What is kept is mma's rows alone, before and after. */
static enum status try_way(const struct shape *shape, const struct product_way *way,
                           struct tried *out)
{
    struct tried tried = {.way = *way};
    const struct product_trial_ops *ops = shape->ops;

    TRY(count_wrong(shape, way, &tried.wrong));
    tried.is_mma = tried.wrong == 0;
    if (!tried.is_mma && way->provider != PROVIDER_MMA) {
        TRY(ops->keep(shape->trial, way, shape->row_count_max));
        TRY(count_wrong(shape, way, &tried.wrong));
        TRY(ops->keep(shape->trial, &shape->mma.way, shape->row_count_max));
    }
    tried.is_invariant = tried.wrong == 0;
    TRY(time_all(shape, &tried));
    *out = tried;
    return STATUS_OK;
}

static bool is_faster(const struct shape *shape, const struct tried *tried, uint32_t i)
{
    return (double)tried->ns[i] * (1 + shape->providers->faster_percent / 100) <
           (double)shape->mma.ns[i];
}

/* The least number of rows from which on it is faster; false: never, or not where it must be. */
static bool find_rows(const struct shape *shape, const struct tried *tried, uint32_t *rows_min)
{
    uint32_t from = shape->count_count;

    while (from > 0 && is_faster(shape, tried, from - 1)) {
        from--;
    }
    if (!tried->is_invariant || from == shape->count_count || (from > 0 && !tried->is_mma)) {
        return false;
    }
    *rows_min = from == 0 ? 1 : shape->counts[from - 1] + 1;
    return true;
}

static enum status try_provider(const struct shape *shape, enum provider provider,
                                struct provider_rule *best, uint64_t *best_ns)
{
    struct product_way ways[WAYS_MAX];
    uint32_t count = 0;

    TRY(shape->ops->ways(shape->trial, provider, 0, WAYS_MAX, ways, &count));
    for (uint32_t i = 0; i < count; i++) {
        struct tried tried;
        uint32_t rows_min = 0;

        TRY(try_way(shape, &ways[i], &tried));
        const uint64_t ns = tried.ns[shape->count_count - 1];
        const bool serves = find_rows(shape, &tried, &rows_min);
        print_line(shape, &tried, serves, rows_min);
        if (serves && ns < *best_ns) {
            *best_ns = ns;
            *best = shape->rule;
            best->provider = provider;
            best->rows_min = rows_min;
            best->version = ways[i].version;
            best->algorithm = ways[i].algorithm;
        }
    }
    return STATUS_OK;
}

static enum status try_all(struct shape *shape, bool *fine)
{
    struct gpu_providers *providers = shape->providers;
    struct provider_rule best = {.rows_min = 0};
    uint64_t best_ns = UINT64_MAX;
    uint32_t count = 0;

    TRY(shape->ops->ways(shape->trial, PROVIDER_MMA, 0, 1, &shape->mma.way, &count));
    CHECK(count == 1);
    TRY(shape->ops->keep(shape->trial, &shape->mma.way, shape->row_count_max));
    TRY(try_way(shape, &shape->mma.way, &shape->mma));
    print_line(shape, &shape->mma, shape->mma.is_invariant, 1);
    *fine = shape->mma.is_invariant;
    TRY(try_provider(shape, PROVIDER_WGMMA, &best, &best_ns));
    TRY(try_provider(shape, PROVIDER_CUBLASLT, &best, &best_ns));
    TRY(try_provider(shape, PROVIDER_UNPACKED, &best, &best_ns));
    if (best.rows_min != 0 && providers->rule_count < PROVIDER_RULE_COUNT_MAX) {
        providers->rules[providers->rule_count++] = best;
    }
    return STATUS_OK;
}

static void counts_make(struct shape *shape)
{
    uint32_t rows = 8;

    shape->counts[shape->count_count++] = 1;
    for (; rows < shape->row_count_max && shape->count_count + 1 < COUNTS_MAX; rows *= 2) {
        shape->counts[shape->count_count++] = rows;
    }
    if (shape->row_count_max > 1) {
        shape->counts[shape->count_count++] = shape->row_count_max;
    }
}

/* Two stored types may be one type on the card. */
static bool has_rule(const struct gpu_providers *providers, const struct provider_rule *rule)
{
    for (uint32_t i = 0; i < providers->rule_count; i++) {
        const struct provider_rule *other = &providers->rules[i];
        if (other->type == rule->type && other->outputs == rule->outputs &&
            other->cols == rule->cols) {
            return true;
        }
    }
    return false;
}

static bool try_product(struct gpu_providers *providers, const struct model *model,
                        const struct bench_product *product)
{
    const uint32_t most = providers->row_count_max;
    struct shape shape = {
        .providers = providers,
        .ops = providers->ops,
        .row_count_max = product->of_samples && most > SAMPLES_MAX ? SAMPLES_MAX : most,
    };
    struct product_trial_settings settings = {.weights_fp8 = providers->weights_fp8,
                                              .row_count_max = shape.row_count_max,
                                              .launch_count = providers->launch_count};
    struct weight_source source = {.name = product->name};
    struct error error = {.text = ""};
    bool fine = false;

    enum status status = bench_product_read(model, product, &error, &source);
    settings.source = &source;
    if (status == STATUS_OK) {
        status = shape.ops->open(&settings, &error, &shape.trial);
    }
    memory_free((void *)source.data);
    if (status == STATUS_OK) {
        providers->architecture = shape.ops->describe(shape.trial, &shape.rule);
        counts_make(&shape);
        fine = has_rule(providers, &shape.rule);
        status = fine ? STATUS_OK : try_all(&shape, &fine);
    }
    if (status != STATUS_OK) {
        (void)printf("| %s | FAILED: %s | | | | |\n", product->name,
                     error.text[0] != '\0' ? error.text : shape.ops->fault_text(shape.trial));
        fine = false;
    }
    shape.ops->close(shape.trial);
    return fine;
}

bool gpu_providers_try(struct gpu_providers *providers, const struct model *model)
{
    struct bench_product products[BENCH_PRODUCT_COUNT_MAX];
    const uint32_t count = bench_products_find(model, products);
    bool fine = count > 0;

    for (uint32_t i = 0; i < count; i++) {
        fine = try_product(providers, model, &products[i]) && fine;
    }
    return fine;
}

void gpu_providers_write(const struct gpu_providers *providers, FILE *out)
{
    char line[PROVIDER_LINE_BYTES_MAX];

    (void)fprintf(out,
                  "personad gpu providers 1\ncard sm_%u\n"
                  "# Each row has the bits that it has alone, among 1 to %u rows, every %u.\n",
                  providers->architecture, providers->row_count_max, providers->stride);
    for (uint32_t i = 0; i < providers->rule_count; i++) {
        (void)provider_rule_format(&providers->rules[i], line, sizeof line);
        (void)fputs(line, out);
    }
}
