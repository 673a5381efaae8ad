/* Writes GGUF v3 files into memory, for tests: keys and tensors are declared, then the file is laid
 * out and the tensors' bytes are filled in place.
 *
 * Thread: one at a time. The writer owns the file. Being out of memory fails a CHECK: tests need no
 * better. Lying files (for hostile-input tests) are made by changing good ones.
 */
#ifndef PERSONAD_TESTS_SUPPORT_GGUF_WRITER_H
#define PERSONAD_TESTS_SUPPORT_GGUF_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct gguf_writer;

struct gguf_writer *gguf_writer_create(void);
void gguf_writer_destroy(struct gguf_writer *writer); /* NULL is fine */

void gguf_writer_add_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_writer_add_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_writer_add_bool(struct gguf_writer *writer, const char *key, bool value);
void gguf_writer_add_text(struct gguf_writer *writer, const char *key, struct bytes value);
void gguf_writer_add_text_array(struct gguf_writer *writer, const char *key,
                                const struct bytes *values, uint64_t count);
void gguf_writer_add_i32_array(struct gguf_writer *writer, const char *key, const int32_t *values,
                               uint64_t count);
void gguf_writer_add_f32_array(struct gguf_writer *writer, const char *key, const float *values,
                               uint64_t count);

/* Declares a tensor of enum dtype; rows 0: a vector of one dimension. Returns its index. */
uint32_t gguf_writer_add_tensor(struct gguf_writer *writer, struct bytes name, uint32_t dtype,
                                uint64_t cols, uint64_t rows);

/* Lays the file out, tensors zeroed. Nothing can be added afterwards. */
struct bytes gguf_writer_finish(struct gguf_writer *writer);

/* The tensor's bytes inside the finished file. */
uint8_t *gguf_writer_tensor(struct gguf_writer *writer, uint32_t index, uint64_t *size_bytes);

#endif
