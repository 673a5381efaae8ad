/* personad-bench: how fast this machine's backend is, with weights of noise or a model's own.
 *
 *   random_model  ->  bench_steps       whole steps: prefill, decode, a shared prefix
 *                 ->  bench_operations  one operation at a time
 *                 ->  bench_profile     where the time of a step goes
 *                 ->  bench_replies     many replies at once, without socket and journal
 *                 ->  bench_variants    what equal bits cost, product by product
 *
 * `persona bench --kernel` starts it. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/bench_engine.h"
#include "bench/random_model.h"
#include "kernels/backend_library.h"
#include "kernels/dtype.h"
#include "limits.h"

enum {
    KEY_SHAPE = 256,
    KEY_TYPE,
    KEY_LAYERS,
    KEY_BATCH,
    KEY_CONTEXT,
    KEY_SHARED,
    KEY_PREFILL,
    KEY_MEMORY,
    KEY_SECONDS,
    KEY_COPY,
    KEY_MATMUL,
    KEY_OPERATIONS,
    KEY_PROFILE,
    KEY_ENGINE,
    KEY_USERS,
    KEY_TOKENS,
    KEY_TEMPERATURE,
    KEY_ROUNDS,
    KEY_BEST,
    KEY_JSON,
    KEY_PROVIDERS,
    KEY_WEIGHTS,
    KEY_VARIANTS
};

struct choice {
    const char *backend, *shape, *type, *model;
    uint32_t layers;
    uint64_t memory_mib;
    bool operations, profile, engine, variants;
    const char *providers_path;
    struct provider_table providers;
    struct bench_settings bench;
};

static const struct argp_option options[] = {
    {"backend", 'b', "NAME", 0, "auto (the default), cpu or cuda", 0},
    {"model", 'm', "FILE", 0, "a model file or folder, instead of noise", 0},
    {"shape", KEY_SHAPE, "NAME", 0, "of the noise: 8b, 1b, 135m (the default) or tiny", 0},
    {"type", KEY_TYPE, "TYPE", 0, "of its weights: BF16 (the default), F16, F32, Q8_0, Q4_0, Q4_1",
     0},
    {"layers", KEY_LAYERS, "N", 0, "fewer layers than the shape has", 0},
    {"batch", KEY_BATCH, "N", 0, "most branches of a case: 256", 0},
    {"context", KEY_CONTEXT, "TOKENS", 0,
     "of a private context: 1024; with --profile 256, with --engine 16", 0},
    {"shared", KEY_SHARED, "TOKENS", 0, "of a shared prefix, a multiple of 512: 4096", 0},
    {"prefill", KEY_PREFILL, "TOKENS", 0, "of the prefill case: 2048", 0},
    {"memory", KEY_MEMORY, "MIB", 0, "of the KV pool: what is free on a card, else 4096", 0},
    {"seconds", KEY_SECONDS, "S", 0, "that a case may take, about: 1", 0},
    {"threads", 't', "N", 0, "of the CPU backend", 0},
    {"copy", KEY_COPY, "GB/S", 0, "the device's copy rate, for shares of it", 0},
    {"matmul", KEY_MATMUL, "TFLOP/S", 0, "the device's bf16 product rate, for shares of it", 0},
    {"operations", KEY_OPERATIONS, NULL, 0, "operations one by one as well", 0},
    {"profile", KEY_PROFILE, NULL, 0,
     "instead: where the time of a step goes, by operation, waiting and planning", 0},
    {"gpu-providers", KEY_PROVIDERS, "FILE", 0, "what multiplies on a card, as for the daemon", 0},
    {"weights", KEY_WEIGHTS, "NAME", 0, "how float weights are kept: as-is, or on a card fp8", 0},
    {"variants", KEY_VARIANTS, NULL, 0,
     "instead, on a card: what it costs that rows have equal bits in every batch, by product", 0},
    {"engine", KEY_ENGINE, NULL, 0,
     "instead: replies at once by an engine alone, as a daemon has it, without socket and journal",
     0},
    {"users", KEY_USERS, "N", 0, "with --engine: so many replies at once: 1", 0},
    {"tokens", KEY_TOKENS, "N", 0, "with --engine: of each reply: 64", 0},
    {"temperature", KEY_TEMPERATURE, "T", 0, "with --engine: 0.8", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "with --engine: how often, after one that warms up: 3", 0},
    {"best", KEY_BEST, NULL, 0, "with --profile: each part's fastest time, for busy machines", 0},
    {"json", KEY_JSON, NULL, 0, "with --profile or --engine: an object a line", 0},
    {0},
};

static uint64_t number_of(const char *text, uint64_t max, struct argp_state *state)
{
    char *end = NULL;
    const unsigned long long value = strtoull(text, &end, 10);

    if (end == text || *end != '\0' || value > max || text[0] == '-') {
        argp_error(state, "'%s' is no number up to %llu", text, (unsigned long long)max);
    }
    return value;
}

static double rate_of(const char *text, struct argp_state *state)
{
    char *end = NULL;
    const double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= 0) || !(value < 1e9)) {
        argp_error(state, "'%s' is no rate or time", text);
    }
    return value;
}

static uint32_t count_of(const char *text, uint32_t min, uint32_t max, struct argp_state *state)
{
    const uint64_t value = number_of(text, max, state);

    if (value < min) {
        argp_error(state, "'%s' is too small: at least %u", text, min);
    }
    return (uint32_t)value;
}

/* What all options together must be. */
static void settle(struct choice *choice, struct argp_state *state)
{
    struct bench_settings *bench = &choice->bench;

    if (bench->shared % ATTENTION_BLOCK_TOKENS != 0) {
        argp_error(state, "--shared must be a multiple of %d", (int)ATTENTION_BLOCK_TOKENS);
    }
    if (bench->is_best && !choice->profile) {
        argp_error(state, "--best is for --profile");
    }
    if (bench->is_json && !choice->profile && !choice->engine) {
        argp_error(state, "--json is for --profile and --engine");
    }
    if (choice->profile && choice->engine) {
        argp_error(state, "--profile and --engine are two measures: ask for one");
    }
    if (bench->context == 0) {
        bench->context = choice->engine ? 16 : choice->profile ? 256 : 1024;
    }
    if (choice->profile && bench->context < KV_PAGE_TOKEN_COUNT) {
        argp_error(state, "--context of a profile: at least %d", (int)KV_PAGE_TOKEN_COUNT);
    }
}

/* Those of a card. */
static error_t on_card_option(int key, char *text, struct argp_state *state)
{
    struct choice *choice = state->input;

    if (key == KEY_PROVIDERS) {
        choice->providers_path = text;
    } else if (key == KEY_WEIGHTS) {
        choice->bench.weights_fp8 = strcmp(text, "fp8") == 0;
        if (!choice->bench.weights_fp8 && strcmp(text, "as-is") != 0) {
            argp_error(state, "--weights %s: it may be as-is or fp8", text);
        }
    } else {
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Those of --engine. */
static error_t on_engine_option(int key, char *text, struct argp_state *state)
{
    struct choice *choice = state->input;
    struct bench_settings *bench = &choice->bench;

    switch (key) {
    case KEY_ENGINE:
        choice->engine = true;
        break;
    case KEY_USERS:
        bench->users = count_of(text, 1, BENCH_BRANCH_COUNT_MAX, state);
        break;
    case KEY_TOKENS:
        bench->tokens = count_of(text, 1, 4096, state);
        break;
    case KEY_TEMPERATURE:
        bench->temperature = rate_of(text, state);
        break;
    case KEY_ROUNDS:
        bench->rounds = count_of(text, 1, 1000, state);
        break;
    default:
        return on_card_option(key, text, state);
    }
    return 0;
}

static void take_flag(struct choice *choice, int key)
{
    choice->operations = choice->operations || key == KEY_OPERATIONS;
    choice->profile = choice->profile || key == KEY_PROFILE;
    choice->variants = choice->variants || key == KEY_VARIANTS;
    choice->bench.is_json = choice->bench.is_json || key == KEY_JSON;
    choice->bench.is_best = choice->bench.is_best || key == KEY_BEST;
}

static error_t on_option(int key, char *text, struct argp_state *state)
{
    struct choice *choice = state->input;
    struct bench_settings *bench = &choice->bench;

    switch (key) {
    case 'b':
        choice->backend = text;
        break;
    case 'm':
        choice->model = text;
        break;
    case 't':
        bench->thread_count = count_of(text, 0, 1024, state);
        break;
    case KEY_SHAPE:
        choice->shape = text;
        break;
    case KEY_TYPE:
        choice->type = text;
        break;
    case KEY_LAYERS:
        choice->layers = count_of(text, 1, 512, state);
        break;
    case KEY_BATCH:
        bench->batch_max = count_of(text, 1, 256, state);
        break;
    case KEY_CONTEXT:
        bench->context = count_of(text, 1, 65536, state);
        break;
    case KEY_SHARED:
        bench->shared = count_of(text, ATTENTION_BLOCK_TOKENS, 65536, state);
        break;
    case KEY_PREFILL:
        bench->prefill = count_of(text, 1, 65536, state);
        break;
    case KEY_MEMORY:
        choice->memory_mib = count_of(text, 1, 1u << 24, state);
        break;
    case KEY_SECONDS:
        bench->seconds = rate_of(text, state);
        break;
    case KEY_COPY:
        bench->copy_gbs = rate_of(text, state);
        break;
    case KEY_MATMUL:
        bench->matmul_tflops = rate_of(text, state);
        break;
    case KEY_OPERATIONS:
    case KEY_PROFILE:
    case KEY_VARIANTS:
    case KEY_BEST:
    case KEY_JSON:
        take_flag(choice, key);
        break;
    case ARGP_KEY_ARG:
        argp_usage(state);
        break;
    case ARGP_KEY_END:
        settle(choice, state);
        break;
    default:
        return on_engine_option(key, text, state);
    }
    return 0;
}

/* The CUDA library beside this program, as the daemon looks for it. */
static enum status use_cuda(struct choice *choice, struct error *error)
{
    static char beside[4096];
    const char *const folders[] = {beside, PERSONAD_BACKEND_FOLDER};
    const struct backend_face *face = NULL;
    struct backend_device device = {.name = ""};
    uint32_t count = 0;

    const ssize_t size = readlink("/proc/self/exe", beside, sizeof beside - sizeof "/../lib");
    if (size > 0) {
        beside[size] = '\0';
        char *slash = strrchr(beside, '/');
        (void)snprintf(slash, sizeof beside - (size_t)(slash - beside), "/../lib");
    }
    TRY(backend_library_find(BACKEND_LIBRARY_CUDA, folders, 2, error, &face));
    TRY(face->device_count(error, &count));
    if (count == 0) {
        return error_set(error, STATUS_NOT_FOUND, "no card: the driver sees no NVIDIA device");
    }
    TRY(face->device_describe(0, error, &device));
    choice->bench.ops = face->ops;
    choice->bench.trial = face->trial;
    if (choice->memory_mib == 0) {
        choice->memory_mib = device.memory_free_bytes / 1024 / 1024;
    }
    (void)fprintf(
        stdout, "%s, compute capability %u.%u, %u multiprocessors, %llu MiB free of %llu\n",
        device.name, device.capability / 10, device.capability % 10, device.multiprocessor_count,
        (unsigned long long)(device.memory_free_bytes / 1024 / 1024),
        (unsigned long long)(device.memory_bytes / 1024 / 1024));
    return STATUS_OK;
}

static enum status choose_backend(struct choice *choice, struct error *error)
{
    const bool wants_auto = strcmp(choice->backend, "auto") == 0;

    if (strcmp(choice->backend, "cpu") != 0) {
        const enum status status = use_cuda(choice, error);
        if (status == STATUS_OK || !wants_auto) {
            return status;
        }
        (void)fprintf(stderr, "personad-bench: on the CPU, since there is no CUDA: %s\n",
                      error == NULL ? "" : error->text);
    }
    choice->bench.ops = &backend_cpu_ops;
    choice->memory_mib = choice->memory_mib == 0 ? 4096 : choice->memory_mib;
    return STATUS_OK;
}

static enum status open_model(const struct choice *choice, struct error *error, struct model **out)
{
    const struct random_shape *shape = random_shape_find(choice->shape);

    if (choice->model != NULL) {
        return model_open(choice->model, error, out);
    }
    if (shape == NULL) {
        return error_set(error, STATUS_BAD_INPUT, "--shape %s: there are %s", choice->shape,
                         random_shape_list());
    }
    for (uint32_t dtype = 0; dtype < 32; dtype++) {
        const char *name = dtype_name(dtype);
        if (name != NULL && strcmp(name, choice->type) == 0) {
            return random_model_open(shape, dtype, choice->layers, error, out);
        }
    }
    return error_set(error, STATUS_BAD_INPUT, "--type %s: no such type of weights", choice->type);
}

/* Of a card: what is free, less the weights and the rest of a backend. */
static void set_memory(struct choice *choice, const struct model *model)
{
    const uint64_t whole = choice->memory_mib * 1024 * 1024;
    const uint64_t weights = model_config(model)->weight_bytes;
    const uint64_t rest = UINT64_C(2) * 1024 * 1024 * 1024;

    choice->bench.memory_bytes = whole;
    if (choice->bench.ops != &backend_cpu_ops) {
        choice->bench.memory_bytes = whole > weights + rest ? whole - weights - rest : 1;
    }
}

static enum status measure(const struct choice *choice, const struct model *model,
                           struct error *error)
{
    if (choice->variants) {
        return bench_variants(&choice->bench, model, error);
    }
    if (choice->profile) {
        return bench_profile(&choice->bench, model, error);
    }
    if (choice->engine) {
        return bench_replies(&choice->bench, model, error);
    }
    TRY(bench_steps(&choice->bench, model, error));
    return choice->operations ? bench_operations(&choice->bench, model, error) : STATUS_OK;
}

static enum status run(struct choice *choice, struct error *error)
{
    struct model *model = NULL;

    if (choice->providers_path != NULL) {
        TRY(provider_table_read(choice->providers_path, error, &choice->providers));
        choice->bench.providers = &choice->providers;
    }
    TRY(choose_backend(choice, error));
    TRY(open_model(choice, error, &model));
    set_memory(choice, model);
    const enum status status = measure(choice, model, error);
    model_close(model);
    return status;
}

int main(int argc, char **argv)
{
    const struct argp argp = {
        .options = options,
        .parser = on_option,
        .doc = "Measures steps of a model on this machine's backend, and prints a table.",
    };
    struct choice choice = {
        .backend = "auto",
        .shape = "135m",
        .type = "BF16",
        .bench = {.batch_max = 256,
                  .shared = 4096,
                  .prefill = 2048,
                  .seconds = 1,
                  .users = 1,
                  .tokens = 64,
                  .temperature = 0.8,
                  .rounds = 3,
                  .step_ms = STEP_BUDGET_MS,
                  .out = stdout},
    };
    struct error error = {.text = ""};

    (void)argp_parse(&argp, argc, argv, 0, NULL, &choice);
    if (run(&choice, &error) == STATUS_OK) {
        return 0;
    }
    (void)fflush(stdout);
    (void)fprintf(stderr, "personad-bench: %s\n", error.text);
    return 1;
}
