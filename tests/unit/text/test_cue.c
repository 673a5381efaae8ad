/* Goal: text is cut at the first cue however tokens cut it, no byte of a cue is ever shown, and no
 * byte is held longer than it must be.
 * Method: readers over random texts that are made of pieces of their cues, in every kind of
 * cutting, against a naive reference that searches the whole text again after every byte. The
 * checker itself is tested with readers that break one rule each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/memory.h"
#include "limits.h"
#include "text/cue.h"

enum { PATTERN_COUNT_MAX = 6, TEXT_MAX = 160, NONE = -1, NO_MATCH = -2 };

struct scene {
    struct cue_pattern patterns[PATTERN_COUNT_MAX];
    uint32_t pattern_count;
    uint8_t text[TEXT_MAX]; /* lead-in and branch */
    int lead;               /* bytes of the lead-in */
    int size;
};

/* What a reader should say once `fed` bytes of the branch were read. */
struct verdict {
    int cut; /* in bytes of the branch, or NONE */
    uint32_t pattern;
    int released;
};

static uint64_t random_state;
static uint32_t stopped_count, unstopped_count;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/* Where the pattern's match that ends exactly at `end` cuts, or NO_MATCH; a name that opens the
 * text cuts at -1. ended: the generation ended there. */
static int match_start(const struct scene *scene, uint32_t index, int end, bool ended)
{
    const struct bytes name = scene->patterns[index].text;
    const int size = (int)name.size;
    int at;

    if (scene->patterns[index].kind == CUE_TEXT) {
        const bool found =
            !ended && end >= size && memcmp(scene->text + end - size, name.data, name.size) == 0;
        return found ? end - size : NO_MATCH;
    }
    for (int start = 0; start + size <= end; start++) {
        if ((start > 0 && scene->text[start - 1] != '\n') ||
            memcmp(scene->text + start, name.data, name.size) != 0) {
            continue;
        }
        at = start + size;
        if (!ended && at == end - 1 && scene->text[at] == ':') {
            return start - 1;
        }
        while (at < end && is_blank(scene->text[at]) && at - start - size < CUE_SPACE_COUNT_MAX) {
            at++;
        }
        if (ended ? at == end : at == end - 1 && scene->text[at] == '\n') {
            return start - 1;
        }
    }
    return NO_MATCH;
}

/* Whether [from, end) may be the beginning of a match. */
static bool may_grow(const struct scene *scene, int from, int end)
{
    for (uint32_t i = 0; i < scene->pattern_count; i++) {
        const struct bytes name = scene->patterns[i].text;
        const size_t left = (size_t)(end - from);
        const size_t shared = left < name.size ? left : name.size;
        if (scene->patterns[i].kind == CUE_TEXT) {
            if (left < name.size && memcmp(scene->text + from, name.data, left) == 0) {
                return true;
            }
            continue;
        }
        /* From here a line starts: the name, or the name and spaces. */
        if (memcmp(scene->text + from, name.data, shared) == 0) {
            size_t at = shared;
            while (at < left && is_blank(scene->text[from + (int)at])) {
                at++;
            }
            if (at == left && left <= name.size + CUE_SPACE_COUNT_MAX) {
                return true;
            }
        }
    }
    return false;
}

static bool only_kind(const struct scene *scene, struct scene *out, enum cue_kind kind)
{
    *out = *scene;
    out->pattern_count = 0;
    for (uint32_t i = 0; i < scene->pattern_count; i++) {
        if (scene->patterns[i].kind == kind) {
            out->patterns[out->pattern_count++] = scene->patterns[i];
        }
    }
    return out->pattern_count > 0;
}

static int first_held(const struct scene *scene, int end)
{
    struct scene part;
    int held = end;
    const struct bytes whole = bytes_of(scene->text, (size_t)end);
    int tail = end;

    if (only_kind(scene, &part, CUE_TEXT)) {
        for (int from = end - 1; from >= 0; from--) {
            held = may_grow(&part, from, end) ? from : held;
        }
    }
    if (only_kind(scene, &part, CUE_SPEAKER)) {
        for (int from = end; from >= 0; from--) {
            const bool starts = from == 0 || scene->text[from - 1] == '\n';
            if (starts && may_grow(&part, from, end) && from - 1 < held) {
                held = from - 1;
            }
        }
    }
    /* An unfinished character: at most its last three bytes, and some continuation completes it. */
    for (int from = end - 1; from >= 0 && from >= end - 3; from--) {
        static const uint8_t ends[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
        for (uint32_t i = 0; whole.data[from] >= 0xc0 && i < 6 * 6 * 6; i++) {
            uint8_t sequence[8];
            const int left = end - from;
            memcpy(sequence, whole.data + from, (size_t)left);
            sequence[left] = ends[i % 6];
            sequence[left + 1] = ends[i / 6 % 6];
            sequence[left + 2] = ends[i / 36 % 6];
            for (int size = left + 1; size <= 4; size++) {
                uint32_t code_point;
                if (utf8_decode(bytes_of(sequence, (size_t)size), &code_point) == (size_t)size) {
                    tail = from;
                }
            }
        }
    }
    return held < tail ? held : tail;
}

static struct verdict judge(const struct scene *scene, int fed, bool ended)
{
    struct verdict verdict = {NONE, 0, 0};
    const int lead = scene->lead;

    for (int end = lead + 1; end <= lead + fed && verdict.cut == NONE; end++) {
        for (uint32_t i = 0; i < scene->pattern_count; i++) {
            const int place = match_start(scene, i, end, false);
            const int start = place < lead ? 0 : place - lead;
            if (place == NO_MATCH) {
                continue;
            }
            if (verdict.cut == NONE || start < verdict.cut) {
                verdict = (struct verdict){start, i, start};
            }
        }
    }
    for (uint32_t i = 0; ended && fed > 0 && verdict.cut == NONE && i < scene->pattern_count; i++) {
        const int place = match_start(scene, i, lead + fed, true);
        const int start = place < lead ? 0 : place - lead;
        if (place != NO_MATCH) {
            verdict = (struct verdict){start, i, start};
        }
    }
    if (verdict.cut == NONE) {
        const int held = ended ? lead + fed : first_held(scene, lead + fed);
        verdict.released = held < lead ? 0 : held - lead;
    }
    return verdict;
}

/* What is under test: the reader, or one that breaks a rule. */
struct driver {
    void (*feed)(struct cue_reader *reader, struct bytes token);
    void (*end)(struct cue_reader *reader);
};

static bool agrees(const struct cue_reader *reader, const struct verdict *verdict)
{
    if (reader->stopped != (verdict->cut != NONE) ||
        reader->released_bytes != (uint64_t)verdict->released) {
        return false;
    }
    return !reader->stopped ||
           (reader->cut_bytes == (uint64_t)verdict->cut && reader->pattern == verdict->pattern);
}

/* Cuts the branch into random tokens; false at the first disagreement. */
static bool survives(const struct scene *scene, const struct cue_set *set,
                     const struct driver *driver, uint32_t token_bytes_max)
{
    const uint8_t *branch = scene->text + scene->lead;
    const int size = scene->size - scene->lead;
    struct cue_reader reader;
    struct verdict verdict;
    uint64_t shown = 0;
    int fed = 0;

    cue_reader_init(&reader, set, bytes_of(scene->text, (size_t)scene->lead));
    while (fed < size) {
        int token = (int)draw(token_bytes_max) + 1;
        token = token < size - fed ? token : size - fed;
        driver->feed(&reader, bytes_of(branch + fed, (size_t)token));
        fed += token;
        verdict = judge(scene, fed, false);
        if (!agrees(&reader, &verdict) || reader.released_bytes < shown ||
            (!reader.stopped &&
             reader.fed_bytes - reader.released_bytes > cue_set_held_bytes_max(set))) {
            return false;
        }
        shown = reader.released_bytes;
    }
    driver->end(&reader);
    stopped_count += reader.stopped;
    unstopped_count += !reader.stopped;
    verdict = judge(scene, fed, true);
    return agrees(&reader, &verdict) && reader.released_bytes >= shown;
}

static void make_scene(struct scene *scene)
{
    static const char *const texts[] = {"\n\n",  "\nUser:", "END", "<|", "aab",  "ab",
                                        "\n#",   "é",       "\n",  "::", "aaaa", "\xf0\x9f\x98\x80",
                                        "User: "};
    static const char *const names[] = {"User", "Us", "U",     "Ann Lee", "Ann",
                                        "Zoë",  "a",  "User:", "ab"};
    static const char *const pieces[] = {"\n",       "\n",
                                         "User",     "Us",
                                         "Ann",      " Lee",
                                         ":",        " ",
                                         "  ",       "\t",
                                         "\r",       "a",
                                         "b",        "é",
                                         "\xc3",     "\xa9",
                                         "\xf0\x9f", "\x98",
                                         "Zo",       "ë",
                                         "EN",       "D",
                                         "<",        "|",
                                         "#",        "                 "};
    scene->pattern_count = draw(PATTERN_COUNT_MAX + 1);
    for (uint32_t i = 0; i < scene->pattern_count; i++) {
        const bool name = draw(2) == 0;
        scene->patterns[i].kind = name ? CUE_SPEAKER : CUE_TEXT;
        scene->patterns[i].text = bytes_of_text(name ? names[draw(sizeof names / sizeof *names)]
                                                     : texts[draw(sizeof texts / sizeof *texts)]);
    }
    scene->size = 0;
    for (uint32_t count = draw(14); count > 0; count--) {
        const char *piece = pieces[draw(sizeof pieces / sizeof *pieces)];
        if (scene->size + (int)strlen(piece) > 100) {
            break;
        }
        memcpy(scene->text + scene->size, piece, strlen(piece));
        scene->size += (int)strlen(piece);
    }
    scene->lead = draw(2) == 0 ? 0 : (int)draw((uint32_t)scene->size + 1);
}

/* Disagreements over many scenes, each in several cuttings. */
static uint32_t count_failures(const struct driver *driver, uint32_t scene_count)
{
    uint32_t failures = 0;

    random_state = 20;
    for (uint32_t i = 0; i < scene_count; i++) {
        struct cue_set *set = NULL;
        struct scene scene;

        make_scene(&scene);
        assert_int_equal(cue_set_create(scene.patterns, scene.pattern_count, NULL, &set),
                         STATUS_OK);
        for (uint32_t token_bytes_max = 1; token_bytes_max <= 25; token_bytes_max += 6) {
            failures += !survives(&scene, set, driver, token_bytes_max);
        }
        cue_set_destroy(set);
    }
    return failures;
}

static const struct driver real = {cue_reader_feed, cue_reader_end};

static void test_every_cutting_gives_the_naive_verdict_after_every_token(void **state)
{
    (void)state;
    assert_int_equal(count_failures(&real, 20000), 0);
    assert_true(stopped_count > 1000 && unstopped_count > 1000);
}

static void feed_and_show_all(struct cue_reader *reader, struct bytes token)
{
    cue_reader_feed(reader, token);
    if (!reader->stopped) {
        reader->released_bytes = reader->fed_bytes;
    }
}

static void feed_and_hold_one_byte_more(struct cue_reader *reader, struct bytes token)
{
    cue_reader_feed(reader, token);
    if (!reader->stopped && reader->released_bytes > 0) {
        reader->released_bytes--;
    }
}

static void feed_and_forget_between_tokens(struct cue_reader *reader, struct bytes token)
{
    reader->text_state = 0;
    cue_reader_feed(reader, token);
}

static void end_without_a_decision(struct cue_reader *reader)
{
    if (!reader->stopped) {
        reader->released_bytes = reader->fed_bytes;
    }
}

/* The twin: the same checker, four ways to be wrong. */
static void test_a_broken_rule_is_caught_by_the_same_checker(void **state)
{
    static const struct driver broken[] = {{feed_and_show_all, cue_reader_end},
                                           {feed_and_hold_one_byte_more, cue_reader_end},
                                           {feed_and_forget_between_tokens, cue_reader_end},
                                           {cue_reader_feed, end_without_a_decision}};

    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        assert_true(count_failures(&broken[i], 400) > 0);
    }
}

static struct cue_set *make_set(enum cue_kind kind, const char *text)
{
    const struct cue_pattern pattern = {kind, bytes_of_text(text)};
    struct cue_set *set = NULL;

    assert_int_equal(cue_set_create(&pattern, 1, NULL, &set), STATUS_OK);
    return set;
}

static void test_a_cue_that_begins_inside_a_token_cuts_inside_it(void **state)
{
    struct cue_set *set = make_set(CUE_TEXT, "\nUser:");
    struct cue_reader reader;

    (void)state;
    cue_reader_init(&reader, set, bytes_of(NULL, 0));
    cue_reader_feed(&reader, bytes_of_text("Yes."));
    assert_int_equal(reader.released_bytes, 4);
    cue_reader_feed(&reader, bytes_of_text("\n\n"));
    assert_int_equal(reader.released_bytes, 5);
    cue_reader_feed(&reader, bytes_of_text("User"));
    cue_reader_feed(&reader, bytes_of_text(": hi"));
    assert_true(reader.stopped);
    assert_int_equal(reader.cut_bytes, 5);
    cue_reader_feed(&reader, bytes_of_text("more"));
    cue_reader_end(&reader); /* neither changes what was decided */
    assert_int_equal(reader.cut_bytes, 5);
    assert_int_equal(reader.released_bytes, 5);
    cue_set_destroy(set);
}

static void test_a_name_without_a_colon_cuts_only_where_it_stands_alone(void **state)
{
    struct cue_set *set = make_set(CUE_SPEAKER, " Ann\t");
    struct cue_reader reader;

    (void)state;
    cue_reader_init(&reader, set, bytes_of(NULL, 0));
    cue_reader_feed(&reader, bytes_of_text("Ann said no.\nAnn"));
    assert_false(reader.stopped);
    assert_int_equal(reader.released_bytes, 12);
    cue_reader_end(&reader);
    assert_true(reader.stopped);
    assert_int_equal(reader.cut_bytes, 12);
    cue_set_destroy(set);
}

static void test_a_lead_in_sets_the_state_and_is_never_cut(void **state)
{
    struct cue_set *set = make_set(CUE_SPEAKER, "Ann");
    struct cue_reader reader;

    (void)state;
    cue_reader_init(&reader, set, bytes_of_text("Ann: once\nAn"));
    assert_false(reader.stopped);
    cue_reader_feed(&reader, bytes_of_text("n"));
    assert_int_equal(reader.released_bytes, 0);
    cue_reader_feed(&reader, bytes_of_text(":"));
    assert_true(reader.stopped);
    assert_int_equal(reader.cut_bytes, 0);
    cue_reader_init(&reader, set, bytes_of_text("The man An"));
    cue_reader_feed(&reader, bytes_of_text("n: no"));
    assert_false(reader.stopped);
    assert_int_equal(reader.released_bytes, 5);
    cue_reader_init(&reader, set, bytes_of_text("x\nAnn"));
    cue_reader_end(&reader); /* nothing was generated: there is nothing to stop */
    assert_false(reader.stopped);
    cue_set_destroy(set);
}

static void test_bad_patterns_are_refused_by_number(void **state)
{
    static char long_text[CUE_BYTES_MAX + 2];
    struct cue_pattern patterns[CUE_PATTERN_COUNT_MAX + 1];
    struct cue_set *set = NULL;
    struct error error = {0};

    (void)state;
    memset(long_text, 'x', CUE_BYTES_MAX + 1);
    for (size_t i = 0; i <= CUE_PATTERN_COUNT_MAX; i++) {
        patterns[i] = (struct cue_pattern){CUE_TEXT, bytes_of(long_text, CUE_BYTES_MAX)};
    }
    assert_int_equal(cue_set_create(patterns, CUE_PATTERN_COUNT_MAX + 1, &error, &set),
                     STATUS_LIMIT);
    assert_string_equal(error.limit_name, "CUE_PATTERN_COUNT_MAX");
    assert_int_equal(cue_set_create(patterns, CUE_PATTERN_COUNT_MAX, &error, &set), STATUS_OK);
    cue_set_destroy(set);
    set = NULL;
    patterns[2].text = bytes_of_text(long_text);
    assert_int_equal(cue_set_create(patterns, 3, &error, &set), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "CUE_BYTES_MAX");
    patterns[2] = (struct cue_pattern){CUE_SPEAKER, bytes_of_text("  ")};
    assert_int_equal(cue_set_create(patterns, 3, &error, &set), STATUS_BAD_INPUT);
    patterns[2] = (struct cue_pattern){CUE_SPEAKER, bytes_of_text("a\nb")};
    assert_int_equal(cue_set_create(patterns, 3, &error, &set), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "cue 2"));
    assert_null(set);
}

static void test_every_allocation_may_fail_and_reading_allocates_nothing(void **state)
{
    const struct cue_pattern patterns[] = {{CUE_TEXT, bytes_of_text("END")},
                                           {CUE_SPEAKER, bytes_of_text("Ann")}};
    enum status status = STATUS_MEMORY;
    const int64_t live = memory_live_count();
    struct cue_set *set = NULL;
    struct cue_reader reader;
    uint64_t before;

    (void)state;
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        assert_int_equal(memory_live_count(), live);
        memory_fault_set(survivors);
        status = cue_set_create(patterns, 2, NULL, &set);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || (status == STATUS_MEMORY && set == NULL));
    }
    before = memory_thread_allocation_count();
    cue_reader_init(&reader, set, bytes_of_text("lead"));
    cue_reader_feed(&reader, bytes_of_text("text\nAnn"));
    cue_reader_end(&reader);
    assert_int_equal(memory_thread_allocation_count(), before);
    cue_set_destroy(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cutting_gives_the_naive_verdict_after_every_token),
        cmocka_unit_test(test_a_broken_rule_is_caught_by_the_same_checker),
        cmocka_unit_test(test_a_cue_that_begins_inside_a_token_cuts_inside_it),
        cmocka_unit_test(test_a_name_without_a_colon_cuts_only_where_it_stands_alone),
        cmocka_unit_test(test_a_lead_in_sets_the_state_and_is_never_cut),
        cmocka_unit_test(test_bad_patterns_are_refused_by_number),
        cmocka_unit_test(test_every_allocation_may_fail_and_reading_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
