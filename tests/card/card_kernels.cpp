/* The tests of single kernels on a card: the emulator's own cases (tests/emulator), compiled by
 * nvcc and linked with the objects of the library. What a test says of schedules and of copies that
 * land early or late, a card decides for itself; planted bugs that a card may or may not show are
 * left out, each with a line "left to the emulator".
 *
 *   card_kernels            all suites        card_kernels SUITE...   these
 *   card_kernels --list     their names
 *
 * PERSONAD_CARD_SKIP leaves out tests by a pattern, as cmocka reads it. Ends with 0, with 1 when a
 * test failed, and with 77 where there is no card.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/device.h"

enum { CARD_NONE = 77, CARD_USAGE = 2 };

/* The main() of each file of tests, which goes by this name here (cmake/card.cmake). */
#define X(name) int card_suite_##name(void);
CARD_SUITES
#undef X

static const struct {
    const char *name;
    int (*run)(void); /* how many tests failed */
} suites[] = {
#define X(name) {#name, card_suite_##name},
    CARD_SUITES
#undef X
};

enum { SUITE_COUNT = sizeof suites / sizeof suites[0] };

static bool find(const char *name, uint32_t *out)
{
    for (uint32_t i = 0; i < SUITE_COUNT; i++) {
        if (strcmp(suites[i].name, name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool run(uint32_t suite)
{
    (void)printf("suite %s\n", suites[suite].name);
    (void)fflush(stdout);
    const bool fine = suites[suite].run() == 0;
    (void)fflush(stdout);
    return fine;
}

/* Says what the card is; false: there is none. */
static bool find_card(void)
{
    struct device_facts facts;
    struct error error = {};
    uint32_t count = 0;
    enum status status = device_count(&error, &count);

    if (status == STATUS_OK && count > 0) {
        status = device_describe(0, &error, &facts);
    }
    if (status != STATUS_OK || count == 0) {
        (void)fprintf(stderr, "no card: %s\n",
                      error.text[0] == '\0' ? "the driver sees no NVIDIA device" : error.text);
        return false;
    }
    (void)printf("card %s, sm_%u\n", facts.name, facts.architecture);
    return true;
}

int main(int count, char **arguments)
{
    const char *skip = getenv("PERSONAD_CARD_SKIP");
    bool is_asked[SUITE_COUNT] = {}, fine = true;
    uint32_t suite = 0;

    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--list") == 0) {
            for (const auto &listed : suites) {
                (void)puts(listed.name);
            }
            return 0;
        }
        if (!find(arguments[i], &suite)) {
            (void)fprintf(stderr, "card_kernels: no suite '%s': see --list\n", arguments[i]);
            return CARD_USAGE;
        }
        is_asked[suite] = true;
    }
    if (!find_card()) {
        return CARD_NONE;
    }
    if (skip != NULL && skip[0] != '\0') {
        cmocka_set_skip_filter(skip);
    }
    for (suite = 0; suite < SUITE_COUNT; suite++) {
        if (count <= 1 || is_asked[suite]) {
            fine = run(suite) && fine;
        }
    }
    return fine ? 0 : 1;
}
