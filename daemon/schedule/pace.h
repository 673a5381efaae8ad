/* How many rows a step may have: from the time that steps of so many rows took.
 *
 * Thread: engine. Pure, allocates nothing. The rate is a straight line, elapsed = base + rate *
 * rows, fitted to past steps, the youngest counting most. It changes which rows share a step, never
 * a bit of them.
 */
#ifndef PERSONAD_SCHEDULE_PACE_H
#define PERSONAD_SCHEDULE_PACE_H

#include <stdint.h>

struct pace {
    double weight, rows, rows_rows, ns, rows_ns; /* decayed sums */
    uint64_t budget_ns;
    uint32_t row_count_max;
    uint32_t rows_seen; /* most rows of a step so far: beyond twice that nothing is believed */
};

void pace_init(struct pace *pace, uint32_t budget_ms, uint32_t row_count_max);

/* A step of row_count rows took elapsed_ns. */
void pace_observe(struct pace *pace, uint32_t row_count, uint64_t elapsed_ns);

/* Rows of a next step that takes `budgets` times the budget, 1 to row_count_max. */
uint32_t pace_row_count(const struct pace *pace, uint32_t budgets);

#endif
