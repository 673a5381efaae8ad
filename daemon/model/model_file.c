#include "model/model_file.h"

const struct model_tensor *model_file_tensor(const struct model_file *file, enum tensor_role role,
                                             uint32_t layer)
{
    char name[TENSOR_NAME_BYTES_MAX];

    if (!architecture_tensor_name(file->format->naming, role, layer, name)) {
        return NULL;
    }
    return file->format->tensor_find(file->reader, name);
}

const char *model_file_name(const struct model_file *file)
{
    return file->format->name(file->reader);
}

enum status model_file_tensor_read(const struct model_file *file, const struct model_tensor *tensor,
                                   struct error *error, void *to)
{
    return file->format->tensor_read(file->reader, tensor, error, to);
}

uint64_t model_file_tensor_count(const struct model_file *file)
{
    return file->format->tensor_count(file->reader);
}

const struct model_tensor *model_file_tensor_at(const struct model_file *file, uint64_t index)
{
    return file->format->tensor_at(file->reader, index);
}

void model_file_close(struct model_file *file)
{
    if (file->reader != NULL) {
        file->format->close(file->reader);
    }
    file->reader = NULL;
}
