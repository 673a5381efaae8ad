/* What lets a test of the emulator run on a card: `backend_cuda_ops` are those of the library that
 * the daemon loads, $PERSONAD_CUDA_LIBRARY, so every step is a real one. Kernels that a test plants
 * still run on the host; tests that reach into the backend's memory from outside are left out by
 * PERSONAD_CARD_SKIP, a pattern as cmocka reads it.
 *
 * Without a card the program ends with 77 and says so.
 */
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/backend_library.h"

enum { CARD_NONE = 77 };

/* Not const here: filled before main(). The tests see it as the constant that it is from then on. */
extern "C" {
extern struct backend_ops backend_cuda_ops;
struct backend_ops backend_cuda_ops;
}

__attribute__((constructor)) static void card_find(void)
{
    const char *library = getenv("PERSONAD_CUDA_LIBRARY");
    const char *skip = getenv("PERSONAD_CARD_SKIP");
    const struct backend_face *face = NULL;
    struct error error = {};
    uint32_t count = 0;

    enum status status =
        backend_library_open(library == NULL ? BACKEND_LIBRARY_CUDA : library, &error, &face);
    if (status == STATUS_OK) {
        status = face->device_count(&error, &count);
    }
    if (status != STATUS_OK || count == 0) {
        (void)fprintf(stderr, "no card: %s\n",
                      error.text[0] == '\0' ? "the driver sees no NVIDIA device" : error.text);
        exit(CARD_NONE);
    }
    backend_cuda_ops = *face->ops;
    if (skip != NULL && skip[0] != '\0') {
        cmocka_set_skip_filter(skip);
    }
}
