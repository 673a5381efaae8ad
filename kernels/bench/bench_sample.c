/* How long a draw takes: one line a list of steps, microseconds an item, on one thread.
 *
 *   bench_sample [isa [repeats]]
 *
 * Time is processor time, the smallest of the repeats, over 64 items of 49,152 logits each, drawn
 * as sums of uniform numbers: about normal, with the spread that the line names.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "kernels/backend.h"

enum { VOCABULARY = 49152, ITEMS = 64, HISTORY = 90 };

static const struct step top_k = {.type = STEP_TOP_K, .count = 40};
static const struct step top_p = {.type = STEP_TOP_P, .values = {0.95f}};
static const struct step min_p = {.type = STEP_MIN_P, .values = {0.05f}};
static const struct step cool = {.type = STEP_TEMPERATURE, .values = {0.8f}};
static const struct step greedy = {.type = STEP_TEMPERATURE};
static const struct step penalties = {.type = STEP_PENALTIES, .values = {1.1f, 0.1f, 0.1f}};

struct line {
    const char *name;
    float spread; /* standard deviation of the logits */
    uint32_t top_count;
    const struct step *steps[5];
};

static const struct line lines[] = {
    {"no step", 3, 0, {NULL}},
    {"no step, 8 alternatives", 3, 8, {NULL}},
    {"greedy", 3, 0, {&greedy}},
    {"top-k, top-p, min-p, temperature", 3, 0, {&top_k, &top_p, &min_p, &cool}},
    {"the same after penalties", 3, 0, {&penalties, &top_k, &top_p, &min_p, &cool}},
    {"temperature", 3, 0, {&cool}},
    {"top-p", 3, 0, {&top_p}},
    {"top-p, flat row", 0.5f, 0, {&top_p}},
};

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

static void fill_logits(float *logits, float spread)
{
    uint64_t state = 1;

    for (size_t i = 0; i < (size_t)ITEMS * VOCABULARY; i++) {
        float sum = -6;
        for (int n = 0; n < 12; n++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(state >> 40) * 0x1p-24f;
        }
        logits[i] = spread * sum;
    }
}

/* One step of 64 items; the time it took. */
static double run(struct backend *backend, struct backend_program *program,
                  const struct step_list *list, uint32_t top_count)
{
    static uint32_t rows[ITEMS], ids[HISTORY];
    static struct plan_sample samples[ITEMS];
    static struct plan_history histories[ITEMS];
    const struct plan plan = {.logits_row_count = ITEMS,
                              .logits_rows = rows,
                              .sample_count = ITEMS,
                              .samples = samples,
                              .history_count = ITEMS,
                              .histories = histories};
    struct step_result result;
    uint32_t ticket;

    for (uint32_t i = 0; i < HISTORY; i++) {
        ids[i] = i * 509;
    }
    for (uint32_t i = 0; i < ITEMS; i++) {
        samples[i] = (struct plan_sample){
            .logits_row = i, .slot = i, .steps = list, .seed = i, .top_count = top_count};
        histories[i] = (struct plan_history){.slot = i, .reset = 1, .count = HISTORY, .ids = ids};
    }
    const double begin = now_us();
    if (backend_cpu_ops.step_submit(program, &plan, &ticket) != STATUS_OK ||
        backend_cpu_ops.step_wait(backend, ticket, &result) != STATUS_OK) {
        abort();
    }
    return now_us() - begin;
}

static enum status bench(struct backend *backend, uint32_t repeat_count, struct error *error)
{
    float *logits = memory_alloc((size_t)ITEMS * VOCABULARY, sizeof *logits);
    struct backend_buffer *buffer = NULL;
    struct backend_program *program = NULL;
    enum status status = STATUS_MEMORY;

    if (logits == NULL) {
        return STATUS_MEMORY;
    }
    status = backend_cpu_ops.buffer_create(backend, (uint64_t)ITEMS * VOCABULARY, error, &buffer);
    if (status == STATUS_OK) {
        status = backend_cpu_ops.program_create(backend, 1, error, &program);
    }
    if (status == STATUS_OK) {
        const struct sample_args args = {.logits = buffer};
        status = backend_cpu_ops.op.sample(program, &args, error);
    }
    for (size_t i = 0; status == STATUS_OK && i < sizeof lines / sizeof *lines; i++) {
        struct step_list list = {0};
        double best = 1e30;
        fill_logits(logits, lines[i].spread);
        status = backend_cpu_ops.buffer_write(buffer, logits, (uint64_t)ITEMS * VOCABULARY);
        while (list.count < 5 && lines[i].steps[list.count] != NULL) {
            list.steps[list.count] = *lines[i].steps[list.count];
            list.count++;
        }
        for (uint32_t repeat = 0; repeat < repeat_count; repeat++) {
            const double time = run(backend, program, &list, lines[i].top_count);
            best = time < best ? time : best;
        }
        printf("%-34s %8.1f us an item\n", lines[i].name, best / ITEMS);
    }
    memory_free(logits);
    return status;
}

int main(int argc, char **argv)
{
    const struct backend_settings settings = {
        .thread_count = 1,
        .row_count_max = 1,
        .sample_count_max = ITEMS,
        .slot_count = ITEMS,
        .history_tokens_max = HISTORY + 1,
        .vocabulary_count = VOCABULARY,
        .partial_count_max = 1,
        .isa = argc > 1 ? argv[1] : NULL,
    };
    const long repeat_count = argc > 2 ? strtol(argv[2], NULL, 10) : 5;
    struct error error = {0};
    struct backend *backend = NULL;

    enum status status = backend_cpu_ops.create(&settings, &error, &backend);
    if (status == STATUS_OK) {
        printf("%s\n", backend_cpu_ops.describe(backend));
        status = bench(backend, repeat_count > 0 ? (uint32_t)repeat_count : 1, &error);
    }
    backend_cpu_ops.destroy(backend);
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_sample: %s\n", error.text);
    }
    return status == STATUS_OK ? 0 : 1;
}
