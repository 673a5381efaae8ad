/* gpu_check: whether the CUDA backend answers as it must, on a card.
 *
 *   gpu_check agree MODEL...        log probabilities against the CPU backend's
 *   gpu_check invariance MODEL...   bits of a row among 1 to --rows rows, every --stride of them,
 *                                   and of a text of --text tokens in any cuts
 *   gpu_check providers MODEL...    which providers may serve its shapes, and which is the fastest
 *
 * MODEL is a file, a folder, or noise:SHAPE:TYPE:LAYERS (bench/random_model.h). --library FILE
 * names the backend; --backend cpu tries the program itself. With "providers" --out FILE is the
 * table that is written, --faster PERCENT how much a provider must gain, --fp8 yes keeps float
 * weights in 8 bits. Prints a Markdown line a case. Ends
 * with 77 where there is no card, with 1 where something is wrong.
 *
 * Agreement: CUDA rounds activations to 8 bits of mantissa, the CPU takes int8 or floats. Over the
 * vocabulary the root mean square of the difference of the log probabilities may be AGREE of their
 * spread; another text must be farther away than that, or the check could not fail. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "bench/random_model.h"
#include "card/gpu_providers.h"
#include "kernels/backend_library.h"
#include "kernels/dtype.h"
#include "support/model_rig.h"

enum {
    NO_CARD = 77,
    TEXT_COUNT = 96,
    CUT_COUNT = 600, /* more than a block of attention */
    CUT_COUNT_MAX = 2048,
    VOCABULARY_MAX = 1 << 20,
};

static const double agree_max = 0.1;

struct job {
    const struct backend_ops *ops;
    const struct product_trial_ops *trial; /* NULL: the CPU */
    const char *out;
    double faster_percent;
    bool weights_fp8;
    uint32_t launch_count;
    uint32_t row_count_max;
    uint32_t stride;
    uint32_t text_count;
};

static struct model *open_model(const char *name)
{
    struct error error = {.text = ""};
    struct model *model = NULL;
    char shape[32] = "", type[16] = "";
    unsigned layers = 0;

    enum status status = STATUS_NOT_FOUND;
    if (sscanf(name, "noise:%31[^:]:%15[^:]:%u", shape, type, &layers) == 3) {
        for (uint32_t dtype = 0; dtype < 32; dtype++) {
            if (dtype_name(dtype) != NULL && strcmp(dtype_name(dtype), type) == 0 &&
                random_shape_find(shape) != NULL) {
                status = random_model_open(random_shape_find(shape), dtype, layers, &error, &model);
            }
        }
    } else {
        status = model_open(name, &error, &model);
    }
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "gpu_check: %s: %s\n", name, error.text);
        exit(1);
    }
    CHECK(model_config(model)->vocabulary_count <= VOCABULARY_MAX);
    return model;
}

static void text_make(uint32_t seed, uint32_t vocabulary, uint32_t count, uint32_t *ids)
{
    for (uint32_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        ids[i] = (seed >> 8) % vocabulary;
    }
}

static void pages_make(uint32_t count, uint32_t *pages)
{
    for (uint32_t i = 0; i < count; i++) {
        pages[i] = count - 1 - i;
    }
}

static void to_log_probabilities(float *logits, uint32_t count)
{
    double largest = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        largest = fmax(largest, (double)logits[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        sum += exp((double)logits[i] - largest);
    }
    for (uint32_t i = 0; i < count; i++) {
        logits[i] = (float)((double)logits[i] - largest - log(sum));
    }
}

static uint32_t best_of(const float *values, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < count; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

static double distance(const float *a, const float *b, uint32_t count)
{
    double difference = 0, mean = 0, spread = 0;

    for (uint32_t i = 0; i < count; i++) {
        mean += (double)b[i] / count;
    }
    for (uint32_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        spread += ((double)b[i] - mean) * ((double)b[i] - mean);
    }
    return sqrt(difference / spread);
}

/* Log probabilities after each of two texts. */
static void answers_of(const char *name, const struct backend_ops *ops, float *first, float *second)
{
    struct model *model = open_model(name);
    const uint32_t vocabulary = model_config(model)->vocabulary_count;
    const struct rig_settings settings = {
        .row_count_max = TEXT_COUNT,
        .sample_count_max = 1,
        .position_max = TEXT_COUNT,
        .page_count = TEXT_COUNT / KV_PAGE_TOKEN_COUNT + 1,
        .ops = ops,
    };
    uint32_t pages[TEXT_COUNT / KV_PAGE_TOKEN_COUNT + 1];
    uint32_t ids[TEXT_COUNT];
    struct rig rig;

    pages_make(settings.page_count, pages);
    rig_open(&rig, model, &settings);
    text_make(1, vocabulary, TEXT_COUNT, ids);
    rig_feed(&rig, pages, 0, ids, TEXT_COUNT, TEXT_COUNT, first);
    text_make(2, vocabulary, TEXT_COUNT, ids);
    rig_feed(&rig, pages, 0, ids, TEXT_COUNT, TEXT_COUNT, second);
    rig_close(&rig);
    to_log_probabilities(first, vocabulary);
    to_log_probabilities(second, vocabulary);
}

static bool check_agreement(const struct job *job, const char *name)
{
    float *cpu = memory_alloc(2 * (size_t)VOCABULARY_MAX, sizeof *cpu);
    float *card = memory_alloc(2 * (size_t)VOCABULARY_MAX, sizeof *card);
    struct model *model = open_model(name);
    const uint32_t vocabulary = model_config(model)->vocabulary_count;

    CHECK(cpu != NULL);
    CHECK(card != NULL);
    model_close(model);
    answers_of(name, &backend_cpu_ops, cpu, cpu + VOCABULARY_MAX);
    answers_of(name, job->ops, card, card + VOCABULARY_MAX);
    const double near = distance(card, cpu, vocabulary);
    const double far = distance(card + VOCABULARY_MAX, cpu, vocabulary);
    const bool same = best_of(cpu, vocabulary) == best_of(card, vocabulary);
    const bool fine = near < agree_max && far > 2 * agree_max;
    (void)printf("| %s | %.5f | %.3f | %s | %s |\n", name, near, far, same ? "yes" : "no",
                 fine ? "passed" : "FAILED");
    memory_free(cpu);
    memory_free(card);
    return fine;
}

/* ---- invariance ---- */

/* The logits of one row, alone or with `others` before and after it. */
static void row_among(struct rig *rig, uint32_t before, uint32_t after, float *logits)
{
    const struct plan_sample greedy = rig_greedy();
    const uint32_t vocabulary = model_config(rig->model)->vocabulary_count;
    uint32_t mine = 0;

    simple_plan_begin(rig->plan);
    for (uint32_t i = 0; i < before + 1 + after; i++) {
        const bool is_mine = i == before;
        const uint32_t token = is_mine ? 5 : (i * 31 + before) % vocabulary;
        const uint32_t page = is_mine ? 0 : i + 1;
        const uint32_t row = simple_plan_add(rig->plan, &page, 0, &token, 1);
        mine = is_mine ? row : mine;
    }
    (void)simple_plan_sample(rig->plan, mine, &greedy);
    (void)rig_run(rig);
    CHECK(forward_logits_read(rig->forward, 0, logits) == STATUS_OK);
}

static uint32_t wrong_neighbours(const struct job *job, struct rig *rig, float *alone, float *among)
{
    const size_t bytes = model_config(rig->model)->vocabulary_count * sizeof(float);
    uint32_t wrong = 0;

    row_among(rig, 0, 0, alone);
    for (uint32_t rows = 2; rows <= job->row_count_max; rows += job->stride) {
        row_among(rig, rows / 2, rows - 1 - rows / 2, among);
        wrong += memcmp(alone, among, bytes) == 0 ? 0 : 1;
    }
    row_among(rig, job->row_count_max - 1, 0, among);
    return wrong + (memcmp(alone, among, bytes) == 0 ? 0 : 1);
}

static uint32_t wrong_cuts(const struct job *job, struct rig *rig, float *whole, float *cut)
{
    static const uint32_t chunks[] = {1, 7, 64, 511};
    const uint32_t vocabulary = model_config(rig->model)->vocabulary_count;
    uint32_t pages[CUT_COUNT_MAX / KV_PAGE_TOKEN_COUNT + 1];
    uint32_t ids[CUT_COUNT_MAX];
    const uint32_t count = job->text_count;
    uint32_t wrong = 0;

    pages_make(count / KV_PAGE_TOKEN_COUNT + 1, pages);
    text_make(3, vocabulary, count, ids);
    rig_feed(rig, pages, 0, ids, count, count < job->row_count_max ? count : job->row_count_max,
             whole);
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
        if (chunks[i] <= job->row_count_max) {
            rig_feed(rig, pages, 0, ids, count, chunks[i], cut);
            wrong += memcmp(whole, cut, vocabulary * sizeof *cut) == 0 ? 0 : 1;
        }
    }
    ids[0] ^= 1; /* the twin: another text must have other bits */
    rig_feed(rig, pages, 0, ids, count, 64 < job->row_count_max ? 64 : job->row_count_max, cut);
    return wrong + (memcmp(whole, cut, vocabulary * sizeof *cut) == 0 ? 1 : 0);
}

static bool check_invariance(const struct job *job, const char *name)
{
    float *first = memory_alloc(VOCABULARY_MAX, sizeof *first);
    float *second = memory_alloc(VOCABULARY_MAX, sizeof *second);
    const struct rig_settings settings = {
        .row_count_max = job->row_count_max,
        .sample_count_max = 1,
        .position_max = job->text_count,
        .page_count = job->row_count_max + job->text_count / KV_PAGE_TOKEN_COUNT + 2,
        .ops = job->ops,
    };
    struct rig rig;

    CHECK(first != NULL);
    CHECK(second != NULL);
    rig_open(&rig, open_model(name), &settings);
    const uint32_t neighbours = wrong_neighbours(job, &rig, first, second);
    const uint32_t cuts = wrong_cuts(job, &rig, first, second);
    rig_close(&rig);
    const bool fine = neighbours == 0 && cuts == 0;
    (void)printf("| %s | 1 to %u, every %u | %u | %u | %s |\n", name, job->row_count_max,
                 job->stride, neighbours, cuts, fine ? "passed" : "FAILED");
    memory_free(first);
    memory_free(second);
    return fine;
}

/* ---- arguments ---- */

static void open_card(const char *library, struct job *job)
{
    const struct backend_face *face = NULL;
    struct error error = {.text = ""};
    uint32_t count = 0;

    enum status status = backend_library_open(library, &error, &face);
    if (status == STATUS_OK) {
        status = face->device_count(&error, &count);
    }
    if (status != STATUS_OK || count == 0) {
        (void)fprintf(stderr, "no card: %s\n",
                      error.text[0] == '\0' ? "the driver sees no NVIDIA device" : error.text);
        exit(NO_CARD);
    }
    job->ops = face->ops;
    job->trial = face->trial;
}

static int usage(void)
{
    (void)fprintf(stderr,
                  "usage: gpu_check agree|invariance|providers [--library FILE | --backend "
                  "cpu] [--rows N] [--stride N] [--text TOKENS] [--out FILE] [--faster PERCENT] "
                  "[--fp8 yes] [--launches N] MODEL...\n");
    return 2;
}

/* Models one after the other, then the table of all of them. */
static int run_providers(const struct job *job, char **names, int count)
{
    struct gpu_providers providers = {
        .ops = job->trial,
        .row_count_max = job->row_count_max,
        .stride = job->stride,
        .faster_percent = job->faster_percent,
        .weights_fp8 = job->weights_fp8,
        .launch_count = job->launch_count,
    };
    bool fine = true;

    if (job->trial == NULL) {
        (void)fprintf(stderr, "gpu_check: the CPU has no providers\n");
        return 2;
    }
    gpu_providers_head();
    for (int i = 0; i < count; i++) {
        struct model *model = open_model(names[i]);
        fine = gpu_providers_try(&providers, model) && fine;
        model_close(model);
    }
    FILE *out = job->out == NULL ? NULL : fopen(job->out, "we");
    if (out != NULL) {
        gpu_providers_write(&providers, out);
    }
    if (job->out != NULL && (out == NULL || fclose(out) != 0)) {
        perror(job->out);
        return 1;
    }
    return fine ? 0 : 1;
}

static int run_models(const struct job *job, const char *what, char **names, int count)
{
    const bool agree = strcmp(what, "agree") == 0;
    bool fine = true;

    (void)printf(agree ? "| model | distance to CPU | another text | same best token | |\n"
                         "|---|---:|---:|---|---|\n"
                       : "| model | rows | other bits among rows | other bits in cuts | |\n"
                         "|---|---|---:|---:|---|\n");
    for (int i = 0; i < count; i++) {
        fine = (agree ? check_agreement : check_invariance)(job, names[i]) && fine;
        (void)fflush(stdout);
    }
    return fine ? 0 : 1;
}

/* One option of `gpu_check WHAT --NAME VALUE`; false: it is none. */
static bool take_option(struct job *job, const char *name, const char *value)
{
    if (strcmp(name, "--rows") == 0) {
        job->row_count_max = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--stride") == 0) {
        job->stride = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--text") == 0) {
        job->text_count = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--out") == 0) {
        job->out = value;
    } else if (strcmp(name, "--faster") == 0) {
        job->faster_percent = strtod(value, NULL);
    } else if (strcmp(name, "--launches") == 0) {
        job->launch_count = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(name, "--fp8") == 0) {
        job->weights_fp8 = strcmp(value, "yes") == 0;
    } else {
        return false;
    }
    return true;
}

int main(int count, char **arguments)
{
    struct job job = {
        .row_count_max = 2048, .stride = 1, .text_count = CUT_COUNT, .faster_percent = 2};
    const char *library = BACKEND_LIBRARY_CUDA;
    bool on_cpu = false;
    int at = 2;

    for (; at + 1 < count && strncmp(arguments[at], "--", 2) == 0; at += 2) {
        if (strcmp(arguments[at], "--library") == 0) {
            library = arguments[at + 1];
        } else if (strcmp(arguments[at], "--backend") == 0) {
            on_cpu = strcmp(arguments[at + 1], "cpu") == 0;
        } else if (!take_option(&job, arguments[at], arguments[at + 1])) {
            return usage();
        }
    }
    if (at >= count || job.row_count_max < 2 || job.stride == 0 || job.text_count < 2 ||
        job.text_count > CUT_COUNT_MAX) {
        return usage();
    }
    const char *what = arguments[1];
    const bool of_providers = strcmp(what, "providers") == 0;
    if (!of_providers && strcmp(what, "agree") != 0 && strcmp(what, "invariance") != 0) {
        return usage();
    }
    job.ops = &backend_cpu_ops;
    if (!on_cpu) {
        open_card(library, &job);
    }
    return of_providers ? run_providers(&job, arguments + at, count - at)
                        : run_models(&job, what, arguments + at, count - at);
}
