/* Models as Hugging Face folders: the weights and the vocabulary of a GGUF file of the llama
 * family, written the other way, so that the two can be compared bit for bit.
 *
 * Thread: one at a time. The folder owns its files until tiny_folder_destroy(). Whatever should not
 * fail fails a CHECK: tests need no better.
 */
#ifndef PERSONAD_TESTS_SUPPORT_TINY_FOLDER_H
#define PERSONAD_TESTS_SUPPORT_TINY_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/vocabulary.h"
#include "model/hf_files.h"

enum { TINY_FOLDER_FILE_COUNT_MAX = 8 };

struct tiny_folder {
    struct hf_file files[TINY_FOLDER_FILE_COUNT_MAX]; /* bytes owned, names static */
    uint32_t count;
};

struct tiny_folder_spec {
    bool sharded;     /* three files and an index */
    bool rows_as_are; /* Q and K in GGUF's order: wrong on purpose */
    bool merge_pairs; /* merges as pairs, not as texts */
};

void tiny_folder_create(struct bytes gguf_file, const struct tiny_folder_spec *spec,
                        struct tiny_folder *out);
void tiny_folder_destroy(struct tiny_folder *folder);

/* The file of that name, whose bytes may be replaced (the new ones are owned then). */
struct hf_file *tiny_folder_file(struct tiny_folder *folder, const char *name);
void tiny_folder_replace(struct tiny_folder *folder, const char *name, const char *text);

/* Writes the files into a folder that exists. */
void tiny_folder_write(const struct tiny_folder *folder, const char *path);

/* A tokenizer.json of this vocabulary; SentencePiece scores become merges. Owned by the caller. */
struct bytes tiny_folder_tokenizer(const struct vocabulary *vocabulary, bool merge_pairs);

#endif
