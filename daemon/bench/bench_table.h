/* One line a case, in columns that read as Markdown.
 *
 * Thread: any, no state.
 */
#ifndef PERSONAD_BENCH_BENCH_TABLE_H
#define PERSONAD_BENCH_BENCH_TABLE_H

#include "bench/bench.h"

struct bench_line {
    const char *name;
    uint32_t rows;
    double ms;
    double bytes;  /* that must move, each once; 0: no rate */
    double flops;  /* that must be done; 0: no rate */
    double tokens; /* that come out or go in; 0: none */
};

void bench_table_head(FILE *out, const char *title);
void bench_table_line(const struct bench_settings *settings, const struct bench_line *line);

/* A case that was not run, and why. */
void bench_table_skip(FILE *out, const char *name, const char *why);

/* Bytes of an element of a matrix as the backend keeps it, given those in the file: a byte where
 * float weights become fp8, but for a scale a row. */
double bench_element_bytes(const struct bench_settings *settings, double stored_bytes);

/* Sorts, and gives the middle one. count >= 1. */
double bench_table_median(double *values, uint32_t count);

#endif
