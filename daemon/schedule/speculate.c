#include "schedule/speculate.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "schedule/prescribe.h"

enum {
    MATCH_TOKENS_MIN = 2,  /* fewer tokens in common say nothing */
    MATCH_TOKENS_MAX = 16, /* more are not told apart */
    MATCH_TOKENS_LONG = 6,
    RATE_ONE = 1024,  /* drafts that are right, of so many */
    RATE_DECAY = 8,   /* an eighth of a rate is what became of the last draft */
    RATE_FIRST = 400, /* after a short match, before anything is known */
    RATE_FIRST_LONG = 800,
    STEP_COST_ROWS = 6, /* a step of one row takes as long as so many rows more */
    TRY_TOKENS = 32,    /* sampled, between drafts that are not expected to pay */
};

enum status speculate_init(struct engine *engine)
{
    engine->speculate.ids = memory_alloc(DRAFT_PATH_TOKENS, sizeof(uint32_t));
    return engine->speculate.ids == NULL ? STATUS_MEMORY : STATUS_OK;
}

void speculate_finish(struct engine *engine)
{
    memory_free(engine->speculate.ids);
}

/* ---- looking up ---- */

/* A place that the path may go on from: text[at] comes next. */
struct match {
    const uint32_t *text; /* NULL: none */
    uint32_t count;
    uint32_t at;
    uint32_t length; /* tokens before it that equal the path's end */
};

/* Tokens before text[at] that equal the path's last ones. */
static uint32_t common_count(const uint32_t *text, uint32_t at, const uint32_t *ids, uint32_t count)
{
    const uint32_t most = at < count ? at : count;
    uint32_t length = 0;

    while (length < most && length < MATCH_TOKENS_MAX &&
           text[at - 1 - length] == ids[count - 1 - length]) {
        length++;
    }
    return length;
}

/* The longest match before text[count], the last of equal ones. */
static void match_in(const struct draft_query *query, const uint32_t *text, uint32_t count,
                     struct match *best)
{
    const uint32_t last = query->ids[query->count - 1];

    for (uint32_t at = count - 1; at > 0 && count > 0 && best->length < MATCH_TOKENS_MAX; at--) {
        if (text[at - 1] != last) {
            continue;
        }
        const uint32_t length = common_count(text, at, query->ids, query->count);
        if (length > best->length) {
            *best = (struct match){text, count, at, length};
        }
    }
}

/* A text that begins as the reply does. */
static bool match_from_start(const struct draft_query *query, const struct branch_run *text,
                             struct match *out)
{
    const uint32_t *reply = query->ids + query->count - query->reply_count;

    if (text->count <= query->reply_count ||
        memcmp(text->ids, reply, query->reply_count * sizeof(uint32_t)) != 0) {
        return false;
    }
    *out = (struct match){text->ids, text->count, query->reply_count, MATCH_TOKENS_MAX};
    return true;
}

uint32_t speculate_find(const struct draft_query *query, uint32_t count_max, uint32_t *drafts,
                        bool *is_long)
{
    struct match best = {.length = MATCH_TOKENS_MIN - 1};
    uint32_t count = 0;
    bool is_found = false;

    CHECK(query->count > 0);
    CHECK(query->reply_count <= query->count);
    for (uint32_t i = 0; i < query->text_count && !is_found; i++) {
        is_found = match_from_start(query, &query->texts[i], &best);
    }
    if (!is_found) {
        match_in(query, query->ids, query->count, &best);
        for (uint32_t i = 0; i < query->text_count; i++) {
            match_in(query, query->texts[i].ids, query->texts[i].count, &best);
        }
    }
    if (best.text == NULL) {
        return 0;
    }
    *is_long = best.length >= MATCH_TOKENS_LONG;
    for (; count < count_max; count++) {
        const uint32_t at = best.at + count;
        if (at < best.count) {
            drafts[count] = best.text[at];
        } else if (best.text == query->ids) {
            drafts[count] = drafts[at - best.count]; /* the path repeats itself */
        } else {
            break;
        }
    }
    return count;
}

/* ---- what a step has room for ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t less(uint32_t a, uint32_t b)
{
    return a > b ? a - b : 0;
}

void speculate_begin(struct engine *engine)
{
    const struct engine_settings *settings = &engine->settings;
    struct branch_table *table = &engine->table;
    struct speculate *speculate = &engine->speculate;
    uint32_t decode_count = 0;
    uint32_t partial_count = 0;

    speculate->room_rows = 0;
    if (!settings->speculates || !forward_checks_drafts(settings->forward)) {
        return;
    }
    for (uint32_t i = 0; i < table->running_count; i++) {
        const struct branch *branch = branch_table_at(table, table->running[i]);
        if (branch->state == BRANCH_DECODE && branch->spec->marks == NULL) {
            decode_count++;
            partial_count += branch->kv_planned / ATTENTION_BLOCK_TOKENS + 1;
        }
    }
    /* Whoever starts or joins in this step samples, too. */
    const uint32_t samples =
        less(table->running_count_max - table->running_count, table->waiting_count);
    const uint32_t rows = less(settings->row_count_max, table->running_count_max);
    speculate->room_rows = least(less(DRAFT_STEP_ROWS, decode_count), least(samples, rows));
    speculate->room_partials = less(settings->partial_count_max, partial_count);
    speculate->branch_count = decode_count;
    speculate->branches_left = decode_count;
}

/* How many of `count` rows behind the one at `position` there are pages for. A page more is taken
 * only where it is in nobody's way. */
static uint32_t fit_pages(struct engine *engine, struct branch *branch, uint32_t position,
                          uint32_t count)
{
    const uint32_t page_last = (position + count) / KV_PAGE_TOKEN_COUNT;

    while (branch->span.page_count <= page_last) {
        const struct kv_pages_counts counts = kv_pages_counts(engine->pages);
        if (counts.free_count + counts.cached_count <= 2 * engine->table.running_count ||
            engine->table.waiting_count > 0 ||
            span_grow(engine->tree, engine->pages, branch) != STATUS_OK) {
            return branch->span.page_count * KV_PAGE_TOKEN_COUNT - 1 - position;
        }
    }
    return count;
}

static uint32_t count_wanted(struct engine *engine, const struct branch *branch, uint32_t position)
{
    struct speculate *speculate = &engine->speculate;
    const uint32_t share = speculate->branches_left > 0
                               ? speculate->room_rows / speculate->branches_left
                               : speculate->room_rows;
    const uint32_t room = branch_sample_count_max(branch->spec) - branch->planned_count - 1;
    const uint32_t block_count = (position + DRAFT_COUNT_MAX) / ATTENTION_BLOCK_TOKENS + 1;

    if (speculate->branches_left > 0) {
        speculate->branches_left--;
    }
    if (branch->planned_count != branch->sampled_count || !prescribe_is_spent(branch)) {
        return 0;
    }
    return least(least(share, DRAFT_COUNT_MAX),
                 least(room, speculate->room_partials / block_count));
}

/* How often a draft must be right, with all before it, for the time of its row. That of a token is
 * (STEP_COST_ROWS + n - 1) / n rows where n branches share a step. */
static uint32_t paying_rate(const struct engine *engine)
{
    const uint32_t n = engine->speculate.branch_count;

    return RATE_ONE * n / (STEP_COST_ROWS + n - 1);
}

/* Whether count_paying() can be more than 0 after either kind of match; looking one up costs. */
static bool may_pay(const struct engine *engine, const struct branch *branch)
{
    const uint32_t least_rate = paying_rate(engine);

    return branch->draft_rates[false] >= least_rate || branch->draft_rates[true] >= least_rate ||
           branch->sampled_count >= branch->draft_next_try;
}

static uint32_t count_paying(const struct engine *engine, struct branch *branch, uint32_t count_max)
{
    const uint32_t least_rate = paying_rate(engine);
    const uint32_t rate = branch->draft_rates[branch->draft_is_long];
    uint32_t all_right = rate;
    uint32_t count = 0;

    while (count < count_max && all_right >= least_rate) {
        all_right = all_right * rate / RATE_ONE;
        count++;
    }
    if (count == 0 && branch->sampled_count >= branch->draft_next_try) {
        branch->draft_next_try = branch->sampled_count + TRY_TOKENS;
        count = 1;
    }
    return least(count, count_max);
}

uint32_t speculate_draft(struct engine *engine, struct branch *branch, uint32_t position,
                         uint32_t *drafts)
{
    struct speculate *speculate = &engine->speculate;
    const struct branch_spec *spec = branch->spec;
    const uint32_t known = position + 1;
    const uint32_t from = less(known, DRAFT_PATH_TOKENS);
    const struct draft_query query = {
        .ids = speculate->ids,
        .count = known - from,
        .reply_count = least(branch->sampled_count, known - from),
        .texts = spec->texts,
        .text_count = branch->sampled_count <= known - from ? spec->text_count : 0,
    };
    uint32_t count;

    if (speculate->room_rows == 0) {
        return 0;
    }
    if (branch->draft_rates[0] == 0) {
        branch->draft_rates[0] = RATE_FIRST;
        branch->draft_rates[1] = RATE_FIRST_LONG;
    }
    count = count_wanted(engine, branch, position);
    if (count == 0 || !may_pay(engine, branch)) {
        return 0;
    }
    branch_read_ids(branch, from, known - from, speculate->ids);
    count = speculate_find(&query, count, drafts, &branch->draft_is_long);
    count = count_paying(engine, branch, count);
    count = fit_pages(engine, branch, position, count);
    CHECK(count <= DRAFT_COUNT_MAX);
    speculate->room_rows -= count;
    speculate->room_partials -= count * ((position + count) / ATTENTION_BLOCK_TOKENS + 1);
    branch->draft_count = count;
    engine->stats.drafted_count += count;
    return count;
}

/* ---- learning ---- */

void speculate_learn(struct engine *engine, struct branch *branch, uint32_t accepted_count)
{
    const bool is_one_wrong = accepted_count < branch->draft_count;
    uint32_t *rate = &branch->draft_rates[branch->draft_is_long];

    branch->draft_count = 0;
    engine->stats.accepted_count += accepted_count;
    for (uint32_t i = 0; i < accepted_count; i++) {
        *rate += (RATE_ONE - *rate) / RATE_DECAY;
    }
    if (is_one_wrong) {
        *rate -= *rate / RATE_DECAY;
    }
}
