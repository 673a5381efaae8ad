/* GGUF v2 and v3 files, read as hostile input: every count and offset is checked against the file's
 * size before it is used, and an error names the file, the key or tensor and the reason.
 *
 * Thread: any, one at a time. The reader owns a copy of the metadata; tensor data stays in the file
 * and is read (never mapped) by gguf_tensor_read(). Format:
 * github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef PERSONAD_MODEL_GGUF_H
#define PERSONAD_MODEL_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "model/tensor.h"

struct gguf;

/* Opens and checks the whole header. */
MUST_USE enum status gguf_open(const char *path, struct error *error, struct gguf **out);

/* The same over bytes in memory (borrowed; must outlive the reader): for fuzzing and tests. */
MUST_USE enum status gguf_open_bytes(struct bytes file, const char *name, struct error *error,
                                     struct gguf **out);
void gguf_close(struct gguf *gguf); /* NULL is fine */

/* What errors call the file. Borrowed. */
const char *gguf_name(const struct gguf *gguf);

/* Typed look-ups. NOT_FOUND when the key is absent, BAD_INPUT when it has another type or is out of
 * range; both fill the error. Integers of any width convert when the value fits. */
MUST_USE enum status gguf_get_u32(const struct gguf *gguf, const char *key, struct error *error,
                                  uint32_t *out);
MUST_USE enum status gguf_get_f64(const struct gguf *gguf, const char *key, struct error *error,
                                  double *out);
MUST_USE enum status gguf_get_bool(const struct gguf *gguf, const char *key, struct error *error,
                                   bool *out);
MUST_USE enum status gguf_get_text(const struct gguf *gguf, const char *key, struct error *error,
                                   struct bytes *out);

/* Arrays: borrowed views. Elements of string arrays are borrowed from the reader. */
MUST_USE enum status gguf_get_text_array(const struct gguf *gguf, const char *key,
                                         struct error *error, const struct bytes **out,
                                         uint64_t *count);
MUST_USE enum status gguf_get_i32_array(const struct gguf *gguf, const char *key,
                                        struct error *error, const int32_t **out, uint64_t *count);
MUST_USE enum status gguf_get_f32_array(const struct gguf *gguf, const char *key,
                                        struct error *error, const float **out, uint64_t *count);

/* NULL when there is none. */
const struct model_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name);
uint64_t gguf_tensor_count(const struct gguf *gguf);
const struct model_tensor *gguf_tensor_at(const struct gguf *gguf, uint64_t index);

/* Reads the tensor's bytes into memory of at least size_bytes. */
MUST_USE enum status gguf_tensor_read(const struct gguf *gguf, const struct model_tensor *tensor,
                                      struct error *error, void *to);

/* SHA-256 of the whole file (read once, cached). */
MUST_USE enum status gguf_hash(struct gguf *gguf, struct error *error, uint8_t out[32]);

#endif
