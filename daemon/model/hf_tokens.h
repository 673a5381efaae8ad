/* The vocabulary of a Hugging Face folder: tokenizer.json, with the ids, flags and template that
 * tokenizer_config.json, config.json and generation_config.json add.
 *
 * Thread: any, one at a time. The table owns all its texts. Differences to the reference: an added
 * token's lstrip, rstrip and single_word are not followed (special tokens come from frames only),
 * and ids that no token has (padded vocabularies) get a name of their own and are never drawn from
 * text.
 */
#ifndef PERSONAD_MODEL_HF_TOKENS_H
#define PERSONAD_MODEL_HF_TOKENS_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/hf_files.h"
#include "model/token_table.h"

/* token_count: as many as the embedding has rows. BAD_INPUT, UNSUPPORTED, NOT_FOUND, LIMIT or
 * MEMORY; the error names the file and the key. */
MUST_USE enum status hf_tokens_read(const struct hf_files *files, uint32_t token_count,
                                    struct error *error, struct token_table *out);

#endif
