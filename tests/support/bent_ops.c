#include "support/bent_ops.h"

#include <math.h>
#include <string.h>

#include "base/check.h"

enum { ROWS = 1024, PAGE_ENTRIES = 65536, SAMPLES = 512 };

/* One step is in flight at a time, so its bent copies lie here. */
static struct {
    const struct backend_ops *ops;
    enum bent bent;
    uint32_t thread_count;
    struct plan plan;
    struct plan_row rows[ROWS];
    struct plan_sample samples[SAMPLES];
    uint32_t pages[PAGE_ENTRIES];
    uint32_t sample_count;
    struct sample_result results[SAMPLES];
} now;

/* Copies what may be bent. */
static void copy(const struct plan *plan)
{
    CHECK(plan->row_count <= ROWS && plan->sample_count <= SAMPLES &&
          plan->page_entry_count <= PAGE_ENTRIES);
    now.plan = *plan;
    memcpy(now.rows, plan->rows, plan->row_count * sizeof(*plan->rows));
    memcpy(now.pages, plan->pages, plan->page_entry_count * sizeof(*plan->pages));
    if (plan->sample_count > 0) {
        memcpy(now.samples, plan->samples, plan->sample_count * sizeof(*plan->samples));
    }
    now.plan.rows = now.rows;
    now.plan.pages = now.pages;
    now.plan.samples = now.samples;
    now.sample_count = plan->sample_count;
}

/* The first page of the first row's table is read as its second one. */
static void lose_page(void)
{
    const uint32_t lost = now.pages[now.rows[0].page_first];
    const uint32_t other = now.pages[now.rows[0].page_first + 1];

    for (uint32_t i = 0; i < now.plan.page_entry_count; i++) {
        now.pages[i] = now.pages[i] == lost ? other : now.pages[i];
    }
}

static void bend(void)
{
    /* Not a page that the step writes. */
    const bool is_later = now.rows[0].position >= 2 * KV_PAGE_TOKEN_COUNT;
    const bool begins_reply = now.plan.sample_count > 0 && now.samples[0].index == 0;

    if (now.bent == BENT_BY_COMPANY) {
        for (uint32_t i = 0; i < now.plan.sample_count; i++) {
            now.samples[i].seed ^= now.plan.sample_count - 1;
        }
    } else if (now.bent == BENT_CHUNK_END && now.plan.sample_count == 0) {
        now.rows[now.plan.row_count - 1].writes_kv = 0;
    } else if (is_later && (now.bent == BENT_PAGE || (now.bent == BENT_SHARED && begins_reply))) {
        lose_page();
    }
}

static enum status submit(struct backend_program *program, const struct plan *plan,
                          uint32_t *ticket)
{
    copy(plan);
    bend();
    return now.ops->step_submit(program, &now.plan, ticket);
}

static enum status wait(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    const enum status status = now.ops->step_wait(backend, ticket, out);

    if (status == STATUS_OK && now.bent == BENT_BY_THREADS && now.thread_count > 1) {
        memcpy(now.results, out->samples, now.sample_count * sizeof(*out->samples));
        for (uint32_t i = 0; i < now.sample_count; i++) {
            now.results[i].logprob = nextafterf(now.results[i].logprob, -INFINITY);
        }
        out->samples = now.results;
    }
    return status;
}

struct backend_ops bent_ops(const struct backend_ops *ops, enum bent bent, uint32_t thread_count)
{
    struct backend_ops copy_of = *ops;

    if (bent != BENT_NOTHING) {
        now.ops = ops;
        now.bent = bent;
        now.thread_count = thread_count;
        copy_of.step_submit = submit;
        copy_of.step_wait = wait;
    }
    return copy_of;
}
