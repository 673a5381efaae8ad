/* What the smaller files of a Hugging Face folder add to a vocabulary: which ids begin and end a
 * text, whether a context begins with one, and the chat template.
 *
 * Thread: any, one at a time.
 */
#ifndef PERSONAD_MODEL_HF_IDS_H
#define PERSONAD_MODEL_HF_IDS_H

#include "base/error.h"
#include "base/status.h"
#include "model/hf_json.h"
#include "model/token_table.h"

/* `tokenizer` is the root of tokenizer.json; the table has its tokens already. BAD_INPUT, LIMIT,
 * MEMORY; the error names the file and the key. */
MUST_USE enum status hf_ids_read(const struct hf_files *files, const struct hf_object *tokenizer,
                                 struct error *error, struct token_table *table);

/* The id of a token written exactly so, or TOKEN_NONE. */
uint32_t hf_ids_find(const struct vocabulary *vocabulary, struct bytes name);

#endif
