/* Shared libraries that are no backend of this build, each wrong in one way, for
 * tests/kernels/test_backend_library.c. PLANTED says which. */
#include "kernels/backend_library.h"

enum { GOOD, OTHER_ABI, OTHER_SEAM };

#ifdef PLANTED

const struct backend_face *personad_backend_library(void);

const struct backend_face *personad_backend_library(void)
{
    static const struct backend_face face = {
        .abi = BACKEND_LIBRARY_ABI + (PLANTED == OTHER_ABI),
        .seam = BACKEND_SEAM + (PLANTED == OTHER_SEAM),
        .architectures = "planted",
    };

    return &face;
}

#else

int personad_something_else(void);

int personad_something_else(void)
{
    return GOOD;
}

#endif
