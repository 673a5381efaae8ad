#include "session/render.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/sha256.h"

enum { CHOICE_COUNT_MAX = 1024, ROLL_MAX = 1000000, DATE_BYTES_MAX = 32 };

static bool is_same(struct bytes text, struct bytes name)
{
    return text.size == name.size &&
           (name.size == 0 ||
            strncasecmp((const char *)text.data, (const char *)name.data, name.size) == 0);
}

static bool is_word(struct bytes text, const char *word)
{
    return is_same(text, bytes_of_text(word));
}

static struct bytes part_of(struct bytes text, size_t from, size_t to)
{
    return from == to ? bytes_of(NULL, 0) : bytes_of(text.data + from, to - from);
}

static struct bytes trim(struct bytes text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text = part_of(text, 1, text.size);
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}

/* A number below `bound` that depends on the seed and on how many were drawn before. */
static uint64_t draw(struct render *render, uint64_t bound)
{
    uint8_t input[16];
    uint8_t digest[SHA256_BYTES];

    bytes_store_u64(input, render->seed);
    bytes_store_u64(input + 8, render->draw_count++);
    sha256_bytes(bytes_of(input, sizeof(input)), digest);
    return bytes_load_u64(digest) % bound;
}

static enum status render_choice(struct render *render, struct bytes list, struct buffer *out)
{
    const bool has_colons = list.size >= 2 && memcmp(list.data, "::", 2) == 0;
    const size_t mark_bytes = has_colons ? 2 : 1;
    struct bytes choices[CHOICE_COUNT_MAX];
    uint32_t choice_count = 0;
    size_t from = mark_bytes;

    for (size_t at = from; at <= list.size && choice_count < CHOICE_COUNT_MAX; at++) {
        bool is_end = at == list.size;
        bool is_mark = !is_end && (has_colons ? at + 1 < list.size && list.data[at] == ':' &&
                                                    list.data[at + 1] == ':'
                                              : list.data[at] == ',');

        if (is_end || is_mark) {
            choices[choice_count++] = trim(part_of(list, from, at));
            from = at + mark_bytes;
            at = from - 1;
        }
    }
    return choice_count == 0 ? STATUS_OK : buffer_append(out, choices[draw(render, choice_count)]);
}

static enum status render_roll(struct render *render, struct bytes sides, struct buffer *out)
{
    uint64_t count = 0;
    char text[24];

    sides = trim(sides);
    if (sides.size > 0 && (sides.data[0] == 'd' || sides.data[0] == 'D')) {
        sides = part_of(sides, 1, sides.size);
    }
    for (size_t i = 0; i < sides.size; i++) {
        if (sides.data[i] < '0' || sides.data[i] > '9' || count > ROLL_MAX) {
            return STATUS_OK;
        }
        count = count * 10 + (sides.data[i] - '0');
    }
    if (count == 0 || count > ROLL_MAX) {
        return STATUS_OK;
    }
    snprintf(text, sizeof(text), "%llu", (unsigned long long)(1 + draw(render, count)));
    return buffer_append_text(out, text);
}

static enum status render_moment(const struct render *render, const char *format,
                                 struct buffer *out)
{
    const time_t seconds = (time_t)(render->now_us / 1000000);
    char text[DATE_BYTES_MAX];
    struct tm moment;

    if (gmtime_r(&seconds, &moment) == NULL) {
        return STATUS_OK;
    }
    strftime(text, sizeof(text), format, &moment);
    return buffer_append_text(out, text);
}

static bool starts_with(struct bytes text, const char *word)
{
    const size_t size = strlen(word);

    return text.size >= size && is_same(part_of(text, 0, size), bytes_of_text(word));
}

static enum status render_call(struct render *render, struct bytes inside, struct buffer *out,
                               bool *is_known)
{
    *is_known = true;
    if (starts_with(inside, "//") || starts_with(inside, "comment:") ||
        starts_with(inside, "hidden_key:")) {
        return STATUS_OK;
    }
    if (starts_with(inside, "random:")) {
        return render_choice(render, part_of(inside, strlen("random"), inside.size), out);
    }
    if (starts_with(inside, "pick:")) {
        return render_choice(render, part_of(inside, strlen("pick"), inside.size), out);
    }
    if (starts_with(inside, "roll:")) {
        return render_roll(render, part_of(inside, strlen("roll:"), inside.size), out);
    }
    *is_known = false;
    return STATUS_OK;
}

/* What stands between the braces. */
static enum status render_inside(struct render *render, struct bytes inside, struct buffer *out,
                                 bool *is_known)
{
    inside = trim(inside);
    *is_known = true;
    for (uint32_t i = 0; i < render->variable_count; i++) {
        if (is_same(inside, render->variables[i].name)) {
            return buffer_append(out, render->variables[i].value);
        }
    }
    if (is_word(inside, "char")) {
        return buffer_append(out, render->character);
    }
    if (is_word(inside, "user")) {
        return buffer_append(out, render->user);
    }
    if (is_word(inside, "original")) {
        return STATUS_OK;
    }
    if (is_word(inside, "newline")) {
        return buffer_append_text(out, "\n");
    }
    if (is_word(inside, "date")) {
        return render_moment(render, "%Y-%m-%d", out);
    }
    if (is_word(inside, "time")) {
        return render_moment(render, "%H:%M", out);
    }
    return render_call(render, inside, out, is_known);
}

/* Bytes of the placeholder at the start of `text`, its inside in *inside; 0 when none is there. */
static size_t placeholder_at(struct bytes text, struct bytes *inside)
{
    if (starts_with(text, "<USER>")) {
        *inside = bytes_of_text("user");
        return strlen("<USER>");
    }
    if (starts_with(text, "<BOT>")) {
        *inside = bytes_of_text("char");
        return strlen("<BOT>");
    }
    if (text.size < 4 || text.data[0] != '{' || text.data[1] != '{') {
        return 0;
    }
    for (size_t end = 2; end + 1 < text.size; end++) {
        if (text.data[end] == '{') {
            return 0; /* the inner one counts */
        }
        if (text.data[end] == '}' && text.data[end + 1] == '}') {
            *inside = part_of(text, 2, end);
            return end + 2;
        }
    }
    return 0;
}

enum status render_text(struct render *render, struct bytes text, struct buffer *out)
{
    size_t plain_from = 0;
    size_t at = 0;

    while (at < text.size) {
        const bool is_mark = text.data[at] == '{' || text.data[at] == '<';
        struct bytes inside = bytes_of(NULL, 0);
        size_t size = is_mark ? placeholder_at(part_of(text, at, text.size), &inside) : 0;
        bool is_known = false;

        if (size > 0) {
            size_t size_before;

            TRY(buffer_append(out, part_of(text, plain_from, at)));
            size_before = out->size;
            TRY(render_inside(render, inside, out, &is_known));
            if (!is_known) {
                out->size = size_before;
                TRY(buffer_append(out, part_of(text, at, at + size)));
            }
            plain_from = at + size;
        }
        at += size > 0 ? size : 1;
    }
    return buffer_append(out, part_of(text, plain_from, text.size));
}

bool render_uses(struct bytes text, struct bytes name)
{
    for (size_t at = 0; at < text.size; at++) {
        struct bytes inside = bytes_of(NULL, 0);

        if ((text.data[at] == '{' || text.data[at] == '<') &&
            placeholder_at(part_of(text, at, text.size), &inside) > 0 &&
            is_same(trim(inside), name)) {
            return true;
        }
    }
    return false;
}
