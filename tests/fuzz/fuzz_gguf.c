/* Goal: no model file, however wrong, makes the readers touch what is not theirs.
 *
 * Method: read the bytes as a GGUF file and as a model; then look at all that they hand out: every
 * tensor's bytes, every token and merge, all frequencies. Seeds: tests/fuzz/corpus/gguf, made by
 * scripts/fixtures/gguf_seeds.py. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "model/gguf.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

/* Keeps the compiler from leaving the reading out. */
static volatile uint32_t sum_of_all;

/* Reads every byte, so that a view that reaches too far is noticed. */
static uint32_t sum_of(struct bytes view)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < view.size; i++) {
        sum += view.data[i];
    }
    return sum;
}

static uint32_t read_tensors(const struct gguf *gguf, size_t byte_count)
{
    uint32_t sum = 0;

    for (uint64_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct model_tensor *tensor = gguf_tensor_at(gguf, i);
        CHECK(tensor->offset <= byte_count);
        CHECK(tensor->size_bytes <= byte_count - tensor->offset);
        uint8_t *to = memory_alloc(1, tensor->size_bytes);
        if (to != NULL && gguf_tensor_read(gguf, tensor, NULL, to) == STATUS_OK) {
            sum += sum_of(bytes_of(to, tensor->size_bytes));
        }
        memory_free(to);
    }
    return sum;
}

static uint32_t read_model(const struct model *model)
{
    const struct model_config *config = model_config(model);
    const struct vocabulary *vocabulary = model_vocabulary(model);
    uint32_t sum = 0;

    CHECK(config->head_count % config->kv_head_count == 0);
    CHECK(config->vocabulary_count == vocabulary->token_count);
    for (uint32_t i = 0; i < config->rope_pair_count; i++) {
        CHECK(config->inverse_frequency[i] > 0);
    }
    for (uint32_t i = 0; i < vocabulary->token_count; i++) {
        sum += sum_of(vocabulary->tokens[i]) + vocabulary->types[i];
        sum += vocabulary->scores != NULL && vocabulary->scores[i] > 0 ? 1 : 0;
    }
    for (uint32_t i = 0; i < vocabulary->merge_count; i++) {
        sum += sum_of(vocabulary->merges[i]);
    }
    return sum + sum_of(vocabulary->chat_template) + sum_of(vocabulary->pre);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    const struct bytes file = bytes_of(bytes, byte_count);
    struct error error = {.status = STATUS_OK};
    struct gguf *gguf = NULL;
    struct model *model = NULL;

    if (gguf_open_bytes(file, "fuzz.gguf", &error, &gguf) == STATUS_OK) {
        sum_of_all += read_tensors(gguf, byte_count);
    } else {
        CHECK(error.status != STATUS_OK);
        CHECK(error.text[0] != '\0');
    }
    if (model_open_bytes(file, "fuzz.gguf", &error, &model) == STATUS_OK) {
        sum_of_all += read_model(model);
    }
    model_close(model);
    gguf_close(gguf);
    return 0;
}
