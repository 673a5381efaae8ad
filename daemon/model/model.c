#include "model/model.h"

#include "base/memory.h"
#include "model/architecture.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/token_table.h"

struct model {
    struct gguf *gguf; /* owned */
    const struct architecture *architecture;
    struct model_config config;
    double *inverse_frequency; /* owned; config points at it */
    struct token_table tokens;
    uint8_t hash[MODEL_HASH_BYTES];
};

static enum status model_find_architecture(struct model *model, struct error *error)
{
    struct bytes name = bytes_of_text("");

    TRY(gguf_get_text(model->gguf, "general.architecture", error, &name));
    model->architecture = architecture_find(name);
    if (model->architecture == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: the architecture '%.*s' is not supported; supported: %s",
                         gguf_name(model->gguf), name.size < 32 ? (int)name.size : 32,
                         (const char *)name.data, architecture_list());
    }
    return STATUS_OK;
}

static enum status model_read(struct model *model, struct error *error)
{
    struct model_config *config = &model->config;

    TRY(model_find_architecture(model, error));
    TRY(config_read(model->gguf, model->architecture, error, config));
    TRY(config_check_tensors(model->gguf, model->architecture, error, config));
    TRY(config_read_rope(model->gguf, config, error, &model->inverse_frequency));
    config->inverse_frequency = model->inverse_frequency;
    TRY(token_table_init(model->gguf, config->vocabulary_count, error, &model->tokens));
    return gguf_hash(model->gguf, error, model->hash);
}

/* Takes the reader over, also when it fails. */
static enum status model_create(struct gguf *gguf, struct error *error, struct model **out)
{
    struct model *model = memory_alloc(1, sizeof(*model));

    if (model == NULL) {
        gguf_close(gguf);
        return error_set(error, STATUS_MEMORY, "out of memory while the model is opened");
    }
    model->gguf = gguf;
    enum status status = model_read(model, error);
    if (status == STATUS_NOT_FOUND) {
        status = STATUS_BAD_INPUT; /* a key that must be there; the sentence names it */
        if (error != NULL) {
            error->status = status;
        }
    }
    if (status != STATUS_OK) {
        model_close(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

enum status model_open(const char *path, struct error *error, struct model **out)
{
    struct gguf *gguf = NULL;

    TRY(gguf_open(path, error, &gguf));
    return model_create(gguf, error, out);
}

enum status model_open_bytes(struct bytes file, const char *name, struct error *error,
                             struct model **out)
{
    struct gguf *gguf = NULL;

    TRY(gguf_open_bytes(file, name, error, &gguf));
    return model_create(gguf, error, out);
}

void model_close(struct model *model)
{
    if (model == NULL) {
        return;
    }
    token_table_finish(&model->tokens);
    memory_free(model->inverse_frequency);
    gguf_close(model->gguf);
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

const struct gguf *model_gguf(const struct model *model)
{
    return model->gguf;
}

const struct architecture *model_architecture(const struct model *model)
{
    return model->architecture;
}
