/* One safetensors file, read as hostile input: its header is bounded, every tensor has the bytes
 * that its type and shape ask for, and tensors lie one after another to the end of the file.
 *
 *   OFFSET  BYTES  MEANING
 *        0      8  n, little endian, at most SAFETENSORS_HEADER_BYTES_MAX
 *        8      n  JSON: {name: {dtype, shape, data_offsets: [from, to)}}, and __metadata__
 *    8 + n    ...  the tensors' bytes; data_offsets count from here
 *
 * Thread: any, one at a time. Format: github.com/huggingface/safetensors
 */
#ifndef PERSONAD_MODEL_SAFETENSORS_H
#define PERSONAD_MODEL_SAFETENSORS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/status.h"
#include "model/source.h"
#include "model/tensor.h"

struct safetensors {
    struct source source;         /* owned */
    struct arena names;           /* owned */
    struct model_tensor *tensors; /* owned, by offset */
    uint64_t tensor_count;
};

/* Takes the source over, also when it fails. BAD_INPUT, UNSUPPORTED (a dtype other than F32, F16
 * and BF16), LIMIT, IO, MEMORY; the error names the file and the tensor. */
MUST_USE enum status safetensors_init(struct safetensors *file, struct source source,
                                      struct error *error);
void safetensors_finish(struct safetensors *file); /* a zeroed one is not open; finish it once */

#endif
