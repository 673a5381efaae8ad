#include "session/example.h"

#include <string.h>
#include <strings.h>

enum line_kind { LINE_TEXT, LINE_START, LINE_PERSONA, LINE_USER };

static bool begins(struct bytes line, struct bytes name)
{
    return line.size > name.size && line.data[name.size] == ':' &&
           memcmp(line.data, name.data, name.size) == 0;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static struct bytes trim(struct bytes text)
{
    while (text.size > 0 && is_blank(text.data[0])) {
        text = bytes_of(text.data + 1, text.size - 1);
    }
    while (text.size > 0 && is_blank(text.data[text.size - 1])) {
        text.size--;
    }
    return text;
}

static enum line_kind kind_of(const struct example *example, struct bytes line)
{
    const struct bytes text = trim(line);

    if (text.size == strlen("<START>") &&
        strncasecmp((const char *)text.data, "<START>", text.size) == 0) {
        return LINE_START;
    }
    if (begins(line, example->character)) {
        return LINE_PERSONA;
    }
    return begins(line, example->user) ? LINE_USER : LINE_TEXT;
}

/* The line at the cursor, its break included. */
static struct bytes line_at(const struct example *example)
{
    const struct bytes rest =
        bytes_of(example->text.data + example->at, example->text.size - example->at);
    const uint8_t *end = memchr(rest.data, '\n', rest.size);

    return bytes_of(rest.data, end == NULL ? rest.size : (size_t)(end - rest.data) + 1);
}

void example_init(struct example *example, struct bytes text, struct bytes character,
                  struct bytes user)
{
    *example = (struct example){.text = text, .character = character, .user = user};
}

bool example_next(struct example *example, struct example_turn *turn)
{
    while (example->at < example->text.size) {
        struct bytes line = line_at(example);
        const enum line_kind kind = kind_of(example, line);
        size_t from;

        example->at += line.size;
        if (kind != LINE_PERSONA && kind != LINE_USER) {
            continue;
        }
        turn->is_persona = kind == LINE_PERSONA;
        from = example->at - line.size +
               (turn->is_persona ? example->character.size : example->user.size) + 1;
        while (example->at < example->text.size) {
            line = line_at(example);
            if (kind_of(example, line) != LINE_TEXT) {
                break;
            }
            example->at += line.size;
        }
        turn->text = trim(bytes_of(example->text.data + from, example->at - from));
        if (turn->text.size > 0) {
            return true;
        }
    }
    return false;
}

bool example_has_turns(struct bytes text, struct bytes character, struct bytes user)
{
    struct example example;
    struct example_turn turn;

    example_init(&example, text, character, user);
    return example_next(&example, &turn);
}
