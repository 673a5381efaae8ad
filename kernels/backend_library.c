#include "kernels/backend_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

enum { PATH_BYTES_MAX = 4096 };

/* POSIX lets dlsym's answer be a function, C does not say how: through a union of both. */
union face_entry {
    void *object;
    const struct backend_face *(*call)(void);
};

static enum status face_check(const char *path, const struct backend_face *face,
                              struct error *error)
{
    if (face->abi != BACKEND_LIBRARY_ABI || face->seam != BACKEND_SEAM) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s was built from another version of personad: build and install both "
                         "together",
                         path);
    }
    return STATUS_OK;
}

enum status backend_library_open(const char *path, struct error *error,
                                 const struct backend_face **out)
{
    union face_entry entry;

    if (access(path, R_OK) != 0) {
        return error_set(error, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_UNSUPPORTED, "%s: %s",
                         path, strerror(errno));
    }
    /* Never closed, see the header. */
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, "%s cannot be loaded: %s", path, dlerror());
    }
    entry.object = dlsym(library, BACKEND_LIBRARY_SYMBOL);
    if (entry.object == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, "%s is no backend of personad: it has no %s",
                         path, BACKEND_LIBRARY_SYMBOL);
    }
    const struct backend_face *face = entry.call();
    TRY(face_check(path, face, error));
    *out = face;
    return STATUS_OK;
}

static bool path_join(const char *folder, const char *name, char out[PATH_BYTES_MAX])
{
    const int size = snprintf(out, PATH_BYTES_MAX, "%s/%s", folder, name);

    return size > 0 && size < PATH_BYTES_MAX;
}

/* What the environment names decides alone: who sets it wants that file, or a sentence. */
static enum status open_named(const char *place, const char *name, struct error *error,
                              const struct backend_face **out)
{
    char path[PATH_BYTES_MAX];
    struct stat facts;
    enum status status;

    if (stat(place, &facts) == 0 && !S_ISDIR(facts.st_mode)) {
        status = backend_library_open(place, error, out);
    } else if (path_join(place, name, path)) {
        status = backend_library_open(path, error, out);
    } else {
        status = error_set(error, STATUS_BAD_INPUT, "the path is too long");
    }
    if (status != STATUS_OK) {
        error_prefix(error, "PERSONAD_BACKEND_PATH");
    }
    return status;
}

enum status backend_library_find(const char *name, const char *const *folders,
                                 uint32_t folder_count, struct error *error,
                                 const struct backend_face **out)
{
    const char *place = getenv("PERSONAD_BACKEND_PATH");
    char path[PATH_BYTES_MAX];

    CHECK(folder_count > 0);
    if (place != NULL && place[0] != '\0') {
        return open_named(place, name, error, out);
    }
    for (uint32_t i = 0; i < folder_count; i++) {
        if (path_join(folders[i], name, path) && access(path, F_OK) == 0) {
            return backend_library_open(path, error, out);
        }
    }
    return error_set(error, STATUS_NOT_FOUND, "%s is neither in %s nor in %s", name, folders[0],
                     folders[folder_count - 1]);
}
