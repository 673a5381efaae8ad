#include "schedule/pace.h"

#include "base/check.h"

enum { PACE_FIRST_ROWS = 64 };

static const double pace_decay = 0.9;

void pace_init(struct pace *pace, uint32_t budget_ms, uint32_t row_count_max)
{
    const struct pace fresh = {.budget_ns = (uint64_t)budget_ms * 1000000u,
                               .row_count_max = row_count_max};

    CHECK(row_count_max > 0);
    *pace = fresh;
}

void pace_observe(struct pace *pace, uint32_t row_count, uint64_t elapsed_ns)
{
    const double rows = row_count;
    const double ns = (double)elapsed_ns;

    pace->weight = pace->weight * pace_decay + 1;
    pace->rows = pace->rows * pace_decay + rows;
    pace->rows_rows = pace->rows_rows * pace_decay + rows * rows;
    pace->ns = pace->ns * pace_decay + ns;
    pace->rows_ns = pace->rows_ns * pace_decay + rows * ns;
    if (row_count > pace->rows_seen) {
        pace->rows_seen = row_count;
    }
}

uint32_t pace_row_count(const struct pace *pace, uint32_t budgets)
{
    const double spread = pace->weight * pace->rows_rows - pace->rows * pace->rows;
    uint32_t bound = 2 * pace->rows_seen;
    double rate;
    double base;
    double fit;

    if (pace->weight == 0 || pace->rows == 0 || pace->ns <= 0) {
        return PACE_FIRST_ROWS < pace->row_count_max ? PACE_FIRST_ROWS : pace->row_count_max;
    }
    if (bound < PACE_FIRST_ROWS) {
        bound = PACE_FIRST_ROWS;
    }
    if (bound > pace->row_count_max) {
        bound = pace->row_count_max;
    }
    rate = pace->ns / pace->rows;
    base = 0;
    /* A line needs steps of clearly different sizes; else all of the time counts as the rows'. */
    if (spread > 0.01 * pace->rows * pace->rows) {
        const double slope = (pace->weight * pace->rows_ns - pace->rows * pace->ns) / spread;
        if (slope > 0 && slope < rate) {
            rate = slope;
            base = (pace->ns - slope * pace->rows) / pace->weight;
        }
    }
    fit = ((double)budgets * (double)pace->budget_ns - base) / rate;
    if (fit < 1) {
        return 1;
    }
    return fit < bound ? (uint32_t)fit : bound;
}
