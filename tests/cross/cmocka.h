/* As much of cmocka as the tests of the kernels use, for cross builds: Debian has the library for
 * the machine at hand only. The same names, and the same end of a run: 0, or how many failed.
 *
 * Thread: one. A failed assertion jumps back to the runner, as cmocka's does.
 */
#ifndef PERSONAD_TESTS_CROSS_CMOCKA_H
#define PERSONAD_TESTS_CROSS_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

enum { CROSS_PASSED, CROSS_FAILED, CROSS_SKIPPED };

static jmp_buf cross_end;

__attribute__((unused, noreturn)) static void cross_stop(int how)
{
    longjmp(cross_end, how);
}

__attribute__((unused, noreturn, format(printf, 1, 2))) static void cross_fail(const char *format,
                                                                               ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    (void)printf("\n");
    cross_stop(CROSS_FAILED);
}

#define cross_check(condition, text)                           \
    do {                                                       \
        if (!(condition)) {                                    \
            cross_fail("%s:%d: %s", __FILE__, __LINE__, text); \
        }                                                      \
    } while (0)

#define assert_true(c) cross_check(c, #c)
#define assert_false(c) cross_check(!(c), "not " #c)
#define assert_null(p) cross_check((p) == NULL, #p " is NULL")
#define assert_non_null(p) cross_check((p) != NULL, #p " is not NULL")
#define assert_int_equal(a, b) cross_check((long long)(a) == (long long)(b), #a " == " #b)
#define assert_int_not_equal(a, b) cross_check((long long)(a) != (long long)(b), #a " != " #b)
#define assert_ptr_equal(a, b) cross_check((const void *)(a) == (const void *)(b), #a " == " #b)
#define assert_ptr_not_equal(a, b) cross_check((const void *)(a) != (const void *)(b), #a " != " #b)
#define assert_string_equal(a, b) cross_check(strcmp(a, b) == 0, #a " is " #b)
#define assert_string_not_equal(a, b) cross_check(strcmp(a, b) != 0, #a " is not " #b)
#define assert_memory_equal(a, b, n) cross_check(memcmp(a, b, n) == 0, #a " has the bytes of " #b)
#define assert_memory_not_equal(a, b, n) \
    cross_check(memcmp(a, b, n) != 0, #a " has not the bytes of " #b)
#define assert_in_range(v, low, high)                                      \
    cross_check((unsigned long long)(v) >= (unsigned long long)(low) &&    \
                    (unsigned long long)(v) <= (unsigned long long)(high), \
                #v " in [" #low ", " #high "]")
#define fail_msg(...) cross_fail(__VA_ARGS__)
#define skip() cross_stop(CROSS_SKIPPED)
#define print_message(...) (void)printf(__VA_ARGS__)

#define test_malloc(size) malloc(size)
#define test_calloc(count, size) calloc(count, size)
#define test_free(pointer) free(pointer)

#define cmocka_unit_test(function) \
    {                              \
#function, function        \
    }
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    cmocka_run_group_tests(tests, setup, teardown)
#define cmocka_run_group_tests(tests, setup, teardown) \
    cross_run(tests, sizeof(tests) / sizeof((tests)[0]))

__attribute__((unused)) static int cross_run(const struct CMUnitTest *tests, size_t count)
{
    static const char *const words[] = {"passed", "FAILED", "skipped"};
    static size_t counts[3];

    for (volatile size_t i = 0; i < count; i++) {
        void *state = NULL;
        const int how = setjmp(cross_end);

        if (how == 0) {
            tests[i].run(&state);
        }
        counts[how]++;
        (void)printf("%s %s\n", words[how], tests[i].name);
        (void)fflush(stdout);
    }
    return (int)counts[CROSS_FAILED];
}

#endif
