#include "model/model.h"

#include <sys/stat.h>

#include "base/check.h"
#include "base/memory.h"
#include "model/architecture.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/hf_folder.h"
#include "model/model_file.h"

struct model {
    struct model_file file; /* owned */
    const struct architecture *architecture;
    struct model_config config;
    double *inverse_frequency; /* owned; config points at it */
    struct token_table tokens;
    uint8_t hash[MODEL_HASH_BYTES];
};

static enum status model_read(struct model *model, struct error *error)
{
    const struct model_format *format = model->file.format;
    const void *reader = model->file.reader;
    struct model_config *config = &model->config;

    TRY(format->config_read(reader, error, &model->architecture, config));
    TRY(config_check_tensors(&model->file, model->architecture, error, config));
    TRY(format->rope_read(reader, config, error, &model->inverse_frequency));
    config->inverse_frequency = model->inverse_frequency;
    TRY(format->tokens_read(reader, config->vocabulary_count, error, &model->tokens));
    return format->hash(model->file.reader, error, model->hash);
}

/* What is not found is a key or file that must be there; the sentence names it. */
static enum status model_needs(enum status status, struct error *error)
{
    if (status != STATUS_NOT_FOUND) {
        return status;
    }
    if (error != NULL) {
        error->status = STATUS_BAD_INPUT;
    }
    return STATUS_BAD_INPUT;
}

enum status model_open_file(struct model_file file, struct error *error, struct model **out)
{
    struct model *model = memory_alloc(1, sizeof(*model));

    if (model == NULL) {
        model_file_close(&file);
        return error_set(error, STATUS_MEMORY, "out of memory while the model is opened");
    }
    model->file = file;
    const enum status status = model_needs(model_read(model, error), error);
    if (status != STATUS_OK) {
        model_close(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

static enum status model_open_folder(const char *path, const struct hf_file *files, uint32_t count,
                                     struct error *error, struct model **out)
{
    struct hf_folder *folder = NULL;

    TRY(model_needs(hf_folder_open(path, files, count, error, &folder), error));
    return model_open_file((struct model_file){&hf_format, folder}, error, out);
}

enum status model_open(const char *path, struct error *error, struct model **out)
{
    struct gguf *gguf = NULL;
    struct stat about;

    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        return model_open_folder(path, NULL, 0, error, out);
    }
    TRY(gguf_open(path, error, &gguf));
    return model_open_file((struct model_file){&gguf_format, gguf}, error, out);
}

enum status model_open_files(const struct hf_file *files, uint32_t count, const char *name,
                             struct error *error, struct model **out)
{
    CHECK(files != NULL);
    return model_open_folder(name, files, count, error, out);
}

enum status model_open_bytes(struct bytes file, const char *name, struct error *error,
                             struct model **out)
{
    struct gguf *gguf = NULL;

    TRY(gguf_open_bytes(file, name, error, &gguf));
    return model_open_file((struct model_file){&gguf_format, gguf}, error, out);
}

void model_close(struct model *model)
{
    if (model == NULL) {
        return;
    }
    token_table_finish(&model->tokens);
    memory_free(model->inverse_frequency);
    model_file_close(&model->file);
    memory_free(model);
}

const struct model_config *model_config(const struct model *model)
{
    return &model->config;
}

const struct vocabulary *model_vocabulary(const struct model *model)
{
    return &model->tokens.vocabulary;
}

const uint8_t *model_hash(const struct model *model)
{
    return model->hash;
}

const struct model_file *model_file(const struct model *model)
{
    return &model->file;
}

const struct architecture *model_architecture(const struct model *model)
{
    return model->architecture;
}
