/* Goal: a CHECK that holds costs nothing, and one that does not says where and ends the process.
 * Method: a child process runs the check, and its standard error and its exit are read.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"

/* Runs CHECK(value == 7) in a child; its wait status, and what it said. */
static int run_check(int value, char *said, size_t said_bytes)
{
    const struct rlimit no_core = {0, 0};
    int ends[2];
    int result = 0;
    ssize_t size;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        setrlimit(RLIMIT_CORE, &no_core);
        CHECK(value == 7);
        _exit(0);
    }
    close(ends[1]);
    size = read(ends[0], said, said_bytes - 1);
    said[size > 0 ? size : 0] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &result, 0), child);
    return result;
}

static void test_a_check_that_holds_goes_on(void **state)
{
    char said[512];
    const int result = run_check(7, said, sizeof(said));

    (void)state;
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
    assert_string_equal(said, "");
}

static void test_a_check_that_fails_names_itself_and_aborts(void **state)
{
    char said[512];
    const int result = run_check(8, said, sizeof(said));

    (void)state;
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGABRT);
    assert_non_null(strstr(said, "test_check.c:"));
    assert_non_null(strstr(said, "value == 7"));
}

static void test_the_condition_is_evaluated_once(void **state)
{
    int count = 0;

    (void)state;
    CHECK(++count > 0);
    assert_int_equal(count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_check_that_holds_goes_on),
        cmocka_unit_test(test_a_check_that_fails_names_itself_and_aborts),
        cmocka_unit_test(test_the_condition_is_evaluated_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
