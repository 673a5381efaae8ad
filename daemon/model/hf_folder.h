/* A model in the layout of Hugging Face: a folder with config.json, tokenizer.json and the weights
 * in model.safetensors, or in several files that model.safetensors.index.json lists. Read as
 * hostile input: every offset, shape, name and number is checked, and an error names the file and
 * the key or tensor.
 *
 * Thread: any, one at a time. The folder owns its open files; model_file.h tells how it is used
 * (hf_format, its reader a struct hf_folder).
 *
 * Rows of Q and K: this layout rotates element i of a head with element i + half. Where the
 * architecture's rope style is ROPE_ADJACENT the rows are read into that order, so that the same
 * weights give the same bits from either format.
 */
#ifndef PERSONAD_MODEL_HF_FOLDER_H
#define PERSONAD_MODEL_HF_FOLDER_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/hf_files.h"

struct hf_folder;
struct model_format;

extern const struct model_format hf_format;

/* Opens the folder, or the files in memory when there are any (borrowed, must outlive it). */
MUST_USE enum status hf_folder_open(const char *path, const struct hf_file *memory,
                                    uint32_t memory_count, struct error *error,
                                    struct hf_folder **out);
void hf_folder_close(struct hf_folder *folder); /* NULL is fine */

#endif
