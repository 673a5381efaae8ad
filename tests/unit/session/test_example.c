/* Goal: a sample dialogue becomes the turns that its author meant.
 * Method: texts as cards write them, and the turns expected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "session/example.h"

/* Each turn as "P<text>" or "U<text>", with bars between. */
static const char *turns_of(const char *text)
{
    static char out[512];
    struct example example;
    struct example_turn turn;
    size_t at = 0;

    out[0] = '\0';
    example_init(&example, bytes_of_text(text), bytes_of_text("Ada"), bytes_of_text("Bob"));
    while (example_next(&example, &turn)) {
        at += (size_t)snprintf(out + at, sizeof(out) - at, "%s%c%.*s", at > 0 ? "|" : "",
                               turn.is_persona ? 'P' : 'U', (int)turn.text.size,
                               (const char *)turn.text.data);
    }
    return out;
}

static void test_lines_with_names_are_turns(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"<START>\nBob: Hi\nAda: Hello.\n", "UHi|PHello."},
        {"<start>\r\nBob: Hi\r\nAda: Hello.\r\n<START>\r\nBob: Bye", "UHi|PHello.|UBye"},
        {"Ada: one\ntwo\n\nthree\nBob: four", "Pone\ntwo\n\nthree|Ufour"},
        {"words before\nAda: one", "Pone"},
        {"Ada:\nAda: x", "Px"},
        {"Adam: one\nada: two\n Ada: three", ""},
        {"Ada:one\n<START> not a mark\n", "Pone\n<START> not a mark"},
        {"He said Ada: no", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(turns_of(cases[i][0]), cases[i][1]);
        assert_int_equal(example_has_turns(bytes_of_text(cases[i][0]), bytes_of_text("Ada"),
                                           bytes_of_text("Bob")),
                         cases[i][1][0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_with_names_are_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
