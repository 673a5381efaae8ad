/* Literal patterns run through an Aho-Corasick automaton, since they may begin anywhere. A name may
 * begin only where a line does, so a trie that is entered at each line start is enough, and a line
 * start needs no byte of its own: the first line of a turn has none.
 *
 * Both are tables [state][class of byte]; bytes that no pattern holds share class 0. */
#include "text/cue.h"

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "text/utf8_hold.h"

enum {
    BYTE_COUNT = 256,
    TEXT_ROOT = 0, /* of the automaton; while it is built, "no edge" */
    LINE_DEAD = 0, /* of the trie: no name goes on so */
    LINE_ROOT = 1,
    UTF8_HELD_BYTES_MAX = 3,
};

static const uint32_t no_pattern = UINT32_MAX;

struct table {
    uint16_t *next;    /* owned; [state_count][class_count] */
    uint32_t *pattern; /* owned; [state_count] the longest that ends here, or no_pattern */
    uint16_t *depth;   /* owned; [state_count] bytes from the root */
    uint32_t state_count;
    uint32_t bytes_max; /* longest pattern */
};

struct cue_set {
    struct table text;
    struct table line;
    uint16_t *text_bytes; /* owned; [pattern_count] */
    uint32_t pattern_count;
    uint32_t class_count;
    uint16_t class_of[BYTE_COUNT];
    bool has_names;
};

static bool is_line_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/* What is matched: a name without the spaces around it, so that only one name at a time can be
 * waiting for the end of its line. */
static struct bytes matched_bytes(const struct cue_pattern *pattern)
{
    struct bytes text = pattern->text;

    if (pattern->kind == CUE_SPEAKER) {
        while (text.size > 0 && is_line_space(text.data[text.size - 1])) {
            text.size--;
        }
        while (text.size > 0 && is_line_space(text.data[0])) {
            text = bytes_of(text.data + 1, text.size - 1);
        }
    }
    return text;
}

static enum status check_patterns(const struct cue_pattern *patterns, uint32_t count,
                                  struct error *error)
{
    if (count > CUE_PATTERN_COUNT_MAX) {
        return error_set_limit(error, "CUE_PATTERN_COUNT_MAX", CUE_PATTERN_COUNT_MAX,
                               "%u names, cues and stop strings are too many", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct bytes text = matched_bytes(&patterns[i]);
        if (text.size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "cue or stop string %u is empty", i);
        }
        if (text.size > CUE_BYTES_MAX) {
            return error_set_limit(error, "CUE_BYTES_MAX", CUE_BYTES_MAX,
                                   "cue or stop string %u has %zu bytes", i, text.size);
        }
        if (patterns[i].kind == CUE_SPEAKER && memchr(text.data, '\n', text.size) != NULL) {
            return error_set(error, STATUS_BAD_INPUT, "the speaker name in cue %u holds a newline",
                             i);
        }
    }
    return STATUS_OK;
}

static void find_classes(struct cue_set *set, const struct cue_pattern *patterns)
{
    set->class_count = 1;
    for (uint32_t i = 0; i < set->pattern_count; i++) {
        const struct bytes text = matched_bytes(&patterns[i]);
        for (size_t at = 0; at < text.size; at++) {
            uint16_t *class = &set->class_of[text.data[at]];
            if (*class == 0) {
                *class = (uint16_t)set->class_count++;
            }
        }
    }
}

static enum status table_init(struct table *table, uint32_t state_count_max, uint32_t class_count,
                              uint32_t root)
{
    table->next = memory_alloc((size_t)state_count_max * class_count, sizeof *table->next);
    table->pattern = memory_alloc(state_count_max, sizeof *table->pattern);
    table->depth = memory_alloc(state_count_max, sizeof *table->depth);
    if (table->next == NULL || table->pattern == NULL || table->depth == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < state_count_max; i++) {
        table->pattern[i] = no_pattern;
    }
    table->state_count = root + 1;
    return STATUS_OK;
}

static void table_finish(struct table *table)
{
    memory_free(table->next);
    memory_free(table->pattern);
    memory_free(table->depth);
}

static uint16_t *table_edge(const struct cue_set *set, const struct table *table, uint32_t state,
                            uint8_t byte)
{
    return &table->next[(size_t)state * set->class_count + set->class_of[byte]];
}

static void table_add(const struct cue_set *set, struct table *table, uint32_t root,
                      struct bytes text, uint32_t pattern)
{
    uint32_t state = root;

    for (size_t at = 0; at < text.size; at++) {
        uint16_t *edge = table_edge(set, table, state, text.data[at]);
        if (*edge == 0) {
            table->depth[table->state_count] = (uint16_t)(at + 1);
            *edge = (uint16_t)table->state_count++;
        }
        state = *edge;
    }
    if (table->pattern[state] == no_pattern) {
        table->pattern[state] = pattern;
    }
    if (text.size > table->bytes_max) {
        table->bytes_max = (uint32_t)text.size;
    }
}

/* Breadth first, so that a state's shorter suffix is complete before the state is. */
static enum status link_suffixes(const struct cue_set *set, struct table *table)
{
    uint32_t *order = memory_alloc(table->state_count, sizeof *order);
    uint32_t *suffix = memory_alloc(table->state_count, sizeof *suffix);
    uint32_t count = 0;

    if (order == NULL || suffix == NULL) {
        memory_free(order);
        memory_free(suffix);
        return STATUS_MEMORY;
    }
    order[count++] = TEXT_ROOT;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t state = order[i];
        if (table->pattern[state] == no_pattern) {
            table->pattern[state] = table->pattern[suffix[state]];
        }
        for (uint32_t class = 0; class < set->class_count; class ++) {
            uint16_t *edge = &table->next[(size_t)state * set->class_count + class];
            const uint32_t fallback = table->next[(size_t)suffix[state] * set->class_count + class];
            if (*edge == 0) {
                *edge = (uint16_t)fallback;
                continue;
            }
            suffix[*edge] = state == TEXT_ROOT ? TEXT_ROOT : fallback;
            order[count++] = *edge;
        }
    }
    memory_free(order);
    memory_free(suffix);
    return STATUS_OK;
}

static enum status build(struct cue_set *set, const struct cue_pattern *patterns)
{
    uint32_t counts[2] = {TEXT_ROOT + 1, LINE_ROOT + 1};

    for (uint32_t i = 0; i < set->pattern_count; i++) {
        counts[patterns[i].kind == CUE_SPEAKER] += (uint32_t)patterns[i].text.size;
    }
    set->text_bytes = memory_alloc(set->pattern_count, sizeof *set->text_bytes);
    if (set->text_bytes == NULL) {
        return STATUS_MEMORY;
    }
    find_classes(set, patterns);
    TRY(table_init(&set->text, counts[0], set->class_count, TEXT_ROOT));
    TRY(table_init(&set->line, counts[1], set->class_count, LINE_ROOT));
    for (uint32_t i = 0; i < set->pattern_count; i++) {
        const struct bytes text = matched_bytes(&patterns[i]);
        set->text_bytes[i] = (uint16_t)text.size;
        if (patterns[i].kind == CUE_SPEAKER) {
            table_add(set, &set->line, LINE_ROOT, text, i);
            set->has_names = true;
        } else {
            table_add(set, &set->text, TEXT_ROOT, text, i);
        }
    }
    return link_suffixes(set, &set->text);
}

enum status cue_set_create(const struct cue_pattern *patterns, uint32_t pattern_count,
                           struct error *error, struct cue_set **out)
{
    struct cue_set *set;
    enum status status;

    TRY(check_patterns(patterns, pattern_count, error));
    set = memory_alloc(1, sizeof *set);
    if (set == NULL) {
        return STATUS_MEMORY;
    }
    set->pattern_count = pattern_count;
    status = build(set, patterns);
    if (status != STATUS_OK) {
        cue_set_destroy(set);
        return status;
    }
    *out = set;
    return STATUS_OK;
}

void cue_set_destroy(struct cue_set *set)
{
    if (set == NULL) {
        return;
    }
    table_finish(&set->text);
    table_finish(&set->line);
    memory_free(set->text_bytes);
    memory_free(set);
}

uint32_t cue_set_held_bytes_max(const struct cue_set *set)
{
    uint32_t most = UTF8_HELD_BYTES_MAX;

    if (set->text.bytes_max > most) {
        most = set->text.bytes_max;
    }
    if (set->has_names && 1 + set->line.bytes_max + CUE_SPACE_COUNT_MAX > most) {
        most = 1 + set->line.bytes_max + CUE_SPACE_COUNT_MAX;
    }
    return most;
}

static uint64_t clamp(int64_t place)
{
    return place < 0 ? 0 : (uint64_t)place;
}

/* A match that ended at the byte at hand. */
static void match(struct cue_reader *reader, uint64_t cut_bytes, uint32_t pattern)
{
    const bool first = !reader->stopped || cut_bytes < reader->cut_bytes ||
                       (cut_bytes == reader->cut_bytes && pattern < reader->pattern);

    reader->stopped = true;
    if (first) {
        reader->cut_bytes = cut_bytes;
        reader->pattern = pattern;
    }
}

static void read_text(struct cue_reader *reader, uint8_t byte, int64_t place)
{
    const struct cue_set *set = reader->set;
    uint32_t pattern;

    reader->text_state = *table_edge(set, &set->text, reader->text_state, byte);
    pattern = set->text.pattern[reader->text_state];
    if (pattern != no_pattern) {
        match(reader, clamp(place + 1 - (int64_t)set->text_bytes[pattern]), pattern);
    }
}

/* A name that was read in full may turn out to stand alone on its line. */
static void read_alone(struct cue_reader *reader, uint8_t byte)
{
    if (reader->alone_pattern == no_pattern) {
        return;
    }
    if (byte == '\n') {
        match(reader, reader->line_cut_bytes, reader->alone_pattern);
    } else if (is_line_space(byte) && reader->alone_spaces < CUE_SPACE_COUNT_MAX) {
        reader->alone_spaces++;
    } else {
        reader->alone_pattern = no_pattern;
    }
}

static void read_line(struct cue_reader *reader, uint8_t byte, int64_t place)
{
    const struct table *line = &reader->set->line;
    uint32_t pattern = line->pattern[reader->line_state];

    read_alone(reader, byte);
    if (pattern != no_pattern && byte == ':') {
        match(reader, reader->line_cut_bytes, pattern);
    }
    reader->line_state = *table_edge(reader->set, line, reader->line_state, byte);
    pattern = line->pattern[reader->line_state];
    if (pattern != no_pattern && reader->alone_pattern == no_pattern) {
        reader->alone_pattern = pattern;
        reader->alone_spaces = 0;
    }
    if (byte == '\n') {
        reader->line_state = LINE_ROOT;
        reader->line_cut_bytes = clamp(place);
        reader->alone_pattern = no_pattern;
    }
}

static void read_byte(struct cue_reader *reader, uint8_t byte, int64_t place)
{
    read_text(reader, byte, place);
    if (reader->set->has_names) {
        read_line(reader, byte, place);
    }
    reader->utf8_size = utf8_hold_push(reader->utf8, reader->utf8_size, byte);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void release(struct cue_reader *reader)
{
    const struct cue_set *set = reader->set;
    const int64_t fed = (int64_t)reader->fed_bytes;
    uint64_t held_from;

    if (reader->stopped) {
        held_from = reader->cut_bytes;
    } else {
        held_from = clamp(fed - set->text.depth[reader->text_state]);
        held_from = least(held_from, clamp(fed - reader->utf8_size));
        if (set->has_names &&
            (reader->line_state != LINE_DEAD || reader->alone_pattern != no_pattern)) {
            held_from = least(held_from, reader->line_cut_bytes);
        }
    }
    CHECK(held_from >= reader->released_bytes);
    reader->released_bytes = held_from;
}

void cue_reader_init(struct cue_reader *reader, const struct cue_set *set, struct bytes lead_in)
{
    *reader = (struct cue_reader){.set = set, .line_state = LINE_ROOT};
    reader->text_state = TEXT_ROOT;
    reader->alone_pattern = no_pattern;
    for (size_t i = 0; i < lead_in.size; i++) {
        read_byte(reader, lead_in.data[i], (int64_t)i - (int64_t)lead_in.size);
        reader->stopped = false; /* what ended before the branch is past */
    }
}

void cue_reader_feed(struct cue_reader *reader, struct bytes token_bytes)
{
    for (size_t i = 0; i < token_bytes.size && !reader->stopped; i++) {
        read_byte(reader, token_bytes.data[i], (int64_t)reader->fed_bytes);
        reader->fed_bytes++;
        release(reader);
    }
}

void cue_reader_end(struct cue_reader *reader)
{
    if (reader->stopped) {
        return;
    }
    if (reader->alone_pattern != no_pattern && reader->fed_bytes > 0) {
        match(reader, reader->line_cut_bytes, reader->alone_pattern);
        release(reader);
        return;
    }
    reader->released_bytes = reader->fed_bytes;
}
