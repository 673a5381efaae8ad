/* Goal: a library that is missing, is no library, is no backend or is one of another build is
 * refused with a sentence that names it; the right one is opened, from the right place.
 * Method: libraries of tests/planted, each wrong in one way, in the folder that PLANTED_FOLDER
 * names. */
#include "kernels/backend_library.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_refused(const char *path, enum status status, const char *words)
{
    const struct backend_face *face = NULL;
    struct error error = {0};

    assert_int_equal(backend_library_open(path, &error, &face), status);
    assert_null(face);
    assert_non_null(strstr(error.text, path));
    if (strstr(error.text, words) == NULL) {
        fail_msg("'%s' does not say '%s'", error.text, words);
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    expect_refused("/nowhere/libpersonad_cuda.so", STATUS_NOT_FOUND, "No such file");
}

static void a_text_is_no_library(void **state)
{
    (void)state;
    expect_refused("tests/kernels/test_backend_library.c", STATUS_UNSUPPORTED, "cannot be loaded");
}

static void a_library_without_the_symbol_is_no_backend(void **state)
{
    (void)state;
    expect_refused(PLANTED_FOLDER "/libplanted_stranger.so", STATUS_UNSUPPORTED,
                   "no backend of personad");
}

static void a_library_of_another_build_is_refused(void **state)
{
    (void)state;
    expect_refused(PLANTED_FOLDER "/libplanted_abi.so", STATUS_UNSUPPORTED, "another version");
    expect_refused(PLANTED_FOLDER "/libplanted_seam.so", STATUS_UNSUPPORTED, "another version");
}

static void the_right_one_is_opened(void **state)
{
    const struct backend_face *face = NULL;
    struct error error = {0};

    (void)state;
    assert_int_equal(backend_library_open(PLANTED_FOLDER "/libplanted_good.so", &error, &face),
                     STATUS_OK);
    assert_string_equal(face->architectures, "planted");
}

/* The first folder that has it; the environment decides alone, also where it is wrong. */
static void places_are_searched_in_order(void **state)
{
    const char *const folders[] = {"/nowhere", PLANTED_FOLDER};
    const struct backend_face *face = NULL;
    struct error error = {0};

    (void)state;
    assert_int_equal(unsetenv("PERSONAD_BACKEND_PATH"), 0);
    assert_int_equal(backend_library_find("libplanted_good.so", folders, 2, &error, &face),
                     STATUS_OK);
    assert_int_equal(backend_library_find("libplanted_good.so", folders, 1, &error, &face),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, "/nowhere"));

    assert_int_equal(setenv("PERSONAD_BACKEND_PATH", PLANTED_FOLDER, 1), 0);
    assert_int_equal(backend_library_find("libplanted_good.so", folders, 1, &error, &face),
                     STATUS_OK);
    assert_int_equal(setenv("PERSONAD_BACKEND_PATH", PLANTED_FOLDER "/libplanted_good.so", 1), 0);
    assert_int_equal(backend_library_find("any", folders, 1, &error, &face), STATUS_OK);
    assert_int_equal(setenv("PERSONAD_BACKEND_PATH", "/elsewhere", 1), 0);
    assert_int_equal(backend_library_find("libplanted_good.so", folders, 2, &error, &face),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(error.text, "PERSONAD_BACKEND_PATH: /elsewhere/libplanted_good.so"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_text_is_no_library),
        cmocka_unit_test(a_library_without_the_symbol_is_no_backend),
        cmocka_unit_test(a_library_of_another_build_is_refused),
        cmocka_unit_test(the_right_one_is_opened),
        cmocka_unit_test(places_are_searched_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
