/* Goal: no Hugging Face folder, however wrong, makes the readers touch what is not theirs.
 *
 * Method: the input is an archive of files (a byte that says which, four of length, the bytes,
 * again and again); it is opened as a model, and all that it hands out is looked at: every tensor's
 * bytes, every token and merge, all frequencies. Seeds: tests/fuzz/corpus/hf, made by
 * scripts/fixtures/hf_seeds.py. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "model/hf_files.h"
#include "model/model.h"
#include "model/model_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

enum { FILE_COUNT_MAX = 8, HEAD_BYTES = 5 };

static const char *const names[FILE_COUNT_MAX] = {"config.json",
                                                  "tokenizer.json",
                                                  "tokenizer_config.json",
                                                  "generation_config.json",
                                                  "model.safetensors",
                                                  "chat_template.jinja",
                                                  "model.safetensors.index.json",
                                                  "a.safetensors"};

/* Keeps the compiler from leaving the reading out. */
static volatile uint32_t sum_of_all;

static uint32_t sum_of(struct bytes view)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < view.size; i++) {
        sum += view.data[i];
    }
    return sum;
}

/* Copies, so that a view that reaches past its file leaves its block. */
static uint32_t unpack(struct bytes archive, struct hf_file files[FILE_COUNT_MAX])
{
    uint32_t count = 0;

    for (size_t at = 0; count < FILE_COUNT_MAX && archive.size - at >= HEAD_BYTES; count++) {
        const uint32_t claimed = bytes_load_u32(archive.data + at + 1);
        const size_t rest = archive.size - at - HEAD_BYTES;
        const size_t size = claimed < rest ? claimed : rest;
        uint8_t *copy = memory_alloc(1, size);
        CHECK(copy != NULL);
        memcpy(copy, archive.data + at + HEAD_BYTES, size);
        files[count] =
            (struct hf_file){names[archive.data[at] % FILE_COUNT_MAX], bytes_of(copy, size)};
        at += HEAD_BYTES + size;
    }
    return count;
}

static uint32_t read_tensors(const struct model_file *file)
{
    uint32_t sum = 0;

    for (uint64_t i = 0; i < model_file_tensor_count(file); i++) {
        const struct model_tensor *tensor = model_file_tensor_at(file, i);
        uint8_t *to = memory_alloc(1, tensor->size_bytes);
        CHECK(to != NULL);
        CHECK(model_file_tensor_read(file, tensor, NULL, to) == STATUS_OK);
        sum += sum_of(bytes_of(to, tensor->size_bytes));
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
    }
    for (uint32_t i = 0; i < vocabulary->merge_count; i++) {
        sum += sum_of(vocabulary->merges[i]);
    }
    for (uint32_t i = 0; i < vocabulary->end_count; i++) {
        CHECK(vocabulary->ends[i] < vocabulary->token_count);
    }
    return sum + sum_of(vocabulary->chat_template) + sum_of(vocabulary->pre);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    struct hf_file files[FILE_COUNT_MAX] = {{.name = "none"}};
    const uint32_t count = unpack(bytes_of(bytes, byte_count), files);
    struct error error = {.status = STATUS_OK};
    struct model *model = NULL;

    if (model_open_files(files, count, "fuzz", &error, &model) == STATUS_OK) {
        sum_of_all += read_tensors(model_file(model)) + read_model(model);
    } else {
        CHECK(error.status != STATUS_OK);
        CHECK(error.text[0] != '\0');
    }
    model_close(model);
    for (uint32_t i = 0; i < count; i++) {
        memory_free((void *)(uintptr_t)files[i].bytes.data);
    }
    return 0;
}
