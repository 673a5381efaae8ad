#include "bench/bench_profile_table.h"

#include <inttypes.h>

/* One line. wait and alone: 0 where there is nothing to tell apart. */
struct part {
    const char *name;
    uint64_t ns, wait_ns, alone_ns;
};

enum { PART_COUNT_MAX = BACKEND_OP_COUNT + 2 };

static const char *const op_names[] = {
#define X(op) #op,
    BACKEND_OP_MAP(X)
#undef X
};

/* Operations in order, what the backend does around them, and what the engine does around a step.
 */
static uint32_t parts_make(const struct bench_profile_case *of, struct part *parts)
{
    const struct backend_profile *times = &of->times;
    uint64_t ops_ns = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < BACKEND_OP_COUNT; i++) {
        const struct backend_op_time *op = &times->ops[i];
        ops_ns += op->ns;
        parts[count++] = (struct part){op_names[i], op->ns, op->wait_ns, op->alone_ns};
    }
    const uint64_t rest_ns = times->step_ns > ops_ns ? times->step_ns - ops_ns : 0;
    const uint64_t plan_ns = of->wall_ns > times->step_ns ? of->wall_ns - times->step_ns : 0;
    parts[count++] = (struct part){"between operations", rest_ns, 0, rest_ns};
    parts[count++] = (struct part){"planning and delivery", plan_ns, 0, plan_ns};
    return count;
}

static double ms_of(const struct bench_profile_case *of, uint64_t ns)
{
    return (double)ns * 1e-6 / (double)of->times.step_count;
}

static double share_of(const struct bench_profile_case *of, uint64_t ns)
{
    return 100 * (double)ns / (double)of->wall_ns;
}

static double token_rate(const struct bench_profile_case *of)
{
    return of->rows * (double)of->times.step_count / ((double)of->wall_ns * 1e-9);
}

static void print_table(const struct bench_settings *settings, const struct bench_profile_case *of,
                        const struct part *parts, uint32_t count)
{
    struct part all = {"all", of->wall_ns, 0, 0};
    FILE *out = settings->out;

    (void)fprintf(out,
                  "\n%s: %s%u steps of %.3f ms, %.0f tokens/s, %u threads that meet %.0f "
                  "times a step\n\n"
                  "| part | ms | share | at work | waiting | one thread alone |\n"
                  "|---|---:|---:|---:|---:|---:|\n",
                  of->name, settings->is_best ? "the best of " : "", of->taken_count,
                  ms_of(of, of->wall_ns), token_rate(of), of->times.thread_count,
                  (double)of->times.barrier_count / (double)of->times.step_count);
    for (uint32_t i = 0; i <= count; i++) {
        const struct part *part = i < count ? &parts[i] : &all;
        (void)fprintf(out, "| %s | %.3f | %.1f %% | %.1f %% | %.1f %% | %.1f %% |\n", part->name,
                      ms_of(of, part->ns), share_of(of, part->ns),
                      share_of(of, part->ns - part->wait_ns - part->alone_ns),
                      share_of(of, part->wait_ns), share_of(of, part->alone_ns));
        all.wait_ns += part->wait_ns;
        all.alone_ns += part->alone_ns;
    }
}

static void print_json(const struct bench_settings *settings, const struct bench_profile_case *of,
                       const struct part *parts, uint32_t count)
{
    FILE *out = settings->out;

    (void)fprintf(out,
                  "{\"case\": \"%s\", \"rows\": %u, \"steps\": %u, \"best\": %s, \"step_ms\": "
                  "%.4f, \"tokens_per_second\": %.2f, \"threads\": %u, "
                  "\"barriers\": %.1f, \"parts\": {",
                  of->name, of->rows, of->taken_count, settings->is_best ? "true" : "false",
                  ms_of(of, of->wall_ns), token_rate(of), of->times.thread_count,
                  (double)of->times.barrier_count / (double)of->times.step_count);
    for (uint32_t i = 0; i < count; i++) {
        (void)fprintf(out, "%s\"%s\": {\"ms\": %.4f, \"waiting_ms\": %.4f, \"alone_ms\": %.4f}",
                      i == 0 ? "" : ", ", parts[i].name, ms_of(of, parts[i].ns),
                      ms_of(of, parts[i].wait_ns), ms_of(of, parts[i].alone_ns));
    }
    (void)fprintf(out, "}}\n");
}

void bench_profile_head(const struct bench_settings *settings, const struct model *model,
                        const struct backend *backend)
{
    const struct model_config *config = model_config(model);

    if (!settings->is_json) {
        (void)fprintf(settings->out, "%.*s, %u layers, %.*s, %s\n", (int)config->name.size,
                      (const char *)config->name.data, config->layer_count,
                      (int)config->weights.size, (const char *)config->weights.data,
                      settings->ops->describe(backend));
    }
}

void bench_profile_print(const struct bench_settings *settings, const struct bench_profile_case *of)
{
    struct part parts[PART_COUNT_MAX];
    const uint32_t count = parts_make(of, parts);

    if (settings->is_json) {
        print_json(settings, of, parts, count);
    } else {
        print_table(settings, of, parts, count);
    }
    (void)fflush(settings->out);
}
