/* Uses malloc, not base/memory.h: fault injection is for the code under test. */
#include "tests/support/vocabulary_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "tests/fixtures/tokenizer/"

struct reader {
    const char *path;
    struct bytes file;
    size_t at;
};

static void *must_alloc(size_t count, size_t bytes)
{
    void *block = calloc(count + 1, bytes);
    if (block == NULL) {
        perror("calloc");
        exit(1);
    }
    return block;
}

static struct bytes read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct bytes read = {NULL, 0};
    uint8_t *data;
    long size;

    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) {
        perror(path);
        exit(1);
    }
    rewind(file);
    data = must_alloc((size_t)size, 1);
    read = bytes_of(data, fread(data, 1, (size_t)size, file));
    fclose(file);
    return read;
}

static const uint8_t *take(struct reader *reader, size_t size)
{
    const uint8_t *data = reader->file.data + reader->at;

    if (reader->file.size - reader->at < size) {
        fprintf(stderr, "%s: ends early\n", reader->path);
        exit(1);
    }
    reader->at += size;
    return data;
}

static uint32_t take_u32(struct reader *reader)
{
    return bytes_load_u32(take(reader, 4));
}

void text_fixture_load(struct text_fixture *texts)
{
    struct reader reader = {FOLDER "texts.bin", read_file(FOLDER "texts.bin"), 0};

    texts->file = reader.file;
    texts->count = take_u32(&reader);
    texts->texts = must_alloc(texts->count, sizeof *texts->texts);
    for (uint32_t i = 0; i < texts->count; i++) {
        const uint32_t size = take_u32(&reader);
        texts->texts[i] = bytes_of(take(&reader, size), size);
    }
}

void text_fixture_free(struct text_fixture *texts)
{
    free((void *)texts->file.data);
    free(texts->texts);
}

/* Names that are two older names joined, and merges as the model file writes them. */
static void read_tokens(struct reader *reader, struct vocabulary_fixture *fixture,
                        const uint8_t *pairs)
{
    const uint32_t token_count = fixture->vocabulary.token_count;
    const size_t names_bytes = 8u << 20;
    size_t used = 0;
    uint32_t merge = 0;

    fixture->names = must_alloc(names_bytes, 1);
    for (uint32_t id = 0; id < token_count; id++) {
        uint32_t size;
        fixture->types[id] = *take(reader, 1);
        size = bytes_load_u16(take(reader, 2));
        if (size != 0xffff) {
            fixture->tokens[id] = bytes_of(take(reader, size), size);
        } else {
            const struct bytes left = fixture->tokens[bytes_load_u16(pairs + 4 * (size_t)merge)];
            const struct bytes right =
                fixture->tokens[bytes_load_u16(pairs + 4 * (size_t)merge + 2)];
            uint8_t *name = fixture->names + used;

            /* "left right" for the merge, then the two without the space for the token. */
            used += 2 * (left.size + right.size) + 1;
            if (used > names_bytes) {
                fprintf(stderr, "%s: its names are longer than the reader's room\n", reader->path);
                exit(1);
            }
            memcpy(name, left.data, left.size);
            name[left.size] = ' ';
            memcpy(name + left.size + 1, right.data, right.size);
            fixture->merges[merge++] = bytes_of(name, left.size + right.size + 1);
            name += left.size + right.size + 1;
            memcpy(name, left.data, left.size);
            memcpy(name + left.size, right.data, right.size);
            fixture->tokens[id] = bytes_of(name, left.size + right.size);
        }
        if (fixture->scores != NULL) {
            memcpy(&fixture->scores[id], take(reader, 4), 4);
        }
    }
    if (merge != fixture->vocabulary.merge_count) {
        fprintf(stderr, "%s: %u merges name no token\n", reader->path,
                fixture->vocabulary.merge_count - merge);
        exit(1);
    }
}

static void read_expected(struct reader *reader, uint32_t count, struct expected_ids *expected)
{
    for (uint32_t i = 0; i < count; i++) {
        expected[i].count = take_u32(reader);
        expected[i].hash = bytes_load_u64(take(reader, 8));
    }
}

void vocabulary_fixture_load(const char *name, uint32_t text_count,
                             struct vocabulary_fixture *fixture)
{
    char path[256];
    struct reader reader = {path, {NULL, 0}, 0};
    struct vocabulary *vocabulary = &fixture->vocabulary;
    const uint8_t *pairs;
    uint32_t pre_bytes;

    snprintf(path, sizeof path, FOLDER "%s.bin", name);
    reader.file = read_file(path);
    memset(fixture, 0, sizeof *fixture);
    fixture->file = reader.file;
    vocabulary->kind = *take(&reader, 1) == 0 ? VOCABULARY_BPE : VOCABULARY_SPM;
    vocabulary->add_space_prefix = *take(&reader, 1) != 0;
    pre_bytes = *take(&reader, 1);
    vocabulary->pre = bytes_of(take(&reader, pre_bytes), pre_bytes);
    vocabulary->unknown = take_u32(&reader);
    vocabulary->bos = vocabulary->eos = vocabulary->eot = TOKEN_NONE;
    vocabulary->eom = vocabulary->pad = TOKEN_NONE;
    vocabulary->merge_count = take_u32(&reader);
    pairs = take(&reader, 4 * (size_t)vocabulary->merge_count);
    vocabulary->token_count = take_u32(&reader);
    fixture->tokens = must_alloc(vocabulary->token_count, sizeof *fixture->tokens);
    fixture->merges = must_alloc(vocabulary->merge_count, sizeof *fixture->merges);
    fixture->types = must_alloc(vocabulary->token_count, 1);
    if (vocabulary->kind == VOCABULARY_SPM) {
        fixture->scores = must_alloc(vocabulary->token_count, sizeof *fixture->scores);
    }
    read_tokens(&reader, fixture, pairs);
    fixture->expected = must_alloc(2 * (size_t)text_count, sizeof *fixture->expected);
    read_expected(&reader, 2 * text_count, fixture->expected);
    vocabulary->tokens = fixture->tokens;
    vocabulary->merges = fixture->merges;
    vocabulary->types = fixture->types;
    vocabulary->scores = fixture->scores;
}

void vocabulary_fixture_free(struct vocabulary_fixture *fixture)
{
    free((void *)fixture->file.data);
    free(fixture->tokens);
    free(fixture->merges);
    free(fixture->types);
    free(fixture->scores);
    free(fixture->names);
    free(fixture->expected);
}
