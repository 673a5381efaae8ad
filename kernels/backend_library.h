/* A backend in a shared library, opened while the daemon starts.
 *
 * The library shows one symbol, BACKEND_LIBRARY_SYMBOL, a function that gives its face. Program and
 * library are built from one source: the face carries the sizes of all that passes between them,
 * and a library of another build is refused with a sentence instead of being called.
 *
 * Thread: before the engine thread starts, and on it. A library stays open until the process ends,
 * for the driver keeps threads of its own in it. Reads as C11 and as C++17.
 */
#ifndef PERSONAD_KERNELS_BACKEND_LIBRARY_H
#define PERSONAD_KERNELS_BACKEND_LIBRARY_H

#include "base/error.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/product_trial.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    BACKEND_LIBRARY_ABI = 2, /* of struct backend_face itself */
    BACKEND_DEVICE_NAME_BYTES_MAX = 128,
};

#define BACKEND_LIBRARY_SYMBOL "personad_backend_library"
#define BACKEND_LIBRARY_CUDA "libpersonad_cuda.so"

/* Sizes of what passes through the seam, folded into one number. Trials are part of the face. */
#define BACKEND_ARGS_SIZE(op) +sizeof(struct op##_args)
#define BACKEND_SEAM                                                                      \
    (((((sizeof(struct backend_ops) * UINT64_C(8191) + sizeof(struct backend_settings)) * \
            UINT64_C(8191) +                                                              \
        sizeof(struct plan)) *                                                            \
           UINT64_C(8191) +                                                               \
       sizeof(struct plan_sample)) *                                                      \
          UINT64_C(8191) +                                                                \
      sizeof(struct sample_result)) *                                                     \
     UINT64_C(8191) BACKEND_OP_MAP(BACKEND_ARGS_SIZE))

/* One card, or what plays one. */
struct backend_device {
    char name[BACKEND_DEVICE_NAME_BYTES_MAX];
    uint32_t capability; /* 90: compute capability 9.0 */
    uint32_t multiprocessor_count;
    uint64_t memory_bytes;
    uint64_t memory_free_bytes; /* when asked */
};

/* What a library shows. The first two members never move. */
struct backend_face {
    uint32_t abi;
    uint64_t seam;
    const char *architectures; /* that it has code for: "sm_80 sm_90a" */
    const struct backend_ops *ops;
    /* UNSUPPORTED: no driver, or one that is too old; the sentence says which. */
    enum status (*device_count)(struct error *error, uint32_t *out);
    /* NOT_FOUND: no card of that number. */
    enum status (*device_describe)(uint32_t ordinal, struct error *error,
                                   struct backend_device *out);
    const struct product_trial_ops *trial; /* product_trial.h */
};

/* Opens `path`, checks its face. NOT_FOUND: there is no such file. UNSUPPORTED: it cannot be loaded
 * here, or is no backend of this build. */
MUST_USE enum status backend_library_open(const char *path, struct error *error,
                                          const struct backend_face **out);

/* Opens the library of that name from the first of these places that has it:
 * $PERSONAD_BACKEND_PATH (a file, or a folder), folders[0], folders[1] ... NOT_FOUND names them. */
MUST_USE enum status backend_library_find(const char *name, const char *const *folders,
                                          uint32_t folder_count, struct error *error,
                                          const struct backend_face **out);

#ifdef __cplusplus
}
#endif

#endif
