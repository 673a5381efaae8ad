/* Goal: what nvcc made loads where there is no card and no driver, shows what it has code for, and
 * tells in a sentence what is missing instead of ending the process.
 * Method: the library itself, opened as the daemon does; its path is the first argument. Where the
 * machine has a card, its description is looked at instead. */
#include "kernels/backend_library.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *library_path;

static bool driver_is_there(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    return driver != NULL && dlclose(driver) == 0;
}

static void it_loads_without_a_card(void **state)
{
    const struct backend_face *face = NULL;
    struct error error = {0};
    uint32_t count = 0;

    (void)state;
    assert_int_equal(backend_library_open(library_path, &error, &face), STATUS_OK);
    assert_string_equal(face->ops->name, "cuda");
    assert_string_equal(face->architectures, CUDA_ARCHITECTURES);
    const enum status status = face->device_count(&error, &count);
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_UNSUPPORTED);
        assert_non_null(
            strstr(error.text, driver_is_there() ? "driver" : "there is no NVIDIA driver"));
    }
    if (count > 0) {
        struct backend_device device;

        assert_int_equal(face->device_describe(0, &error, &device), STATUS_OK);
        assert_in_range(device.capability, 10, 999);
        assert_true(device.memory_bytes >= device.memory_free_bytes);
    }
}

static void a_backend_without_a_card_is_a_sentence(void **state)
{
    const struct backend_face *face = NULL;
    struct backend_settings settings = {.row_count_max = 1, .vocabulary_count = 1};
    struct backend *backend = NULL;
    struct error error = {0};
    uint32_t count = 0;

    (void)state;
    assert_int_equal(backend_library_open(library_path, &error, &face), STATUS_OK);
    if (face->device_count(&error, &count) == STATUS_OK && count > 0) {
        skip();
    }
    const enum status status = face->ops->create(&settings, &error, &backend);
    assert_true(status == STATUS_UNSUPPORTED || status == STATUS_NOT_FOUND);
    assert_null(backend);
    assert_true(strlen(error.text) > 10);
}

int main(int argument_count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_loads_without_a_card),
        cmocka_unit_test(a_backend_without_a_card_is_a_sentence),
    };

    library_path = argument_count > 1 ? arguments[1] : "";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
