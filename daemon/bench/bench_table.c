#include "bench/bench_table.h"

#include <stdlib.h>

void bench_table_head(FILE *out, const char *title)
{
    (void)fprintf(out,
                  "\n%s\n\n"
                  "| case | rows | ms | tokens/s | GB/s | of copy | TFLOP/s | of bf16 |\n"
                  "|---|---:|---:|---:|---:|---:|---:|---:|\n",
                  title);
}

static void put_rate(FILE *out, double amount, double ms, double unit)
{
    if (amount > 0) {
        (void)fprintf(out, " %.4g |", amount / (ms * 1e-3) / unit);
    } else {
        (void)fprintf(out, " |");
    }
}

static void put_share(FILE *out, double amount, double ms, double of)
{
    if (amount > 0 && of > 0) {
        (void)fprintf(out, " %.0f %% |", 100 * amount / (ms * 1e-3) / of);
    } else {
        (void)fprintf(out, " |");
    }
}

void bench_table_line(const struct bench_settings *settings, const struct bench_line *line)
{
    FILE *out = settings->out;

    (void)fprintf(out, "| %s | %u | %.4g |", line->name, line->rows, line->ms);
    put_rate(out, line->tokens, line->ms, 1);
    put_rate(out, line->bytes, line->ms, 1e9);
    put_share(out, line->bytes, line->ms, settings->copy_gbs * 1e9);
    put_rate(out, line->flops, line->ms, 1e12);
    put_share(out, line->flops, line->ms, settings->matmul_tflops * 1e12);
    (void)fprintf(out, "\n");
    (void)fflush(out);
}

void bench_table_skip(FILE *out, const char *name, const char *why)
{
    (void)fprintf(out, "| %s | not run: %s | | | | | | |\n", name, why);
    (void)fflush(out);
}

static int compare_doubles(const void *left, const void *right)
{
    const double *a = left;
    const double *b = right;

    return (*a > *b) - (*a < *b);
}

double bench_table_median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

double bench_element_bytes(const struct bench_settings *settings, double stored_bytes)
{
    return settings->weights_fp8 && stored_bytes >= 2 ? 1 : stored_bytes;
}
