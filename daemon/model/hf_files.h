/* The files of a Hugging Face folder: in a directory, or in memory for tests and fuzzing.
 *
 * Thread: any, one at a time. Names are those of this format, or were checked with
 * hf_files_name_is_plain(): nothing outside the folder is ever opened, except through links that
 * stand in it (the download cache is made of them).
 */
#ifndef PERSONAD_MODEL_HF_FILES_H
#define PERSONAD_MODEL_HF_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "model/source.h"

/* One file in memory. Borrowed. */
struct hf_file {
    const char *name;
    struct bytes bytes;
};

struct hf_files {
    char *folder;                 /* owned; for errors, and where to look unless `memory` is set */
    const struct hf_file *memory; /* borrowed, must outlive this; NULL: a directory */
    uint32_t memory_count;
};

/* MEMORY. A trailing slash is left out of the folder's name. */
MUST_USE enum status hf_files_init(struct hf_files *files, const char *folder,
                                   const struct hf_file *memory, uint32_t memory_count);
void hf_files_finish(struct hf_files *files); /* a zeroed one is fine */

bool hf_files_has(const struct hf_files *files, const char *name);

/* NOT_FOUND, IO or MEMORY; the error names the file. */
MUST_USE enum status hf_files_open(const struct hf_files *files, const char *name,
                                   struct error *error, struct source *out);

/* The whole of a text file of at most MODEL_JSON_BYTES_MAX: free data with memory_free(). As
 * hf_files_open(), and LIMIT. */
MUST_USE enum status hf_files_read(const struct hf_files *files, const char *name,
                                   struct error *error, struct bytes *out);

/* True for the name of a safetensors file that stands in the folder itself. */
bool hf_files_name_is_plain(struct bytes name);

#endif
