/* Goal: a log line has its exact format, is one line whatever it quotes, and obeys the level.
 * Method: standard error is a pipe and time stands still, so that whole lines are compared.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

static int ends[2];
static int real_stderr;
static const uint64_t noon_ns = UINT64_C(1769860800123999999); /* 2026-01-31T12:00:00.123 */

static int capture_start(void **state)
{
    (void)state;
    real_stderr = dup(STDERR_FILENO);
    if (real_stderr < 0 || pipe2(ends, O_NONBLOCK) != 0 || dup2(ends[1], STDERR_FILENO) < 0) {
        return -1;
    }
    clock_fake_set(&noon_ns);
    log_level_set(LOG_INFO);
    return 0;
}

static int capture_stop(void **state)
{
    (void)state;
    clock_fake_set(NULL);
    log_level_set(LOG_INFO);
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* What was written since the last call. */
static const char *captured(void)
{
    static char text[65536];
    const ssize_t size = read(ends[0], text, sizeof(text) - 1);

    text[size > 0 ? size : 0] = '\0';
    return text;
}

static void test_a_line_has_its_time_level_area_and_message(void **state)
{
    (void)state;
    log_line(LOG_INFO, "wire", "connection %d opened uid=%d", 7, 1000);
    assert_string_equal(captured(),
                        "2026-01-31T12:00:00.123Z info  wire: connection 7 opened uid=1000\n");
    log_line(LOG_ERROR, "engine", "no");
    assert_string_equal(captured(), "2026-01-31T12:00:00.123Z error engine: no\n");
    log_line(LOG_WARN, "engine", "%s", "");
    assert_string_equal(captured(), "2026-01-31T12:00:00.123Z warn  engine: \n");
}

static void test_lines_below_the_level_are_not_written(void **state)
{
    const enum log_level levels[] = {LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG};

    (void)state;
    for (int set = 0; set < 4; set++) {
        log_level_set(levels[set]);
        for (int level = 0; level < 4; level++) {
            log_line(levels[level], "test", "x");
            assert_int_equal(captured()[0] != '\0', level <= set);
            assert_int_equal(log_is_on(levels[level]), level <= set);
        }
    }
}

static void test_levels_are_parsed_by_name(void **state)
{
    enum log_level level = LOG_WARN;

    (void)state;
    assert_int_equal(log_level_parse("loud", &level), STATUS_BAD_INPUT);
    assert_int_equal(log_level_parse("", &level), STATUS_BAD_INPUT);
    assert_int_equal(log_level_parse("INFO", &level), STATUS_BAD_INPUT);
    assert_int_equal(level, LOG_WARN);
    assert_int_equal(log_level_parse("debug", &level), STATUS_OK);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("error", &level), STATUS_OK);
    assert_int_equal(level, LOG_ERROR);
}

static void test_what_could_forge_a_line_is_escaped(void **state)
{
    const char *head = "2026-01-31T12:00:00.123Z info  test: ";
    const char *said;

    (void)state;
    log_line(LOG_INFO, "test", "%s", "a\nb\r\x1B[1m\x7F\tc");
    said = captured();
    assert_memory_equal(said, head, strlen(head));
    assert_string_equal(said + strlen(head), "a\\x0ab\\x0d\\x1b[1m\\x7f\\x09c\n");

    /* U+009B drives terminals like ESC [ does; the lone FF is no character; the rest is text. */
    log_line(LOG_INFO, "test", "%s", "\xC2\x9B\xFF na\xC3\xAFve \xF0\x9F\x90\xA6");
    assert_string_equal(captured() + strlen(head),
                        "\\xc2\\x9b\\xff na\xC3\xAFve \xF0\x9F\x90\xA6\n");
}

static void test_a_long_message_is_cut_and_says_so(void **state)
{
    const size_t head = strlen("2026-01-31T12:00:00.123Z info  test: ");
    char message[3000];
    const char *said;

    (void)state;
    memset(message, 'm', sizeof(message));
    message[1023] = '\0';
    log_line(LOG_INFO, "test", "%s", message);
    said = captured();
    assert_int_equal(strlen(said), head + 1023 + 1);
    assert_string_equal(said + head + 1020, "mmm\n");

    message[1023] = 'm';
    message[sizeof(message) - 1] = '\0';
    log_line(LOG_INFO, "test", "%s", message);
    said = captured();
    assert_int_equal(strlen(said), head + 1023 + 1);
    assert_string_equal(said + head + 1019, "m...\n");

    memset(message, 1, sizeof(message) - 1);
    log_line(LOG_INFO, "test", "%s", message);
    assert_int_equal(strlen(captured()), head + 4 * 1020 + 3 + 1);
}

static void *write_lines(void *name)
{
    for (int i = 0; i < 200; i++) {
        log_line(LOG_INFO, "test", "%s says something", (const char *)name);
    }
    return NULL;
}

static void test_lines_of_two_threads_do_not_mix(void **state)
{
    char line[128];
    const char *said;
    pthread_t threads[2];
    int count = 0;

    (void)state;
    assert_int_equal(pthread_create(&threads[0], NULL, write_lines, "A"), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, write_lines, "B"), 0);
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    said = captured();
    while (*said != '\0') {
        const size_t size = strcspn(said, "\n");

        assert_true(size < sizeof(line));
        memcpy(line, said, size);
        line[size] = '\0';
        if (strcmp(line, "2026-01-31T12:00:00.123Z info  test: A says something") != 0) {
            assert_string_equal(line, "2026-01-31T12:00:00.123Z info  test: B says something");
        }
        said += size + 1;
        count++;
    }
    assert_int_equal(count, 400);
}

int main(void)
{
#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, capture_start, capture_stop)
    const struct CMUnitTest tests[] = {
        CAPTURED(test_a_line_has_its_time_level_area_and_message),
        CAPTURED(test_lines_below_the_level_are_not_written),
        CAPTURED(test_levels_are_parsed_by_name),
        CAPTURED(test_what_could_forge_a_line_is_escaped),
        CAPTURED(test_a_long_message_is_cut_and_says_so),
        CAPTURED(test_lines_of_two_threads_do_not_mix),
    };
#undef CAPTURED

    return cmocka_run_group_tests(tests, NULL, NULL);
}
