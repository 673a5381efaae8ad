#include "compute.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/backend_library.h"
#include "limits.h"

enum {
    PARTIAL_COUNT_MIN = 4096,
    CONTEXT_POOL_COUNT_MAX = 64, /* longest contexts that the machine's KV pool holds at most */
    PAGE_COUNT_MIN = 4,
    PATH_BYTES_MAX = 4096,
    FOLDER_COUNT = 3,
};

/* ---- the library ---- */

/* Beside the program, as a build has it and as an installation has it, then where it was to be
 * installed. */
static enum status library_open(struct error *error, const struct backend_face **out)
{
    char program[PATH_BYTES_MAX] = "";
    char built[PATH_BYTES_MAX + 32], installed[PATH_BYTES_MAX + 32];
    const ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    program[size > 0 ? size : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    (void)snprintf(built, sizeof built, "%s/../lib", program);
    (void)snprintf(installed, sizeof installed, "%s/../lib/personad", program);
    const char *const folders[FOLDER_COUNT] = {built, installed, PERSONAD_LIBRARY_FOLDER};
    return backend_library_find(BACKEND_LIBRARY_CUDA, folders, FOLDER_COUNT, error, out);
}

static enum status card_find(const struct settings *settings, struct error *error,
                             const struct backend_ops **out)
{
    const struct backend_face *face = NULL;
    uint32_t count = 0;
    const enum status status = library_open(error, &face);
    if (status == STATUS_NOT_FOUND) {
        error_prefix(error, "this build has no CUDA backend");
    }
    TRY(status);
    TRY(face->device_count(error, &count));
    if (count == 0) {
        return error_set(error, STATUS_NOT_FOUND, "the driver shows no card");
    }
    if (settings->device >= count) {
        return error_set(error, STATUS_NOT_FOUND,
                         "there is no card %u: the driver shows %u, counted from 0; "
                         "personad --devices lists them",
                         settings->device, count);
    }
    *out = face->ops;
    return STATUS_OK;
}

/* ---- the backend and its pool ---- */

static bool weights_fp8_of(const struct settings *settings)
{
    return settings->weights != NULL && strcmp(settings->weights, "fp8") == 0;
}

static bool is_precise(const struct settings *settings)
{
    return settings->numerics != NULL && strcmp(settings->numerics, "precise") == 0;
}

/* settings_parse has refused other names. */
static enum kv_type kv_type_of(const struct compute *compute, const struct backend_ops *ops)
{
    const char *name = compute->settings->kv_type;

    if (name == NULL) {
        return forward_kv_type(compute->model, ops, is_precise(compute->settings));
    }
    return strcmp(name, "f16") == 0    ? KV_TYPE_F16
           : strcmp(name, "bf16") == 0 ? KV_TYPE_BF16
                                       : KV_TYPE_FP8;
}

static enum status backend_open(struct compute *compute, const struct backend_ops *ops,
                                struct error *error)
{
    const struct settings *settings = compute->settings;
    const struct backend_settings wanted = {
        .thread_count = settings->threads,
        .row_count_max = STEP_ROW_COUNT_MAX,
        .sample_count_max = settings->branches,
        .slot_count = settings->branches,
        .history_tokens_max = compute->context_tokens,
        .vocabulary_count = model_config(compute->model)->vocabulary_count,
        .partial_count_max = compute->partial_count_max,
        .kv_type = kv_type_of(compute, ops),
        .isa = settings->isa,
        .device = settings->device,
        .memory_bytes_max = (uint64_t)settings->gpu_memory << 20,
        .providers = compute->providers,
        .weights_fp8 = weights_fp8_of(settings),
        .precise = is_precise(settings),
    };
    TRY(ops->create(&wanted, error, &compute->backend));
    compute->ops = ops;
    compute->page_bytes = forward_kv_page_bytes(compute->model, ops, compute->backend);
    return STATUS_OK;
}

/* Most pages to ask for. The machine's memory is touched only as pages are used; a card's is taken
 * at once, and the forward asks how much there is. */
static enum status pages_size(const struct compute *compute, struct error *error, uint32_t *out)
{
    const uint64_t mib = compute->settings->kv_memory;
    const bool on_card = compute->ops->memory_left(compute->backend) != BACKEND_MEMORY_SHARED;
    const uint64_t machine_bytes =
        (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t least = compute->context_tokens / KV_PAGE_TOKEN_COUNT + 2;
    const uint64_t most = on_card ? KV_PAGE_COUNT_MAX : CONTEXT_POOL_COUNT_MAX * least;
    const uint64_t shared_bytes = on_card ? UINT64_MAX : machine_bytes / 8;
    uint64_t page_count = (mib != 0 ? mib << 20 : shared_bytes) / compute->page_bytes;
    if (mib == 0 && page_count < least) {
        page_count = least;
    }
    if (page_count < PAGE_COUNT_MIN) {
        return error_set(error, STATUS_LIMIT,
                         "--kv-memory %llu MiB holds fewer than four pages; a page of this model "
                         "takes %llu bytes",
                         (unsigned long long)mib, (unsigned long long)compute->page_bytes);
    }
    *out = (uint32_t)(page_count < most ? page_count : most);
    return STATUS_OK;
}

/* Who watches weights being loaded: a terminal has one line that changes, a log a line now and
 * then. Neither hears of what is over within a second. */
struct watch {
    uint64_t begin_ns;
    uint64_t told_ns;
    bool is_terminal;
    bool has_line;
};

static void on_load_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    struct watch *watch = context;
    const uint64_t now = clock_monotonic_ns();
    const uint64_t pause_ns = watch->is_terminal ? 100000000u : 2000000000u;

    if (now - watch->begin_ns < 1000000000u || now - watch->told_ns < pause_ns) {
        return;
    }
    watch->told_ns = now;
    if (watch->is_terminal) {
        watch->has_line = true;
        (void)fprintf(stderr, "\rpersonad: loading weights: %llu of %llu MiB\x1b[K",
                      (unsigned long long)(done_bytes >> 20),
                      (unsigned long long)(total_bytes >> 20));
    } else {
        log_line(LOG_INFO, "daemon", "loading weights: %llu of %llu MiB",
                 (unsigned long long)(done_bytes >> 20), (unsigned long long)(total_bytes >> 20));
    }
}

/* Takes the terminal's line away, so that what is said next stands alone. */
static void watch_end(const struct watch *watch)
{
    if (watch->has_line) {
        (void)fprintf(stderr, "\r\x1b[K");
    }
}

static enum status model_load(struct compute *compute, uint32_t page_count, uint32_t page_count_min,
                              struct error *error)
{
    const uint64_t begin_ns = clock_monotonic_ns();
    struct watch watch = {.begin_ns = begin_ns, .is_terminal = isatty(STDERR_FILENO) == 1};
    const struct forward_settings wanted = {
        .row_count_max = STEP_ROW_COUNT_MAX,
        .sample_count_max = compute->settings->branches,
        .page_count = page_count,
        .page_count_min = page_count_min,
        .on_progress = on_load_progress,
        .context = &watch,
    };
    const enum status status = forward_create(compute->model, compute->ops, compute->backend,
                                              &wanted, error, &compute->forward);
    watch_end(&watch);
    if (status == STATUS_OK) {
        log_line(LOG_INFO, "daemon", "loaded %llu MiB of weights in %llu ms",
                 (unsigned long long)(model_config(compute->model)->weight_bytes >> 20),
                 (unsigned long long)((clock_monotonic_ns() - begin_ns) / 1000000u));
    }
    return status;
}

static void unload(struct compute *compute)
{
    forward_destroy(compute->forward);
    compute->forward = NULL;
    if (compute->backend != NULL) {
        compute->ops->destroy(compute->backend);
    }
    compute->backend = NULL;
}

enum status compute_restart(struct compute *compute, struct error *error)
{
    const uint32_t page_count = compute->page_count;
    unload(compute);
    enum status status = backend_open(compute, compute->ops, error);
    if (status == STATUS_OK) {
        status = model_load(compute, page_count, page_count, error);
    }
    if (status == STATUS_OK &&
        strcmp(compute->ops->numerics_id(compute->backend), compute->numerics) != 0) {
        status = error_set(error, STATUS_UNSUPPORTED, "it came back as %s instead of %s",
                           compute->ops->numerics_id(compute->backend), compute->numerics);
    }
    if (status != STATUS_OK) {
        unload(compute);
    }
    return status;
}

/* The pool holds one longest context at least, unless somebody asked for less. */
static enum status load(struct compute *compute, const struct backend_ops *ops, struct error *error)
{
    const uint32_t least = compute->context_tokens / KV_PAGE_TOKEN_COUNT + 2;
    uint32_t page_count = 0;
    enum status status = backend_open(compute, ops, error);
    if (status == STATUS_OK) {
        status = pages_size(compute, error, &page_count);
    }
    if (status == STATUS_OK) {
        status = model_load(compute, page_count, page_count < least ? page_count : least, error);
    }
    if (status != STATUS_OK) {
        unload(compute);
        return status;
    }
    compute->page_count = forward_page_count(compute->forward);
    return STATUS_OK;
}

/* ---- what is asked for ---- */

static enum status load_card(struct compute *compute, struct error *error)
{
    const struct backend_ops *ops = NULL;
    if (is_precise(compute->settings)) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "--numerics precise is the CPU's: a card multiplies in bf16; use "
                         "--backend cpu, or --numerics fast");
    }
    TRY(card_find(compute->settings, error, &ops));
    return load(compute, ops, error);
}

/* What is wrong with the model's file or the settings would be wrong on the CPU too, and is said
 * there. */
static enum status load_any(struct compute *compute, struct error *error, struct error *why)
{
    if (load_card(compute, why) == STATUS_OK) {
        return STATUS_OK;
    }
    log_line(LOG_INFO, "daemon", "the CPU computes, no card: %s", why->text);
    return load(compute, &backend_cpu_ops, error);
}

static enum status load_named(struct compute *compute, struct error *error, struct error *why)
{
    const char *name = compute->settings->backend != NULL ? compute->settings->backend : "auto";

    if (strcmp(name, "cpu") == 0) {
        return load(compute, &backend_cpu_ops, error);
    }
    if (strcmp(name, "cuda") == 0) {
        const enum status status = load_card(compute, error);
        if (status != STATUS_OK) {
            error_prefix(error, "--backend cuda");
        }
        return status;
    }
    return load_any(compute, error, why);
}

/* NULL where none is named. */
static enum status providers_read(const struct settings *settings, struct error *error,
                                  struct provider_table **out)
{
    if (settings->gpu_providers == NULL) {
        *out = NULL;
        return STATUS_OK;
    }
    struct provider_table *table = memory_alloc(1, sizeof *table);
    if (table == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the table of providers");
    }
    const enum status status = provider_table_read(settings->gpu_providers, error, table);
    if (status != STATUS_OK) {
        error_prefix(error, "--gpu-providers");
        memory_free(table);
        return status;
    }
    *out = table;
    return STATUS_OK;
}

enum status compute_open(const struct settings *settings, const struct model *model,
                         uint32_t context_tokens, struct error *error, struct compute *out)
{
    const uint32_t block_count = context_tokens / ATTENTION_BLOCK_TOKENS + 1;
    struct error why = {STATUS_OK, "", NULL, 0};
    struct compute made = {
        .settings = settings,
        .model = model,
        .context_tokens = context_tokens,
        .partial_count_max =
            16 * block_count > PARTIAL_COUNT_MIN ? 16 * block_count : PARTIAL_COUNT_MIN,
    };
    TRY(providers_read(settings, error, &made.providers));
    const enum status status = load_named(&made, error, &why);
    if (status != STATUS_OK) {
        compute_close(&made);
        return status;
    }
    const char *described = made.ops->describe(made.backend);
    (void)snprintf(made.text, sizeof made.text, why.text[0] != '\0' ? "%s (no card: %s)" : "%s",
                   described, why.text);
    (void)snprintf(made.numerics, sizeof made.numerics, "%s", made.ops->numerics_id(made.backend));
    log_line(LOG_INFO, "daemon", "backend %s; %u pages of keys and values, %llu MiB", described,
             made.page_count, (unsigned long long)(made.page_bytes * made.page_count >> 20));
    *out = made;
    return STATUS_OK;
}

void compute_close(struct compute *compute)
{
    unload(compute);
    memory_free(compute->providers);
    compute->providers = NULL;
}

/* ---- --devices ---- */

static void list_providers(const struct settings *settings, const struct provider_table *table)
{
    char line[PROVIDER_LINE_BYTES_MAX];

    (void)printf("providers: %s is for sm_%u, id p-%016llx, %u shapes\n", settings->gpu_providers,
                 table->architecture, (unsigned long long)table->digest, table->rule_count);
    for (uint32_t i = 0; i < table->rule_count; i++) {
        (void)provider_rule_format(&table->rules[i], line, sizeof line);
        (void)printf("providers: %s", line);
    }
}

static enum status list_cards(const struct backend_face *face, const struct provider_table *table,
                              struct error *error)
{
    uint32_t count = 0;
    TRY(face->device_count(error, &count));
    for (uint32_t i = 0; i < count; i++) {
        struct backend_device device;
        TRY(face->device_describe(i, error, &device));
        (void)printf("cuda %u: %s, compute capability %u.%u, %u multiprocessors, %llu of %llu MiB "
                     "free\n",
                     i, device.name, device.capability / 10, device.capability % 10,
                     device.multiprocessor_count,
                     (unsigned long long)(device.memory_free_bytes >> 20),
                     (unsigned long long)(device.memory_bytes >> 20));
        if (table != NULL) {
            (void)printf("cuda %u: %s\n", i,
                         table->architecture == device.capability
                             ? "the table of providers is for such a card"
                             : "the table of providers is for another card");
        }
    }
    if (count == 0) {
        (void)printf("cuda: the driver shows no card\n");
    }
    (void)printf("cuda: this build has code for %s\n", face->architectures);
    return STATUS_OK;
}

enum status compute_list(const struct settings *settings, struct error *error)
{
    const struct backend_settings least = {
        .row_count_max = 1,
        .sample_count_max = 1,
        .slot_count = 1,
        .history_tokens_max = 1,
        .vocabulary_count = 1,
        .partial_count_max = 1,
    };
    struct provider_table *table = NULL;
    struct backend *cpu = NULL;
    const struct backend_face *face = NULL;
    struct error why = {STATUS_OK, "", NULL, 0};
    TRY(backend_cpu_ops.create(&least, error, &cpu));
    (void)printf("%s\n", backend_cpu_ops.describe(cpu));
    backend_cpu_ops.destroy(cpu);
    TRY(providers_read(settings, error, &table));
    if (table != NULL) {
        list_providers(settings, table);
    }
    if (library_open(&why, &face) != STATUS_OK || list_cards(face, table, &why) != STATUS_OK) {
        (void)printf("cuda: %s\n", why.text);
    }
    memory_free(table);
    return STATUS_OK;
}
