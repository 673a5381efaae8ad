/* Reads tests/fixtures/tokenizer/ (format: scripts/fixtures/tokenizer.py).
 *
 * Thread: one. Everything is owned by the fixture until its free function. A file that is missing
 * or cut ends the program: a test without its fixture has tested nothing.
 */
#ifndef PERSONAD_TESTS_SUPPORT_VOCABULARY_FIXTURE_H
#define PERSONAD_TESTS_SUPPORT_VOCABULARY_FIXTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/vocabulary.h"

struct text_fixture {
    struct bytes file;   /* owned */
    struct bytes *texts; /* owned; views of the file */
    uint32_t count;
};

/* What the reference says of one text: how many ids, and their FNV-1a 64 as u32 little endian. */
struct expected_ids {
    uint32_t count;
    uint64_t hash;
};

struct vocabulary_fixture {
    struct vocabulary vocabulary;
    struct bytes file;             /* owned */
    struct bytes *tokens;          /* owned */
    struct bytes *merges;          /* owned */
    uint8_t *types;                /* owned */
    float *scores;                 /* owned; NULL for BPE */
    uint8_t *names;                /* owned; names that are not in the file */
    struct expected_ids *expected; /* owned; two a text: plain, special */
};

void text_fixture_load(struct text_fixture *texts);
void text_fixture_free(struct text_fixture *texts);

/* name: "smollm", "gpt2", "llama3", "qwen2", "spm", "spm_unknown". */
void vocabulary_fixture_load(const char *name, uint32_t text_count,
                             struct vocabulary_fixture *fixture);
void vocabulary_fixture_free(struct vocabulary_fixture *fixture);

#endif
