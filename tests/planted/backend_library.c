/* Shared libraries that are no backend of this build, each wrong in one way, for
 * tests/kernels/test_backend_library.c. PLANTED_ABI and PLANTED_SEAM are added to what is right;
 * without them the symbol is missing. */
#include "kernels/backend_library.h"

#ifdef PLANTED_ABI

const struct backend_face *personad_backend_library(void);

const struct backend_face *personad_backend_library(void)
{
    static const struct backend_face face = {
        .abi = BACKEND_LIBRARY_ABI + PLANTED_ABI,
        .seam = BACKEND_SEAM + PLANTED_SEAM,
        .architectures = "planted",
    };

    return &face;
}

#else

int personad_something_else(void);

int personad_something_else(void)
{
    return 0;
}

#endif
