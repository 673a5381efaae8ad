/* tiny_model FOLDER: writes a tiny random model of every weight type and both tokenisers there:
 * tiny-<type>-<bpe|spm>.gguf. With names as further arguments, only those: "Q4_1-bpe". "hf" is a
 * Hugging Face folder, tiny-hf. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "support/tiny_folder.h"
#include "support/tiny_model.h"

enum { TINY_SEED = 1 };

static bool wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return count == 0;
}

static bool write_model(const char *folder, const char *name, const struct tiny_spec *spec)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/tiny-%s.gguf", folder, name);
    FILE *stream = fopen(path, "wb");

    if (stream == NULL) {
        (void)fprintf(stderr, "tiny_model: %s: %s\n", path, strerror(errno));
        return false;
    }
    const struct bytes file = tiny_model_create(spec);
    const bool whole = fwrite(file.data, 1, file.size, stream) == file.size;
    const bool closed = fclose(stream) == 0;
    memory_free((void *)(uintptr_t)file.data);
    if (!whole || !closed) {
        (void)fprintf(stderr, "tiny_model: %s: %s\n", path, strerror(errno));
    }
    return whole && closed;
}

/* The BF16 model as a folder of several files. */
static bool write_folder(const char *folder)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_BF16, VOCABULARY_BPE, TINY_SEED);
    const struct tiny_folder_spec sharded = {.sharded = true};
    const struct bytes file = tiny_model_create(&spec);
    struct tiny_folder files;
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/tiny-hf", folder);
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        (void)fprintf(stderr, "tiny_model: %s: %s\n", path, strerror(errno));
        return false;
    }
    tiny_folder_create(file, &sharded, &files);
    tiny_folder_write(&files, path);
    tiny_folder_destroy(&files);
    memory_free((void *)(uintptr_t)file.data);
    return true;
}

int main(int argc, char **argv)
{
    static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) DTYPE_##name,
        DTYPE_MAP(X)
#undef X
    };
    const enum vocabulary_kind kinds[] = {VOCABULARY_BPE, VOCABULARY_SPM};

    if (argc < 2) {
        (void)fprintf(stderr, "usage: tiny_model FOLDER [TYPE-bpe|TYPE-spm]...\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        for (int kind = 0; kind < 2; kind++) {
            const struct tiny_spec spec = tiny_spec_of(dtypes[i], kinds[kind], TINY_SEED);
            char name[64];
            (void)snprintf(name, sizeof(name), "%s-%s", dtype_name(dtypes[i]),
                           kind == 0 ? "bpe" : "spm");
            if (wanted(name, argc - 2, argv + 2) && !write_model(argv[1], name, &spec)) {
                return 1;
            }
        }
    }
    return wanted("hf", argc - 2, argv + 2) && !write_folder(argv[1]) ? 1 : 0;
}
