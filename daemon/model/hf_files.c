#include "model/hf_files.h"

#include <linux/limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "limits.h"

enum { NAME_BYTES_MAX = 255 };

enum status hf_files_init(struct hf_files *files, const char *folder, const struct hf_file *memory,
                          uint32_t memory_count)
{
    size_t size = strlen(folder);

    while (size > 1 && folder[size - 1] == '/') {
        size--;
    }
    *files = (struct hf_files){memory_copy_text(folder, size), memory, memory_count};
    return files->folder == NULL ? STATUS_MEMORY : STATUS_OK;
}

void hf_files_finish(struct hf_files *files)
{
    memory_free(files->folder);
    files->folder = NULL;
}

static const struct hf_file *find_in_memory(const struct hf_files *files, const char *name)
{
    for (uint32_t i = 0; i < files->memory_count; i++) {
        if (strcmp(files->memory[i].name, name) == 0) {
            return &files->memory[i];
        }
    }
    return NULL;
}

/* False when the path is longer than a path can be. */
static bool write_path(const struct hf_files *files, const char *name, char path[PATH_MAX])
{
    const int size = snprintf(path, PATH_MAX, "%s/%s", files->folder, name);

    return size > 0 && size < PATH_MAX;
}

bool hf_files_has(const struct hf_files *files, const char *name)
{
    char path[PATH_MAX];
    struct stat about;

    if (files->memory != NULL) {
        return find_in_memory(files, name) != NULL;
    }
    return write_path(files, name, path) && stat(path, &about) == 0;
}

enum status hf_files_open(const struct hf_files *files, const char *name, struct error *error,
                          struct source *out)
{
    char path[PATH_MAX];

    if (!hf_files_has(files, name) || !write_path(files, name, path)) {
        return error_set(error, STATUS_NOT_FOUND, "%s: holds no %s", files->folder, name);
    }
    if (files->memory != NULL) {
        if (source_open_bytes(find_in_memory(files, name)->bytes, path, out) != STATUS_OK) {
            return error_set(error, STATUS_MEMORY, "%s: out of memory", path);
        }
        return STATUS_OK;
    }
    return source_open(path, error, out);
}

enum status hf_files_read(const struct hf_files *files, const char *name, struct error *error,
                          struct bytes *out)
{
    struct source source = {.fd = -1};
    enum status status = STATUS_OK;
    uint8_t *bytes = NULL;

    TRY(hf_files_open(files, name, error, &source));
    if (source.size > MODEL_JSON_BYTES_MAX) {
        status =
            error_set_limit(error, "MODEL_JSON_BYTES_MAX", MODEL_JSON_BYTES_MAX,
                            "%s: is larger than %d bytes", source.name, (int)MODEL_JSON_BYTES_MAX);
        goto done;
    }
    bytes = memory_alloc(source.size, 1);
    if (bytes == NULL) {
        status = error_set(error, STATUS_MEMORY, "%s: out of memory", source.name);
        goto done;
    }
    status = source_read(&source, 0, source.size, error, bytes);
    if (status != STATUS_OK) {
        goto done;
    }
    *out = bytes_of(bytes, source.size);
    bytes = NULL; /* handed over */
done:
    memory_free(bytes);
    source_close(&source);
    return status;
}

bool hf_files_name_is_plain(struct bytes name)
{
    const struct bytes ending = bytes_of_text(".safetensors");

    if (name.size <= ending.size || name.size > NAME_BYTES_MAX || name.data[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] <= 0x20 || name.data[i] > 0x7e || name.data[i] == '/') {
            return false;
        }
    }
    return bytes_equal(bytes_of(name.data + name.size - ending.size, ending.size), ending);
}
