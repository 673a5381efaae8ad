/* Goal: lore costs what its entries and the turns are together, not each times each.
 * Method: the processor's time for as many entries in the worst order against the same in the
 * best one; the worst would take many times as long if one looked at all for each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/memory.h"
#include "session/context.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

enum {
    ENTRY_COUNT = LORE_ENTRY_COUNT_MAX,
    ENTRY_BYTES_MAX = 160,
    TURN_COUNT = 12000,
    RUN_COUNT = 7,
    SORT_TIMES_MAX = 20, /* a thousand when each looks at all */
    WALK_TIMES_MAX = 2   /* four when each turn looks at all */
};

static struct rig rig;

/* A persona whose entries are always there; `entry` gets a number, counted down or 0. Its id. */
static uint64_t put_card(const char *entry, bool is_counted)
{
    const size_t size = (size_t)(ENTRY_COUNT + 2) * ENTRY_BYTES_MAX;
    char *card = malloc(size);
    size_t at;

    assert_non_null(card);
    at = (size_t)snprintf(card, size,
                          "{\"name\":\"A\",\"extensions\":{\"personad\":{\"play\":\"transcript\"}},"
                          "\"character_book\":{\"token_budget\":131072,\"entries\":[");
    for (int i = 0; i < ENTRY_COUNT; i++) {
        const int index = is_counted ? ENTRY_COUNT - i : 0;

        at += (size_t)snprintf(card + at, size - at, "%s{\"keys\":[],\"constant\":true,",
                               i == 0 ? "" : ",");
        at += (size_t)snprintf(card + at, size - at, entry, index);
    }
    (void)snprintf(card + at, size - at, "]}}");
    const uint64_t persona = rig_put(&rig, card);

    free(card);
    return persona;
}

/* Of both the least of some runs, taken in turn: what else the machine does slows both. */
struct pair {
    double best, worst;
};

static void take(double *least, clock_t start)
{
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;

    *least = *least == 0 || seconds < *least ? seconds : *least;
}

static void open_one(uint64_t persona, double *least)
{
    const clock_t start = clock();

    rig_open_session(&rig, persona);
    take(least, start);
}

static void test_a_prompt_sorts_its_lore_once(void **state)
{
    static const char entry[] = "\"insertion_order\":%d,\"content\":\"\"}";
    const uint64_t equal = put_card(entry, false);
    const uint64_t different = put_card(entry, true);
    struct pair least = {0};

    (void)state;
    for (int run = 0; run < RUN_COUNT; run++) {
        open_one(equal, &least.best);
        open_one(different, &least.worst);
    }
    printf("equal orders %.2f ms, different ones %.2f ms\n", 1e3 * least.best, 1e3 * least.worst);
    assert_true(least.worst < SORT_TIMES_MAX * least.best);
}

/* A long conversation with that persona. */
static struct session *converse(uint64_t persona)
{
    const uint64_t id = rig_open_session(&rig, persona);
    struct session *session = state_session_find(rig.store, id);

    session->context_tokens = CONTEXT_TOKEN_COUNT_MAX;
    for (int i = 0; i < TURN_COUNT; i++) {
        rig_execute(&rig, rig_append(id, "a"));
        assert_int_equal(rig.reply.type, REPLY_CREATED);
    }
    return session;
}

static void make_context(struct session *session, double *least)
{
    const struct context_query query = {
        .session = session,
        .encoder = &rig.store->encoder,
        .place = state_head(session),
        .speaker = 1,
        .opens_turn = true,
        .reply_tokens = 1,
    };
    struct context *context = NULL;
    struct error error = {.text = ""};
    const clock_t start = clock();

    assert_int_equal(context_create(&query, &error, &context), STATUS_OK);
    take(least, start);
    assert_int_equal(context_turns_left_out(context), 0);
    context_release(context);
}

static void test_a_context_goes_over_its_inserts_once(void **state)
{
    struct session *behind = converse(
        put_card("\"content\":\"a\",\"extensions\":{\"position\":4,\"depth\":%d}}", false));
    struct session *before = converse(
        put_card("\"content\":\"a\",\"extensions\":{\"position\":4,\"depth\":1%06d}}", false));
    struct pair least = {0};

    (void)state;
    for (int run = 0; run < RUN_COUNT; run++) {
        make_context(behind, &least.best);
        make_context(before, &least.worst);
    }
    printf("behind all turns %.2f ms, before them %.2f ms\n", 1e3 * least.best, 1e3 * least.worst);
    assert_true(least.worst < WALK_TIMES_MAX * least.best);
}

static int set_up(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_sorts_its_lore_once),
        cmocka_unit_test(test_a_context_goes_over_its_inserts_once),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
